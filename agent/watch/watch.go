// Package watch keeps an eye on secrets. There is one watcher per distinct
// secret, however many files use it and however they spell its path.
package watch

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

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
	revoked chan []string
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
		asked: make(chan chan<- map[render.Request]State), revoked: make(chan []string),
	}
}

// CountReads has reads counted there, but for renewals of leases. That there is no
// such secret counts as an answer. It must be called before Run.
func (w *Watcher) CountReads(reads *tally.Tally) { w.reads = reads }

// Batches are the changes. A reader that is slow gets them merged.
func (w *Watcher) Batches() <-chan Batch { return w.batches }

// Revoked delivers the ids of leases that are revoked, or that were given up as they end by
// themselves.
func (w *Watcher) Revoked() <-chan []string { return w.revoked }

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
		ended, revoked := s.endedLeases(w.revoked)
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
		case revoked <- ended:
			s.ended = nil
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

// Fetch reads secrets once each, and retries transient failures until the context ends. It
// is what a single run needs of a watcher. deliver gets the readings, one call at a time:
// first those that one attempt has answered, and then the others as they come, so that a
// secret that fails does not hold back the rest.
func Fetch(ctx context.Context, reader Reader, requests []render.Request, log *slog.Logger, deliver func(Batch)) {
	spellings, unresolved := resolveAll(ctx, reader, requests, log)
	f := fetch{reader: reader, log: log, slots: make(chan struct{}, session.MaxConcurrent), attempted: make(chan struct{}, len(spellings)), answered: make(chan Batch, len(spellings))}
	for resolved, asked := range spellings {
		f.slots <- struct{}{} // There are no more goroutines than reads, unless reads fail.
		go f.read(ctx, resolved, asked)
	}
	for range spellings {
		<-f.attempted
	}
	gathered, left := unresolved, len(spellings)
	for {
		for len(f.answered) > 0 {
			maps.Copy(gathered, <-f.answered)
			left--
		}
		if len(gathered) > 0 {
			deliver(gathered)
			gathered = Batch{}
		}
		if left == 0 {
			return
		}
		maps.Copy(gathered, <-f.answered)
		left--
		if left > 0 {
			time.Sleep(gather) // After an outage, secrets come one after the other.
		}
	}
}

// resolveAll returns the requests by what they resolve to, and the failures of those that
// cannot be resolved.
func resolveAll(ctx context.Context, reader Reader, requests []render.Request, log *slog.Logger) (spellings map[render.Request][]render.Request, failed Batch) {
	spellings, failed = map[render.Request][]render.Request{}, Batch{}
	for _, r := range requests {
		var resolved render.Request
		err := session.Retry(ctx, log, session.IsTransient, func() (err error) {
			resolved, err = reader.Resolve(ctx, r)
			return err
		})
		if err != nil {
			failed[r] = Reading{Err: err}
			continue
		}
		spellings[resolved] = append(spellings[resolved], r)
	}
	return spellings, failed
}

// fetch are the reads of one [Fetch].
type fetch struct {
	reader    Reader
	log       *slog.Logger
	slots     chan struct{} // one for each read that is under way; a first read gets its own before it begins
	attempted chan struct{} // once for each secret, after its first attempt
	answered  chan Batch
}

// read reads one secret until it succeeds or fails for good.
func (f fetch) read(ctx context.Context, resolved render.Request, asked []render.Request) {
	isWorth := func(err error) bool {
		return session.IsTransient(err) || errors.Is(err, errRemounted) || errors.Is(err, errFilling)
	}
	var got Reading
	attempted := sync.OnceFunc(func() { f.attempted <- struct{}{} })
	hasSlot := true
	got.Err = session.Retry(ctx, f.log, isWorth, func() (err error) {
		if !hasSlot {
			f.slots <- struct{}{}
		}
		if got.Secret, got.Life, err = f.reader.Read(ctx, resolved); errors.Is(err, errRemounted) {
			if again, failed := f.reader.Resolve(ctx, asked[0]); failed == nil {
				resolved = again
			}
		}
		<-f.slots
		hasSlot = false
		if isWorth(err) {
			attempted()
		}
		return err
	})
	batch := Batch{}
	for _, r := range asked {
		batch[r] = got
	}
	f.answered <- batch
	attempted()
}

func jittered(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (1 + jitter*(2*rand.Float64()-1)))
}
