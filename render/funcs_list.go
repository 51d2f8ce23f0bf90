package render

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"text/template"
)

// lists are the functions on lists and maps.
func lists() template.FuncMap {
	return template.FuncMap{
		"byKey":                byKey,
		"contains":             func(v, l any) (bool, error) { return in(l, v) },
		"containsAll":          containing(func(found, of int) bool { return found == of }),
		"containsAny":          containing(func(found, _ int) bool { return found > 0 }),
		"containsNone":         containing(func(found, _ int) bool { return found == 0 }),
		"containsNotAll":       containing(func(found, of int) bool { return found < of }),
		"explode":              explode,
		"explodeMap":           explode,
		"in":                   in,
		"join":                 join,
		"mergeMap":             func(base, more map[string]any) map[string]any { return merge(base, more, false) },
		"mergeMapWithOverride": func(base, more map[string]any) map[string]any { return merge(base, more, true) },
	}
}

// join takes the separator first, so that a list can be piped in.
func join(sep string, list any) (string, error) {
	v := reflect.ValueOf(list)
	if v.Kind() != reflect.Slice {
		return "", problemf("join wants a list, not %s", kindName(list))
	}
	if err := joinedSize(sep, list); err != nil {
		return "", err
	}
	parts := make([]string, v.Len())
	for i := range parts {
		parts[i] = fmt.Sprint(printable(v.Index(i).Interface()))
	}
	return strings.Join(parts, sep), nil
}

// in tells whether a value is in a list or, for text, part of it.
func in(list, value any) (bool, error) {
	v := reflect.ValueOf(list)
	switch v.Kind() {
	case reflect.String:
		part, ok := value.(string)
		return ok && strings.Contains(v.String(), part), nil
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			if same(v.Index(i).Interface(), value) {
				return true, nil
			}
		}
		return false, nil
	}
	return false, nil
}

// same compares numbers by value, whatever their types.
func same(a, b any) bool {
	if sign, ok := order(a, b); ok {
		return sign == 0
	}
	return reflect.DeepEqual(a, b)
}

func containing(enough func(found, of int) bool) func(values, list any) (bool, error) {
	return func(values, list any) (bool, error) {
		v := reflect.ValueOf(values)
		if v.Kind() != reflect.Slice {
			return false, problemf("a list of values is wanted first, not %s", kindName(values))
		}
		if of := reflect.ValueOf(list); of.Kind() == reflect.Slice || of.Kind() == reflect.Array {
			if err := checkComparisons(v.Len(), of.Len()); err != nil {
				return false, err
			}
		}
		found := 0
		for i := range v.Len() {
			there, err := in(list, v.Index(i).Interface())
			if err != nil {
				return false, err
			}
			if there {
				found++
			}
		}
		return enough(found, v.Len()), nil
	}
}

// explode turns keys with slashes into nested maps.
func explode(pairs map[string]any) (map[string]any, error) {
	nested, pairs := map[string]any{}, copyOf(pairs) // Maps in it are added to.
	for _, key := range slices.Sorted(maps.Keys(pairs)) {
		at := nested
		segments := strings.Split(strings.Trim(key, "/"), "/")
		if len(segments) > deepestNesting {
			return nil, errTooDeep
		}
		for _, segment := range segments[:len(segments)-1] {
			inner, ok := at[segment].(map[string]any)
			if !ok && at[segment] != nil {
				return nil, problem("a key is both a value and the beginning of another key")
			}
			if !ok {
				inner = map[string]any{}
				at[segment] = inner
			}
			at = inner
		}
		at[segments[len(segments)-1]] = pairs[key]
	}
	return nested, nil
}

// byKey groups pairs by the first segment of their keys; those of one segment
// are left out.
func byKey(pairs map[string]any) map[string]any {
	groups := map[string]any{}
	for key, value := range pairs {
		first, rest, ok := strings.Cut(strings.Trim(key, "/"), "/")
		if !ok {
			continue
		}
		group, there := groups[first].(map[string]any)
		if !there {
			group = map[string]any{}
			groups[first] = group
		}
		group[rest] = value
	}
	return groups
}

// isEmptyValue is what mergeMap fills, as consul-template's does.
func isEmptyValue(v any) bool {
	r := reflect.ValueOf(v)
	switch r.Kind() {
	case reflect.Invalid:
		return true
	case reflect.Map, reflect.Slice, reflect.String:
		return r.Len() == 0
	}
	return r.IsZero()
}

// merge is a deep copy of the base with what the other map adds or, where it
// overrides, says otherwise.
func merge(base, more map[string]any, override bool) map[string]any {
	merged := maps.Clone(base)
	if merged == nil {
		merged = map[string]any{}
	}
	for key, value := range more {
		old, there := merged[key]
		oldMap, oldIsMap := old.(map[string]any)
		newMap, newIsMap := value.(map[string]any)
		switch {
		case oldIsMap && newIsMap:
			merged[key] = merge(oldMap, newMap, override)
		case !there || override || isEmptyValue(old):
			merged[key] = value
		}
	}
	return merged
}
