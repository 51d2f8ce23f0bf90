package render

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/render/dotenv"
)

func TestEncode_RefusesKeysThatBecomeLoaderVariables(t *testing.T) {
	for name, tc := range map[string]struct {
		pairs map[string]any
		keys  Keys
		want  string // the variable, or "" where it is written
	}{
		"a key":                       {map[string]any{"LD_PRELOAD": "/x.so"}, Keys{}, "LD_PRELOAD"},
		"by capitals":                 {map[string]any{"ld_preload": "/x.so"}, Keys{Upper: true}, "LD_PRELOAD"},
		"by a prefix":                 {map[string]any{"OPTIONS": "-r x"}, Keys{Prefix: "NODE_"}, "NODE_OPTIONS"},
		"by the mapping":              {map[string]any{"LD-PRELOAD": "/x.so"}, Keys{MapInvalid: true}, "LD_PRELOAD"},
		"by flattening":               {map[string]any{"LD": map[string]any{"PRELOAD": "/x.so"}}, Keys{}, "LD_PRELOAD"},
		"by flattening and mapping":   {map[string]any{"LD": map[string]any{"PRELOAD-X": "/x.so"}}, Keys{MapInvalid: true}, "LD_PRELOAD_X"},
		"a pattern that matches":      {map[string]any{"PATH": "/x"}, Keys{Only: []string{"P*", "????"}}, "PATH"},
		"a list of another key":       {map[string]any{"LD": map[string]any{"PRELOAD": "/x.so"}}, Keys{Only: []string{"LD"}}, "LD_PRELOAD"},
		"renamed away":                {map[string]any{"PATH": "/x"}, Keys{Rename: map[string]string{"PATH": "SEARCH"}}, ""},
		"listed by name":              {map[string]any{"PATH": "/x"}, Keys{Only: []string{"PATH"}}, ""},
		"listed by name, in capitals": {map[string]any{"path": "/x"}, Keys{Only: []string{"path"}, Upper: true}, ""},
		"renamed to it":               {map[string]any{"p": "/x"}, Keys{Rename: map[string]string{"p": "PATH"}}, ""},
		"allowed":                     {map[string]any{"LD_PRELOAD": "/x.so"}, Keys{AllowLoader: true}, ""},
		"left out":                    {map[string]any{"PATH": "/x", "K": "v"}, Keys{Except: []string{"PATH"}}, ""},
		"not one":                     {map[string]any{"path": "/x", "MY_PATH": "/y"}, Keys{}, ""},
	} {
		for _, format := range DataFormats() {
			_, err := Encoding{Format: Format(format), Keys: tc.keys}.Encode(kv2("x/y", 1, tc.pairs))
			if tc.want == "" || format != string(FormatDotenv) && format != string(FormatShell) {
				assert.NoError(t, err, "%s as %s", name, format)
				continue
			}
			if assert.ErrorContains(t, err, `variable "`+tc.want+`" `, "%s as %s", name, format) {
				assert.Equal(t, loaderHint, HintOf(err))
				assert.ErrorContains(t, err, `secret "x/y"`)
			}
		}
	}
}

func TestDotenvFunction_RefusesLoaderVariablesThatTheTemplateDoesNotName(t *testing.T) {
	const refused = `variable "LD_PRELOAD" refused: loads code into every program`
	pairs := map[string]any{"LD_PRELOAD": "/x.so", "K": "v", "nested": map[string]any{"PATH": "/x"}}
	for text, want := range map[string]string{
		`{{ dotenv . }}`:         refused,
		`{{ dotenv "shell" . }}`: refused,
		`{{ range $k, $v := . }}{{ scratch.MapSet "e" $k $v }}{{ end }}{{ scratch.Get "e" | dotenv }}`:             refused,
		`{{ range $k, $v := . }}{{ scratch.MapSet "e" ($k | toUpper) $v }}{{ end }}{{ scratch.Get "e" | dotenv }}`: refused,
		`{{ if eq "LD_PRELOAD" .K }}{{ end }}{{ env "LD_PRELOAD" }}{{ dotenv . }}`:                                 refused,
		`{{ dotenv .nested }}`:                                                   `variable "PATH" refused: decides which programs are run`,
		`{{ dotenv (sprig_dict "LD_PRELOAD" .LD_PRELOAD) }}`:                     "",
		`{{ dotenv (sprig_pick . "K" "LD_PRELOAD") }}`:                           "",
		`{{ dotenv (sprig_omit . "LD_PRELOAD") }}`:                               "",
		`{{ scratch.MapSet "e" "LD_PRELOAD" .K }}{{ scratch.Get "e" | dotenv }}`: "",
		`{{ .K | sprig_set . "LD_PRELOAD" | dotenv }}`:                           "",
		`{{ toJSON . }}`: "",
	} {
		tmpl, err := Parse("x", text, Options{})
		require.NoError(t, err)
		_, err = tmpl.Execute(Input{
			Secret: func(Request) *Secret { return nil }, Env: func(string) (string, bool) { return "", false }, Dialect: dotenv.Compose, Dot: kv2("x/y", 1, pairs),
		})
		if want == "" {
			assert.NoError(t, err, text)
		} else {
			assert.ErrorContains(t, err, want, text)
			assert.Contains(t, HintOf(err), "name it in the template", text)
		}
	}
}

func TestEncode_HintsOnceAtSettingsThatWriteTheOtherKeysToo(t *testing.T) {
	secret := kv2("x/y", 1, map[string]any{"PATH": "/x", "LD_PRELOAD": "/x.so", "K": "v"})
	_, err := Encoding{Format: FormatDotenv}.Encode(secret)
	require.EqualError(t, err, `secret "x/y" cannot be written as dotenv: variable "LD_PRELOAD" refused: loads code into every program, variable "PATH" refused: decides which programs are run`)
	require.Equal(t, loaderHint, HintOf(err))

	for _, keys := range []Keys{{Only: []string{"*", "PATH", "LD_PRELOAD"}}, {AllowLoader: true}} {
		out, err := Encoding{Format: FormatDotenv, Keys: keys}.Encode(secret)
		require.NoError(t, err)
		assert.Equal(t, "K=v\nLD_PRELOAD=/x.so\nPATH=/x\n", string(out))
	}
}
