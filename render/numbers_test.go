package render

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/render/secret"
)

// numberSources are templates that set $n to a number: each way that one comes into a template.
func numberSources(n string) map[string]string {
	return map[string]string{
		"a secret":                 `{{ $n := (secret "kv/numbers").Data.n }}`,
		"parseJSON":                fmt.Sprintf("{{ $n := (parseJSON `{\"n\": %s}`).n }}", n),
		"parseYAML":                fmt.Sprintf("{{ $n := (parseYAML `n: %s`).n }}", n),
		"sprig_fromJson":           fmt.Sprintf("{{ $n := (sprig_fromJson `{\"n\": %s}`).n }}", n),
		"arithmetic":               fmt.Sprintf("{{ $n := add 0 (parseJSON `{\"n\": %s}`).n }}", n),
		"arithmetic with a secret": `{{ $n := subtract 0 (secret "kv/numbers").Data.n }}`,
	}
}

func renderNumbers(t *testing.T, text, n string, o Options) (string, error) {
	t.Helper()
	tmpl, err := Parse("x", text, o)
	require.NoError(t, err, text)
	in := map[string]any{"n": json.Number(n)}
	res, err := tmpl.Execute(Input{Secret: func(r Request) *Secret { return &Secret{Path: r.Path, Data: secret.Of(in)} }})
	return string(res.Content), err
}

func TestNumbers_WholeOnesArePrintedAsWholeNumbers(t *testing.T) {
	for _, n := range []string{"0", "-7", "587", "3232235530", "-3232235530", "9007199254740991", "9007199254740992", "9007199254740993", "9223372036854775807", "18446744073709551615", "123456789012345678901234567890"} {
		for source, set := range numberSources(n) {
			for sink, want := range map[string]string{
				`{{ $n }}`:                                      n,
				`{{ print $n }}`:                                n,
				`{{ println $n }}`:                              n + "\n",
				`{{ printf "%v %s %d" $n $n $n }}`:              n + " " + n + " " + n,
				`{{ printf "%.0f" $n }}`:                        n,
				`{{ printf "%v" (sprig_list $n) }}`:             "[" + n + "]",
				`{{ sprig_list $n $n }}`:                        "[" + n + " " + n + "]",
				`{{ sprig_dict "k" (sprig_list $n) }}`:          "map[k:[" + n + "]]",
				`{{ sprig_list $n "x" | join "," }}`:            n + ",x",
				`{{ sprig_list $n "x" | sprig_join "," }}`:      n + ",x",
				`{{ sprig_quote $n }} {{ sprig_squote $n }}`:    `"` + n + `" '` + n + `'`,
				`{{ sprig_toString $n }} {{ sprig_cat $n "" }}`: n + " " + n + " ",
				`{{ sprig_toStrings (sprig_list $n) }}`:         "[" + n + "]",
				`{{ sprig_default 1 $n | html }}`:               map[bool]string{true: "1", false: n}[n == "0"],
				`{{ html $n }} {{ js $n }} {{ urlquery $n }}`:   n + " " + n + " " + n,
				`{{ toJSON $n }} {{ sprig_toJson $n }}`:         n + " " + n,
				`{{ sprig_dict "k" $n | toYAML }}`:              "k: " + n,
				`{{ sprig_dict "k" $n | dotenv "shell" }}`:      "k=" + n,
				`{{ envQuote "shell" $n }}`:                     n,
				`{{ scratch.Set "n" $n }}{{ scratch.Get "n" }}`: n,
				`{{ define "y" }}{{ . }}{{ end }}{{ template "y" $n }} {{ executeTemplate "y" $n }}`: n + " " + n,
				`{{ range sprig_list $n }}{{ . }}{{ end }}`:                                          n,
			} {
				for _, o := range []Options{{}, {Lenient: true}} {
					got, err := renderNumbers(t, set+sink, n, o)
					if assert.NoError(t, err, "%s: %s", source, sink) {
						assert.Equal(t, want, got, "%s from %s: %s", n, source, sink)
					}
				}
			}
		}
	}
}

