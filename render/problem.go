package render

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/smarteros/deaddrop/render/dotenv"
)

// A problem is why a function of a template fails. It is made of constant texts and of
// [kind]s, so that it holds no value. [Template.Execute] passes on no error of another
// type: those of libraries quote what they complain of, and that may be a secret.
type problem string

func (p problem) Error() string { return string(p) }

// problemf is a problem that says what kind of value is at fault.
func problemf(format string, kinds ...kind) problem {
	args := make([]any, len(kinds))
	for i, k := range kinds {
		args[i] = k
	}
	return problem(fmt.Sprintf(format, args...))
}

// A clashError is two values that would be written under one name.
type clashError struct{ name string }

func (e *clashError) Error() string {
	return fmt.Sprintf("has two values that would both be written as %q", e.name)
}

// HintedError is an error about which the user can do something.
type HintedError struct {
	Err error
	// Hint is what the user can do. It holds no value.
	Hint string
}

func (e *HintedError) Error() string { return e.Err.Error() }

// Unwrap returns the error without the hint.
func (e *HintedError) Unwrap() error { return e.Err }

// HintOf returns the hint of an error, or "".
func HintOf(err error) string {
	var hinted *HintedError
	if errors.As(err, &hinted) {
		return hinted.Hint
	}
	return ""
}

// reasonOf says why a function failed, as far as that holds no value; "" is unknown. It
// names only keys that isKnown reports to be names: a template can make a key of a value.
func reasonOf(err error, isKnown func(name string) bool) string {
	ifKnown := func(name string) string {
		if isKnown(name) {
			return name
		}
		return ""
	}
	for ; err != nil; err = errors.Unwrap(err) {
		if err == dotenv.ErrDialect {
			return err.Error()
		}
		switch e := err.(type) {
		case problem:
			return string(e)
		case *clashError:
			if isKnown(e.name) {
				return e.Error()
			}
			return "two values would be written under the same name"
		case *ValueError:
			shown := *e
			shown.Key = ifKnown(e.Key)
			return shown.Error()
		case *dotenv.KeyError:
			shown := *e
			shown.Key = ifKnown(e.Key)
			return shown.Error()
		case *dotenv.LoaderError:
			shown := *e
			shown.Name = ifKnown(e.Name)
			return shown.Error()
		case interface{ Unwrap() []error }:
			var reasons []string
			for _, each := range e.Unwrap() {
				if reason := reasonOf(each, isKnown); reason != "" {
					reasons = append(reasons, reason)
				}
			}
			return strings.Join(slices.Compact(reasons), ", ")
		}
	}
	return ""
}

// names are what a template calls things by its own text, and the keys of the secrets
// that it has read. Errors may show them.
type names map[string]bool

// add takes a name in, in the spelling that [names.has] compares.
func (n names) add(name string) { n[spelling(name)] = true }

// addKeys takes in the keys of a value as the functions that flatten it write them, such
// as "db_users_0" and "db.users[0]".
func (n names) addKeys(path string, v any) {
	if len(n) > mostNames {
		return
	}
	if path != "" {
		n.add(path)
	}
	switch v := v.(type) {
	case map[string]any:
		for key, each := range v {
			n.add(key)
			n.addKeys(strings.TrimPrefix(path+"_"+key, "_"), each)
		}
	case []any:
		for i, each := range v {
			n.addKeys(fmt.Sprintf("%s_%d", path, i), each)
		}
	}
}

// mostNames bounds the work for a secret of very many keys.
const mostNames = 10_000

// has reports whether a name is known. "" is.
func (n names) has(name string) bool { return name == "" || n[spelling(name)] }

// spelling is a name without what templates commonly change in it: capitals, and the
// signs between its parts.
func spelling(name string) string {
	return strings.Join(strings.FieldsFunc(strings.ToLower(name), func(c rune) bool {
		return strings.ContainsRune("_-./[] ", c)
	}), "_")
}
