package render

import (
	"bytes"
	"iter"
	"math"
	"reflect"
	"regexp"
	"regexp/syntax"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Values of secrets are not the author's of the template: a tenant may write one that
// costs memory out of proportion. So functions look at what their result will need before
// they make it.
const (
	// largest is how many bytes a template, and each of its functions, may produce.
	largest = 32 << 20
	// largestText is how many bytes of JSON, YAML or TOML are parsed: what fits into a
	// secret of KV.
	largestText = 1 << 20
	// longest is how many elements a loop, or a function that makes a list, may count.
	longest = 1_000_000
	// deepestNesting is how many maps and lists may lie in each other.
	deepestNesting = 100
	// mostComparisons is how many pairs of elements a function of lists compares.
	mostComparisons = 20_000_000
	// mostSteps is the product of the sizes of a regular expression and a text, which is
	// the longest that a search takes.
	mostSteps = 200_000_000
	// largestExpression is how many instructions a regular expression may have.
	largestExpression = 20_000
	// maxYAMLNodes is how many keys, values and lists YAML is written of. The library keeps
	// every event of a document until its end, which is about 1 KiB of memory for each.
	maxYAMLNodes = 50_000
	// mostDigits is the length of the numbers that are counted with and compared by value.
	mostDigits = 1_000
)

const (
	errTooLarge  problem = "the result would be larger than 32 MiB"
	errTooLong   problem = "loop counts to 1000000 at most"
	errLongRange problem = "range counts to 1000000 at most"
	errLongText  problem = "the text is longer than 1 MiB, the most that is parsed"
	errTooDeep   problem = "the value is nested deeper than 100 levels"
	errLongList  problem = "the list is too long to compare its elements"
	errManyNodes problem = "the value has more than 50000 keys and elements, the most that are written as YAML"
	errNoExpr    problem = "the expression is not a regular expression of Go's kind (RE2)"
	errLargeExpr problem = "the regular expression is too large, or too large for a text of this length"
)

// fits fails where n things of a size would be larger than a result may be.
func fits(n, size int) error {
	if n > 0 && size > 0 && n > largest/size {
		return errTooLarge
	}
	return nil
}

// checkComparisons fails where comparing each of n elements with each of m takes too long.
func checkComparisons(n, m int) error {
	if m > 0 && n > mostComparisons/m {
		return errLongList
	}
	return nil
}

// output is what a template writes.
type output struct{ bytes.Buffer }

// Write implements [io.Writer].
func (o *output) Write(p []byte) (int, error) {
	if o.Len()+len(p) > largest {
		return 0, errTooLarge
	}
	return o.Buffer.Write(p)
}

// bounded fails where a value is nested too deep, or would be too large when each of its
// parts stands on a line of its own behind its whole path or as much white space, which is
// how .env, properties, TOML, YAML and indented JSON are written.
func bounded(v any) error {
	left := largest
	return spend(&left, 0, 0, v)
}

// perPart is what a part needs besides, such as an element of a map.
const perPart = 16

func spend(left *int, depth, path int, v any) error {
	r := reflect.ValueOf(v)
	*left -= perPart + 2*depth + path
	if r.Kind() == reflect.String {
		*left -= r.Len()
	}
	switch {
	case depth > deepestNesting:
		return errTooDeep
	case *left < 0:
		return errTooLarge
	}
	for key, part := range parts(v) {
		length := 1
		if key.Kind() == reflect.String {
			length += key.Len()
		}
		if err := spend(left, depth+1, path+length, part); err != nil {
			return err
		}
	}
	return nil
}

// parts returns the elements of a map with their keys, or those of a list with the zero
// [reflect.Value]. Any other value has none.
func parts(v any) iter.Seq2[reflect.Value, any] {
	return func(yield func(reflect.Value, any) bool) {
		switch r := reflect.ValueOf(v); r.Kind() {
		case reflect.Map:
			for each := r.MapRange(); each.Next(); {
				if !yield(each.Key(), each.Value().Interface()) {
					return
				}
			}
		case reflect.Slice, reflect.Array:
			for i := range r.Len() {
				if !yield(reflect.Value{}, r.Index(i).Interface()) {
					return
				}
			}
		}
	}
}

// checkNodes fails where a value has more parts than YAML is written of.
func checkNodes(v any) error {
	left := maxYAMLNodes
	if chargeNodes(&left, v); left < 0 {
		return errManyNodes
	}
	return nil
}

func chargeNodes(left *int, v any) {
	*left--
	for key, part := range parts(v) {
		if *left < 0 {
			return
		}
		if key.IsValid() {
			*left--
		}
		chargeNodes(left, part)
	}
}

const errCycle problem = "a map cannot hold itself"

// checkCycle fails where a map is to hold a value that holds the map: all that walks over
// it would have no end.
func checkCycle(of, value any) error {
	if v := reflect.ValueOf(value); v.Kind() == reflect.Map && v.Pointer() == reflect.ValueOf(of).Pointer() {
		return errCycle
	}
	for _, part := range parts(value) {
		if err := checkCycle(of, part); err != nil {
			return err
		}
	}
	return nil
}

// boundTOML fails on text for which BurntSushi/toml would need memory out of proportion:
// for every key it keeps the whole path to it, once for each part (its issue 496). So the
// sum of all paths is bounded, and how deep they are.
func boundTOML(text string) error {
	type path struct{ length, parts int }
	type bracket struct {
		isTable bool
		path    path // what is in it is under this one
	}
	var (
		open      []bracket
		table     path // of the last header
		key, at   path // what was read of a key; the last one that was whole
		isHeader  bool
		hasEquals bool
		cost      int
	)
	base := func() path {
		if len(open) > 0 {
			return open[len(open)-1].path
		}
		return table
	}
	under := func(p path) error {
		at = path{p.length + key.length, p.parts + key.parts + 1}
		cost += (at.length + 16*at.parts) * at.parts
		if at.parts > deepestNesting {
			return errTooDeep
		}
		if cost > largestText*16 {
			return errTooLarge
		}
		return nil
	}
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c == '#' {
			end := strings.IndexByte(text[i:], '\n')
			if end < 0 {
				return nil
			}
			i += end - 1
			continue
		}
		if c == '"' || c == '\'' {
			end := endOfQuoted(text[i:])
			if end < 0 {
				return nil // The library will say so.
			}
			key.length += end
			i += end - 1
			continue
		}
		switch {
		case c == '\n' && len(open) == 0:
			key, isHeader, hasEquals = path{}, false, false
		case isHeader && c == ']':
			if key != (path{}) { // Else it is the second of "]]".
				if err := under(path{}); err != nil {
					return err
				}
				table, key = at, path{}
			}
		case c == '[' && len(open) == 0 && !hasEquals:
			isHeader = true
		case c == '[', c == '{':
			if len(open) >= deepestNesting {
				return errTooDeep
			}
			open = append(open, bracket{c == '{', at})
			key, hasEquals = path{}, c == '['
		case (c == ']' || c == '}') && len(open) > 0:
			at, open = open[len(open)-1].path, open[:len(open)-1]
			hasEquals = true
		case c == ',' && len(open) > 0 && open[len(open)-1].isTable:
			key, hasEquals = path{}, false
			at = base()
		case c == '=' && !hasEquals:
			if err := under(base()); err != nil {
				return err
			}
			hasEquals = true
		case c == '.' && !hasEquals:
			key.parts++
			key.length++
		default:
			key.length++
		}
	}
	return nil
}

