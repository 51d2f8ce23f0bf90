package output

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/redact"
	"github.com/smarteros/deaddrop/agent/internal/tally"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/drop"
)

// RetryAfter is how soon a file is tried again that could not be written or removed. A
// fault of a disk or a folder is not mended in a second.
const RetryAfter = 5 * time.Second

// Table holds the outputs of a configuration, renders those that are due, and takes in
// what became of them. It must not be used concurrently.
type Table struct {
	// IsCommandStarted reports whether the command has an environment; nil if there is no
	// command.
	IsCommandStarted func() bool
	// Renders counts attempts to render.
	Renders *tally.Tally

	readings        Readings
	log             *slog.Logger
	tenant, service string
	outputs         []*Output
	groups          []*Group
	owners          map[string]*Output // by the path of a file that they write
}

// NewTable returns a table without outputs.
func NewTable(readings Readings, log *slog.Logger) *Table {
	return &Table{Renders: &tally.Tally{}, readings: readings, log: log, owners: map[string]*Output{}}
}

// Reset removes all outputs. Templates get this tenant and service from then on, unless a
// for_each block names another tenant.
func (t *Table) Reset(tenant, service string) {
	for _, o := range t.outputs {
		t.readings.Remove(o)
	}
	t.tenant, t.service = tenant, service
	t.outputs, t.groups, t.owners = nil, nil, map[string]*Output{}
}

// Add takes an output in, which is rendered at once. earlier is the same output in an earlier
// configuration, or nil: what is known of that is kept, and changes that are being gathered
// still are.
func (t *Table) Add(o, earlier *Output) {
	if earlier != nil {
		o.resume(earlier)
	}
	if o.status == Departed { // It may be the output of somebody else now; see [Table.Depart].
		o.set(Waiting, nil)
	}
	t.outputs = append(t.outputs, o)
	i := -1
	if o.Variable != "" || o.Drop.Set != nil { // Others are on their own, and may be many.
		i = slices.IndexFunc(t.groups, func(g *Group) bool {
			return g.IsEnvironment() == (o.Variable != "") && g.Set == o.Drop.Set
		})
	}
	if i < 0 {
		i = len(t.groups)
		t.groups = append(t.groups, &Group{Set: o.Drop.Set})
	}
	o.group = t.groups[i]
	o.group.Outputs = append(o.group.Outputs, o)
	if o.Variable == "" {
		for _, path := range o.Drop.Paths() {
			t.owners[path] = o
		}
	}
	switch {
	case earlier != nil && earlier.group.schedule.isGathering() && len(o.group.Outputs) == 1:
		o.group.schedule = earlier.group.schedule
	case earlier == nil || !earlier.group.schedule.isGathering():
		o.group.schedule.now()
	}
	t.noteUses(o)
}

// Remove forgets outputs. Their files stay.
func (t *Table) Remove(outputs ...*Output) {
	if len(outputs) == 0 {
		return
	}
	removed := map[*Output]bool{}
	for _, o := range outputs {
		removed[o] = true
		t.readings.Remove(o)
		for _, path := range o.Drop.Paths() {
			if t.owners[path] == o {
				delete(t.owners, path)
			}
		}
		o.group.Outputs = slices.DeleteFunc(o.group.Outputs, func(other *Output) bool { return other == o })
	}
	t.outputs = slices.DeleteFunc(t.outputs, func(o *Output) bool { return removed[o] })
	t.groups = slices.DeleteFunc(t.groups, func(g *Group) bool { return len(g.Outputs) == 0 })
}

// Outputs returns all outputs, in the order in which they were added. The caller must not
// change it.
func (t *Table) Outputs() []*Output { return t.outputs }

// Owner returns the output that writes a path, but for files that templates write besides;
// nil if there is none.
func (t *Table) Owner(path string) *Output { return t.owners[filepath.Clean(path)] }

// WritesSideFile reports whether the template of an output has written a path besides.
func (t *Table) WritesSideFile(path string, except []*Output) bool {
	return slices.ContainsFunc(t.outputs, func(o *Output) bool {
		return !slices.Contains(except, o) && slices.Contains(o.SideFiles(), path)
	})
}

// NextAttempt is when the next group is to be rendered; zero if none is.
func (t *Table) NextAttempt() time.Time {
	var next time.Time
	for _, g := range t.groups {
		next = Earliest(next, g.NextAttempt())
	}
	return next
}

// Changed schedules an output after a change of a secret or a file that it is made of.
func (t *Table) Changed(o *Output) {
	if o.status != Departed {
		o.group.changed()
	}
}

