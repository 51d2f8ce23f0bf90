package redact

import "errors"

// OutputError is the error of a program or request that has printed something. Its text
// never contains the output, which is for the log alone: see [OutputOf].
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

// WithOutput adds the output to an error. The output is shown if it was kept, and if the
// values to hide are known: nil stands for unknown, an empty slice for none. hint is how to
// see an output that was not kept.
func WithOutput(err error, output *Output, hidden []string, hint string) *OutputError {
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

// OutputOf returns the attributes for the log that an [OutputError] has: "printed", "output"
// and "hint"; none for other errors.
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
