package render

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"strconv"
	"strings"
)

// Templates see the numbers of secrets as [json.Number], those of parseJSON as
// float64 (as consul-template's do, unless that would cost digits), and those of
// parseYAML and parseTOML as Go's integers or [decimal].

// decimal is a float64 that YAML or TOML wrote with a fraction or an exponent. The
// type remembers that, so that toYAML and toTOML write 5432.0 as a float again.
type decimal float64

// exactBound is 2^53, up to which a float64 holds every whole number.
const exactBound = 1 << 53

// isNumber reports whether a value is a number of any type.
func isNumber(v any) bool {
	if _, ok := v.(json.Number); ok {
		return true
	}
	switch r := reflect.ValueOf(v); {
	case !r.IsValid():
		return false
	case r.CanInt(), r.CanUint(), r.CanFloat():
		return true
	}
	return false
}

// isFloat reports whether a number counts as a float in arithmetic: by its type, or
// because it is written with a fraction or an exponent.
func isFloat(v any) bool {
	if n, ok := v.(json.Number); ok {
		return strings.ContainsAny(n.String(), ".eE")
	}
	return reflect.ValueOf(v).CanFloat()
}

// integer returns a number of any type that is whole, also 5.0. A float counts only
// up to 2^53: what is larger stands for its neighbours, too.
func integer(v any) (*big.Int, bool) {
	if isOverlong(v) {
		return nil, false
	}
	if n, ok := v.(json.Number); ok && !isFloat(n) {
		return new(big.Int).SetString(n.String(), 10)
	}
	switch r := reflect.ValueOf(v); {
	case !r.IsValid():
		return nil, false
	case r.CanInt():
		return big.NewInt(r.Int()), true
	case r.CanUint():
		return new(big.Int).SetUint64(r.Uint()), true
	}
	f, ok := float(v)
	if !ok || f != math.Trunc(f) || math.Abs(f) > exactBound {
		return nil, false
	}
	return big.NewInt(int64(f)), true
}

// whole is [integer] for numbers of at most 64 bits.
func whole(v any) (int64, bool) {
	i, ok := integer(v)
	if !ok || !i.IsInt64() {
		return 0, false
	}
	return i.Int64(), true
}

// isOverlong reports whether a number has so many digits that counting with it would take
// all time. It can be printed, and is equal to itself.
func isOverlong(v any) bool {
	n, ok := v.(json.Number)
	return ok && len(n) > mostDigits
}

func float(v any) (float64, bool) {
	if isOverlong(v) {
		return 0, false
	}
	if n, ok := v.(json.Number); ok {
		f, err := n.Float64()
		return f, err == nil
	}
	switch r := reflect.ValueOf(v); {
	case !r.IsValid():
		return 0, false
	case r.CanInt():
		return float64(r.Int()), true
	case r.CanUint():
		return float64(r.Uint()), true
	case r.CanFloat():
		return r.Float(), true
	}
	return 0, false
}

// ofInteger is the result of a calculation: a float64 where one of its numbers was a
// float and no digit is lost, else an int64 or, beyond 64 bits, a json.Number.
func ofInteger(i *big.Int, asFloat bool) any {
	switch {
	case asFloat && i.CmpAbs(big.NewInt(exactBound)) <= 0:
		return float64(i.Int64())
	case i.IsInt64():
		return i.Int64()
	}
	return json.Number(i.String())
}

// order compares two numbers by value, whatever their types. ok is false where one
// is no number, or NaN.
func order(a, b any) (sign int, ok bool) {
	if !isNumber(a) || !isNumber(b) {
		return 0, false
	}
	if isOverlong(a) || isOverlong(b) {
		return 0, a == b
	}
	x, isWhole := integer(a)
	y, bothWhole := integer(b)
	if isWhole && bothWhole {
		return x.Cmp(y), true
	}
	f, _ := float(a) // Out of range is infinite, which compares well.
	g, _ := float(b)
	switch {
	case f < g:
		return -1, true
	case f > g:
		return 1, true
	}
	return 0, f == g
}

