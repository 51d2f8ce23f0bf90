package session

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/smarteros/deaddrop/agent/internal/tally"
)

// Counts are what sessions have done. One of them may be that of several sessions,
// one after the other.
type Counts struct {
	Logins, Renewals tally.Tally
	// Requests are all but the logins.
	Requests tally.Tally
	up       atomic.Bool
}

// Up tells whether Vault has served the last request, or refused it: not whether it
// was sealed, busy or out of reach.
func (c *Counts) Up() bool { return c.up.Load() }

func (c *Counts) contact(err error) {
	c.up.Store(!errors.Is(err, ErrUnreachable) && !errors.Is(err, ErrSealed))
}

// Status is how a session is.
type Status struct {
	LoggedIn bool
	// Since is when the token came to be the present one.
	Since time.Time
	// Ends is when the token does; zero for never, or where that is not known.
	Ends time.Time
	// Err is why the last login has failed; nil when it has succeeded.
	Err error
}

// Status is how the session is now.
func (s *Session) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token == nil {
		return Status{Err: s.failed}
	}
	return Status{LoggedIn: true, Since: s.token.since, Ends: s.token.ends, Err: s.failed}
}
