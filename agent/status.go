package agent

import (
	"context"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/reload"
	"github.com/smarteros/deaddrop/agent/internal/tally"
	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/agent/status"
	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render"
)

// report is how everything is.
func (k *keeper) report(ctx context.Context) *status.Report {
	r := &status.Report{PID: os.Getpid(), Started: k.started, At: time.Now(), Summary: k.summary(), Config: k.board.Config()}
	is := k.vault.Status()
	r.Session = status.Session{Address: k.vault.Address(), LoggedIn: is.LoggedIn, TokenSince: is.Since, TokenEnds: is.Ends, Error: message(is.Err)}
	watched := k.watcher.States(ctx)
	for _, request := range k.uses() {
		r.Secrets = append(r.Secrets, secretStatus(request, k.readings[request], watched[request]))
	}
	if k.process != nil && !k.process.HasEnviron() {
		r.CommandAwaits = k.awaited()
	}
	for _, s := range k.states {
		r.Drops = append(r.Drops, s.report())
	}
	for _, f := range k.followed {
		r.ForEach = append(r.ForEach, f.report())
	}
	for _, each := range k.queue.States() {
		r.Reloads = append(r.Reloads, reloadStatus(each))
	}
	return r
}

// summary is how the drops are, in a line.
func (d *dropper) summary() status.Summary {
	good, served, fault := 0, 0, ""
	for _, s := range d.states {
		switch state, _ := s.status(); {
		case state.IsGood():
			good++
			served++
		case (s.found || s.wrote) && !s.gone:
			served++
		}
	}
	for _, f := range d.followed {
		if f.err != nil || !f.began {
			fault = "the tenants of for_each \"" + f.of.Name + "\" are not known"
		}
	}
	summary := status.Summarize(good, len(d.states), fault)
	summary.Served = served == len(d.states) && fault == ""
	return summary
}

// logStatus writes the report to the log: an answer to SIGUSR1.
func (k *keeper) logStatus(ctx context.Context) {
	r := k.report(ctx)
	session := []any{"address", r.Session.Address}
	switch {
	case !r.Session.LoggedIn:
		session = append(session, "state", "not logged in")
	default:
		session = append(session, "state", "logged in")
	}
	k.log.Info("status of the session", append(session, at("token_ends", r.Session.TokenEnds)...)...)
	if len(r.CommandAwaits) > 0 {
		k.log.Info("status of the command", "state", "waiting to start", "drop", r.CommandAwaits)
	}
	for _, f := range r.ForEach {
		folder := f.Folder
		if folder == "" {
			folder = "a list"
		}
		k.log.Info("status of a for_each", append([]any{"drop", f.Name, "for_each", folder, "tenants", f.Tenants}, ifAny("error", f.Error)...)...)
		for _, tenant := range slices.Sorted(maps.Keys(f.Failed)) {
			k.log.Info("status of a tenant", "drop", f.Name, "tenant", tenant, "state", "failed", "error", f.Failed[tenant])
		}
	}
	for _, d := range r.Drops {
		args := []any{"drop", d.Name, "destination", d.Destination, "state", d.State}
		k.log.Info("status of a drop", slices.Concat(args, at("since", d.Since), ifAny("error", d.Error))...)
	}
	for _, each := range r.Reloads {
		args := slices.Concat([]any{"by", each.By, "state", each.State}, at("since", each.Since), at("next", each.Next), ifAny("error", each.Error))
		if each.Tries > 0 {
			args = append(args, "tries", each.Tries)
		}
		k.log.Info("status of a reload", args...)
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
	session                        session.Counts
	reads, renders, checks, writes tally.Tally
	reloads                        func() tally.Sum
}

func (c *counts) now() status.Counts {
	s := &c.session
	return status.Counts{
		Up: s.Up(), Logins: s.Logins.Sum(), Renewals: s.Renewals.Sum(), Requests: s.Requests.Sum(),
		Reads: c.reads.Sum(), Renders: c.renders.Sum(), Checks: c.checks.Sum(), Writes: c.writes.Sum(), Reloads: c.reloads(),
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (f *following) report() status.ForEach {
	r := status.ForEach{Name: f.of.Name, Folder: f.of.Folder, Tenants: len(f.members), Error: message(f.err)}
	for key, m := range f.members {
		if m.err != nil {
			if r.Failed == nil {
				r.Failed = map[string]string{}
			}
			r.Failed[key] = m.err.Error()
		}
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

func (s *state) report() status.Drop {
	state, why := s.status()
	d := status.Drop{
		Name: s.drop.Name, Destination: s.drop.Destination, Tenant: s.drop.Key,
		State: state, Since: s.since, Written: s.written, Error: message(why),
	}
	if s.of != nil {
		d.Block = s.of.of.Name
	}
	reloads := s.drop.Reloads
	if s.drop.Set != nil {
		reloads = slices.Concat(reloads, s.drop.Set.Reloads)
	}
	for _, each := range reloads {
		d.Reloads = append(d.Reloads, each.Target.String())
	}
	return d
}

// status is how a drop is, and why where it is not well.
func (s *state) status() (is status.State, why error) {
	switch {
	case s.isGone:
		return status.Departed, s.err
	case s.lacks:
		return status.Waiting, nil
	case s.absent:
		return status.Absent, nil
	case s.err != nil && s.wrote:
		return status.Stale, s.err
	case s.err != nil:
		return status.Failed, s.err
	case s.gone:
		return status.Removed, s.stale
	case s.stale != nil:
		return status.Stale, s.stale
	}
	return status.Current, nil
}
