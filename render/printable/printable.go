// Package printable escapes untrusted text, so that it cannot control a terminal or forge a
// line of a log.
//
// Names of secrets, errors of Vault and output of programs may hold escape sequences,
// line breaks that fake a line, and characters that turn or hide the text around them.
// [Text] escapes them where a line is made, and [NewWriter] does so once more at the
// outermost place, for all that is written. Data for programs is not to be changed; see
// [Raw] and [NewJSONWriter].
package printable

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// isPrintable reports whether a character shows as itself and does nothing else. It is
// [unicode.IsPrint], which refuses controls, formatting and all spaces but the plain one,
// without the letters that are blank.
func isPrintable(r rune) bool {
	return unicode.IsPrint(r) && !unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r)
}

// Text returns a text in which everything that is not printable is escaped as in Go, such
// as \x1b and \u202e. Line breaks and tabs are, too.
func Text(s string) string {
	return string(escape(nil, s, isPrintable, appendGo))
}

// OneLine is [Text] for a text that may have several lines of ours, such as joined
// errors. They are joined with "; ".
func OneLine(s string) string {
	var lines []string
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return Text(strings.Join(lines, "; "))
}

// Error returns the text of an error, escaped by [Text] but for the line breaks between
// errors that [errors.Join] has joined: a cause cannot add a line.
func Error(err error) string {
	text := err.Error()
	var causes []error
	switch err := err.(type) {
	case interface{ Unwrap() error }:
		causes = append(causes, err.Unwrap())
	case interface{ Unwrap() []error }:
		causes = err.Unwrap()
		if joined := errors.Join(causes...); joined != nil && text == joined.Error() {
			lines := make([]string, len(causes))
			for i, cause := range causes {
				lines[i] = Error(cause)
			}
			return strings.Join(lines, "\n")
		}
	}
	var out strings.Builder
	for _, cause := range causes {
		if cause == nil {
			continue
		}
		if before, after, shown := strings.Cut(text, cause.Error()); shown {
			out.WriteString(Text(before) + Error(cause))
			text = after
		}
	}
	return out.String() + Text(text)
}

// escape appends s to out, with what is not plain as special appends it. A byte that is
// no UTF-8 comes to special as a negative number.
func escape(out []byte, s string, plain func(rune) bool, special func([]byte, rune) []byte) []byte {
	for s != "" {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			out = special(out, -rune(s[0]))
		case plain(r):
			out = append(out, s[:size]...)
		default:
			out = special(out, r)
		}
		s = s[size:]
	}
	return out
}

func appendGo(out []byte, r rune) []byte {
	switch {
	case r < 0:
		return fmt.Appendf(out, `\x%02x`, -r)
	case r == '\n':
		return append(out, `\n`...)
	case r == '\r':
		return append(out, `\r`...)
	case r == '\t':
		return append(out, `\t`...)
	case r < 0x80:
		return fmt.Appendf(out, `\x%02x`, r)
	case r <= 0xFFFF:
		return fmt.Appendf(out, `\u%04x`, r)
	}
	return fmt.Appendf(out, `\U%08x`, r)
}

func appendJSON(out []byte, r rune) []byte {
	switch {
	case r < 0:
		return append(out, `\ufffd`...)
	case r <= 0xFFFF:
		return fmt.Appendf(out, `\u%04x`, r)
	}
	high, low := utf16.EncodeRune(r)
	return fmt.Appendf(out, `\u%04x\u%04x`, high, low)
}

// writer escapes what is written to it.
type writer struct {
	special func([]byte, rune) []byte

	mu   sync.Mutex
	to   io.Writer
	part []byte // of a character whose rest is still to be written
}

// NewWriter returns a writer that passes printable text, line breaks and tabs on to
// another writer, and escapes everything else as [Text] does.
func NewWriter(to io.Writer) io.Writer { return &writer{to: to, special: appendGo} }

// NewJSONWriter is [NewWriter] for JSON. It escapes inside of strings, so that the values
// stay what they are.
func NewJSONWriter(to io.Writer) io.Writer { return &writer{to: to, special: appendJSON} }

// Raw returns the writer behind one of [NewWriter], for data that programs read, and any
// other writer itself.
func Raw(w io.Writer) io.Writer {
	if w, ok := w.(*writer); ok {
		return w.to
	}
	return w
}

func isPlain(r rune) bool { return r == '\n' || r == '\t' || isPrintable(r) }

func (w *writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := append(w.part, p...)
	whole := len(text) - partial(text)
	w.part = append([]byte(nil), text[whole:]...)
	if _, err := w.to.Write(escape(make([]byte, 0, len(text)), string(text[:whole]), isPlain, w.special)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// partial is how many bytes at the end of a text begin a character without ending it.
func partial(text []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if last := text[len(text)-n:]; utf8.RuneStart(last[0]) {
			if utf8.FullRune(last) {
				return 0
			}
			return n
		}
	}
	return 0
}