// Restore schedules an output whose file is not what was published. One that is to be
// rendered anyway is not, as the last attempt may have failed.
func (t *Table) Restore(o *Output) {
	if !o.IsPending() {
		o.group.schedule.now()
	}
}

// NoteChangedFiles schedules the outputs whose templates have read files that have changed
// since.
func (t *Table) NoteChangedFiles() {
	for _, o := range t.outputs {
		if o.group.schedule.at.IsZero() && o.hasChangedFiles() {
			t.Changed(o)
		}
	}
}

// Work is what is to be done with the outputs that are due.
type Work struct {
	// Ready are the groups with new content.
	Ready []Rendered
	// Missing are the outputs whose files are to be removed, as their secrets are missing.
	Missing []*Output
}

// RenderDue renders the groups that are due. A group without content that is whole is not
// among the work: its status says why.
func (t *Table) RenderDue(now time.Time) Work {
	var work Work
	for _, g := range t.groups {
		if g.schedule.isDue(now) {
			t.renderGroup(g, &work)
		}
	}
	return work
}

// renderGroup renders all of a group: if one of them cannot be shown, the others are not
// shown either.
func (t *Table) renderGroup(g *Group, work *Work) {
	g.schedule.clear()
	r := Rendered{Set: g.Set, group: g}
	var failed *Output
	var isWaiting, isAbsent bool
	for _, o := range g.Outputs {
		begun := time.Now()
		a := t.render(o)
		lacksSecret := g.isAbsent(a.err)
		isAbsent = isAbsent || lacksSecret
		if !a.isWaiting && !lacksSecret {
			t.Renders.Note(begun, a.err)
		}
		switch {
		case a.isWaiting:
			isWaiting = true
			o.set(Waiting, nil)
		case lacksSecret:
		case IsMissing(a.err) && o.Drop.OnMissing == config.RemoveFile && g.Set == nil:
			work.Missing = append(work.Missing, o)
			t.noteUses(o)
			return
		case a.err != nil:
			t.fail(o, a.err)
			failed = o
		}
		r.Files = append(r.Files, a.file)
		t.noteUses(o)
	}
	switch {
	case isWaiting:
	case failed != nil:
		t.failOthers(g, failed)
	case isAbsent:
		for _, o := range g.Outputs {
			o.IsLate = true
			o.set(Absent, nil)
		}
	default:
		if r.ShowsOutput = g.showsOutput(); r.ShowsOutput {
			r.Secrets = t.secretsOf(g)
		}
		work.Ready = append(work.Ready, r)
	}
}

// isAbsent reports whether outputs of a tenant fail because the tenant has no such secret,
// and never had: that is no fault.
func (g *Group) isAbsent(err error) bool {
	return g.Outputs[0].IsOfTenant() && IsMissing(err) && !g.hasFile()
}

// Succeed takes in that the content of a group is published.
func (t *Table) Succeed(r Rendered, outcomes []drop.Outcome) {
	for i, o := range r.group.Outputs {
		file := r.Files[i]
		if o.Err() != nil && o.Variable == "" {
			t.log.Info("drop is current again", "drop", o.Drop.Name, "destination", o.Drop.Destination)
		}
		content := &Content{Requests: file.requests, Leases: file.leases}
		if o.content != nil {
			content.Written = o.content.Written
		}
		for _, side := range file.SideFiles {
			content.SideFiles = append(content.SideFiles, side.Path)
		}
		o.content = content
		if file.outdated != nil {
			o.set(Stale, file.outdated)
		} else {
			o.set(Current, nil)
		}
		if outcomes[i] != drop.Unchanged {
			content.Written = time.Now()
			o.since = content.Written
		}
		t.noteUses(o)
	}
}

// Fail takes in that an output could not be published, nor the others of its group. They are
// tried again after retry; 0 leaves them until something changes that they are made of.
func (t *Table) Fail(o *Output, err error, retry time.Duration) {
	if retry > 0 {
		o.group.schedule.retry(retry)
	}
	t.fail(o, err)
	t.failOthers(o.group, o)
}

// failOthers makes the failure of one of a group that of the others.
func (t *Table) failOthers(g *Group, failed *Output) {
	for _, o := range g.Outputs {
		if o == failed {
			continue
		}
		cause := &GroupError{Output: failed.Drop.Name, Err: failed.reason}
		if g.Set != nil {
			cause.Set = g.Set.Name
		}
		t.fail(o, cause)
	}
}

