package render

import (
	"encoding/json"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/render/dotenv"
	"github.com/smarteros/deaddrop/render/secret"
)

// likeConsulTemplate are templates and what consul-template 0.41 makes of them.
var likeConsulTemplate = map[string]string{
	`{{ base64Decode "aGVsbG8=" }} {{ base64Encode "hello" }}`:                                                                                      "hello aGVsbG8=",
	`{{ base64URLDecode "_-8=" | base64URLEncode }}`:                                                                                                "_-8=",
	`{{ if "ab" | contains "b" }}yes{{ end }}{{ if in "ab" "c" }}no{{ end }}`:                                                                       "yes",
	`{{ $l := "a,b,c" | split "," }}{{ in $l "b" }} {{ $l | contains "x" }}`:                                                                        "true false",
	`{{ or (env "DEADDROP_NOT_SET") "12345" }}`:                                                                                                     "12345",
	`{{ envOrDefault "DEADDROP_NOT_SET" "default" | toUpper }}`:                                                                                     "DEFAULT",
	`{{ define "c" }}<{{ . }}>{{ end }}{{ executeTemplate "c" 42 }}`:                                                                                "<42>",
	`{{ scratch.MapSet "e" "foo/bar" "a" }}{{ scratch.MapSet "e" "foo/baz" "b" }}{{ scratch.Get "e" | explodeMap | toYAML }}`:                       "foo:\n  bar: a\n  baz: b",
	`{{ scratch.Set "k" 1 }}{{ scratch.SetX "k" 2 }}{{ scratch.Get "k" }} {{ scratch.Key "x" }}`:                                                    "1 false",
	`{{ scratch.MapSetX "m" "b" 2 }}{{ scratch.MapSetX "m" "b" 3 }}{{ scratch.MapSet "m" "a" 1 }}{{ range scratch.MapValues "m" }}{{ . }}{{ end }}`: "12",
	`{{ "a\n\nb\n" | indent 2 }}`:                                                                                                                   "  a\n\n  b\n",
	`{{ range loop 3 }}x{{ end }}{{ range $i := loop 5 8 }}-{{ $i }}{{ end }}`:                                                                      "xxx-5-6-7",
	`{{ "a b" | split " " | join "," }}`:                                                                                                            "a,b",
	`{{ "  hi " | trimSpace }}{{ "!!hi!!" | trim "!" }}{{ "hello" | trimPrefix "he" }}{{ "hello" | trimSuffix "lo" }}`:                              "hihillohel",
	`{{ "true" | parseBool }} {{ "1.5" | parseFloat }} {{ "-7" | parseInt }} {{ "7" | parseUint }}`:                                                 "true 1.5 -7 7",
	`{{ with $d := "{\"a\":{\"n\":5432,\"s\":\"x\"}}" | parseJSON }}{{ $d.a.n }} {{ $d.a.s }} {{ printf "%.0f" $d.a.n }}{{ end }}`:                  "5432 x 5432",
	`{{ with $d := "a: {i: 5, l: [x, z]}" | parseYAML }}{{ $d.a.i }} {{ index $d.a.l 1 }}{{ end }}`:                                                 "5 z",
	`{{ if "foo.bar" | regexMatch "foo([.a-z]+)" }}y{{ end }}{{ "foo.bar" | regexReplaceAll "foo([.a-z]+)" "$1" }}`:                                 "y.bar",
	`{{ "foo.bar" | replaceAll "." "_" }}`:                                                                                                          "foo_bar",
	`{{ "bladibla" | sha256Hex }}`:                                                                                                                  "54cf4c66bcabb5c20e25331c01dd600b73369e97a947861bd8d3a0e0b8b3d70b",
	`{{ "myString" | md5sum }}`:                                                                                                                     "91c65b6feeb5a6ad66b30e2ebd9405e1",
	`{{ hmacSHA256Hex "somemessage" "somekey" }}`:                                                                                                   "6116e95f2827172aa6ef8b22b883f6a77e966aefc129c6b8228ebd0aac74e98d",
	`{{ range $k, $v := "foo:bar\nbaz:bat\n" | splitToMap "\n" ":" }}{{ $k }}={{ $v }};{{ end }}`:                                                   "baz=bat;foo=bar;",
	`{{ "hello big world" | toTitle }} {{ "Ab" | toLower }} {{ "Ab" | toUpper }}`:                                                                   "Hello Big World ab AB",
	`{{ add 1 2 }} {{ 1 | add 2 }} {{ subtract 2 5 }} {{ 5 | subtract 2 }} {{ multiply 2 3 }} {{ 10 | divide 2 }} {{ modulo 2 5 }} {{ minimum 2 5 }} {{ 5 | maximum 2 }} {{ add 1.5 1 }}`: "3 3 3 3 6 5 1 2 5 2.5",
	`{{ $a := "{\"a\":{\"x\":1},\"b\":2}" | parseJSON }}{{ $b := "{\"a\":{\"y\":3},\"b\":4}" | parseJSON }}{{ $b | mergeMap $a | toJSON }} {{ $b | mergeMapWithOverride $a | toJSON }}`:   `{"a":{"x":1,"y":3},"b":2} {"a":{"x":1,"y":3},"b":4}`,
	`{{ "{\"a\":{\"b\":\"1\"},\"c\":\"x\"}" | parseJSON | toTOML }}`:                                                                             "c = \"x\"\n\n[a]\n  b = \"1\"",
	`{{ "{\"q\":\"a?b=c&d=e\"}" | parseJSON | toUnescapedJSON }}`:                                                                                `{"q":"a?b=c&d=e"}`,
	`{{ "{\"q\":1}" | parseJSON | toJSONPretty }}`:                                                                                               "{\n  \"q\": 1\n}",
	`{{ "a-b" | sprig_replace "-" "_" | sprig_quote }} {{ sprig_default "x" "" }} {{ sprig_list 1 2 | sprig_join "," }} {{ sprig_b64enc "hi" }}`: `"a_b" x 1,2 aGk=`,
	`{{ sprig_ternary "y" "n" true }}{{ "x" | sprig_repeat 3 }} {{ sprig_dict "k" "v" | toJSON }} {{ sprig_trunc 2 "abc" }}`:                     `yxxx {"k":"v"} ab`,
}

