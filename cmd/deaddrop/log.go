package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"golang.org/x/term"

	"github.com/smarteros/deaddrop/render"
)

// logger logs to standard error: text for people, JSON for collectors.
func (o *options) logger() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return nil, fmt.Errorf("--log-level %q is not known: use debug, info, warn or error", o.logLevel)
	}
	asText := o.logFormat == "text" || o.logFormat == "auto" && term.IsTerminal(int(os.Stderr.Fd()))
	how := &slog.HandlerOptions{Level: level}
	switch {
	case asText:
		return slog.New(slog.NewTextHandler(os.Stderr, how)), nil
	case o.logFormat == "json" || o.logFormat == "auto":
		return slog.New(slog.NewJSONHandler(os.Stderr, how)), nil
	}
	return nil, fmt.Errorf("--log-format %q is not known: use auto, text or json", o.logFormat)
}

// runError is a failure of the work itself, not of the command line.
type runError struct {
	error
	to *slog.Logger
}

func (e *runError) Unwrap() error { return e.error }

func failure(log *slog.Logger, err error) error {
	if err == nil {
		return nil
	}
	return &runError{err, log}
}

// log writes a line for each of the joined errors.
func (e *runError) log() {
	for _, each := range flatten(e.error) {
		e.to.Error("failed", "error", each)
	}
}

func flatten(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, each := range joined.Unwrap() {
		all = append(all, flatten(each)...)
	}
	return all
}

func isMissingKey(err error) bool {
	var missing *render.MissingKeyError
	return errors.As(err, &missing)
}
