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
	"strings"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/journal"
	"github.com/smarteros/deaddrop/agent/internal/redact"
	"github.com/smarteros/deaddrop/agent/internal/reload"
	"github.com/smarteros/deaddrop/agent/supervise"
	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/drop"
)

// dropper turns readings into files. It knows no network and no schedule: it is
// told what has changed, and says which secrets it lacks.
type dropper struct {
	log             *slog.Logger
	tenant, service string
	readings        watch.Batch
	states          []*state
	folders         map[string]bool // that were looked at and cleaned
	cleaned         map[string]bool // those above folders that were missing
	placed          map[string]bool // places of tenants that were warned of
	environ         environ
	process         *supervise.Process    // nil where no command is supervised
	held            time.Time             // when the first of what is held back is due; zero where nothing is
	dry             bool                  // nothing is written
	busy            func(until time.Time) // is told how long a check may take
	counts          *counts               // of the whole run
	followed        []*following          // the for_each blocks
	grown           bool                  // there are more drops than the queue knows of
	byDestination   map[string]*state
	former          map[string]*state // those of the configuration before, while it is replaced
	farewells       []farewell        // to be told of tenants that are gone
	owed            []reload.Job      // of an earlier run
	released        []string          // leases of an earlier run, of files that are removed
	plan            *drop.Plan        // of the folders that are made
	journal         *journal.Store
}

// state is a drop and what became of it.
type state struct {
	drop  config.Drop
	env   string           // the variable that the drop is, instead of a file
	uses  []render.Request // as found out by the last render
	reads []readFile       // as found out by the last render
	sides []string         // files that the template has written besides
	dirty bool             // to be rendered
	// The first and the last change of what it is made of since its last render.
	firstChanged, changed time.Time
	isHeld                bool
	wrote                 bool      // its file has been current once in this run
	found                 bool      // an earlier run has left a file
	err                   error     // of the last try; nil when the file is as it should be
	stale                 error     // why the content is not the newest, though it is the best there is
	lacks                 bool      // a secret is not known yet
	gone                  bool      // its file was removed, as the secret was
	since                 time.Time // of err, stale or gone; else of the last write
	written               time.Time // when its content last changed, in this run
	said                  string    // warnings of the last write

	inFile   []render.Request // uses of what stands in the file
	leases   []*watch.Lease   // of what stands in the file
	filed    journal.Output   // what Vault has issued of what stands in the file
	orphaned journal.Output   // what an earlier run has left there
	sum      string           // of the content last rendered, if it holds certificates
	saved    journal.Output   // what the journal holds
	untold   bool             // services may not have been told of the file yet

	of     *following // the for_each block that it comes from, or nil
	late   bool       // it came while services were running: they are told even of its first file
	absent bool       // its tenant has no such secret, and no file of it
	isGone bool       // its tenant is gone
	made   []readFile // what the drop was made of, besides the configuration
}

func newDropper(cfg *config.Config, log *slog.Logger) *dropper {
	return newDropperOf(cfg, log, false)
}

func newDropperOf(cfg *config.Config, log *slog.Logger, dry bool) *dropper {
	d := &dropper{log: log, readings: watch.Batch{}, folders: map[string]bool{}, cleaned: map[string]bool{}, placed: map[string]bool{}, dry: dry, busy: func(time.Time) {}, counts: &counts{}}
	d.setDrops(cfg)
	return d
}

// key tells drops of two configurations apart.
func (s *state) key() string {
	if s.env != "" {
		return "env " + s.env
	}
	return s.drop.Destination
}

// setDrops replaces the drops; what is known of a destination is kept.
func (d *dropper) setDrops(cfg *config.Config) {
	d.former = map[string]*state{}
	for _, s := range d.states {
		d.former[s.key()] = s
	}
	d.plan = cfg.Folders()
	d.openJournal(cfg.StateDir)
	d.tenant, d.service, d.states, d.byDestination = cfg.Tenant, cfg.Service, nil, map[string]*state{}
	for _, each := range cfg.Drops {
		d.add(&state{drop: each, dirty: true})
	}
	if cfg.Supervise != nil {
		for _, each := range cfg.Supervise.Env {
			d.add(&state{env: each.Name, drop: envDrop(each, cfg.Wait), dirty: true})
		}
		if len(cfg.Supervise.Env) == 0 && !d.environ.whole {
			d.environ.whole, d.environ.news = true, true
		}
	}
	d.setFollowed(cfg.Each)
	d.former = nil
}