func TestNumbers_FloatsArePrintedWithoutAnExponentWhereThatIsReadable(t *testing.T) {
	for n, want := range map[string]string{
		"0.1": "0.1", "1.50": "1.5", "-2.25": "-2.25", "1234567.891": "1234567.891", "0.00001": "0.00001", "1e-7": "1e-07",
		"1e3": "1000", "3.23223553e+09": "3232235530", "1e20": "100000000000000000000", "1e21": "1e+21", "1.5e300": "1.5e+300",
		"0.1000000000000000055511151231257827": "0.1000000000000000055511151231257827",
		"1e400":                                "1e400",
	} {
		got, err := renderNumbers(t, fmt.Sprintf("{{ (parseJSON `{\"n\": %s}`).n }}", n), n, Options{})
		require.NoError(t, err, n)
		assert.Equal(t, want, got, n)
	}
	for text, want := range map[string]string{
		`{{ 3232235530.0 }} {{ 2.5 }} {{ 1e21 }}`:                                                           "3232235530 2.5 1e+21",
		`{{ "3232235530" | parseFloat }} {{ sprig_float64 "3232235530" }} {{ sprig_round 3232235530.4 0 }}`: "3232235530 3232235530 3232235530",
		"{{ (parseYAML `n: 3232235530.0`).n }} {{ (parseTOML `n = 3232235530.0`).n }}":                      "3232235530 3232235530",
		"{{ (parseYAML `n: .inf`).n }} {{ (parseTOML `n = nan`).n }}":                                       "+Inf NaN",
	} {
		got, err := renderNumbers(t, text, "0", Options{})
		require.NoError(t, err, text)
		assert.Equal(t, want, got, text)
	}
}

func TestNumbers_FormatsKeepTheirTypes(t *testing.T) {
	for text, want := range map[string]string{
		"{{ parseJSON `{\"n\": 3232235530, \"f\": 1234567.891}` | toTOML }}":                "f = 1234567.891\nn = 3232235530",
		"{{ parseJSON `{\"n\": 3232235530, \"f\": 1234567.891}` | toYAML }}":                "f: 1234567.891\n\"n\": 3232235530",
		"{{ parseTOML `a = [3232235530.0, 5432.0, 5, 0.5]` | toTOML }}":                     "a = [3232235530.0, 5432.0, 5, 0.5]",
		"{{ parseYAML `a: [3232235530.0, 5432.0, 5, 1e30, .nan]` | toYAML }}":               "a:\n  - 3232235530.0\n  - 5432.0\n  - 5\n  - 1e+30\n  - .nan",
		"{{ parseTOML `[[t]]\nn = 5.0\n[[t]]\nn = 6` | toTOML }}":                           "[[t]]\n  n = 5.0\n\n[[t]]\n  n = 6",
		"{{ parseYAML `n: 123456789012345678901234567890` | toYAML }}":                      "\"n\": 123456789012345678901234567890",
		"{{ parseYAML `{n: -1_000_000_000_000_000_000_000, s: \"9\"}` | toJSON }}":          `{"n":-1000000000000000000000,"s":"9"}`,
		"{{ parseYAML `{a: &x {n: 99999999999999999999}, b: *x}` | toJSON }}":               `{"a":{"n":99999999999999999999},"b":{"n":99999999999999999999}}`,
		"{{ parseYAML `1: one` }} {{ index (parseYAML `1: one`) 1 }}":                       "map[1:one] one",
		"{{ index (parseYAML `1: one`) (parseJSON `{\"n\": 1}`).n }}":                       "one",
		"[{{ range $k, $v := parseYAML `# nothing` }}{{ end }}]":                            "[]",
		"{{ parseYAML `{a: 3232235530.0, b: [0.5]}` | dotenv `shell` }}":                    "a=3232235530\nb_0=0.5",
		"{{ envQuote `shell` (parseTOML `n = 3232235530.0`).n }}":                           "3232235530",
		"{{ parseJSON `[1, [2.5, {\"n\": 3232235530}]]` }}":                                 "[1 [2.5 map[n:3232235530]]]",
		"{{ printf `%T %T` (parseJSON `1`) (parseYAML `1.5`) }}":                            "float64 float64",
		"{{ sprig_typeOf (parseJSON `1`) }} {{ sprig_kindIs `float64` (parseYAML `1.5`) }}": "float64 true",
	} {
		got, err := renderNumbers(t, text, "0", Options{})
		require.NoError(t, err, text)
		assert.Equal(t, want, got, text)
	}
	entries, ok := Entries(FormatTOML, []byte("a = 3232235530.0\nb = 0.5\n"))
	assert.True(t, ok)
	assert.Equal(t, map[string]string{"a": "3232235530", "b": "0.5"}, entries)
	out, err := Encoding{Format: FormatTOML}.Encode(kv2("x/y", 1, map[string]any{"a": json.Number("1.50"), "b": json.Number("1e3"), "c": json.Number("1")}))
	require.NoError(t, err)
	assert.Equal(t, "a = 1.50\nb = 1e3\nc = 1\n", string(out), "to the digit")
}

