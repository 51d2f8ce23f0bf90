package render

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestEncoding_NamesTheKeyThatAFormatCannotCarry(t *testing.T) {
	for _, tc := range []struct {
		format Format
		pairs  map[string]any
		want   string
	}{
		{FormatTOML, map[string]any{"a": 1, "user": nil}, `key "user" is null, and TOML has no null; ` + leaveOut},
		{FormatTOML, map[string]any{"db": map[string]any{"hosts": []any{"a", nil}}}, `key "db.hosts[1]" is null, and TOML has no null; ` + leaveOut},
		{FormatTOML, map[string]any{"n": []any{json.Number("1e400")}}, `key "n[0]" is a number too large for TOML; write it as text`},
		{FormatTOML, map[string]any{"t": "\xff"}, `key "t" is not UTF-8, which TOML cannot carry; encode it, as by base64Encode`},
		{FormatTOML, map[string]any{"\xff": 1}, `key "\xff" is not UTF-8, which TOML cannot carry`},
		{FormatJSON, map[string]any{"a": []any{map[string]any{"b": "\xff"}}}, `key "a[0].b" is not UTF-8, which JSON cannot carry; encode it, as by base64Encode`},
		{FormatYAML, map[string]any{"n": json.Number("1e400")}, `key "n" is a number too large for YAML; write it as text`},
		{FormatDotenv, map[string]any{"a": map[string]any{"b": nil}}, `key "a_b" holds null, which a .env line cannot say; give it a value, or leave it out`},
		{FormatProperties, map[string]any{"a": map[string]any{"b": nil}}, `key "a.b" holds null, which properties cannot say; give it a value, or leave it out`},
	} {
		_, err := Encoding{Format: tc.format}.Encode(kv2("x/y", 1, tc.pairs))
		require.EqualError(t, err, `secret "x/y" cannot be written as `+string(tc.format)+`: `+tc.want)
	}
}

func TestErrors_NameNoGoTypes(t *testing.T) {
	for text, want := range map[string]string{
		`{{ toTOML $.list }}`:                                "a list cannot be written as TOML, which consists of keys and values",
		`{{ toTOML $.db.password }}`:                         "text cannot be written as TOML",
		`{{ toTOML (sprig_dict "a" $.nothing) }}`:            `key "a" is null, and TOML has no null`,
		`{{ toTOML (parseYAML "1: x") }}`:                    "the value is a map whose keys are not all text, which TOML cannot carry",
		`{{ toJSON (sprig_dict "a" (parseYAML "{1: x}")) }}`: `key "a" is a map whose keys are not all text, which JSON cannot carry`,
		`{{ toJSON (divide 0.0 1.0) }}`:                      "the value is no finite number, which JSON cannot carry",

		`{{ dotenv $.list }}`:                                "dotenv wants pairs, such as .Data.data, not a list",
		`{{ envQuote "shell" $.db }}`:                        "not a map",
		`{{ add 1 $.db }}`:                                   "a map and a number are not both numbers",
		`{{ join "," $.count }}`:                             "join wants a list, not a number",
		`{{ containsAll 1 "x" }}`:                            "a list of values is wanted first, not a number",
		`{{ index $.list "x" }}`:                             "a list cannot be indexed by text",
		`{{ index $ 1 }}`:                                    "a map whose keys are text cannot be indexed by a number",
		`{{ index 5 1 }}`:                                    "a number cannot be indexed",
		`{{ toUpper $.count }}`:                              "wrong type of value: expected text, not a number",
		`{{ toUpper $.list }}`:                               "wrong type of value: expected text, not a list",
		`{{ mergeMap $.list $ }}`:                            "wrong type of value: expected a map, not a list",
		`{{ $.api_key.x }}`:                                  `the value has no field "x"`,
		`{{ $.nothing.x }}`:                                  `null has no field "x"`,
		`{{ (secret "secret/tenant/demo/smtp").RequestId }}`: `a secret has no field "RequestId"; did you mean "RequestID"?`,
		`{{ (secret "secret/tenant/demo/smtp").Auth }}`:      `a secret has no field "Auth"`,
		`{{ with secret "secret/tenant/demo/smtp" }}{{ eq . $.db }}{{ end }}`: "a secret and a map cannot be compared",
	} {
		tmpl, err := Parse("x", "{{ $d := . }}"+strings.NewReplacer("$.", "$d.", "$ ", "$d ").Replace(text), Options{})
		require.NoError(t, err, text)
		_, err = tmpl.Execute(Input{Secret: vault(smtp), Dot: nexa})
		if assert.ErrorContains(t, err, want, text) {
			assert.NotRegexp(t, `interface|map\[|\[\]|json\.|float64|int64|render\.|reflect|%!`, err.Error(), text)
			assert.NotContains(t, err.Error(), marker, text)
		}
	}
}
