package render

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/render/dotenv"
)

// The bounds for one execution with a value of 1 MiB.
const (
	// maxAllocated is how many bytes it may allocate in sum.
	maxAllocated = poolLoss * 300 << 20
	// maxLive is how many bytes it may hold at one time. A parsed document of YAML, which has
	// a node for each bracket, comes nearest to it.
	maxLive = 128 << 20
)

// fill repeats a text up to the size of a hostile value.
func fill(s string) string { return strings.Repeat(s, hostileSize/len(s)) }

// numbered are lines, or the like, that count, up to the size of a hostile value.
func numbered(format string) string {
	var all strings.Builder
	for i := 0; ; i++ {
		next := fmt.Sprintf(format, i)
		if all.Len()+len(next) > hostileSize {
			return all.String()
		}
		all.WriteString(next)
	}
}

func deep(open, inner, end string, n int) string {
	return strings.Repeat(open, n) + inner + strings.Repeat(end, n)
}

// hostileTexts are values that have cost a parser time or memory out of proportion.
func hostileTexts() map[string]string {
	half := hostileSize / 2
	long := strings.Repeat("a", half)
	return map[string]string{
		"dotted key": fill("a.") + "a = 1", "dotted key, quoted": fill(`"a".`) + "a = 1", "dotted header": "[" + fill("a.") + "a]\n", "dotted headers": strings.Repeat("["+strings.Repeat("a.", 90)+"a]\n", hostileSize/200),
		"dotted in an inline table": "x = {" + strings.Repeat("a.", half-10) + "a = 1}", "inline tables": deep("a={", "b=1", "}", hostileSize/4), "inline tables on a key": "a=" + deep("{a=", "1", "}", hostileSize/4),
		"long header": "[" + long + "]\n" + numbered("k%d=1\n")[:half], "long header, arrays of tables": "[" + long + "]\n" + strings.Repeat("[["+"b"+"]]\n", hostileSize/16),
		"long key of an inline table": long + " = {" + strings.TrimSuffix(numbered("k%d=1,")[:half], ",") + "}", "many keys": numbered("k%d=1\n"), "many tables": numbered("[a%d]\n"), "array tables": fill("[[a]]\n"),
		"TOML arrays": "a = " + deep("[", "", "]", half), "TOML text": `a = """` + fill("x"), "TOML elements": "a = [" + fill("1,") + "]", "TOML comment": fill("#"), "TOML comments": fill("#\n"),
		"TOML escapes": `a = "` + fill(`\u0041`) + `"`, "TOML quotes": "a = " + fill(`"`), "TOML dates": numbered("k%d=2001-01-01T00:00:00Z\n"), "super tables": numbered("[a.b.c.d.e.f.g.h.i.j.k%d]\n"),
		"nested lists": "[" + fill("[[[[[[]]]]]],")[:hostileSize/13*13-13] + "1]", "lists": "[" + fill("[],")[:hostileSize/3*3-3] + "1]", "TOML lists": "x=[" + fill("[[1]],")[:hostileSize/6*6-6] + "1]",
		"unclosed brackets": fill("["), "unclosed braces": fill("{"), "brackets": deep("[", "", "]", half), "objects": deep(`{"a":`, "1", "}", hostileSize/6), "elements": "[" + strings.TrimSuffix(fill("1,"), ",") + "]",
		"texts": "[" + strings.TrimSuffix(fill(`"",`), ",") + "]", "maps": "[" + strings.TrimSuffix(fill(`{},`), ",") + "]", "small maps": "[" + strings.TrimSuffix(fill(`{"a":1},`), ",") + "]",
		"duplicate keys": "{" + strings.TrimSuffix(fill(`"a":1,`), ",") + "}", "keys": "{" + strings.TrimSuffix(numbered(`"k%d":1,`), ",") + "}", "digits": strings.Repeat("9", hostileSize), "minus digits": "-" + strings.Repeat("9", hostileSize-1),
		"fraction": "0." + strings.Repeat("9", hostileSize-2), "exponent": "1e" + strings.Repeat("9", hostileSize-2), "large exponent": "1e999999999", "small exponent": "1e-999999999", "long numbers": "[" + strings.TrimSuffix(fill(strings.Repeat("9", 999)+","), ",") + "]",
		"escapes": `"` + fill(`\u0000`) + `"`, "long key, small values": `{"` + long + `":{` + strings.TrimSuffix(numbered(`"k%d":1,`)[:half-8], ",") + "}}", "99 deep, small values": deep("[", strings.TrimSuffix(fill("1,"), ","), "]", 90),
		"aliases": "a: &a [x,x,x,x,x,x,x,x,x]\n" + aliases(), "one alias": "a: &a " + strings.Repeat("x", half) + "\nb: [" + fill("*a,")[:half-20] + "]", "merges": "a: &a {" + numbered("k%d: 1, ")[:half] + "}\nb:\n  <<: [" + strings.Repeat("*a, ", hostileSize/16) + "]\n",
		"nested merges": mergesOf(3000), "YAML sequences": fill("- "), "YAML block": fill("- a\n"), "YAML map": fill("a: "), "YAML keys": fill("? "), "YAML flow": fill("[a, "), "YAML flow map": fill("{a: "), "YAML anchors": numbered("- &a%d x\n"),
		"YAML anchor": fill("&a "), "YAML self": "&a [*a]", "YAML tags": fill("! "), "YAML tag": "!" + fill("a"), "YAML comments": "a: 1\n" + fill("#\n"), "YAML documents": fill("---\n"), "YAML directive": "%" + fill("A "), "YAML folded": "a: >\n" + fill(" \n"),
		"YAML literal": "a: |\n" + fill("  x\n"), "YAML quoted": `"` + fill(`\n`) + `"`, "YAML indent": indents(400), "YAML binary": "!!binary " + fill("YQ=="), "YAML ints": "[" + fill("1_0,") + "]", "YAML dates": fill("- 2001-01-01\n"), "YAML floats": fill("- 99999999999999999999\n"),
		"sexagesimal": fill("1:"), "spaces": fill(" "), "tabs": fill("\t"), "line feeds": fill("\n"), "NUL": fill("\x00"), "invalid UTF-8": fill("\xff"), "quotes": fill("'"), "dollars": fill("$"), "backslashes": fill(`\`), "slashes": fill("/"), "commas": fill(","),
		"letters": fill("a"), "four bytes": fill("😀"), "percents": fill("%"), "verbs": fill("%v"), "wide verbs": fill("%999999d"), "wide star verbs": fill("%*d"), "repeated verbs": fill("%[1]v"), "precise verbs": fill("%.999999f"), "wide indexed": fill("%[2]*[1]d"),
		"repeated expression": "((((a{100}){100}){100}){10})", "long expression": fill("a?"), "nested expression": deep("(", "a", ")", hostileSize/4), "stars": deep("(", "a", ")*", 900), "alternatives": fill("a|"), "classes": fill(`\pL`), "wide repeat": strings.Repeat(`\pL{999}`, 19),
		"pem": "-----BEGIN CERTIFICATE-----\n" + fill("MIIB"), "base64": fill("YWFh"), "assignments": numbered("K%d=v\n"), "date layout": fill("January"), "equals": fill("="), "references": fill("${0}"),
		"1000000": "1000000", "9223372036854775807": "9223372036854775807",
	}
}

func aliases() string {
	var all strings.Builder
	for c := 'b'; c <= 'z'; c++ {
		before := string(c - 1)
		all.WriteString(string(c) + ": &" + string(c) + " [" + strings.TrimSuffix(strings.Repeat("*"+before+",", 9), ",") + "]\n")
	}
	return all.String()
}

func mergesOf(n int) string {
	var all strings.Builder
	all.WriteString("k0: &k0 {a: 1}\n")
	for i := 1; i < n; i++ {
		fmt.Fprintf(&all, "k%d: &k%d {<<: *k%d, a%d: 1}\n", i, i, i-1, i)
	}
	return all.String()
}

func indents(n int) string {
	var all strings.Builder
	for i := range n {
		all.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return all.String()
}

// assertBounded executes a template with a value, which may fail, but has to come to an
// end within bounds.
func assertBounded(t *testing.T, text string, v any, context string) {
	t.Helper()
	tmpl, err := Parse("x", text, Options{})
	require.NoError(t, err, text)
	peak, sum := memory(func() {
		res, err := tmpl.Execute(Input{
			Secret: func(Request) *Secret { return nil }, Env: func(string) (string, bool) { return "", false }, Dialect: dotenv.Compose,
			File: func(string) (string, error) { return "", nil }, Dot: kv2("x/y", 1, map[string]any{"v": v}),
		})
		if err == nil {
			assert.LessOrEqual(t, len(res.Content), largest, context)
		} else {
			assert.Less(t, len(err.Error()), 10_000, context)
		}
	})
	assert.Less(t, sum, uint64(maxAllocated), "%s with %s: %d MiB allocated", text, context, sum>>20)
	assert.Less(t, peak, uint64(maxLive), "%s with %s: %d MiB live", text, context, peak>>20)
}

func TestParsers_AreBoundedForHostileValues(t *testing.T) {
	if testing.Short() {
		t.Skip("values of 1 MiB in all parsers take a while")
	}
	for name, value := range hostileTexts() {
		for _, parser := range []string{
			`{{ $x := parseJSON .v }}{{ toJSON $x | len }}`, `{{ $x := parseYAML .v }}{{ toYAML $x | len }}`, `{{ $x := parseTOML .v }}{{ toTOML $x | len }}`,
		} {
			assertBounded(t, parser, value, name)
		}
	}
}

func TestToYAML_HoldsAtMost100MiB(t *testing.T) {
	if testing.Short() {
		t.Skip("values of 1 MiB take a while")
	}
	written := 0
	for _, part := range []string{"[[[[[[]]]]]],", "[],", "{},", "1,", `"a",`, `"=",`, `{"a":1},`, `{"a b":1},`, `{" ":[]},`, `{"` + strings.Repeat("é", 20) + `":1},`} {
		for _, n := range []int{5_000, 16_600, 49_000, hostileSize / len(part)} {
			value, err := parseJSON("[" + strings.Repeat(part, min(n, hostileSize/len(part)-2)) + "1]")
			require.NoError(t, err)
			peak, _ := memory(func() { _, err = toYAML(value) })
			if err == nil {
				written++
			} else {
				assert.Equal(t, errManyNodes, err, part)
			}
			assert.Less(t, peak, uint64(100<<20), "%d of %s: %d MiB", n, part, peak>>20)
		}
	}
	assert.Greater(t, written, 10)
}

func TestFunctions_AreBoundedForHostileValues(t *testing.T) {
	if testing.Short() {
		t.Skip("values of 1 MiB in all functions take a while")
	}
	texts := hostileTexts()
	for _, name := range []string{
		"letters", "wide verbs", "wide star verbs", "repeated verbs", "wide indexed", "repeated expression", "wide repeat", "references", "line feeds", "9223372036854775807",
	} {
		value, ok := texts[name]
		require.True(t, ok, name)
		for _, call := range []string{
			`parseInt .v`, `parseFloat .v`, `parseBool .v`, `base64Decode .v`, `base64URLDecode .v`, `base64Encode .v`, `indent 1000 .v`, `indent .v "x"`, `regexMatch .v .v`, `regexReplaceAll "" .v .v`, `regexReplaceAll "a" .v .v`, `regexReplaceAll .v "b" .v`,
			`regexReplaceAll "(.)" .v .v`, `replaceAll "" .v .v`, `replaceAll "a" .v .v`, `replaceAll .v .v .v`, `split "" .v`, `split "," .v | join .v`, `splitToMap "" "" .v`, `splitToMap "=" "" .v`, `toTitle .v`, `trim .v .v`, `loop .v`, `html .v`, `js .v`, `urlquery .v`,
			`envQuote "shell" .v`, `envQuote "python" .v`, `printf .v .v .v`, `printf .v 1000000 1000000`, `printf "%q" .v`, `printf "%x" .v`, `timestamp .v`, `explode (sprig_dict .v 1) | toJSON`, `byKey (sprig_dict .v 1)`,
			`sprig_split "" .v`, `sprig_splitList "" .v`, `sprig_splitn "" 1000000 .v`, `sprig_repeat 1000000 .v`, `sprig_indent 100000 .v`, `sprig_nindent 100000 .v`, `sprig_replace "" .v .v`, `sprig_join .v (split "" .v)`, `sprig_regexFindAll "" .v -1`, `sprig_regexSplit "" .v -1`,
			`sprig_regexMatch .v .v`, `sprig_regexReplaceAll "" .v .v`, `sprig_regexReplaceAllLiteral "" .v .v`, `sprig_uniq (split "" .v)`, `split "" .v | containsAny (split "" .v)`, `split "" .v | sprig_sortAlpha`, `sprig_title .v`, `sprig_until (sprig_int .v)`,
			`sprig_untilStep 0 (sprig_int .v) 1`, `sprig_untilStep 0 9223372036854775807 9223372036854775806`, `sprig_seq 1 (sprig_int .v)`, `sprig_seq (sprig_int .v)`, `sprig_b32dec .v`, `sprig_urlParse .v`, `sprig_duration .v`, `sprig_toDate .v .v`, `sprig_plural .v .v 2`,
			`sprig_fromJson .v`, `sprig_toPrettyJson (parseJSON .v)`, `sprig_clean .v`, `sprig_chunk 1 (split "" .v)`, `sprig_cat .v .v`, `sprig_quote .v`, `sprig_regexQuoteMeta .v`,
		} {
			assertBounded(t, `{{ $x := `+call+` }}{{ len (print $x) }}`, value, name)
		}
	}
}

func TestNumbers_AreBoundedForHostileValues(t *testing.T) {
	if testing.Short() {
		t.Skip("values of 1 MiB take a while")
	}
	for _, n := range []string{strings.Repeat("9", hostileSize), "-" + strings.Repeat("9", hostileSize), "0." + strings.Repeat("9", hostileSize), "1e" + strings.Repeat("9", hostileSize), "1e999999999", "1e-999999999", strings.Repeat("9", 1000), "1e6", "9223372036854775807"} {
		for _, call := range []string{
			`add .v .v`, `multiply .v .v`, `divide .v 3`, `modulo .v 3`, `eq .v .v`, `lt .v 1`, `loop .v`, `print .v`, `printf "%d" .v`, `printf "%f" .v`, `printf "%.1000000f" .v`, `printf "%*d" .v 1`, `printf "%.*f" .v 1.5`, `toJSON .v`, `toYAML .`, `toTOML .`, `dotenv .`,
			`index (parseJSON "[1]") .v`, `slice "abc" .v`, `indent .v "x"`, `sprig_until .v`, `sprig_repeat .v "abc"`, `sprig_int .v`, `sprig_indent .v "a"`, `sprig_round .v 3`, `sprig_trunc .v "abc"`, `sprig_substr 0 .v "abc"`, `sprig_chunk .v (split "" "abc")`, `sprig_toDecimal .v`, `sprig_splitn "a" .v "b"`,
		} {
			assertBounded(t, `{{ $x := `+call+` }}{{ len (print $x) }}`, json.Number(n), n[:min(len(n), 20)])
		}
	}
	tmpl, err := Parse("x", "{{ range (parseYAML .v).n }}{{ end }}", Options{})
	require.NoError(t, err)
	_, err = tmpl.Execute(Input{Dot: kv2("x/y", 1, map[string]any{"v": "n: 9000000000000000000"})})
	assert.EqualError(t, err, "x:1:10: range counts to 1000000 at most (at {{(parseYAML .v).n}})")
}

func TestEncode_IsBoundedForHostileSecrets(t *testing.T) {
	if testing.Short() {
		t.Skip("values of 1 MiB take a while")
	}
	hostile := map[string]any{}
	for name, text := range hostileTexts() {
		if slices.Contains([]string{"letters", "four bytes", "dollars", "quotes", "NUL", "invalid UTF-8", "line feeds", "backslashes", "tabs"}, name) {
			hostile["value: "+name] = map[string]any{"v": text}
			hostile["key: "+name] = map[string]any{text: "v"}
		}
		var parsed any
		dec := json.NewDecoder(strings.NewReader(text))
		dec.UseNumber()
		if dec.Decode(&parsed) == nil {
			hostile["JSON: "+name] = map[string]any{"v": parsed}
		}
	}
	var nested any = "x"
	for range 9000 {
		nested = map[string]any{strings.Repeat("k", 100): nested}
	}
	hostile["9000 deep"] = map[string]any{"v": nested}
	many := map[string]any{}
	for i := range hostileSize / 10 {
		many["9"+strconv.Itoa(i)] = "a\nb"
	}
	hostile["many bad keys"] = many
	for name, pairs := range hostile {
		for _, format := range DataFormats() {
			peak, sum := memory(func() {
				out, err := Encoding{Format: Format(format), Keys: Keys{Except: []string{"x*y"}}}.Encode(kv2("x/y", 1, pairs.(map[string]any)))
				assert.True(t, err != nil || len(out) <= 2*largest, name)
				if err == nil && len(out) < largestText {
					Entries(Format(format), out)
				}
			})
			assert.Less(t, sum, uint64(maxAllocated), "%s as %s: %d MiB allocated", name, format, sum>>20)
			assert.Less(t, peak, uint64(maxLive), "%s as %s: %d MiB live", name, format, peak>>20)
		}
	}
}

func TestTemplate_OutputIsBounded(t *testing.T) {
	tmpl, err := Parse("x", `{{ $v := .v }}{{ range loop 2000 }}{{ $v }}{{ end }}`, Options{})
	require.NoError(t, err)
	_, err = tmpl.Execute(Input{Dot: kv2("x/y", 1, map[string]any{"v": fill("a")})})
	assert.EqualError(t, err, "x: the result would be larger than 32 MiB")

	tmpl, err = Parse("x", `{{ $v := .v }}{{ range loop 2000 }}{{ $v | writeToFile "/x" "" "" "0600" "append" }}{{ end }}`, Options{})
	require.NoError(t, err)
	_, err = tmpl.Execute(Input{Dot: kv2("x/y", 1, map[string]any{"v": fill("a")})})
	assert.ErrorContains(t, err, "error calling writeToFile: the result would be larger than 32 MiB")
}

func TestTemplate_AMapCannotHoldItself(t *testing.T) {
	for _, text := range []string{`{{ $x := sprig_set . "a" . }}{{ $x }}`, `{{ scratch.MapSet "a" "b" 1 }}{{ scratch.MapSet "a" "b" (sprig_list (scratch.Get "a")) }}{{ scratch.Get "a" }}`} {
		tmpl, err := Parse("x", text, Options{})
		require.NoError(t, err)
		_, err = tmpl.Execute(Input{Dot: kv2("x/y", 1, map[string]any{"v": 1})})
		assert.ErrorContains(t, err, "a map cannot hold itself")
	}
}

func TestParseTOML_BoundsNoSensibleText(t *testing.T) {
	var text strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&text, "[tenant.t%d.service] # [a.b\nurl = \"https://a.b/[{c.d=e\"\nport.number = 1.5\n'a.b' = { c.d = [ { e = 1 }, { f = [1.5, 2.5] } ] }\ntext = '''\n[[a\n'''\nmore = \"\"\"\\\"\"\"a = [\"\"\"\n", i)
	}
	v, err := parseTOML(text.String())
	require.NoError(t, err)
	assert.Len(t, v["tenant"], 2000)
	last := v["tenant"].(map[string]any)["t1999"].(map[string]any)["service"].(map[string]any)
	assert.Equal(t, `""a = [`, strings.TrimPrefix(last["more"].(string), `"`)[0:7], "%q", last["more"])
	_, err = parseTOML(strings.Repeat("a.", 99) + "a = 1")
	require.NoError(t, err)
	_, err = parseTOML(strings.Repeat("a.", 100) + "a = 1")
	assert.Equal(t, errTooDeep, err)
}