// mostKeysOfYAML is how many keys a map of YAML may have.
const mostKeysOfYAML = 10_000

const (
	errManyKeys problem = "a map has more than 10000 keys, the most that are parsed of YAML"
	errSameKey  problem = "the value is not YAML: a key is there twice"
)

// boundYAML fails on documents for which the library would need time and memory by the
// square of their size: it compares each key of a map with all others, and makes an error
// for each pair that is alike.
func boundYAML(node *yaml.Node) error {
	if node.Kind == yaml.MappingNode {
		if len(node.Content)/2 > mostKeysOfYAML {
			return errManyKeys
		}
		type key struct {
			kind       yaml.Kind
			tag, value string
		}
		seen := make(map[key]bool, len(node.Content)/2)
		for i := 0; i < len(node.Content); i += 2 {
			k := node.Content[i]
			at := key{k.Kind, k.ShortTag(), k.Value}
			if k.Kind == yaml.ScalarNode && seen[at] {
				return errSameKey
			}
			seen[at] = true
		}
	}
	for _, each := range node.Content {
		if err := boundYAML(each); err != nil {
			return err
		}
	}
	return nil
}

// endOfQuoted is the length of the TOML text in quotes that s begins with, or -1.
func endOfQuoted(s string) int {
	quote := s[:1]
	if three := strings.Repeat(quote, 3); strings.HasPrefix(s, three) {
		for i := 3; i < len(s); i++ {
			switch {
			case s[i] == '\\' && quote == `"`:
				i++
			case strings.HasPrefix(s[i:], three):
				for i+3 < len(s) && s[i+3] == quote[0] { // Up to two may stand before them.
					i++
				}
				return i + 3
			}
		}
		return -1
	}
	for i := 1; i < len(s) && s[i] != '\n'; i++ {
		switch {
		case s[i] == '\\' && quote == `"`:
			i++
		case s[i] == quote[0]:
			return i + 1
		}
	}
	return -1
}

