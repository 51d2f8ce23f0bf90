package reload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/smarteros/deaddrop/agent/tally"
)

// Queue runs actions, and runs those that failed again, with backoff, until
// they succeed. It is an actor: see [Queue.Run].
type Queue struct {
	log  *slog.Logger
	wake chan struct{}
	told chan struct{}

	tries tally.Tally

	mu       sync.Mutex
	splay    time.Duration
	order    []string // of waiting
	waiting  map[string]*attempt
	running  []*attempt // taken out of waiting by work
	examined []Action   // to be
	states   map[string]*State
	retains  bool // only what it was told to
}

type attempt struct {
	action Action
	change Change
	due    time.Time
	retry  *backoff.ExponentialBackOff // nil before the first failure
}

// State is how an action is.
type State struct {
	// By is the action.
	By string
	// Waiting says that it is to be run, or to be tried again at Next.
	Waiting bool
	Next    time.Time
	// Done is when it last succeeded; zero where it has not yet.
	Done time.Time
	// Err is why it failed last, or why it cannot succeed; nil when all is well.
	Err   error
	Since time.Time // of Err
	Tries int       // that failed, one after the other
}

// NewQueue returns an empty queue.
func NewQueue(log *slog.Logger) *Queue {
	return &Queue{log: log, wake: make(chan struct{}, 1), told: make(chan struct{}, 1), waiting: map[string]*attempt{}, states: map[string]*State{}}
}

// keyOf tells actions apart. They hold nothing but settings.
func keyOf(a Action) string {
	if c, isCommand := a.(Command); isCommand {
		c.Place = ""
		a = c
	}
	return fmt.Sprintf("%#v", a)
}

// News are actions that a change calls for.
type News struct {
	Change  Change
	Actions []Action
}

// Add takes the news of one batch of changes. They are told in their order. An
// action that is there several times, or waits already, runs once and is told of
// all changes; one that has failed is tried at once.
func (q *Queue) Add(batch ...News) {
	q.mu.Lock()
	due := time.Now()
	if q.splay > 0 {
		due = q.lastDue(due.Add(rand.N(q.splay)))
	}
	for _, news := range batch {
		for _, action := range news.Actions {
			q.add(news.Change, action, due)
		}
	}
	q.mu.Unlock()
	q.alert()
}

func (q *Queue) add(change Change, action Action, due time.Time) {
	key := keyOf(action)
	old := q.waiting[key]
	if old == nil {
		q.waiting[key] = &attempt{action: action, change: change, due: due}
		q.order = append(q.order, key)
		return
	}
	old.change = old.change.and(change)
	if old.retry != nil && due.Before(old.due) {
		old.due = due
	}
}

// lastDue is when what waits for its first try is due, or otherwise when nothing
// does: all that is added meanwhile runs with it, in order.
func (q *Queue) lastDue(otherwise time.Time) time.Time {
	for _, key := range q.order {
		if try := q.waiting[key]; try.retry == nil {
			return try.due
		}
	}
	return otherwise
}

// and joins two changes, the later one last.
func (c Change) and(later Change) Change {
	joined := later
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

func (q *Queue) alert() { poke(q.wake) }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Told delivers something when services have been told of changes.
func (q *Queue) Told() <-chan struct{} { return q.told }

// Untold are the files that someone is still to be told of.
func (q *Queue) Untold() map[string]bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	files := map[string]bool{}
	for _, try := range q.waiting {
		try.change.list(files)
	}
	for _, try := range q.running {
		try.change.list(files)
	}
	return files
}

func (c Change) list(into map[string]bool) {
	for _, file := range c.Files {
		into[file] = true
	}
}

// Retain takes the actions that there are from now on, and how far to spread
// their runs: each batch waits for a random part of splay. Actions that are no
// longer there are forgotten; the changes that they still were to tell of are
// returned. The others are looked at by [Action.Check].
func (q *Queue) Retain(splay time.Duration, actions []Action) (untold []Change) {
	q.mu.Lock()
	q.splay, q.retains = splay, true
	stay := map[string]bool{}
	for _, action := range actions {
		if key := keyOf(action); !stay[key] {
			stay[key] = true
			if q.states[key] == nil {
				q.states[key] = &State{By: action.String()}
				q.examined = append(q.examined, action)
			}
		}
	}
	for _, key := range q.order {
		if !stay[key] {
			untold = append(untold, q.waiting[key].change)
			delete(q.waiting, key)
		}
	}
	for _, try := range q.running {
		if !stay[keyOf(try.action)] { // It may fail, and is not tried again.
			untold = append(untold, try.change)
		}
	}
	q.order = slices.DeleteFunc(q.order, func(key string) bool { return !stay[key] })
	for key := range q.states {
		if !stay[key] {
			delete(q.states, key)
		}
	}
	q.mu.Unlock()
	q.alert()
	return untold
}

// Run works until the context ends. What is waiting then is left undone, but what
// is just being done may be finished. Run may be called again, and goes on then.
func (q *Queue) Run(ctx context.Context) error {
	q.takeBack()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-q.wake:
		case <-timer.C:
		}
		for again := true; again; again = q.examine(ctx) {
			_ = q.work(ctx, time.Now())
		}
		if wait, ok := q.next(); ok {
			timer.Reset(wait)
		}
	}
}

// takeBack lets what an earlier Run has begun and not finished wait again.
func (q *Queue) takeBack() {
	q.mu.Lock()
	defer q.mu.Unlock()
	begun := q.running
	q.running = nil
	for _, try := range begun {
		q.add(try.change, try.action, time.Now())
	}
}

