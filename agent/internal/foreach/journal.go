package foreach

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/journal"
	"github.com/smarteros/deaddrop/agent/internal/output"
	"github.com/smarteros/deaddrop/agent/internal/tenants"
)

// recallTenants takes up the tenants that an earlier run has left in the journal.
func (s *Blocks) recallTenants(b *Block, options tenants.Options) (*tenants.Block, map[string][]string) {
	kept, ok := s.Ledger.Store().Tenants(b.of.Pattern, b.of.Place)
	if !ok {
		return tenants.New(options), nil
	}
	for id, paths := range kept.SideFiles {
		kept.SideFiles[id] = slices.DeleteFunc(paths, func(path string) bool { return !config.IsBelow(path, b.of.Place) })
	}
	t := tenants.Restore(options, kept.Present, kept.Departed)
	if !s.IsDry {
		for _, id := range kept.PendingReloads {
			s.resumeRemoval(b, id)
		}
	}
	return t, kept.SideFiles
}

// Save brings the journals of all blocks up to date.
func (s *Blocks) Save() {
	for _, b := range s.all {
		if b.tenants.IsKnown() {
			s.save(b)
		}
	}
}

func (s *Blocks) save(b *Block) {
	if s.IsDry {
		return
	}
	kept := journal.Tenants{
		Pattern: b.of.Pattern, Present: b.tenants.Present(), Departed: b.tenants.Departed(), SideFiles: map[string][]string{},
	}
	for id, m := range b.members {
		if files := m.allSideFiles(); len(files) > 0 {
			kept.SideFiles[id] = files
		}
	}
	for _, r := range s.removals {
		if r.block == b {
			kept.PendingReloads = append(kept.PendingReloads, r.tenant)
		}
	}
	slices.Sort(kept.PendingReloads)
	kept.PendingReloads = slices.Compact(kept.PendingReloads) // A tenant may have come and gone again.
	content, _ := json.Marshal(kept)                          // It has nothing that could fail.
	isNew := b.journaled == "" && !b.tenants.IsResumed() && len(b.members) == 0
	b.saveRetry = time.Time{}
	if string(content) == b.journaled || isNew {
		return
	}
	if !s.Ledger.Store().SaveTenants(b.of.Place, kept) {
		b.saveRetry = time.Now().Add(output.RetryAfter)
		return
	}
	b.journaled = string(content)
}

// retrySaves writes the journals again that could not be written, when it is due.
func (s *Blocks) retrySaves() {
	for _, b := range s.all {
		if !b.saveRetry.IsZero() && !b.saveRetry.After(time.Now()) {
			s.save(b)
		}
	}
}
