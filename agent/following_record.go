package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/tenant"
	"github.com/smarteros/deaddrop/render/drop"
)

// keyRecord is kept beside the files of a for_each block, for the next agent:
// without it that would not know which files are those of tenants that have gone
// meanwhile. It holds no secret.
type keyRecord struct {
	Pattern string               `json:"pattern"`
	Present []string             `json:"present"`
	Gone    map[string]time.Time `json:"gone,omitempty"`
	// Sides are what templates have written besides, by tenant.
	Sides map[string][]string `json:"sides,omitempty"`
	// Untold are tenants whose files are removed, of which services may not have been
	// told.
	Untold []string `json:"untold,omitempty"`
}

// keyRecordPath is hidden, like that of a drop. No drop of a tenant has one of this
// name: there is no + in an id.
func keyRecordPath(of *config.ForEach) string {
	sum := sha256.Sum256([]byte(of.Pattern))
	return filepath.Join(of.Place, ".each+"+hex.EncodeToString(sum[:6])+".deaddrop")
}

// recall takes up the tenants of an earlier run. The file may have been tampered
// with: what it leads to is only removed, and only below the place of all files.
func (d *dropper) recall(f *following) {
	content, err := os.ReadFile(keyRecordPath(f.of))
	var r keyRecord
	if err != nil || json.Unmarshal(content, &r) != nil || r.Pattern != f.of.Pattern {
		return
	}
	f.resumed = true
	all := map[string]time.Time{}
	for _, key := range r.Present {
		all[key] = time.Time{}
	}
	for key, since := range r.Gone {
		if now := time.Now(); since.After(now) {
			since = now // The clock was wrong.
		}
		all[key] = since
	}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if tenant.CheckID(key) == nil {
			sides := slices.DeleteFunc(r.Sides[key], func(path string) bool { return !config.IsBelow(path, f.of.Place) })
			d.resume(f, key, &member{gone: all[key], sides: sides})
		}
	}
	for _, key := range r.Untold {
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
	content, _ := json.Marshal(f.record()) // It has nothing that could fail.
	path := keyRecordPath(f.of)
	if string(content) == f.written || len(f.members) == 0 && !exists(path) {
		return
	}
	result := d.plan.Write([]drop.File{{Path: path, Content: append(content, '\n'), Mode: 0o600, CreateDirs: f.of.CreateDirs}})[0]
	if result.Err != nil {
		if f.unwritten == nil || f.unwritten.Error() != result.Err.Error() {
			d.log.Warn("which tenants there are cannot be written down: files of those that go while no agent runs will stay", "error", result.Err)
		}
		f.unwritten = result.Err
		return
	}
	f.written, f.unwritten = string(content), nil
}

func (f *following) record() keyRecord {
	r := keyRecord{Pattern: f.of.Pattern, Gone: map[string]time.Time{}, Sides: map[string][]string{}, Untold: slices.Sorted(maps.Keys(f.untold))}
	for _, key := range slices.Sorted(maps.Keys(f.members)) {
		m := f.members[key]
		if m.isGone() {
			r.Gone[key] = m.gone
		} else {
			r.Present = append(r.Present, key)
		}
		if sides := m.sideFiles(); len(sides) > 0 {
			r.Sides[key] = sides
		}
	}
	return r
}
