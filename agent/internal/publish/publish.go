// Package publish puts rendered content into files: it looks at the folders, has the
// content checked, and commits it. It knows no reloads.
package publish

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/output"
	"github.com/smarteros/deaddrop/agent/internal/tally"
	"github.com/smarteros/deaddrop/render/drop"
)

// Published is what became of rendered content.
type Published struct {
	output.Rendered
	// Outcomes are those of the files, in their order. A side file that has changed counts
	// as a change of the file whose template has written it. They are true of an attempt
	// that has failed, too: then some files may have changed.
	Outcomes []drop.Outcome
	// Err is why not all is in place; nil if it is. Failed is the index of the file that is
	// the cause.
	Err    error
	Failed int
	// Hidden are the values that no output of a program may show, if any may be shown.
	Hidden []string
}

// IsRefused reports whether a check has refused the content. It would do so again until the
// content changes.
func (p Published) IsRefused() bool {
	var refused *CheckError
	return errors.As(p.Err, &refused)
}

// Staged is content that is ready to be put in place.
type Staged struct {
	output.Rendered
	// IsChange says that a file is going to change.
	IsChange bool
}

// Recorder writes down what is about to happen to files, before a check or a service can
// see their content.
type Recorder interface {
	Record([]Staged)
}

// Publisher puts content into files. It must not be used concurrently.
type Publisher struct {
	// Busy is called with the time until which a check may take, and with the zero time
	// when the check has ended.
	Busy func(until time.Time)
	// Checks and Writes count what was tried, Restored the groups of files that another
	// program had changed.
	Checks, Writes, Restored *tally.Tally

	plan     *drop.Plan
	recorder Recorder
	log      *slog.Logger
	warned   map[string]string // by destination: warnings of the last write
	guard    guard
}

// New returns a publisher. The plan knows of all files that are going to be published, see
// [Publisher.SetPlan].
func New(recorder Recorder, log *slog.Logger) *Publisher {
	return &Publisher{
		Busy: func(time.Time) {}, Checks: &tally.Tally{}, Writes: &tally.Tally{}, Restored: &tally.Tally{},
		plan: &drop.Plan{}, recorder: recorder, log: log, warned: map[string]string{}, guard: guard{},
	}
}

// SetPlan replaces the plan by which folders are made.
func (p *Publisher) SetPlan(plan *drop.Plan) { p.plan = plan }

// few is up to how many files are logged one by one.
const few = 10

// job is content on its way, and which units of the batch it has.
type job struct {
	Published
	first, end int
	print      fingerprint // of its units
	restored   []restored
}

// restored is a file that another program had changed.
type restored struct {
	drop       *config.Drop
	difference string
}

// Publish checks and writes content, all of it in one batch. The result has the order of
// what was rendered. The content is wiped: whole files are not to be found in memory later.
func (p *Publisher) Publish(ctx context.Context, rendered []output.Rendered) []Published {
	jobs, units := p.prepare(rendered)
	batch := p.plan.Stage(units)
	p.record(batch, jobs)
	for i := range jobs {
		p.examine(ctx, batch, &jobs[i])
	}
	results := batch.Commit()
	all, written := make([]Published, len(jobs)), 0
	var restored []restored
	for i := range jobs {
		j := &jobs[i]
		written += p.conclude(j, units[j.first:j.end], results[j.first:j.end], len(units) > few)
		all[i] = j.Published
		restored = append(restored, j.restored...)
	}
	p.logRestored(restored)
	if written > few {
		p.log.Info("wrote files", "count", written)
	}
	for _, unit := range units {
		for _, file := range unit.Files {
			clear(file.Content)
		}
	}
	return all
}

// prepare turns content into units of a batch, unless its folder may not hold it.
func (p *Publisher) prepare(rendered []output.Rendered) (jobs []job, units []drop.Unit) {
	known := map[policy]error{}
	for _, r := range rendered {
		j := job{Published: Published{Rendered: r, Outcomes: make([]drop.Outcome, len(r.Files))}, first: len(units)}
		j.Failed, j.Err = refusal(r, known)
		own := unitsOf(r)
		if j.Err == nil {
			j.print = fingerprintOf(own)
			j.Err = p.guard.refusal(&j, own)
		}
		if j.Err == nil {
			if r.ShowsOutput {
				j.Hidden = hidden(r)
			}
			units = append(units, own...)
		}
		j.end = len(units)
		jobs = append(jobs, j)
	}
	return jobs, units
}

// unitsOf are the unit of the files, and one for each file that a template has written
// besides.
func unitsOf(r output.Rendered) []drop.Unit {
	own := drop.Unit{}
	if r.Set != nil {
		own.Set = r.Set.Folder
	}
	all := []drop.Unit{own}
	for _, f := range r.Files {
		file := f.Drop.File()
		file.Content = f.Content
		all[0].Files = append(all[0].Files, file)
		for _, side := range f.SideFiles {
			side.Strict, side.Place = f.Drop.Strict, placeOf(f.Drop, side.Path)
			all = append(all, drop.Unit{Files: []drop.File{side}})
		}
	}
	return all
}

