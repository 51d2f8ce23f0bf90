package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/render/secret"
)

func TestTokensAreRenewedAtAboutTwoThirdsOfTheirLifeButNotAllAtOnce(t *testing.T) {
	least, most := time.Hour, time.Duration(0)
	for range 1000 {
		after := renewAfter(time.Hour)
		least, most = min(least, after), max(most, after)
	}
	assert.GreaterOrEqual(t, least, 36*time.Minute)
	assert.LessOrEqual(t, most, 44*time.Minute)
	assert.Greater(t, most-least, 6*time.Minute)
}

// reading reads a secret without a pause until it is stopped, and then says what
// has failed, and whether the machine stood still for longer than tokens of this
// test overlap: then nothing can be said of gaps.
func (r *role) reading(s *Session) (failed func() (failures error, stalled bool)) {
	ctx, cancel := context.WithCancel(context.Background())
	var failures []error
	var stalled bool
	var group sync.WaitGroup
	group.Go(func() {
		for last := time.Now(); ctx.Err() == nil; last = time.Now() {
			if _, err := s.Read(context.Background(), "secret/data/"+r.name, nil); err != nil {
				failures = append(failures, err)
			}
			time.Sleep(time.Millisecond)
			stalled = stalled || time.Since(last) > time.Second
		}
	})
	stop := sync.OnceFunc(func() {
		cancel()
		group.Wait()
	})
	r.t.Cleanup(stop)
	return func() (error, bool) {
		stop()
		return errors.Join(failures...), stalled
	}
}

func TestATokenIsRenewedBeforeItEndsAndStaysTheSame(t *testing.T) {
	t.Parallel()
	server := shared(t)
	for name, settings := range map[string]map[string]any{
		"service token":  {"token_ttl": "9s", "token_max_ttl": "1h"},
		"periodic token": {"token_period": "9s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRole(t, server, settings)
			p := newProxy(t, server)
			s, log := newSession(t, p.through(), r.auth(), r.secretID)
			run(t, s)
			first := loggedIn(t, s)
			failed := r.reading(s)
			eventually(t, func() bool { return p.count("auth/token/renew-self") >= 2 }, "renewed")
			failures, stalled := failed()
			if stalled {
				t.Skip("the machine stood still for too long")
			}
			require.NoError(t, failures)
			assert.Equal(t, first, s.current().value)
			assert.Equal(t, 1, p.count("/login"))
			assert.Equal(t, 1, log.count("logged in to Vault"))
		})
	}
}

func TestATokenThatEndsIsReplacedBeforeWithoutAGap(t *testing.T) {
	t.Parallel()
	server := shared(t)
	for name, tc := range map[string]struct {
		settings map[string]any
		asks     bool // for renewal and revocation
		may      bool
	}{
		"max TTL":                {map[string]any{"token_ttl": "5s", "token_max_ttl": "8s"}, true, true},
		"a TTL of the max TTL":   {map[string]any{"token_ttl": "6s", "token_max_ttl": "6s"}, true, true},
		"explicit max TTL":       {map[string]any{"token_ttl": "5s", "token_explicit_max_ttl": "7s"}, true, true},
		"periodic, but not long": {map[string]any{"token_period": "5s", "token_explicit_max_ttl": "7s"}, true, true},
		"no default policy":      {map[string]any{"token_ttl": "6s", "token_no_default_policy": true}, true, false},
		"batch token":            {map[string]any{"token_ttl": "6s", "token_type": "batch"}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRole(t, server, tc.settings)
			p := newProxy(t, server)
			s, log := newSession(t, p.through(), r.auth(), r.secretID)
			run(t, s)
			token := loggedIn(t, s)
			failed := r.reading(s)
			for range 2 {
				old := token
				token = replaced(t, s, old)
				if tc.may {
					eventually(t, func() bool { return !lives(server, old) }, "revoked")
				}
			}
			failures, stalled := failed()
			if stalled {
				t.Skip("the machine stood still for too long")
			}
			require.NoError(t, failures)
			assert.Zero(t, p.denied("secret/data/"+r.name), "no token was used past its end")
			assert.Equal(t, tc.asks, p.count("auth/token/renew-self") > 0)
			if !tc.asks {
				assert.Zero(t, p.count("auth/token/revoke-self"))
			} else if !tc.may {
				assert.Equal(t, 1, p.count("auth/token/renew-self"), "what a policy denies is asked for once")
				assert.Equal(t, 1, p.count("auth/token/revoke-self"), "what a policy denies is asked for once")
			}
			assert.Empty(t, log.at(slog.LevelWarn), "all this is how tokens live")
		})
	}
}