// add takes a drop in, with what is known of its destination: by the one of the
// configuration before, or by others that it takes the place of.
func (d *dropper) add(s *state, instead ...*state) {
	d.states = append(d.states, s)
	if s.env == "" {
		d.plan.Add(s.drop.File())
		for _, path := range s.drop.Paths() {
			d.byDestination[path] = s
		}
	}
	before := d.former[s.key()]
	if i := slices.IndexFunc(instead, func(o *state) bool { return o.key() == s.key() }); i >= 0 {
		before = instead[i]
	}
	switch {
	case before != nil:
		s.found, s.wrote, s.err, s.stale, s.since = before.found, before.wrote, before.err, before.stale, before.since
		s.inFile, s.leases, s.filed, s.orphaned = before.inFile, before.leases, before.filed, before.orphaned
		s.written, s.sum, s.saved = before.written, before.sum, before.saved
		s.sides, s.said, s.untold, s.late = before.sides, before.said, before.untold, before.late
	case s.env == "":
		_, missing := os.Stat(s.drop.Destination)
		s.found = missing == nil
		s.saved = d.journal.Output(s.drop.Destination)
		s.orphaned = s.saved
		s.untold, s.orphaned.PendingReload = s.orphaned.PendingReload, false
		if !d.dry {
			d.tidy(s)
		}
	}
}

// discard lets go of states.
func (d *dropper) discard(gone []*state) {
	d.states = slices.DeleteFunc(d.states, func(s *state) bool { return slices.Contains(gone, s) })
	for _, s := range gone {
		for _, path := range s.drop.Paths() {
			delete(d.byDestination, path)
		}
	}
}

// learn takes readings in and marks the drops that they concern.
func (d *dropper) learn(batch watch.Batch) {
	maps.Copy(d.readings, batch)
	for _, s := range d.states {
		if !s.isGone && slices.ContainsFunc(s.uses, func(r render.Request) bool { _, hit := batch[r]; return hit }) {
			s.touch()
		}
	}
	for _, f := range d.followed {
		if _, hit := batch[f.request()]; hit && f.of.Folder != "" {
			d.expand(f)
		}
	}
}

