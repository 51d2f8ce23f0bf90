package reload

import (
	"os"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
)

// Planner decides which reloads a change of files calls for.
type Planner struct {
	// Child returns the action for the command that the agent supervises; nil if it
	// supervises none.
	Child func(config.Child) Action
}

// FileChange is a change of a file that calls for reloads.
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
		if len(actions) == 0 {
			continue
		}
		change := Change{Files: []string{c.Drop.Destination}, At: time.Now(), Hidden: hidden}
		if isEarlier {
			change.At = writtenAt(c.Drop.Destination)
		}
		all = append(all, Job{change, actions})
	}
	return all
}

// Wants reports whether a change of a file of a drop, which may be in a set, calls for any
// reload.
func (p Planner) Wants(d *config.Drop, set *config.Set, isFirst bool) bool {
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

// writtenAt is when a file was written; now if that is not known.
func writtenAt(file string) time.Time {
	info, err := os.Stat(file)
	if err != nil {
		return time.Now()
	}
	return info.ModTime()
}