// checkExpression fails on a regular expression, which may be a value, that is none or would
// search a text for too long.
func checkExpression(expr, text string) error {
	if len(expr) > largestExpression {
		return errLargeExpr
	}
	parsed, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return errNoExpr
	}
	if n := instructions(parsed); n > largestExpression || n*(len(text)+1) > mostSteps {
		return errLargeExpr
	}
	return nil
}

// expression compiles a regular expression that [checkExpression] accepts for a text.
func expression(expr, text string) (*regexp.Regexp, error) {
	if err := checkExpression(expr, text); err != nil {
		return nil, err
	}
	re, err := regexp.Compile(expr)
	if err != nil {
		return nil, errNoExpr
	}
	return re, nil
}

// instructions is about how many a program for an expression has. It stops counting
// beyond largestExpression.
func instructions(re *syntax.Regexp) int {
	n := 1
	if re.Op == syntax.OpLiteral {
		n = len(re.Rune)
	}
	for _, sub := range re.Sub {
		n += instructions(sub)
		if n > largestExpression {
			return n
		}
	}
	if re.Op == syntax.OpRepeat {
		n *= max(re.Min, re.Max, 1)
	}
	return n
}

// replacedSize fails where replacing what an expression finds would give too much.
func replacedSize(re *regexp.Regexp, text, by string) (err error) {
	references := strings.Count(by, "$")
	if fits(len(text)+1, len(by)+references) == nil && fits(references+1, len(text)) == nil {
		return nil // Whatever it finds.
	}
	found, length := 0, 0
	defer func() {
		if recover() != nil { // The search need not come to its end.
			err = errTooLarge
		}
	}()
	re.ReplaceAllStringFunc(text, func(match string) string {
		found++
		length += len(match)
		if fits(found, len(by)) != nil || fits(references+1, length) != nil {
			panic(errTooLarge)
		}
		return ""
	})
	return nil
}

// replaceAll replaces text by text.
func replaceAll(from, to, s string) (string, error) {
	if err := fits(strings.Count(s, from), len(to)); err != nil {
		return "", err
	}
	return strings.ReplaceAll(s, from, to), nil
}

// joinedSize fails where a list joined by a separator would be too large.
func joinedSize(sep string, list any) error {
	v := reflect.ValueOf(list)
	if v.Kind() != reflect.Slice && v.Kind() != reflect.Array {
		return nil
	}
	return fits(v.Len(), len(sep))
}

// countedTo fails where the numbers between two, by steps, are too many. The bounds keep
// a sum of them from overflowing, which would count without an end.
func countedTo(from, to, step int) error {
	for _, n := range []int{from, to, step} {
		if n > exactBound || n < -exactBound {
			return errTooLong
		}
	}
	if step != 0 && math.Abs(float64(to-from)/float64(step)) > longest {
		return errTooLong
	}
	return nil
}

// printedSize fails where a format would give too much: by its widths and precisions, by
// those that arguments give, or because it names one argument many times.
func printedSize(format string, args []any) error {
	const most = 1_000_000 // which fmt takes for a width
	size, verbs, stars := float64(len(format)), 0.0, 0.0
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			continue
		}
		verbs++
		n := 0
		for i++; i < len(format) && strings.IndexByte("+-# 0123456789.[]*", format[i]) >= 0; i++ {
			switch c := format[i]; {
			case '0' <= c && c <= '9':
				n = min(n*10+int(c-'0'), most)
			case c == '*':
				stars++
				fallthrough
			default:
				size, n = size+float64(n), 0
			}
		}
		size += float64(n)
	}
	var content, width float64
	for _, arg := range args {
		left := math.MaxInt
		if err := spend(&left, 0, 0, arg); err != nil {
			return err
		}
		content += float64(math.MaxInt - left)
		if n, ok := whole(arg); ok {
			width = max(width, min(math.Abs(float64(n)), most))
		}
	}
	if strings.Contains(format, "[") {
		content *= verbs
	}
	if size+content+stars*width > largest {
		return errTooLarge
	}
	return nil
}

// rangeFunc ends the pipeline of every range; see [guard].
const rangeFunc = "_range"

// rangeable is a value that range can iterate over. A number is one, but may not be so
// large that the loop would have no end.
func rangeable(v any) (any, error) {
	r := reflect.ValueOf(v)
	switch r.Kind() {
	case reflect.Invalid, reflect.Map, reflect.Slice, reflect.Array:
		return v, nil
	}
	if n, ok := whole(v); ok && (r.CanInt() || r.CanUint()) {
		if n > longest {
			return nil, errLongRange
		}
		return v, nil
	}
	return nil, problemf("range can't iterate over %s", kindName(v))
}
