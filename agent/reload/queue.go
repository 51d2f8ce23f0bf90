package reload

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Queue runs actions, and runs those that failed again, with backoff, until
// they succeed. It is an actor: see [Queue.Run].
type Queue struct {
	log  *slog.Logger
	wake chan struct{}

	mu      sync.Mutex
	order   []string
	waiting map[string]*attempt
}

type attempt struct {
	action Action
	due    time.Time
	retry  *backoff.ExponentialBackOff // nil before the first failure
}

// NewQueue returns an empty queue.
func NewQueue(log *slog.Logger) *Queue {
	return &Queue{log: log, wake: make(chan struct{}, 1), waiting: map[string]*attempt{}}
}

// Add takes the actions of one batch of changes. An action that is there
// already, waiting for its turn or for its next try, is not added twice, but
// tried at once.
func (q *Queue) Add(actions ...Action) {
	q.mu.Lock()
	for _, action := range actions {
		name := action.String()
		if old := q.waiting[name]; old != nil {
			old.due = time.Time{}
			continue
		}
		q.waiting[name] = &attempt{action: action}
		q.order = append(q.order, name)
	}
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Run works until the context ends. What is waiting then is left undone.
func (q *Queue) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-q.wake:
		case <-timer.C:
		}
		_ = q.work(ctx)
		if wait, ok := q.next(); ok {
			timer.Reset(wait)
		}
	}
}

// Flush tries everything that is waiting once and returns what failed.
func (q *Queue) Flush(ctx context.Context) error { return q.work(ctx) }

// work tries what is due, in the order of adding.
func (q *Queue) work(ctx context.Context) error {
	var errs []error
	for _, try := range q.due() {
		err := try.action.Do(ctx)
		if ctx.Err() != nil {
			return errors.Join(append(errs, err)...)
		}
		q.settle(try, err)
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// due takes out what is to be tried now. An action that is added again while
// it runs so gets a turn of its own: what it acts on may have changed.
func (q *Queue) due() []*attempt {
	q.mu.Lock()
	defer q.mu.Unlock()
	var due []*attempt
	var rest []string
	for _, name := range q.order {
		if try := q.waiting[name]; try.due.After(time.Now()) {
			rest = append(rest, name)
		} else {
			due = append(due, try)
			delete(q.waiting, name)
		}
	}
	q.order = rest
	return due
}

func (q *Queue) settle(try *attempt, err error) {
	name := try.action.String()
	if err == nil {
		q.log.Info("reloaded", "by", name)
		return
	}
	if try.retry == nil {
		q.log.Error("reload failed; will try again", "by", name, "error", err)
		try.retry = backoff.NewExponentialBackOff(
			backoff.WithInitialInterval(time.Second), backoff.WithMaxInterval(time.Minute), backoff.WithMaxElapsedTime(0))
	} else {
		q.log.Debug("reload failed again", "by", name, "error", err)
	}
	try.due = time.Now().Add(try.retry.NextBackOff())
	q.mu.Lock()
	defer q.mu.Unlock()
	if again := q.waiting[name]; again != nil {
		again.retry = try.retry
		return
	}
	q.waiting[name] = try
	q.order = append(q.order, name)
}

// next tells how long it is until something is due.
func (q *Queue) next() (time.Duration, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var first time.Time
	for i, name := range q.order {
		if due := q.waiting[name].due; i == 0 || due.Before(first) {
			first = due
		}
	}
	return time.Until(first), len(q.order) > 0
}
