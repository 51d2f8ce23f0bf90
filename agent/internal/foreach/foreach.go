// Package foreach makes outputs of for_each blocks: those of each tenant that is listed. It
// removes the files of a tenant that has departed, once its grace period is over, and keeps
// in the journal what the next agent has to know of tenants.
package foreach

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/journal"
	"github.com/smarteros/deaddrop/agent/internal/output"
	"github.com/smarteros/deaddrop/agent/internal/reload"
	"github.com/smarteros/deaddrop/agent/internal/tenants"
	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render"
)

// Block is a for_each block: its tenants, and what was made of the block for each.
type Block struct {
	of        *config.ForEach
	tenants   *tenants.Block
	members   map[string]*member
	retry     time.Time // of members that could not be expanded; zero if there are none
	journaled string    // content of the journal
	saveRetry time.Time // of a journal that could not be written; zero if it is written
	// isAbsentLogged says that the log has that no tenant has the secret.
	isAbsentLogged bool
}

// member is a tenant of a block.
type member struct {
	outputs []*output.Output
	// err is why the block could not be expanded for the tenant.
	err error
	// sideFiles are what templates have written besides, in an earlier run.
	sideFiles []string
}

// Blocks are the for_each blocks of a configuration. They must not be used concurrently.
type Blocks struct {
	Parts
	all      []*Block
	removals []*removal
	// ordered are reloads that an earlier run still owes.
	ordered       []reload.Job
	hasNewReloads bool
}

// Parts are what the blocks work with.
type Parts struct {
	Outputs  *output.Table
	Readings output.Readings
	Ledger   *journal.Ledger
	// Planner decides on reloads.
	Planner reload.Planner
	// Add takes in an output that a block has made. earlier are the outputs that it may be the
	// same as, by key.
	Add func(o *output.Output, earlier map[string]*output.Output)
	// RemoveFiles removes the files of an output, and Removed is called for each output
	// whose files were removed.
	RemoveFiles func(o *output.Output) error
	Removed     func(o *output.Output)
	// Asks reports whether an output asks for the path that a lease comes from.
	Asks func(o *output.Output, lease string) bool
	// IsDry says that nothing is written.
	IsDry bool
	Log   *slog.Logger
}

// New returns no blocks yet: see [Blocks.Configure].
func New(parts Parts) *Blocks { return &Blocks{Parts: parts} }

// request asks for the tenants of a block that lists a folder.
func (b *Block) request() render.Request { return render.List(b.of.Folder) }

// Configure replaces the blocks. What is known of the tenants of one is kept. earlier are the
// outputs of the configuration before, by key.
func (s *Blocks) Configure(all []*config.ForEach, earlier map[string]*output.Output) {
	before := s.all
	for _, b := range before {
		s.Readings.Remove(b)
	}
	s.all = nil
	for _, of := range all {
		b := &Block{of: of, members: map[string]*member{}}
		options := tenants.Options{Grace: of.Grace, KeepFiles: !of.RemoveFiles, Wants: of.Wants}
		sideFiles := map[string][]string{}
		i := slices.IndexFunc(before, func(other *Block) bool { return other.of.Pattern == of.Pattern })
		if i >= 0 {
			old := before[i]
			b.tenants, b.journaled = old.tenants.WithOptions(options, old.of.Folder == of.Folder), old.journaled
			for id, m := range old.members {
				sideFiles[id] = m.sideFiles
			}
			for _, r := range s.removals {
				if r.block == old {
					r.block = b
				}
			}
		} else {
			b.tenants, sideFiles = s.recallTenants(b, options)
		}
		s.all = append(s.all, b)
		if of.Folder != "" {
			s.Readings.SetUses(b, []render.Request{b.request()}, nil)
		}
		s.resumeTenants(b, sideFiles, earlier)
		if of.Folder == "" {
			s.update(b, of.Keys, earlier)
		} else if reading, known := s.Readings.Reading(b.request()); known {
			s.list(b, reading, earlier)
		}
	}
}

