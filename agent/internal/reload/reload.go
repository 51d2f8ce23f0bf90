package reload

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/redact"
)

// Action is one way to make a service pick up a change. Actions hold nothing but
// settings: two that are equal are the same, and a batch of changes runs it once.
type Action interface {
	// Do tells the service, or fails without having told another one. It
	// returns an [*Unneeded] where there is nobody to tell.
	Do(ctx context.Context, change Change) error
	// Check tells what keeps Do from ever succeeding, as far as this can be seen
	// without doing it. The error is an [*Absent] where the service may still
	// come.
	Check(ctx context.Context) error
	// String names the action in logs. It shows no secret.
	String() string
}

// New returns the action for a target of the configuration. For the target
// [config.Child] that is the one that child returns; without a supervised command child
// is nil, and ok false.
func New(target config.Target, child func(config.Child) Action) (action Action, ok bool) {
	switch t := target.(type) {
	case config.PIDFile:
		return PIDFile(t), true
	case config.Process:
		return Process(t), true
	case config.Container:
		return Container(t), true
	case config.Unit:
		return Unit(t), true
	case config.Command:
		return Command(t), true
	case config.HTTP:
		return HTTP(t), true
	case config.Child:
		if child != nil {
			return child(t), true
		}
	}
	return nil, false
}

// Change is what a service is told of.
type Change struct {
	// Files are the paths of what has changed.
	Files []string
	// At is when they had been written.
	At time.Time
	// Hidden are the values that no output may show. Where it is nil they are not known,
	// and no output is shown.
	Hidden []string
}

// hiddenWith returns the hidden values and the forms of others. It returns nil where the
// former are not known: then the others alone are not enough to show an output.
func (c Change) hiddenWith(values []string) []string {
	if c.Hidden == nil {
		return nil
	}
	hidden := slices.Clone(c.Hidden)
	for _, value := range values {
		hidden = append(hidden, redact.Forms(value)...)
	}
	return hidden
}

// precedes tells whether something that is there for so long has come after the
// change, and so has seen it. What came at about the same time may not have.
func (c Change) precedes(age time.Duration) bool {
	return !c.At.IsZero() && age+50*time.Millisecond < time.Since(c.At)
}

// Unneeded says why nobody was to be told. It counts as success.
type Unneeded struct{ Why string }

func (e *Unneeded) Error() string { return e.Why }

// Absent says that what is to be told is not there, and may still come.
type Absent struct{ Err error }

func (e *Absent) Error() string { return e.Err.Error() }
func (e *Absent) Unwrap() error { return e.Err }

func absent(format string, args ...any) error { return &Absent{fmt.Errorf(format, args...)} }

// limited bounds a context, by a time of its own where there is one.
func limited(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, timeout)
}

// timedOut tells whether a limit has ended what was done, rather than the agent.
func timedOut(ctx, limited context.Context) bool {
	return errors.Is(limited.Err(), context.DeadlineExceeded) && ctx.Err() == nil
}