// uses are all that the drops ask for, and what stands in files that could not
// be replaced, in order.
func (d *dropper) uses() []render.Request {
	all := map[render.Request]bool{}
	for _, f := range d.followed {
		if f.of.Folder != "" {
			all[f.request()] = true
		}
	}
	for _, s := range d.states {
		for _, r := range s.uses {
			all[r] = true
		}
		for _, r := range s.inFile {
			// What a tenant that is gone still has in its files is kept alive with them.
			if s.err != nil || s.lacks || s.isGone && d.readings[r].Life.Lease != nil {
				all[r] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(all), byFingerprint)
}

func byFingerprint(a, b render.Request) int { return cmp.Compare(a.Fingerprint(), b.Fingerprint()) }

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

// group are the drops that change together: those of a set, the variables of a
// supervised command, or one alone.
type group struct {
	set    *config.Set
	states []*state
}

func (g group) isEnv() bool { return g.states[0].env != "" }

func (d *dropper) groups() []group {
	var groups []group
	sets, env := map[*config.Set]int{}, -1
	for _, s := range d.states {
		at, known := sets[s.drop.Set]
		switch {
		case s.env != "" && env >= 0:
			groups[env].states = append(groups[env].states, s)
			continue
		case s.env != "":
			env = len(groups)
		case s.drop.Set != nil && known:
			groups[at].states = append(groups[at].states, s)
			continue
		case s.drop.Set != nil:
			sets[s.drop.Set] = len(groups)
		}
		groups = append(groups, group{s.drop.Set, []*state{s}})
	}
	return groups
}

// rendered is a group whose content is whole.
type rendered struct {
	group
	contents [][]byte
	sides    [][]drop.File
	hidden   []string // what no output of a program may show, where output is shown at all
}

// step renders and writes what is dirty and can be rendered, and returns the
// news of it. Failures stay in the states, and are logged once.
func (d *dropper) step(ctx context.Context) []reload.Job {
	var ready []rendered
	d.retryUnmade()
	all := d.removeGone()
	seen := map[string]error{}
	d.held = time.Time{}
	for _, g := range d.groups() {
		if !slices.ContainsFunc(g.states, func(s *state) bool { return s.dirty }) || d.holdsBack(g) {
			continue
		}
		r, gone, ok := d.renderGroup(g)
		all = append(all, gone...)
		switch {
		case !ok:
		case g.isEnv():
			d.setEnviron(r)
		case d.prepare(g, seen):
			ready = append(ready, r)
		}
	}
	all = append(all, d.put(ctx, ready)...)
	for _, f := range d.followed {
		if f.began {
			d.remember(f) // Templates may have written other files besides.
		}
	}
	d.sayAbsent()
	return all
}

// holdsBack tells whether changes of a group are still gathered.
func (d *dropper) holdsBack(g group) bool {
	until := g.heldUntil()
	holds := until.After(time.Now())
	if holds && (d.held.IsZero() || until.Before(d.held)) {
		d.held = until
	}
	for _, s := range g.states {
		s.isHeld = holds
		if !holds {
			s.firstChanged, s.changed = time.Time{}, time.Time{}
		}
	}
	return holds
}

// renderGroup renders all of a group: what one of them lacks, the others are
// not shown without. ok is false where it cannot be written; there may be news of
// a file that is gone.
func (d *dropper) renderGroup(g group) (r rendered, gone []reload.Job, ok bool) {
	r = rendered{group: g}
	var failed *state
	var lacks, absent bool
	for _, s := range g.states {
		begun := time.Now()
		result, err := d.render(s)
		sides, unknown := sideFiles(result.Files)
		err = cmp.Or(err, unknown)
		if !s.lacks && !g.isAbsent(err) {
			d.counts.renders.Note(begun, err)
		}
		switch {
		case s.lacks:
			lacks = true
		case g.isAbsent(err):
			absent = true
		case isMissing(err) && s.drop.OnMissing == config.RemoveFile && g.set == nil:
			s.dirty = false
			if d.dry {
				s.gone = true
				return r, nil, false
			}
			return r, d.removeMissing(s), false
		case err != nil:
			s.dirty = false
			d.fail(s, err)
			failed = s
		}
		r.contents = append(r.contents, result.Content)
		r.sides = append(r.sides, sides)
	}
	if absent && !lacks && failed == nil {
		for _, s := range g.states {
			s.err, s.dirty, s.absent, s.late = nil, false, true, true
		}
		return r, nil, false
	}
	if failed != nil && !lacks {
		d.follow(g, failed, failed.err)
	}
	return r, nil, failed == nil && !lacks && !absent
}

// follow makes the failure of one of a group that of the others.
func (d *dropper) follow(g group, failed *state, err error) {
	for _, s := range g.states {
		if s != failed && !s.lacks {
			d.fail(s, &followError{g, failed, err})
			s.dirty = failed.dirty
		}
	}
}

// followError is the failure of a drop whose group has failed. That is logged
// for the one, not again for the others.
type followError struct {
	group
	failed *state
	err    error
}

func (e *followError) Error() string {
	of := "it changes together with the other variables"
	if e.set != nil {
		of = fmt.Sprintf("it changes together with set %q", e.set.Name)
	}
	return fmt.Sprintf("%s, and %q has failed: %v", of, e.failed.drop.Name, e.err)
}

func (e *followError) Unwrap() error { return e.err }

// prepare checks that the folders may hold the files of a group.
func (d *dropper) prepare(g group, seen map[string]error) bool {
	for _, s := range g.states {
		if err := d.mayHold(s, seen); err != nil { // It stays dirty: this may succeed later.
			d.fail(s, err)
			d.follow(g, s, err)
			return false
		}
	}
	return true
}

// put checks and writes what was rendered.
func (d *dropper) put(ctx context.Context, ready []rendered) []reload.Job {
	var units []drop.Unit
	first := make([]int, len(ready)) // the unit of each; those of its side files follow
	for i, r := range ready {
		if r.showsOutput() {
			ready[i].hidden = d.valuesOf(r)
		}
		first[i] = len(units)
		units = append(units, r.units()...)
	}
	batch := d.plan.Stage(units)
	d.keepIssued(ready)
	for i, r := range ready {
		d.examine(ctx, batch, first[i], r)
	}
	d.noteUntold(batch, ready, first)
	var all []reload.Job
	results, written := batch.Commit(), 0
	for i, r := range ready {
		end := len(results)
		if i+1 < len(ready) {
			end = first[i+1]
		}
		told, wrote := d.conclude(r, results[first[i]:end], len(units))
		all = append(all, told...)
		written += wrote
	}
	if written > 10 {
		d.log.Info("wrote files", "count", written)
	}
	wipe(units)
	return all
}

// wipe overwrites content that is in files now. The secrets that it was made of stay,
// for what is rendered next; but whole files are not to be found in memory.
func wipe(units []drop.Unit) {
	for _, unit := range units {
		for _, file := range unit.Files {
			clear(file.Content)
		}
	}
}

// units are that of the files, and one for each file that a template has written
// besides.
func (r rendered) units() []drop.Unit {
	own := drop.Unit{}
	if r.set != nil {
		own.Set = r.set.Folder
	}
	all := []drop.Unit{own}
	for i, s := range r.states {
		file := s.drop.File()
		file.Content = r.contents[i]
		all[0].Files = append(all[0].Files, file)
		for _, side := range r.sides[i] {
			side.Strict, side.Place = s.drop.Strict, s.placeOf(side.Path)
			all = append(all, drop.Unit{Files: []drop.File{side}})
		}
	}
	return all
}

// conclude takes in what became of a group, and counts the files written.
func (d *dropper) conclude(r rendered, results [][]drop.Result, of int) (told []reload.Job, written int) {
	var failed, unsynced error
	changed := false // by a file besides
	for _, each := range slices.Concat(results...) {
		unsynced = cmp.Or(unsynced, each.Unsynced)
		if each.Outcome == drop.Failed && failed == nil {
			failed = each.Err
		}
	}
	for _, each := range results[1:] {
		changed = changed || each[0].Outcome == drop.Created || each[0].Outcome == drop.Changed
	}
	if failed != nil {
		s := r.states[0]
		var bad *checkError
		isCheck := errors.As(failed, &bad)
		if isCheck && bad.whose != nil {
			s = bad.whose
		}
		if !isCheck {
			d.counts.writes.Note(time.Now(), failed)
		}
		s.dirty = !isCheck // A write may succeed later with the same content.
		d.fail(s, failed)
		d.follow(r.group, s, failed)
		return nil, 0
	}
	outcomes := make([]drop.Outcome, len(r.states))
	for i := range r.states {
		outcomes[i] = results[0][i].Outcome
		if outcomes[i] == drop.Unchanged && changed {
			outcomes[i] = drop.Changed
		}
	}
	told = d.newsOf(r, outcomes)
	for i, s := range r.states {
		s.dirty, s.sides = false, pathsOf(r.sides[i])
		if outcomes[i] != drop.Unchanged {
			written++
			d.counts.writes.Note(time.Now(), nil)
			s.written = time.Now()
			d.logWritten(s, outcomes[i], of)
		}
		warnings := results[0][i].Warnings
		if unsynced != nil {
			warnings = append(warnings, "a power failure may undo it: "+unsynced.Error())
		}
		d.warn(s, warnings)
		d.succeed(s, outcomes[i])
	}
	return told, written
}

// warn tells what is not as one would expect of a file that is current, once.
func (d *dropper) warn(s *state, warnings []string) {
	text := strings.Join(warnings, "; ")
	if text != "" && text != s.said {
		d.log.Warn("the file is current, but "+text, "drop", s.drop.Name, "destination", s.drop.Destination)
	}
	s.said = text
}

// removeMissing takes a file away whose secret is gone. That it is gone is news, too.
func (d *dropper) removeMissing(s *state) []reload.Job {
	removed, err := s.remove(s.drop.Destination)
	if err != nil {
		s.dirty = true
		d.fail(s, fmt.Errorf("removing the file of a secret that is gone: %w", err))
		return nil
	}
	s.err, s.stale, s.inFile, s.leases, s.wrote = nil, nil, nil, nil, true
	if !s.gone {
		s.gone, s.since = true, time.Now()
		d.log.Info("the secret is gone, and so is its file", "drop", s.drop.Name, "destination", s.drop.Destination)
	}
	if !removed {
		return nil
	}
	told := reload.Change{Files: []string{s.drop.Destination}, At: time.Now()}
	return []reload.Job{{Change: told, Actions: d.wanted(s.drop.Reloads, false)}}
}

// render sets s.uses, s.reads, s.lacks and s.stale. A secret that cannot be read
// fails the drop only where no earlier version of it is known, or where the file
// is not to outlive the secret.
func (d *dropper) render(s *state) (render.Result, error) {
	s.uses, s.reads, s.lacks, s.absent = nil, nil, false, false
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
			return render.Result{}, unread
		}
	}
	if s.drop.Format != render.FormatTemplate {
		content, err := s.drop.Encode(dot)
		return render.Result{Content: content}, err
	}
	result, err := s.drop.Template.Execute(d.input(s, dot, lookup))
	s.uses = append(s.uses, result.Uses...)
	if unread != nil {
		return render.Result{}, unread
	}
	s.lacks = len(result.Missing) > 0
	return result, err
}

