package agent

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/filestate"
	"github.com/smarteros/deaddrop/agent/internal/foreach"
	"github.com/smarteros/deaddrop/agent/internal/journal"
	"github.com/smarteros/deaddrop/agent/internal/output"
	"github.com/smarteros/deaddrop/agent/internal/publish"
	"github.com/smarteros/deaddrop/agent/internal/readings"
	"github.com/smarteros/deaddrop/agent/internal/reload"
	"github.com/smarteros/deaddrop/agent/supervise"
	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/drop"
)

// pipeline turns readings into files, and says which reloads they call for. It passes
// values between the parts that do the work, and knows neither Vault nor a schedule. It must
// not be used concurrently.
type pipeline struct {
	cfg         *config.Config
	readings    *readings.Cache[any] // users are outputs and for_each blocks
	outputs     *output.Table
	publisher   *publish.Publisher
	folders     *publish.Folders
	plan        *drop.Plan
	ledger      *journal.Ledger
	blocks      *foreach.Blocks
	environment environment
	command     *supervise.Process // nil if no command is supervised
	// hasNewReloads says that the queue does not know the reloads of all outputs.
	hasNewReloads bool
	// isDry says that nothing is written.
	isDry bool
	log   *slog.Logger
}

func newPipeline(log *slog.Logger) *pipeline {
	p := &pipeline{readings: readings.New[any](), log: log}
	p.outputs = output.NewTable(p.readings, log)
	p.publisher = publish.New(p, log)
	p.folders = publish.NewFolders(log)
	return p
}

// configure replaces the configuration. What is known of an output or a tenant is kept.
func (p *pipeline) configure(cfg *config.Config) {
	earlier := map[string]*output.Output{}
	for _, o := range p.outputs.Outputs() {
		earlier[o.Key()] = o
	}
	p.cfg = cfg
	p.plan = cfg.Folders()
	p.publisher.SetPlan(p.plan)
	p.openJournals()
	p.outputs.Reset(cfg.Tenant, cfg.Service)
	for _, each := range cfg.Drops {
		p.add(output.New(each), earlier)
	}
	if cfg.Supervise != nil {
		for _, each := range cfg.Supervise.Env {
			p.add(output.NewVariable(each, cfg.Wait), earlier)
		}
		if len(cfg.Supervise.Env) == 0 {
			p.environment.set(nil)
		}
	}
	p.blocks.Configure(cfg.Each, earlier)
	p.hasNewReloads = true
}

// openJournals opens the journals in the state directory of the configuration.
func (p *pipeline) openJournals() {
	store := journal.OpenDirectory(p.cfg.StateDir, p.log)
	store.ReadOnly = p.isDry
	if p.ledger == nil {
		p.ledger = journal.NewLedger(store)
		p.blocks = foreach.New(foreach.Parts{
			Outputs: p.outputs, Readings: p.readings, Ledger: p.ledger, Planner: p.planner(), Add: p.add,
			RemoveFiles: removeFiles, Removed: p.noteRemoved, Asks: p.asks, IsDry: p.isDry, Log: p.log,
		})
		return
	}
	if p.ledger.Store().Dir() != store.Dir() {
		p.blocks.ForgetJournals()
	}
	p.ledger.SetStore(store)
}

// add takes an output in. earlier are the outputs that it may be the same as, by key.
func (p *pipeline) add(o *output.Output, earlier map[string]*output.Output) {
	before := earlier[o.Key()]
	if o.Variable == "" {
		p.plan.Add(o.Drop.File())
		p.ledger.Open(o.Drop.Destination)
		if before == nil && !p.isDry {
			p.folders.Visit(&o.Drop)
		}
	}
	p.outputs.Add(o, before)
}

// noteRemoved takes in that the file of an output was removed, and its folder may have been.
func (p *pipeline) noteRemoved(o *output.Output) {
	p.publisher.Forget(o.Drop.Destination)
	p.folders.Forget(filepath.Dir(o.Drop.Destination))
}