func TestHelpersGiveWhatConsulTemplateGives(t *testing.T) {
	for text, want := range likeConsulTemplate {
		res, err := run(t, text, Options{})
		if assert.NoError(t, err, text) {
			assert.Equal(t, want, string(res.Content), text)
		}
	}
}

var moment = time.Date(2026, 2, 3, 4, 5, 6, 0, time.FixedZone("CET", 3600))

// run executes a template with everything that an input may hold.
func run(t *testing.T, text string, o Options) (Result, error) {
	t.Helper()
	tmpl, err := Parse("x.ctmpl", text, o)
	require.NoError(t, err, text)
	env := map[string]string{"HOME": "/root", "EMPTY": ""}
	return tmpl.Execute(Input{
		Secret: vault(nexa, smtp, &Secret{Path: "secret/tenant", Data: secret.Of(map[string]any{"keys": []any{"a", "b/"}})}),
		Env:    func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		File: func(path string) (string, error) {
			if path != "/etc/motd" {
				return "", fs.ErrNotExist
			}
			return "hello\n", nil
		},
		Now: moment, Tenant: "rut-76832940-3", Service: "nexa", Dialect: dotenv.Portable,
	})
}

func TestFunctionsOfTheInput(t *testing.T) {
	for text, want := range map[string]string{
		`{{ env "HOME" }}{{ env "NONE" }}{{ mustEnv "HOME" }}{{ envOrDefault "EMPTY" "x" }}{{ envOrDefault "NONE" "x" }}`: "/root/rootx",
		`{{ timestamp }} {{ timestamp "2006-01-02" }} {{ timestamp "unix" }} {{ sprig_now | sprig_unixEpoch }}`:           "2026-02-03T03:05:06Z 2026-02-03 1770087906 1770087906",
		`{{ file "/etc/motd" | trimSpace }}`:                                                                                   "hello",
		`{{ tenant }}/{{ service }}`:                                                                                           "rut-76832940-3/nexa",
		`{{ range secrets "secret/tenant/" }}{{ . }},{{ end }}`:                                                                "a,b/,",
		`{{ with secret "secret/tenant/demo/smtp" }}{{ dotenv .Data.data }}{{ end }}`:                                          "host=mail.example\nport=587",
		`{{ dotenv "shell" (parseJSON "{\"A\":{\"B\":[\"x y\",true]}}") }}`:                                                    "A_B_0='x y'\nA_B_1=true",
		`X={{ "a b" | envQuote "shell" }} {{ envQuote "compose" 5 }}`:                                                          "X='a b' 5",
		`{{ index (parseJSON "[1,2]") 1 }} {{ parseJSON "12345678901234567890" }} {{ parseJSON "9007199254740991" | toJSON }}`: "2 12345678901234567890 9007199254740991",
		`{{ with secret "secret/tenant/demo/nexa" }}{{ toYAML .Data.data.db }}{{ add .Data.data.count 0 }}{{ end }}`:           "<html>: '&'\npassword: " + marker + "12345678901234567890",
		`{{ range $k, $v := byKey (parseJSON "{\"a/b\":1,\"a/c\":2,\"d\":3}") }}{{ $k }}{{ len $v }}{{ end }}`:                 "a2",
		`{{ $x := parseTOML "a = 1" }}{{ $x.a }}`:                                                                              "1",
		`{{ containsAll (split "," "a,b") "cab" }}{{ containsNone (split "," "x") "cab" }}{{ containsAny (split "," "x,a") "cab" }}{{ containsNotAll (split "," "x,a") "cab" }}`: "truetruetruetrue",
	} {
		res, err := run(t, text, Options{})
		if assert.NoError(t, err, text) {
			assert.Equal(t, want, string(res.Content), text)
		}
	}
	tmpl, err := Parse("x", `{{ file "/from-windows" }}`, Options{})
	require.NoError(t, err)
	res, err := tmpl.Execute(Input{File: func(string) (string, error) { return "\ufeffA=1\r\n", nil }})
	require.NoError(t, err)
	assert.Equal(t, "\ufeffA=1\r\n", string(res.Content), "what a file holds is its content, with a byte order mark, too")
	res, err = run(t, `{{ file "/etc/motd" }}{{ range secrets "secret/tenant/" }}{{ end }}`, Options{})
	require.NoError(t, err)
	assert.Equal(t, []string{"/etc/motd"}, res.Reads)
	assert.Equal(t, []Request{List("secret/tenant")}, res.Uses)
}

