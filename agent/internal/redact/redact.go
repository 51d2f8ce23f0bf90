// Package redact keeps what a program prints, within bounds, and shows it without hidden
// values.
package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/smarteros/deaddrop/agent/plural"
	"github.com/smarteros/deaddrop/render/secret"
)

const (
	// mostKept is how many bytes of an output are kept to be redacted. It is far more
	// than is shown: what is redacted is text that no cut of ours has damaged.
	mostKept = 64 << 10
	// mostShown is how many bytes of the redacted output are shown.
	mostShown = 4 << 10
	// shortest is how long a value must be to be redacted: shorter ones are in everything.
	shortest = 3
	// window is how many characters in a row that are part of a value give it away. A
	// shorter value is redacted where all of it is there.
	window = 8
)

// Output takes in what a program prints. It never fails and never lets a program wait.
type Output struct {
	// Keep says that the output is to be shown. Without it nothing is kept but its size.
	Keep bool

	kept         []byte
	size, breaks int
}

func (o *Output) Write(p []byte) (int, error) {
	o.size += len(p)
	o.breaks += bytes.Count(p, []byte("\n"))
	if o.Keep {
		o.kept = append(o.kept, p[:min(len(p), mostKept-len(o.kept))]...)
	}
	return len(p), nil
}

// Size says how much there was, such as "3 lines, 120 bytes", or "" for nothing.
func (o *Output) Size() string {
	if o.size == 0 {
		return ""
	}
	return plural.Of(max(o.breaks, 1), "line") + ", " + plural.Of(o.size, "byte")
}

// Text is the beginning of the output without hidden values. White space, quotes and
// backslashes do not count when values are looked for: programs wrap and quote them.
func (o *Output) Text(hidden []string) string {
	text := strings.TrimSpace(Text(o.kept, o.size > len(o.kept), hidden))
	if len(text) <= mostShown {
		return text
	}
	text = text[:mostShown]
	for !utf8.ValidString(text[max(0, len(text)-utf8.UTFMax):]) && len(text) > mostShown-utf8.UTFMax {
		text = text[:len(text)-1]
	}
	return text + "…"
}

// Text takes hidden values out of a text. Of one that was cut off at its end the last
// characters go, too: they may begin a value whose rest is not there.
func Text(text []byte, isCut bool, hidden []string) string {
	found := newSearch(text)
	for _, value := range hidden {
		found.mark(value)
	}
	end := len(text)
	if isCut {
		end = found.startOfLast(window - 1)
	}
	return found.redacted(end)
}

// search finds values in the characters of a text that count.
type search struct {
	text   []byte
	chars  []byte // those that count
	at     []int  // where in text each of them stands
	hidden []bool // which of them are part of a value
	// windows are the places of every run of so many characters that is not hidden yet.
	windows map[uint64][]int
}

func newSearch(text []byte) *search {
	s := &search{text: text, windows: map[uint64][]int{}}
	s.chars, s.at = significant(text)
	s.hidden = make([]bool, len(s.chars))
	for i := 0; i+window <= len(s.chars); i++ {
		key := binary.NativeEndian.Uint64(s.chars[i:])
		s.windows[key] = append(s.windows[key], i)
	}
	return s
}

// significant are the characters of a text that count when values are looked for, and
// their places.
func significant(text []byte) (chars []byte, at []int) {
	for i, c := range text {
		if c > ' ' && c != 0x7f && !strings.ContainsRune("\"'`\\", rune(c)) {
			chars, at = append(chars, c), append(at, i)
		}
	}
	return chars, at
}

func (s *search) mark(value string) {
	chars, _ := significant([]byte(value))
	switch {
	case len(chars) < shortest:
	case len(chars) < window:
		for from := 0; ; {
			at := bytes.Index(s.chars[from:], chars)
			if at < 0 {
				return
			}
			s.hide(from+at, len(chars))
			from += at + 1
		}
	default:
		for i := 0; i+window <= len(chars); i++ {
			key := binary.NativeEndian.Uint64(chars[i:])
			for _, at := range s.windows[key] {
				s.hide(at, window)
			}
			delete(s.windows, key)
		}
	}
}

func (s *search) hide(from, count int) {
	for i := range count {
		s.hidden[from+i] = true
	}
}

// startOfLast is where the last characters begin.
func (s *search) startOfLast(count int) int {
	if len(s.at) <= count {
		return 0
	}
	return s.at[len(s.at)-count]
}

// redacted is the text up to its end, with one mark for each run of hidden characters
// and what stands between them.
func (s *search) redacted(end int) string {
	var out strings.Builder
	done := 0
	for i := 0; i < len(s.at) && s.at[i] < end; i++ {
		if !s.hidden[i] {
			continue
		}
		out.Write(s.text[done:s.at[i]])
		out.WriteString(secret.Redacted)
		for i+1 < len(s.at) && s.hidden[i+1] {
			i++
		}
		done = s.at[i] + 1
	}
	if done < end {
		out.Write(s.text[done:end])
	}
	return out.String()
}

// Forms are the ways in which programs commonly write a value: as it is, and as JSON,
// base64, part of a URL, and what the trace of a shell makes of it.
func Forms(value string) []string {
	quoted, _ := json.Marshal(value)
	forms := []string{value, string(quoted), asciiJSON(value), octal(value)}
	for _, escaped := range []string{url.QueryEscape(value), url.PathEscape(value)} {
		forms = append(forms, escaped, percent.ReplaceAllStringFunc(escaped, strings.ToLower))
	}
	// A value within a longer text, as in "user:password", begins at any of three places.
	for skip := range min(3, len(value)) {
		for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			text := encoding.EncodeToString([]byte(value[skip:]))
			forms = append(forms, text[:len(text)/4*4])
		}
	}
	for line := range strings.Lines(value) {
		forms = append(forms, strings.TrimSuffix(line, "\n"))
	}
	return forms
}

// percent is an escaped byte of a URL.
var percent = regexp.MustCompile(`%[0-9A-F]{2}`)

// asciiJSON is what many programs make of a text by default, such as Python's json.dumps.
func asciiJSON(value string) string {
	var out strings.Builder
	for _, unit := range utf16.Encode([]rune(value)) {
		if unit < 0x80 {
			out.WriteByte(byte(unit))
		} else {
			fmt.Fprintf(&out, `\u%04x`, unit)
		}
	}
	return out.String()
}

// octal has bytes that are not ASCII as a shell shows them that knows no UTF-8.
func octal(value string) string {
	var out strings.Builder
	for _, c := range []byte(value) {
		if c < 0x80 {
			out.WriteByte(c)
		} else {
			fmt.Fprintf(&out, `\%03o`, c)
		}
	}
	return out.String()
}