// resumeTenants expands a block for the tenants that it had before.
func (s *Blocks) resumeTenants(b *Block, sideFiles map[string][]string, earlier map[string]*output.Output) {
	departed := b.tenants.Departed()
	for _, id := range slices.Concat(b.tenants.Present(), slices.Sorted(maps.Keys(departed))) {
		m := &member{sideFiles: sideFiles[id]}
		b.members[id] = m
		s.expand(b, id, false, earlier)
		if !departed[id].IsZero() {
			s.Outputs.Depart(m.outputs, departed[id])
		}
	}
}

// expand makes the outputs of a tenant. If it fails, the outputs that there are stay as they
// are, and it is tried again.
func (s *Blocks) expand(b *Block, id string, isLate bool, earlier map[string]*output.Output) {
	m := b.members[id]
	drops, err := config.Expand(b.of, id)
	if err == nil {
		err = s.findConflict(drops, m)
	}
	if err != nil {
		if m.err == nil || m.err.Error() != err.Error() {
			s.Log.Error("the files of a tenant cannot be made; will try again", "drop", b.of.Name, "tenant", id, "error", err)
		}
		m.err = err
		b.retry = time.Now().Add(output.RetryAfter)
		return
	}
	m.err = nil
	s.hasNewReloads = true
	s.Outputs.Remove(m.outputs...)
	m.outputs = nil
	for _, each := range drops {
		o := output.New(each)
		o.IsLate = isLate
		s.Add(o, earlier)
		m.outputs = append(m.outputs, o)
	}
}

// findConflict returns an error if another output has a destination already.
func (s *Blocks) findConflict(drops []config.Drop, m *member) error {
	for _, each := range drops {
		for _, path := range each.Paths() {
			if other := s.Outputs.Owner(path); other != nil && !slices.Contains(m.outputs, other) {
				return fmt.Errorf("destination %s is written already, by %q", path, other.Drop.Name)
			}
		}
	}
	return nil
}

// Sync does what is due: it expands blocks and writes journals again where that has failed,
// removes the files of tenants whose grace period is over, and returns the reloads that are
// called for.
func (s *Blocks) Sync() []reload.Job {
	s.retryExpansions()
	s.retrySaves()
	all := append(s.ordered, s.removeExpired()...)
	s.ordered = nil
	return all
}

// NextAttempt is when something is due; zero if nothing is.
func (s *Blocks) NextAttempt() time.Time {
	var next time.Time
	for _, b := range s.all {
		next = output.Earliest(next, b.tenants.NextExpiry(), b.retry, b.saveRetry)
	}
	for _, r := range s.removals {
		if r.isOwed {
			next = output.Earliest(next, r.until)
		}
	}
	return next
}

// retryExpansions expands blocks again for the tenants for which that has failed, when it is
// due.
func (s *Blocks) retryExpansions() {
	now := time.Now()
	for _, b := range s.all {
		if b.retry.IsZero() || b.retry.After(now) {
			continue
		}
		b.retry = time.Time{}
		s.rebuild(b, func(m *member) bool { return m.err != nil })
	}
}

// NoteChangedFiles expands blocks again for the tenants whose outputs are made of files that
// have changed.
func (s *Blocks) NoteChangedFiles() {
	for _, b := range s.all {
		s.rebuild(b, func(m *member) bool { return slices.ContainsFunc(m.outputs, (*output.Output).HasNewDefinition) })
	}
}

// rebuild expands a block again for some of the tenants that have not departed.
func (s *Blocks) rebuild(b *Block, which func(*member) bool) {
	for _, id := range b.tenants.Present() {
		m := b.members[id]
		if m == nil || !which(m) {
			continue
		}
		earlier := map[string]*output.Output{}
		for _, o := range m.outputs {
			earlier[o.Key()] = o
		}
		s.expand(b, id, b.tenants.IsKnown() || b.tenants.IsResumed(), earlier)
	}
}

// List takes in the list of tenants that a block has asked for.
func (s *Blocks) List(b *Block) {
	reading, _ := s.Readings.Reading(b.request())
	s.list(b, reading, nil)
}