// Flush tries everything that is waiting once, without waiting for its time, and
// returns what failed.
func (q *Queue) Flush(ctx context.Context) error {
	q.mu.Lock()
	isEmpty := len(q.waiting) == 0
	q.mu.Unlock()
	if isEmpty {
		return nil
	}
	return q.work(ctx, time.Now().Add(q.splay).Add(time.Hour))
}

// examine says of one new action what keeps it from working. It returns false
// when there is none.
func (q *Queue) examine(ctx context.Context) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.examined) == 0 || ctx.Err() != nil {
		return false
	}
	action := q.examined[0]
	q.examined = q.examined[1:]
	q.mu.Unlock()
	err := action.Check(ctx)
	q.mu.Lock()
	state := q.states[keyOf(action)]
	if err == nil || ctx.Err() != nil || state == nil || !state.Done.IsZero() {
		return true
	}
	if state.Tries == 0 {
		state.Err, state.Since = err, time.Now()
	}
	var missing *Absent
	if errors.As(err, &missing) {
		q.log.Warn("reload finds nothing to tell yet", "by", state.By, "reason", err)
	} else {
		q.log.Error("reload cannot work", "by", state.By, "error", err)
	}
	return true
}

// work tries what is due: what is new first, in the order of adding.
func (q *Queue) work(ctx context.Context, now time.Time) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var errs []error
	for _, try := range q.due(now) {
		if ctx.Err() != nil {
			return errors.Join(append(errs, ctx.Err())...)
		}
		begun := time.Now()
		err := do(ctx, try)
		if err != nil && ctx.Err() != nil {
			return errors.Join(append(errs, err)...)
		}
		if !isUnneeded(err) {
			q.tries.Note(begun, err)
		}
		if err := q.settle(try, err); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// farewell is how long an action may go on when the agent ends: what is cut off
// would have to be done again.
const farewell = 2 * time.Second

func do(ctx context.Context, try *attempt) error {
	outliving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(farewell, cancel) })()
	return try.action.Do(outliving, try.change)
}

// due takes out what is to be tried now. An action that is added again while
// it runs so gets a turn of its own: what it acts on may have changed.
func (q *Queue) due(now time.Time) []*attempt {
	q.mu.Lock()
	defer q.mu.Unlock()
	var due, again []*attempt
	var rest []string
	for _, key := range q.order {
		switch try := q.waiting[key]; {
		case try.due.After(now):
			rest = append(rest, key)
			continue
		case try.retry == nil:
			due = append(due, try)
		default:
			again = append(again, try)
		}
		delete(q.waiting, key)
	}
	q.order = rest
	due = append(due, again...)
	q.running = append(q.running, due...)
	return due
}

// settle takes in what became of a try, and returns the failure.
func (q *Queue) settle(try *attempt, err error) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	key := keyOf(try.action)
	q.running = slices.DeleteFunc(q.running, func(t *attempt) bool { return t == try })
	state := q.states[key]
	if state == nil {
		state = &State{By: try.action.String()} // Nobody has asked to retain it, or no longer.
	}
	switch {
	case err == nil || isUnneeded(err):
		if isUnneeded(err) {
			q.log.Info("no need to reload", "by", state.By, "reason", err)
		} else {
			q.log.Info("reloaded", "by", state.By)
		}
		*state = State{By: state.By, Done: time.Now()}
		poke(q.told)
		return nil
	case state.Tries == 0:
		q.log.Error("reload failed; will try again", append([]any{"by", state.By, "error", err}, OutputOf(err)...)...)
	default:
		q.log.Debug("reload failed again", append([]any{"by", state.By, "error", err}, OutputOf(err)...)...)
	}
	if try.retry == nil {
		try.retry = backoff.NewExponentialBackOff(
			backoff.WithInitialInterval(time.Second), backoff.WithMaxInterval(time.Minute), backoff.WithMaxElapsedTime(0))
	}
	if state.Tries == 0 {
		state.Since = time.Now()
	}
	state.Err, state.Tries = err, state.Tries+1
	if q.states[key] == nil && q.retains {
		return err
	}
	q.states[key] = state
	try.due = time.Now().Add(try.retry.NextBackOff())
	if again := q.waiting[key]; again != nil {
		again.retry, again.change = try.retry, try.change.and(again.change)
		return err
	}
	q.waiting[key] = try
	q.order = append(q.order, key)
	return err
}

// isUnneeded tells whether nobody had to be told.
func isUnneeded(err error) bool {
	var unneeded *Unneeded
	return errors.As(err, &unneeded)
}

// Tries are the actions that were tried, but for those that nobody needed.
func (q *Queue) Tries() tally.Sum { return q.tries.Sum() }

// next tells how long it is until something is due.
func (q *Queue) next() (time.Duration, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var first time.Time
	for i, key := range q.order {
		if due := q.waiting[key].due; i == 0 || due.Before(first) {
			first = due
		}
	}
	return time.Until(first), len(q.order) > 0
}

// States tells how all actions are, by name.
func (q *Queue) States() []State {
	q.mu.Lock()
	defer q.mu.Unlock()
	var all []State
	for key, state := range q.states {
		s := *state
		if try := q.waiting[key]; try != nil {
			s.Waiting, s.Next = true, try.due
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b State) int { return strings.Compare(a.By, b.By) })
	return all
}
