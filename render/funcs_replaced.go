package render

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"text/template"
)

// replaced are functions in place of text/template's own: they take numbers of all
// types for what they are, and their errors hold no value.
func replaced() template.FuncMap {
	return template.FuncMap{
		"eq":       eq,
		"ge":       func(a, b any) (bool, error) { less, err := lt(a, b); return !less, err },
		"gt":       func(a, b any) (bool, error) { return lt(b, a) },
		"html":     func(args ...any) string { return template.HTMLEscaper(printables(args)...) },
		"index":    index,
		"js":       func(args ...any) string { return template.JSEscaper(printables(args)...) },
		"le":       func(a, b any) (bool, error) { more, err := lt(b, a); return !more, err },
		"lt":       lt,
		"ne":       func(a, b any) (bool, error) { equal, err := eq(a, b); return !equal, err },
		"print":    func(args ...any) string { return fmt.Sprint(printables(args)...) },
		"printf":   printf,
		"println":  func(args ...any) string { return fmt.Sprintln(printables(args)...) },
		"slice":    slice,
		"urlquery": func(args ...any) string { return template.URLQueryEscaper(printables(args)...) },
	}
}

// eq reports whether the first value is equal to one of the others. Numbers are
// compared by value, text by its characters, also with the digits of a secret's
// number.
func eq(first any, others ...any) (bool, error) {
	if len(others) == 0 {
		return false, problem("there is nothing to compare with")
	}
	for _, other := range others {
		equal, err := equals(first, other)
		if equal || err != nil {
			return equal, err
		}
	}
	return false, nil
}

func equals(a, b any) (bool, error) {
	v, w := reflect.ValueOf(a), reflect.ValueOf(b)
	switch {
	case isNil(v) || isNil(w):
		return isNil(v) && isNil(w), nil
	case v.Kind() == reflect.String && w.Kind() == reflect.String && !(isNumber(a) && isNumber(b)):
		return v.String() == w.String(), nil
	case isNumber(a) && isNumber(b):
		sign, ok := order(a, b)
		return ok && sign == 0, nil
	case v.Type() != w.Type() || !v.Comparable():
		return false, incomparable(a, b)
	}
	return a == b, nil
}

func lt(a, b any) (bool, error) {
	v, w := reflect.ValueOf(a), reflect.ValueOf(b)
	switch {
	case isNumber(a) && isNumber(b):
		sign, ok := order(a, b)
		return ok && sign < 0, nil
	case v.Kind() == reflect.String && w.Kind() == reflect.String:
		return v.String() < w.String(), nil
	}
	return false, incomparable(a, b)
}

func incomparable(a, b any) error {
	why := problemf("%s and %s cannot be compared", kindName(a), kindName(b))
	if v, w := reflect.ValueOf(a), reflect.ValueOf(b); isNumber(a) && w.Kind() == reflect.String || isNumber(b) && v.Kind() == reflect.String {
		why += "; parseInt and parseFloat make numbers of text"
	}
	return why
}

func isNil(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Invalid:
		return true
	case reflect.Chan, reflect.Func, reflect.Interface, reflect.Map, reflect.Pointer, reflect.Slice:
		return v.IsNil()
	}
	return false
}

// asksForType finds %T, whose answer templates compare: "float64" has to stay that.
var asksForType = lazily(`%[-+# 0-9.*\[\]]*T`)

// printf is fmt's, with numbers that suit every verb. It fails where its result would be
// too large.
func printf(format string, args ...any) (string, error) {
	if err := printedSize(format, args); err != nil {
		return "", err
	}
	if asksForType().MatchString(format) {
		return fmt.Sprintf(format, plain(args)...), nil
	}
	hasWidths := strings.Contains(format, "*") // Those have to be integers.
	all := make([]any, len(args))
	for i, arg := range args {
		all[i] = convert(arg, func(v any) any {
			if !isNumber(v) || hasWidths && reflect.ValueOf(v).CanInt() {
				return v
			}
			if _, prints := v.(fmt.Stringer); prints && reflect.TypeOf(v) != numberType {
				return v // A duration, such as of sprig_duration, is more than its number.
			}
			return figure{v}
		})
	}
	return fmt.Sprintf(format, all...), nil
}

// index returns an element of nested maps and lists. Unlike text/template's a key
// that is not in a map is an error instead of the zero value, as missingkey=error has
// it for fields.
func index(item any, keys ...any) (any, error) {
	for _, key := range keys {
		v := reflect.ValueOf(item)
		switch v.Kind() {
		case reflect.Map:
			k, ok := mapKey(v.Type().Key(), key)
			if !ok {
				return nil, problemf("a map whose keys are %s cannot be indexed by %s", typeName(v.Type().Key()), kindName(key))
			}
			found := v.MapIndex(k)
			if !found.IsValid() {
				return nil, errNoKey
			}
			item = found.Interface()
		case reflect.Slice, reflect.Array, reflect.String:
			i, ok := whole(key)
			if !ok {
				return nil, problemf("%s cannot be indexed by %s", kindName(item), kindName(key))
			}
			if i < 0 || i >= int64(v.Len()) {
				return nil, problem("the index is outside of the list")
			}
			item = v.Index(int(i)).Interface()
		default:
			return nil, problemf("%s cannot be indexed", kindName(item))
		}
	}
	return item, nil
}

// mapKey is a key as the map has it. YAML's keys may be numbers.
func mapKey(wanted reflect.Type, key any) (reflect.Value, bool) {
	k := reflect.ValueOf(key)
	switch {
	case !k.IsValid():
		return k, false
	case wanted.Kind() == reflect.Interface && isNumber(key):
		if i, ok := whole(key); ok {
			return reflect.ValueOf(int(i)), true
		}
		return k, true
	}
	return k, k.Type().AssignableTo(wanted) && k.Comparable()
}

// lenientIndex gives the zero value for a key that is not there, as text/template's
// own does.
func lenientIndex(item any, keys ...any) (any, error) {
	for _, key := range keys {
		found, err := index(item, key)
		switch {
		case err == nil:
			item = found
		case errors.Is(err, errNoKey):
			item = reflect.Zero(reflect.TypeOf(item).Elem()).Interface()
		default:
			return nil, err
		}
	}
	return item, nil
}

// slice returns part of a list or a text, from the first index to before the second.
func slice(item any, bounds ...any) (any, error) {
	v := reflect.ValueOf(item)
	if kind := v.Kind(); kind != reflect.String && kind != reflect.Slice {
		return nil, problemf("%s has no parts to slice", kindName(item))
	}
	if len(bounds) > 2 {
		return nil, problem("slice wants two indexes at most")
	}
	at := [2]int64{0, int64(v.Len())}
	for i, bound := range bounds {
		n, ok := whole(bound)
		if !ok {
			return nil, problemf("%s cannot be sliced by %s", kindName(item), kindName(bound))
		}
		at[i] = n
	}
	if at[0] < 0 || at[0] > at[1] || at[1] > int64(v.Len()) {
		return nil, problem("the index is outside of the list")
	}
	return v.Slice(int(at[0]), int(at[1])).Interface(), nil
}
