package render

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/smarteros/deaddrop/render/dotenv"
)

// Format says how the pairs of a secret become a file.
type Format string

// The formats of a drop. FormatTemplate goes through [Template.Execute].
const (
	FormatDotenv     Format = "dotenv"
	FormatShell      Format = "shell"
	FormatJSON       Format = "json"
	FormatYAML       Format = "yaml"
	FormatTOML       Format = "toml"
	FormatProperties Format = "properties"
	FormatTemplate   Format = "template"
)

// Formats are all of them, for messages and completion.
func Formats() []string {
	return append(DataFormats(), string(FormatTemplate))
}

// DataFormats are those that need no template.
func DataFormats() []string {
	return []string{string(FormatDotenv), string(FormatJSON), string(FormatYAML), string(FormatTOML), string(FormatProperties), string(FormatShell)}
}

// Encoding is how a secret is written without a template.
type Encoding struct {
	Format Format
	// Dialect is who reads a .env file; "" is [dotenv.Portable].
	Dialect dotenv.Dialect
	Keys    Keys
}

// Encode writes the pairs of a secret, sorted by key. JSON, YAML and TOML keep
// every type, and numbers to the digit. In the other formats, what is nested is
// flattened: db.password becomes db_password, or db.password in properties. All
// end in a line break. Errors name secret and key, and hold no value.
func (e Encoding) Encode(s *Secret) ([]byte, error) {
	pairs, err := e.Keys.apply(s.pairs())
	if err != nil {
		return nil, fmt.Errorf("secret %q %w", s.Path, err)
	}
	out, err := e.encode(pairs)
	if err != nil {
		return nil, fmt.Errorf("secret %q cannot be written as %s: %w", s.Path, e.Format, oneLine(err))
	}
	return out, nil
}

func (e Encoding) encode(pairs map[string]any) ([]byte, error) {
	switch e.Format {
	case FormatJSON:
		text, err := toJSON(pairs, "  ")
		return []byte(text + "\n"), err
	case FormatYAML:
		text, err := toYAML(pairs)
		return []byte(text), err
	case FormatTOML:
		text, err := toTOML(pairs)
		return []byte(text), err
	case FormatProperties:
		flat, err := flatten(pairs, ".")
		if err != nil {
			return nil, err
		}
		return toProperties(flat)
	case FormatDotenv, FormatShell:
		flat, err := flatten(pairs, "_")
		if err != nil {
			return nil, err
		}
		return e.environment(flat)
	}
	return nil, fmt.Errorf("format %q does not write a secret by itself", e.Format)
}

// loaderHint names a pattern for the other keys, too: only = ["PATH"] writes nothing else.
const loaderHint = `write the key besides all others by keys { only = ["*", "PATH"] }, with its name for PATH, or all such keys by keys { allow_loader = true }`

func (e Encoding) environment(flat map[string]any) ([]byte, error) {
	if e.Keys.MapInvalid {
		mapped, err := Keys{MapInvalid: true}.apply(flat) // Names that come of flattening, too.
		if err != nil {
			return nil, err
		}
		flat = mapped
	}
	if !e.Keys.AllowLoader {
		if err := dotenv.CheckLoaders(flat, e.Keys.names); err != nil {
			return nil, &HintedError{oneLine(err), loaderHint}
		}
	}
	if e.Format == FormatShell {
		return dotenv.EncodeExports(flat)
	}
	dialect := e.Dialect
	if dialect == "" {
		dialect = dotenv.Portable
	}
	return dotenv.Encode(dialect, flat)
}

// toProperties writes what java.util.Properties.load reads: ISO 8859-1 with
// \uXXXX for all that is not ASCII.
func toProperties(flat map[string]any) ([]byte, error) {
	var out strings.Builder
	for _, key := range sortedKeys(flat) {
		value, ok := scalar(flat[key])
		if !ok {
			return nil, fmt.Errorf("key %q holds null, which properties cannot say; give it a value, or leave it out", key)
		}
		if key == "" {
			return nil, errors.New("a key is empty")
		}
		if strings.ToValidUTF8(key+value, "") != key+value {
			return nil, fmt.Errorf("key %q is not UTF-8, which properties cannot carry", key)
		}
		escapeProperty(&out, key, true)
		out.WriteByte('=')
		escapeProperty(&out, value, false)
		out.WriteByte('\n')
	}
	return []byte(out.String()), nil
}

func escapeProperty(out *strings.Builder, s string, isKey bool) {
	const named, letters = "\t\n\f\r", "tnfr"
	for i, c := range s {
		at := strings.IndexRune(named, c)
		switch {
		case at >= 0:
			out.WriteString(`\` + letters[at:at+1])
		case c == ' ' && (isKey || i == 0), strings.ContainsRune(`\#!=:`, c):
			out.WriteString(`\` + string(c))
		case c > 0xffff:
			c -= 0x10000
			fmt.Fprintf(out, `\u%04x\u%04x`, 0xd800+c>>10, 0xdc00+c&0x3ff)
		case c < ' ' || c > '~':
			fmt.Fprintf(out, `\u%04x`, c)
		default:
			out.WriteRune(c)
		}
	}
}

// oneLine joins what errors.Join puts on several lines.
func oneLine(err error) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return err
	}
	var texts []string
	for _, each := range joined.Unwrap() {
		texts = append(texts, each.Error())
	}
	return errors.New(strings.Join(slices.Compact(texts), ", "))
}
