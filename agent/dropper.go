package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"

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
	uses  []string // paths of secrets, as found out by the last render
	dirty bool     // to be rendered
	wrote bool     // its file has been current once in this run
	err   error    // of the last try; nil when the file is current
	lacks bool     // a secret is not known yet
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
			s.wrote, s.err = before.wrote, before.err
		}
		d.states = append(d.states, s)
	}
}

// learn takes readings in and marks the drops that they concern.
func (d *dropper) learn(batch watch.Batch) {
	maps.Copy(d.readings, batch)
	for _, s := range d.states {
		s.dirty = s.dirty || slices.ContainsFunc(s.uses, func(path string) bool { _, hit := batch[path]; return hit })
	}
}

// uses are the paths of all secrets that the drops ask for, sorted.
func (d *dropper) uses() []string {
	all := map[string]bool{}
	for _, s := range d.states {
		for _, path := range s.uses {
			all[path] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// lacking are those of uses that nothing is known of yet.
func (d *dropper) lacking() []string {
	return slices.DeleteFunc(d.uses(), func(path string) bool { _, known := d.readings[path]; return known })
}

// forget drops the readings that no drop asks for any more.
func (d *dropper) forget() {
	used := map[string]bool{}
	for _, path := range d.uses() {
		used[path] = true
	}
	maps.DeleteFunc(d.readings, func(path string, _ watch.Reading) bool { return !used[path] })
}

// step renders and writes what is dirty and can be rendered, and returns the
// reloads that this calls for. Failures stay in the states, and are logged once.
func (d *dropper) step() []reload.Action {
	var files []drop.File
	var whose []*state
	for _, s := range d.states {
		if !s.dirty {
			continue
		}
		content, err := d.render(s)
		switch {
		case s.lacks:
		case err != nil:
			s.dirty = false
			d.fail(s, err)
		default:
			s.dirty = false
			files = append(files, drop.File{Path: s.drop.Destination, Content: content, Mode: s.drop.Mode, CreateDirs: s.drop.CreateDirs})
			whose = append(whose, s)
		}
	}
	var reloads []reload.Action
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
		d.succeed(s)
	}
	if written > 10 {
		d.log.Info("wrote files", "count", written)
	}
	return reloads
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

// render sets s.uses and s.lacks. A secret that cannot be read fails the drop
// only where no earlier version of it is known.
func (d *dropper) render(s *state) ([]byte, error) {
	s.uses, s.lacks = nil, false
	var unread error
	lookup := func(path string) *render.Secret {
		r, known := d.readings[path]
		if known && r.Secret == nil {
			unread = &unreadError{r.Err}
		}
		return r.Secret
	}
	var dot *render.Secret
	if s.drop.Secret != "" {
		s.uses = []string{s.drop.Secret}
		if dot = lookup(s.drop.Secret); dot == nil {
			s.lacks = unread == nil
			return nil, unread
		}
	}
	if s.drop.Format != render.FormatTemplate {
		return render.Encode(s.drop.Format, dot)
	}
	result, err := s.drop.Template.Execute(render.Input{Secret: lookup, Env: os.Getenv, Dot: dot})
	s.uses = append(s.uses, result.Uses...)
	if unread != nil {
		return nil, unread
	}
	s.lacks = len(result.Missing) > 0
	return result.Content, err
}

// unreadError is a drop's failure for want of a secret. That the secret cannot
// be read is logged where it is read, not again by each drop.
type unreadError struct{ error }

func (e *unreadError) Unwrap() error { return e.error }

func (d *dropper) fail(s *state, err error) {
	first := s.err == nil || s.err.Error() != err.Error()
	s.err = err
	var unread *unreadError
	if first && !errors.As(err, &unread) {
		d.log.Error("drop failed; its file stays as it is", "drop", s.drop.Name, "destination", s.drop.Destination, "error", err)
	}
}

func (d *dropper) succeed(s *state) {
	if s.err != nil {
		d.log.Info("drop is current again", "drop", s.drop.Name, "destination", s.drop.Destination)
	}
	s.err, s.wrote = nil, true
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
