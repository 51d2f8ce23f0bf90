// Package values reads the values of secrets from what an operator gives: arguments,
// files, standard input. None of its errors holds a value.
package values

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"math/big"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/joho/godotenv"

	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/input"
	"github.com/smarteros/deaddrop/render/safefile"
)

// Max is the size of the largest secret, in bytes: its values, as JSON. Raft takes
// entries of 1 MiB, unless Vault is configured otherwise, and Vault adds to them.
const Max = 1<<20 - 4<<10

// maxInput is how much is read at most, in bytes. It may have comments.
const maxInput = 1 << 20

// CheckSize tells whether all values of a secret together are too large for Vault.
func CheckSize(values map[string]any) error {
	text, err := json.Marshal(values) // As Vault does.
	if err == nil && len(text) > Max {
		err = fmt.Errorf("the values have %d bytes; %d are the most that Vault keeps of a secret", len(text), Max)
	}
	return err
}

// Input is where values come from.
type Input struct {
	Stdin io.Reader
	// Ask asks a person for a key's value. It is nil where nobody is there.
	Ask func(key string) (string, error)

	taken bool // that standard input was read
}

// Arguments reads KEY=VALUE, KEY=@FILE and KEY=-, which is standard input. A value
// that begins with \@ or is \- is one that begins with @ or is -.
//
// A file's only line does not include the line break that ends it.
func (in *Input) Arguments(args []string) (map[string]any, error) {
	values := map[string]any{}
	for i, arg := range args {
		key, text, found := strings.Cut(arg, "=")
		if !found { // It may be a value that was not quoted.
			return nil, fmt.Errorf("argument %d has no \"=\": write KEY=VALUE, KEY=@FILE or KEY=-", i+1)
		}
		if err := CheckKey(key); err != nil {
			return nil, err
		}
		if _, twice := values[key]; twice {
			return nil, fmt.Errorf("the key %q is given twice", key)
		}
		value, err := in.value(key, text)
		if err != nil {
			return nil, fmt.Errorf("the value of %s: %w", key, err)
		}
		if !utf8.ValidString(value) {
			return nil, fmt.Errorf("the value of %s is not text in UTF-8, which is all that Vault keeps; encode it, such as in base64", key)
		}
		values[key] = value
	}
	return values, nil
}

// Literal tells whether one of the arguments holds a value itself.
func Literal(args []string) bool {
	for _, arg := range args {
		if _, text, _ := strings.Cut(arg, "="); text != "" && text != "-" && text[0] != '@' {
			return true
		}
	}
	return false
}

// CheckKey tells what is wrong with a key.
func CheckKey(key string) error {
	switch {
	case key == "":
		return errors.New("a key is empty: write KEY=VALUE")
	case !utf8.ValidString(key) || strings.ContainsFunc(key, func(c rune) bool { return c < ' ' || c == 0x7f }):
		return errors.New("a key has characters that nobody sees")
	}
	return nil
}

func (in *Input) value(key, text string) (string, error) {
	switch {
	case text == "-" && in.Ask != nil:
		return in.Ask(key)
	case text == "-":
		content, err := in.stdin()
		return withoutBreak(content), err
	case strings.HasPrefix(text, "@"):
		content, err := file(text[1:])
		return withoutBreak(content), err
	case strings.HasPrefix(text, `\@`), text == `\-`:
		return text[1:], nil
	}
	return text, nil
}

func (in *Input) stdin() (string, error) {
	if in.taken {
		return "", errors.New("standard input is read for something else already")
	}
	in.taken = true
	return asText(safefile.ReadStream(in.Stdin, "standard input", maxInput))
}

func file(path string) (string, error) { return asText(input.Read(path, maxInput)) }

// asText takes what was read, unless it is too much.
func asText(content []byte, err error) (string, error) {
	if errors.Is(err, safefile.ErrTooLarge) {
		err = fmt.Errorf("there is more than %d bytes to read, which is too large for a secret", maxInput)
	}
	if err != nil {
		return "", err
	}
	return string(content), nil
}

// withoutBreak drops what an editor or echo puts behind a single line.
func withoutBreak(text string) string {
	line, rest, _ := strings.Cut(text, "\n")
	if rest != "" {
		return text
	}
	return strings.TrimSuffix(line, "\r")
}

