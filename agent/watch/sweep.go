package watch

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/render"
)

const (
	// revokeGrace is how long an old lease is kept after the new file was
	// dropped, for the service to reload.
	revokeGrace = 5 * time.Second
	// orphanLife is how long it is tried to revoke the lease of an earlier run,
	// whose time to live is not known.
	orphanLife = time.Hour
	// doubtful is how often it is asked whether a token has been replaced.
	doubtful = 500 * time.Millisecond
)

// sweep is the state of a running [Watcher]. Only its goroutine touches it.
type sweep struct {
	w           *Watcher
	interval    time.Duration
	shares      Shares
	entries     []*entry
	leases      []*Lease // all that have neither ended nor are being revoked
	inFiles     map[*Lease]bool
	revocations []*revocation
	queue       []job // due, waiting for a worker
	working     int   // in the hands of workers
	reading     int   // reads queued or in the hands of workers
	tick        time.Time
	wake        time.Time // when one of entries or revocations is due; zero where that is not known
	byAPI       map[render.Request]*entry
	news        Batch
	since       time.Time // of the oldest of news
	denied      bool      // it was said that leases may not be revoked
	ended       []string  // ids of leases that are revoked or given up, not handed on yet
}

func newSweep(w *Watcher) *sweep {
	return &sweep{w: w, news: Batch{}, byAPI: map[render.Request]*entry{}, interval: longestSleep, shares: Shares{Lease: 0.9, Cert: 2.0 / 3}}
}

// start queues what is due, and finds out when something will be next. All static
// secrets that are well are due at the tick. It looks at all of them only when
// that is needed: thousands of them are read in one sweep, one event each.
func (s *sweep) start(now time.Time) {
	if now.Before(s.wake) {
		return
	}
	if !now.Before(s.tick) {
		s.tick = now.Add(jittered(s.interval))
	}
	s.wake = now.Add(longestSleep)
	s.wakeBy(s.tick)
	for _, e := range s.entries {
		s.look(e, now)
	}
	for _, r := range s.revocations {
		switch {
		case r.busy:
		case r.due.After(now):
			s.wakeBy(r.due)
		default:
			r.busy = true
			s.queue = append(s.queue, r)
		}
	}
}

// look queues an entry that is due, or sees to it that it will be looked at then.
func (s *sweep) look(e *entry, now time.Time) {
	if e.busy {
		return
	}
	at, sure := e.due(now, s.w.wall().Round(0))
	switch {
	case !sure && at.Before(now.Add(doubtful)):
		s.wakeBy(now.Add(doubtful))
	case !sure || at.After(now):
		s.wakeBy(at)
	case !at.IsZero():
		e.busy = true
		e.choose(now)
		s.reading++
		s.queue = append(s.queue, e)
	}
}

func (s *sweep) wakeBy(at time.Time) {
	if !at.IsZero() && at.Before(s.wake) {
		s.wake = at
	}
}

// lookAtAll has start look at everything again.
func (s *sweep) lookAtAll() { s.wake = time.Time{} }

// nextJob gives a nil channel, on which nothing can be sent, where nothing is
// queued; so does ready.
func (s *sweep) nextJob(jobs chan job) (job, chan job) {
	if len(s.queue) == 0 {
		return nil, nil
	}
	return s.queue[0], jobs
}

func (s *sweep) sent() {
	s.queue[0] = nil
	s.queue = s.queue[1:]
	s.working++
}

// ready holds a batch back while reads are under way, for as long as gather.
func (s *sweep) ready(out chan Batch) (Batch, chan Batch) {
	if len(s.news) == 0 || s.reading > 0 && time.Since(s.since) < gather {
		return nil, nil
	}
	return s.news, out
}

// endedLeases gives a nil channel if no lease has ended.
func (s *sweep) endedLeases(out chan []string) ([]string, chan []string) {
	if len(s.ended) == 0 {
		return nil, nil
	}
	return s.ended, out
}

func (s *sweep) taken() { s.news = Batch{} }

