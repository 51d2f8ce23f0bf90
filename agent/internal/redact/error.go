package redact

// Error is an error whose text does not show some values. Its cause keeps its type.
func Error(err error, hidden []string) error {
	if err == nil {
		return nil
	}
	text := Text([]byte(err.Error()), false, hidden)
	if text == err.Error() {
		return err
	}
	return &redacted{text, err}
}

type redacted struct {
	text  string
	cause error
}

func (e *redacted) Error() string { return e.text }

func (e *redacted) Unwrap() error { return e.cause }
