package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/agent/supervise"
	"github.com/smarteros/deaddrop/render/printable"
)

// signalled is the cause of a context that a signal has ended.
type signalled struct{ signal syscall.Signal }

func (s signalled) Error() string { return s.signal.String() + " signal received" }

// untilSignalled is [signal.NotifyContext] for the signals that end deaddrop, with
// the signal itself as the cause.
func untilSignalled() (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	received := make(chan os.Signal, 1)
	signal.Notify(received, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case sig := <-received:
			number, _ := sig.(syscall.Signal)
			cancel(signalled{number})
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(received)
		cancel(nil)
	}
}

// endedError says that a signal has ended work before it was done.
type endedError struct {
	signal syscall.Signal // 0 where the context has ended in another way
	// waiting is the last failure of a request to Vault that was being retried; nil
	// where there is none.
	waiting error
	doing   string
}

func (e *endedError) Error() string {
	by := "from outside"
	if e.signal != 0 {
		by = "by " + unix.SignalName(e.signal)
	}
	text := "ended " + by + " " + e.doing
	if e.waiting != nil {
		text += ": " + e.waiting.Error()
	}
	return text
}

// exitCode is 128 and the number of the signal, as shells have it.
func (e *endedError) exitCode() int {
	if e.signal == 0 {
		return exitFailed
	}
	return 128 + int(e.signal)
}

// orEnded returns an error of work as it is, unless a signal ended the work first:
// then failures that time may have mended become one [endedError] in front of the
// others.
func orEnded(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	ended := &endedError{doing: "before it was done"}
	if cause, ok := context.Cause(ctx).(signalled); ok {
		ended.signal = cause.signal
	}
	var others []error
	for _, each := range flatten(err) {
		switch {
		case !isAny(each, session.ErrUnreachable, session.ErrSealed, context.Canceled):
			others = append(others, each)
			continue
		case !errors.Is(each, context.Canceled):
			ended.doing = "while waiting for Vault"
		}
		// A request that the signal has cancelled tells nothing of Vault.
		if ended.waiting == nil && !strings.Contains(each.Error(), context.Canceled.Error()) {
			ended.waiting = each
		}
	}
	return errors.Join(append([]error{ended}, others...)...)
}

// endedEarly says that a signal ended a command that only asks, whose answers are
// then worth nothing; nil where none has.
func endedEarly(cmd *cobra.Command) error {
	if cmd.Context().Err() == nil {
		return nil
	}
	var ended *endedError
	errors.As(orEnded(cmd.Context(), context.Canceled), &ended)
	_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "deaddrop: %s\n", printable.Error(ended))
	return failure(nil, &supervise.ExitError{Code: ended.exitCode()})
}
