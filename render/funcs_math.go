package render

import (
	"math"
	"math/big"
	"strconv"
	"text/template"
)

// numbers are the functions on numbers. As for consul-template the second
// argument comes first: {{ 5 | subtract 2 }} is 3. Two whole numbers give a whole
// number, to the digit; one of parseJSON is a float in a division, as there.
func numbers() template.FuncMap {
	return template.FuncMap{
		"add":        calculate((*big.Int).Add, func(a, b float64) float64 { return a + b }),
		"subtract":   calculate((*big.Int).Sub, func(a, b float64) float64 { return a - b }),
		"multiply":   calculate((*big.Int).Mul, func(a, b float64) float64 { return a * b }),
		"divide":     divide,
		"modulo":     modulo,
		"minimum":    calculate(least, math.Min),
		"maximum":    calculate(greatest, math.Max),
		"loop":       loop,
		"parseBool":  reading("the value is not true or false", strconv.ParseBool),
		"parseFloat": reading("the value is not a number", parseFloat),
		"parseInt":   reading("the value is not a whole number", parseInt),
		"parseUint":  reading("the value is not a whole number of at least 0", parseUint),
	}
}

const errZero problem = "division by zero"

// divide cuts off the remainder of two whole numbers, unless one of them is a float.
func divide(b, a any) (any, error) {
	x, y, bothWhole := integers(a, b)
	isZero := bothWhole && y.Sign() == 0
	switch asFloat := isFloat(a) || isFloat(b); {
	case isZero && !asFloat:
		return nil, errZero
	case isZero, bothWhole && asFloat && new(big.Int).Rem(x, y).Sign() != 0:
		return floats(func(a, b float64) float64 { return a / b }, a, b)
	}
	return calculate((*big.Int).Quo, func(a, b float64) float64 { return a / b })(b, a)
}

func modulo(b, a any) (any, error) {
	if _, y, bothWhole := integers(a, b); bothWhole && y.Sign() == 0 {
		if isFloat(a) || isFloat(b) {
			return math.NaN(), nil
		}
		return nil, errZero
	}
	return calculate((*big.Int).Rem, math.Mod)(b, a)
}

func least(z, a, b *big.Int) *big.Int {
	if a.Cmp(b) < 0 {
		return z.Set(a)
	}
	return z.Set(b)
}

func greatest(z, a, b *big.Int) *big.Int {
	if a.Cmp(b) > 0 {
		return z.Set(a)
	}
	return z.Set(b)
}

// calculate counts with whole numbers where both are, also if one is 5.0.
func calculate(exact func(z, a, b *big.Int) *big.Int, inexact func(a, b float64) float64) func(b, a any) (any, error) {
	return func(b, a any) (any, error) {
		if x, y, bothWhole := integers(a, b); bothWhole {
			return ofInteger(exact(new(big.Int), x, y), isFloat(a) || isFloat(b)), nil
		}
		return floats(inexact, a, b)
	}
}

func integers(a, b any) (x, y *big.Int, ok bool) {
	x, aIsWhole := integer(a)
	y, bIsWhole := integer(b)
	return x, y, aIsWhole && bIsWhole
}

func floats(calculate func(a, b float64) float64, a, b any) (any, error) {
	f, aIsNumber := float(a)
	g, bIsNumber := float(b)
	if !aIsNumber || !bIsNumber {
		return nil, problemf("%s and %s are not both numbers; parseInt and parseFloat make numbers of text", kindName(a), kindName(b))
	}
	return calculate(f, g), nil
}

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
		return nil, problem("loop wants one number or two")
	}
	if !ok || !fine {
		return nil, problem("loop wants whole numbers")
	}
	if to > from && uint64(to)-uint64(from) > longest {
		return nil, errTooLong
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
