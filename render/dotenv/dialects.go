package dotenv

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// quoters write a value for a reader, or tell that it cannot be done.
var quoters = map[Dialect]func(string) (string, bool){
	Portable:  portable,
	Compose:   compose,
	ComposeV1: raw,
	Docker:    raw,
	Godotenv:  goDotenv,
	Node:      node,
	Python:    python,
	Shell:     shell,
	Systemd:   systemd,
}

// longestRaw is what fits on a line of Docker's reader, whose buffer is 64 KiB,
// with a key that is not longer than it is sensible.
const longestRaw = 64<<10 - 512

// portable is what nobody has to be told how to read.
func portable(s string) (string, bool) { return s, isPlain(s) && len(s) <= longestRaw }

func isPlain(s string) bool {
	for i := range len(s) {
		c := s[i]
		plain := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("_./:@%+,=-!*?^[]{}", c) >= 0
		if !plain {
			return false
		}
	}
	return true
}

// isText tells whether s is UTF-8 without NUL: what no reader but a shell
// carries otherwise.
func isText(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// raw is the reader of docker run: a line is taken as it is.
func raw(s string) (string, bool) {
	return s, isText(s) && !strings.ContainsAny(s, "\r\n") && len(s) <= longestRaw
}

// shell takes everything between single quotes literally.
func shell(s string) (string, bool) {
	switch {
	case strings.IndexByte(s, 0) >= 0:
		return "", false
	case isPlain(s):
		return s, true
	}
	return inShell(s), true
}

func inShell(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

var (
	inDouble        = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, "\n", `\n`, "\r", `\r`)
	inDoubleSystemd = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, "`", "\\`")
)

// compose is compose-go, which undoes escapes in double quotes and expands
// variables there, after them.
func compose(s string) (string, bool) {
	switch {
	case !isText(s):
		return "", false
	case isPlain(s):
		return s, true
	}
	return `"` + inDouble.Replace(s) + `"`, true
}

// goDotenv cuts all quotes at the end of what it has found between quotes, and
// takes \" for an escaped quote even where the backslash is escaped.
func goDotenv(s string) (string, bool) {
	switch {
	case !isText(s):
		return "", false
	case isPlain(s):
		return s, true
	case !strings.ContainsAny(s, "'\r") && !strings.HasSuffix(s, `\`):
		return "'" + s + "'", true
	case !strings.HasSuffix(s, `\`) && !strings.HasSuffix(s, `"`):
		return `"` + inDouble.Replace(s) + `"`, true
	}
	return s, isBare(s) && !strings.Contains(s, "$")
}

// isBare tells whether a value may stand without quotes to the end of its line,
// blanks within included, for readers that look for quotes only at its beginning.
func isBare(s string) bool {
	if s == "" || strings.ContainsAny(s[:1], "'\"`") || strings.TrimFunc(s, isBlank) != s {
		return false
	}
	return !strings.ContainsAny(s, "\r\n#")
}

// isBlank is true for all that some reader trims.
func isBlank(c rune) bool {
	return unicode.IsSpace(c) || c <= ' ' || 0x1c <= c && c <= 0x1f || c == 0xfeff
}

// node takes what is between two quotes of any kind literally, but for \n
// between double quotes, and drops every carriage return.
func node(s string) (string, bool) {
	switch {
	case !isText(s) || strings.Contains(s, "\r"):
		return "", false
	case isPlain(s):
		return s, true
	}
	for _, quote := range []string{"'", "`", `"`} {
		if !strings.Contains(s, quote) && (quote != `"` || !strings.Contains(s, `\n`)) {
			return quote + s + quote, true
		}
	}
	return s, isBare(s)
}

// expands is what python-dotenv expands wherever it stands.
var expands = regexp.MustCompile(`\$\{[^}:]*(?::-[^}]*)?\}`)

// python undoes escapes between quotes, but looks for the end without minding
// that a backslash may be escaped itself.
func python(s string) (string, bool) {
	switch {
	case !isText(s) || expands.MatchString(s):
		return "", false
	case isPlain(s):
		return s, true
	case !strings.Contains(s, "\r") && !strings.HasSuffix(s, `\`):
		return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'", true
	case !strings.HasSuffix(s, `\`):
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\r", `\r`, "\n", `\n`).Replace(s) + `"`, true
	}
	return s, isBare(s)
}

// systemd undoes the escapes of a shell between double quotes, and refuses
// control characters and what Unicode calls noncharacters.
func systemd(s string) (string, bool) {
	if !isText(s) || strings.ContainsFunc(s, unfitForSystemd) {
		return "", false
	}
	if isPlain(s) {
		return s, true
	}
	return `"` + inDoubleSystemd.Replace(s) + `"`, true
}

func unfitForSystemd(c rune) bool {
	return c < ' ' && c != '\t' && c != '\n' || c == 0x7f || 0xfdd0 <= c && c <= 0xfdef || c&0xfffe == 0xfffe
}

// trouble tells what of a value a dialect does not carry.
func trouble(d Dialect, s string) string {
	switch {
	case strings.IndexByte(s, 0) >= 0:
		return "holds NUL"
	case !utf8.ValidString(s):
		return "is not UTF-8"
	case d == Python && expands.MatchString(s):
		return "holds ${…}, which is expanded"
	case d != Compose && d != Shell && strings.Contains(s, "\r"), (d == Portable || d == Docker || d == ComposeV1) && strings.Contains(s, "\n"):
		return "holds a line break"
	case len(s) > longestRaw && (d == Portable || d == Docker || d == ComposeV1):
		return "is longer than a line may be"
	case strings.HasSuffix(s, `\`) && d != Portable:
		return `ends in a \`
	case d == Systemd:
		return "holds a control character"
	case d != Portable:
		return "mixes quotes"
	}
	for _, c := range s {
		switch {
		case c == ' ':
			return "holds a blank"
		case c < ' ' || c == 0x7f:
			return "holds a control character"
		case c > '~':
			return "holds a letter beyond ASCII"
		}
	}
	return "holds a character that has to be quoted"
}
