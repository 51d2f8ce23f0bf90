package render

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"reflect"
	"strconv"
	"strings"
	"text/template"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
	"go.yaml.in/yaml/v3"
)

// codecs are the functions that write and read structured text.
func codecs() template.FuncMap {
	return template.FuncMap{
		"parseJSON":             parseJSON,
		"parseTOML":             parseTOML,
		"parseYAML":             parseYAML,
		"toJSON":                func(v any) (string, error) { return toJSON(v, "") },
		"toJSONPretty":          func(v any) (string, error) { return toJSON(v, "  ") },
		"toTOML":                func(v any) (string, error) { text, err := toTOML(v); return strings.TrimSpace(text), err },
		"toUnescapedJSON":       func(v any) (string, error) { return toJSON(v, "") },
		"toUnescapedJSONPretty": func(v any) (string, error) { return toJSON(v, "  ") },
		"toYAML":                func(v any) (string, error) { text, err := toYAML(v); return strings.TrimSpace(text), err },
	}
}

// ValueError says why a value cannot be written in a format. It holds no value.
type ValueError struct {
	// Key is where the value is, such as "db.users[0]"; "" for all of it.
	Key string
	// Problem is what is wrong with it, such as "is null, and TOML has no null".
	Problem string
	// Hint is what the user can do about it, or "".
	Hint string
}

func (e *ValueError) Error() string {
	text := "the value " + e.Problem
	if e.Key != "" {
		text = fmt.Sprintf("key %q %s", e.Key, e.Problem)
	}
	if e.Hint != "" {
		text += "; " + e.Hint
	}
	return text
}

const leaveOut = "give it a value, or leave the key out (keys { except = [...] } in a drop, sprig_omit in a template)"

