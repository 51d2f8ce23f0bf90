package watch

import (
	"context"
	"time"

	"github.com/smarteros/deaddrop/render"
)

// State is how the watching of a secret goes.
type State struct {
	// Answered is when Vault last answered; zero where it has not yet.
	Answered time.Time
	// Attempted is when Vault was last asked, whatever came of it; zero where it was not
	// yet.
	Attempted time.Time
	// Failing is since when it cannot be read; zero when all is well.
	Failing time.Time
	// Next is when it is looked at again, at the latest; zero where that is never
	// needed.
	Next time.Time
	// Ends is when the lease or the certificate does; zero for what has no end.
	Ends time.Time
}

// States tells how all secrets are, by request as it was made. It is nil when the
// context ends before Run has answered.
func (w *Watcher) States(ctx context.Context) map[render.Request]State {
	answer := make(chan map[render.Request]State, 1)
	select {
	case w.asked <- answer:
		return <-answer
	case <-ctx.Done():
		return nil
	}
}

func (s *sweep) states(now time.Time) map[render.Request]State {
	all := make(map[render.Request]State, len(s.entries))
	for _, e := range s.entries {
		is := State{Answered: e.answered, Attempted: e.attempted, Failing: e.failing, Ends: e.last.Life.ends()}
		if is.Next = now; !e.busy {
			is.Next, _ = e.due(now, s.w.wall().Round(0))
		}
		for _, r := range e.asked {
			all[r] = is
		}
	}
	return all
}

// ends is when what Vault has issued does, or zero.
func (l Life) ends() time.Time {
	if l.Lease != nil {
		return l.Lease.granted.Add(l.Lease.TTL)
	}
	return l.NotAfter
}
