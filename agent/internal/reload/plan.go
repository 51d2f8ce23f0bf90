package reload

import (
	"os"
	"slices"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
)

// Planner decides which reloads a change of files calls for.
type Planner struct {
	// Child returns the action for the command that the agent supervises; nil if it
	// supervises none.
	Child func(config.Child) Action
}

// FileChange is a change that services are to be told of.
type FileChange struct {
	Drop *config.Drop
	// IsFirst says that no service can have looked for the file before. Only the reloads
	// with on_start are run then: a service that is just starting would die of a SIGHUP
	// that it does not handle yet.
	IsFirst bool
	// IsEarlier says that an earlier run has changed the file.
	IsEarlier bool
}

// Plan returns a job for each changed file: its reloads, and then those of the set that the
// files belong to, or nil. hidden are the values that no output may show.
func (p Planner) Plan(set *config.Set, changes []FileChange, hidden []string) []Job {
	isFirst, isEarlier := true, true
	for _, c := range changes {
		isFirst, isEarlier = isFirst && c.IsFirst, isEarlier && c.IsEarlier
	}
	var all []Job
	for _, c := range changes {
		actions := p.actions(c.Drop.Reloads, c.IsFirst)
		if set != nil { // They run once, after those of all its files.
			actions = append(actions, p.actions(set.Reloads, isFirst)...)
		}
		all = append(all, Job{Change{Files: []string{c.Drop.Destination}}, actions})
	}
	all = slices.DeleteFunc(all, func(j Job) bool { return len(j.Actions) == 0 })
	for i := range all {
		all[i].Change.Hidden, all[i].Change.At = hidden, time.Now()
		if isEarlier {
			all[i].Change.At = lastWritten(all[i].Change.Files)
		}
	}
	return all
}

// Wants reports whether a change of a file of a drop, which may be in a set, calls for any
// reload.
func (p Planner) Wants(d config.Drop, set *config.Set, isFirst bool) bool {
	return len(p.actions(d.Reloads, isFirst)) > 0 || set != nil && len(p.actions(set.Reloads, isFirst)) > 0
}

// Actions returns the actions that a change of the file of a drop calls for, but for the
// first.
func (p Planner) Actions(d *config.Drop) []Action {
	actions := p.actions(d.Reloads, false)
	if d.Set != nil {
		actions = append(actions, p.actions(d.Set.Reloads, false)...)
	}
	return actions
}

// actions are those of reloads, for the first time or another.
func (p Planner) actions(reloads []config.Reload, isFirst bool) []Action {
	var actions []Action
	for _, each := range reloads {
		if isFirst && !each.OnStart {
			continue
		}
		if action, ok := New(each.Target, p.Child); ok {
			actions = append(actions, action)
		}
	}
	return actions
}

// lastWritten is when the last of files was written.
func lastWritten(files []string) time.Time {
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
