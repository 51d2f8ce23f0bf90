package reload

import (
	"errors"

	"github.com/smarteros/deaddrop/agent/redact"
)

// OutputError is a failed program or request. Its text never contains the output, which is
// for the log alone.
type OutputError struct {
	Err error
	// Size is how much output there was, or "".
	Size string
	// Output is the output without hidden values, or "" where it is not to be shown.
	Output string
	// Hint is how to see the output, or "".
	Hint string
}

func (e *OutputError) Error() string { return e.Err.Error() }
func (e *OutputError) Unwrap() error { return e.Err }

// WithOutput returns an [*OutputError]. The output is shown where it was kept, and where
// it is known which values to hide.
func WithOutput(err error, output *redact.Output, hidden []string, hint string) *OutputError {
	failed := &OutputError{Err: err, Size: output.Size()}
	switch {
	case failed.Size == "":
	case !output.Keep:
		failed.Hint = hint
	case hidden == nil:
		failed.Hint = "the output is not logged, as the values to hide in it are not known any more"
	default:
		failed.Output = output.Text(hidden)
	}
	return failed
}

// OutputOf returns attributes for the log, about the output of what has failed.
func OutputOf(err error) []any {
	var failed *OutputError
	if !errors.As(err, &failed) {
		return nil
	}
	var args []any
	for _, each := range []struct{ name, value string }{{"printed", failed.Size}, {"output", failed.Output}, {"hint", failed.Hint}} {
		if each.value != "" {
			args = append(args, each.name, each.value)
		}
	}
	return args
}
