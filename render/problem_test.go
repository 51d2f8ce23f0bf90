package render

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/render/dotenv"
)

// The values that no error may show, nor six characters of them in a row.
const (
	markedText   = "Zq7wXk9vPj3rTn5yHf8u"
	markedNumber = "918273645546372819"
	markedKey    = "QzJw4mXkBd7vRt"
)

func assertNoMarker(t *testing.T, err error, context string) {
	t.Helper()
	if err == nil {
		return
	}
	for _, marked := range []string{markedText, markedNumber, markedKey} {
		for i := range len(marked) - 5 {
			if strings.Contains(strings.ToLower(err.Error()), strings.ToLower(marked[i:i+6])) {
				t.Errorf("%s: the error shows a value: %s", context, err)
				return
			}
		}
	}
}

// markedValues are the values of a secret, by their variable in a template. Some look
// like a message of text/template.
func markedValues() map[string]any {
	structured := `{"` + markedKey + `": "` + markedText + `", "list": [` + markedNumber + `, "` + markedText + `"]}`
	return map[string]any{
		"text": markedText, "number": json.Number(markedNumber), "json": structured, "binary": markedText + "\xff\x00", "lines": markedText + "\n" + markedText,
		"float": json.Number(markedNumber + ".5"), "list": []any{markedText, json.Number(markedNumber), nil}, "null": nil, "yes": true,
		"expression": markedText + "(", "small": json.Number("3"), "percent": "%" + markedNumber + "d%[" + markedNumber + "]z",
		"entry":   `map has no entry for key "` + markedText + `"`,
		"message": `template: x:1:1: executing "` + markedText + `" at <` + markedText + `>: error calling add: map has no entry for key "` + markedText + `"`,
		"wrong":   "wrong type for value; expected " + markedText + "; got " + markedText,
	}
}

const markedVariables = `{{ define "inner" }}{{ range . }}{{ end }}{{ end }}{{ $d := . }}{{ $text := .text }}{{ $number := .number }}{{ $float := .float }}{{ $binary := .binary }}{{ $lines := .lines }}` +
	`{{ $list := .list }}{{ $null := .null }}{{ $yes := .yes }}{{ $small := .small }}{{ $expression := .expression }}{{ $percent := .percent }}` +
	`{{ $json := .json }}{{ $map := parseJSON .json }}{{ $entry := .entry }}{{ $message := .message }}{{ $wrong := .wrong }}{{ $yaml := parseYAML .json }}`

func renderMarked(t *testing.T, text string, o Options) error {
	t.Helper()
	tmpl, err := Parse("x", text, o)
	if !assert.NoError(t, err, text) {
		return nil
	}
	_, err = tmpl.Execute(Input{
		Secret: func(Request) *Secret { return nil }, Dot: kv2("secret/data/marked", 1, markedValues()), Tenant: "demo", Dialect: dotenv.Portable,
		Env: func(string) (string, bool) { return "", false },
		File: func(path string) (string, error) {
			return "", &fs.PathError{Op: "open", Path: path, Err: fs.ErrInvalid}
		},
	})
	return err
}

func TestErrors_OfAllFunctionsHoldNoValue(t *testing.T) {
	functions := maps.Clone(unbound())
	maps.Copy(functions, helpers())
	for name := range builtins {
		functions[name] = func(...any) any { return nil }
	}
	values := []string{"$text", "$number", "$float", "$binary", "$lines", "$list", "$null", "$yes", "$small", "$expression", "$percent", "$json", "$map", "$yaml", "$entry", "$message", "$d", `"name"`, "1", "(len .text)"}
	random := rand.New(rand.NewPCG(1, 2))
	calls := callsOfAFunction
	if testing.Short() {
		calls = 8
	}
	failed := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(functions)) {
		if name == "break" || name == "continue" || strings.HasPrefix(name, "_") {
			continue
		}
		of := reflect.TypeOf(functions[name])
		fewest, most := of.NumIn(), of.NumIn()
		if of.IsVariadic() {
			fewest, most = of.NumIn()-1, of.NumIn()+2
		}
		for n := fewest; n <= most; n++ {
			tries := min(calls, pow(len(values), n))
			for try := range tries {
				call, rest := name, try
				for range n {
					at := random.IntN(len(values))
					if tries < calls {
						at, rest = rest%len(values), rest/len(values)
					}
					call += " " + values[at]
				}
				text := markedVariables + "{{ " + call + " }}"
				err := renderMarked(t, text, Options{Lenient: try%7 == 0})
				assertNoMarker(t, err, call)
				if err != nil {
					failed[name] = true
					assert.Regexp(t, `^x:1:\d+: `, err.Error(), call)
					assert.NotContains(t, err.Error(), "strconv", call)
				}
			}
		}
	}
	assert.Greater(t, len(failed), 150, "most functions were brought to fail")
}

func pow(base, n int) int {
	p := 1
	for range n {
		p *= base
	}
	return p
}

