// Package watch keeps an eye on secrets. There is one watcher per distinct
// secret, however many files use it and however they spell its path.
package watch

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"golang.org/x/sync/errgroup"

	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/render"
)

// Reader reads secrets; [KV] is one. Both methods may be called concurrently.
type Reader interface {
	// Resolve returns the API path of a secret, which is the same for all
	// spellings of it.
	Resolve(ctx context.Context, path string) (string, error)
	// Read reads the secret at an API path.
	Read(ctx context.Context, path string) (*render.Secret, error)
}

// Reading is what is known of a secret. After a failure Secret is still the
// last good one, or nil where there never was one.
type Reading struct {
	Secret *render.Secret
	Err    error
}

// Batch holds the readings that have changed, by path as it was asked for.
type Batch map[string]Reading

const (
	// gather is how long a batch waits, at most, for reads that are under way:
	// secrets that were changed together are handed on together.
	gather = time.Second
	// jitter spreads the sweeps of agents that were started together.
	jitter = 0.1
)

// Watcher reads secrets again and again, and hands on what has changed. All
// secrets are read in one sweep per interval, so that changes which were made
// together are found together; a secret that fails is retried with backoff.
type Watcher struct {
	reader   Reader
	log      *slog.Logger
	want     chan request
	refresh  chan struct{}
	batches  chan Batch
	interval time.Duration
}

type request struct {
	paths    []string
	interval time.Duration
}

// New returns a watcher that wants nothing yet.
func New(reader Reader, interval time.Duration, log *slog.Logger) *Watcher {
	return &Watcher{
		reader: reader, log: log, interval: interval,
		want: make(chan request), refresh: make(chan struct{}, 1), batches: make(chan Batch),
	}
}

// Batches are the changes. A reader that is slow gets them merged.
func (w *Watcher) Batches() <-chan Batch { return w.batches }

// Want sets the secrets to watch, replacing those wanted before, and the
// interval. What is new is read at once. It returns when Run has taken it, or
// the context has ended.
func (w *Watcher) Want(ctx context.Context, paths []string, interval time.Duration) {
	select {
	case w.want <- request{paths, interval}:
	case <-ctx.Done():
	}
}

// Refresh reads all secrets now.
func (w *Watcher) Refresh() {
	select {
	case w.refresh <- struct{}{}:
	default: // One is waiting already.
	}
}

// Run watches until the context ends.
func (w *Watcher) Run(ctx context.Context) error {
	s := newSweep(w)
	jobs := make(chan *entry)
	done := make(chan *entry)
	var workers sync.WaitGroup
	for range session.MaxConcurrent {
		workers.Go(func() { w.work(ctx, jobs, done) })
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		s.start(time.Now())
		next, send := s.nextJob(jobs)
		batch, out := s.ready(w.batches)
		timer.Reset(s.sleep(time.Now()))
		select {
		case <-ctx.Done():
			s.drain(done)
			workers.Wait()
			return nil
		case r := <-w.want:
			s.want(r.paths, r.interval)
		case <-w.refresh:
			s.refresh()
		case send <- next:
			s.sent()
		case e := <-done:
			s.finish(e)
		case out <- batch:
			s.taken()
		case <-timer.C:
		}
	}
}

// work reads what it is given. Its entry is nobody else's meanwhile.
func (w *Watcher) work(ctx context.Context, jobs <-chan *entry, done chan<- *entry) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-jobs:
			e.read(ctx, w.reader)
			done <- e
		}
	}
}

// entry is one watched secret: one path as asked for before its API path is
// known, and all the spellings of a secret after that.
type entry struct {
	name  string   // the path to resolve; it never changes
	asked []string // the paths as asked for
	path  string   // the API path; "" until it is resolved
	due   time.Time
	busy  bool // queued or being read
	again bool // wanted again while busy
	gone  bool // not wanted any more
	last  Reading
	retry *backoff.ExponentialBackOff // nil while all is well

	// What a worker leaves here: the API path, or else a reading.
	resolved string
	result   Reading
}

// read finds out the API path, or, when that is known, reads the secret.
func (e *entry) read(ctx context.Context, reader Reader) {
	if e.path == "" {
		e.resolved, e.result.Err = reader.Resolve(ctx, e.name)
		return
	}
	e.result.Secret, e.result.Err = reader.Read(ctx, e.path)
}

// absorb takes the result in and tells whether it is news.
func (e *entry) absorb(now time.Time, interval time.Duration, tick time.Time) bool {
	result := e.result
	e.result = Reading{}
	if result.Err == nil && e.path == "" {
		e.path, e.due = e.resolved, now // To be read next.
		return false
	}
	if result.Err != nil {
		if e.retry == nil {
			e.retry = backoff.NewExponentialBackOff(backoff.WithInitialInterval(min(time.Second, interval)),
				backoff.WithMultiplier(2), backoff.WithMaxInterval(interval), backoff.WithMaxElapsedTime(0))
		}
		e.due = now.Add(e.retry.NextBackOff())
		news := e.last.Err == nil || e.last.Err.Error() != result.Err.Error()
		e.last.Err = result.Err
		return news
	}
	e.retry, e.due = nil, tick
	news := e.last.Err != nil || e.last.Secret == nil || changed(e.last.Secret, result.Secret)
	if news {
		e.last = result
	}
	return news
}

// changed tells two readings of a secret apart: by version, and without
// versions by content.
func changed(old, now *render.Secret) bool {
	if old.Version != 0 || now.Version != 0 {
		return old.Version != now.Version || old.Created != now.Created
	}
	return !reflect.DeepEqual(old.Data.Reveal(), now.Data.Reveal())
}

// Fetch reads secrets once each, retrying what may pass until the context
// ends. It is what a single run needs of a watcher.
func Fetch(ctx context.Context, reader Reader, paths []string, log *slog.Logger) Batch {
	batch := Batch{}
	spellings := map[string][]string{}
	for _, path := range paths {
		var api string
		err := session.Retry(ctx, log, session.IsTransient, func() (err error) {
			api, err = reader.Resolve(ctx, path)
			return err
		})
		if err != nil {
			batch[path] = Reading{Err: err}
			continue
		}
		spellings[api] = append(spellings[api], path)
	}
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(session.MaxConcurrent)
	for api, asked := range spellings {
		group.Go(func() error {
			var r Reading
			r.Err = session.Retry(ctx, log, session.IsTransient, func() (err error) {
				r.Secret, err = reader.Read(ctx, api)
				return err
			})
			mu.Lock()
			defer mu.Unlock()
			for _, path := range asked {
				batch[path] = r
			}
			return nil
		})
	}
	_ = group.Wait()
	return batch
}

func jittered(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (1 + jitter*(2*rand.Float64()-1)))
}
