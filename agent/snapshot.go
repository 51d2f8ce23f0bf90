package agent

import (
	"context"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/foreach"
	"github.com/smarteros/deaddrop/agent/internal/output"
	"github.com/smarteros/deaddrop/agent/internal/reload"
	"github.com/smarteros/deaddrop/agent/internal/tally"
	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/agent/status"
	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render"
)

// report is how everything is.
func (l *loop) report(ctx context.Context) *status.Report {
	r := &status.Report{PID: os.Getpid(), Started: l.started, At: time.Now(), Summary: l.summary(), Config: l.board.Config()}
	is := l.vault.Status()
	r.Session = status.Session{Address: l.vault.Address(), LoggedIn: is.LoggedIn, TokenSince: is.Since, TokenEnds: is.Ends, Error: message(is.Err)}
	watched := l.watcher.States(ctx)
	for _, request := range l.readings.Requests() {
		reading, _ := l.readings.Reading(request)
		r.Secrets = append(r.Secrets, secretStatus(request, reading, watched[request]))
	}
	if l.command != nil && !l.command.HasEnviron() {
		r.CommandAwaits = l.awaited()
	}
	blocks := map[*output.Output]string{}
	for _, is := range l.blocks.Snapshots() {
		r.ForEach = append(r.ForEach, blockStatus(is))
		for _, o := range is.Outputs {
			blocks[o] = is.Name
		}
	}
	for _, o := range l.outputs.Outputs() {
		r.Drops = append(r.Drops, outputStatus(o, blocks[o]))
	}
	for _, each := range l.queue.States() {
		r.Reloads = append(r.Reloads, reloadStatus(each))
	}
	return r
}

// summary is how the outputs are, in a line.
func (p *pipeline) summary() status.Summary {
	good, served, fault := 0, 0, ""
	all := p.outputs.Outputs()
	for _, o := range all {
		switch {
		case stateOf(o.Status()).IsGood():
			good++
			served++
		case o.HasContent():
			served++
		}
	}
	for _, name := range p.blocks.Unknown(true) {
		fault = "the tenants of for_each \"" + name + "\" are not known"
	}
	summary := status.Summarize(good, len(all), fault)
	summary.Served = served == len(all) && fault == ""
	return summary
}

// logStatus writes the report to the log: an answer to SIGUSR1.
func (l *loop) logStatus(ctx context.Context) {
	r := l.report(ctx)
	session := []any{"address", r.Session.Address}
	switch {
	case !r.Session.LoggedIn:
		session = append(session, "state", "not logged in")
	default:
		session = append(session, "state", "logged in")
	}
	l.log.Info("status of the session", append(session, at("token_ends", r.Session.TokenEnds)...)...)
	if len(r.CommandAwaits) > 0 {
		l.log.Info("status of the command", "state", "waiting to start", "drop", r.CommandAwaits)
	}
	for _, f := range r.ForEach {
		folder := f.Folder
		if folder == "" {
			folder = "a list"
		}
		l.log.Info("status of a for_each", append([]any{"drop", f.Name, "for_each", folder, "tenants", f.Tenants}, ifAny("error", f.Error)...)...)
		for _, tenant := range slices.Sorted(maps.Keys(f.Failed)) {
			l.log.Info("status of a tenant", "drop", f.Name, "tenant", tenant, "state", "failed", "error", f.Failed[tenant])
		}
	}
	for _, d := range r.Drops {
		args := []any{"drop", d.Name, "destination", d.Destination, "state", d.State}
		l.log.Info("status of a drop", slices.Concat(args, at("since", d.Since), ifAny("error", d.Error))...)
	}
	for _, each := range r.Reloads {
		args := slices.Concat([]any{"target", each.By, "state", each.State}, at("since", each.Since), at("next", each.Next), ifAny("error", each.Error))
		if each.Tries > 0 {
			args = append(args, "tries", each.Tries)
		}
		l.log.Info("status of a reload", args...)
	}
}

// at and ifAny are attributes of the log, or none where there is nothing to say.
func at(name string, t time.Time) []any {
	if t.IsZero() {
		return nil
	}
	return []any{name, t.UTC().Format(time.RFC3339)}
}

func ifAny(name, s string) []any {
	if s == "" {
		return nil
	}
	return []any{name, s}
}

func secretStatus(request render.Request, known watch.Reading, is watch.State) status.Secret {
	s := status.Secret{Path: request.String(), Error: message(known.Err), Checked: is.Answered, Attempted: is.Attempted, Next: is.Next, Ends: is.Ends, Failing: is.Failing}
	if known.Secret != nil {
		s.Version, s.Created = known.Secret.Version, known.Secret.Created
	}
	return s
}

// configStatus is of a configuration that has just been read.
func configStatus(cfg *config.Config) status.Config {
	is := status.Config{Files: cfg.Files, Loaded: time.Now()}
	for _, w := range cfg.Warnings {
		is.Warnings = append(is.Warnings, w.String())
	}
	return is
}

// counts are what all sessions of the agent have done.
type counts struct {
	session                                  session.Counts
	reads, renders, checks, writes, restored tally.Tally
	reloads                                  func() tally.Sum
}

func (c *counts) now() status.Counts {
	s := &c.session
	return status.Counts{
		Up: s.Up(), Logins: s.Logins.Sum(), Renewals: s.Renewals.Sum(), Requests: s.Requests.Sum(),
		Reads: c.reads.Sum(), Renders: c.renders.Sum(), Checks: c.checks.Sum(), Writes: c.writes.Sum(), Restored: c.restored.Sum(), Reloads: c.reloads(),
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func blockStatus(is foreach.Snapshot) status.ForEach {
	r := status.ForEach{Name: is.Name, Folder: is.Folder, Tenants: is.Tenants, Error: message(is.Err)}
	for id, err := range is.Failed {
		if r.Failed == nil {
			r.Failed = map[string]string{}
		}
		r.Failed[id] = err.Error()
	}
	return r
}

func reloadStatus(r reload.State) status.Reload {
	s := status.Reload{By: r.Target, Tries: r.Tries, Error: message(r.Err), Since: r.Since}
	switch {
	case r.Err != nil && r.Tries == 0:
		s.State = status.NotReady
	case r.Err != nil:
		s.State = status.ReloadFailed
	case r.Waiting:
		s.State = status.ReloadWaiting
	case r.Done.IsZero():
		s.State = status.NotNeeded
	default:
		s.State, s.Since = status.Done, r.Done
	}
	if r.Waiting {
		s.Next = r.Next
	}
	return s
}

func outputStatus(o *output.Output, block string) status.Drop {
	d := status.Drop{
		Name: o.Drop.Name, Destination: o.Drop.Destination, Tenant: o.Drop.Key, Block: block,
		State: stateOf(o.Status()), Since: o.Since(), Error: message(o.Reason()),
	}
	if content := o.Content(); content != nil {
		d.Written = content.Written
	}
	reloads := o.Drop.Reloads
	if o.Drop.Set != nil {
		reloads = slices.Concat(reloads, o.Drop.Set.Reloads)
	}
	for _, each := range reloads {
		d.Reloads = append(d.Reloads, each.Target.String())
	}
	return d
}

// stateOf is how a status is shown.
func stateOf(is output.Status) status.State {
	return [...]status.State{
		output.Waiting: status.Waiting, output.Current: status.Current, output.Stale: status.Stale, output.Failed: status.Failed,
		output.Removed: status.Removed, output.Absent: status.Absent, output.Departed: status.Departed,
	}[is]
}