func TestFunctionErrorsHoldNoValue(t *testing.T) {
	const with = `{{ with secret "secret/tenant/demo/nexa" }}{{ $s := .Data.data.api_key }}{{ $l := .Data.data.list }}{{ $m := .Data.data.db }}`
	for text, want := range map[string]string{
		`{{ parseJSON $s }}`:                     "the value is not JSON",
		`{{ parseYAML (printf "%s: [" $s) }}`:    "the value is not YAML",
		`{{ parseTOML $s }}`:                     "the value is not TOML",
		`{{ parseInt $s }}`:                      "the value is not a whole number",
		`{{ parseFloat $s }}`:                    "the value is not a number",
		`{{ parseBool $s }}`:                     "the value is not true or false",
		`{{ regexMatch (printf "%s(" $s) "x" }}`: "not a regular expression",
		`{{ add 1 $s }}`:                         "are not both numbers",
		`{{ divide 0 1 }}`:                       "division by zero",
		`{{ loop $s }}`:                          "loop wants whole numbers",
		`{{ loop 100000000 }}`:                   "loop counts to 1000000 at most",
		`{{ range $s }}{{ end }}`:                "range can't iterate over text",
		`{{ join "," $m }}`:                      "join wants a list",
		`{{ envQuote "portable" $s }}{{ envQuote "nonsense" $s }}`: "nonsense",
		`{{ envQuote "systemd" (printf "%s\xff" $s) }}`:            "systemd",
		`{{ envQuote "systemd" $l }}`:                              "not a list",
		`{{ dotenv $s }}`:                                          "dotenv wants pairs",
		`{{ explode (parseJSON "{\"a\":1,\"a/b\":2}") }}`:          "both a value and the beginning",
		`{{ indent "x" $s }}`:                                      "indent wants a number",
		`{{ mustEnv "NONE" }}`:                                     "the environment variable is not set, or empty (at {{mustEnv \"NONE\"}})",
		`{{ file "/etc/shadow" }}`:                                 "no such file",
		`{{ eq $m $l }}`:                                           "error calling eq: a map and a list cannot be compared",
		`{{ html $s | call }}`:                                     "error calling call: it does not take such values",
		`{{ range $i, $n := (parseYAML "a: 5").a }}{{ end }}`:      "a range over a number has one variable only",
		`{{ $s | envQuote $s }}`:                                   "the dialect is not known",
		`{{ executeTemplate $s }}`:                                 "there is no template of this name",
		`{{ writeToFile "x" "" "" $s "y" }}`:                       "wants a mode",
		`{{ loop "-9223372036854775807" 10 }}`:                     "loop counts to",
		`{{ executeTemplate "none" }}`:                             `there is no template of this name`,
		`{{ scratch.Set "a" $s }}{{ scratch.MapSet "a" "b" 1 }}`:   "is not a map",
		`{{ sprig_mustRegexMatch (printf "%s(" $s) "x" }}`:         "not a regular expression",
		`{{ sprig_fail $s }}`:                                      "it does not take this value",
		`{{ sprig_mustFromJson $s }}`:                              "the value is not JSON",
		`{{ sprig_first $s }}`:                                     "it does not take this value",
		`{{ $s | writeToFile "/x" "" "" "9" }}`:                    `a mode such as "0600"`,
		`{{ $s | writeToFile "/x" "" "" "0777" }}`:                 `write one such as "0640"`,
		`{{ $s | writeToFile "/x" "" "" "416" }}`:                  `write one such as "0640"`,
		`{{ $s | writeToFile "/x" "" "" "0" }}`:                    `write one such as "0640"`,
		`{{ $s | writeToFile "/x" "" "" "0600" "shred" }}`:         "the flags of writeToFile",
	} {
		res, err := run(t, with+text+`{{ end }}`, Options{})
		if assert.ErrorContains(t, err, want, text) {
			assert.NotContains(t, err.Error(), marker, text)
			assert.Contains(t, err.Error(), "x.ctmpl:1:", text)
		}
		assert.Nil(t, res.Content)
		assert.Empty(t, res.Files)
	}
}