func TestNumbers_ArithmeticKeepsDigitsAndTypes(t *testing.T) {
	for expression, want := range map[string]string{
		"add 1 (json 5432)":                               "5433",
		"divide 2 (json 5)":                               "2.5",
		"divide 2 5":                                      "2",
		"divide 2 (json 6)":                               "3",
		"modulo 2 (json 5)":                               "1",
		"multiply 2.5 2":                                  "5",
		"multiply (json 3232235530) 10":                   "32322355300",
		"minimum (json 3) 2":                              "2",
		"maximum 2.5 (json 2)":                            "2.5",
		"add 1 (json 12345678901234567890)":               "12345678901234567891",
		"add 1 9223372036854775807":                       "9223372036854775808",
		"subtract 1 (json 9007199254740992)":              "9007199254740991",
		"multiply 1000000 9223372036854775807":            "9223372036854775807000000",
		"divide 10 (json 123456789012345678900)":          "12345678901234567890",
		"add 0.5 (json 1)":                                "1.5",
		"add 1 $.n":                                       "588",
		"divide 2 $.n":                                    "293",
		"divide 0.0 1.0":                                  "+Inf",
		"loop (json 3)":                                   "[0 1 2]",
		"index (split `,` `a,b,c`) (json 2)":              "c",
		"slice `secret` (json 1) (json 3)":                "ec",
		"slice (split `,` `a,b,c`) 1":                     "[b c]",
		"indent (json 2) `x`":                             "  x",
		"in (sprig_list 1 2.0 3) (json 2)":                "true",
		"contains $.n (sprig_list 587)":                   "true",
		"sprig_until (json 2)":                            "[0 1]",
		"sprig_repeat $.two `x`":                          "xx",
		"sprig_add (json 1) $.n 2":                        "590",
		"sprig_round (json 2.567) $.two":                  "2.57",
		"sprig_date_in_zone `2006` $.n `UTC`":             "1970",
		"printf `%5d|%-5d|%05d` $.n $.n (json 7)":         "  587|587  |00007",
		"printf `%x %c %q` $.n (json 65) $.n":             `24b A "587"`,
		"printf `%.2f %8.3f %e` $.n (json 1) 5":           "587.00    1.000 5.000000e+00",
		"printf `%*d` 5 $.n":                              "  587",
		"printf `%.3v %+d` 2.0 (json 5)":                  "2 +5",
		"printf `%v` (sprig_duration `95` | printf `%s`)": "1m35s",
	} {
		text := strings.NewReplacer("json ", "parseJSON `", "$.", "$d.").Replace(expression)
		text = closeQuotes(text)
		tmpl, err := Parse("x", "{{ $d := . }}{{ "+text+" }}", Options{})
		require.NoError(t, err, text)
		res, err := tmpl.Execute(Input{Dot: kv2("a/b", 1, map[string]any{"n": json.Number("587"), "two": json.Number("2")})})
		if assert.NoError(t, err, text) {
			assert.Equal(t, want, string(res.Content), text)
		}
	}
}

