package publish

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/command"
	"github.com/smarteros/deaddrop/agent/internal/output"
	"github.com/smarteros/deaddrop/agent/internal/redact"
	"github.com/smarteros/deaddrop/render/drop"
)

// CheckError says that a check has refused new content. The content is tried again when it
// changes.
type CheckError struct {
	file int // index of the file whose check it is; 0 for that of a set
	err  error
}

func (e *CheckError) Error() string { return "check refused new content: " + e.err.Error() }

func (e *CheckError) Unwrap() error { return e.err }

// killGrace is how long a check that has timed out may take to be gone.
const killGrace = 5 * time.Second

// examine runs the checks of a job on its content, and rejects content that does not pass.
func (p *Publisher) examine(ctx context.Context, batch *drop.Batch, j *job) {
	if j.first == j.end || batch.Pending(j.first) == "" || !hasChecks(j.Rendered) {
		return
	}
	if err := p.runChecks(ctx, batch, j); err != nil {
		for unit := j.first; unit < j.end; unit++ {
			batch.Reject(unit, err)
		}
	}
}

func hasChecks(r output.Rendered) bool {
	return r.Set != nil && r.Set.Check != nil || slices.ContainsFunc(r.Files, func(f output.RenderedFile) bool { return f.Drop.Check != nil })
}

func (p *Publisher) runChecks(ctx context.Context, batch *drop.Batch, j *job) error {
	view, err := viewOf(batch, j)
	if err != nil {
		return fmt.Errorf("check cannot be run: %w", err)
	}
	defer view.remove()
	for i, f := range j.Files {
		path := view.path
		if j.Set != nil {
			path = filepath.Join(path, filepath.Base(f.Drop.Destination))
		}
		if err := p.check(ctx, f.Drop.Check, i, path, view.inherited, j.Hidden); err != nil {
			return err
		}
	}
	if j.Set != nil {
		return p.check(ctx, j.Set.Check, 0, view.path, nil, j.Hidden)
	}
	return nil
}

// view is content as a check sees it.
type view struct {
	path      string     // of the file, or of the folder of a set
	inherited []*os.File // by the program
	remove    func()
}

// inheritedPath is the first file that a program inherits besides the usual three.
const inheritedPath = "/proc/self/fd/3"

// viewOf hands a check the staged content only if nobody else can change it before the
// check reads it: the check runs as the agent, and may obey what it reads. Otherwise the
// check gets a copy.
func viewOf(batch *drop.Batch, j *job) (view, error) {
	if file := batch.Open(j.first); file != nil {
		return view{inheritedPath, []*os.File{file}, func() {}}, nil
	}
	pending := batch.Pending(j.first)
	if drop.CheckOwn(filepath.Dir(pending)) == nil && !slices.ContainsFunc(j.Files, mayOthersWrite) {
		return view{pending, nil, func() {}}, nil
	}
	if j.Set == nil {
		file, err := drop.InMemory(j.Files[0].Content)
		if err != nil {
			return view{}, err
		}
		return view{inheritedPath, []*os.File{file}, func() { _ = file.Close() }}, nil
	}
	files := map[string][]byte{}
	for _, f := range j.Files {
		files[filepath.Base(f.Drop.Destination)] = f.Content
	}
	folder, remove, err := drop.PrivateCopy(files)
	return view{folder, nil, remove}, err
}

// mayOthersWrite reports whether somebody else may write to the file, its owner for one.
func mayOthersWrite(f output.RenderedFile) bool {
	owner := f.Drop.UID
	return owner != nil && *owner != 0 && *owner != os.Geteuid() || f.Drop.Mode.Perm()&0o022 != 0
}

// check runs one command on the content at path.
func (p *Publisher) check(ctx context.Context, c *config.Check, file int, path string, inherited []*os.File, hidden []string) error {
	if c == nil {
		return nil
	}
	args := slices.Clone(c.Args)
	for i := range args {
		args[i] = strings.NewReplacer("{{.Path}}", path, "{{ .Path }}", path).Replace(args[i])
	}
	p.Busy(time.Now().Add(c.Timeout + killGrace))
	defer p.Busy(time.Time{})
	begun := time.Now()
	output := &redact.Output{Keep: c.ShowOutput}
	err := command.Spec{Args: args, Timeout: c.Timeout, Files: inherited}.Run(ctx, output)
	p.Checks.Note(begun, err)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("the check was interrupted: %w", ctx.Err())
	case err != nil:
		// The path is another one each time, and tells nobody anything.
		plain := strings.NewReplacer(path, "{{.Path}}")
		failed := redact.WithOutput(errors.New(plain.Replace(err.Error())), output, hidden, "set show_output = true in the check block to log its output, or run it by hand")
		failed.Output = plain.Replace(failed.Output)
		return &CheckError{file, failed}
	}
	return nil
}