// list takes in the list of tenants in a folder.
func (s *Blocks) list(b *Block, reading watch.Reading, earlier map[string]*output.Output) {
	before := b.tenants.Err()
	if reading.Err != nil || reading.Secret == nil {
		b.tenants.Fail(reading.Err)
		if before == nil {
			message := "tenants cannot be listed, no file written yet"
			if b.hasFile() {
				message = "tenants cannot be listed, keeping last good files"
			}
			s.Log.Warn(message, "drop", b.of.Name, "error", b.tenants.Err())
		}
		return
	}
	var names []string
	listed, _ := reading.Secret.Data.Reveal()["keys"].([]any)
	for _, each := range listed {
		names = append(names, fmt.Sprint(each))
	}
	s.update(b, names, earlier)
	if before != nil {
		s.Log.Info("the tenants of a for_each can be listed again", "drop", b.of.Name)
	}
}

func (b *Block) hasFile() bool {
	for _, m := range b.members {
		if slices.ContainsFunc(m.outputs, (*output.Output).HasFile) {
			return true
		}
	}
	return false
}

// update brings the outputs of a block in line with its tenants.
func (s *Blocks) update(b *Block, names []string, earlier map[string]*output.Output) {
	isKnown, isLate := b.tenants.IsKnown(), b.tenants.IsKnown() || b.tenants.IsResumed()
	events, invalid := b.tenants.Update(names)
	for _, err := range invalid {
		s.Log.Warn("a name in the folder of a for_each is not the id of a tenant, and left out", "drop", b.of.Name, "error", err)
	}
	var added, departed []string
	for _, event := range events {
		switch event.Kind {
		case tenants.Added:
			added = append(added, event.Tenant)
			b.members[event.Tenant] = &member{}
			s.expand(b, event.Tenant, isLate, earlier)
		case tenants.Returned:
			s.returnTenant(b, event.Tenant)
		case tenants.Departed:
			departed = append(departed, event.Tenant)
			s.depart(b, event.Tenant)
		}
	}
	if isKnown {
		s.logTenants(added, b, "a new tenant", "new tenants")
	} else {
		s.Log.Info("following tenants", "drop", b.of.Name, "count", len(b.tenants.Present()))
	}
	if b.of.RemoveFiles {
		s.logTenants(departed, b, "a tenant is gone; its files go, too, unless it comes back", "tenants are gone; their files go, too, unless they come back", "after", b.of.Grace.String())
	} else {
		s.logTenants(departed, b, "a tenant is gone; its files stay", "tenants are gone; their files stay")
	}
	s.save(b)
}

// logTenants logs of each tenant, or how many there are if they are not few.
func (s *Blocks) logTenants(ids []string, b *Block, one, many string, args ...any) {
	const few = 3
	if len(ids) > few {
		s.Log.Info(many, append([]any{"drop", b.of.Name, "count", len(ids)}, args...)...)
		return
	}
	for _, id := range ids {
		s.Log.Info(one, append([]any{"drop", b.of.Name, "tenant", id}, args...)...)
	}
}

func (s *Blocks) returnTenant(b *Block, id string) {
	m := b.members[id]
	s.Outputs.Return(m.outputs)
	if len(m.outputs) == 0 {
		s.expand(b, id, true, nil)
	}
}

// depart begins the grace period of a tenant's files, or leaves them to themselves.
func (s *Blocks) depart(b *Block, id string) {
	m := b.members[id]
	if !b.of.RemoveFiles || len(m.outputs) == 0 {
		s.Outputs.Remove(m.outputs...)
		delete(b.members, id)
		b.tenants.Forget(id)
		return
	}
	m.err = nil
	s.Outputs.Depart(m.outputs, time.Now())
}

// allSideFiles are what the templates of a tenant have written besides.
func (m *member) allSideFiles() []string {
	all := slices.Clone(m.sideFiles)
	for _, o := range m.outputs {
		all = append(all, o.SideFiles()...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
