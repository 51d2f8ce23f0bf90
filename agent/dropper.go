package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/reload"
	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/drop"
)

// dropper turns readings into files. It knows no network and no schedule: it is
// told what has changed, and says which secrets it lacks.
type dropper struct {
	log      *slog.Logger
	readings watch.Batch
	states   []*state
}

// state is a drop and what became of it.
type state struct {
	drop  config.Drop
	uses  []render.Request // as found out by the last render
	dirty bool             // to be rendered
	wrote bool             // its file has been current once in this run
	err   error            // of the last try; nil when the file is as it should be
	stale error            // why the content is not the newest, though it is the best there is
	lacks bool             // a secret is not known yet
	gone  bool             // its file was removed, as the secret was
	since time.Time        // of err, stale or gone; else of the last write

	inFile   []render.Request // uses of what stands in the file
	leases   []*watch.Lease   // of what stands in the file
	filed    record           // what stands in the file, as far as it was issued
	orphaned record           // what an earlier run has left there
}

func newDropper(drops []config.Drop, log *slog.Logger) *dropper {
	d := &dropper{log: log, readings: watch.Batch{}}
	d.setDrops(drops)
	return d
}

// setDrops replaces the drops; what is known of a destination is kept.
func (d *dropper) setDrops(drops []config.Drop) {
	old := map[string]*state{}
	for _, s := range d.states {
		old[s.drop.Destination] = s
	}
	d.states = nil
	for _, each := range drops {
		s := &state{drop: each, dirty: true}
		if before := old[each.Destination]; before != nil {
			s.wrote, s.err, s.stale, s.since = before.wrote, before.err, before.stale, before.since
			s.inFile, s.leases, s.filed, s.orphaned = before.inFile, before.leases, before.filed, before.orphaned
		} else {
			s.orphaned = readRecord(each.Destination)
		}
		d.states = append(d.states, s)
	}
}

// learn takes readings in and marks the drops that they concern.
func (d *dropper) learn(batch watch.Batch) {
	maps.Copy(d.readings, batch)
	for _, s := range d.states {
		s.dirty = s.dirty || slices.ContainsFunc(s.uses, func(r render.Request) bool { _, hit := batch[r]; return hit })
	}
}

// uses are all that the drops ask for, and what stands in files that could not
// be replaced, in order.
func (d *dropper) uses() []render.Request {
	all := map[render.Request]bool{}
	for _, s := range d.states {
		for _, r := range s.uses {
			all[r] = true
		}
		if s.err == nil && !s.lacks {
			continue
		}
		for _, r := range s.inFile {
			all[r] = true
		}
	}
	return slices.SortedFunc(maps.Keys(all), func(a, b render.Request) int { return cmp.Compare(a.Fingerprint(), b.Fingerprint()) })
}

// lacking are those of uses that nothing is known of yet.
func (d *dropper) lacking() []render.Request {
	return slices.DeleteFunc(d.uses(), func(r render.Request) bool { _, known := d.readings[r]; return known })
}

// forget drops the readings that no drop asks for any more.
func (d *dropper) forget() {
	used := map[render.Request]bool{}
	for _, r := range d.uses() {
		used[r] = true
	}
	maps.DeleteFunc(d.readings, func(r render.Request, _ watch.Reading) bool { return !used[r] })
}

// step renders and writes what is dirty and can be rendered, and returns the
// reloads that this calls for. Failures stay in the states, and are logged once.
func (d *dropper) step() []reload.Action {
	var files []drop.File
	var whose []*state
	var reloads []reload.Action
	for _, s := range d.states {
		if !s.dirty {
			continue
		}
		content, err := d.render(s)
		switch {
		case s.lacks:
			continue
		case isMissing(err) && s.drop.OnMissing == config.RemoveFile:
			s.dirty = false
			reloads = append(reloads, d.remove(s)...)
			continue
		case err != nil:
			s.dirty = false
			d.fail(s, err)
			continue
		}
		if err := d.keepRecord(s); err != nil {
			d.fail(s, err) // It stays dirty: this may succeed later.
			continue
		}
		s.dirty = false
		files = append(files, drop.File{Path: s.drop.Destination, Content: content, Mode: s.drop.Mode, CreateDirs: s.drop.CreateDirs})
		whose = append(whose, s)
	}
	written := 0
	for i, r := range drop.Write(files) {
		s := whose[i]
		if r.Outcome == drop.Failed {
			s.dirty = true // A write may succeed later with the same content.
			d.fail(s, r.Err)
			continue
		}
		reloads = append(reloads, reloadsFor(s, r.Outcome)...)
		if r.Outcome != drop.Unchanged {
			written++
			d.logWritten(s, r.Outcome, len(files))
		}
		d.succeed(s, r.Outcome)
	}
	if written > 10 {
		d.log.Info("wrote files", "count", written)
	}
	return reloads
}

// remove takes a file away whose secret is gone. That it is gone is news, too.
func (d *dropper) remove(s *state) []reload.Action {
	err := drop.Check(s.drop.Destination)
	if err == nil {
		err = os.Remove(s.drop.Destination)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.dirty = true
		d.fail(s, fmt.Errorf("removing the file of a secret that is gone: %w", err))
		return nil
	}
	s.err, s.stale, s.inFile, s.leases, s.wrote = nil, nil, nil, nil, true
	if !s.gone {
		s.gone, s.since = true, time.Now()
		d.log.Info("the secret is gone, and so is its file", "drop", s.drop.Name, "destination", s.drop.Destination)
	}
	if err != nil {
		return nil
	}
	return slices.Clone(s.drop.Reloads)
}

