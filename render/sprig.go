package render

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"text/template"

	sprig "github.com/go-task/slim-sprig/v3"
)

// sprigPrefix begins the names of sprig's functions, as for consul-template.
const sprigPrefix = "sprig_"

// impure are functions of sprig that look at the network or the clock, draw
// lots, or read the environment past [Input.Env].
var impure = []string{"ago", "env", "expandenv", "getHostByName", "hello", "now", "randInt"}

// sprigs are the functions of slim-sprig. Its own errors and panics may hold
// the value that they complain of, so they are put in other words.
func sprigs() template.FuncMap {
	all := template.FuncMap{}
	for name, f := range sprig.TxtFuncMap() {
		if slices.Contains(impure, name) {
			continue
		}
		taking := known
		switch {
		case slices.Contains(printing, name):
			taking = printables
		case slices.Contains(counting, name):
			taking = counted
		}
		all[sprigPrefix+name] = discreet(f, taking, bounds[name])
	}
	// Sprig's own lose digits of large numbers.
	all[sprigPrefix+"fromJson"] = func(text string) any { v, _ := fromJSON(text); return v }
	all[sprigPrefix+"mustFromJson"] = fromJSON
	return all
}

func fromJSON(text string) (any, error) {
	if text == "" {
		return nil, errSprig
	}
	return parseJSON(text)
}

var (
	errorType = reflect.TypeFor[error]()
	anyType   = reflect.TypeFor[any]()
)

const (
	errSprig  problem = "it does not take this value"
	errBig    problem = "it counts with 64 bits, and a number is larger; add, subtract, multiply and the like are not so limited"
	errNumber problem = "it does not take this value where it wants a number"
)

// discreet wraps a function so that what it fails with holds no argument. Where the
// function wants a number, one of any type will do.
func discreet(f any, taking func([]any) []any, bound func([]any) error) any {
	v := reflect.ValueOf(f)
	t := v.Type()
	outs := []reflect.Type{t.Out(0), errorType}
	ins := make([]reflect.Type, t.NumIn())
	for i := range ins {
		ins[i] = t.In(i)
		if isNumeric(ins[i]) {
			ins[i] = anyType
		}
		if t.IsVariadic() && i == len(ins)-1 && isNumeric(ins[i].Elem()) {
			ins[i] = reflect.SliceOf(anyType)
		}
	}
	wrapped := func(args []reflect.Value) (results []reflect.Value) {
		failed := func(err error) []reflect.Value {
			return []reflect.Value{reflect.Zero(outs[0]), reflect.ValueOf(&err).Elem()}
		}
		defer func() {
			switch cause := recover().(type) {
			case nil:
			case problem:
				results = failed(cause)
			default:
				results = failed(errSprig)
			}
		}()
		values := arguments(t, args, taking)
		if bound != nil {
			all := make([]any, len(values))
			for i, each := range values {
				all[i] = each.Interface()
			}
			if err := bound(all); err != nil {
				return failed(err)
			}
		}
		results = v.Call(values)
		switch {
		case len(results) == 1:
			return append(results, reflect.Zero(errorType))
		case !results[1].IsNil():
			return failed(errSprig)
		}
		return results
	}
	return reflect.MakeFunc(reflect.FuncOf(ins, outs, t.IsVariadic()), wrapped).Interface()
}

func isNumeric(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Int, reflect.Int64, reflect.Float64:
		return true
	}
	return false
}

// arguments are those of a call as the function wants them, one by one. It panics
// with an error where that cannot be.
func arguments(t reflect.Type, args []reflect.Value, taking func([]any) []any) []reflect.Value {
	var all []any
	for i, arg := range args {
		if !t.IsVariadic() || i < len(args)-1 {
			all = append(all, arg.Interface())
			continue
		}
		for k := range arg.Len() {
			all = append(all, arg.Index(k).Interface())
		}
	}
	var values []reflect.Value
	for i, each := range taking(all) {
		wanted := t.In(min(i, t.NumIn()-1))
		if t.IsVariadic() && i >= t.NumIn()-1 {
			wanted = t.In(t.NumIn() - 1).Elem()
		}
		values = append(values, argument(wanted, each))
	}
	return values
}

func argument(wanted reflect.Type, v any) reflect.Value {
	switch {
	case v == nil:
		return reflect.Zero(wanted)
	case wanted.Kind() == reflect.Float64:
		f, ok := float(v)
		if !ok {
			panic(errNumber)
		}
		return reflect.ValueOf(f)
	case isNumeric(wanted):
		i, ok := whole(v)
		if !ok {
			panic(errNumber)
		}
		return reflect.ValueOf(i).Convert(wanted)
	}
	return reflect.ValueOf(v)
}

// printing are functions that write their arguments as text.
var printing = []string{"cat", "join", "quote", "sortAlpha", "squote", "toDecimal", "toString", "toStrings"}

// counting are functions that count with 64 bits, and take what is no number for 0.
var counting = []string{
	"add", "add1", "biggest", "ceil", "div", "float64", "floor", "int", "int64", "max", "maxf", "min", "minf", "mod", "mul", "round", "sub",
}

// known turns the numbers of Vault, which slim-sprig does not know, into those that
// it does, where they keep their value. Maps stay what they are: sprig_set changes
// the one that it is given.
func known(args []any) []any {
	all := make([]any, len(args))
	for i, arg := range args {
		list, isList := arg.([]any)
		if !isList {
			all[i] = knownNumber(arg)
			continue
		}
		copied := make([]any, len(list))
		for k, each := range list {
			copied[k] = knownNumber(each)
		}
		all[i] = copied
	}
	return all
}

func knownNumber(v any) any {
	switch n := v.(type) {
	case decimal:
		return float64(n)
	case json.Number:
		if i, isWhole := whole(n); isWhole && !isFloat(n) {
			return i
		}
		return floatIfExact(n)
	}
	return v
}

// counted is [known] for functions that would take other numbers for 0.
func counted(args []any) []any {
	all := known(args)
	for _, arg := range all {
		if _, left := arg.(json.Number); left {
			panic(errBig)
		}
	}
	return all
}

// unsupportedSprig tells why a function of sprig is not here, or "".
func unsupportedSprig(name string) string {
	switch {
	case slices.Contains(impure, name):
		return fmt.Sprintf("function \"sprig_%s\" is not supported here: the same secrets must give the same file", name)
	case slices.Contains(leftOut, name):
		return fmt.Sprintf("function \"sprig_%s\" is not supported here: it is not in slim-sprig, which leaves out cryptography, versions and some transformations of text", name)
	}
	return ""
}

// leftOut are the functions of sprig 3.3 that slim-sprig does not have.
var leftOut = []string{
	"abbrev", "abbrevboth", "add1f", "addf", "bcrypt", "buildCustomCert", "camelcase", "decryptAES", "deepCopy", "derivePassword", "divf",
	"encryptAES", "genCA", "genCAWithKey", "genPrivateKey", "genSelfSignedCert", "genSelfSignedCertWithKey", "genSignedCert",
	"genSignedCertWithKey", "htpasswd", "initials", "kebabcase", "merge", "mergeOverwrite", "mulf", "mustDeepCopy", "mustMerge",
	"mustMergeOverwrite", "nospace", "randAlpha", "randAlphaNum", "randAscii", "randBytes", "randNumeric", "semver", "semverCompare",
	"sha512sum", "shuffle", "snakecase", "subf", "swapcase", "untitle", "uuidv4", "wrap", "wrapWith",
}
