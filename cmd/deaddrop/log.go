package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/term"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/printable"
)

// processLog is the log of the process, on standard error or in the file that the
// configuration names: text for people, JSON for collectors. Level, format and file may
// be replaced while others log. Flags go before the configuration.
type processLog struct {
	*slog.Logger
	flagLevel, flagFormat string // "" where they are not given
	level                 slog.LevelVar
	output                logOutput

	mu     sync.Mutex // of what follows
	opened logTarget
	wanted logTarget // differs from opened where a file could not be opened
}

// logTarget is where a log goes.
type logTarget struct{ file, format string }

// newLog opens the log of a configuration.
func (o *options) newLog(cfg *config.Config) (*processLog, error) {
	l := &processLog{flagLevel: o.logLevel, flagFormat: o.logFormat}
	if err := l.setLevel(cfg); err != nil {
		return nil, fmt.Errorf("--log-level %q is not known: use debug, info, warn or error", o.logLevel)
	}
	l.wanted = l.targetOf(cfg)
	if !slices.Contains([]string{"auto", "text", "json"}, l.wanted.format) {
		return nil, fmt.Errorf("--log-format %q is not known: use auto, text or json", o.logFormat)
	}
	if err := l.open(); err != nil {
		return nil, config.Invalid("log_file: %v", err)
	}
	l.Logger = slog.New(logHandler{output: &l.output, level: &l.level})
	return l, nil
}

func (l *processLog) setLevel(cfg *config.Config) error {
	return l.level.UnmarshalText([]byte(cmp.Or(l.flagLevel, cfg.LogLevel, "info")))
}

func (l *processLog) targetOf(cfg *config.Config) logTarget {
	return logTarget{cfg.LogFile, cmp.Or(l.flagFormat, cfg.LogFormat, "auto")}
}

// open opens the wanted target, and closes that of before.
func (l *processLog) open() error {
	file := os.Stderr
	if l.wanted.file != "" {
		var err error
		if file, err = openLog(l.wanted.file); err != nil {
			return err
		}
	}
	how := &slog.HandlerOptions{Level: &l.level}
	// The handlers of slog escape line breaks and most controls, but not all that acts
	// on a terminal.
	var handler slog.Handler = slog.NewJSONHandler(printable.NewJSONWriter(file), how)
	if l.wanted.format == "text" || l.wanted.format == "auto" && term.IsTerminal(int(file.Fd())) {
		handler = slog.NewTextHandler(printable.NewWriter(file), how)
	}
	l.output.replace(handler, file)
	l.opened = l.wanted
	return nil
}

// apply takes over the log of a changed configuration. A file that cannot be opened
// leaves the log where it is.
func (l *processLog) apply(cfg *config.Config) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.setLevel(cfg) // It is valid: that was checked when the configuration was loaded.
	if l.wanted = l.targetOf(cfg); l.wanted != l.opened {
		l.openOrKeep()
	}
}

// reopen opens the file of the log again, which logrotate may have moved away.
func (l *processLog) reopen() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wanted.file != "" {
		l.openOrKeep()
	}
}

func (l *processLog) openOrKeep() {
	if err := l.open(); err != nil {
		l.Error("cannot open log file, keeping the old one", "error", err)
	}
}

// logOutput is a handler that can be replaced while others use it, and its file.
type logOutput struct {
	mu      sync.RWMutex
	handler slog.Handler
	file    *os.File
}

// replace closes the file of before, unless that is a standard stream. It waits for lines
// that are being written.
func (o *logOutput) replace(handler slog.Handler, file *os.File) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.file != nil && o.file != os.Stdout && o.file != os.Stderr {
		_ = o.file.Close()
	}
	o.handler, o.file = handler, file
}

// logHandler passes records on to the handler of an output, with its own attributes and
// groups.
type logHandler struct {
	output *logOutput
	level  slog.Leveler
	extend []func(slog.Handler) slog.Handler // in order
}

func (h logHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.level.Level()
}

func (h logHandler) Handle(ctx context.Context, r slog.Record) error {
	h.output.mu.RLock()
	defer h.output.mu.RUnlock()
	handler := h.output.handler
	for _, extend := range h.extend {
		handler = extend(handler)
	}
	return handler.Handle(ctx, r)
}

func (h logHandler) WithAttrs(attributes []slog.Attr) slog.Handler {
	return h.with(func(to slog.Handler) slog.Handler { return to.WithAttrs(attributes) })
}

func (h logHandler) WithGroup(name string) slog.Handler {
	return h.with(func(to slog.Handler) slog.Handler { return to.WithGroup(name) })
}

func (h logHandler) with(extend func(slog.Handler) slog.Handler) slog.Handler {
	h.extend = append(slices.Clip(h.extend), extend)
	return h
}

// openLog opens a file to append to. Somebody else may own its folder, and would have the
// agent write to any file by a link, or wait for ever by a FIFO: both are refused.
func openLog(path string) (*os.File, error) {
	const flags = os.O_WRONLY | os.O_CREATE | os.O_APPEND
	switch {
	case path == "/dev/stdout":
		return os.Stdout, nil
	case path == "/dev/stderr":
		return os.Stderr, nil // A socket, as that of the journal, cannot be opened by path.
	case isSystemFile(path):
		return os.OpenFile(path, flags, 0o600)
	}
	file, err := os.OpenFile(path, flags|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	switch {
	case errors.Is(err, syscall.ELOOP):
		return nil, fmt.Errorf("%s is a symbolic link, which is not followed; name the file itself", path)
	case errors.Is(err, syscall.ENXIO): // a FIFO without a reader, or a socket
		return nil, fmt.Errorf("%s is not a regular file", path)
	case err != nil:
		return nil, err
	}
	if err := isLogFile(file); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("%s %w", path, err)
	}
	return file, nil
}

// isLogFile refuses a file that has a second name, too: somebody else may have given it
// that, where fs.protected_hardlinks is 0.
func isLogFile(file *os.File) error {
	info, err := file.Stat()
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return errors.New("is not a regular file")
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Nlink > 1 {
		return errors.New("has several hard links; move it away, so that a new one is made")
	}
	return nil
}

// isSystemFile reports whether a path is that of a device, or of an open file of a process:
// such as /dev/null and /proc/1/fd/1. Only root can make files there.
func isSystemFile(path string) bool {
	path = filepath.Clean(path)
	return strings.HasPrefix(path, "/proc/") || slices.Contains([]string{"/dev", "/dev/fd", "/dev/pts"}, filepath.Dir(path))
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
		attributes := []any{"error", each}
		if hint := render.HintOf(each); hint != "" {
			attributes = append(attributes, "hint", hint)
		}
		e.to.Error("failed", attributes...)
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
