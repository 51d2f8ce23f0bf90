package render

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"text/template"
)

// errNoValue and errNoKey are what a template's output functions fail with;
// [Template.Execute] turns them into a [MissingKeyError].
var (
	errNoValue = errors.New("there is no value to write")
	errNoKey   = errors.New("there is no such key")
)

// functions are the ones that need nothing but their arguments. "secret",
// "pkiCert" and "env" are bound anew for each execution.
func functions() template.FuncMap {
	return template.FuncMap{
		"secret":       asker(nil).secret,
		"pkiCert":      asker(nil).pkiCert,
		"env":          func(string) (string, error) { return "", errUnbound },
		presentFunc:    present,
		"index":        index,
		"base64Decode": base64Decode,
		"base64Encode": func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
		"join":         join,
		"replaceAll":   func(from, to, s string) string { return strings.ReplaceAll(s, from, to) },
		"split":        func(sep, s string) []string { return strings.Split(s, sep) },
		"toJSON":       func(v any) (string, error) { return toJSON(v, "") },
		"toJSONPretty": func(v any) (string, error) { return toJSON(v, "  ") },
		"toLower":      strings.ToLower,
		"toUpper":      strings.ToUpper,
		"trimSpace":    strings.TrimSpace,
	}
}

var errUnbound = errors.New("not bound")

// presentFunc ends every pipeline that writes something; see [guard].
const presentFunc = "_present"

// present refuses what text/template would write as "<no value>".
func present(v any) (any, error) {
	if v == nil {
		return nil, errNoValue
	}
	return v, nil
}

// index is text/template's function, but a key that is not in a map is an
// error instead of the zero value, as missingkey=error has it for fields.
func index(item any, keys ...any) (any, error) {
	for _, key := range keys {
		v := reflect.ValueOf(item)
		switch v.Kind() {
		case reflect.Map:
			k := reflect.ValueOf(key)
			if !k.IsValid() || !k.Type().AssignableTo(v.Type().Key()) {
				return nil, fmt.Errorf("a map of %s keys cannot be indexed by %T", v.Type().Key(), key)
			}
			found := v.MapIndex(k)
			if !found.IsValid() {
				return nil, errNoKey
			}
			item = found.Interface()
		case reflect.Slice, reflect.Array, reflect.String:
			i, ok := key.(int)
			if !ok {
				return nil, fmt.Errorf("a list cannot be indexed by %T", key)
			}
			if i < 0 || i >= v.Len() {
				return nil, fmt.Errorf("index %d is outside a list of %d", i, v.Len())
			}
			item = v.Index(i).Interface()
		default:
			return nil, fmt.Errorf("%T cannot be indexed", item)
		}
	}
	return item, nil
}

// join takes the separator first, so that a list can be piped in.
func join(sep string, list any) (string, error) {
	v := reflect.ValueOf(list)
	if v.Kind() != reflect.Slice {
		return "", fmt.Errorf("join wants a list, not %T", list)
	}
	parts := make([]string, v.Len())
	for i := range parts {
		parts[i] = fmt.Sprint(v.Index(i).Interface())
	}
	return strings.Join(parts, sep), nil
}

// base64Decode does not say where the text is broken: positions and characters
// of a secret stay out of errors.
func base64Decode(s string) (string, error) {
	decoded, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return "", errors.New("the value is not base64")
	}
	return string(decoded), nil
}

// toJSON leaves <, > and & as they are: no HTML is made here.
func toJSON(v any, indent string) (string, error) {
	var out strings.Builder
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if err := enc.Encode(v); err != nil {
		return "", fmt.Errorf("a %T cannot be written as JSON", v)
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}
