package agent

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/reload"
	"github.com/smarteros/deaddrop/agent/tenant"
	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/drop"
)

// This file is about drops that follow tenants: for_each blocks, the keys that
// they have, and what becomes of the files of a key that is gone.

// following is a for_each block and its keys.
type following struct {
	of      *config.ForEach
	began   bool                 // its keys were known once in this run
	resumed bool                 // an earlier run has had keys, too
	present map[string]bool      // those that have drops
	gone    map[string]time.Time // those that have them still, and since when they are not there
	odd     map[string]bool      // names that are no ids, which was said
	err     error                // why the keys are not known, or not anew
	written string               // what the record of keys holds
}

// request asks for the keys.
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
		if !slices.Contains(keys, name) && f.of.Wants(name) {
			keys = append(keys, name)
		}
	}
	return keys, true
}

// setFollowed replaces the for_each blocks; what is known of the keys of one is
// kept.
func (d *dropper) setFollowed(blocks []*config.ForEach) {
	old := d.followed
	d.followed = nil
	for _, of := range blocks {
		f := &following{present: map[string]bool{}, gone: map[string]time.Time{}, odd: map[string]bool{}}
		if i := slices.IndexFunc(old, func(o *following) bool { return o.of.Pattern == of.Pattern }); i >= 0 {
			f = old[i]
			known := append(keysOf(f.present), keysOf(f.gone)...)
			f.present = map[string]bool{}
			f.of = of
			d.addKeys(f, known)
		} else {
			f.of = of
			d.recall(f)
		}
		d.followed = append(d.followed, f)
		d.expand(f)
	}
}

