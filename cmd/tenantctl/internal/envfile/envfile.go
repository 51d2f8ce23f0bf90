// Package envfile removes variables from the text of a .env file, and keeps every other
// byte.
package envfile

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ByteOrderMark is what editors on Windows write before the first line.
const ByteOrderMark = "\ufeff"

// LineBreak returns what ends the last line of the text: CRLF, or LF, which is also that of
// a text without line breaks.
func LineBreak(text string) string {
	if last := strings.LastIndex(text, "\n"); last > 0 && text[last-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}

// Remove removes the assignments of these variables. A line within the quoted value of
// another variable is no assignment, whatever it looks like. Where readers of .env files
// disagree on where a value ends, Remove returns an error with the number of its line.
func Remove(text string, names ...string) (string, error) {
	var kept strings.Builder
	if rest, found := strings.CutPrefix(text, ByteOrderMark); found {
		kept.WriteString(ByteOrderMark)
		text = rest
	}
	number, continued := 1, 0
	for text != "" {
		line, _, _ := strings.Cut(text, "\n")
		name, value, isAssignment := assignment(line)
		size := min(len(line)+1, len(text))
		if isAssignment {
			n, err := valueSize(value, text[len(line)-len(value):])
			if err != nil {
				return "", fmt.Errorf("line %d: the value of %s: %w", number, name, err)
			}
			size = len(line) - len(value) + n
		}
		isRemoved := isAssignment && slices.Contains(names, name)
		if isRemoved && continued != 0 {
			return "", fmt.Errorf("line %d: readers of .env files disagree on whether the backslash at its end continues it", continued)
		}
		if !isRemoved {
			kept.WriteString(text[:size])
		}
		continued = 0
		if strings.HasSuffix(strings.TrimSuffix(line, "\r"), `\`) {
			continued = number
		}
		number += strings.Count(text[:size], "\n")
		text = text[size:]
	}
	return kept.String(), nil
}

// assignment splits a line such as "export NAME = value". The value is the end of the line.
func assignment(line string) (name, value string, ok bool) {
	if strings.HasPrefix(strings.TrimSpace(line), "#") {
		return "", "", false
	}
	name, value, ok = strings.Cut(line, "=")
	name = strings.TrimSpace(name)
	if rest, exported := strings.CutPrefix(name, "export"); exported && strings.TrimLeft(rest, " \t") != rest {
		name = strings.TrimSpace(rest)
	}
	return name, strings.TrimLeft(value, " \t"), ok
}

var (
	errEnd   = errors.New("its quotes do not end")
	errQuote = errors.New("readers of .env files disagree on where its quotes end")
)

// valueSize is how many bytes of text, which begins with a value, are up to the line break
// that ends it, with that. line is the text up to its first line break.
func valueSize(line, text string) (int, error) {
	end := 0 // of the quotes
	if line != "" && strings.ContainsRune("'\"`", rune(line[0])) {
		quote := line[0]
		for end = 1; ; end++ {
			if end == len(text) {
				return 0, errEnd
			}
			if text[end] != quote {
				continue
			}
			// A shell takes a backslash in single quotes, and one of two in double quotes,
			// for itself; others take it to escape the quote.
			backslashes := end - len(strings.TrimRight(text[:end], `\`))
			if backslashes > 1 || backslashes == 1 && quote != '"' {
				return 0, errQuote
			}
			if backslashes == 0 {
				break
			}
		}
		end++
		if quote == '`' && strings.Contains(text[:end], "\n") {
			return 0, errQuote // Some readers know no such quotes.
		}
	}
	rest, _, _ := strings.Cut(text[end:], "\n")
	if comment := strings.TrimLeft(rest, " \t\r"); end > 0 && !strings.HasPrefix(comment, "#") && strings.ContainsAny(comment, "'\"`") {
		return 0, errQuote
	}
	return min(end+len(rest)+1, len(text)), nil
}