// fail logs a failure once, and changes the status.
func (t *Table) fail(o *Output, err error) {
	isNew := o.Err() == nil || o.reason.Error() != err.Error() || shownOutput(o.reason) != shownOutput(err)
	var unread *unreadError
	var ofGroup *GroupError
	if isNew && !errors.As(err, &unread) && !errors.As(err, &ofGroup) {
		t.logFailure(o, err)
	}
	if o.content != nil {
		o.set(Stale, err)
	} else {
		o.set(Failed, err)
	}
	t.noteUses(o)
}

// shownOutput is the output of a check that has refused content, if it is to be logged.
func shownOutput(err error) string {
	var failed *redact.OutputError
	if !errors.As(err, &failed) {
		return ""
	}
	return failed.Output
}

func (t *Table) logFailure(o *Output, err error) {
	message := "drop failed, no file written yet"
	var tampered *TamperError
	attributes := []any{"drop", o.Drop.Name, "destination", o.Drop.Destination, "error", err}
	switch {
	case o.Variable != "" && t.IsCommandStarted != nil && t.IsCommandStarted():
		message = "variable failed, command keeps its environment"
	case o.Variable != "":
		message = "variable failed, command not started yet"
	case errors.As(err, &tampered):
		message = "file was changed by another program, leaving it"
	case o.HasFile():
		message = "drop failed, keeping last good file"
	}
	if o.Variable != "" {
		attributes = []any{"name", o.Variable, "error", err}
	}
	if hint := render.HintOf(err); hint != "" {
		attributes = append(attributes, "hint", hint)
	}
	t.log.Error(message, append(attributes, redact.OutputOf(err)...)...)
}

// NoteRemoved takes in that a file was removed, as its secret is missing.
func (t *Table) NoteRemoved(o *Output) {
	o.content = &Content{IsRemoved: true}
	o.set(Removed, nil)
	t.noteUses(o)
}

// FailRemovalOfMissing takes in that the file of an output could not be removed, whose secret
// is missing. It is tried again.
func (t *Table) FailRemovalOfMissing(o *Output, err error) {
	o.group.schedule.retry(RetryAfter)
	t.fail(o, fmt.Errorf("removing the file of a secret that is gone: %w", err))
}

// Depart takes in that the tenant of outputs is no longer listed since a time. Their files
// stay, and so do the leases in them.
func (t *Table) Depart(outputs []*Output, since time.Time) {
	for _, o := range outputs {
		o.uses, o.reads = nil, nil
		o.group.schedule.clear()
		o.set(Departed, nil)
		o.since = since
		t.noteUses(o)
	}
}

// Return takes in that the tenant of outputs is listed again.
func (t *Table) Return(outputs []*Output) {
	for _, o := range outputs {
		o.set(Waiting, nil)
		o.group.schedule.now()
		t.noteUses(o)
	}
}

// FailRemoval takes in that the file of a departed tenant could not be removed.
func (t *Table) FailRemoval(o *Output, err error) {
	err = fmt.Errorf("removing the files of a tenant that is gone: %w", err)
	if o.reason == nil || o.reason.Error() != err.Error() {
		t.logFailure(o, err)
	}
	o.set(Departed, err)
}

// EndCommand forgets the leases of the variables: the command has ended, and nobody uses
// them any more.
func (t *Table) EndCommand() {
	for _, o := range t.outputs {
		if o.Variable != "" && o.content != nil {
			o.content = &Content{Written: o.content.Written}
			t.noteUses(o)
		}
	}
}

// Fatal is the loss of a secret that an output must not go on without, or nil.
func (t *Table) Fatal() error {
	for _, o := range t.outputs {
		if err := o.Err(); o.Drop.OnMissing == config.Fail && IsMissing(err) {
			return fmt.Errorf("drop %q: %w", o.Drop.Name, err)
		}
	}
	return nil
}

// Errs returns the failures of all outputs; one that several outputs share is there once.
func (t *Table) Errs() []error {
	var errs []error
	seen := map[string]bool{}
	for _, o := range t.outputs {
		var ofGroup *GroupError
		err := o.Err()
		if err == nil || seen[err.Error()] || errors.As(err, &ofGroup) {
			continue
		}
		seen[err.Error()] = true
		errs = append(errs, fmt.Errorf("drop %q: %w", o.Drop.Name, err))
	}
	return errs
}

// noteUses tells the readings what an output asks for now.
func (t *Table) noteUses(o *Output) {
	hasLease := func(request render.Request) bool {
		reading, _ := t.readings.Reading(request)
		return reading.Life.Lease != nil
	}
	t.readings.SetUses(o, o.uses, o.holds(hasLease))
}