// input is what the template of a drop is rendered with.
func (d *dropper) input(s *state, dot *render.Secret, lookup func(render.Request) *render.Secret) render.Input {
	return render.Input{
		Secret: lookup, Env: os.LookupEnv, File: s.readFile, Now: time.Now(),
		Tenant: cmp.Or(s.drop.Key, d.tenant), Key: s.drop.Key, Service: d.service, Dialect: s.drop.Dialect, Dot: dot,
	}
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
	first := s.err == nil || s.err.Error() != err.Error() || outputIn(s.err) != outputIn(err)
	if s.err == nil {
		s.since = time.Now()
	}
	s.err = err
	var unread *unreadError
	var follows *followError
	switch {
	case !first || errors.As(err, &unread) || errors.As(err, &follows):
	case s.env != "":
		what := "variable failed, command not started yet"
		if d.process != nil && d.process.HasEnviron() {
			what = "variable failed, command keeps its environment"
		}
		d.log.Error(what, append([]any{"name", s.env, "error", err}, ifAny("hint", render.HintOf(err))...)...)
	default:
		what := "drop failed, no file written yet"
		if s.hasFile() {
			what = "drop failed, keeping last good file"
		}
		d.log.Error(what, slices.Concat([]any{"drop", s.drop.Name, "destination", s.drop.Destination, "error", err}, ifAny("hint", render.HintOf(err)), redact.OutputOf(err))...)
	}
}

