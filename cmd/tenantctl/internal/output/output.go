// Package output writes what commands answer: a table for people, JSON or YAML
// for scripts.
package output

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"

	"go.yaml.in/yaml/v3"

	"github.com/smarteros/deaddrop/render/printable"
)

// Format is how an answer is written.
type Format string

// The formats.
const (
	Table Format = "table"
	JSON  Format = "json"
	YAML  Format = "yaml"
)

// Formats are all of them, the default first.
func Formats() []string { return []string{string(Table), string(JSON), string(YAML)} }

// Rows are a table.
type Rows struct {
	Head []string
	Body [][]string
}

// Write writes v as JSON or YAML, with the names of its json tags, or else the
// table of it.
func (f Format) Write(w io.Writer, v any, table func() Rows) error {
	switch f {
	case JSON:
		text, err := marshal(v)
		if err != nil {
			return err
		}
		_, err = printable.NewJSONWriter(printable.Raw(w)).Write(text)
		return err
	case YAML:
		return writeYAML(printable.Raw(w), v)
	}
	return table().write(w)
}

func marshal(v any) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(v)
	return out.Bytes(), err
}

// writeYAML goes by JSON, which is YAML, so that both have the same names in the
// same order.
func writeYAML(w io.Writer, v any) error {
	text, err := marshal(v)
	if err != nil {
		return err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(escaped(text), &doc); err != nil {
		return err
	}
	plain(&doc)
	e := yaml.NewEncoder(w)
	e.SetIndent(2)
	if err := e.Encode(&doc); err != nil {
		return err
	}
	return e.Close()
}

// escaped is JSON in which nothing is that JSON may have in a string as it is, and
// YAML may not.
func escaped(text []byte) []byte {
	var out bytes.Buffer
	for _, c := range string(text) {
		if c >= 0x7f && c < 0xa0 || c == 0xFEFF || c == 0xFFFE || c == 0xFFFF {
			fmt.Fprintf(&out, "\\u%04x", c)
		} else {
			out.WriteRune(c)
		}
	}
	return out.Bytes()
}

// plain takes the style of JSON off, but for the quotes of strings: readers of YAML do
// not agree on which words without quotes are some.
func plain(n *yaml.Node) {
	if n.Kind != yaml.ScalarNode {
		n.Style = 0
	}
	for i, each := range n.Content {
		plain(each)
		if n.Kind == yaml.MappingNode && i%2 == 0 && isName(each.Value) {
			each.Style = 0
		}
	}
}

var bareKey = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// isName tells whether a key is a string for every reader, with or without quotes.
func isName(key string) bool {
	words := []string{"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
	return bareKey.MatchString(key) && !slices.Contains(words, strings.ToLower(key))
}

func (r Rows) write(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, row := range append([][]string{r.Head}, r.Body...) {
		if len(row) == 0 {
			continue
		}
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = printable.Text(cell)
		}
		if _, err := fmt.Fprintln(tw, strings.Join(cells, "\t")); err != nil {
			return err
		}
	}
	return tw.Flush()
}
