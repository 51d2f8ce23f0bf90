package render

import (
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"time"
)

// kindName says what a value is in the words of the documentation, for errors: a
// user knows lists and text, not Go's types.
func kindName(v any) string {
	if v == nil {
		return "null"
	}
	return typeName(reflect.TypeOf(v))
}

func typeName(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[json.Number]():
		return "a number"
	case reflect.TypeFor[*view](), reflect.TypeFor[view]():
		return "a secret"
	case reflect.TypeFor[*certificate](), reflect.TypeFor[certificate]():
		return "a certificate"
	case reflect.TypeFor[*scratch]():
		return "scratch"
	case reflect.TypeFor[time.Time]():
		return "a time"
	}
	switch t.Kind() {
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Map:
		return "a map"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Float32, reflect.Float64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return "a number"
	}
	return "a value"
}

// goTypes are the types that text/template names in its messages.
var goTypes = map[string]string{
	"string": "text", "bool": "true or false", "untyped nil": "null",
	"int": "a number", "int64": "a number", "uint64": "a number", "float64": "a number", "json.Number": "a number", "render.decimal": "a number",
	"map[string]interface {}": "a map", "map[interface {}]interface {}": "a map", "map[string]string": "a map",
	"[]interface {}": "a list", "[]map[string]interface {}": "a list", "[]string": "a list", "[]int": "a list", "[]int64": "a list",
	"*render.view": "a secret", "*render.certificate": "a certificate", "*render.scratch": "scratch", "time.Time": "a time",
}

// ofGoType is what a type in a message of text/template stands for.
func ofGoType(name string) string { return cmp.Or(goTypes[name], "a value of this type") }

var (
	wrongType  = lazily(`^wrong type for value; expected (.*); got (.*)$`)
	wrongValue = lazily(`^invalid value; expected (.*)$`)
	wrongField = lazily(`^(?:can't evaluate field (\w+) in type (.*)|nil pointer evaluating (.*)\.(\w+))$`)
)

// withoutGoTypes says in the words of the documentation what text/template says of
// types, and helps with the fields of a secret.
func withoutGoTypes(problem string) string {
	if m := wrongType().FindStringSubmatch(problem); m != nil {
		return fmt.Sprintf("wrong type of value: expected %s, not %s", ofGoType(m[1]), ofGoType(m[2]))
	}
	if m := wrongValue().FindStringSubmatch(problem); m != nil {
		return fmt.Sprintf("there is no value: expected %s", ofGoType(m[1]))
	}
	if m := wrongField().FindStringSubmatch(problem); m != nil {
		field, in := cmp.Or(m[1], m[4]), cmp.Or(m[2], m[3])
		near := ""
		if fields := reflect.TypeFor[view](); goTypes[in] == "a secret" {
			var names []string
			for i := range fields.NumField() {
				names = append(names, fields.Field(i).Name)
			}
			near = didYouMean(field, names)
		}
		of := cmp.Or(goTypes[in], "the value")
		if m[3] == "interface {}" {
			of = "null"
		}
		return fmt.Sprintf("%s has no field %q%s", of, field, near)
	}
	return problem
}
