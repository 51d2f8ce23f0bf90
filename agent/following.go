package agent

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/reload"
	"github.com/smarteros/deaddrop/agent/tenant"
	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/drop"
)

// This file is about drops that follow tenants: for_each blocks, the tenants that
// they have, and what becomes of the files of a tenant that is gone.

// following is a for_each block and its tenants.
type following struct {
	of        *config.ForEach
	began     bool // its tenants were known once in this run
	resumed   bool // an earlier run has had tenants, too
	members   map[string]*member
	odd       map[string]bool // names that are no ids, which was said
	untold    map[string]bool // tenants whose files were removed, of which services may not have been told
	err       error           // why the tenants are not known, or not anew
	written   string          // what the record holds
	allAbsent bool            // that no tenant has the secret was said
}

// member is a tenant of a for_each block.
type member struct {
	states []*state
	gone   time.Time // since when it is not there; zero while it is
	err    error     // why it has no drops
	sides  []string  // what its templates have written besides, in an earlier run
}

func (m *member) isGone() bool { return !m.gone.IsZero() }

// request asks for the tenants.
func (f *following) request() render.Request { return render.List(f.of.Folder) }

// keys are those that there are now; ok is false as long as nobody knows.
func (f *following) keys(readings watch.Batch) (keys []string, ok bool) {
	if f.of.Folder == "" {
		return f.of.Keys, true
	}
	reading := readings[f.request()]
	f.err = reading.Err
	if reading.Secret == nil || reading.Err != nil {
		return nil, false
	}
	listed, _ := reading.Secret.Data.Reveal()["keys"].([]any)
	for _, each := range listed {
		name := strings.TrimSuffix(fmt.Sprint(each), "/") // A folder, or a secret of its own.
		if f.of.Wants(name) {
			keys = append(keys, name)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys), true
}

// setFollowed replaces the for_each blocks; what is known of the tenants of one is
// kept.
func (d *dropper) setFollowed(blocks []*config.ForEach) {
	old := d.followed
	d.followed = nil
	for _, of := range blocks {
		f := &following{of: of, members: map[string]*member{}, odd: map[string]bool{}, untold: map[string]bool{}}
		if i := slices.IndexFunc(old, func(o *following) bool { return o.of.Pattern == of.Pattern }); i >= 0 {
			before := old[i]
			f.resumed, f.written, f.untold = true, before.written, before.untold
			f.began = before.began && before.of.Folder == of.Folder
			for j := range d.farewells {
				if d.farewells[j].of == before {
					d.farewells[j].of = f
				}
			}
			for _, key := range slices.Sorted(maps.Keys(before.members)) {
				d.resume(f, key, &member{gone: before.members[key].gone, sides: before.members[key].sides})
			}
		} else {
			d.recall(f)
		}
		d.followed = append(d.followed, f)
		d.expand(f)
	}
}

// resume takes up a tenant that was there before.
func (d *dropper) resume(f *following, key string, m *member) {
	if m.isGone() && !f.of.RemoveFiles {
		return // Its files stay, and are nobody's now.
	}
	f.members[key] = m
	d.build(f, key, m, false)
}

// build makes the drops of a tenant. What cannot be made is tried again.
func (d *dropper) build(f *following, key string, m *member, late bool) {
	drops, err := f.of.Drops(key)
	if err == nil {
		err = d.taken(drops, m)
	}
	if err != nil { // What there is of it stays as it is.
		if m.err == nil || m.err.Error() != err.Error() {
			d.log.Error("the files of a tenant cannot be made; will try again", "drop", f.of.Name, "tenant", key, "error", err)
		}
		m.err = err
		return
	}
	m.err = nil
	d.grown = true
	before := m.states
	d.discard(before)
	m.states = nil
	for _, each := range drops {
		s := &state{drop: each, of: f, dirty: !m.isGone(), isGone: m.isGone(), late: late}
		for _, file := range each.Files {
			s.made = append(s.made, readFile{file, versionOf(file)})
		}
		m.states = append(m.states, s)
		d.add(s, before...)
	}
}

// taken tells whether a drop of another one has a destination already.
func (d *dropper) taken(drops []config.Drop, m *member) error {
	for _, each := range drops {
		for _, path := range each.Paths() {
			if other := d.byDestination[path]; other != nil && !slices.Contains(m.states, other) {
				return fmt.Errorf("destination %s is written already, by %q", path, other.drop.Name)
			}
		}
	}
	return nil
}

// retryUnmade makes the drops of tenants that could not be made before.
func (d *dropper) retryUnmade() {
	d.rebuild(func(m *member) bool { return m.err != nil })
}

// rebuild makes the drops of tenants anew.
func (d *dropper) rebuild(which func(*member) bool) {
	for _, f := range d.followed {
		for key, m := range f.members {
			if !m.isGone() && which(m) {
				d.build(f, key, m, f.began || f.resumed)
			}
		}
	}
}

// isMadeOfOld tells whether the files have changed that a drop was made of.
func (s *state) isMadeOfOld() bool {
	return slices.ContainsFunc(s.made, func(f readFile) bool { return versionOf(f.path) != f.version })
}

// hasUnmade tells whether there are tenants whose drops could not be made.
func (d *dropper) hasUnmade() bool {
	for _, f := range d.followed {
		for _, m := range f.members {
			if m.err != nil && !m.isGone() {
				return true
			}
		}
	}
	return false
}

// expand brings the drops of a for_each block in line with its tenants.
func (d *dropper) expand(f *following) {
	before := f.err
	keys, ok := f.keys(d.readings)
	if f.err != nil && before == nil {
		what := "tenants cannot be listed, no file written yet"
		if slices.ContainsFunc(d.states, func(s *state) bool { return s.of == f && s.hasFile() }) {
			what = "tenants cannot be listed, keeping last good files"
		}
		d.log.Warn(what, "drop", f.of.Name, "error", f.err)
	} else if f.err == nil && before != nil {
		d.log.Info("the tenants of a for_each can be listed again", "drop", f.of.Name)
	}
	if !ok {
		return
	}
	there := d.idsOf(f, keys)
	var fresh, left []string
	for _, key := range keys {
		if there[key] && f.members[key] == nil {
			fresh = append(fresh, key)
			f.members[key] = &member{}
			d.build(f, key, f.members[key], f.began || f.resumed)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(f.members)) {
		switch m := f.members[key]; {
		case there[key] && m.isGone():
			d.comeBack(f, key, m)
		case !there[key] && !m.isGone():
			left = append(left, key)
			d.leave(f, key, m)
		}
	}
	if f.began {
		d.tell(fresh, f, "a new tenant", "new tenants")
	} else {
		d.log.Info("following tenants", "drop", f.of.Name, "count", len(there))
	}
	if f.of.RemoveFiles {
		d.tell(left, f, "a tenant is gone; its files go, too, unless it comes back", "tenants are gone; their files go, too, unless they come back", "after", f.of.Grace.String())
	} else {
		d.tell(left, f, "a tenant is gone; its files stay", "tenants are gone; their files stay")
	}
	f.began = true
	d.remember(f)
}

// tell logs of each tenant, or how many there are where they are not few.
func (d *dropper) tell(keys []string, f *following, one, many string, args ...any) {
	const few = 3
	if len(keys) > few {
		d.log.Info(many, append([]any{"drop", f.of.Name, "count", len(keys)}, args...)...)
		return
	}
	for _, key := range keys {
		d.log.Info(one, append([]any{"drop", f.of.Name, "tenant", key}, args...)...)
	}
}

// idsOf leaves out names that are no ids.
func (d *dropper) idsOf(f *following, keys []string) map[string]bool {
	ids, odd := map[string]bool{}, map[string]bool{}
	for _, key := range keys {
		err := tenant.CheckID(key)
		if err == nil {
			ids[key] = true
			continue
		}
		odd[key] = true
		if !f.odd[key] {
			d.log.Warn("a name in the folder of a for_each is not the id of a tenant, and left out", "drop", f.of.Name, "error", err)
		}
	}
	f.odd = odd
	return ids
}

func (d *dropper) comeBack(f *following, key string, m *member) {
	m.gone = time.Time{}
	for _, s := range m.states {
		s.isGone, s.dirty = false, true
	}
	if len(m.states) == 0 {
		d.build(f, key, m, true)
	}
}

// leave begins the grace of a tenant's files, or lets go of them.
func (d *dropper) leave(f *following, key string, m *member) {
	if !f.of.RemoveFiles || len(m.states) == 0 {
		d.discard(m.states)
		delete(f.members, key)
		return
	}
	m.gone = time.Now()
	for _, s := range m.states {
		s.isGone, s.dirty, s.lacks, s.absent = true, false, false, false
		s.uses, s.reads, s.err, s.stale, s.since = nil, nil, nil, nil, time.Now()
	}
}

// mayRemove tells whether it is sure which tenants there are. Where a list fails, or
// was not answered yet in this run, nothing is taken away.
func (f *following) mayRemove() bool { return f.began && f.err == nil }

// isOver tells whether the grace of a tenant that is gone is over.
func (f *following) isOver(m *member) bool {
	return m.isGone() && f.mayRemove() && !m.gone.Add(f.of.Grace).After(time.Now())
}

// nextRemoval is when the files of a tenant go that is gone, or zero.
func (d *dropper) nextRemoval() time.Time {
	var next time.Time
	for _, f := range d.followed {
		for _, m := range f.members {
			if at := m.gone.Add(f.of.Grace); m.isGone() && f.mayRemove() && (next.IsZero() || at.Before(next)) {
				next = at
			}
		}
	}
	for _, each := range d.farewells {
		if next.IsZero() || each.until.Before(next) {
			next = each.until
		}
	}
	return next
}

// removeGone takes away the files of tenants whose grace is over, and returns the
// news of it.
func (d *dropper) removeGone() []reload.Job {
	all := d.owed
	d.owed = nil
	for _, f := range d.followed {
		var removed []string
		for _, key := range slices.Sorted(maps.Keys(f.members)) {
			m := f.members[key]
			if !f.isOver(m) {
				continue
			}
			news, err := d.remove(f, key, m)
			if err != nil {
				m.gone = time.Now().Add(retryWrites - f.of.Grace)
				d.fail(m.states[0], fmt.Errorf("removing the files of a tenant that is gone: %w", err))
				continue
			}
			all = append(all, news...)
			removed = append(removed, key)
		}
		if len(removed) > 0 {
			d.tell(removed, f, "removed the files of a tenant that is gone", "removed the files of tenants that are gone")
		}
	}
	return all
}

// remove takes away all that a tenant's drops have written.
func (d *dropper) remove(f *following, key string, m *member) ([]reload.Job, error) {
	var paths []string
	for _, s := range m.states {
		paths = append(paths, s.drop.Destination)
	}
	was := slices.ContainsFunc(paths, exists)
	for _, s := range m.states {
		if err := s.takeAway(); err != nil {
			return nil, err
		}
	}
	for _, path := range m.sideFiles() {
		if d.isOthers(path, m) {
			continue
		}
		if _, err := drop.RemoveBelow(f.of.Place, path); err != nil {
			return nil, err
		}
	}
	for _, s := range m.states {
		folder := filepath.Dir(s.drop.Destination)
		d.journal.RemoveOutput(s.drop.Destination)
		d.released = append(d.released, d.asked(s, s.orphaned.Leases)...)
		delete(d.folders, folder)
		if s.drop.CreateDirs {
			drop.RemoveEmptyBelow(f.of.Place, folder)
		}
	}
	d.discard(m.states)
	delete(f.members, key)
	if !was {
		return nil, nil
	}
	return d.bidFarewell(f, key, dropsOf(m.states)), nil
}

// sideFiles are what the templates of a tenant have written besides.
func (m *member) sideFiles() []string {
	all := slices.Clone(m.sides)
	for _, s := range m.states {
		all = append(all, s.sides...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// isOthers tells whether others write a file, too.
func (d *dropper) isOthers(path string, m *member) bool {
	return slices.ContainsFunc(d.states, func(s *state) bool {
		return !slices.Contains(m.states, s) && (s.drop.Destination == path || slices.Contains(s.sides, path))
	})
}

// farewell is the last that services are told of a tenant. There is no drop any more
// that would keep its reloads.
type farewell struct {
	of      *following
	key     string
	files   []string
	actions []reload.Action
	until   time.Time
}

// lastWord is how long it is tried to tell of a tenant that is gone: what was its own
// may be gone, too, such as its container.
const lastWord = time.Minute

// bidFarewell returns the news of files that were removed, and keeps their reloads
// until services were told.
func (d *dropper) bidFarewell(f *following, key string, drops []config.Drop) []reload.Job {
	var files []string
	for _, each := range drops {
		files = append(files, each.Destination)
	}
	actions := d.reloadsOf(drops)
	if len(actions) == 0 {
		return nil
	}
	f.untold[key] = true
	d.farewells = append(d.farewells, farewell{f, key, files, actions, time.Now().Add(lastWord)})
	return []reload.Job{{Change: reload.Change{Files: files, At: time.Now()}, Actions: actions}}
}

// noteFarewells forgets those that were told, or that it is too late for.
func (d *dropper) noteFarewells(untold map[string]bool) {
	d.farewells = slices.DeleteFunc(d.farewells, func(w farewell) bool {
		waits := slices.ContainsFunc(w.files, func(file string) bool { return untold[file] })
		if waits && w.until.After(time.Now()) {
			return false
		}
		delete(w.of.untold, w.key)
		d.remember(w.of)
		d.grown = true // The queue need not keep its reloads.
		return true
	})
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// isAbsent tells whether drops of a tenant fail because the tenant has no such
// secret, and never had: that is no fault.
func (g group) isAbsent(err error) bool {
	return g.states[0].of != nil && isMissing(err) && !slices.ContainsFunc(g.states, func(s *state) bool { return exists(s.drop.Destination) })
}

// expectsNothing tells whether a failed reading is no news to anyone: that of a
// list, of which [dropper.expand] tells, or of a secret that is missing and that
// only tenants use who have no file of it.
func (d *dropper) expectsNothing(request render.Request, err error) bool {
	if slices.ContainsFunc(d.followed, func(f *following) bool { return f.of.Folder != "" && f.request() == request }) {
		return true
	}
	return isMissing(err) && len(d.followed) > 0 && !slices.ContainsFunc(d.states, func(s *state) bool {
		return slices.Contains(s.uses, request) && (s.of == nil || exists(s.drop.Destination))
	})
}

// sayAbsent warns where no tenant at all has the secret: then the path may be wrong.
func (d *dropper) sayAbsent() {
	for _, f := range d.followed {
		var all, absent int
		for _, m := range f.members {
			for _, s := range m.states {
				all++
				if s.absent {
					absent++
				}
			}
		}
		isSo := all > 0 && all == absent
		if isSo && !f.allAbsent {
			d.log.Warn("no tenant has the secret of a for_each; is its path right?", "drop", f.of.Name, "tenants", len(f.members))
		}
		f.allAbsent = isSo
	}
}
