package render

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"text/template"
)

// numbers are the functions on numbers. As for consul-template the second
// argument comes first: {{ 5 | subtract 2 }} is 3. Two whole numbers give a
// whole number.
func numbers() template.FuncMap {
	return template.FuncMap{
		"add":        calculate(func(a, b int64) (int64, error) { return a + b, nil }, func(a, b float64) float64 { return a + b }),
		"subtract":   calculate(func(a, b int64) (int64, error) { return a - b, nil }, func(a, b float64) float64 { return a - b }),
		"multiply":   calculate(func(a, b int64) (int64, error) { return a * b, nil }, func(a, b float64) float64 { return a * b }),
		"divide":     calculate(divide, func(a, b float64) float64 { return a / b }),
		"modulo":     calculate(modulo, math.Mod),
		"minimum":    calculate(func(a, b int64) (int64, error) { return min(a, b), nil }, math.Min),
		"maximum":    calculate(func(a, b int64) (int64, error) { return max(a, b), nil }, math.Max),
		"loop":       loop,
		"parseBool":  reading("true or false", strconv.ParseBool),
		"parseFloat": reading("a number", parseFloat),
		"parseInt":   reading("a whole number", parseInt),
		"parseUint":  reading("a whole number of at least 0", parseUint),
	}
}

var errZero = errors.New("division by zero")

func divide(a, b int64) (int64, error) {
	if b == 0 {
		return 0, errZero
	}
	return a / b, nil
}

func modulo(a, b int64) (int64, error) {
	if b == 0 {
		return 0, errZero
	}
	return a % b, nil
}

func calculate(ints func(a, b int64) (int64, error), floats func(a, b float64) float64) func(b, a any) (any, error) {
	return func(b, a any) (any, error) {
		x, aIsInt := whole(a)
		y, bIsInt := whole(b)
		if aIsInt && bIsInt {
			return ints(x, y)
		}
		f, aIsNumber := float(a)
		g, bIsNumber := float(b)
		if !aIsNumber || !bIsNumber {
			return nil, fmt.Errorf("%T and %T are not both numbers; parseInt and parseFloat make numbers of text", a, b)
		}
		return floats(f, g), nil
	}
}

// whole returns a whole number of any type; text is none.
func whole(v any) (int64, bool) {
	if n, ok := v.(json.Number); ok {
		i, err := n.Int64()
		return i, err == nil
	}
	switch r := reflect.ValueOf(v); {
	case r.CanInt():
		return r.Int(), true
	case r.CanUint():
		return int64(r.Uint()), r.Uint() <= math.MaxInt64
	}
	return 0, false
}

func float(v any) (float64, bool) {
	if n, ok := v.(json.Number); ok {
		f, err := n.Float64()
		return f, err == nil
	}
	if i, ok := whole(v); ok {
		return float64(i), true
	}
	if r := reflect.ValueOf(v); r.CanFloat() {
		return r.Float(), true
	}
	return 0, false
}

// longest is the most that a loop may count, so that a secret that is a wrong
// number does not fill the memory.
const longest = 1_000_000

// loop counts from 0 or the first of two numbers up to, but not including, the last.
func loop(bounds ...any) ([]int64, error) {
	var from, to int64
	var ok, fine bool
	switch len(bounds) {
	case 1:
		to, ok = bound(bounds[0])
		fine = true
	case 2:
		from, ok = bound(bounds[0])
		to, fine = bound(bounds[1])
	default:
		return nil, fmt.Errorf("loop wants one number or two, not %d", len(bounds))
	}
	if !ok || !fine {
		return nil, errors.New("loop wants whole numbers")
	}
	if to > from && uint64(to)-uint64(from) > longest {
		return nil, fmt.Errorf("loop counts to %d at most", longest)
	}
	var all []int64
	for i := from; i < to; i++ {
		all = append(all, i)
	}
	return all, nil
}

// bound also reads text, as consul-template's loop does.
func bound(v any) (int64, bool) {
	if s, isText := v.(string); isText {
		n, err := parseInt(s)
		return n, err == nil
	}
	return whole(v)
}
