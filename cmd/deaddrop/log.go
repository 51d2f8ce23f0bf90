package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"golang.org/x/term"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/render"
)

// logger logs to standard error, or the file that the configuration names: text
// for people, JSON for collectors. Flags go before the configuration.
func (o *options) logger(cfg *config.Config) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cmp.Or(o.logLevel, cfg.LogLevel, "info"))); err != nil {
		return nil, fmt.Errorf("--log-level %q is not known: use debug, info, warn or error", o.logLevel)
	}
	format := cmp.Or(o.logFormat, cfg.LogFormat, "auto")
	to := os.Stderr
	if cfg.LogFile != "" {
		file, err := os.OpenFile(cfg.LogFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return nil, config.Invalid("log_file: %v", err)
		}
		to = file // It stays open until the end of the process.
	}
	how := &slog.HandlerOptions{Level: level}
	switch {
	case format == "text" || format == "auto" && term.IsTerminal(int(to.Fd())):
		return slog.New(slog.NewTextHandler(to, how)), nil
	case format == "json" || format == "auto":
		return slog.New(slog.NewJSONHandler(to, how)), nil
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
