package render

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Request is one question to Vault: a read of Path, a list of what is under it
// or, with parameters, a write to it, such as one that issues a certificate.
// Requests that are equal are the same question. It prints as its path:
// parameters may hold secrets.
type Request struct {
	// Path is as the user wrote it, or the API path that stands for. Behind a
	// "?" it may name a version, as in "secret/tenant/demo/nexa?version=3".
	Path   string
	params string // names and values in turn, by name, as a JSON array; "" for a read
	lists  bool
}

// Read is the request to read a path.
func Read(path string) Request { return Request{Path: path} }

// List is the request to list what is under a path.
func List(path string) Request { return Request{Path: strings.TrimRight(path, "/"), lists: true} }

// ParseRequest makes a request of a path and parameters of the form "name=value",
// which is how templates write them. Of a name that comes twice the last counts.
func ParseRequest(path string, params ...string) (Request, error) {
	pairs := map[string]string{}
	for i, param := range params {
		if param == "" {
			continue // As for consul-template: what a template may leave out.
		}
		name, value, ok := strings.Cut(param, "=")
		if name = strings.TrimSpace(name); !ok || name == "" {
			// Parameters and path may be secrets, in the wrong place.
			return Request{}, problem("parameter " + strconv.Itoa(i+1) + " is not of the form \"name=value\"")
		}
		pairs[name] = strings.TrimSpace(value)
	}
	r := Read(path)
	if len(pairs) > 0 {
		var flat []string
		for _, name := range slices.Sorted(maps.Keys(pairs)) {
			flat = append(flat, name, pairs[name])
		}
		text, err := json.Marshal(flat)
		if err != nil {
			return Request{}, problem("the parameters cannot be sent")
		}
		r.params = string(text)
	}
	return r, nil
}

// At is the same question at another path.
func (r Request) At(path string) Request { return Request{path, r.params, r.lists} }

// Lists tells whether the request is a list.
func (r Request) Lists() bool { return r.lists }

// Writes tells whether the request is a write.
func (r Request) Writes() bool { return r.params != "" }

// Params are the parameters of a write, nil for a read. They may hold secrets.
func (r Request) Params() map[string]any {
	if r.params == "" {
		return nil
	}
	var flat []string
	if err := json.Unmarshal([]byte(r.params), &flat); err != nil {
		return nil // It was made by ParseRequest.
	}
	params := map[string]any{}
	for i := 0; i+1 < len(flat); i += 2 {
		params[flat[i]] = flat[i+1]
	}
	return params
}

// Fingerprint is the whole request as text, for a hash; it may hold secrets.
func (r Request) Fingerprint() string {
	if r.lists {
		return r.Path + "/"
	}
	return r.Path + "\x00" + r.params
}

// String is the path.
func (r Request) String() string { return r.Path }

// Format implements [fmt.Formatter] for all verbs and flags.
func (r Request) Format(f fmt.State, verb rune) {
	if verb == 'q' {
		_, _ = fmt.Fprintf(f, "%q", r.Path)
		return
	}
	_, _ = io.WriteString(f, r.Path)
}

// MarshalText implements [encoding.TextMarshaler].
func (r Request) MarshalText() ([]byte, error) { return []byte(r.Path), nil }

// LogValue implements [slog.LogValuer].
func (r Request) LogValue() slog.Value { return slog.StringValue(r.Path) }
