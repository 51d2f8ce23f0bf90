package render

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/smarteros/deaddrop/render/dotenv"
)

// FormatOf tells a file's format by its ending, or [FormatTemplate] where that
// tells none.
func FormatOf(path string) Format {
	switch filepath.Ext(path) {
	case ".env":
		return FormatDotenv
	case ".json":
		return FormatJSON
	case ".yaml", ".yml":
		return FormatYAML
	case ".toml":
		return FormatTOML
	case ".properties":
		return FormatProperties
	}
	return FormatTemplate
}

// Entries splits the content of a file into names and values, to compare two of
// them. Nested names are joined by dots. Values of .env files are as they stand
// there, quotes included. ok is false where the content is not of such a form, or
// it cannot be told for sure what in it is a name: that may be a secret.
func Entries(f Format, content []byte) (entries map[string]string, ok bool) {
	var tree any
	var err error
	switch f {
	case FormatJSON:
		tree, err = parseJSON(string(content))
	case FormatYAML:
		tree, err = parseYAML(string(content))
	case FormatTOML:
		tree, err = parseTOML(string(content))
	case FormatDotenv, FormatShell, FormatProperties:
		return assignments(string(content), f != FormatProperties)
	default:
		return nil, false
	}
	pairs, isMap := tree.(map[string]any)
	if err != nil || !isMap {
		return nil, false
	}
	flat, err := flatten(pairs, ".")
	if err != nil {
		return nil, false
	}
	entries = map[string]string{}
	for name, value := range flat {
		text, isScalar := scalar(value)
		if !isScalar {
			text = fmt.Sprint(value)
		}
		if _, isText := value.(string); isText && f == FormatJSON {
			quoted, _ := json.Marshal(text)
			text = string(quoted)
		}
		entries[name] = text
	}
	return entries, true
}

// assignments reads lines NAME=value. A quote that does not end on its line makes
// all that follows doubtful.
func assignments(text string, names bool) (map[string]string, bool) {
	entries := map[string]string{}
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimPrefix(strings.TrimSpace(line), "export ")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, found := strings.Cut(line, "=")
		if !found || names && !dotenv.IsName(name) || !names && !plainName().MatchString(name) || looksEncoded(name) || opensQuote(value) || strings.HasSuffix(value, `\`) {
			return nil, false
		}
		entries[name] = value
	}
	return entries, true
}

// plainName is a name in properties whose end is certain.
var plainName = lazily(`^[A-Za-z0-9_.-]+$`)

// looksEncoded is true for what is rather the end of a key in base64, which has
// signs of equality, too, than a name.
func looksEncoded(name string) bool {
	return len(name) > 15 && !strings.Contains(name, "_") && strings.ToUpper(name) != name && strings.ToLower(name) != name
}

// opensQuote tells whether a value holds a quote that some reader may take to go on
// behind the line.
func opensQuote(value string) bool {
	if !strings.ContainsAny(value, "'\"`") {
		return false
	}
	quote := value[:1]
	inner := strings.ReplaceAll(value, `'\''`, "")
	if !strings.ContainsAny(quote, "'\"`") || len(inner) < 2 || !strings.HasSuffix(inner, quote) || strings.HasSuffix(inner, `\`+quote) {
		return true
	}
	return strings.Contains(strings.ReplaceAll(inner[1:len(inner)-1], `\`+quote, ""), quote)
}