// sleep is how long nothing happens unless something else does.
func (s *sweep) sleep(now time.Time) time.Duration {
	next := s.wake
	if at := s.since.Add(gather); len(s.news) > 0 && at.After(now) && at.Before(next) {
		next = at
	}
	return next.Sub(now)
}

// want keeps the entries that are wanted still. A request that was not made
// before gets an entry of its own, until it turns out to be another spelling.
func (s *sweep) want(w Wanted) {
	s.lookAtAll()
	s.shares = w.Shares
	s.setInterval(w.Interval)
	wanted := map[render.Request]bool{}
	for _, r := range w.Requests {
		wanted[r] = true
	}
	known := map[render.Request]bool{}
	for _, e := range s.entries {
		e.asked = slices.DeleteFunc(e.asked, func(r render.Request) bool { return !wanted[r] })
		e.gone = len(e.asked) == 0
		for _, r := range e.asked {
			known[r] = true
		}
	}
	s.entries = slices.DeleteFunc(s.entries, func(e *entry) bool { return e.gone })
	maps.DeleteFunc(s.byAPI, func(_ render.Request, e *entry) bool { return e.gone })
	for _, r := range w.Requests {
		if !known[r] {
			known[r] = true
			s.entries = append(s.entries, s.newEntry(r, w.Known[r]))
		}
	}
	maps.DeleteFunc(s.news, func(r render.Request, _ Reading) bool { return !wanted[r] })
}

func (s *sweep) newEntry(r render.Request, known Reading) *entry {
	e := &entry{name: r, asked: []render.Request{r}, last: known}
	if known.Secret != nil {
		e.plan = plan(known.Life, s.shares, time.Now(), s.w.wall().Round(0), s.tick)
	}
	return e
}

// setInterval lets a new interval count from now on, not from the end of the
// old one.
func (s *sweep) setInterval(interval time.Duration) {
	if interval == s.interval {
		return
	}
	old := s.tick
	s.interval, s.tick = interval, time.Now().Add(jittered(interval))
	for _, e := range s.entries {
		if look := e.plan.look; look.Equal(old) || look.After(s.tick) {
			e.plan.look = s.tick
		}
		if e.after.After(s.tick) {
			e.after = s.tick
		}
	}
}

func (s *sweep) refresh() {
	s.lookAtAll()
	s.unresolveAll()
	for _, e := range s.entries {
		if e.last.Secret == nil || !e.plan.look.IsZero() || e.retry != nil {
			e.now, e.again = true, e.busy
		}
	}
}

// unresolveAll has every request resolved anew, since mounts have changed or may have.
// Spellings that stood for one secret may stand for several now.
func (s *sweep) unresolveAll() {
	s.lookAtAll()
	for _, e := range slices.Clone(s.entries) {
		if e.moved = e.busy; !e.busy {
			s.unresolve(e)
		}
	}
}

func (s *sweep) unresolve(e *entry) {
	e.moved = false
	if !e.resolved() {
		return
	}
	if s.byAPI[e.api] == e {
		delete(s.byAPI, e.api)
	}
	e.api = render.Request{}
	others := e.asked[1:]
	e.name, e.asked = e.asked[0], e.asked[:1:1]
	for _, r := range others {
		s.entries = append(s.entries, &entry{
			name: r, asked: []render.Request{r}, last: e.last, plan: e.plan,
			answered: e.answered, attempted: e.attempted, failing: e.failing,
		})
	}
}

func (s *sweep) finish(j job) {
	s.working--
	if r, ok := j.(*revocation); ok {
		s.revoked(r)
		return
	}
	e := j.(*entry)
	s.reading--
	e.busy = false
	fresh := e.task == resolve
	news := e.absorb(s, time.Now())
	e.now, e.again = e.now || e.again, false
	if e.gone {
		s.revoke(s.superfluous(), 0) // It may just have been issued something.
		return
	}
	if news {
		s.tell(e, e.asked)
	}
	switch {
	case e.moved:
		s.unresolve(e)
	case fresh && e.resolved():
		s.merge(e)
	}
	if !e.gone {
		s.look(e, time.Now())
	}
}

