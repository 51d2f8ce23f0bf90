package reload

import (
	"maps"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v4"
)

const (
	// maxRunning bounds the actions that run at once.
	maxRunning = 8
	// maxRetrying bounds those of them that have failed before.
	maxRetrying = maxRunning / 2
)

// schedule decides which action runs when, by the rules in the documentation of the
// package. It is data: it reads no clock, starts nothing, and calls no action.
//
// An owed change is always in one of the attempts, waiting or running: each method moves
// it from one to the other in one step.
type schedule struct {
	targets map[string]*target // by key
	waiting []*attempt         // in the order in which they were queued
	running []*attempt
	checks  []*target // not checked yet
	// batch numbers the batch that jobs are added to, and batches counts all of them.
	batch, batches int
}

// target is an action and its state.
type target struct {
	namedAction
	// isWanted is false once a configuration has come without the target. It is
	// forgotten as soon as it does not run.
	isWanted  bool
	isChecked bool
	isRunning bool
	waiting   []*attempt                  // those of the schedule
	backoff   *backoff.ExponentialBackOff // nil unless the last attempt failed
	state     State
}

// attempt is one run of a target.
type attempt struct {
	target *target
	change Change
	due    time.Time
	// after holds the attempts that come before this one in its jobs and have not been made
	// yet. Those that this one comes before are in before.
	after  map[*attempt]bool
	before []*attempt
	batch  int // that it was queued with, or 0 for a retry
}

// precede makes another attempt wait for this one.
func (a *attempt) precede(next *attempt) {
	if next.after[a] {
		return
	}
	if next.after == nil {
		next.after = map[*attempt]bool{}
	}
	next.after[a] = true
	a.before = append(a.before, next)
}

// isReady reports whether the attempt waits for no other one.
func (a *attempt) isReady() bool { return len(a.after) == 0 }

// holdsBack reports whether another attempt waits for this one, directly or through
// others.
func (a *attempt) holdsBack(other *attempt) bool {
	seen := map[*attempt]bool{}
	for todo := []*attempt{a}; len(todo) > 0; todo = todo[1:] {
		if other.after[todo[0]] {
			return true
		}
		for _, next := range todo[0].before {
			if !seen[next] {
				seen[next] = true
				todo = append(todo, next)
			}
		}
	}
	return false
}

// waitsOnlyFor reports whether the attempt waits for another one and no others, or for none
// if that is nil.
func (a *attempt) waitsOnlyFor(previous *attempt) bool {
	if previous == nil {
		return a.isReady()
	}
	return len(a.after) == 1 && a.after[previous]
}

// want returns the target of an action, which is wanted from now on.
func (s *schedule) want(action namedAction) *target {
	t := s.targets[action.key]
	if t == nil {
		t = &target{namedAction: action, state: State{Target: action.name}}
		s.targets[action.key] = t
	}
	t.isWanted = true
	return t
}

// add queues actions of one change. A target that has failed is due at the given time, too,
// if that comes first.
func (s *schedule) add(change Change, actions []namedAction, due time.Time) {
	var previous *attempt
	for _, action := range actions {
		next := s.queue(change, s.want(action), previous, due)
		if next.isRetry() && due.Before(next.due) {
			next.due = due
		}
		previous = next
	}
}

// handOn queues actions of a change of which others have not notified anyone. A target that
// waits for its retry takes the change on, but is not due before.
func (s *schedule) handOn(change Change, actions []namedAction, due time.Time) {
	var previous *attempt
	for _, action := range actions {
		t := s.want(action)
		if retry := t.ready(); retry != nil && retry.isRetry() {
			retry.change = retry.change.and(change)
			continue
		}
		previous = s.queue(change, t, previous, due)
	}
}

// queue returns the attempt of a target that covers the change after the previous one: one
// that is waiting, or a new one.
func (s *schedule) queue(change Change, t *target, previous *attempt, due time.Time) *attempt {
	mayTakeOn := func(a *attempt) bool {
		return a.waitsOnlyFor(previous) || a.batch == s.batch && (previous == nil || !a.holdsBack(previous))
	}
	var next *attempt
	if i := slices.IndexFunc(t.waiting, mayTakeOn); i >= 0 {
		next = t.waiting[i]
		next.change = next.change.and(change)
	} else {
		next = &attempt{target: t, change: change, due: due, batch: s.batch}
		s.waiting, t.waiting = append(s.waiting, next), append(t.waiting, next)
	}
	if previous != nil {
		previous.precede(next)
	}
	return next
}

