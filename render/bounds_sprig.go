package render

import (
	"reflect"
	"strings"
)

// bounds fail where the result of one of sprig's functions would need memory or time out
// of proportion to its arguments. They panic on arguments that the function does not take.
var bounds = map[string]func(args []any) error{
	"repeat":                     func(a []any) error { return fits(a[0].(int), len(a[1].(string))) },
	"indent":                     indentedSize,
	"nindent":                    indentedSize,
	"replace":                    func(a []any) error { return fits(strings.Count(a[2].(string), a[0].(string)), len(a[1].(string))) },
	"join":                       func(a []any) error { return joinedSize(a[0].(string), a[1]) },
	"split":                      func(a []any) error { return fits(strings.Count(a[1].(string), a[0].(string)), perEntry) },
	"splitn":                     func(a []any) error { return fits(strings.Count(a[2].(string), a[0].(string)), perEntry) },
	"set":                        func(a []any) error { return checkCycle(a[0], a[2]) },
	"until":                      func(a []any) error { return countedTo(0, a[0].(int), 1) },
	"untilStep":                  func(a []any) error { return countedTo(a[0].(int), a[1].(int), a[2].(int)) },
	"seq":                        seqSize,
	"uniq":                       uniqSteps,
	"mustUniq":                   uniqSteps,
	"toPrettyJson":               func(a []any) error { return bounded(a[0]) },
	"mustToPrettyJson":           func(a []any) error { return bounded(a[0]) },
	"regexMatch":                 searched,
	"mustRegexMatch":             searched,
	"regexFindAll":               searched,
	"mustRegexFindAll":           searched,
	"regexFind":                  searched,
	"mustRegexFind":              searched,
	"regexSplit":                 searched,
	"mustRegexSplit":             searched,
	"regexReplaceAll":            searchedAndReplaced,
	"mustRegexReplaceAll":        searchedAndReplaced,
	"regexReplaceAllLiteral":     searchedAndReplaced,
	"mustRegexReplaceAllLiteral": searchedAndReplaced,
}

// perEntry is about what an entry of a map needs.
const perEntry = 128

func indentedSize(a []any) error {
	return fits(strings.Count(a[1].(string), "\n")+1, a[0].(int))
}

func seqSize(a []any) error {
	from, step := 1, 1
	switch {
	case len(a) == 0:
		return nil
	case len(a) > 1:
		from = a[0].(int)
	}
	if len(a) == 3 {
		step = a[1].(int)
	}
	return countedTo(from, a[len(a)-1].(int), step)
}

// uniqSteps: it compares each element with all others.
func uniqSteps(a []any) error {
	if v := reflect.ValueOf(a[0]); v.Kind() == reflect.Slice {
		return checkComparisons(v.Len(), v.Len())
	}
	return nil
}

func searched(a []any) error { return checkExpression(a[0].(string), a[1].(string)) }

func searchedAndReplaced(a []any) error {
	re, err := expression(a[0].(string), a[1].(string))
	if err != nil {
		return err
	}
	return replacedSize(re, a[1].(string), a[2].(string))
}
