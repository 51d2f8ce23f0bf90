// Package dotenv writes key-value pairs as .env text, for the reader that will
// read it.
//
// Readers of .env files disagree about quotes, backslashes, dollar signs and
// line breaks, so each has a dialect of its own. All carry UTF-8 text without
// NUL; what else they carry:
//
//	dialect     reader                         line breaks  what it cannot carry
//	compose     Docker Compose v2, env_file    yes
//	godotenv    github.com/joho/godotenv       yes          some values that end in \ or in "
//	node        node --env-file                LF           CR; all three kinds of quotes, unless plain otherwise
//	python      python-dotenv                  yes          ${NAME}, which it expands; some values that end in \
//	shell       set -a; . file (dash, bash)    yes          (it carries what is not UTF-8, too)
//	systemd     EnvironmentFile=               LF           other control characters but tab
//	docker      docker run --env-file          no           64 KiB and more
//	compose-v1  docker-compose before 1.26     no           64 KiB and more
//	portable    all of them                    no           all that has to be quoted
//
// A value that a dialect cannot carry is an error, never a mangled file.
package dotenv

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Dialect says who reads the text.
type Dialect string

// The dialects.
const (
	Portable  Dialect = "portable"
	Compose   Dialect = "compose"
	ComposeV1 Dialect = "compose-v1"
	Docker    Dialect = "docker"
	Godotenv  Dialect = "godotenv"
	Node      Dialect = "node"
	Python    Dialect = "python"
	Shell     Dialect = "shell"
	Systemd   Dialect = "systemd"
)

// Dialects are all of them by name, for messages and completion.
func Dialects() []string {
	return []string{string(Compose), string(ComposeV1), string(Docker), string(Godotenv), string(Node), string(Portable), string(Python), string(Shell), string(Systemd)}
}

// ErrDialect is the error for a dialect that is not there. It does not show the name,
// which may be a value, swapped by mistake.
var ErrDialect = errors.New("the dialect is not known; use one of " + strings.Join(Dialects(), ", "))

// KeyError says why a pair cannot be written. It holds no value.
type KeyError struct {
	// Key is "" where only a value was quoted.
	Key    string
	Reason string
	// Carriers are the dialects that could carry the value.
	Carriers []Dialect
}

func (e *KeyError) Error() string {
	subject := "the value"
	if e.Key != "" {
		subject = fmt.Sprintf("key %q", e.Key)
	}
	text := subject + " " + e.Reason
	if len(e.Carriers) == 0 {
		return text
	}
	names := make([]string, len(e.Carriers))
	for i, d := range e.Carriers {
		names[i] = string(d)
	}
	return fmt.Sprintf("%s; name the reader as the dialect: %s can", text, strings.Join(names, ", "))
}

// Encode writes one KEY=value line per pair, sorted by key. Values are
// strings, numbers or booleans. The errors of all pairs that cannot be written
// are joined; each is a [*KeyError].
func Encode(d Dialect, pairs map[string]any) ([]byte, error) {
	return lines("", pairs, func(value string) (string, error) { return Quote(d, value) })
}

// EncodeExports writes lines for a shell, such as export KEY='value'.
func EncodeExports(pairs map[string]any) ([]byte, error) {
	return lines("export ", pairs, func(value string) (string, error) {
		if strings.ContainsRune(value, 0) {
			return Quote(Shell, value)
		}
		return inShell(value), nil
	})
}

func lines(before string, pairs map[string]any, quote func(string) (string, error)) ([]byte, error) {
	var out strings.Builder
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(pairs)) {
		text, err := valueOf(key, pairs[key], quote)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out.WriteString(before + key + "=" + text + "\n")
	}
	if err := join(errs); err != nil {
		return nil, err
	}
	return []byte(out.String()), nil
}

func valueOf(key string, value any, quote func(string) (string, error)) (string, error) {
	if !IsName(key) {
		return "", &KeyError{Key: key, Reason: "is not a variable name (letters, digits and _, not starting with a digit); rename or map it in a keys block"}
	}
	text, reason := scalar(value)
	if reason != "" {
		return "", &KeyError{Key: key, Reason: reason}
	}
	quoted, err := quote(text)
	var wrong *KeyError
	if errors.As(err, &wrong) {
		wrong.Key = key
	}
	return quoted, err
}

// IsName tells whether s may be the name of a variable.
func IsName(s string) bool {
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
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), ""
	case bool, int, int64, uint64:
		return fmt.Sprint(v), ""
	case nil:
		return "", "holds null, which a .env line cannot say; give it a value, or leave it out"
	default:
		return "", "holds a list or an object, which a .env line cannot say"
	}
}

// Quote returns a value as it stands behind the equals sign. Errors are of type
// [*KeyError], or [ErrDialect].
func Quote(d Dialect, value string) (string, error) {
	quote, known := quoters[d]
	if !known {
		return "", ErrDialect
	}
	if quoted, ok := quote(value); ok {
		return quoted, nil
	}
	wrong := &KeyError{Reason: fmt.Sprintf("%s, which dialect %q cannot carry", trouble(d, value), d)}
	for _, name := range Dialects() {
		if _, ok := quoters[Dialect(name)](value); ok {
			wrong.Carriers = append(wrong.Carriers, Dialect(name))
		}
	}
	return "", wrong
}