// learn takes readings in, and schedules the outputs that they concern.
func (p *pipeline) learn(batch watch.Batch) {
	var listed []*foreach.Block // They come last, as they may remove outputs.
	for _, user := range p.readings.Learn(batch) {
		switch user := user.(type) {
		case *output.Output:
			p.outputs.Changed(user)
		case *foreach.Block:
			listed = append(listed, user)
		}
	}
	for _, b := range listed {
		p.blocks.List(b)
	}
}

// sync does what is due: it renders outputs, publishes the results, removes files, and
// returns the reloads that are called for.
func (p *pipeline) sync(ctx context.Context) []reload.Job {
	all := p.blocks.Sync()
	work := p.outputs.RenderDue(time.Now())
	for _, o := range work.Missing {
		all = append(all, p.removeMissing(o)...)
	}
	files := slices.DeleteFunc(work.Ready, func(r output.Rendered) bool {
		if r.Group().IsEnvironment() {
			p.publishEnvironment(r)
		}
		return r.Group().IsEnvironment()
	})
	if len(files) > 0 {
		for _, published := range p.publisher.Publish(ctx, files) {
			all = append(all, p.conclude(published)...)
		}
		p.blocks.Save() // Templates may have written other files besides.
	}
	p.blocks.LogAbsent()
	return all
}

// Record implements [publish.Recorder]: what Vault has issued, and which reloads will be
// pending, is in the journals before a file changes.
func (p *pipeline) Record(all []publish.Staged) {
	var destinations []string
	for _, staged := range all {
		for i, o := range staged.Group().Outputs {
			file := staged.Files[i]
			isFirst := file.IsFirst && !filestate.Exists(o.Drop.Destination)
			p.ledger.Stage(p.issued(file), staged.IsChange && p.planner().Wants(&o.Drop, staged.Set, isFirst))
			destinations = append(destinations, o.Drop.Destination)
		}
	}
	p.ledger.SaveStaged(destinations)
}

// conclude takes in what became of a group, and returns the reloads that it calls for.
func (p *pipeline) conclude(published publish.Published) []reload.Job {
	outputs := published.Group().Outputs
	var changes []reload.FileChange
	for i, o := range outputs {
		outcome := published.Outcomes[i]
		isChanged := outcome.IsChange()
		p.ledger.Conclude(o.Drop.Destination, published.Err == nil, isChanged)
		if published.Err == nil && (isChanged || p.ledger.IsReloadOwed(o.Drop.Destination)) {
			changes = append(changes, reload.FileChange{
				Drop: &o.Drop, IsFirst: outcome == drop.Created && published.Files[i].IsFirst, IsEarlier: !isChanged,
			})
		}
	}
	if published.Err != nil {
		retry := output.RetryAfter
		var tampered *output.TamperError
		if published.IsRefused() || errors.As(published.Err, &tampered) {
			retry = 0 // It would end the same way until something changes.
		}
		p.outputs.Fail(outputs[published.Failed], published.Err, retry)
		return nil
	}
	p.outputs.Succeed(published.Rendered, published.Outcomes)
	all := p.planner().Plan(published.Set, changes, published.Hidden)
	for _, change := range changes {
		p.ledger.Queue(change.Drop.Destination, len(all) > 0)
	}
	return all
}

// removeMissing removes the file of an output whose secret is missing, and returns the
// reloads that this calls for.
func (p *pipeline) removeMissing(o *output.Output) []reload.Job {
	destination := o.Drop.Destination
	p.ledger.Stage(journal.Output{Destination: destination}, filestate.Exists(destination) && p.planner().Wants(&o.Drop, nil, false))
	p.ledger.SaveStaged([]string{destination})
	removed, err := publish.RemoveFile(&o.Drop, destination)
	p.ledger.Conclude(destination, false, removed)
	if err != nil {
		p.outputs.FailRemovalOfMissing(o, err)
		return nil
	}
	if content := o.Content(); content == nil || !content.IsRemoved {
		p.log.Info("the secret is gone, and so is its file", "drop", o.Drop.Name, "destination", o.Drop.Destination)
	}
	p.outputs.NoteRemoved(o)
	p.publisher.Forget(destination)
	p.ledger.NoteRemoved(destination)
	if !removed && !p.ledger.IsReloadOwed(destination) {
		return nil
	}
	jobs := p.planner().Plan(nil, []reload.FileChange{{Drop: &o.Drop}}, nil)
	p.ledger.Queue(destination, len(jobs) > 0)
	return jobs
}

