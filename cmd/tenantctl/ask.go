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

	"github.com/smarteros/deaddrop/render/printable"
)

// onTerminal tells whether a stream is one that a person looks at.
func onTerminal(stream any) bool {
	if w, ok := stream.(io.Writer); ok {
		stream = printable.Raw(w)
	}
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

// patient reads no longer than the command lasts.
type patient struct {
	ctx context.Context
	r   io.Reader
}

func (p patient) Read(b []byte) (int, error) {
	return await(p.ctx, func() (int, error) { return p.r.Read(b) })
}

// askLine asks the terminal that standard input is.
func askLine(cmd *cobra.Command, question string) (string, error) {
	_, _ = fmt.Fprint(cmd.ErrOrStderr(), question)
	var line []byte
	for {
		var one [1]byte
		n, err := patient{cmd.Context(), cmd.InOrStdin()}.Read(one[:])
		switch {
		case err == io.EOF || n == 1 && one[0] == '\n':
			return strings.TrimSpace(string(line)), nil
		case err != nil:
			return "", err
		}
		line = append(line, one[:n]...)
	}
}

// askHidden asks the terminal that standard input is, and shows not what is typed.
func askHidden(cmd *cobra.Command, question string) (string, error) {
	in := cmd.InOrStdin().(*os.File)
	texts, err := hidden(int(in.Fd()), patient{cmd.Context(), in}, cmd.ErrOrStderr(), question)
	if err != nil {
		return "", err
	}
	return texts[0], nil
}

// hidden asks a terminal. What is typed does not show, however fast that is: not from
// before the first question on.
func hidden(fd int, in io.Reader, out io.Writer, questions ...string) ([]string, error) {
	before, err := term.MakeRaw(fd)
	if err != nil {
		return nil, err
	}
	defer func() { _ = term.Restore(fd, before) }()
	t := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{in, printable.Raw(out)}, "") // It moves the cursor.
	var texts []string
	for _, question := range questions {
		text, err := t.ReadPassword(printable.Text(question))
		if errors.Is(err, io.EOF) { // Ctrl-C and Ctrl-D are characters now.
			err = errors.New("it was not given")
		}
		if err != nil {
			return nil, err
		}
		texts = append(texts, text)
	}
	return texts, nil
}
