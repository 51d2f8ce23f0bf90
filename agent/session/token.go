package session

import (
	"math/rand/v2"
	"time"
)

// Token is one token of a [Session], and what is known of its life. A lease
// lives no longer than the token it was issued to, so who has one keeps the
// token: see [Token.Release].
type Token struct {
	s     *Session
	value string
	// own says that a login of ours made it, so that it is ours to revoke.
	own bool

	// What follows is guarded by the session's lock.
	since     time.Time // of the login
	ttl       time.Duration
	ends      time.Time // zero for never, or not known
	renewable bool
	due       time.Time // to be renewed or replaced
	holds     int       // requests under way and leases in use
	asking    int       // requests under way
	retired   bool      // replaced by another
	uses      int       // requests that it is good for; 0 for any number, or not known
	used      int       // requests made with it
	// allowed has a hash of each request that it was good for.
	allowed map[uint64]struct{}
	// givenUp says that it was replaced because Vault did not know it, which may have
	// been too early.
	givenUp bool
	// revokeAt is when to revoke it at the earliest, revokeLater the pauses before
	// further tries.
	revokeAt    time.Time
	revokeLater []time.Duration
}

// isOver reports whether the token is past its known life or uses. The session's lock
// must be held.
func (t *Token) isOver(now time.Time) bool {
	return !t.ends.IsZero() && !now.Before(t.ends) || t.uses > 0 && t.used >= t.uses
}

// Life tells when the token ends, zero for never, and whether another token has
// taken its place, so that it will not be renewed.
func (t *Token) Life() (ends time.Time, retired bool) {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	return t.ends, t.retired
}

// answered ends a request that was made with the token.
func (t *Token) answered() {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	t.asking--
}

// Release gives the token back. One that was replaced and that nobody has a use
// for is then revoked.
func (t *Token) Release() {
	t.s.mu.Lock()
	t.holds--
	t.s.mu.Unlock()
	t.s.nudge()
}

// roundedUp is by how much less than a second the rest of a life may be shorter
// than Vault says: it counts in whole seconds.
const roundedUp = time.Second

// granted sets the life that Vault has given the token when it was asked. A ttl
// of 0 is that of a token without an end, unless it is the rest of a life.
func (t *Token) granted(asked time.Time, ttl time.Duration, renewable bool) {
	rest := ttl < t.ttl
	t.ttl, t.renewable = ttl, renewable
	t.ends, t.due = time.Time{}, time.Time{}
	if ttl > 0 || rest {
		t.ends, t.due = asked.Add(ttl), asked.Add(renewAfter(ttl))
	}
}

// renewAfter is two thirds of a life, give or take a tenth, so that agents which
// were started together do not all come back together.
func renewAfter(ttl time.Duration) time.Duration {
	return time.Duration(float64(ttl) * (0.6 + rand.Float64()*0.133))
}