// toJSON leaves <, > and & as they are: no HTML is made here.
func toJSON(v any, indent string) (string, error) {
	if err := unwritable(v, "JSON", notUTF8, oddKeys, notFinite); err != nil {
		return "", err
	}
	var out strings.Builder
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if err := enc.Encode(v); err != nil {
		return "", problemf("%s of this kind cannot be written as JSON", kindName(v))
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}

// parseJSON reads numbers as floats, which consul-template's templates expect,
// unless a float would not hold all their digits.
func parseJSON(text string) (any, error) {
	if text == "" {
		return map[string]any{}, nil
	}
	if len(text) > largestText {
		return nil, errLongText
	}
	var v any
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	if dec.Decode(&v) != nil || dec.Decode(new(any)) != io.EOF {
		return nil, problem("the value is not JSON")
	}
	return convert(v, func(v any) any {
		if n, ok := v.(json.Number); ok {
			return floatIfExact(n)
		}
		return v
	}), nil
}

// floatIfExact is a number as a float where that is the same to the digit.
func floatIfExact(n json.Number) any {
	f, err := n.Float64()
	isLarge := !isFloat(n) && math.Abs(f) >= exactBound
	if err != nil || isLarge || !sameDecimal(n, f) {
		return n
	}
	return f
}

func parseYAML(text string) (any, error) {
	if text == "" {
		return map[string]any{}, nil
	}
	if len(text) > largestText {
		return nil, errLongText
	}
	const errNoYAML problem = "the value is not YAML"
	var document yaml.Node
	if yaml.Unmarshal([]byte(text), &document) != nil {
		return nil, errNoYAML
	}
	if document.IsZero() { // There is nothing but comments.
		return nil, nil
	}
	if err := boundYAML(&document); err != nil {
		return nil, err
	}
	keepDigits(&document)
	var v any
	if document.Decode(&v) != nil {
		return nil, errNoYAML
	}
	return convert(v, func(v any) any {
		if text, ok := v.(string); ok {
			if digits, ok := strings.CutPrefix(text, largeNumber); ok {
				return json.Number(digits)
			}
		}
		return asDecimal(v)
	}), nil
}

// largeNumber begins the text that stands for a whole number of more than 64 bits
// while YAML is decoded, which would make a float of it. It is not UTF-8, so that no
// text of YAML begins like it.
const largeNumber = "\xff\xfe"

var digitsOnly = lazily(`^[-+]?[0-9]+$`)

func keepDigits(node *yaml.Node) {
	for _, each := range node.Content {
		keepDigits(each)
	}
	text := strings.ReplaceAll(node.Value, "_", "")
	if node.Kind != yaml.ScalarNode || node.ShortTag() != "!!float" || !digitsOnly().MatchString(text) {
		return
	}
	sign := ""
	if strings.HasPrefix(text, "-") {
		sign = "-"
	}
	node.Value, node.Tag, node.Style = largeNumber+sign+strings.TrimLeft(text, "-+0"), "!!str", 0
}

func parseTOML(text string) (map[string]any, error) {
	if len(text) > largestText {
		return nil, errLongText
	}
	if err := boundTOML(text); err != nil {
		return nil, err
	}
	v := map[string]any{}
	if _, err := toml.Decode(text, &v); err != nil {
		return nil, problem("the value is not TOML")
	}
	v, _ = convert(v, asDecimal).(map[string]any)
	return v, nil
}

func asDecimal(v any) any {
	if f, ok := v.(float64); ok {
		return decimal(f)
	}
	return v
}

// toYAML keeps numbers to the digit, and ends in a line break.
func toYAML(v any) (text string, err error) {
	if err := unwritable(v, "YAML", tooLarge); err != nil {
		return "", err
	}
	if err := checkNodes(v); err != nil {
		return "", err
	}
	failed := problemf("%s of this kind cannot be written as YAML", kindName(v))
	defer func() {
		if recover() != nil { // The library panics on what it cannot write.
			err = failed
		}
	}()
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if enc.Encode(quoteOdd(convert(v, yamlNumber))) != nil || enc.Close() != nil {
		return "", failed
	}
	// What is left of such text is in keys, and rare enough to be refused.
	if odd := oddlyKeyed(nil, v); len(odd) > 0 {
		written, err := yaml.Marshal(odd)
		if err != nil || yaml.Unmarshal(written, new(any)) != nil {
			return "", problemf("%s with such keys cannot be written as YAML", kindName(v))
		}
	}
	return out.String(), nil
}

// simpleKey is a key that every writer and reader of YAML takes for what it is.
var simpleKey = lazily(`^[A-Za-z0-9_.-]{1,100}$`)

// oddlyKeyed adds maps with the keys of a value that are not simple, one by one. The
// library needs time by the square of a map's size to read it.
func oddlyKeyed(odd []map[string]int, v any) []map[string]int {
	for key, part := range parts(v) {
		if key.IsValid() {
			if text, ok := key.Interface().(string); ok && !simpleKey().MatchString(text) {
				odd = append(odd, map[string]int{text: 0})
			}
		}
		odd = oddlyKeyed(odd, part)
	}
	return odd
}

// yamlNumber has a number written as [numberText].
func yamlNumber(v any) any {
	text, isWhole, ok := numeral(v)
	if !ok {
		return v
	}
	tag := "!!float" // Readers take whole numbers of more than 64 bits for such.
	if _, err := strconv.ParseInt(text, 10, 64); err == nil && isWhole {
		tag = "!!int"
	} else if _, err := strconv.ParseUint(text, 10, 64); err == nil && isWhole {
		tag = "!!int"
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: text}
}

// numeral is how formats with types write a number that Go would write otherwise:
// those of JSON, and floats. A whole one has neither fraction nor exponent.
func numeral(v any) (text string, isWhole, ok bool) {
	if f, isNumeric := float(v); !isNumeric || !isFloat(v) && reflect.TypeOf(v) != numberType || math.IsInf(f, 0) || math.IsNaN(f) {
		return "", false, reflect.TypeOf(v) == numberType
	}
	text = numberText(v)
	if _, ok := v.(decimal); ok && !strings.ContainsAny(text, ".e") {
		text += ".0"
	}
	return text, !strings.ContainsAny(text, ".eE"), true
}

// quoteOdd puts text into quotes that the library writes as no reader takes it:
// lines of which the first begins with a blank, and a lone sign of equality.
func quoteOdd(v any) any {
	return convert(v, func(v any) any {
		text, ok := v.(string)
		if ok && (text == "=" || strings.Contains(text, "\n") && strings.ContainsAny(text[:1], " \t\n")) {
			return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text, Style: yaml.DoubleQuotedStyle}
		}
		return v
	})
}

// toTOML fails on what TOML has no word for: null, and whole numbers of more
// than 64 bits. It ends in a line break, unless there is nothing to write.
func toTOML(v any) (string, error) {
	if err := unwritable(v, "TOML", notUTF8, oddKeys, isNull, tooLarge, over64Bits); err != nil {
		return "", err
	}
	if reflect.ValueOf(v).Kind() != reflect.Map && reflect.Indirect(reflect.ValueOf(v)).Kind() != reflect.Struct {
		return "", problemf("%s cannot be written as TOML, which consists of keys and values", kindName(v))
	}
	var out bytes.Buffer
	if toml.NewEncoder(&out).Encode(convert(v, tomlNumber)) != nil {
		return "", problemf("%s of this kind cannot be written as TOML", kindName(v))
	}
	return out.String(), nil
}

// tomlFloat is the text of a float.
type tomlFloat string

// MarshalTOML implements [toml.Marshaler].
func (f tomlFloat) MarshalTOML() ([]byte, error) { return []byte(f), nil }

// tomlNumber has a number written as [numberText].
func tomlNumber(v any) any {
	text, isWhole, ok := numeral(v)
	if !ok {
		return v
	}
	if i, err := strconv.ParseInt(text, 10, 64); err == nil && isWhole {
		return i
	}
	if isWhole {
		text += ".0" // It is a float of more than 64 bits, or -0.
	}
	return tomlFloat(text)
}

