// Package plural makes nouns and verbs agree with counts, in what users read.
package plural

import "strconv"

// Of returns a count with its noun, such as "1 drop" or "0 drops". The plural of a
// noun is it with an s.
func Of(n int, noun string) string { return strconv.Itoa(n) + " " + Noun(n, noun) }

// Noun returns the noun alone.
func Noun(n int, noun string) string {
	if n == 1 {
		return noun
	}
	return noun + "s"
}

// Be returns "is" for one thing and "are" for others.
func Be(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}