func TestFunctionsOfOtherWorldsSayWhyTheyAreNotHere(t *testing.T) {
	for text, want := range map[string]string{
		"a\n{{ range services }}{{ end }}":              `x:2:10: function "services" reads Consul, which is not supported here; only Vault is`,
		"a\n\n  {{ key \"x\" | toUpper }}":              `x:3:6: function "key" reads Consul`,
		"{{ with nomadVar \"x\" }}{{ end }}":            `x:1:9: function "nomadVar" reads Nomad`,
		"{{ plugin \"x\" }}":                            `x:1:4: function "plugin" runs a program`,
		"{{ spew_dump . }}":                             `x:1:4: function "spew_dump" shows secrets`,
		"{{ sockaddr \"GetPrivateIP\" }}":               `x:1:4: function "sockaddr" is not supported`,
		"{{ sprig_randAlphaNum 5 }}":                    `x:1:4: function "sprig_randAlphaNum" is not supported here`,
		"{{ sprig_env \"HOME\" }}":                      `the same secrets must give the same file`,
		"{{ sprig_uper \"x\" }}":                        `x:1:4: function "sprig_uper" not defined`,
		"{{ toUper \"x\" }}":                            `x:1:4: function "toUper" not defined; did you mean "toUpper"?`,
		"{{ secret \"x/y\" }} {{ a }}\n{{ b }}":         `x:1:23: function "a" not defined`,
		"{{ if true }}{{ (printf (nope)).x }}{{ end }}": `x:1:26: function "nope" not defined`,
	} {
		_, err := Parse("x", text, Options{})
		var at *ParseError
		require.ErrorAs(t, err, &at, text)
		assert.ErrorContains(t, err, want, text)
	}
}

func TestWriteToFileHandsFilesOverInsteadOfWritingThem(t *testing.T) {
	res, err := run(t, `a{{ "k1" | writeToFile "/p/key" "root" "0" "0400" }}{{ "c1" | writeToFile "/p/cert" "" "" "" }}{{ "c2" | writeToFile "/p/cert" "" "" "0644" "append,newline" }}b`, Options{})
	require.NoError(t, err)
	assert.Equal(t, "ab", string(res.Content))
	assert.Equal(t, []SideFile{
		{Path: "/p/key", User: "root", Group: "0", Mode: 0o400, Content: []byte("k1")},
		{Path: "/p/cert", Mode: 0o600, Content: []byte("c1c2\n")},
	}, res.Files)
	res, err = run(t, `{{ "k1" | writeToFile "/p/key" "" "" "" }}{{ with secret "secret/unknown" }}{{ end }}`, Options{})
	require.NoError(t, err)
	assert.Empty(t, res.Files, "nothing is handed over before all secrets are known")
}