func (p *Publisher) record(batch *drop.Batch, jobs []job) {
	var all []Staged
	for _, j := range jobs {
		if j.Err != nil {
			continue
		}
		s := Staged{Rendered: j.Rendered}
		for unit := j.first; unit < j.end; unit++ {
			s.IsChange = s.IsChange || batch.Pending(unit) != ""
		}
		all = append(all, s)
	}
	if len(all) > 0 {
		p.recorder.Record(all)
	}
}

// conclude takes in what became of a job, and returns how many files were written.
func (p *Publisher) conclude(j *job, units []drop.Unit, results [][]drop.Result, isMany bool) (written int) {
	if len(units) == 0 {
		return 0
	}
	own, sides := results[0], results[1:]
	var warnings [][]string
	for i := range j.Files {
		j.Outcomes[i] = own[i].Outcome
		j.note(i, own[i].Err)
		warnings = append(warnings, warningsOf(own[i]))
		for range j.Files[i].SideFiles {
			side := sides[0][0]
			sides = sides[1:]
			j.note(i, side.Err)
			warnings[i] = append(warnings[i], warningsOf(side)...)
			if j.Outcomes[i] == drop.Unchanged && side.Outcome.IsChange() {
				j.Outcomes[i] = drop.Changed
			}
		}
	}
	if j.Err != nil {
		if j.IsRefused() {
			p.guard.accept(keyOf(j.Rendered)) // The check would refuse the same content at each look.
		} else {
			p.Writes.Note(time.Now(), j.Err)
		}
		return 0
	}
	difference := p.guard.restored(j, results)
	if difference != "" {
		p.Restored.Note(time.Now(), nil)
		if j.Set != nil { // The generation that "..data" does not name any more holds secrets.
			_, _ = drop.CleanBelow(j.Files[0].Drop.Place, j.Set.Folder, time.Now())
		}
	}
	for i, f := range j.Files {
		switch {
		case j.Outcomes[i] == drop.Unchanged:
			p.warn(f.Drop, warnings[i])
			continue
		case difference != "":
			j.restored = append(j.restored, restored{f.Drop, difference})
		default:
			p.logWritten(f.Drop, j.Outcomes[i], isMany)
			p.warn(f.Drop, warnings[i])
		}
		written++
		p.Writes.Note(time.Now(), nil)
	}
	p.guard.note(j, units, results)
	return written
}

// warningsOf are what is not as one would expect of a file that is in place.
func warningsOf(result drop.Result) []string {
	warnings := slices.Clone(result.Warnings)
	if result.Unsynced != nil {
		warnings = append(warnings, "a power failure may undo it: "+result.Unsynced.Error())
	}
	return warnings
}

// note keeps the first failure, and whose it is.
func (j *job) note(i int, err error) {
	if err == nil || j.Err != nil {
		return
	}
	j.Failed, j.Err = i, err
	var refused *CheckError
	if errors.As(err, &refused) {
		j.Failed = refused.file
	}
}

// logRestored logs each file that another program had changed, or how many there are if they
// are not few, as after a folder was emptied.
func (p *Publisher) logRestored(all []restored) {
	const hint = "set on_tamper = \"warn\" to keep changes that are made on purpose"
	level := slog.LevelWarn
	if len(all) > few {
		level = slog.LevelDebug
		p.log.Warn("files were changed by another program, restored them", "count", len(all), "hint", hint)
	}
	for _, r := range all {
		p.log.Log(context.Background(), level, "file was changed by another program, restored it",
			"drop", r.drop.Name, "destination", r.drop.Destination, "difference", r.difference, "hint", hint)
	}
}

func (p *Publisher) logWritten(d *config.Drop, outcome drop.Outcome, isMany bool) {
	level, message := slog.LevelInfo, "file changed"
	if isMany {
		level = slog.LevelDebug // A summary follows.
	}
	if outcome == drop.Created {
		message = "file created"
	}
	p.log.Log(context.Background(), level, message, "drop", d.Name, "destination", d.Destination)
}

// warn logs once what is not as one would expect of a file that is current.
func (p *Publisher) warn(d *config.Drop, warnings []string) {
	text := strings.Join(warnings, "; ")
	if text != p.warned[d.Destination] {
		if text != "" {
			p.log.Warn("the file is current, but "+text, "drop", d.Name, "destination", d.Destination)
		}
		p.warned[d.Destination] = text
	}
	if text == "" {
		delete(p.warned, d.Destination)
	}
}