func TestATokenIsNotRevokedWhileALeaseIssuedUnderItIsInUse(t *testing.T) {
	t.Parallel()
	r := newRole(t, shared(t), nil)
	r.pki()
	s, _ := r.session(r.auth())
	run(t, s)
	first := loggedIn(t, s)
	one, err := r.lease(s)
	require.NoError(t, err)
	two, err := r.lease(s)
	require.NoError(t, err)
	require.NotNil(t, one.Token)
	ends, retired := one.Token.Life()
	assert.False(t, retired)
	assert.True(t, ends.After(time.Now()))

	require.NoError(t, s.Login(t.Context()))
	require.NoError(t, r.read(s))
	_, retired = one.Token.Life()
	assert.True(t, retired)
	one.Token.Release()
	three, err := r.lease(s)
	require.NoError(t, err)
	assert.NotSame(t, two.Token, three.Token)
	three.Token.Release() // Run has now looked after what was released before.
	assert.True(t, lives(r.server, first), "the other lease is in use")
	assert.True(t, r.leaseLives(one.LeaseID))

	two.Token.Release()
	eventually(t, func() bool { return !lives(r.server, first) }, "revoked")
	eventually(t, func() bool { return !r.leaseLives(two.LeaseID) }, "and its leases with it")
}

func TestATokenIsNotRevokedUnderARequestThatIsUnderWay(t *testing.T) {
	t.Parallel()
	r := newRole(t, shared(t), nil)
	p := newProxy(t, r.server)
	s, _ := newSession(t, p.through(), r.auth(), r.secretID)
	run(t, s)
	first := loggedIn(t, s)
	p.before("secret/data/"+r.name, func() {
		assert.NoError(t, s.Login(context.Background()))
		s.nudge()
		assert.True(t, lives(r.server, first))
	})
	require.NoError(t, r.read(s))
	eventually(t, func() bool { return !lives(r.server, first) }, "revoked afterwards")
}

func TestCloseRevokesTheTokenUnlessItIsKeptOrALeaseIsInUse(t *testing.T) {
	t.Parallel()
	server := shared(t)
	for name, tc := range map[string]struct{ keep, lease, lives bool }{
		"revoked": {}, "kept": {keep: true, lives: true}, "a lease in use": {lease: true, lives: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRole(t, server, nil)
			r.pki()
			s, _ := r.session(r.auth())
			stop := run(t, s)
			token := loggedIn(t, s)
			answer, err := r.lease(s)
			require.NoError(t, err)
			if !tc.lease {
				answer.Token.Release()
			}
			stop()
			s.Close(t.Context(), tc.keep)
			assert.Equal(t, tc.lives, lives(server, token))
			_, loggedIn := s.TokenEnds()
			assert.False(t, loggedIn)
			assert.ErrorContains(t, r.read(s), "the session is closed")
		})
	}
}

func TestTokensOfFewUsesAreReplacedAsTheyAreUsedUp(t *testing.T) {
	t.Parallel()
	server := shared(t)
	for _, uses := range []int{1, 2, 3} {
		t.Run(fmt.Sprint(uses, " uses"), func(t *testing.T) {
			t.Parallel()
			r := newRole(t, server, map[string]any{"token_num_uses": uses})
			s, log := r.session(r.auth())
			run(t, s)
			for range 10 {
				require.NoError(t, r.read(s))
			}
			var group sync.WaitGroup
			for range MaxConcurrent {
				// Vault answers 500 to who comes in between as another takes the
				// last use. That passes, and who reads tries again.
				group.Go(func() {
					assert.NoError(t, Retry(t.Context(), slog.New(slog.DiscardHandler), IsTransient, func() error { return r.read(s) }))
				})
			}
			group.Wait()
			assert.Empty(t, log.at(slog.LevelWarn))
		})
	}
}

func TestALeaseIsNotLostToATokenWithOneUseLeft(t *testing.T) {
	t.Parallel()
	r := newRole(t, shared(t), map[string]any{"token_num_uses": 2})
	r.pki()
	s, _ := r.session(r.auth())
	require.NoError(t, s.Login(t.Context()))
	require.NoError(t, r.read(s))
	answer, err := r.lease(s)
	require.NoError(t, err)
	defer answer.Token.Release()
	assert.True(t, r.leaseLives(answer.LeaseID))
}

func TestALeaseThatNoTokenHasTheUsesForIsReported(t *testing.T) {
	t.Parallel()
	r := newRole(t, shared(t), map[string]any{"token_num_uses": 1})
	r.pki()
	s, _ := r.session(r.auth())
	require.NoError(t, s.Login(t.Context()))
	_, err := r.lease(s)
	f := fault(t, err)
	assert.Contains(t, f.Detail, "Vault answered 400: Secret cannot be returned; token had one use left")
	assert.Contains(t, f.Hint, "token_num_uses")
	assert.False(t, f.Transient)
}

func TestATokenThatSomebodyRevokesIsReplacedAndTheRequestTriedAgain(t *testing.T) {
	t.Parallel()
	r := newRole(t, shared(t), nil)
	s, log := r.session(r.auth())
	run(t, s)
	first := loggedIn(t, s)
	old := s.current()
	require.NoError(t, r.server.Client.Auth().Token().RevokeTree(first))
	var group sync.WaitGroup
	for range MaxConcurrent {
		group.Go(func() { assert.NoError(t, r.read(s)) })
	}
	group.Wait()
	assert.Equal(t, 2, log.count("logged in to Vault"), "one login serves them all")
	ends, retired := old.Life()
	assert.True(t, retired)
	assert.False(t, ends.After(time.Now()), "and so have its leases ended")
}