// From reads all values from a file, or from standard input if it is "-": a JSON
// object, or else .env text.
func (in *Input) From(path string) (map[string]any, error) {
	name, get := path, func() (string, error) { return file(path) }
	if path == "-" {
		name, get = "standard input", in.stdin
	}
	content, err := get()
	if errors.As(err, new(*fs.PathError)) {
		return nil, err // It has the name.
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	content = strings.TrimPrefix(content, "\uFEFF")
	if !utf8.ValidString(content) {
		return nil, fmt.Errorf("%s: it is not text in UTF-8", name)
	}
	parse := env
	if strings.HasPrefix(strings.TrimSpace(content), "{") {
		parse = object
	}
	values, err := parse(content)
	if err == nil && len(values) == 0 {
		err = errors.New("there are no values in it")
	}
	for key := range values {
		err = errors.Join(err, CheckKey(key))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return values, nil
}

// object reads JSON, and keeps its types.
func object(text string) (map[string]any, error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var values map[string]any
	if err := d.Decode(&values); err != nil {
		return nil, fmt.Errorf("it begins like a JSON object, but is none, see line %d", lineOf(text, d, err))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("there is something behind the JSON object, see line %d", 1+strings.Count(text[:d.InputOffset()], "\n"))
	}
	for key, value := range values {
		if tooBig(value) {
			return nil, fmt.Errorf("the value of %s has a number that Vault would change, as it keeps 15 digits or so; write it as a string, in quotes", key)
		}
	}
	return values, nil
}

func lineOf(text string, d *json.Decoder, err error) int {
	offset := d.InputOffset()
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		offset = syntax.Offset
	}
	return 1 + strings.Count(text[:min(int(offset), len(text))], "\n")
}

// tooBig tells whether a number is in a value that a float64, which Vault keeps,
// cannot hold: a whole one, or one with more digits than that has.
func tooBig(value any) bool {
	switch v := value.(type) {
	case json.Number:
		return changes(v)
	case map[string]any:
		return slices.ContainsFunc(slices.Collect(maps.Values(v)), tooBig)
	case []any:
		return slices.ContainsFunc(v, tooBig)
	}
	return false
}

func changes(number json.Number) bool {
	digits, _, _ := strings.Cut(strings.ToLower(number.String()), "e")
	kept, err := number.Float64()
	switch {
	case err != nil:
		return true
	case kept == 0:
		return strings.ContainsAny(digits, "123456789")
	case math.Trunc(kept) != kept:
		return len(strings.Trim(strings.ReplaceAll(digits, ".", ""), "-0")) > 15
	}
	exact, ok := new(big.Rat).SetString(number.String())
	return !ok || new(big.Rat).SetFloat64(kept).Cmp(exact) != 0
}

// dollar stands for $ while godotenv reads: nothing else has it.
const dollar = "\U00100024"

// env reads .env text, in the dialect of godotenv. A value in which it would put
// that of another key is refused, since passwords have dollar signs, too.
func env(text string) (map[string]any, error) {
	expanded, err := godotenv.UnmarshalBytes([]byte(text))
	if err != nil { // It quotes the text, so it is not repeated.
		return nil, fmt.Errorf("it is neither a JSON object nor .env text, see line %d", badLine(text))
	}
	plain, err := godotenv.UnmarshalBytes([]byte(strings.ReplaceAll(text, "$", dollar)))
	if err != nil {
		return nil, errors.New("it is neither a JSON object nor .env text")
	}
	values := make(map[string]any, len(expanded))
	for key, value := range expanded {
		if strings.ReplaceAll(plain[key], dollar, "$") != value {
			return nil, fmt.Errorf("the value of %s has a $ that readers of .env take for the name of another key; put the value in single quotes", key)
		}
		values[key] = value
	}
	return values, nil
}

// badLine is the line behind the longest part that can be read.
func badLine(text string) int {
	lines := strings.SplitAfter(text, "\n")
	for n := len(lines) - 1; n > 0; n-- {
		if _, err := godotenv.UnmarshalBytes([]byte(strings.Join(lines[:n], ""))); err == nil {
			return n + 1
		}
	}
	return 1
}
