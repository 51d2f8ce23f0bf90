// Package reload makes services pick up what was dropped for them. There is one
// small type for each way.
package reload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smarteros/deaddrop/agent/redact"
	"github.com/smarteros/deaddrop/render"
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

// The first and the last of the signals that have no name of their own, as the C
// library has them, and kill -l shows them.
const rtMin, rtMax = 34, 64

// ParseSignal reads a signal by name ("HUP", "SIGHUP", "RTMIN+3", in any case) or
// by number.
func ParseSignal(s string) (syscall.Signal, error) {
	name := "SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	if n, err := strconv.Atoi(s); err == nil && (unix.SignalName(syscall.Signal(n)) != "" || n >= rtMin && n <= rtMax) {
		return syscall.Signal(n), nil
	}
	for base, n := range map[string]int{"SIGRTMIN": rtMin, "SIGRTMAX": rtMax} {
		offset, isRT := strings.CutPrefix(name, base)
		more, err := strconv.Atoi(cmp.Or(offset, "0"))
		if isRT && err == nil && n+more >= rtMin && n+more <= rtMax && (offset == "" || strings.ContainsAny(offset[:1], "+-")) {
			return syscall.Signal(n + more), nil
		}
	}
	var names []string
	for n := syscall.Signal(1); n < 32; n++ {
		names = append(names, unix.SignalName(n))
	}
	if near := render.Nearest(name, names); near != "" {
		return 0, fmt.Errorf("there is no signal %q; did you mean %q?", s, near)
	}
	return 0, fmt.Errorf("there is no signal %q; examples are \"HUP\", \"USR1\", \"TERM\"", s)
}

// SignalName is the name of a signal that [ParseSignal] reads.
func SignalName(s syscall.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return fmt.Sprintf("SIGRTMIN+%d", int(s)-rtMin)
}

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