func TestLenientTemplatesWriteNoValueAsVaultAgentDoes(t *testing.T) {
	const text = `{{ with secret "secret/tenant/demo/smtp" }}{{ .Data.data.host }} {{ .Data.data.none }} {{ index .Data.data "none" }}{{ if .Data.data.none }}x{{ end }}{{ end }}`
	res, err := run(t, text, Options{Lenient: true})
	require.NoError(t, err)
	assert.Equal(t, "mail.example <no value> <no value>", string(res.Content))
	_, err = run(t, text, Options{})
	require.ErrorContains(t, err, `has no key "none"`)
}

func TestTemplatesMayHaveTheirOwnDelimiters(t *testing.T) {
	res, err := run(t, `{{ left }} <<with secret "secret/tenant/demo/smtp">><<.Data.data.host>><<end>>`, Options{Left: "<<", Right: ">>"})
	require.NoError(t, err)
	assert.Equal(t, "{{ left }} mail.example", string(res.Content))
	_, err = Parse("x", "\n<< nope >>", Options{Left: "<<", Right: ">>"})
	require.ErrorContains(t, err, `x:2:4: function "nope" not defined`)
}

func TestTemplatesOfOneFolderIncludeEachOther(t *testing.T) {
	files := map[string]string{
		"head.ctmpl": `{{ define "host" }}{{ .Data.data.host }}{{ end }}# {{ template "foot.ctmpl" . }}`,
		"foot.ctmpl": `{{ template "host" . }}!`,
		"bad.ctmpl":  "\n{{ .Data.data.hots }}",
		"loop.ctmpl": `{{ define "unused" }}{{ template "loop.ctmpl" }}{{ end }}`,
		"wrong.tmpl": "\n\n{{ nope }}",
	}
	include := func(name string) (string, string, bool) { text, ok := files[name]; return text, "/etc/t/" + name, ok }
	const with = `{{ with secret "secret/tenant/demo/smtp" }}`
	res, err := run(t, with+`{{ template "head.ctmpl" . }}{{ executeTemplate "foot.ctmpl" . }}{{ end }}`, Options{Include: include})
	require.NoError(t, err)
	assert.Equal(t, "# mail.example!mail.example!", string(res.Content))

	_, err = run(t, with+`{{ template "bad.ctmpl" . }}{{ end }}`, Options{Include: include})
	require.ErrorContains(t, err, `/etc/t/bad.ctmpl:2:9: secret "secret/tenant/demo/smtp" has no key "hots"`)
	_, err = Parse("x", `{{ template "wrong.tmpl" }}`, Options{Include: include})
	require.ErrorContains(t, err, `/etc/t/wrong.tmpl:3:4: function "nope" not defined`)
	_, err = Parse("x", `{{ template "loop.ctmpl" }}`, Options{Include: include})
	require.NoError(t, err)
}

func TestNumbersAreNotDamagedOnTheWay(t *testing.T) {
	for _, n := range []string{"12345678901234567890", "9007199254740993", "-1", "0.1"} {
		for text, want := range map[string]string{`{{ .id }}`: n, `{{ toJSON .id }}`: n, `{{ toYAML . }}`: "id: " + n} {
			tmpl, err := Parse("x", text, Options{})
			require.NoError(t, err)
			res, err := tmpl.Execute(Input{Dot: kv2("a/b", 1, map[string]any{"id": json.Number(n)})})
			require.NoError(t, err)
			assert.Equal(t, want, strings.TrimSpace(string(res.Content)), text)
		}
	}
}

func TestTemplatesThatExecuteEachOtherComeToAnEnd(t *testing.T) {
	tmpl, err := Parse("x", `{{ define "a" }}{{ executeTemplate "a" }}{{ end }}{{ executeTemplate "a" }}`, Options{})
	require.NoError(t, err)
	_, err = tmpl.Execute(Input{})
	require.ErrorContains(t, err, "without an end")
}

func TestSprigCountsWithTheNumbersOfVault(t *testing.T) {
	tmpl, err := Parse("x", `{{ with secret "x/y" }}{{ sprig_int .Data.port }} {{ sprig_add .Data.port 1 }} {{ sprig_mul 2 .Data.port }} {{ sprig_float64 .Data.share }} {{ sprig_set .Data "new" 1 | len }}{{ end }}`, Options{})
	require.NoError(t, err)
	data := map[string]any{"port": json.Number("587"), "share": json.Number("0.5")}
	result, err := tmpl.Execute(Input{Secret: func(r Request) *Secret { return &Secret{Path: r.Path, Data: secret.Of(data)} }})
	require.NoError(t, err)
	assert.Equal(t, "587 588 1174 0.5 3", string(result.Content))
	assert.Len(t, data, 2, "a template changes nothing but its own copy")
}
