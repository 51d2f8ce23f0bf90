package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/term"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/printable"
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
		file, err := openLog(cfg.LogFile)
		if err != nil {
			return nil, config.Invalid("log_file: %v", err)
		}
		to = file // It stays open until the end of the process.
	}
	how := &slog.HandlerOptions{Level: level}
	// The handlers of slog escape line breaks and most controls, but not all that acts
	// on a terminal.
	switch {
	case format == "text" || format == "auto" && term.IsTerminal(int(to.Fd())):
		return slog.New(slog.NewTextHandler(printable.NewWriter(to), how)), nil
	case format == "json" || format == "auto":
		return slog.New(slog.NewJSONHandler(printable.NewJSONWriter(to), how)), nil
	}
	return nil, fmt.Errorf("--log-format %q is not known: use auto, text or json", o.logFormat)
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
