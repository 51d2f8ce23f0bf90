package reload

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/smarteros/deaddrop/agent/internal/redact"
	"github.com/smarteros/deaddrop/agent/internal/tally"
)

// Queue runs the actions of jobs, and retries those that fail until they succeed. The rules
// are in the documentation of the package. It is an actor, see [Queue.Run], whose other
// methods may be called at any time, also between two calls of Run.
//
// That is why its schedule is behind a lock and not in a goroutine. Code that holds the lock
// only moves data: actions, loggers and other code from outside run without it.
type Queue struct {
	log     *slog.Logger
	wake    chan struct{}
	settled chan struct{}
	tries   tally.Tally

	mu       sync.Mutex
	splay    time.Duration
	schedule schedule
}

// State describes a target.
type State struct {
	// Target names the action.
	Target string
	// Waiting is set if the action is to run or to be retried. It is due at Next, or runs
	// when others have ended that it waits for.
	Waiting bool
	Next    time.Time
	// Done is when it last succeeded, or zero if it has not.
	Done time.Time
	// Err is why it failed last, or why it cannot succeed; nil if all is well.
	Err   error
	Since time.Time // of Err
	Tries int       // that failed, one after the other
}

// NewQueue returns an empty queue.
func NewQueue(log *slog.Logger) *Queue {
	return &Queue{
		log: log, wake: make(chan struct{}, 1), settled: make(chan struct{}, 1),
		schedule: schedule{targets: map[string]*target{}},
	}
}

// locked calls a function that uses the schedule. It must not call code from outside.
func (q *Queue) locked(use func(*schedule)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	use(&q.schedule)
}

// Add queues jobs as a batch, or with the batch that waits out its splay.
func (q *Queue) Add(jobs ...Job) {
	named := make([][]namedAction, len(jobs))
	for i, job := range jobs {
		named[i] = withoutRepeats(job.Actions)
	}
	now := time.Now()
	q.locked(func(s *schedule) {
		due := q.newBatch(now)
		for i, job := range jobs {
			s.add(job.Change, named[i], due)
		}
	})
	notify(q.wake)
}

// newBatch returns when a batch is due that is added now. The queue is locked.
func (q *Queue) newBatch(now time.Time) time.Time {
	if q.splay <= 0 {
		return q.schedule.newBatch(now, now, false)
	}
	return q.schedule.newBatch(now, now.Add(rand.N(q.splay)), true)
}

// Retain takes over what a configuration says: the subscriptions there are from now on, and
// the splay, a random part of which each batch waits for. Actions that are in none of them
// are forgotten, also if they were added later than the last call. The changes they owed
// are handed on to the subscriptions that are about the same files, and are pending
// throughout. New actions are checked by [Action.Check].
func (q *Queue) Retain(splay time.Duration, subscriptions []Subscription) {
	var all []namedAction
	named := make([][]namedAction, len(subscriptions))
	for i, subscription := range subscriptions {
		named[i] = withoutRepeats(subscription.Actions)
		all = append(all, named[i]...)
	}
	now := time.Now()
	q.locked(func(s *schedule) {
		q.splay = splay
		owed := s.retain(all)
		due := q.newBatch(now)
		for _, change := range owed {
			for i, subscription := range subscriptions {
				if subscription.isAbout(change) {
					s.handOn(change, named[i], due)
				}
			}
		}
	})
	notify(q.wake)
}

// Pending returns the files for which reloads are owed: those that wait, for whatever
// reason, and those that run.
func (q *Queue) Pending() (files map[string]bool) {
	q.locked(func(s *schedule) { files = s.pending() })
	return files
}

// Settled delivers a value when reloads may not be pending any more.
func (q *Queue) Settled() <-chan struct{} { return q.settled }

// Tries returns the counts of actions that have run, without those that were not needed.
func (q *Queue) Tries() tally.Sum { return q.tries.Sum() }

// States returns the states of all targets, by name.
func (q *Queue) States() (all []State) {
	q.locked(func(s *schedule) { all = s.states() })
	slices.SortFunc(all, func(a, b State) int { return strings.Compare(a.Target, b.Target) })
	return all
}

// finish settles an attempt that has ended. It returns the error if the attempt has failed,
// and logs that it is retried if retries is set. An attempt that fails when the context has ended was cut off: it is made again by the
// next Run, or stays pending for the next agent.
func (q *Queue) finish(ctx context.Context, ended ended, retries bool) error {
	var unneeded *Unneeded
	isUnneeded := errors.As(ended.err, &unneeded)
	if ended.err != nil && !isUnneeded && ctx.Err() != nil {
		q.locked(func(s *schedule) { s.suspend(ended.attempt) })
		notify(q.settled)
		return ended.err
	}
	name, now := ended.attempt.target.name, time.Now()
	if !isUnneeded {
		q.tries.Note(ended.begun, ended.err)
	}
	if ended.err == nil || isUnneeded {
		q.locked(func(s *schedule) { s.succeed(ended.attempt, now) })
		notify(q.settled)
		if isUnneeded {
			q.log.Info("reload not needed", "target", name, "reason", ended.err)
		} else {
			q.log.Info("reloaded", "target", name)
		}
		return nil
	}
	var wait time.Duration
	var isRetried bool
	var failed int
	q.locked(func(s *schedule) {
		wait, isRetried = s.fail(ended.attempt, ended.err, now)
		failed = ended.attempt.target.state.Tries
	})
	notify(q.settled)
	q.logFailure(name, failed, wait, isRetried && retries, ended.err)
	return ended.err
}

// logFailure logs the first of several failures as an error.
func (q *Queue) logFailure(name string, failed int, wait time.Duration, isRetried bool, err error) {
	attributes := append([]any{"target", name, "error", err}, redact.OutputOf(err)...)
	if isRetried {
		attributes = append(attributes, "retry_in", wait.String())
	}
	if failed > 1 {
		q.log.Debug("reload failed again", append(attributes, "attempt", failed)...)
		return
	}
	var panicked *PanicError
	if errors.As(err, &panicked) {
		attributes = append(attributes, "stack", panicked.Stack)
	}
	if isRetried {
		q.log.Error("reload failed, retrying", attributes...)
	} else {
		q.log.Error("reload failed", attributes...)
	}
}

// finishCheck takes in the result of a check. One that was cut off is made again by the
// next Run.
func (q *Queue) finishCheck(ctx context.Context, t *target, err error) {
	if ctx.Err() != nil {
		q.locked(func(s *schedule) { s.checkAgain(t) })
		return
	}
	isOfUse := false
	now := time.Now()
	q.locked(func(s *schedule) { isOfUse = s.noteCheck(t, err, now) })
	if !isOfUse {
		return
	}
	var missing *Absent
	if errors.As(err, &missing) {
		q.log.Warn("reload target not found yet", "target", t.name, "error", err)
	} else {
		q.log.Error("reload cannot work", "target", t.name, "error", err)
	}
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
