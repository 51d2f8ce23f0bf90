// Package watch keeps an eye on secrets. There is one watcher per distinct
// secret, however many files use it and however they spell its path.
package watch

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/smarteros/deaddrop/agent/internal/tally"
	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/render"
)

// Reader reads secrets; [Secrets] is one. Its methods may be called concurrently.
type Reader interface {
	// Resolve returns the request with the API path of its secret, which is the
	// same for all spellings of it.
	Resolve(ctx context.Context, r render.Request) (render.Request, error)
	// Read asks what Resolve returned. Each call may issue something new.
	Read(ctx context.Context, r render.Request) (*render.Secret, Life, error)
	// Renew prolongs a lease and returns its new time to live, and whether it
	// can be renewed again.
	Renew(ctx context.Context, l *Lease) (time.Duration, bool, error)
	// Revoke ends a lease.
	Revoke(ctx context.Context, l *Lease) error
	// Forget has what is known of Vault's mounts found out anew, by which requests are
	// resolved.
	Forget()
}

// Reading is what is known of a secret. After a failure Secret is still the
// last good one, or nil where there never was one.
type Reading struct {
	Secret *render.Secret
	// Life is that of Secret.
	Life Life
	Err  error
}

// Batch holds the readings that have changed, by request as it was made.
type Batch map[render.Request]Reading

const (
	// gather is how long a batch waits, at most, for reads that are under way:
	// secrets that were changed together are handed on together.
	gather = time.Second
	// jitter spreads the sweeps of agents that were started together.
	jitter = 0.1
	// longestSleep bounds how late a jump of the clock on the wall is noticed.
	longestSleep = time.Minute
)

// Watcher reads secrets again and again, and hands on what has changed. Static
// secrets are read in one sweep per interval, so that changes which were made
// together are found together; what has a lease or is a certificate keeps a
// schedule of its own; a secret that fails is retried with backoff.
type Watcher struct {
	reader  Reader
	log     *slog.Logger
	want    chan Wanted
	settled chan Settled
	refresh chan struct{}
	batches chan Batch
	asked   chan chan<- map[render.Request]State
	reads   *tally.Tally // nil where nobody counts
	ended   *sweep       // the state that Run has left behind
	// wall is the clock on the wall, by which certificates are judged.
	wall func() time.Time
}

// Wanted is what is to be watched.
type Wanted struct {
	// Requests replace those wanted before. What is new is read at once.
	Requests []render.Request
	// Known are answers of an earlier run that are good still.
	Known map[render.Request]Reading
	// Interval is how often static secrets are looked at, before jitter.
	Interval time.Duration
	Shares   Shares
}

// Settled tells what stands in files now.
type Settled struct {
	// InFiles are the leases of what stands in files. Others are revoked, unless
	// they are new and on their way.
	InFiles []*Lease
	// Orphans are ids of leases of an earlier run, which no file holds any more.
	Orphans []string
}

// New returns a watcher that wants nothing yet.
func New(reader Reader, log *slog.Logger) *Watcher {
	return &Watcher{
		reader: reader, log: log, wall: time.Now,
		want: make(chan Wanted), settled: make(chan Settled), refresh: make(chan struct{}, 1), batches: make(chan Batch),
		asked: make(chan chan<- map[render.Request]State),
	}
}

// CountReads has reads counted there, but for renewals of leases. That there is no
// such secret counts as an answer. It must be called before Run.
func (w *Watcher) CountReads(reads *tally.Tally) { w.reads = reads }

// Batches are the changes. A reader that is slow gets them merged.
func (w *Watcher) Batches() <-chan Batch { return w.batches }

// Want returns when Run has taken it, or the context has ended.
func (w *Watcher) Want(ctx context.Context, wanted Wanted) {
	select {
	case w.want <- wanted:
	case <-ctx.Done():
	}
}

// Settle returns when Run has taken it, or the context has ended.
func (w *Watcher) Settle(ctx context.Context, s Settled) {
	select {
	case w.settled <- s:
	case <-ctx.Done():
	}
}

// Refresh reads all static secrets now, and tries again now what has failed.
func (w *Watcher) Refresh() {
	select {
	case w.refresh <- struct{}{}:
	default: // One is waiting already.
	}
}

// Run watches until the context ends. [Watcher.Close] should follow.
func (w *Watcher) Run(ctx context.Context) error {
	s := newSweep(w)
	w.ended = s
	jobs := make(chan job)
	done := make(chan job)
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
		case wanted := <-w.want:
			s.want(wanted)
		case settled := <-w.settled:
			s.settle(settled)
		case answer := <-w.asked:
			answer <- s.states(time.Now())
		case <-w.refresh:
			w.reader.Forget()
			s.refresh()
		case send <- next:
			s.sent()
		case j := <-done:
			s.finish(j)
		case out <- batch:
			s.taken()
		case <-timer.C:
		}
	}
}

// Close revokes, after the end of Run, the leases that stand in no file.
func (w *Watcher) Close(ctx context.Context, settled Settled) {
	if w.ended == nil {
		return
	}
	w.ended.settle(settled)
	w.ended.abandon(ctx)
}

// work does what it is given. A job is nobody else's meanwhile.
func (w *Watcher) work(ctx context.Context, jobs <-chan job, done chan<- job) {
	for {
		select {
		case <-ctx.Done():
			return
		case j := <-jobs:
			j.do(ctx, w.reader)
			done <- j
		}
	}
}

// Fetch reads secrets once each, retrying what may pass until the context
// ends. It is what a single run needs of a watcher.
func Fetch(ctx context.Context, reader Reader, requests []render.Request, log *slog.Logger) Batch {
	batch := Batch{}
	spellings := map[render.Request][]render.Request{}
	for _, r := range requests {
		var resolved render.Request
		err := session.Retry(ctx, log, session.IsTransient, func() (err error) {
			resolved, err = reader.Resolve(ctx, r)
			return err
		})
		if err != nil {
			batch[r] = Reading{Err: err}
			continue
		}
		spellings[resolved] = append(spellings[resolved], r)
	}
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(session.MaxConcurrent)
	worth := func(err error) bool {
		return session.IsTransient(err) || errors.Is(err, errRemounted) || errors.Is(err, errFilling)
	}
	for resolved, asked := range spellings {
		group.Go(func() error {
			var got Reading
			got.Err = session.Retry(ctx, log, worth, func() (err error) {
				if got.Secret, got.Life, err = reader.Read(ctx, resolved); errors.Is(err, errRemounted) {
					if again, failed := reader.Resolve(ctx, asked[0]); failed == nil {
						resolved = again
					}
				}
				return err
			})
			mu.Lock()
			defer mu.Unlock()
			for _, r := range asked {
				batch[r] = got
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
