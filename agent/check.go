package agent

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/reload"
	"github.com/smarteros/deaddrop/render/drop"
	"github.com/smarteros/deaddrop/render/secret"
)

// checkError says that new content has not passed its check. It is tried again
// when the content changes.
type checkError struct {
	whose  *state // the drop whose check it is; nil for that of a set
	err    error
	output string // redacted
}

func (e *checkError) Error() string {
	text := "the new content has not passed its check: " + e.err.Error()
	if e.output != "" {
		text += "; it said: " + e.output
	}
	return text
}

func (e *checkError) Unwrap() error { return e.err }

// checkEnds is how long a check that has timed out may take to be gone.
const checkEnds = 5 * time.Second

// examine runs the checks of a group on its content, and rejects what does not
// pass.
func (d *dropper) examine(ctx context.Context, batch *drop.Batch, unit int, r rendered) {
	pending := batch.Pending(unit)
	if pending == "" {
		return
	}
	var handed []*os.File
	if file := batch.Open(unit); file != nil {
		pending, handed = "/proc/self/fd/3", []*os.File{file}
	}
	err := func() error {
		for _, s := range r.states {
			path := pending
			if r.set != nil {
				path = filepath.Join(pending, filepath.Base(s.drop.Destination))
			}
			if err := d.check(ctx, s.drop.Check, s, path, handed, r); err != nil {
				return err
			}
		}
		if r.set != nil {
			return d.check(ctx, r.set.Check, nil, pending, nil, r)
		}
		return nil
	}()
	if err == nil {
		return
	}
	for i := range r.units() {
		batch.Reject(unit+i, err)
	}
}

func (d *dropper) check(ctx context.Context, c *config.Check, whose *state, path string, handed []*os.File, r rendered) error {
	if c == nil {
		return nil
	}
	args := slices.Clone(c.Args)
	for i := range args {
		args[i] = strings.NewReplacer("{{.Path}}", path, "{{ .Path }}", path).Replace(args[i])
	}
	d.busy(time.Now().Add(c.Timeout + checkEnds))
	defer d.busy(time.Time{})
	begun := time.Now()
	output, err := reload.Command{Args: args, Timeout: c.Timeout, Files: handed}.Output(ctx)
	d.counts.checks.Note(begun, err)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("the check was interrupted: %w", ctx.Err())
	case err != nil:
		// The path is another one each time, and tells nobody anything.
		plain := strings.NewReplacer(path, "{{.Path}}")
		said := plain.Replace(strings.Join(strings.Fields(string(output)), " "))
		return &checkError{whose, errors.New(plain.Replace(err.Error())), redact(said, r.hidden)}
	}
	return nil
}

// shortest is how long a value must be to be looked for in the output of a
// check: shorter ones are in everything.
const shortest = 3

// valuesOf are the texts that may not be shown of a group: all values of its
// secrets, as they are and as programs write them, all that stands behind an = or
// a : in its files, or alone on a line, and the like of the files before.
func (d *dropper) valuesOf(r rendered) []string {
	var values []string
	add := func(value string) {
		if value = strings.Trim(strings.TrimSpace(value), "\"'`,;"); len(value) >= shortest {
			values = append(values, value)
		}
	}
	for _, s := range r.states {
		for _, request := range s.uses {
			if answer := d.readings[request].Secret; answer != nil {
				scalars(answer.Data.Reveal(), func(text string) {
					quoted, _ := json.Marshal(text)
					for _, form := range []string{text, string(quoted), base64.StdEncoding.EncodeToString([]byte(text)), url.QueryEscape(text)} {
						add(form)
					}
					for line := range strings.SplitSeq(text, "\n") {
						add(line)
					}
				})
			}
		}
	}
	for _, s := range r.states {
		for _, value := range s.former() {
			add(value)
		}
	}
	for _, content := range r.contents {
		for line := range strings.SplitSeq(string(content), "\n") {
			add(line)
			if at := strings.IndexAny(line, "=:"); at >= 0 {
				add(line[at+1:])
			}
		}
	}
	slices.SortFunc(values, func(a, b string) int { return len(b) - len(a) })
	return slices.Compact(values)
}

func scalars(v any, f func(string)) {
	switch v := v.(type) {
	case map[string]any:
		for _, each := range v {
			scalars(each, f)
		}
	case []any:
		for _, each := range v {
			scalars(each, f)
		}
	case nil, bool:
	default:
		f(fmt.Sprint(v))
	}
}

// redact takes values out of a text, in which every run of blanks is one.
func redact(text string, values []string) string {
	for _, value := range values {
		text = strings.ReplaceAll(text, strings.Join(strings.Fields(value), " "), secret.Redacted)
	}
	return text
}
