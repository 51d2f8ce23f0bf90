package watch

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/smarteros/deaddrop/agent/internal/tally"
	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/render"
)

// job is something that a worker does.
type job interface {
	do(ctx context.Context, reader Reader)
}

// entry is one watched secret: one request as made before its API path is
// known, and all the spellings of a secret after that.
type entry struct {
	name  render.Request   // the request to resolve
	asked []render.Request // the requests as made
	api   render.Request   // with the API path, once that is resolved
	busy  bool             // queued or in the hands of a worker
	again bool             // wanted again while busy
	gone  bool             // not wanted any more
	moved bool             // to be resolved anew when it is not busy any more
	last  Reading
	plan  schedule
	now   bool                        // act now, whatever the schedule says
	retry *backoff.ExponentialBackOff // nil while all is well
	after time.Time                   // when to retry
	// resolving says that retry is on account of a resolve that has failed, and not of
	// what the entry is about.
	resolving bool

	answered  time.Time // when Vault last did
	attempted time.Time // when Vault was last asked
	failing   time.Time // since when it cannot be read; zero when all is well

	task   task
	result result
}

// task is what a worker has to do with an entry.
type task int

const (
	resolve task = iota
	read
	renew
)

// result is what a worker leaves in an entry.
type result struct {
	asked  time.Time
	api    render.Request
	secret *render.Secret
	life   Life
	ttl    time.Duration
	again  bool
	err    error
}

func (e *entry) resolved() bool { return e.api != render.Request{} }

// due tells when to act, and whether that is sure. The zero time is never.
func (e *entry) due(now, wall time.Time) (time.Time, bool) {
	switch {
	case e.now:
		return now, true
	case e.retry != nil:
		return e.after, true
	case !e.resolved() || e.last.Secret == nil:
		return now, true
	}
	return e.plan.due(e.last.Life.Lease, now, wall)
}

// choose sets what to do.
func (e *entry) choose(now time.Time) {
	switch {
	case !e.resolved():
		e.task = resolve
	case e.plan.mayRenew(e.last.Life.Lease, now):
		e.task = renew
	default:
		e.task = read
	}
}

func (e *entry) do(ctx context.Context, reader Reader) {
	e.result = result{asked: time.Now()}
	r := &e.result
	switch e.task {
	case resolve:
		r.api, r.err = reader.Resolve(ctx, e.name)
	case renew:
		r.ttl, r.again, r.err = reader.Renew(ctx, e.last.Life.Lease)
	case read:
		r.secret, r.life, r.err = reader.Read(ctx, e.api)
	}
}

// absorb takes the result in and tells whether it is news.
func (e *entry) absorb(s *sweep, now time.Time) bool {
	r := e.result
	e.result, e.now = result{}, e.now && e.task == resolve && e.result.err == nil
	e.count(r, s.w.reads, now)
	if r.err != nil {
		e.resolving = e.task == resolve && (e.retry == nil || e.resolving)
	}
	switch {
	case errors.Is(r.err, errRemounted):
		e.pause(r.err, s.interval, now) // Nothing is known of the secret yet.
		s.unresolveAll()
		return false
	case r.err != nil && e.task == renew && !session.IsTransient(r.err):
		e.retry = nil
		e.renewalIsOver(r.err)
		return false
	case r.err != nil:
		return e.fail(r.err, s, now)
	case e.task == resolve && e.resolving && e.last.Secret != nil:
		e.api, e.retry, e.resolving, e.failing = r.api, nil, false, time.Time{}
		news := e.last.Err != nil
		e.last.Err = nil
		return news
	case e.task == resolve: // A pause before a retry was that of the read that follows.
		e.api = r.api
		return false
	case e.task == renew:
		e.retry = nil
		e.renewed(r, s.shares)
		news := e.last.Err != nil
		e.last.Err = nil
		return news
	}
	e.retry = nil
	if r.life.Lease != nil {
		s.leases = append(s.leases, r.life.Lease)
	}
	e.plan = plan(r.life, s.shares, r.asked, s.w.wall().Round(0), s.tick)
	news := e.last.Err != nil || e.last.Secret == nil || r.life.Lease != nil || changed(e.last.Secret, r.secret)
	if news {
		e.last = Reading{Secret: r.secret, Life: r.life}
	}
	return news
}