// planner plans reloads. An agent that renders once has no command to reload.
func (p *pipeline) planner() reload.Planner {
	if p.command == nil {
		return reload.Planner{}
	}
	return reload.Planner{Child: p.command.Reload}
}

// noteReloads takes in which files still have pending reloads, and brings the journals up to
// date.
func (p *pipeline) noteReloads(pending map[string]bool) {
	p.blocks.NoteReloads(pending)
	p.ledger.NoteReloads(func(destination string) bool { return pending[destination] })
	p.ledger.Save(time.Now())
}

// close takes in which files still have pending reloads, and saves what the next agent has to
// know. No later attempt follows.
func (p *pipeline) close(pending map[string]bool) {
	p.noteReloads(pending)
	p.blocks.Save()
	p.ledger.SaveNow()
}

// subscriptions are the reloads for each file, also for files that are removed.
func (p *pipeline) subscriptions() []reload.Subscription {
	all := p.blocks.Subscriptions()
	for _, o := range p.outputs.Outputs() {
		all = append(all, reload.Subscription{Files: []string{o.Drop.Destination}, Actions: p.planner().Actions(&o.Drop)})
	}
	return all
}

// nextAttempt is when something is due that does not wait for a reading; zero if nothing is.
func (p *pipeline) nextAttempt() time.Time {
	return output.Earliest(p.outputs.NextAttempt(), p.ledger.NextAttempt(), p.blocks.NextAttempt())
}

// noteChangedFiles schedules the outputs that are made of files that have changed.
func (p *pipeline) noteChangedFiles() {
	p.blocks.NoteChangedFiles()
	p.outputs.NoteChangedFiles()
}

// restoreChanged schedules the outputs whose files are not what was published.
func (p *pipeline) restoreChanged(comparesContent bool) {
	for _, destination := range p.publisher.FindChanged(comparesContent) {
		o := p.outputs.Owner(destination)
		if o == nil {
			p.publisher.Forget(destination)
			continue
		}
		switch o.Status() {
		case output.Current, output.Stale:
			p.outputs.Restore(o)
		case output.Departed, output.Removed:
			p.publisher.Forget(destination) // Nobody wants it back.
		}
	}
}

// onExit removes the files that are not to outlive the agent.
func (p *pipeline) onExit() {
	for _, o := range p.outputs.Outputs() {
		if !o.Drop.RemoveOnExit {
			continue
		}
		if err := removeFiles(o); err != nil {
			p.log.Error("a file that is not to outlive the agent cannot be removed", "drop", o.Drop.Name, "destination", o.Drop.Destination, "error", err)
		}
	}
}

// removeFiles removes the file of an output, and those that its template has written besides.
func removeFiles(o *output.Output) error { return publish.Remove(&o.Drop, o.SideFiles()) }

// hasFileOf reports whether there is a file, or a command with a variable, that was made of
// a secret.
func (p *pipeline) hasFileOf(request render.Request) bool {
	return slices.ContainsFunc(p.readings.Users(request), func(user any) bool {
		o, isOutput := user.(*output.Output)
		return isOutput && (o.HasFile() || o.Variable != "" && p.command != nil && p.command.HasEnviron())
	})
}

// isExpected reports whether a failed reading is no news: that of a list is logged by
// [foreach.Blocks.List], and a secret may be missing that only tenants without a file of it use.
func (p *pipeline) isExpected(request render.Request, err error) bool {
	for _, user := range p.readings.Users(request) {
		switch user := user.(type) {
		case *foreach.Block:
			return true
		case *output.Output:
			if !output.IsMissing(err) || !user.IsOfTenant() || filestate.Exists(user.Drop.Destination) {
				return false
			}
		}
	}
	return output.IsMissing(err) && !p.blocks.IsEmpty()
}