// A flaw says what a format cannot write of a value, with a hint; "" is all well.
type flaw func(v any, format string) (problem, hint string)

func isNull(v any, format string) (problem, hint string) {
	if v == nil {
		return "is null, and " + format + " has no null", leaveOut
	}
	return "", ""
}

func notUTF8(v any, format string) (problem, hint string) {
	if text, ok := v.(string); ok && !utf8.ValidString(text) {
		return "is not UTF-8, which " + format + " cannot carry", "encode it, as by base64Encode"
	}
	return "", ""
}

func oddKeys(v any, format string) (problem, hint string) {
	if r := reflect.ValueOf(v); r.Kind() == reflect.Map && r.Type().Key().Kind() != reflect.String {
		return "is a map whose keys are not all text, which " + format + " cannot carry", "put the keys in quotes where they come from"
	}
	return "", ""
}

func notFinite(v any, format string) (problem, hint string) {
	if f, ok := float(v); ok && (math.IsInf(f, 0) || math.IsNaN(f)) {
		return "is no finite number, which " + format + " cannot carry", ""
	}
	return "", ""
}

func tooLarge(v any, format string) (problem, hint string) {
	if _, fits := float(v); isNumber(v) && !fits {
		return "is a number too large for " + format, "write it as text"
	}
	return "", ""
}

// over64Bits finds whole numbers that TOML's readers need not take.
func over64Bits(v any, format string) (problem, hint string) {
	if i, isWhole := integer(v); isWhole && !isFloat(v) && !i.IsInt64() {
		return "is a number too large for " + format, "write it as text"
	}
	return "", ""
}

// unwritable finds the first part of a value that has a flaw, in the order of keys.
func unwritable(v any, format string, flaws ...flaw) error {
	if err := bounded(v); err != nil {
		return err
	}
	if err := unwritableAt(nil, v, format, flaws); err != nil {
		return err
	}
	return nil
}

// unwritableAt is told the path as a chain, which costs nothing where all is well.
func unwritableAt(path *step, v any, format string, flaws []flaw) *ValueError {
	for _, has := range flaws {
		if problem, hint := has(v, format); problem != "" {
			return &ValueError{Key: path.String(), Problem: problem, Hint: hint}
		}
	}
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Map:
		keys := map[string]any{}
		for each := r.MapRange(); each.Next(); {
			keys[each.Key().String()] = each.Value().Interface()
		}
		for _, key := range sortedKeys(keys) {
			at := &step{path, key, 0}
			if !utf8.ValidString(key) {
				return &ValueError{Key: at.String(), Problem: "is not UTF-8, which " + format + " cannot carry"}
			}
			if err := unwritableAt(at, keys[key], format, flaws); err != nil {
				return err
			}
		}
	case reflect.Slice, reflect.Array:
		for i := range r.Len() {
			if err := unwritableAt(&step{path, "", i}, r.Index(i).Interface(), format, flaws); err != nil {
				return err
			}
		}
	}
	return nil
}

// A step leads to a part of a value: a key of a map or, where that is "", an index.
type step struct {
	from  *step
	key   string
	index int
}

// String is the path from the beginning, such as "db.users[0]".
func (s *step) String() string {
	switch {
	case s == nil:
		return ""
	case s.key == "":
		return fmt.Sprintf("%s[%d]", s.from, s.index)
	}
	return strings.TrimPrefix(s.from.String()+"."+s.key, ".")
}

// numberType is the type of the numbers of secrets.
var numberType = reflect.TypeFor[json.Number]()

// convert copies a value with what is not nested in it converted.
func convert(v any, leaf func(any) any) any {
	switch v := v.(type) {
	case map[string]any:
		return convertMap(v, leaf)
	case map[any]any: // YAML whose keys are not all text.
		return convertMap(v, leaf)
	case []any:
		return convertList(v, leaf)
	case []map[string]any: // TOML's arrays of tables.
		c := make([]map[string]any, len(v))
		for i, each := range v {
			c[i] = convertMap(each, leaf)
		}
		return c
	}
	return leaf(v)
}

func convertMap[K comparable](v map[K]any, leaf func(any) any) map[K]any {
	c := make(map[K]any, len(v))
	for key, each := range v {
		c[key] = convert(each, leaf)
	}
	return c
}

func convertList(v []any, leaf func(any) any) []any {
	c := make([]any, len(v))
	for i, each := range v {
		c[i] = convert(each, leaf)
	}
	return c
}

// plain are arguments as other libraries know them, without [decimal].
func plain(args []any) []any {
	return convertList(args, func(v any) any {
		if f, ok := v.(decimal); ok {
			return float64(f)
		}
		return v
	})
}
