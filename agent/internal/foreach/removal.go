package foreach

import (
	"path/filepath"
	"slices"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/filestate"
	"github.com/smarteros/deaddrop/agent/internal/output"
	"github.com/smarteros/deaddrop/agent/internal/reload"
	"github.com/smarteros/deaddrop/agent/tenant"
	"github.com/smarteros/deaddrop/render/drop"
)

// removeExpired removes the files of tenants whose grace period is over, and returns the
// reloads that this calls for.
func (s *Blocks) removeExpired() []reload.Job {
	var all []reload.Job
	for _, b := range s.all {
		var removed []string
		begun := s.beginRemovals(b)
		for _, r := range begun {
			if err := s.removeTenant(r); err != nil {
				b.tenants.Postpone(r.tenant, time.Now().Add(output.RetryAfter))
				s.Outputs.FailRemoval(b.members[r.tenant].outputs[0], err)
				s.removals = slices.DeleteFunc(s.removals, func(other *removal) bool { return other == r })
				continue
			}
			if r.isOwed {
				all = append(all, r.job())
			}
			removed = append(removed, r.tenant)
		}
		if len(begun) > 0 {
			s.save(b)
		}
		s.logTenants(removed, b, "removed the files of a tenant that is gone", "removed the files of tenants that are gone")
	}
	return all
}

// beginRemovals begins the removals of the files of all tenants of a block whose grace period
// is over. The journal has them before the first file is gone, and until reloads and
// revocations are done; it is written once, as there may be a thousand.
func (s *Blocks) beginRemovals(b *Block) []*removal {
	var begun []*removal
	for _, event := range b.tenants.Expire() {
		m := b.members[event.Tenant]
		if m.err != nil { // Its files are not known.
			s.expand(b, event.Tenant, false, nil)
			s.Outputs.Depart(m.outputs, b.tenants.Departed()[event.Tenant])
		}
		if m.err != nil || s.IsDry {
			b.tenants.Postpone(event.Tenant, time.Now().Add(output.RetryAfter))
			continue
		}
		r := s.newRemoval(b, event.Tenant, m.outputs)
		r.isOwed = r.isOwed && slices.ContainsFunc(r.destinations, filestate.Exists)
		begun = append(begun, r)
	}
	if len(begun) > 0 {
		s.removals = append(s.removals, begun...)
		s.save(b)
	}
	return begun
}

// removal is the end of a tenant's files: its reloads are pending, or leases are still to be
// revoked. There is no output any more that would keep them.
type removal struct {
	block        *Block
	tenant       string
	destinations []string
	actions      []reload.Action
	// isOwed says that the reloads are pending, which are tried until a time: the service
	// of the tenant may be gone, too.
	isOwed bool
	until  time.Time
}

// removalTime is how long it is tried to reload the services of a tenant that is gone.
const removalTime = time.Minute

// removeTenant removes the files of a departed tenant.
func (s *Blocks) removeTenant(r *removal) error {
	b := r.block
	m := b.members[r.tenant]
	if err := s.removeFiles(b, m); err != nil {
		return err
	}
	for _, o := range m.outputs {
		s.closeJournal(o)
		s.Ledger.NoteRemoved(o.Drop.Destination)
		s.Removed(o)
	}
	s.Outputs.Remove(m.outputs...)
	delete(b.members, r.tenant)
	b.tenants.Forget(r.tenant)
	return nil
}

func (s *Blocks) removeFiles(b *Block, m *member) error {
	for _, o := range m.outputs {
		if err := s.RemoveFiles(o); err != nil {
			return err
		}
	}
	for _, path := range m.allSideFiles() {
		if s.Outputs.Owner(path) != nil && !slices.Contains(m.outputs, s.Outputs.Owner(path)) || s.Outputs.WritesSideFile(path, m.outputs) {
			continue
		}
		if _, err := drop.RemoveBelow(b.of.Place, path); err != nil {
			return err
		}
	}
	for _, o := range m.outputs {
		if o.Drop.CreateDirs {
			drop.RemoveEmptyBelow(b.of.Place, filepath.Dir(o.Drop.Destination))
		}
	}
	return nil
}

// newRemoval returns the removal of a tenant's files. Its reloads are owed if there are any.
func (s *Blocks) newRemoval(b *Block, id string, outputs []*output.Output) *removal {
	r := &removal{block: b, tenant: id, until: time.Now().Add(removalTime)}
	for _, o := range outputs {
		r.destinations = append(r.destinations, o.Drop.Destination)
		r.actions = append(r.actions, s.Planner.Actions(&o.Drop)...)
	}
	r.isOwed = len(r.actions) > 0
	s.hasNewReloads = s.hasNewReloads || r.isOwed
	return r
}

// job is what the removal calls for.
func (r *removal) job() reload.Job {
	return reload.Job{Change: reload.Change{Files: r.destinations, At: time.Now()}, Actions: r.actions}
}

// closeJournal makes orphans of the leases that an earlier run has left in the file of an
// output, as far as the output asks for their paths.
func (s *Blocks) closeJournal(o *output.Output) {
	s.Ledger.Orphan(o.Drop.Destination, func(lease string) bool { return s.Asks(o, lease) })
}

// NoteReloads takes in which files still have pending reloads, and ends the removals of
// which nothing is left to be done.
func (s *Blocks) NoteReloads(pending map[string]bool) {
	before := len(s.removals)
	s.removals = slices.DeleteFunc(s.removals, func(r *removal) bool {
		isPending := slices.ContainsFunc(r.destinations, func(file string) bool { return pending[file] })
		if r.isOwed && (!isPending || !r.until.After(time.Now())) {
			r.isOwed, r.actions = false, nil
			s.hasNewReloads = true // The queue need not keep them.
		}
		if r.isOwed || slices.ContainsFunc(r.destinations, s.Ledger.HasSuperseded) {
			return false
		}
		for _, destination := range r.destinations {
			if s.Outputs.Owner(destination) == nil {
				s.Ledger.Forget(destination)
			}
		}
		return true
	})
	if len(s.removals) != before {
		s.Save()
	}
}

// resumeRemoval goes on with the removal of a tenant's files that an earlier run has begun.
func (s *Blocks) resumeRemoval(b *Block, id string) {
	if tenant.CheckID(id) != nil {
		return
	}
	drops, err := config.Expand(b.of, id)
	if err != nil {
		return
	}
	var outputs []*output.Output
	for _, each := range drops {
		outputs = append(outputs, output.New(each))
	}
	r := s.newRemoval(b, id, outputs)
	for _, o := range outputs {
		if !filestate.Exists(o.Drop.Destination) { // Else it is up to the departed or returned tenant.
			s.Ledger.Open(o.Drop.Destination)
			s.closeJournal(o)
			s.Ledger.NoteRemoved(o.Drop.Destination)
		}
	}
	if r.isOwed {
		s.ordered = append(s.ordered, r.job())
	}
	s.removals = append(s.removals, r)
}
