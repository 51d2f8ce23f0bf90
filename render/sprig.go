package render

import (
	"encoding/json"
	"errors"
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
		if !slices.Contains(impure, name) {
			all[sprigPrefix+name] = discreet(f)
		}
	}
	return all
}

var (
	errorType = reflect.TypeFor[error]()
	errSprig  = errors.New("it does not take this value")
)

// discreet wraps a function so that what it fails with holds no argument.
func discreet(f any) any {
	v := reflect.ValueOf(f)
	t := v.Type()
	outs := []reflect.Type{t.Out(0), errorType}
	ins := make([]reflect.Type, t.NumIn())
	for i := range ins {
		ins[i] = t.In(i)
	}
	call := v.Call
	if t.IsVariadic() {
		call = v.CallSlice
	}
	wrapped := func(args []reflect.Value) (results []reflect.Value) {
		failed := []reflect.Value{reflect.Zero(outs[0]), reflect.ValueOf(&errSprig).Elem()}
		defer func() {
			if recover() != nil {
				results = failed
			}
		}()
		results = call(counting(args))
		switch {
		case len(results) == 1:
			return append(results, reflect.Zero(errorType))
		case !results[1].IsNil():
			return failed
		}
		return results
	}
	return reflect.MakeFunc(reflect.FuncOf(ins, outs, t.IsVariadic()), wrapped).Interface()
}

// counting turns the numbers of Vault, which slim-sprig does not know, into those
// that it does, where they keep their value.
func counting(args []reflect.Value) []reflect.Value {
	counted := slices.Clone(args)
	for i, arg := range counted {
		switch v := arg.Interface().(type) {
		case json.Number:
			counted[i] = reflect.ValueOf(number(v))
		case []any:
			all := slices.Clone(v)
			for k, each := range all {
				if n, ok := each.(json.Number); ok {
					all[k] = number(n)
				}
			}
			counted[i] = reflect.ValueOf(all)
		}
	}
	return counted
}

func number(n json.Number) any {
	if i, err := n.Int64(); err == nil {
		return i
	}
	if f, err := n.Float64(); err == nil && exact(n, f) {
		return f
	}
	return n
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
