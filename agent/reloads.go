package agent

import (
	"os"
	"slices"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/reload"
	"github.com/smarteros/deaddrop/render/drop"
)

// This file is about when services are told, and of what.

// newsOf tells whom to tell of what became of a group's files. Nobody is, where a
// file is unchanged and no earlier agent has left it to be told of. Of one that
// appears for the first time as the agent starts only those are that want to be:
// no other can have read it before, and a service that is just starting would die
// of a SIGHUP that it does not handle yet.
func (d *dropper) newsOf(r rendered, outcomes []drop.Outcome) []reload.Job {
	var all []reload.Job
	first, leftOver := true, true
	for i, s := range r.states {
		if outcomes[i] == drop.Unchanged && (s.wrote || !s.untold) {
			continue
		}
		leftOver = leftOver && outcomes[i] == drop.Unchanged
		isFirst := outcomes[i] == drop.Created && s.isFirst()
		first = first && isFirst
		all = append(all, reload.Job{Change: reload.Change{Files: []string{s.drop.Destination}}, Actions: d.wanted(s.drop.Reloads, isFirst)})
	}
	if r.set != nil { // They run once, after those of all its files.
		for i := range all {
			all[i].Actions = append(all[i].Actions, d.wanted(r.set.Reloads, first)...)
		}
	}
	all = slices.DeleteFunc(all, func(n reload.Job) bool { return len(n.Actions) == 0 })
	for i := range all {
		all[i].Change.At = time.Now()
		if leftOver {
			all[i].Change.At = writtenAt(all[i].Change.Files)
		}
		if slices.ContainsFunc(all[i].Actions, actionShowsOutput) {
			all[i].Change.Hidden = r.hidden
		}
	}
	return all
}

// isFirst tells whether a file that was just made is one that no service can have
// looked for before.
func (s *state) isFirst() bool { return !s.wrote && !s.late }

// writtenAt is when the last of files was written, by an earlier agent.
func writtenAt(files []string) time.Time {
	var last time.Time
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			return time.Now()
		}
		if info.ModTime().After(last) {
			last = info.ModTime()
		}
	}
	return last
}

// noteUntold writes down that reloads of files are pending, before these change: an agent
// that is killed before they have happened leaves them to the next one.
func (d *dropper) noteUntold(batch *drop.Batch, ready []rendered, unit []int) {
	var pending []*state
	for i, r := range ready {
		if batch.Pending(unit[i]) == "" {
			continue
		}
		for _, s := range r.states {
			_, err := os.Lstat(s.drop.Destination)
			all := s.drop.Reloads
			if r.set != nil {
				all = slices.Concat(all, r.set.Reloads)
			}
			if !s.untold && len(d.wanted(all, err != nil && s.isFirst())) > 0 {
				s.untold = true
				pending = append(pending, s)
			}
		}
	}
	d.save(pending, d.toKeep)
}

// noteTold brings the journals of current files up to date, without the reloads that have
// happened.
func (d *dropper) noteTold(untold map[string]bool) {
	d.noteFarewells(untold)
	var changed []*state
	for _, s := range d.states {
		if s.env != "" || !s.wrote || s.dirty {
			continue
		}
		s.untold = s.untold && untold[s.drop.Destination]
		if s.isOutdated() {
			changed = append(changed, s)
		}
	}
	d.save(changed, (*state).kept)
}

// wanted are the actions of reloads, for a first time or another.
func (d *dropper) wanted(all []config.Reload, first bool) []reload.Action {
	var actions []reload.Action
	for _, each := range all {
		if first && !each.OnStart {
			continue
		}
		if action, ok := d.bind(each.Target); ok {
			actions = append(actions, action)
		}
	}
	return actions
}

// bind returns the action for a target. There is none for the command in an agent that
// renders once.
func (d *dropper) bind(target config.Target) (reload.Action, bool) {
	if d.process == nil {
		return reload.New(target, nil)
	}
	return reload.New(target, d.process.Reload)
}

// heldUntil is when a group may be written, as its changes are gathered until
// then. It is zero where they are not.
func (g group) heldUntil() time.Time {
	var until time.Time
	for _, s := range g.states {
		if !s.dirty {
			continue
		}
		if !s.wrote || s.changed.IsZero() || s.drop.Wait.Min == 0 {
			return time.Time{} // It never was what it should be, or is dirty for another reason.
		}
		due := s.changed.Add(s.drop.Wait.Min)
		if last := s.firstChanged.Add(s.drop.Wait.Max); last.Before(due) {
			due = last
		}
		if due.After(until) {
			until = due
		}
	}
	return until
}

// touch marks a drop whose secrets or files have changed.
func (s *state) touch() {
	now := time.Now()
	if !s.dirty || s.firstChanged.IsZero() {
		s.firstChanged = now
	}
	s.dirty, s.changed = true, now
}

// subscriptions are the actions for each file, also of tenants that are gone and of which
// services are still to be told.
func (d *dropper) subscriptions() []reload.Subscription {
	var all []reload.Subscription
	for _, each := range d.farewells {
		all = append(all, reload.Subscription{Files: each.files, Actions: each.actions})
	}
	for _, s := range d.states {
		reloads := s.drop.Reloads
		if s.drop.Set != nil {
			reloads = slices.Concat(reloads, s.drop.Set.Reloads)
		}
		all = append(all, reload.Subscription{Files: []string{s.drop.Destination}, Actions: d.wanted(reloads, false)})
	}
	return all
}

func dropsOf(states []*state) []config.Drop {
	var drops []config.Drop
	for _, s := range states {
		drops = append(drops, s.drop)
	}
	return drops
}

// reloadsOf are the actions of drops, and once those of the sets that they are in.
func (d *dropper) reloadsOf(drops []config.Drop) []reload.Action {
	var all []reload.Action
	sets := map[*config.Set]bool{}
	for _, each := range drops {
		all = append(all, d.wanted(each.Reloads, false)...)
		if each.Set != nil && !sets[each.Set] {
			sets[each.Set] = true
			all = append(all, d.wanted(each.Set.Reloads, false)...)
		}
	}
	return all
}
