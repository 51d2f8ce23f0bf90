package foreach

import (
	"fmt"
	"maps"
	"slices"

	"github.com/smarteros/deaddrop/agent/internal/output"
	"github.com/smarteros/deaddrop/agent/internal/reload"
)

// LogAbsent warns if no tenant at all has the secret: then the path may be wrong.
func (s *Blocks) LogAbsent() {
	for _, b := range s.all {
		all, absent := 0, 0
		for _, m := range b.members {
			for _, o := range m.outputs {
				all++
				if o.Status() == output.Absent {
					absent++
				}
			}
		}
		isAbsent := all > 0 && all == absent
		if isAbsent && !b.isAbsentLogged {
			s.Log.Warn("no tenant has the secret of a for_each; is its path right?", "drop", b.of.Name, "tenants", len(b.members))
		}
		b.isAbsentLogged = isAbsent
	}
}

// Errs returns why tenants are not known, or have no files.
func (s *Blocks) Errs() []error {
	var errs []error
	for _, b := range s.all {
		errs = append(errs, b.errs()...)
	}
	return errs
}

func (b *Block) errs() []error {
	var errs []error
	if err := b.tenants.Err(); err != nil {
		errs = append(errs, fmt.Errorf("drop %q: listing the tenants of for_each: %w", b.of.Name, err))
	}
	for _, id := range slices.Sorted(maps.Keys(b.members)) {
		if err := b.members[id].err; err != nil {
			errs = append(errs, fmt.Errorf("drop %q, tenant %s: %w", b.of.Name, id, err))
		}
	}
	return errs
}

// Unknown returns the names of the blocks whose tenants are not known in this run; with
// isCertain those as well whose tenants cannot be listed now.
func (s *Blocks) Unknown(isCertain bool) []string {
	var names []string
	for _, b := range s.all {
		if !b.tenants.IsKnown() || isCertain && b.tenants.Err() != nil {
			names = append(names, b.of.Name)
		}
	}
	return names
}

// Expired returns the outputs of departed tenants whose grace period is over.
func (s *Blocks) Expired() []*output.Output {
	var all []*output.Output
	for _, b := range s.all {
		for _, event := range b.tenants.Expire() {
			all = append(all, b.members[event.Tenant].outputs...)
		}
	}
	return all
}

// Subscriptions are the reloads of files that were removed. There is one for each removal
// whose reloads or revocations are pending.
func (s *Blocks) Subscriptions() []reload.Subscription {
	var all []reload.Subscription
	for _, r := range s.removals {
		all = append(all, reload.Subscription{Files: r.destinations, Actions: r.actions})
	}
	return all
}

// TakeNewReloads reports whether there are other reloads than when it was called last.
func (s *Blocks) TakeNewReloads() bool {
	hasNew := s.hasNewReloads
	s.hasNewReloads = false
	return hasNew
}

// ForgetJournals has all journals written again: they are in another directory now.
func (s *Blocks) ForgetJournals() {
	for _, b := range s.all {
		b.journaled = ""
	}
}

// IsEmpty reports whether there are no blocks.
func (s *Blocks) IsEmpty() bool { return len(s.all) == 0 }

// Snapshot is how a block is.
type Snapshot struct {
	Name string
	// Folder is the one in Vault that is listed, or "".
	Folder  string
	Tenants int
	// Err is why the tenants are not known, or not anew.
	Err error
	// Failed are the tenants without outputs, and why.
	Failed  map[string]error
	Outputs []*output.Output
}

// Snapshots are how the blocks are.
func (s *Blocks) Snapshots() []Snapshot {
	var all []Snapshot
	for _, b := range s.all {
		is := Snapshot{Name: b.of.Name, Folder: b.of.Folder, Tenants: len(b.members), Err: b.tenants.Err(), Failed: map[string]error{}}
		for id, m := range b.members {
			is.Outputs = append(is.Outputs, m.outputs...)
			if m.err != nil {
				is.Failed[id] = m.err
			}
		}
		all = append(all, is)
	}
	return all
}