func keysOf[V any](m map[string]V) []string {
	var keys []string
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// addKeys makes the drops of keys. What cannot be made stands for itself, with an
// error.
func (d *dropper) addKeys(f *following, keys []string) {
	d.grown = d.grown || len(keys) > 0
	for _, key := range keys {
		drops, err := f.of.Drops(key)
		if err == nil {
			err = d.taken(drops)
		}
		if err != nil {
			s := &state{drop: config.Drop{Name: f.of.Name + "[" + key + "]", Key: key}, of: f}
			d.add(s)
			d.fail(s, err)
			drops = nil
		}
		_, isGone := f.gone[key]
		for _, each := range drops {
			// What comes later than the agent is news to everyone; what comes with it
			// no one can have read before.
			d.add(&state{drop: each, of: f, dirty: !isGone, isGone: isGone, late: f.began || f.resumed})
		}
		f.present[key] = true
	}
}

// taken tells whether another drop has a destination already.
func (d *dropper) taken(drops []config.Drop) error {
	for _, each := range drops {
		if other := d.byDestination[each.Destination]; other != nil {
			return fmt.Errorf("destination %s is written already, by %q", each.Destination, other.drop.Name)
		}
	}
	return nil
}

// expand brings the drops of a for_each block in line with its keys.
func (d *dropper) expand(f *following) {
	before := f.err
	keys, ok := f.keys(d.readings)
	if f.err != nil && before == nil {
		d.log.Warn("the tenants of a for_each cannot be listed; its files stay as they are", "drop", f.of.Name, "error", f.err)
	} else if f.err == nil && before != nil {
		d.log.Info("the tenants of a for_each can be listed again", "drop", f.of.Name)
	}
	if !ok {
		return
	}
	there := map[string]bool{}
	var fresh []string
	for _, key := range keys {
		if err := tenant.CheckID(key); err != nil {
			if !f.odd[key] {
				f.odd[key] = true
				d.log.Warn("a name in the folder of a for_each is not the id of a tenant, and left out", "drop", f.of.Name, "error", err)
			}
			continue
		}
		there[key] = true
		if !f.present[key] {
			fresh = append(fresh, key)
		}
	}
	d.addKeys(f, fresh)
	d.bringBack(f, there)
	d.letLeave(f, there)
	d.logKeys(f, fresh)
	f.began = true
	d.remember(f)
}

// logKeys tells of new keys of a running agent: each, or their number.
func (d *dropper) logKeys(f *following, fresh []string) {
	const few = 3
	switch {
	case !f.began:
		d.log.Info("following tenants", "drop", f.of.Name, "count", len(f.present)-len(f.gone))
	case len(fresh) > few:
		d.log.Info("new tenants", "drop", f.of.Name, "count", len(fresh))
	default:
		for _, key := range fresh {
			d.log.Info("a new tenant", "drop", f.of.Name, "tenant", key)
		}
	}
}

// bringBack takes up the drops again of keys that are there again.
func (d *dropper) bringBack(f *following, there map[string]bool) {
	for key := range f.gone {
		if !there[key] {
			continue
		}
		delete(f.gone, key)
		for _, s := range d.states {
			if s.of == f && s.drop.Key == key && s.isGone {
				s.isGone, s.dirty = false, true
			}
		}
	}
}

// letLeave marks the drops of keys that are not there any more: their files go
// after the grace, or stay and are nobody's then.
func (d *dropper) letLeave(f *following, there map[string]bool) {
	leaving := map[string]bool{}
	for _, key := range keysOf(f.present) {
		if _, known := f.gone[key]; there[key] || known {
			continue
		}
		leaving[key] = true
		if f.of.RemoveFiles {
			f.gone[key] = time.Now()
			d.log.Info("a tenant is gone; its files go, too, unless it comes back", "drop", f.of.Name, "tenant", key, "after", f.of.Grace.String())
			continue
		}
		d.log.Info("a tenant is gone; its files stay", "drop", f.of.Name, "tenant", key)
		delete(f.present, key)
	}
	if len(leaving) == 0 {
		return
	}
	for _, s := range d.states {
		if s.of == f && leaving[s.drop.Key] {
			s.isGone, s.dirty, s.lacks, s.absent = true, false, false, false
			s.uses, s.reads, s.err, s.stale, s.since = nil, nil, nil, nil, time.Now()
		}
	}
	d.discard(func(s *state) bool {
		return s.of == f && leaving[s.drop.Key] && (!f.of.RemoveFiles || s.drop.Destination == "")
	})
}

// nextRemoval is when the files of a key go that is gone, or zero.
func (d *dropper) nextRemoval() time.Time {
	var next time.Time
	for _, f := range d.followed {
		for _, since := range f.gone {
			if at := since.Add(f.of.Grace); next.IsZero() || at.Before(next) {
				next = at
			}
		}
	}
	return next
}

// isOver tells whether the grace of a key that is gone is over.
func (f *following) isOver(key string) bool { return !f.gone[key].Add(f.of.Grace).After(time.Now()) }

// removeGone takes away the files of keys whose grace is over, and returns the
// news of it.
func (d *dropper) removeGone() []reload.News {
	var all []reload.News
	for _, f := range d.followed {
		over := map[string]bool{}
		for key := range f.gone {
			if f.isOver(key) {
				over[key] = true
			}
		}
		if len(over) > 0 {
			all = append(all, d.removeKeys(f, over)...)
		}
	}
	return all
}

func (d *dropper) removeKeys(f *following, over map[string]bool) []reload.News {
	var told []reload.News
	failed := map[string]bool{}
	sets := map[*config.Set]bool{}
	for _, s := range d.states {
		if s.of != f || !s.isGone || !over[s.drop.Key] || s.drop.Destination == "" {
			continue
		}
		if s.drop.Set != nil && sets[s.drop.Set] {
			continue // It has gone as a whole.
		}
		sets[s.drop.Set] = true
		news, err := d.removeState(s)
		if err != nil {
			failed[s.drop.Key] = true
			d.fail(s, fmt.Errorf("removing the file of a tenant that is gone: %w", err))
			continue
		}
		told = append(told, news...)
	}
	done := func(s *state) bool { return s.of == f && s.isGone && over[s.drop.Key] && !failed[s.drop.Key] }
	for _, s := range d.states {
		if done(s) {
			_ = os.Remove(recordPath(s.drop.Destination))
			removeEmpty(filepath.Dir(s.drop.Destination), f.of.Place)
		}
	}
	d.discard(done)
	for key := range over {
		if failed[key] {
			f.gone[key] = time.Now().Add(retryWrites - f.of.Grace)
			continue
		}
		delete(f.gone, key)
		delete(f.present, key)
		d.log.Info("removed the files of a tenant that is gone", "drop", f.of.Name, "tenant", key)
	}
	d.remember(f)
	return told
}

// removeState takes away a file, or the set that it is of.
func (d *dropper) removeState(s *state) ([]reload.News, error) {
	paths, reloads := []string{s.drop.Destination}, s.drop.Reloads
	if s.drop.Set != nil {
		paths, reloads = nil, nil
		for _, other := range d.states {
			if other.drop.Set == s.drop.Set {
				paths, reloads = append(paths, other.drop.Destination), append(reloads, other.drop.Reloads...)
			}
		}
		reloads = append(reloads, s.drop.Set.Reloads...)
	}
	was := slices.ContainsFunc(paths, exists)
	if err := s.takeAway(); err != nil || !was {
		return nil, err
	}
	change := reload.Change{Files: paths, At: time.Now()}
	return []reload.News{{Change: change, Actions: d.wanted(reloads, false)}}, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// removeEmpty removes the folders of a tenant, up to the place of all of them.
func removeEmpty(folder, place string) {
	for folder != place && strings.HasPrefix(folder, strings.TrimSuffix(place, "/")+"/") && os.Remove(folder) == nil {
		folder = filepath.Dir(folder)
	}
}

// keyRecord is kept beside the files of a for_each block, for the next agent:
// without it that would not know which files are those of tenants that have gone
// meanwhile. It holds no secret.
type keyRecord struct {
	Pattern string               `json:"pattern"`
	Present []string             `json:"present"`
	Gone    map[string]time.Time `json:"gone,omitempty"`
}

// keyRecordPath is hidden, like that of a drop.
func keyRecordPath(of *config.ForEach) string {
	inside, err := filepath.Rel(of.Place, of.Pattern)
	if err != nil {
		inside = filepath.Base(of.Pattern)
	}
	return filepath.Join(of.Place, "."+strings.NewReplacer("/", "_", "*", "EACH").Replace(inside)+".deaddrop")
}

// recall takes up the keys of an earlier run.
func (d *dropper) recall(f *following) {
	content, err := os.ReadFile(keyRecordPath(f.of))
	var r keyRecord
	if err != nil || json.Unmarshal(content, &r) != nil || r.Pattern != f.of.Pattern {
		return
	}
	f.resumed = true
	known := r.Present
	for key, since := range r.Gone {
		f.gone[key] = since
		known = append(known, key)
	}
	// The file may have been tampered with: what is in it is only removed.
	known = slices.DeleteFunc(known, func(key string) bool { return tenant.CheckID(key) != nil })
	d.addKeys(f, known)
	for _, s := range d.states {
		if s.of == f {
			s.late = false // They were there before.
		}
	}
}

// remember writes the keys down.
func (d *dropper) remember(f *following) {
	if d.dry {
		return
	}
	r := keyRecord{Pattern: f.of.Pattern, Gone: f.gone}
	for _, key := range keysOf(f.present) {
		if _, isGone := f.gone[key]; !isGone {
			r.Present = append(r.Present, key)
		}
	}
	content, _ := json.Marshal(r) // It has nothing that could fail.
	path := keyRecordPath(f.of)
	if string(content) == f.written || len(f.present) == 0 && !exists(path) {
		return
	}
	result := drop.Write([]drop.File{{Path: path, Content: append(content, '\n'), Mode: 0o600, CreateDirs: true}})[0]
	if result.Err != nil {
		d.log.Warn("which tenants there are cannot be written down: files of those that go while no agent runs will stay", "error", result.Err)
	}
	f.written = string(content)
}

// isAbsent tells whether a drop of a tenant fails because the tenant has no such
// secret, and never had: that is no fault.
func (s *state) isAbsent(err error) bool {
	return s.of != nil && isMissing(err) && !exists(s.drop.Destination)
}

// expectsNothing tells whether a failed reading is no news to anyone: that of a
// list, of which [dropper.expand] tells, or of a secret that is missing and that
// only tenants use who have no file of it.
func (d *dropper) expectsNothing(request render.Request, err error) bool {
	if slices.ContainsFunc(d.followed, func(f *following) bool { return f.of.Folder != "" && f.request() == request }) {
		return true
	}
	return isMissing(err) && len(d.followed) > 0 && !slices.ContainsFunc(d.states, func(s *state) bool {
		return slices.Contains(s.uses, request) && !s.isAbsent(err)
	})
}