// numberText is how a number is written: a float without an exponent, unless it is
// smaller than 1e-6 or as large as 1e21, which is how JSON is written, too.
func numberText(v any) string {
	if n, ok := v.(json.Number); ok {
		return n.String()
	}
	r := reflect.ValueOf(v)
	if !r.CanFloat() {
		return fmt.Sprint(v)
	}
	bits := 64
	if r.Kind() == reflect.Float32 {
		bits = 32
	}
	format := byte('f')
	if abs := math.Abs(r.Float()); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	return strconv.FormatFloat(r.Float(), format, -1, bits)
}

// figure is a number that fmt prints as [numberText]. It suits the verbs of whole
// numbers and of floats alike: what JSON says is 5432 does for %d and for %.2f.
type figure struct{ number any }

// String implements [fmt.Stringer].
func (n figure) String() string { return numberText(n.number) }

// Format implements [fmt.Formatter].
func (n figure) Format(f fmt.State, verb rune) {
	i, isWhole := integer(n.number)
	value := n.number
	if isOverlong(value) {
		verb = 's'
	}
	switch _, precise := f.Precision(); verb {
	case 'v':
		if precise || f.Flag('#') || f.Flag('+') {
			break // Precision and sign are a float's own.
		}
		_, _ = fmt.Fprintf(f, fmt.FormatString(f, 's'), n.String())
		return
	case 's':
		_, _ = fmt.Fprintf(f, fmt.FormatString(f, 's'), n.String())
		return
	case 'q':
		if isFloat(value) {
			value = n.String()
		}
	case 'd', 'b', 'o', 'O', 'x', 'X':
		if isWhole {
			value = i
		}
	case 'c', 'U':
		if isWhole && i.IsInt64() {
			value = i.Int64()
		}
	case 'e', 'E', 'f', 'F', 'g', 'G':
		if x, ok := float(value); ok && (!isWhole || i.CmpAbs(big.NewInt(exactBound)) <= 0) {
			value = x
		} else if isWhole {
			value = new(big.Float).SetPrec(uint(i.BitLen())).SetInt(i) // to the digit
		}
	}
	_, _ = fmt.Fprintf(f, fmt.FormatString(f, verb), value)
}

// printable is a value whose floats, nested ones, too, print as [numberText].
func printable(v any) any {
	return convert(v, func(v any) any {
		if isNumber(v) && reflect.ValueOf(v).CanFloat() {
			return figure{v}
		}
		return v
	})
}

// printables are arguments of a function that prints.
func printables(args []any) []any {
	all := make([]any, len(args))
	for i, arg := range args {
		all[i] = printable(arg)
	}
	return all
}

// sameDecimal reports whether the shortest text of a float is the number that stands
// in n, to the digit.
func sameDecimal(n json.Number, f float64) bool {
	if math.IsInf(f, 0) {
		return false
	}
	digits, exponent := decimalOf(n.String())
	also, alike := decimalOf(strconv.FormatFloat(f, 'e', -1, 64))
	return digits == also && exponent == alike
}

// decimalOf splits the text of a number into its sign and digits, without zeros at
// either end, and a power of ten. The power is text where it is out of all bounds.
func decimalOf(text string) (digits, exponent string) {
	mantissa, power, _ := strings.Cut(strings.ToLower(text), "e")
	e, err := strconv.Atoi(cmp.Or(power, "0"))
	if err != nil {
		return text, power
	}
	sign := ""
	if rest, negative := strings.CutPrefix(mantissa, "-"); negative {
		sign, mantissa = "-", rest
	}
	before, after, _ := strings.Cut(mantissa, ".")
	digits, e = before+after, e-len(after)
	trimmed := strings.TrimRight(digits, "0")
	e += len(digits) - len(trimmed)
	if trimmed = strings.TrimLeft(trimmed, "0"); trimmed == "" {
		return "", "0"
	}
	return sign + trimmed, strconv.Itoa(e)
}
