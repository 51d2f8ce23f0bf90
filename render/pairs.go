package render

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/smarteros/deaddrop/render/dotenv"
)

// Keys says which pairs of a secret are written, and under which names. The
// zero value writes all of them as they are.
type Keys struct {
	// Only and Except hold names or patterns with * and ?. What Only does not
	// match is left out, and so is what Except matches.
	Only, Except []string
	// Rename gives other names. A name that is given counts as it is: neither
	// Prefix nor Upper changes it.
	Rename map[string]string
	// Prefix is put before each name.
	Prefix string
	// Upper turns letters into capitals.
	Upper bool
	// MapInvalid replaces what may not stand in a variable's name by _.
	MapInvalid bool
	// AllowLoader writes also what becomes a variable that loads code or runs commands,
	// such as LD_PRELOAD: see [dotenv.LoaderEffect].
	AllowLoader bool
}

// IsZero tells whether all pairs are written as they are.
func (k Keys) IsZero() bool {
	return len(k.Only)+len(k.Except)+len(k.Rename) == 0 && k.Prefix == "" && !k.Upper && !k.MapInvalid && !k.AllowLoader
}

// apply returns the pairs that are written. Two that would get the same name
// are an error, and so is a name in Rename that no pair has.
func (k Keys) apply(pairs map[string]any) (map[string]any, error) {
	if k.IsZero() {
		return pairs, nil
	}
	for _, from := range sortedKeys(k.Rename) {
		if _, there := pairs[from]; !there {
			return nil, fmt.Errorf("has no key %q to rename%s", from, didYouMean(from, sortedKeys(pairs)))
		}
	}
	out, origin := map[string]any{}, map[string]string{}
	for _, key := range sortedKeys(pairs) {
		if !k.wants(key) {
			continue
		}
		name := k.name(key)
		if other, taken := origin[name]; taken {
			return nil, fmt.Errorf("has keys %q and %q, which would both be written as %q", other, key, name)
		}
		origin[name], out[name] = key, pairs[key]
	}
	return out, nil
}

func (k Keys) wants(key string) bool {
	matches := func(pattern string) bool { return Matches(pattern, key) }
	return (len(k.Only) == 0 || slices.ContainsFunc(k.Only, matches)) && !slices.ContainsFunc(k.Except, matches)
}

// Matches tells whether a name fits a pattern, which knows * for any text and ? for
// one character; all else is literal.
func Matches(pattern, name string) bool {
	p, n := []rune(pattern), []rune(name)
	star, from := -1, 0 // the last *, and where what it stands for ends
	i := 0
	for k := 0; k < len(n); {
		switch {
		case i < len(p) && p[i] == '*':
			star, from = i, k
			i++
		case i < len(p) && (p[i] == '?' || p[i] == n[k]):
			i, k = i+1, k+1
		case star >= 0:
			from++
			i, k = star+1, from
		default:
			return false
		}
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}

func (k Keys) name(key string) string {
	name, given := k.Rename[key]
	if !given {
		name = k.Prefix + key
		if k.Upper {
			name = k.Prefix + strings.ToUpper(key)
		}
	}
	if k.MapInvalid {
		name = variableName(name)
	}
	return name
}

// names reports whether the settings name a variable, so that a secret may set it whatever
// it does: as a key in Only, without * and ?, or as a name in Rename.
func (k Keys) names(variable string) bool {
	for _, key := range k.Only {
		if !strings.ContainsAny(key, "*?") && k.name(key) == variable {
			return true
		}
	}
	for from := range k.Rename {
		if k.name(from) == variable {
			return true
		}
	}
	return false
}

// variableName replaces what may not stand in a variable's name.
func variableName(s string) string {
	name := strings.Map(func(c rune) rune {
		if c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' {
			return c
		}
		return '_'
	}, s)
	if !dotenv.IsName(name) {
		name = "_" + name // It is empty, or begins with a digit.
	}
	return name
}

// flatten turns what is nested into pairs of text: {"db": {"hosts": ["a"]}}
// becomes db_hosts_0=a, with "_" between the names. Empty maps and lists give
// nothing. Two that would get the same name are an error.
func flatten(pairs map[string]any, sep string) (map[string]any, error) {
	if err := bounded(pairs); err != nil {
		return nil, err
	}
	flat := map[string]any{}
	for _, key := range sortedKeys(pairs) {
		if err := flattenInto(flat, key, pairs[key], sep); err != nil {
			return nil, err
		}
	}
	return flat, nil
}

func flattenInto(flat map[string]any, name string, value any, sep string) error {
	switch v := value.(type) {
	case map[string]any:
		for _, key := range sortedKeys(v) {
			if err := flattenInto(flat, name+sep+key, v[key], sep); err != nil {
				return err
			}
		}
		return nil
	case []any:
		for i, each := range v {
			if err := flattenInto(flat, name+sep+strconv.Itoa(i), each, sep); err != nil {
				return err
			}
		}
		return nil
	}
	if _, taken := flat[name]; taken {
		return &clashError{name}
	}
	if isNumber(value) {
		value = json.Number(numberText(value))
	}
	flat[name] = value
	return nil
}

// scalar is the text of a value that is not nested; null has none.
func scalar(value any) (string, bool) {
	switch v := value.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	}
	if isNumber(value) {
		return numberText(value), true
	}
	return "", false
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

func didYouMean(name string, candidates []string) string {
	if near := Nearest(name, candidates); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}