// count notes what became of a task, for those who ask how the entry is.
func (e *entry) count(r result, reads *tally.Tally, now time.Time) {
	isAnswer := r.err == nil || errors.Is(r.err, ErrMissing)
	switch {
	case e.task == read && isAnswer:
		reads.Note(r.asked, nil)
	case e.task != renew && !isAnswer:
		reads.Note(r.asked, r.err)
	}
	e.attempted = r.asked
	switch {
	case r.err != nil && e.failing.IsZero():
		e.failing = now
	case r.err == nil && e.task != resolve:
		e.failing = time.Time{}
	}
	if isAnswer && e.task != resolve {
		e.answered = now
	}
}

// pause sets when to try again after an error.
func (e *entry) pause(err error, interval time.Duration, now time.Time) {
	if e.retry == nil {
		e.retry = session.Backoff(min(time.Second, interval), interval)
	}
	e.after = now.Add(max(e.retry.NextBackOff(), shortestRetry, session.RetryAfter(err)))
}

func (e *entry) fail(err error, s *sweep, now time.Time) bool {
	e.pause(err, s.interval, now)
	if errors.Is(err, ErrMissing) && e.retry.GetElapsedTime() > s.interval && s.tick.After(now) {
		e.after = s.tick // That there is none is an answer, looked at as others are.
	}
	news := e.last.Err == nil || e.last.Err.Error() != err.Error()
	e.last.Err = err
	return news
}

// shortestRetry keeps full jitter from asking again at once.
const shortestRetry = 100 * time.Millisecond

// renewed takes in what Vault has granted. A life shorter than the one before
// is the last: Vault grants no more than the maximum, and counts the rest of it
// in whole seconds, rounded up.
func (e *entry) renewed(r result, shares Shares) {
	l := e.last.Life.Lease
	l.Renewable = r.again && r.ttl >= l.TTL
	if r.ttl < l.TTL {
		r.ttl -= time.Second
	}
	l.TTL = r.ttl
	e.plan = planLease(l, shares.Lease, r.asked)
	e.now = r.ttl <= 0 // To be issued anew.
}

// renewalIsOver leaves the lease to be issued anew: at once where Vault does not
// know it any more, and else as late as planned.
func (e *entry) renewalIsOver(err error) {
	e.last.Life.Lease.Renewable = false
	e.plan.renew = time.Time{}
	// A policy's denial, or "lease is not renewable", leaves the lease as it is.
	var fault *session.Fault
	if errors.As(err, &fault) && fault.LeaseLost {
		e.now = true
	}
}

// changed tells two readings of a secret apart: by version, and without
// versions by content, of which the time to the next rotation is no part.
func changed(old, now *render.Secret) bool {
	if old.Version != 0 || now.Version != 0 {
		return old.Version != now.Version || old.Created != now.Created || old.Path != now.Path // Of another engine.
	}
	before, after := old.Data.Reveal(), now.Data.Reveal()
	if rotates(before) && rotates(after) {
		before, after = maps.Clone(before), maps.Clone(after)
		delete(before, "ttl")
		delete(after, "ttl")
	}
	return !reflect.DeepEqual(before, after)
}

// revocation is the end of a lease that no file holds any more.
type revocation struct {
	lease *Lease
	due   time.Time
	busy  bool
	retry *backoff.ExponentialBackOff
	until time.Time // when the lease has ended by itself
	err   error
}

func (r *revocation) do(ctx context.Context, reader Reader) { r.err = reader.Revoke(ctx, r.lease) }
