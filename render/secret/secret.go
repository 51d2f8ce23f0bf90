// Package secret holds values that must not be seen by accident.
//
// A [Value] prints as [redacted] under every fmt verb, in JSON, in any text
// encoding and in slog. The only way to what it holds is [Value.Reveal], so
// that every place that unwraps a secret can be found by searching for that
// name.
package secret

import (
	"fmt"
	"io"
	"log/slog"
)

// Redacted is what every secret prints as.
const Redacted = "[redacted]"

// Value seals a T. The zero Value holds T's zero value.
//
// The content sits behind a pointer, because fmt cannot call methods on
// unexported struct fields and prints those by reflection: a Value inside such
// a field then shows as an address.
type Value[T any] struct {
	content *T
}

// Of seals v.
func Of[T any](v T) Value[T] { return Value[T]{content: &v} }

// Reveal returns what is sealed.
func (v Value[T]) Reveal() T {
	if v.content == nil {
		var zero T
		return zero
	}
	return *v.content
}

// Format implements [fmt.Formatter] for all verbs and flags.
func (v Value[T]) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Redacted) }

// String implements [fmt.Stringer].
func (v Value[T]) String() string { return Redacted }

// MarshalText implements [encoding.TextMarshaler], which encoding/json and
// most other encoders honour.
func (v Value[T]) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// LogValue implements [slog.LogValuer].
func (v Value[T]) LogValue() slog.Value { return slog.StringValue(Redacted) }
