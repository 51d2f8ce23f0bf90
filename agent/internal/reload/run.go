package reload

import (
	"context"
	"errors"
	"slices"
	"time"
)

const (
	// shutdownGrace is how long actions may go on when the agent ends: one that is cut off
	// has to run again.
	shutdownGrace = 2 * time.Second
	// maxChecking bounds the checks that run at once. They have places of their own, so
	// that they hold no reload back.
	maxChecking = 4
)

// Run runs actions until the context ends. It then starts no other one, gives those that
// are running 2 s to end, and cancels them; what has not succeeded stays pending. No action
// and no check outlives Run. It may be called again and then goes on, but not while another
// Run or a [Queue.Flush] is at work. It returns nil.
func (q *Queue) Run(ctx context.Context) error {
	w := newWorkers(ctx, q, true)
	defer w.cutOff()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		if next := w.startDue(time.Now(), nil); !next.IsZero() {
			timer.Reset(time.Until(next))
		}
		w.startChecks()
		select {
		case <-ctx.Done():
		case <-q.wake:
		case <-timer.C:
		case ended := <-w.ended:
			_ = w.finish(ended) // It is logged and retried.
		}
	}
	w.finishAll(func(ended) {})
	return nil
}

// Flush makes one attempt of each action that is waiting, without waiting for its time. It
// returns the errors of those that failed, in the order in which they were queued, and that
// of the context if it ended before all were attempted; the rest stays pending. Flush is
// for agents that do not call [Queue.Run].
func (q *Queue) Flush(ctx context.Context) error {
	var batch []*attempt
	now := time.Now()
	q.locked(func(s *schedule) { batch = s.hasten(now) })
	left := make(map[*attempt]bool, len(batch))
	for _, a := range batch {
		left[a] = true
	}
	failed := map[*attempt]error{}
	w := newWorkers(ctx, q, false)
	defer w.cutOff()
	note := func(ended ended) {
		delete(left, ended.attempt)
		failed[ended.attempt] = ended.err
	}
	for ctx.Err() == nil {
		w.startDue(time.Now(), left)
		if w.running == 0 {
			break
		}
		select {
		case <-ctx.Done():
		case ended := <-w.ended:
			ended.err = w.finish(ended)
			note(ended)
		}
	}
	w.finishAll(note)
	var errs []error
	for _, a := range batch {
		errs = append(errs, failed[a])
	}
	if len(left) > 0 {
		errs = append(errs, ctx.Err())
	}
	return errors.Join(errs...)
}

// workers are the goroutines that one Run or Flush has started. Each runs one action or
// check and sends its result.
type workers struct {
	queue *Queue
	ctx   context.Context // of Run or Flush
	// retries is set if actions that fail are retried.
	retries bool
	// actions is the context of actions, which outlives ctx until cutOff is called.
	actions           context.Context
	cutOff            context.CancelFunc
	ended             chan ended
	running, checking int
}

// ended is the result of an attempt, or of the check of a target.
type ended struct {
	attempt *attempt // nil for a check
	checked *target
	begun   time.Time
	err     error
}

func newWorkers(ctx context.Context, q *Queue, retries bool) *workers {
	actions, cutOff := context.WithCancel(context.WithoutCancel(ctx))
	return &workers{queue: q, ctx: ctx, retries: retries, actions: actions, cutOff: cutOff, ended: make(chan ended)}
}

// startDue starts the actions that are due, or those of them that are among only. It
// returns when the next one is due, or zero if none is.
func (w *workers) startDue(now time.Time, only map[*attempt]bool) (next time.Time) {
	var begun []*attempt
	w.queue.locked(func(s *schedule) { begun, next = s.start(now, only) })
	for _, a := range begun {
		w.running++
		change := a.change // It is not joined with others while it runs.
		go func() {
			err := recovered(func() error { return a.target.Do(w.actions, change) })
			w.ended <- ended{attempt: a, begun: now, err: err}
		}()
	}
	return next
}

// startChecks starts the checks that there is room for.
func (w *workers) startChecks() {
	var targets []*target
	w.queue.locked(func(s *schedule) {
		n := min(len(s.checks), maxChecking-w.checking)
		targets = slices.Clone(s.checks[:n])
		s.checks = s.checks[n:]
	})
	for _, t := range targets {
		w.checking++
		go func() {
			err := recovered(func() error { return t.Check(w.ctx) })
			w.ended <- ended{checked: t, err: err}
		}()
	}
}

// finish takes in the result of a goroutine, and returns the error of an action that failed.
func (w *workers) finish(ended ended) error {
	if ended.attempt == nil {
		w.checking--
		w.queue.finishCheck(w.ctx, ended.checked, ended.err)
		return nil
	}
	w.running--
	return w.queue.finish(w.ctx, ended, w.retries)
}

// finishAll waits for all goroutines, and cuts their actions off after the grace period.
func (w *workers) finishAll(note func(ended)) {
	defer time.AfterFunc(shutdownGrace, w.cutOff).Stop()
	for w.running+w.checking > 0 {
		ended := <-w.ended
		ended.err = w.finish(ended)
		note(ended)
	}
}