// reloadsFor leaves signals out for a file that appears for the first time when
// the agent starts: no service can have read it before, and a service that is
// just starting would die of a SIGHUP that it does not handle yet.
func reloadsFor(s *state, outcome drop.Outcome) []reload.Action {
	if outcome == drop.Unchanged {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(s.drop.Reloads), func(a reload.Action) bool {
		_, isSignal := a.(reload.Signal)
		return isSignal && outcome == drop.Created && !s.wrote
	})
}

// render sets s.uses, s.lacks and s.stale. A secret that cannot be read fails
// the drop only where no earlier version of it is known, or where the file is
// not to outlive the secret.
func (d *dropper) render(s *state) ([]byte, error) {
	s.uses, s.lacks = nil, false
	var unread, stale error
	lookup := func(request render.Request) *render.Secret {
		r, known := d.readings[request]
		if known && r.Err != nil {
			stale = r.Err
		}
		if known && (r.Secret == nil || isMissing(r.Err) && s.drop.OnMissing != config.KeepFile) {
			unread = &unreadError{r.Err}
			return nil
		}
		return r.Secret
	}
	defer func() { s.setStale(stale) }()
	var dot *render.Secret
	if s.drop.Secret != "" {
		request := render.Read(s.drop.Secret)
		s.uses = []render.Request{request}
		if dot = lookup(request); dot == nil {
			s.lacks = unread == nil
			return nil, unread
		}
	}
	if s.drop.Format != render.FormatTemplate {
		return s.drop.Encode(dot)
	}
	result, err := s.drop.Template.Execute(render.Input{Secret: lookup, Env: os.LookupEnv, Dialect: s.drop.Dialect, Now: time.Now(), Dot: dot})
	s.uses = append(s.uses, result.Uses...)
	if unread != nil {
		return nil, unread
	}
	s.lacks = len(result.Missing) > 0
	return result.Content, err
}

func isMissing(err error) bool { return errors.Is(err, watch.ErrMissing) }

func (s *state) setStale(err error) {
	if (s.stale == nil) != (err == nil) {
		s.since = time.Now()
	}
	s.stale = err
}

// unreadError is a drop's failure for want of a secret. That the secret cannot
// be read is logged where it is read, not again by each drop.
type unreadError struct{ error }

func (e *unreadError) Unwrap() error { return e.error }

func (d *dropper) fail(s *state, err error) {
	first := s.err == nil || s.err.Error() != err.Error()
	if s.err == nil {
		s.since = time.Now()
	}
	s.err = err
	var unread *unreadError
	if first && !errors.As(err, &unread) {
		d.log.Error("drop failed; its file stays as it is", "drop", s.drop.Name, "destination", s.drop.Destination, "error", err)
	}
}

func (d *dropper) succeed(s *state, outcome drop.Outcome) {
	if s.err != nil {
		d.log.Info("drop is current again", "drop", s.drop.Name, "destination", s.drop.Destination)
	}
	if s.err != nil || s.gone || outcome != drop.Unchanged || s.since.IsZero() {
		s.since = time.Now()
	}
	s.err, s.wrote, s.gone = nil, true, false
	issued := d.issuedTo(s)
	if issued.isEmpty() && !(s.filed.isEmpty() && s.orphaned.isEmpty()) {
		_ = record{}.write(s.drop.Destination) // What it lists ends by itself.
	}
	s.inFile, s.filed, s.orphaned.Certificates = s.uses, issued, nil
	s.leases = nil
	for _, r := range s.uses {
		if l := d.readings[r].Life.Lease; l != nil {
			s.leases = append(s.leases, l)
		}
	}
}

// isCurrent tells whether the file is what the last render came to.
func (s *state) isCurrent() bool { return s.err == nil && !s.dirty && !s.lacks }

// fatal is the loss of a secret that a drop must not go on without.
func (d *dropper) fatal() error {
	for _, s := range d.states {
		if s.drop.OnMissing == config.Fail && isMissing(s.err) {
			return fmt.Errorf("drop %q: %w", s.drop.Name, s.err)
		}
	}
	return nil
}

func (d *dropper) logWritten(s *state, outcome drop.Outcome, of int) {
	level, what := slog.LevelInfo, "changed"
	if of > 10 {
		level = slog.LevelDebug // A summary follows.
	}
	if outcome == drop.Created {
		what = "created"
	}
	d.log.Log(context.Background(), level, "file "+what, "drop", s.drop.Name, "destination", s.drop.Destination)
}

// failed tells whether a write has to be tried again.
func (d *dropper) failed() bool {
	return slices.ContainsFunc(d.states, func(s *state) bool { return s.dirty && !s.lacks })
}

// err joins the failures of all drops; one that several drops share shows once.
func (d *dropper) err() error {
	var errs []error
	seen := map[string]bool{}
	for _, s := range d.states {
		if s.err == nil || seen[s.err.Error()] {
			continue
		}
		seen[s.err.Error()] = true
		errs = append(errs, fmt.Errorf("drop %q: %w", s.drop.Name, s.err))
	}
	return errors.Join(errs...)
}
