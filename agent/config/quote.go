package config

import (
	"fmt"
	"strings"
	"unicode"
)

// quote writes a text as HCL reads it. Unlike Go, HCL has no \x, \a and the like, and
// takes ${ and %{ for expressions.
func quote(s string) string {
	var out strings.Builder
	out.WriteByte('"')
	var before rune
	for i, r := range s {
		opens := (r == '$' || r == '%') && strings.HasPrefix(s[i+1:], "{")
		switch {
		case r == '"' || r == '\\':
			out.WriteRune('\\')
			out.WriteRune(r)
		case r == '\n':
			out.WriteString(`\n`)
		case r == '\r':
			out.WriteString(`\r`)
		case r == '\t':
			out.WriteString(`\t`)
		case opens && before == r: // Of three in a row HCL escapes the wrong two.
			fmt.Fprintf(&out, `\u%04x`, r)
		case opens:
			out.WriteRune(r)
			out.WriteRune(r)
		case unicode.IsPrint(r):
			out.WriteRune(r)
		case r <= 0xFFFF:
			fmt.Fprintf(&out, `\u%04x`, r)
		default:
			fmt.Fprintf(&out, `\U%08x`, r)
		}
		before = r
	}
	out.WriteByte('"')
	return out.String()
}

// text writes lines as a heredoc where that reads back as it is, and else as quote does.
func text(s string) string {
	plain := func(r rune) bool { return r == '\n' || r == '\t' || unicode.IsPrint(r) }
	isPlain := !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) })
	if !isPlain || !strings.HasSuffix(s, "\n") || strings.Contains(s, "$${") || strings.Contains(s, "%%{") {
		return quote(s)
	}
	end := "EOT"
	for strings.Contains(s, end) {
		end += "_"
	}
	escaped := strings.NewReplacer("${", "$${", "%{", "%%{").Replace(s)
	return "<<" + end + "\n" + escaped + end
}
