package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// onTerminal tells whether a stream is one that a person looks at.
func onTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// note tells a person something that is no answer.
func note(cmd *cobra.Command, format string, args ...any) {
	_, _ = fmt.Fprintf(cmd.ErrOrStderr(), format+"\n", args...)
}

// await waits for a read until ctx ends. A read cannot be stopped; it ends with the
// process.
func await[T any](ctx context.Context, read func() (T, error)) (T, error) {
	type result struct {
		got T
		err error
	}
	results := make(chan result, 1)
	go func() {
		got, err := read()
		results <- result{got, err}
	}()
	select {
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	case r := <-results:
		return r.got, r.err
	}
}

// stdin reads standard input, and no longer than the command lasts.
type stdin struct{ cmd *cobra.Command }

func (s stdin) Read(p []byte) (int, error) {
	return await(s.cmd.Context(), func() (int, error) { return s.cmd.InOrStdin().Read(p) })
}

// askLine asks the terminal that standard input is.
func askLine(cmd *cobra.Command, question string) (string, error) {
	_, _ = fmt.Fprint(cmd.ErrOrStderr(), question)
	var line []byte
	for {
		var one [1]byte
		n, err := stdin{cmd}.Read(one[:])
		switch {
		case err == io.EOF || n == 1 && one[0] == '\n':
			return strings.TrimSpace(string(line)), nil
		case err != nil:
			return "", err
		}
		line = append(line, one[:n]...)
	}
}

// askHidden asks the terminal that standard input is, and shows not what is typed,
// however fast that is: it doesn't from before the question on.
func askHidden(cmd *cobra.Command, question string) (string, error) {
	fd := int(cmd.InOrStdin().(*os.File).Fd())
	before, err := term.MakeRaw(fd)
	if err != nil {
		return "", err
	}
	defer func() {
		_ = term.Restore(fd, before)
	}()
	t := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{stdin{cmd}, cmd.ErrOrStderr()}, "")
	text, err := t.ReadPassword(question)
	if errors.Is(err, io.EOF) { // Ctrl-C and Ctrl-D are characters now.
		err = errors.New("it was not given")
	}
	return text, err
}
