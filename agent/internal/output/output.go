// Package output keeps track of what the agent has to keep current: files and the
// variables of a command. An [Output] knows its status and the secrets that it is made of;
// a [Group] knows when it is due. Both are rendered here, and written elsewhere.
package output

import (
	"os"
	"slices"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/filestate"
	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render"
)

// Output is one file or variable to keep current.
type Output struct {
	Drop config.Drop
	// Variable is the name of the variable that the output is; "" for a file.
	Variable string
	// IsLate says that the output was added while services were running: they may have
	// looked for its file already.
	IsLate bool

	group   *Group
	status  Status
	reason  error     // why it is not current
	since   time.Time // of status
	content *Content  // that this run has published last; nil before
	// foundFile says that an earlier run has left a file.
	foundFile bool
	uses      []render.Request // of the last render
	reads     []File           // of the last render
	madeOf    []File           // files that the drop was made of
}

// Content is what stands in a file, or was handed to the command.
type Content struct {
	// Requests are those that it was rendered with, and Leases what Vault has issued of
	// them.
	Requests []render.Request
	Leases   []*watch.Lease
	// SideFiles are the paths that the template has written besides.
	SideFiles []string
	// Written is when the content last changed in this run; zero if it did not.
	Written time.Time
	// IsRemoved says that the file was removed, as its secret is missing.
	IsRemoved bool
}

// File is a file that an output depends on, as it was then.
type File struct{ path, version string }

// fileAt returns a file as it is now. A change of it changes the version; that of a file
// that is not there is "".
func fileAt(path string) File {
	state, _, _ := filestate.Of(path)
	return File{path, state}
}

func (f File) hasChanged() bool { return fileAt(f.path) != f }

// New returns the output of a drop.
func New(drop config.Drop) *Output {
	o := &Output{Drop: drop}
	for _, path := range drop.Files {
		o.madeOf = append(o.madeOf, fileAt(path))
	}
	_, err := os.Stat(drop.Destination)
	o.foundFile = err == nil
	return o
}

// NewVariable returns the output of a variable of the command.
func NewVariable(of config.EnvTemplate, wait config.Wait) *Output {
	drop := config.Drop{Name: of.Name, Template: of.Template, OnMissing: config.KeepFile, Wait: wait}
	drop.Format = render.FormatTemplate
	return &Output{Drop: drop, Variable: of.Name}
}

// Key tells outputs apart, in two configurations, too.
func (o *Output) Key() string {
	if o.Variable != "" {
		return "variable " + o.Variable
	}
	return o.Drop.Destination
}

// resume takes over what is known of the output of an earlier configuration.
func (o *Output) resume(earlier *Output) {
	o.status, o.reason, o.since = earlier.status, earlier.reason, earlier.since
	o.content, o.foundFile, o.uses = earlier.content, earlier.foundFile, earlier.uses
	o.IsLate = earlier.IsLate
}

// IsPending reports whether the output is to be rendered again.
func (o *Output) IsPending() bool { return !o.group.schedule.at.IsZero() }

// Content returns what this run has published last, or nil.
func (o *Output) Content() *Content { return o.content }

// Uses returns the requests of the last render.
func (o *Output) Uses() []render.Request { return o.uses }

// IsOfTenant reports whether a for_each block has made the output.
func (o *Output) IsOfTenant() bool { return o.Drop.Key != "" }

// SideFiles are the paths that the template has written besides.
func (o *Output) SideFiles() []string {
	if o.content == nil {
		return nil
	}
	return o.content.SideFiles
}

// holds are the requests whose answers stand in the file, if they have to be kept alive
// though the output is not rendered with them now.
func (o *Output) holds(hasLease func(render.Request) bool) []render.Request {
	switch {
	case o.content == nil || o.status == Current:
		return nil
	case o.status == Departed:
		return slices.DeleteFunc(slices.Clone(o.content.Requests), func(r render.Request) bool { return !hasLease(r) })
	}
	return o.content.Requests
}

// HasNewDefinition reports whether a file has changed that the drop itself was made of.
func (o *Output) HasNewDefinition() bool { return slices.ContainsFunc(o.madeOf, File.hasChanged) }

// hasChangedFiles reports whether a file has changed that the template has read.
func (o *Output) hasChangedFiles() bool { return slices.ContainsFunc(o.reads, File.hasChanged) }
