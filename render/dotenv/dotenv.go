// Package dotenv writes key-value pairs as .env text.
//
// Readers of .env files disagree about quotes, backslashes and dollar signs,
// so only that is written which Docker Compose v2, Node.js, python-dotenv,
// dash, bash and godotenv read alike. A value that one of them
// would read differently is an error, never a mangled file.
package dotenv

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// KeyError says why a pair cannot be written. It holds no value.
type KeyError struct {
	Key    string
	Reason string
}

func (e *KeyError) Error() string { return fmt.Sprintf("key %q %s", e.Key, e.Reason) }

// Encode writes one KEY=value line per pair, sorted by key. Values are
// strings, numbers or booleans. The errors of all pairs that cannot be written
// are joined; each is a [*KeyError].
func Encode(pairs map[string]any) ([]byte, error) {
	var out strings.Builder
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(pairs)) {
		value, err := line(key, pairs[key])
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out.WriteString(key + "=" + value + "\n")
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return []byte(out.String()), nil
}

func line(key string, value any) (string, error) {
	if !isName(key) {
		return "", &KeyError{key, "is not a variable name (letters, digits and _, not starting with a digit)"}
	}
	text, reason := scalar(value)
	if reason == "" {
		text, reason = quote(text)
	}
	if reason != "" {
		return "", &KeyError{key, reason}
	}
	return text, nil
}

func isName(s string) bool {
	for i, c := range s {
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// scalar returns a value's text, or the reason why it has none.
func scalar(value any) (text, reason string) {
	switch v := value.(type) {
	case string:
		return v, ""
	case json.Number:
		return v.String(), ""
	case bool:
		return fmt.Sprint(v), ""
	case nil:
		return "", "holds null, which a .env line cannot say"
	default:
		return "", "holds a list or an object, which a .env line cannot say"
	}
}

// quote returns a value as it stands behind the equals sign. Single quotes are
// the one form that all readers take literally, as long as there is no quote,
// backslash or control character within; python-dotenv expands ${…} even there.
func quote(s string) (quoted, reason string) {
	plain := true
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\n' || c == '\r':
			return "", "holds a line break, which .env readers do not read alike"
		case c < ' ' || c == 0x7f:
			return "", "holds a control character, which .env readers do not read alike"
		case c == '\'' || c == '\\':
			return "", fmt.Sprintf("holds a %c, which .env readers do not read alike", c)
		case !isPlain(c):
			plain = false
		}
	}
	switch {
	case !utf8.ValidString(s):
		return "", "is not UTF-8, which .env readers do not read alike"
	case strings.Contains(s, "${"):
		return "", "holds ${, which some .env readers expand"
	case plain:
		return s, ""
	}
	return "'" + s + "'", ""
}

func isPlain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("_./:@%+,=-", c) >= 0
}