// closeQuotes ends the text of parseJSON before its bracket.
func closeQuotes(text string) string {
	const begin = "(parseJSON `"
	before, after, found := strings.Cut(text, begin)
	if !found {
		return text
	}
	number, rest, _ := strings.Cut(after, ")")
	return before + begin + number + "`)" + closeQuotes(rest)
}

func TestNumbers_CompareByValue(t *testing.T) {
	for expression, want := range map[string]string{
		"eq (json 1) 1.0":        "true",
		"eq (json 1) 1":          "true",
		"eq 1 (json 2) (json 1)": "true",
		"eq $d.n 587":            "true",
		"eq $d.n `587`":          "true",
		"ne $d.n `587`":          "false",
		"eq (json 9007199254740993) (json 9007199254740992)":         "false",
		"eq (json 12345678901234567890) (json 12345678901234567890)": "true",
		"lt $d.n 600":    "true",
		"lt $d.two $d.n": "true",
		"gt (json 12345678901234567890) (json 1234567890123456)": "true",
		"ge 2 $d.two":    "true",
		"le 2.5 $d.two":  "false",
		"eq `a` `b` `a`": "true",
		"lt `a` `b`":     "true",
		"eq true true":   "true",
		"eq $d.null nil": "true",
		"eq $d.n nil":    "false",
		"eq (parseYAML `5.0`) (parseTOML `x = 5`).x": "true",
	} {
		text := closeQuotes(strings.NewReplacer("json ", "parseJSON `").Replace(expression))
		tmpl, err := Parse("x", "{{ $d := . }}{{ "+text+" }}", Options{})
		require.NoError(t, err, text)
		res, err := tmpl.Execute(Input{Dot: kv2("a/b", 1, map[string]any{"n": json.Number("587"), "two": json.Number("2"), "null": nil})})
		if assert.NoError(t, err, text) {
			assert.Equal(t, want, string(res.Content), text)
		}
	}
	for text, want := range map[string]string{
		"{{ eq `5` 5 }}":  "text and a number cannot be compared; parseInt and parseFloat make numbers of text",
		"{{ lt true 5 }}": "true or false and a number cannot be compared",
		"{{ eq 1 }}":      "there is nothing to compare with",
		"{{ sprig_add (parseJSON `12345678901234567890`) 1 }}": "it counts with 64 bits",
		"{{ sprig_repeat (parseJSON `2.5`) `x` }}":             "where it wants a number",
		"{{ slice 5 1 }}":                               "a number has no parts to slice",
		"{{ slice `abc` 4 }}":                           "outside of the list",
		"{{ index (split `,` `a`) (parseJSON `0.5`) }}": "a list cannot be indexed by a number",
	} {
		_, err := renderNumbers(t, text, "0", Options{})
		require.ErrorContains(t, err, want, text)
	}
}

func TestSprig_SetChangesTheMapThatItIsGiven(t *testing.T) {
	got, err := renderNumbers(t, "{{ $d := parseYAML `a: 1.5` }}{{ $_ := sprig_set $d `b` 2.0 }}{{ $d.b }} {{ $d.a }}", "0", Options{})
	require.NoError(t, err)
	assert.Equal(t, "2 1.5", got)
}

// FuzzNumbers renders numbers of JSON, and compares them with what went in.
func FuzzNumbers(f *testing.F) {
	for _, seed := range []string{"0", "-0", "1e999999999999", "1e-999999999999", "0.1", "5E+3", "9007199254740993", "0.30000000000000004", "123.456e2"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, n string) {
		if !json.Valid([]byte(n)) || strings.Trim(n, "0123456789.eE+-") != "" {
			return
		}
		v, err := parseJSON(n)
		require.NoError(t, err)
		if v, ok := v.(float64); ok {
			assert.True(t, sameDecimal(json.Number(n), v), n)
			assert.False(t, math.IsInf(v, 0), n)
		}
		digits, exponent := decimalOf(n)
		gotDigits, gotExponent := decimalOf(numberText(v))
		assert.Equal(t, digits+"e"+exponent, gotDigits+"e"+gotExponent, n)
		if _, fits := float(v); fits {
			_, err = toYAML(map[string]any{"n": v})
			assert.NoError(t, err, n)
		}
	})
}