// hasFile reports whether there is a file, of this run or an earlier one.
func (s *state) hasFile() bool { return s.env == "" && (s.found || s.wrote) && !s.gone }

func (d *dropper) succeed(s *state, outcome drop.Outcome) {
	if s.err != nil && s.env == "" {
		d.log.Info("drop is current again", "drop", s.drop.Name, "destination", s.drop.Destination)
	}
	if s.err != nil || s.gone || outcome != drop.Unchanged || s.since.IsZero() {
		s.since = time.Now()
	}
	s.err, s.wrote, s.gone = nil, true, false
	issued := d.issuedTo(s)
	s.inFile, s.filed = s.uses, issued
	s.orphaned.Certificates, s.orphaned.Contents = nil, nil
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
	return d.hasUnmade() || slices.ContainsFunc(d.states, func(s *state) bool { return s.dirty && !s.lacks && !s.isHeld })
}

// err joins the failures of all drops; one that several drops share shows once.
func (d *dropper) err() error {
	var errs []error
	for _, f := range d.followed {
		if f.err != nil {
			errs = append(errs, fmt.Errorf("drop %q: listing the tenants of for_each: %w", f.of.Name, f.err))
		}
		for _, key := range slices.Sorted(maps.Keys(f.members)) {
			if err := f.members[key].err; err != nil {
				errs = append(errs, fmt.Errorf("drop %q, tenant %s: %w", f.of.Name, key, err))
			}
		}
	}
	seen := map[string]bool{}
	for _, s := range d.states {
		var follows *followError
		if s.err == nil || seen[s.err.Error()] || errors.As(s.err, &follows) {
			continue
		}
		seen[s.err.Error()] = true
		errs = append(errs, fmt.Errorf("drop %q: %w", s.drop.Name, s.err))
	}
	return errors.Join(errs...)
}
