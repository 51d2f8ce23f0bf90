package render

import (
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"
)

// A kind is what a value is in the words of the documentation, for errors: a user knows
// lists and text, not Go's types.
type kind string

// kindName returns the kind of a value.
func kindName(v any) kind {
	if v == nil {
		return "null"
	}
	return typeName(reflect.TypeOf(v))
}

func typeName(t reflect.Type) kind {
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
	noEntry    = lazily(`^map has no entry for key "(\w+)"$`)
	wrongType  = lazily(`^wrong type for value; expected (.*); got (.*)$`)
	wrongValue = lazily(`^invalid value; expected (.*)$`)
	wrongField = lazily(`^(?:can't evaluate field (\w+) in type (.*)|nil pointer evaluating (.*)\.(\w+))$`)
	wrongCount = lazily(`^wrong number of args for \w+: want (at least )?\d+ got \d+$`)
	noCall     = lazily(`^\w+ (is not a method but has arguments|has arguments but cannot be invoked as function)$`)
	calling    = lazily(`^error calling (\w+): `)
)

// withoutValues says in other words what text/template says of a problem: its own may end in
// the value that it complains of. Names in it are text of the template; types are named as
// in the documentation. reason is why a function failed, "" where that is not known to hold
// no value.
func withoutValues(problem, reason string) string {
	if m := calling().FindStringSubmatch(problem); m != nil {
		if reason == "" {
			reason = "it does not take such values"
		}
		if strings.HasPrefix(m[1], "_") {
			return reason // The function is not the user's: see [guard].
		}
		return m[0] + reason
	}
	if m := wrongType().FindStringSubmatch(problem); m != nil {
		return fmt.Sprintf("wrong type of value: expected %s, not %s", ofGoType(m[1]), ofGoType(m[2]))
	}
	if m := wrongValue().FindStringSubmatch(problem); m != nil {
		return "there is no value: expected " + ofGoType(m[1])
	}
	if m := wrongField().FindStringSubmatch(problem); m != nil {
		return noField(cmp.Or(m[1], m[4]), cmp.Or(m[2], m[3]), m[3] != "")
	}
	switch {
	case wrongCount().MatchString(problem), noCall().MatchString(problem):
		return problem
	case strings.HasPrefix(problem, "nil data; no entry for key"):
		return "there is no value, so it has no such key"
	case strings.HasPrefix(problem, "exceeded maximum template depth"):
		return "templates include each other without an end"
	case strings.HasSuffix(problem, "iterate over more than one variable"):
		return "a range over a number has one variable only"
	}
	return "this cannot be done with a value of this type"
}

// noField helps with the fields of a secret.
func noField(field, of string, isNil bool) string {
	near := ""
	if goTypes[of] == "a secret" {
		var names []string
		for _, f := range reflect.VisibleFields(reflect.TypeFor[view]()) {
			names = append(names, f.Name)
		}
		near = didYouMean(field, names)
	}
	what := cmp.Or(goTypes[of], "the value")
	if isNil && of == "interface {}" {
		what = "null"
	}
	return fmt.Sprintf("%s has no field %q%s", what, field, near)
}
