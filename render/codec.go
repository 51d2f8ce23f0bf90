package render

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
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

// toJSON leaves <, > and & as they are: no HTML is made here.
func toJSON(v any, indent string) (string, error) {
	if !isUTF8(v) {
		return "", errors.New("a text that is not UTF-8 cannot be written as JSON")
	}
	var out strings.Builder
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if err := enc.Encode(v); err != nil {
		return "", fmt.Errorf("a %T cannot be written as JSON", v)
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}

// parseJSON reads numbers as floats, which consul-template's templates expect,
// unless a float would not hold all their digits.
func parseJSON(text string) (any, error) {
	if text == "" {
		return map[string]any{}, nil
	}
	var v any
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	if dec.Decode(&v) != nil || dec.Decode(new(any)) != io.EOF {
		return nil, errors.New("the value is not JSON")
	}
	return convert(v, func(n json.Number) any {
		if f, err := n.Float64(); err == nil && exact(n, f) {
			return f
		}
		return n
	}), nil
}

// exact tells whether the float is the number, to the digit.
func exact(n json.Number, f float64) bool {
	i, err := n.Int64()
	if err == nil {
		return int64(f) == i && i < 1<<53 && i > -1<<53
	}
	return strings.ContainsAny(n.String(), ".eE")
}

func parseYAML(text string) (any, error) {
	if text == "" {
		return map[string]any{}, nil
	}
	var v any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		return nil, errors.New("the value is not YAML")
	}
	return v, nil
}

func parseTOML(text string) (map[string]any, error) {
	v := map[string]any{}
	if _, err := toml.Decode(text, &v); err != nil {
		return nil, errors.New("the value is not TOML")
	}
	return v, nil
}

// toYAML keeps numbers to the digit, and ends in a line break.
func toYAML(v any) (text string, err error) {
	defer func() {
		if recover() != nil { // The library panics on what it cannot write.
			err = fmt.Errorf("a %T cannot be written as YAML", v)
		}
	}()
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if enc.Encode(quoteOdd(convert(v, yamlNumber))) != nil || enc.Close() != nil {
		return "", fmt.Errorf("a %T cannot be written as YAML", v)
	}
	// What is left of such text is in keys, and rare enough to be refused.
	if err := yaml.Unmarshal(out.Bytes(), new(any)); err != nil {
		return "", fmt.Errorf("a %T with such keys cannot be written as YAML", v)
	}
	return out.String(), nil
}

func yamlNumber(n json.Number) any {
	tag := "!!float" // Readers take whole numbers of more than 64 bits for such.
	if _, err := n.Int64(); err == nil {
		tag = "!!int"
	} else if _, err := strconv.ParseUint(n.String(), 10, 64); err == nil {
		tag = "!!int"
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: n.String()}
}

// quoteOdd puts text into quotes that the library writes as no reader takes it:
// lines of which the first begins with a blank, and a lone sign of equality.
func quoteOdd(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, each := range v {
			v[key] = quoteOdd(each)
		}
	case []any:
		for i, each := range v {
			v[i] = quoteOdd(each)
		}
	case string:
		if v == "=" || strings.Contains(v, "\n") && strings.ContainsAny(v[:1], " \t\n") {
			return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: v, Style: yaml.DoubleQuotedStyle}
		}
	}
	return v
}

// toTOML fails on what TOML has no word for: null, and whole numbers of more
// than 64 bits. It ends in a line break, unless there is nothing to write.
func toTOML(v any) (string, error) {
	var wrong error
	v = convert(v, func(n json.Number) any {
		i, err := n.Int64()
		if err == nil {
			return i
		}
		f, err := n.Float64()
		if err != nil || !strings.ContainsAny(n.String(), ".eE") {
			wrong = errors.New("a number is too large for TOML")
		}
		return f
	})
	if wrong != nil {
		return "", wrong
	}
	if !isUTF8(v) {
		return "", errors.New("a text that is not UTF-8 cannot be written as TOML")
	}
	var out bytes.Buffer
	if holdsNull(v) || toml.NewEncoder(&out).Encode(v) != nil {
		return "", fmt.Errorf("a %T that holds null or lists of several types cannot be written as TOML", v)
	}
	return out.String(), nil
}

func holdsNull(v any) bool {
	return some(v, func(v any) bool { return v == nil })
}

func isUTF8(v any) bool {
	return !some(v, func(v any) bool { text, ok := v.(string); return ok && !utf8.ValidString(text) })
}

// some tells whether a value, or something in it, is such; keys count, too.
func some(v any, such func(any) bool) bool {
	switch v := v.(type) {
	case map[string]any:
		for key, each := range v {
			if such(key) || some(each, such) {
				return true
			}
		}
		return false
	case []any:
		return slices.ContainsFunc(v, func(each any) bool { return some(each, such) })
	case []string:
		return slices.ContainsFunc(v, func(each string) bool { return such(each) })
	case map[string]string:
		for key, each := range v {
			if such(key) || such(each) {
				return true
			}
		}
		return false
	}
	return such(v)
}

// convert copies a value as JSON knows it, with its numbers converted.
func convert(v any, number func(json.Number) any) any {
	switch v := v.(type) {
	case json.Number:
		return number(v)
	case map[string]any:
		c := make(map[string]any, len(v))
		for key, each := range v {
			c[key] = convert(each, number)
		}
		return c
	case []any:
		c := make([]any, len(v))
		for i, each := range v {
			c[i] = convert(each, number)
		}
		return c
	}
	return v
}
