package session

import (
	"context"
	"errors"
	"hash/maphash"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// A 403 has one of several reasons. Vault says "invalid token" for a token that was
// revoked, has expired, is used up or is not known yet on the node that answers. OpenBao
// says "permission denied" for all of these, as for what a policy forbids: it is asked
// whether it knows the token, and if that is not to be had, what is known of the token
// decides.

const (
	// youngToken is how long a token may be unknown to the node that answers: a standby
	// learns of it from the active node.
	youngToken = 5 * time.Second
	// freshToken is how long a denial counts as the policy's: a token that was given
	// just now is not one that somebody has revoked.
	freshToken = 10 * time.Second
	// firstLoginPause and longestLoginPause bound the time between two logins that
	// denials call for; the first is made at once.
	firstLoginPause   = 2 * time.Second
	longestLoginPause = 5 * time.Minute
	// policyPause and longestPolicyPause bound the time between two logins that look
	// for policies which were attached to the role. Each may cost a use of the secret id.
	policyPause        = 5 * time.Minute
	longestPolicyPause = time.Hour
	// mostDenials bounds how many denied requests are remembered.
	mostDenials = 20_000
)

// revokeLater are the pauses before further tries to revoke a token that was given up.
var revokeLater = []time.Duration{2 * time.Second, 10 * time.Second, time.Minute}

// verdict is what a failed request says of the token it was made with.
type verdict int

const (
	notTheToken verdict = iota
	tokenNotKnownYet
	tokenIsOver
	tokenMayHaveOldPolicies
)

// denials are what is denied to fresh tokens, which is thus the policy's doing, and the
// pauses between the logins that denials call for.
type denials struct {
	requests map[uint64]struct{}
	// login paces the logins that replace a token, policy those that look for policies.
	login, policy pacer
}

func newDenials() denials {
	return denials{
		requests: map[uint64]struct{}{},
		login:    pacer{first: firstLoginPause, longest: longestLoginPause},
		policy:   pacer{first: policyPause, longest: longestPolicyPause},
	}
}

// pacer spaces out what must not be done often. The pause doubles, and begins anew when
// nothing was done for twice the longest.
type pacer struct {
	first, longest time.Duration
	pauses         *backoff.ExponentialBackOff
	last, next     time.Time
}

func (p *pacer) isDue(now time.Time) bool { return !now.Before(p.next) }

func (p *pacer) note(now time.Time) {
	if p.pauses == nil || now.Sub(p.last) > 2*p.longest {
		p.pauses = backoff.NewExponentialBackOff(backoff.WithInitialInterval(p.first), backoff.WithMaxInterval(p.longest),
			backoff.WithMultiplier(2), backoff.WithRandomizationFactor(0.1), backoff.WithMaxElapsedTime(0))
	}
	p.last, p.next = now, now.Add(p.pauses.NextBackOff())
}

func (p *pacer) reset() { p.pauses, p.next = nil, time.Time{} }

var hashSeed = maphash.MakeSeed()

func hashOf(op string) uint64 { return maphash.String(hashSeed, op) }

// allow notes that the token was good for a request.
func (s *Session) allow(t *Token, op string) {
	h := hashOf(op)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(t.allowed) < mostDenials {
		t.allowed[h] = struct{}{}
	}
	delete(s.denials.requests, h)
	if len(s.denials.requests) == 0 {
		s.denials.policy.reset()
	}
}

// judge finds out what an error says of the token. Where the policy is to blame, the
// request is remembered as denied.
func (s *Session) judge(t *Token, op string, err error) verdict {
	var f *Fault
	if s.fixed || !errors.As(err, &f) || !errors.Is(f, ErrDenied) && !f.invalidToken {
		return notTheToken
	}
	now, h := time.Now(), hashOf(op)
	s.mu.Lock()
	defer s.mu.Unlock()
	_, wasAllowed := t.allowed[h]
	age := now.Sub(t.since)
	switch {
	case t != s.token, errors.Is(f, ErrRejected): // The last is that of a lease for the last use.
		return tokenIsOver
	case f.invalidToken && age < youngToken && !t.isOver(now):
		return tokenNotKnownYet
	case f.invalidToken, f.ambiguous && (wasAllowed || t.isOver(now)):
		return tokenIsOver
	case strings.HasPrefix(op, leaseOp), strings.HasPrefix(op, "reading "+visibleMounts):
		return notTheToken // These rights are optional, and a new token would cost leases.
	case age < freshToken:
		s.deny(h, now)
		return notTheToken
	}
	if _, isDenied := s.denials.requests[h]; isDenied && !s.denials.policy.isDue(now) {
		return notTheToken
	}
	return tokenMayHaveOldPolicies
}

// leaseOp begins what renewals and revocations of leases are called.
const leaseOp = "writing to sys/leases/"

// deny remembers a request that a policy forbids. The session's lock must be held.
func (s *Session) deny(h uint64, now time.Time) {
	if len(s.denials.requests) >= mostDenials {
		clear(s.denials.requests)
	}
	if len(s.denials.requests) == 0 {
		s.denials.policy.note(now)
	}
	s.denials.requests[h] = struct{}{}
}

// later makes an error transient: the same request may succeed with another token, or
// when Vault has come to know this one.
func later(err error, pause time.Duration) error {
	var f *Fault
	if !errors.As(err, &f) {
		return err
	}
	g := *f
	g.Transient, g.RetryAfter = true, max(g.RetryAfter, pause)
	if g.invalidToken && g.Hint == "" {
		g.Hint = "Vault gave this token just now; where a standby is behind the address it may not know it yet"
	}
	return &g
}

// replace logs in anew after a denial, at most as often as the pauses allow. Where the
// login fails, Run goes on trying.
func (s *Session) replace(ctx context.Context, t *Token, op string, v verdict, denial error) error {
	s.replacing.Lock()
	defer s.replacing.Unlock()
	mayLogIn, wait := s.begin(t, op, v)
	switch {
	case !mayLogIn && wait == 0:
		return nil // Somebody else has replaced it.
	case !mayLogIn && v == tokenIsOver:
		return later(denial, wait)
	case !mayLogIn:
		s.mu.Lock()
		s.deny(hashOf(op), time.Now())
		s.mu.Unlock()
		return denial
	}
	err := s.login(ctx, t)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && v == tokenMayHaveOldPolicies {
		s.deny(hashOf(op), time.Now())
	}
	if IsInvalidToken(denial) && (err != nil || s.token != t) {
		t.ends = time.Now() // And so have its leases.
	}
	if err != nil && v == tokenIsOver && !isAmbiguous(denial) {
		t.due, t.renewable = time.Now(), false
		s.nudge()
	}
	if err == nil || IsTransient(err) {
		return err
	}
	return denial
}

// begin reports whether it is time for a login that a denial calls for, and notes it, or
// how long it is until then. Both are zero where the token was replaced already.
func (s *Session) begin(t *Token, op string, v verdict) (mayLogIn bool, wait time.Duration) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token != t {
		return false, 0
	}
	if t.isOver(now) && s.failed == nil {
		return true, 0 // It is of no use any more: there is nothing to wait for.
	}
	if v == tokenMayHaveOldPolicies && t.renewable && !s.noRenewal && t.holds > t.asking {
		return false, policyPause // Its leases would have to be issued anew, since a replaced token is not renewed.
	}
	p := &s.denials.login
	if _, isDenied := s.denials.requests[hashOf(op)]; isDenied && v == tokenMayHaveOldPolicies {
		p = &s.denials.policy
	}
	if !p.isDue(now) {
		return false, p.next.Sub(now)
	}
	p.note(now)
	if v == tokenIsOver {
		t.givenUp, t.revokeLater = true, revokeLater
	}
	return true, 0
}

// CanRefreshPolicies reports whether a new login could bring other policies.
func (s *Session) CanRefreshPolicies() bool { return s.own }

// RefreshPolicies logs in again where a policy has denied something: a policy that was
// attached to the role meanwhile counts from the next login on. Else it does nothing.
// Leases of the old token have to be issued anew before that ends.
func (s *Session) RefreshPolicies(ctx context.Context) error {
	s.mu.Lock()
	t, nothing := s.token, len(s.denials.requests) == 0 || s.fixed
	s.mu.Unlock()
	if nothing || t == nil {
		return nil
	}
	if err := s.login(ctx, t); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.denials.requests)
	s.denials.policy.reset()
	return nil
}