// newBatch returns when what is added now is due, if that is not gathered with others.
// Otherwise it belongs to the batch of first attempts that are not due yet, if gathers is
// set and there is one.
func (s *schedule) newBatch(now, due time.Time, gathers bool) time.Time {
	for _, a := range s.waiting {
		if gathers && !a.isRetry() && a.due.After(now) {
			s.batch = a.batch
			return a.due
		}
	}
	s.batches++
	s.batch = s.batches
	return due
}

// hasten makes all that is waiting due, and returns it.
func (s *schedule) hasten(now time.Time) []*attempt {
	for _, a := range s.waiting {
		a.due = now
	}
	return slices.Clone(s.waiting)
}

// isRetry reports whether the target has failed the last time.
func (a *attempt) isRetry() bool { return a.target.backoff != nil }

// retain forgets the targets that are not listed, and returns the changes that they
// owed. The others are checked once.
func (s *schedule) retain(actions []namedAction) (owed []Change) {
	listed := map[string]bool{}
	for _, action := range actions {
		listed[action.key] = true
		if t := s.want(action); !t.isChecked {
			t.isChecked = true
			s.checks = append(s.checks, t)
		}
	}
	isLeftOut := func(t *target) bool { return !listed[t.key] }
	for _, a := range slices.Clone(s.waiting) {
		if isLeftOut(a.target) {
			owed = append(owed, a.change)
			s.remove(a)
			s.skip(a)
		}
	}
	for _, a := range s.running {
		if isLeftOut(a.target) && a.target.isWanted { // It may fail, and is not retried.
			owed = append(owed, a.change)
		}
	}
	s.checks = slices.DeleteFunc(s.checks, isLeftOut)
	for _, t := range s.targets {
		if isLeftOut(t) {
			t.isWanted = false
			s.forget(t)
		}
	}
	return owed
}

// skip takes an attempt out of its jobs: its successors wait for its predecessors.
func (s *schedule) skip(a *attempt) {
	for _, next := range a.before {
		for previous := range a.after {
			previous.precede(next)
		}
	}
	for previous := range a.after {
		previous.before = without(previous.before, a)
	}
	s.release(a)
}

// release lets the successors of an attempt wait for it no longer.
func (s *schedule) release(a *attempt) {
	successors := a.before
	a.before = nil
	for _, next := range successors {
		delete(next.after, a)
	}
	s.join(successors)
}

// join makes attempts part of others of their targets that wait for the same, and then
// their successors, which may now wait for the same as well.
func (s *schedule) join(attempts []*attempt) {
	for _, a := range attempts {
		waiting := a.target.waiting
		i := slices.IndexFunc(waiting, func(b *attempt) bool { return b != a && maps.Equal(b.after, a.after) })
		if i < 0 || !slices.Contains(waiting, a) { // It was joined already.
			continue
		}
		other, successors := waiting[i], a.before
		other.change = other.change.and(a.change)
		if a.due.Before(other.due) {
			other.due = a.due
		}
		for previous := range a.after {
			previous.before = without(previous.before, a)
		}
		a.before = nil
		for _, next := range successors {
			delete(next.after, a)
			other.precede(next)
		}
		s.remove(a)
		s.join(successors)
	}
}

// remove takes an attempt out of those that are waiting.
func (s *schedule) remove(a *attempt) {
	s.waiting, a.target.waiting = without(s.waiting, a), without(a.target.waiting, a)
}

// ready returns the attempt that waits for no other one, or nil.
func (t *target) ready() *attempt {
	if i := slices.IndexFunc(t.waiting, (*attempt).isReady); i >= 0 {
		return t.waiting[i]
	}
	return nil
}

// forget drops a target that nobody wants and that does not run.
func (s *schedule) forget(t *target) {
	if !t.isWanted && !t.isRunning {
		delete(s.targets, t.key)
	}
}