// merge hands the requests of an entry, whose API path has just been found out,
// to another one that watches the same secret already.
func (s *sweep) merge(e *entry) {
	other := s.byAPI[e.api]
	if other == nil {
		s.byAPI[e.api] = e
		return
	}
	e.gone = true
	other.asked = append(other.asked, e.asked...)
	s.entries = slices.DeleteFunc(s.entries, func(x *entry) bool { return x == e })
	if other.last.Secret != nil || other.last.Err != nil {
		s.tell(other, e.asked)
	}
}

func (s *sweep) tell(e *entry, requests []render.Request) {
	if len(s.news) == 0 {
		s.since = time.Now()
	}
	for _, r := range requests {
		s.news[r] = e.last
	}
}

// settle notes which leases stand in files, and lets go of the others.
func (s *sweep) settle(settled Settled) {
	s.inFiles = map[*Lease]bool{}
	for _, l := range settled.InFiles {
		s.inFiles[l] = true
	}
	s.revoke(s.superfluous(), revokeGrace)
	for _, id := range settled.Orphans {
		s.revoke([]*Lease{{ID: id, TTL: orphanLife}}, revokeGrace)
	}
}

// superfluous takes out the leases that are neither in files nor on their way.
func (s *sweep) superfluous() []*Lease {
	wanted := map[*Lease]bool{}
	for _, e := range s.entries {
		wanted[e.last.Life.Lease] = true
	}
	var others []*Lease
	s.leases = slices.DeleteFunc(s.leases, func(l *Lease) bool {
		if s.inFiles[l] || wanted[l] {
			return false
		}
		others = append(others, l)
		return true
	})
	return others
}

func (s *sweep) revoke(leases []*Lease, grace time.Duration) {
	if len(leases) > 0 {
		s.lookAtAll()
	}
	now := time.Now()
	for _, l := range leases {
		if l.ID == "" {
			l.release()
			continue
		}
		s.revocations = append(s.revocations, &revocation{lease: l, due: now.Add(grace), until: now.Add(l.TTL)})
	}
}

// revoked takes the result of a revocation. One that Vault refuses is given up:
// the lease ends by itself.
func (s *sweep) revoked(r *revocation) {
	now := time.Now()
	r.busy = false
	if session.IsTransient(r.err) && now.Before(r.until) {
		if r.retry == nil {
			r.retry = session.Backoff(time.Second, time.Minute)
		}
		r.due = now.Add(max(r.retry.NextBackOff(), shortestRetry, session.RetryAfter(r.err)))
		s.wakeBy(r.due)
		return
	}
	switch {
	case r.err == nil:
		s.w.log.Info("lease revoked", "lease", r.lease.ID)
	case errors.Is(r.err, session.ErrDenied) && !s.denied:
		s.denied = true
		s.w.log.Warn("leases that no file holds any more cannot be revoked", "lease", r.lease.ID, "error", r.err)
	default:
		s.w.log.Debug("a lease was not revoked; it ends by itself", "lease", r.lease.ID, "error", r.err)
	}
	r.lease.release()
	s.ended = append(s.ended, r.lease.ID)
	s.revocations = slices.DeleteFunc(s.revocations, func(x *revocation) bool { return x == r })
}

// drain waits for the workers, so that none outlives the watcher, and takes in
// what they bring.
func (s *sweep) drain(done <-chan job) {
	for s.working > 0 {
		s.finish(<-done)
	}
}

// abandon revokes the leases that stand in no file, since nobody will know of
// them any more. Those in files live on, with their tokens.
func (s *sweep) abandon(ctx context.Context) {
	s.entries = nil
	s.revoke(s.superfluous(), 0)
	for _, r := range s.revocations {
		if ctx.Err() == nil {
			r.do(ctx, s.w.reader)
		}
		r.lease.release()
	}
}
