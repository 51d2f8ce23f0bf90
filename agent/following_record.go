package agent

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/journal"
	"github.com/smarteros/deaddrop/agent/tenant"
)

// recall takes up the tenants of an earlier run.
func (d *dropper) recall(f *following) {
	kept, ok := d.journal.Tenants(f.of.Pattern, f.of.Place)
	if !ok {
		return
	}
	f.resumed = true
	all := map[string]time.Time{}
	for _, key := range kept.Present {
		all[key] = time.Time{}
	}
	for key, since := range kept.Departed {
		if now := time.Now(); since.After(now) {
			since = now // The clock was wrong.
		}
		all[key] = since
	}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if tenant.CheckID(key) == nil {
			sides := slices.DeleteFunc(kept.SideFiles[key], func(path string) bool { return !config.IsBelow(path, f.of.Place) })
			d.resume(f, key, &member{gone: all[key], sides: sides})
		}
	}
	for _, key := range kept.PendingReloads {
		if drops, err := f.of.Drops(key); tenant.CheckID(key) == nil && err == nil && !d.dry {
			d.owed = append(d.owed, d.bidFarewell(f, key, drops)...)
		}
	}
}

// remember writes the tenants down.
func (d *dropper) remember(f *following) {
	if d.dry {
		return
	}
	kept := f.kept()
	text, _ := json.Marshal(kept) // It has nothing that could fail.
	if string(text) == f.written || len(f.members) == 0 && !f.resumed && f.written == "" {
		return
	}
	if d.journal.SaveTenants(f.of.Place, kept) {
		f.written = string(text)
	}
}

func (f *following) kept() journal.Tenants {
	kept := journal.Tenants{
		Pattern: f.of.Pattern, Departed: map[string]time.Time{}, SideFiles: map[string][]string{},
		PendingReloads: slices.Sorted(maps.Keys(f.untold)),
	}
	for _, key := range slices.Sorted(maps.Keys(f.members)) {
		m := f.members[key]
		if m.isGone() {
			kept.Departed[key] = m.gone
		} else {
			kept.Present = append(kept.Present, key)
		}
		if sides := m.sideFiles(); len(sides) > 0 {
			kept.SideFiles[key] = sides
		}
	}
	return kept
}