func TestADenialByAPolicyIsNoReasonToLogInAgainAndAgain(t *testing.T) {
	t.Parallel()
	r := newRole(t, shared(t), nil)
	s, log := r.session(r.auth())
	require.NoError(t, s.Login(t.Context()))
	denied := func() {
		t.Helper()
		_, err := s.Read(t.Context(), "secret/data/of-somebody-else", nil)
		f := fault(t, err)
		assert.ErrorIs(t, f, ErrDenied)
		assert.False(t, IsInvalidToken(err))
		assert.EqualError(t, err, "reading secret/data/of-somebody-else: permission denied (Vault answered 403: permission denied)")
	}
	denied()
	assert.Equal(t, 1, log.count("logged in to Vault"), "the token is new")

	s.current().since = time.Now().Add(-time.Minute)
	for range 3 {
		denied()
	}
	assert.Equal(t, 1, log.count("logged in to Vault"), "it was new when it was denied this")

	s.mu.Lock()
	s.denials = newDenials()
	s.mu.Unlock()
	for range 3 {
		denied()
	}
	assert.Equal(t, 2, log.count("logged in to Vault"), "a token that was not new is doubted once")
}

func TestANewLoginThatFailsIsTriedUntilItWorksWhileTheOldTokenIsInUse(t *testing.T) {
	t.Parallel()
	r := newRole(t, shared(t), map[string]any{"token_ttl": "20s", "token_type": "batch"})
	p := newProxy(t, r.server)
	s, log := newSession(t, p.through(), r.auth(), r.secretID)
	run(t, s)
	first := loggedIn(t, s)
	p.failAt("/login", 500) // Vault does not fail at this on demand.
	s.mu.Lock()
	s.token.due = time.Now()
	s.mu.Unlock()
	s.nudge()
	eventually(t, func() bool { return p.count("/login") >= 4 }, "tried again")
	require.NoError(t, r.read(s))
	assert.Len(t, log.at(slog.LevelWarn), 1)
	p.heal()
	replaced(t, s, first)
	eventually(t, func() bool { return log.count("msg=recovered") == 1 }, "the recovery is logged")
}

func TestWhereRenewalKeepsFailingTheLastOfTheLifeIsForALogin(t *testing.T) {
	t.Parallel()
	r := newRole(t, shared(t), nil)
	p := newProxy(t, r.server)
	p.failAt("auth/token/renew-self", 500) // Vault does not fail at this on demand.
	s, _ := newSession(t, p.through(), r.auth(), r.secretID)
	require.NoError(t, s.Login(t.Context()))
	first := s.current()
	first.ends = time.Now().Add(first.ttl / 4)
	require.True(t, IsTransient(s.extend(t.Context())))
	assert.Same(t, first, s.current())

	first.ends = time.Now().Add(first.ttl / 7)
	require.NoError(t, s.extend(t.Context()))
	assert.NotSame(t, first, s.current())
	assert.Equal(t, 1, p.count("auth/token/renew-self"))
}

func TestATokenPastItsMaxTTLIsNotRenewedAgainAndAgain(t *testing.T) {
	t.Parallel()
	r := newRole(t, shared(t), map[string]any{"token_ttl": "2s", "token_max_ttl": "3s"})
	s, _ := r.session(r.auth())
	require.NoError(t, s.Login(t.Context()))
	eventually(t, func() bool {
		err := s.renew(t.Context(), s.current())
		if err != nil {
			assert.False(t, IsTransient(err), err)
		}
		return err != nil
	}, "it cannot be renewed for ever")
}

func TestALookedUpTokenInItsLastSecondIsNotTakenForOneWithoutEnd(t *testing.T) {
	t.Parallel()
	server := shared(t)
	given := token(t, server, map[string]any{"ttl": "2s"})
	s, _ := newSession(t, vaultAt(server), config.Auth{Method: config.MethodToken, Token: secret.Of(given)})
	for {
		if err := s.Login(t.Context()); err != nil {
			assert.True(t, errors.Is(err, ErrLogin), err)
			return
		}
		ends, _ := s.TokenEnds()
		assert.False(t, ends.IsZero())
		time.Sleep(often)
	}
}

func TestTheRootTokenHasNoEnd(t *testing.T) {
	t.Parallel()
	server := shared(t)
	s, log := newSession(t, vaultAt(server), config.Auth{Method: config.MethodToken, Token: secret.Of(server.RootToken)})
	require.NoError(t, s.Login(t.Context()))
	ends, loggedIn := s.TokenEnds()
	assert.True(t, loggedIn)
	assert.Zero(t, ends)
	assert.Empty(t, log.at(slog.LevelWarn))
	_, err := s.Read(t.Context(), "sys/mounts", url.Values{})
	require.NoError(t, err)
}