// start returns the attempts that begin now, and when the next one is due, or zero if none
// is: those that are due and did not begin wait for the end of another one. Unless only is
// nil, no others than those in it begin.
func (s *schedule) start(now time.Time, only map[*attempt]bool) (begun []*attempt, next time.Time) {
	for _, retries := range []bool{false, true} {
		for _, a := range s.waiting {
			switch {
			case a.isRetry() != retries || only != nil && !only[a]:
			case a.due.After(now):
				if next.IsZero() || a.due.Before(next) {
					next = a.due
				}
			case a.isReady() && !a.target.isRunning && s.hasRoom(retries):
				begun = append(begun, a)
				s.begin(a)
			}
		}
	}
	for _, a := range begun {
		s.remove(a)
	}
	return begun, next
}

func (s *schedule) hasRoom(forRetry bool) bool {
	retrying := 0
	for _, a := range s.running {
		if a.isRetry() {
			retrying++
		}
	}
	return len(s.running) < maxRunning && (!forRetry || retrying < maxRetrying)
}

func (s *schedule) begin(a *attempt) {
	s.running = append(s.running, a)
	a.target.isRunning = true
}

// end takes an attempt out of those that are running.
func (s *schedule) end(a *attempt) {
	s.running = without(s.running, a)
	a.target.isRunning = false
	s.forget(a.target)
}

func without(all []*attempt, a *attempt) []*attempt {
	return slices.DeleteFunc(all, func(other *attempt) bool { return other == a })
}

// succeed settles an attempt.
func (s *schedule) succeed(a *attempt, now time.Time) {
	s.end(a)
	s.release(a)
	a.target.backoff = nil
	a.target.state = State{Target: a.target.name, Done: now}
}

// fail queues a retry of an attempt, and returns how long it waits, or false if nobody
// wants the target any more.
func (s *schedule) fail(a *attempt, err error, now time.Time) (wait time.Duration, isRetried bool) {
	t := a.target
	s.end(a)
	s.release(a)
	if t.state.Tries == 0 {
		t.state.Since = now
	}
	t.state.Err, t.state.Tries = err, t.state.Tries+1
	if !t.isWanted {
		return 0, false
	}
	if t.backoff == nil {
		t.backoff = backoff.NewExponentialBackOff(
			backoff.WithInitialInterval(time.Second), backoff.WithMaxInterval(time.Minute), backoff.WithMaxElapsedTime(0))
	}
	wait = t.backoff.NextBackOff()
	if again := t.ready(); again != nil { // A later change wants the target sooner.
		again.change = a.change.and(again.change)
		return max(0, again.due.Sub(now)), true
	}
	again := &attempt{target: t, change: a.change, due: now.Add(wait)}
	s.waiting, t.waiting = append(s.waiting, again), append(t.waiting, again)
	return wait, true
}

// suspend puts an attempt that was cut off back to where it came from. It has not been
// made, so what comes after it in its jobs goes on waiting.
func (s *schedule) suspend(a *attempt) {
	s.end(a)
	if !a.target.isWanted {
		s.release(a)
		return
	}
	again := a.target.ready()
	s.waiting = slices.Insert(s.waiting, 0, a)
	a.target.waiting = slices.Insert(a.target.waiting, 0, a)
	if again != nil {
		s.join([]*attempt{again})
	}
}

// checkAgain queues a check that was cut off.
func (s *schedule) checkAgain(t *target) {
	if t.isWanted {
		s.checks = append(s.checks, t)
	}
}

// noteCheck takes in the result of a check, and reports whether it is of use: it is not, if
// the target has succeeded meanwhile.
func (s *schedule) noteCheck(t *target, err error, now time.Time) bool {
	if err == nil || !t.isWanted || !t.state.Done.IsZero() {
		return false
	}
	if t.state.Tries == 0 {
		t.state.Err, t.state.Since = err, now
	}
	return true
}

// pending returns the files of all changes that are owed.
func (s *schedule) pending() map[string]bool {
	files := map[string]bool{}
	for _, attempts := range [][]*attempt{s.waiting, s.running} {
		for _, a := range attempts {
			for _, file := range a.change.Files {
				files[file] = true
			}
		}
	}
	return files
}

// states returns the states of all targets that are wanted, in no order.
func (s *schedule) states() []State {
	var all []State
	for _, t := range s.targets {
		if !t.isWanted {
			continue
		}
		state := t.state
		for _, a := range t.waiting {
			if !state.Waiting || a.due.Before(state.Next) {
				state.Waiting, state.Next = true, a.due
			}
		}
		all = append(all, state)
	}
	return all
}
