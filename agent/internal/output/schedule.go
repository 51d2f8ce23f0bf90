package output

import "time"

// schedule is when a group is to be rendered next.
type schedule struct {
	at time.Time // zero if nothing is to be done
	// firstChange is the first of the changes that are being gathered; zero if none are.
	firstChange time.Time
}

// now makes the group due at once.
func (s *schedule) now() { *s = schedule{at: time.Now()} }

// clear leaves nothing to be done.
func (s *schedule) clear() { *s = schedule{} }

// retry makes the group due after a delay.
func (s *schedule) retry(after time.Duration) { *s = schedule{at: time.Now().Add(after)} }

// gather makes the group due when it has not changed for a while, and at the latest a
// maximum after the first change. A group that is due for another reason stays so.
func (s *schedule) gather(quiet, maximum time.Duration) {
	now := time.Now()
	if s.firstChange.IsZero() {
		if !s.at.IsZero() {
			return
		}
		s.firstChange = now
	}
	s.at = now.Add(quiet)
	if latest := s.firstChange.Add(maximum); latest.Before(s.at) {
		s.at = latest
	}
}

// isDue reports whether there is something to be done now.
func (s *schedule) isDue(now time.Time) bool { return !s.at.IsZero() && !s.at.After(now) }

// isGathering reports whether changes are being gathered.
func (s *schedule) isGathering() bool { return !s.firstChange.IsZero() }

// Earliest returns the first of times that are not zero; zero if all are.
func Earliest(times ...time.Time) time.Time {
	var first time.Time
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}
