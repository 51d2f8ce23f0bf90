package output

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/redact"
	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/drop"
)

// Readings are the secrets that outputs are rendered with. [readings.Cache] is one.
type Readings interface {
	// Reading returns the last reading of a request; ok is false if there is none yet.
	Reading(render.Request) (reading watch.Reading, ok bool)
	// SetUses replaces the requests of a user: those a change of which concerns it, and
	// those that are only to be kept alive.
	SetUses(user any, renders, holds []render.Request)
	// Remove forgets a user.
	Remove(user any)
}

// Rendered is the new content of a group. It holds secrets.
type Rendered struct {
	// Set is what the files belong to, or nil.
	Set *config.Set
	// Files are in the order of the group's outputs.
	Files []RenderedFile
	// ShowsOutput says that a check or a reload may log output of programs. Secrets are
	// then the values that must not be in it.
	ShowsOutput bool
	Secrets     []string

	group *Group
}

// RenderedFile is the new content of one output.
type RenderedFile struct {
	Drop      *config.Drop
	Content   []byte
	SideFiles []drop.File
	// IsFirst says that no service can have looked for the file before.
	IsFirst bool

	requests []render.Request
	leases   []*watch.Lease
	outdated error // why it is not the newest content
}

// Requests are those that the content was rendered with.
func (f RenderedFile) Requests() []render.Request { return f.requests }

// Group is what was rendered.
func (r Rendered) Group() *Group { return r.group }

// attempt is one render of an output.
type attempt struct {
	file RenderedFile
	err  error
	// isWaiting says that a secret was not read yet.
	isWaiting bool
}

// render renders one output, and notes which requests and files it has used. A secret that
// cannot be read is an error only if no earlier version of it is known, or if the file is
// not to outlive the secret.
func (t *Table) render(o *Output) attempt {
	o.uses, o.reads = nil, nil
	a := attempt{file: RenderedFile{Drop: &o.Drop, IsFirst: o.content == nil && !o.IsLate}}
	var unread error
	lookup := func(request render.Request) *render.Secret {
		reading, known := t.readings.Reading(request)
		if !known {
			return nil
		}
		if reading.Err != nil {
			a.file.outdated = &outdatedError{reading.Err}
		}
		if reading.Secret == nil || IsMissing(reading.Err) && o.Drop.OnMissing != config.KeepFile {
			unread = &unreadError{reading.Err}
			return nil
		}
		return reading.Secret
	}
	var dot *render.Secret
	if o.Drop.Secret != "" {
		request := render.Read(o.Drop.Secret)
		o.uses = []render.Request{request}
		if dot = lookup(request); dot == nil {
			a.isWaiting, a.err = unread == nil, unread
			return a
		}
	}
	var result render.Result
	if o.Drop.Format == render.FormatTemplate {
		result, a.err = o.Drop.Template.Execute(t.input(o, dot, lookup))
		o.uses = append(o.uses, result.Uses...)
	} else {
		result.Content, a.err = o.Drop.Encode(dot)
	}
	if unread != nil {
		a.err = unread
		return a
	}
	if a.isWaiting = len(result.Missing) > 0; a.isWaiting {
		a.err = nil
		return a
	}
	sides, unknown := sideFiles(result.Files)
	a.err = cmp.Or(a.err, unknown)
	a.file.Content, a.file.SideFiles = result.Content, sides
	a.file.requests = o.uses
	for _, request := range o.uses {
		if reading, _ := t.readings.Reading(request); reading.Life.Lease != nil {
			a.file.leases = append(a.file.leases, reading.Life.Lease)
		}
	}
	return a
}

// input is what the template of an output is rendered with.
func (t *Table) input(o *Output, dot *render.Secret, lookup func(render.Request) *render.Secret) render.Input {
	read := func(path string) (string, error) {
		o.reads = append(o.reads, fileAt(path))
		return ReadFile(o.Drop.Sandbox, path)
	}
	return render.Input{
		Secret: lookup, Env: os.LookupEnv, File: read, Now: time.Now(),
		Tenant: cmp.Or(o.Drop.Key, t.tenant), Key: o.Drop.Key, Service: t.service, Dialect: o.Drop.Dialect, Dot: dot,
	}
}

// Requests returns what an output asks for, as far as that is known without any secret. An
// output that was not rendered in this run is rendered for it.
func (t *Table) Requests(o *Output) []render.Request {
	uses := o.uses
	if uses == nil && o.Drop.Template != nil {
		reads := o.reads
		result, _ := o.Drop.Template.Execute(t.input(o, nil, func(render.Request) *render.Secret { return nil }))
		uses, o.reads = result.Uses, reads
	}
	if o.Drop.Secret != "" {
		uses = append(slices.Clone(uses), render.Read(o.Drop.Secret))
	}
	return uses
}

// sideFiles are the files that a template has written by "writeToFile".
func sideFiles(files []render.SideFile) ([]drop.File, error) {
	var all []drop.File
	for i, f := range files {
		to := drop.File{Path: f.Path, Content: f.Content, Mode: f.Mode, CreateDirs: true}
		if f.User != "" {
			id, err := drop.UserID(f.User)
			if err != nil {
				return nil, unknownOwner("user", i)
			}
			to.UID = &id
		}
		if f.Group != "" {
			id, err := drop.GroupID(f.Group)
			if err != nil {
				return nil, unknownOwner("group", i)
			}
			to.GID = &id
		}
		all = append(all, to)
	}
	return all, nil
}

// unknownOwner shows neither the name nor the path of the file: a template may make them of
// a secret, or mix up its arguments.
func unknownOwner(what string, i int) error {
	return fmt.Errorf("writeToFile: the %s of file %d of the template is not known on this machine; write its number, if it is known elsewhere", what, i+1)
}

// secretsOf are all values of the secrets of a group, in the forms that programs may print
// them in.
func (t *Table) secretsOf(g *Group) []string {
	values := []string{}
	for _, o := range g.Outputs {
		for _, request := range o.uses {
			if reading, _ := t.readings.Reading(request); reading.Secret != nil {
				scalars(reading.Secret.Data.Reveal(), func(text string) { values = append(values, redact.Forms(text)...) })
			}
		}
	}
	return values
}

func scalars(v any, yield func(string)) {
	switch v := v.(type) {
	case map[string]any:
		for _, each := range v {
			scalars(each, yield)
		}
	case []any:
		for _, each := range v {
			scalars(each, yield)
		}
	case nil, bool:
	default:
		yield(fmt.Sprint(v))
	}
}
