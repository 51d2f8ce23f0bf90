package reload

import (
	"fmt"
	"slices"
)

// Job is a change and the actions it calls for, in the order in which they run. An action
// that is listed twice runs once, in the later of its places.
type Job struct {
	Change  Change
	Actions []Action
}

// Subscription lists the actions that changes of certain files call for, in the order in
// which they run.
type Subscription struct {
	// Files are paths. It is empty for actions that are not about files.
	Files   []string
	Actions []Action
}

// isAbout reports whether one of the files has changed.
func (s Subscription) isAbout(change Change) bool {
	return slices.ContainsFunc(s.Files, func(file string) bool { return slices.Contains(change.Files, file) })
}

// namedAction is an action with what its methods and its settings say about it, so that
// no method of an action runs while the queue is locked.
type namedAction struct {
	Action
	key, name string
}

// withoutRepeats returns the actions with their keys, each in the last of its places.
func withoutRepeats(actions []Action) []namedAction {
	named := make([]namedAction, 0, len(actions))
	for _, action := range actions {
		key := keyOf(action)
		named = slices.DeleteFunc(named, func(other namedAction) bool { return other.key == key })
		named = append(named, namedAction{action, key, action.String()})
	}
	return named
}

// keyOf returns a text that is equal for equal actions. They hold nothing but settings.
func keyOf(a Action) string {
	if c, isCommand := a.(Command); isCommand {
		c.Place = ""
		a = c
	}
	return fmt.Sprintf("%#v", a)
}

// and joins two changes. It is as late as the later one, and as their output can only be
// shown with the values of both hidden, it has none if one of them has none.
func (c Change) and(later Change) Change {
	joined := later
	if !later.At.IsZero() && c.At.After(later.At) {
		joined.At = c.At
	}
	joined.Files = slices.Clone(c.Files)
	for _, file := range later.Files {
		if !slices.Contains(joined.Files, file) {
			joined.Files = append(joined.Files, file)
		}
	}
	joined.Hidden = nil
	if c.Hidden != nil && later.Hidden != nil {
		joined.Hidden = slices.Concat(c.Hidden, later.Hidden)
	}
	return joined
}
