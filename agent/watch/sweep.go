package watch

import (
	"maps"
	"slices"
	"time"
)

// sweep is the state of a running [Watcher]. Only its goroutine touches it.
type sweep struct {
	w       *Watcher
	entries []*entry
	queue   []*entry // due, waiting for a worker
	reading int      // in the hands of workers
	tick    time.Time
	news    Batch
	since   time.Time // of the oldest of news
}

func newSweep(w *Watcher) *sweep { return &sweep{w: w, news: Batch{}} }

// start queues what is due. Everything that is well is due at the tick.
func (s *sweep) start(now time.Time) {
	if !now.Before(s.tick) {
		s.tick = now.Add(jittered(s.w.interval))
	}
	for _, e := range s.entries {
		if !e.busy && !e.due.After(now) {
			e.busy = true
			s.queue = append(s.queue, e)
		}
	}
}

// nextJob gives a nil channel, on which nothing can be sent, where nothing is
// queued; so does ready.
func (s *sweep) nextJob(jobs chan *entry) (*entry, chan *entry) {
	if len(s.queue) == 0 {
		return nil, nil
	}
	return s.queue[0], jobs
}

func (s *sweep) sent() {
	s.queue[0] = nil
	s.queue = s.queue[1:]
	s.reading++
}

// ready holds a batch back while reads are under way, for as long as gather.
func (s *sweep) ready(out chan Batch) (Batch, chan Batch) {
	busy := s.reading > 0 || len(s.queue) > 0
	if len(s.news) == 0 || busy && time.Since(s.since) < gather {
		return nil, nil
	}
	return s.news, out
}

func (s *sweep) taken() { s.news = Batch{} }

// sleep is how long nothing happens unless something else does.
func (s *sweep) sleep(now time.Time) time.Duration {
	next := s.tick
	for _, e := range s.entries {
		if !e.busy && e.due.Before(next) {
			next = e.due
		}
	}
	if len(s.news) > 0 && s.since.Add(gather).Before(next) && s.since.Add(gather).After(now) {
		next = s.since.Add(gather)
	}
	return next.Sub(now)
}

// want keeps the entries that are wanted still. A path that was not asked for
// before gets an entry of its own, until it turns out to be another spelling.
func (s *sweep) want(paths []string, interval time.Duration) {
	s.setInterval(interval)
	wanted := map[string]bool{}
	for _, path := range paths {
		wanted[path] = true
	}
	known := map[string]bool{}
	for _, e := range s.entries {
		e.asked = slices.DeleteFunc(e.asked, func(path string) bool { return !wanted[path] })
		e.gone = len(e.asked) == 0
		for _, path := range e.asked {
			known[path] = true
		}
	}
	s.entries = slices.DeleteFunc(s.entries, func(e *entry) bool { return e.gone })
	for _, path := range paths {
		if !known[path] {
			known[path] = true
			s.entries = append(s.entries, &entry{name: path, asked: []string{path}})
		}
	}
	maps.DeleteFunc(s.news, func(path string, _ Reading) bool { return !wanted[path] })
}

// setInterval lets a new interval count from now on, not from the end of the
// old one.
func (s *sweep) setInterval(interval time.Duration) {
	if interval == s.w.interval {
		return
	}
	old := s.tick
	s.w.interval, s.tick = interval, time.Now().Add(jittered(interval))
	for _, e := range s.entries {
		if e.due.Equal(old) || e.due.After(s.tick) {
			e.due = s.tick
		}
	}
}

func (s *sweep) refresh() {
	for _, e := range s.entries {
		e.due, e.again = time.Time{}, e.busy
	}
}

func (s *sweep) finish(e *entry) {
	s.reading--
	e.busy = false
	if e.gone {
		return
	}
	fresh := e.path == ""
	news := e.absorb(time.Now(), s.w.interval, s.tick)
	if e.again {
		e.due, e.again = time.Time{}, false
	}
	if news {
		s.tell(e, e.asked)
	}
	if fresh && e.path != "" {
		s.merge(e)
	}
}

// merge hands the paths of an entry, whose API path has just been found out, to
// another one that watches the same secret already.
func (s *sweep) merge(e *entry) {
	for _, other := range s.entries {
		if other == e || other.path != e.path {
			continue
		}
		other.asked = append(other.asked, e.asked...)
		s.entries = slices.DeleteFunc(s.entries, func(x *entry) bool { return x == e })
		if other.last != (Reading{}) {
			s.tell(other, e.asked)
		}
		return
	}
}

func (s *sweep) tell(e *entry, paths []string) {
	if len(s.news) == 0 {
		s.since = time.Now()
	}
	for _, path := range paths {
		s.news[path] = e.last
	}
}

// drain waits for the workers, so that none outlives the watcher.
func (s *sweep) drain(done <-chan *entry) {
	for ; s.reading > 0; s.reading-- {
		<-done
	}
}
