package render

import (
	"errors"
	"fmt"

	"github.com/smarteros/deaddrop/render/dotenv"
)

// Format says how the pairs of a secret become a file.
type Format string

// The formats of a drop. FormatTemplate goes through [Template.Execute].
const (
	FormatDotenv   Format = "dotenv"
	FormatJSON     Format = "json"
	FormatTemplate Format = "template"
)

// Formats are all of them, for messages and completion.
func Formats() []string {
	return []string{string(FormatDotenv), string(FormatJSON), string(FormatTemplate)}
}

// Encode writes the pairs of a secret, sorted by key, as dotenv or JSON. JSON
// keeps every type, and numbers to the digit; it is indented and ends in a line
// break. Errors name secret and key, and hold no value.
func Encode(f Format, s *Secret) ([]byte, error) {
	switch f {
	case FormatJSON:
		text, err := toJSON(s.pairs(), "  ")
		return []byte(text + "\n"), err
	case FormatDotenv:
		out, err := dotenv.Encode(s.pairs())
		if err != nil {
			return nil, fmt.Errorf("secret %q cannot be written as .env: %w; use format \"json\" or a template for it", s.Path, oneLine(err))
		}
		return out, nil
	}
	return nil, fmt.Errorf("format %q does not write a secret by itself", f)
}

// oneLine joins what errors.Join puts on several lines.
func oneLine(err error) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return err
	}
	var text string
	for i, each := range joined.Unwrap() {
		if i > 0 {
			text += ", "
		}
		text += each.Error()
	}
	return errors.New(text)
}
