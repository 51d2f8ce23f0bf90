package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/command"
	"github.com/smarteros/deaddrop/agent/internal/redact"
	"github.com/smarteros/deaddrop/agent/internal/reload"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/drop"
	"github.com/smarteros/deaddrop/render/safefile"
)

// checkError says that a check has refused new content. The content is tried again when
// it changes.
type checkError struct {
	whose *state // the drop whose check it is; nil for that of a set
	err   error
}

func (e *checkError) Error() string { return "check refused new content: " + e.err.Error() }

func (e *checkError) Unwrap() error { return e.err }

// checkEnds is how long a check that has timed out may take to be gone.
const checkEnds = 5 * time.Second

// examine runs the checks of a group on its content, and rejects what does not
// pass.
func (d *dropper) examine(ctx context.Context, batch *drop.Batch, unit int, r rendered) {
	if batch.Pending(unit) == "" || !r.hasChecks() {
		return
	}
	err := d.runChecks(ctx, batch, unit, r)
	if err == nil {
		return
	}
	for i := range r.units() {
		batch.Reject(unit+i, err)
	}
}

func (r rendered) hasChecks() bool {
	return r.set != nil && r.set.Check != nil || slices.ContainsFunc(r.states, func(s *state) bool { return s.drop.Check != nil })
}

func (d *dropper) runChecks(ctx context.Context, batch *drop.Batch, unit int, r rendered) error {
	seen, err := showToChecks(batch, unit, r)
	if err != nil {
		return fmt.Errorf("check cannot be run: %w", err)
	}
	defer seen.remove()
	for _, s := range r.states {
		path := seen.path
		if r.set != nil {
			path = filepath.Join(path, filepath.Base(s.drop.Destination))
		}
		if err := d.check(ctx, s.drop.Check, s, path, seen.handed, r); err != nil {
			return err
		}
	}
	if r.set != nil {
		return d.check(ctx, r.set.Check, nil, seen.path, nil, r)
	}
	return nil
}

// checked is content as a check sees it.
type checked struct {
	path   string     // of the file, or of the folder of a set
	handed []*os.File // to the program
	remove func()
}

// handedPath is the first file that a program inherits besides the usual three.
const handedPath = "/proc/self/fd/3"

// showToChecks hands a check the staged content only if nobody else can change it before
// the check reads it: the check runs as the agent, and may obey what it reads. Otherwise
// the check gets a copy.
func showToChecks(batch *drop.Batch, unit int, r rendered) (checked, error) {
	if file := batch.Open(unit); file != nil {
		return checked{handedPath, []*os.File{file}, func() {}}, nil
	}
	pending := batch.Pending(unit)
	if drop.CheckOwn(filepath.Dir(pending)) == nil && !slices.ContainsFunc(r.states, (*state).mayOthersWrite) {
		return checked{pending, nil, func() {}}, nil
	}
	if r.set == nil {
		file, err := drop.InMemory(r.contents[0])
		if err != nil {
			return checked{}, err
		}
		return checked{handedPath, []*os.File{file}, func() { _ = file.Close() }}, nil
	}
	files := map[string][]byte{}
	for i, s := range r.states {
		files[filepath.Base(s.drop.Destination)] = r.contents[i]
	}
	folder, remove, err := drop.PrivateCopy(files)
	return checked{folder, nil, remove}, err
}

// mayOthersWrite reports whether somebody else may write to the file, its owner for one.
func (s *state) mayOthersWrite() bool {
	owner := s.drop.UID
	return owner != nil && *owner != 0 && *owner != os.Geteuid() || s.drop.Mode.Perm()&0o022 != 0
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
	output := &redact.Output{Keep: c.ShowOutput}
	err := command.Spec{Args: args, Timeout: c.Timeout, Files: handed}.Run(ctx, output)
	d.counts.checks.Note(begun, err)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("the check was interrupted: %w", ctx.Err())
	case err != nil:
		// The path is another one each time, and tells nobody anything.
		plain := strings.NewReplacer(path, "{{.Path}}")
		failed := redact.WithOutput(errors.New(plain.Replace(err.Error())), output, r.hidden, "set show_output = true in the check block to log its output, or run it by hand")
		failed.Output = plain.Replace(failed.Output)
		return &checkError{whose, failed}
	}
	return nil
}

// outputIn is the output of a check that has failed, where it is to be logged, or "".
func outputIn(err error) string {
	var failed *redact.OutputError
	if !errors.As(err, &failed) {
		return ""
	}
	return failed.Output
}

// showsOutput reports whether a check or a reload of a group is to log its output.
func (r rendered) showsOutput() bool {
	drops := dropsOf(r.states)
	if r.set != nil {
		drops = append(drops, config.Drop{Check: r.set.Check, Reloads: r.set.Reloads})
	}
	return slices.ContainsFunc(drops, func(d config.Drop) bool {
		return d.Check != nil && d.Check.ShowOutput || slices.ContainsFunc(d.Reloads, reloadShowsOutput)
	})
}

func reloadShowsOutput(r config.Reload) bool {
	action, _ := reload.New(r.Target, nil)
	return actionShowsOutput(action)
}

func actionShowsOutput(action reload.Action) bool {
	switch a := action.(type) {
	case reload.Command:
		return a.ShowOutput
	case reload.HTTP:
		return a.ShowOutput
	}
	return false
}

// valuesOf are the texts that may not be shown of a group: all values of its secrets, and
// all that its files hold, now and before.
func (d *dropper) valuesOf(r rendered) []string {
	values := []string{}
	for _, s := range r.states {
		for _, request := range s.uses {
			if answer := d.readings[request].Secret; answer != nil {
				scalars(answer.Data.Reveal(), func(text string) { values = append(values, redact.Forms(text)...) })
			}
		}
	}
	for i, content := range r.contents {
		values = append(values, valuesIn(r.states[i].drop, content)...)
		// Somebody else may have put any file there. A much larger one is none of ours.
		former, _ := safefile.Read(r.states[i].drop.Destination, max(minOldContent, 4*int64(len(content))))
		values = append(values, valuesIn(r.states[i].drop, former)...)
	}
	slices.Sort(values)
	return slices.Compact(values)
}

// minOldContent is how many bytes an old file may have at least to be searched for values.
const minOldContent = 256 << 10

// valuesIn are the values in the content of a file: those of its keys, where there are
// such, and its lines, without a name in front of them.
func valuesIn(of config.Drop, content []byte) []string {
	format := of.Format
	if format == render.FormatTemplate {
		format = cmp.Or(render.FormatOf(of.Destination), format)
	}
	var values []string
	entries, _ := render.Entries(format, content)
	for _, value := range entries {
		values = append(values, redact.Forms(value)...)
	}
	for line := range strings.Lines(string(content)) {
		value := line
		if name := nameInFront.FindString(line); len(strings.TrimSpace(line[len(name):])) >= shortest {
			value = line[len(name):]
		}
		values = append(values, strings.TrimRight(strings.TrimSpace(value), ",;"))
	}
	return values
}

// nameInFront is the name of a line that gives it a value. It is not hidden.
var nameInFront = regexp.MustCompile(`^\s*(export\s+)?["']?[A-Za-z_][A-Za-z0-9_.-]*["']?\s*[=:]`)

// shortest is how long the rest of a line must be to be the value of a name: else the line
// may be one of base64.
const shortest = 3

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