func TestErrors_OfAllActionsHoldNoValue(t *testing.T) {
	for _, action := range []string{
		`{{ range V }}x{{ end }}`, `{{ range $i, $e := V }}x{{ end }}`, `{{ range $i, $e := V }}{{ $e.x }}{{ end }}`, `{{ with V }}{{ .x.y }}{{ end }}`, `{{ if V }}{{ V.x }}{{ end }}`,
		`{{ V.x }}`, `{{ V.Int64 }}`, `{{ V.String }}`, `{{ V.Float64 }}`, `{{ V.x.y }}`, `{{ V 1 }}`, `{{ V | V }}`, `{{ (V).x }}`, `{{ (V).Int64 }}`, `{{ call V }}`, `{{ call V V }}`, `{{ call $d.text V }}`,
		`{{ V | toUpper 1 }}`, `{{ template "inner" V }}`, `{{ executeTemplate "inner" V }}`, `{{ define "deep" }}{{ executeTemplate "inner" . }}{{ end }}{{ executeTemplate "deep" V }}`,
		`{{ index V V }}`, `{{ index $d V }}`, `{{ index $map V }}`, `{{ index $list V }}`, `{{ slice V V }}`, `{{ slice V 1 V }}`, `{{ len V }}`, `{{ not V }}`, `{{ and V V.x }}`, `{{ or "" V.x }}`,
		`{{ eq V $map }}`, `{{ lt V $list }}`, `{{ V | index $d }}`, `{{ printf V V }}`, `{{ printf "%*d" V V }}`, `{{ timestamp V V }}`, `{{ (secret V V).Data.x }}`, `{{ (pkiCert V V).Data.x }}`,
		`{{ secret "a/b" V }}`, `{{ file V }}`, `{{ mustEnv V }}`, `{{ mustEnv (print V) }}`, `{{ writeToFile V V V V V }}`, `{{ writeToFile V "" "" "0600" "x" }}`, `{{ writeToFile "/x" V V "0600" V V }}`,
		`{{ scratch.MapSet V V V }}{{ scratch.MapSet V V V }}{{ scratch.Set V V }}{{ scratch.MapValues V }}`, `{{ scratch.Set "a" V }}{{ scratch.MapSet "a" V V }}`, `{{ scratch.X V }}`,
		`{{ dotenv (sprig_dict V V) }}`, `{{ dotenv V $map }}`, `{{ dotenv (sprig_dict "K" V) }}`, `{{ dotenv $map }}`, `{{ toTOML (sprig_dict (print V) $null) }}`, `{{ toYAML (sprig_dict (print V) V) }}`,
		`{{ toJSON (sprig_dict (print V) $binary) }}`, `{{ dotenv (sprig_dict (print V "_a") 1 "x" 2) }}`, `{{ explode (sprig_dict (print V) 1 (print V "/x") 1) }}`, `{{ sprig_fail V }}`, `{{ sprig_fail (print V) }}`,
		`{{ dotenv (sprig_dict (print "LD_" V) 1) }}`, `{{ dotenv (sprig_dict "a" (sprig_dict (print V) 1) (print "a_" V) 2) }}`,
	} {
		for _, name := range slices.Sorted(maps.Keys(markedValues())) {
			text := markedVariables + strings.ReplaceAll(action, "V", "$"+name)
			for _, o := range []Options{{}, {Lenient: true}} {
				if _, err := Parse("x", text, o); err != nil {
					continue // text/template knows that it cannot be.
				}
				assertNoMarker(t, renderMarked(t, text, o), action+" with $"+name)
			}
		}
	}
}

func TestErrors_OfFormatsHoldNoValue(t *testing.T) {
	for name, value := range markedValues() {
		for _, format := range DataFormats() {
			for _, d := range dotenv.Dialects() {
				for _, pairs := range []map[string]any{{"a": value}, {"a": map[string]any{"b": value}, "a_b": value}, {"a": []any{value}, "a.0": value}, {"9": value}} {
					for _, keys := range []Keys{{}, {MapInvalid: true}, {Rename: map[string]string{"x": "y"}}, {Rename: map[string]string{"a": "a_b"}}} {
						_, err := Encoding{Format: Format(format), Dialect: dotenv.Dialect(d), Keys: keys}.Encode(kv2("x/y", 1, pairs))
						assertNoMarker(t, err, fmt.Sprint(format, " ", d, " ", name))
					}
				}
			}
		}
	}
}

func TestErrors_NameTheTemplateThatWasExecutedInside(t *testing.T) {
	err := renderMarked(t, "{{ define \"a\" }}\n{{ range .text }}{{ end }}{{ end }}{{ executeTemplate \"a\" . }}", Options{})
	assert.EqualError(t, err, "x:2:10: range can't iterate over text (at {{.text}})")
}

func TestErrors_NameKeysOfSecretsAndOfTheTemplateAlone(t *testing.T) {
	values := map[string]any{"my-key": "a b", "json": `{"inner": "a b"}`}
	for text, want := range map[string]string{
		`{{ dotenv . }}`: `key "my-key" is not a variable name`,
		`{{ range $k, $v := . }}{{ scratch.MapSet "e" ($k | toUpper | replaceAll "-" "_") "a b" }}{{ end }}{{ scratch.Get "e" | dotenv }}`: `key "MY_KEY" holds a blank`,
		`{{ dotenv (sprig_dict "OWN" "a b") }}`:          `key "OWN" holds a blank`,
		`{{ dotenv (sprig_dict (index . "my-key") 1) }}`: `the value is not a variable name`,
		`{{ dotenv (parseJSON .json) }}`:                 `the value holds a blank`,
	} {
		tmpl, err := Parse("x", text, Options{})
		require.NoError(t, err)
		_, err = tmpl.Execute(Input{Secret: func(Request) *Secret { return nil }, Dot: kv2("x/y", 1, values), Dialect: dotenv.Portable})
		assert.ErrorContains(t, err, want, text)
	}
}
