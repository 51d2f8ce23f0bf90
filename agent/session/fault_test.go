package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/config"
)

func TestPausesDoubleUpToTheirCapWithFullJitter(t *testing.T) {
	const first, most = 400 * time.Millisecond, 15 * time.Second
	longest, shortest := make([]time.Duration, 10), make([]time.Duration, 10)
	for i := range shortest {
		shortest[i] = time.Hour
	}
	for range 2000 {
		pause := Backoff(first, most)
		for i := range longest {
			next := pause.NextBackOff()
			longest[i], shortest[i] = max(longest[i], next), min(shortest[i], next)
		}
	}
	for i, bound := range []time.Duration{400, 800, 1600, 3200, 6400, 12800, 15000, 15000, 15000, 15000} {
		bound *= time.Millisecond
		assert.LessOrEqual(t, longest[i], bound+1, "try %d", i)
		assert.Greater(t, longest[i], bound*9/10, "try %d", i)
		assert.Less(t, shortest[i], bound/10, "try %d", i)
	}
}

func TestRetryLogsTheFirstFaultAndTheRecoveryOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, tries := &logged{}, 0
		err := Retry(t.Context(), slog.New(slog.NewTextHandler(log, nil)), IsTransient, func() error {
			if tries++; tries <= 50 {
				return &Fault{Op: "reading x", Kind: ErrUnreachable, Transient: true}
			}
			return nil
		})
		require.NoError(t, err)
		assert.Equal(t, 51, tries)
		assert.Equal(t, 1, log.count("trying again until it works"))
		assert.Equal(t, 1, log.count("msg=recovered"))
		assert.Equal(t, 1, log.count("tries=51"))
	})
}

func TestRetrySaysWhenAFaultBecomesAnotherOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &logged{}
		kinds := []error{ErrUnreachable, ErrUnreachable, ErrSealed, ErrUnreachable, ErrSealed}
		_ = Retry(t.Context(), slog.New(slog.NewTextHandler(log, nil)), IsTransient, func() error {
			if len(kinds) == 0 {
				return nil
			}
			kind := kinds[0]
			kinds = kinds[1:]
			return &Fault{Op: "x", Kind: kind, Transient: true, Detail: fmt.Sprint(rand.Int())}
		})
		assert.Len(t, log.at(slog.LevelWarn), 2)
	})
}

func TestRetryReturnsWhatIsNotWorthAnotherTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries, wrong := 0, &Fault{Op: "x", Kind: ErrDenied}
		err := Retry(t.Context(), slog.New(slog.DiscardHandler), IsTransient, func() error { tries++; return wrong })
		assert.Equal(t, wrong, err)
		assert.Equal(t, 1, tries)
	})
}

func TestRetryEndsWithTheContextAndReturnsTheLastError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		wrong := &Fault{Op: "x", Kind: ErrUnreachable, Transient: true}
		assert.Equal(t, wrong, Retry(ctx, slog.New(slog.DiscardHandler), IsTransient, func() error { return wrong }))
		assert.ErrorIs(t, ctx.Err(), context.DeadlineExceeded)
	})
}

func TestRetryWaitsAtLeastAsLongAsVaultAsks(t *testing.T) {
	for asked, least := range map[time.Duration]time.Duration{
		time.Minute: time.Minute, 24 * time.Hour: maxRetryAfter,
	} {
		synctest.Test(t, func(t *testing.T) {
			var at []time.Time
			err := Retry(t.Context(), slog.New(slog.DiscardHandler), IsTransient, func() error {
				if at = append(at, time.Now()); len(at) == 1 {
					return &Fault{Op: "x", Kind: ErrUnreachable, Transient: true, RetryAfter: asked}
				}
				return nil
			})
			require.NoError(t, err)
			assert.Equal(t, least, at[1].Sub(at[0]))
		})
	}
}

func TestRetryAfterIsSecondsOrADate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for text, want := range map[string]time.Duration{
			"": 0, "7": 7 * time.Second, "0": 0, "-3": 0, "soon": 0,
			time.Now().Add(time.Minute).UTC().Format(http.TimeFormat):  time.Minute,
			time.Now().Add(-time.Minute).UTC().Format(http.TimeFormat): 0,
		} {
			assert.Equal(t, want, retryAfter(text), text)
		}
	})
}

// The proxy injects faults that the real Vault does not produce on demand.
func TestFaultsThatPassAreRetriedUntilVaultAnswersAgain(t *testing.T) {
	t.Parallel()
	server := shared(t)
	for name, tc := range map[string]struct {
		status int
		header map[string]string
		body   string
		detail string
		pause  time.Duration
	}{
		"429":                         {status: 429, body: `{"errors":["slow down"]}`, detail: "Vault answered 429: slow down"},
		"429 with Retry-After":        {status: 429, header: map[string]string{"Retry-After": "2"}, detail: "Vault answered 429: too many requests", pause: 2 * time.Second},
		"503 with Retry-After":        {status: 503, header: map[string]string{"Retry-After": "1"}, detail: "Vault answered 503: service unavailable", pause: time.Second},
		"412 of a replica behind":     {status: 412, body: `{"errors":["required index state not present"]}`, detail: "Vault answered 412: required index state not present"},
		"472 of a disaster secondary": {status: 472, body: `{"errors":[]}`, detail: "Vault answered 472: "},
		"473 of a standby":            {status: 473, body: `{"errors":["performance standby"]}`, detail: "Vault answered 473: performance standby"},
		"500":                         {status: 500, body: `{"errors":["local node not active but active cluster node not found"]}`, detail: "Vault answered 500: local node not active but active cluster node not found"},
		"a page of a load balancer":   {status: 502, body: `<html>secret page</html>`, detail: "Vault answered 502: bad gateway"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRole(t, server, nil)
			p := newProxy(t, server)
			answer := func(w http.ResponseWriter, _ *http.Request) {
				for name, value := range tc.header {
					w.Header().Set(name, value)
				}
				w.WriteHeader(tc.status)
				_, _ = fmt.Fprint(w, tc.body)
			}
			s, log := newSession(t, p.through(), r.auth(), r.secretID)
			p.inject(answer)
			check := func(err error) {
				t.Helper()
				f := fault(t, err, r.secretID)
				assert.ErrorIs(t, f, ErrUnreachable)
				assert.True(t, IsTransient(err))
				assert.Equal(t, tc.detail, f.Detail)
				assert.Equal(t, tc.pause, RetryAfter(err))
			}
			check(s.Login(t.Context()))

			run(t, s)
			eventually(t, func() bool { return p.count("/login") >= 3 }, "tried again")
			p.heal()
			loggedIn(t, s)
			require.NoError(t, r.read(s))
			eventually(t, func() bool { return log.count("msg=recovered") == 1 }, "the recovery is logged")
			assert.Len(t, log.at(slog.LevelWarn), 1, "and the first fault, not every try")

			p.inject(answer)
			check(r.read(s))
			p.heal()
			require.NoError(t, r.read(s))
			assert.Equal(t, 1, log.count("logged in to Vault"), "the token has nothing to do with it")
		})
	}
}

func TestARealRateLimitIsWaitedOut(t *testing.T) {
	server := own(t)
	r := newRole(t, server, nil)
	write(t, server, "sys/quotas/config", map[string]any{"enable_rate_limit_response_headers": true})
	write(t, server, "sys/quotas/rate-limit/few", map[string]any{
		"rate": 1, "interval": "3s", "path": "secret/",
	})
	s, _ := r.session(r.auth())
	require.NoError(t, s.Login(t.Context()))
	var limited error
	eventually(t, func() bool {
		limited = r.read(s)
		return limited != nil
	}, "the quota is used up")
	f := fault(t, limited)
	assert.True(t, f.Transient)
	assert.Contains(t, f.Detail, "Vault answered 429: request path ")
	assert.Positive(t, RetryAfter(limited))
	require.NoError(t, Retry(t.Context(), slog.New(slog.DiscardHandler), IsTransient, func() error { return r.read(s) }))
}

func TestASealedVaultIsWaitedForAndSaidToBeSealed(t *testing.T) {
	server := own(t)
	r := newRole(t, server, nil)
	s, log := r.session(r.auth())
	require.NoError(t, server.Client.Sys().Seal())
	f := fault(t, s.Login(t.Context()))
	assert.ErrorIs(t, f, ErrSealed)
	assert.True(t, f.Transient)
	assert.Equal(t, `logging in with AppRole at auth/`+r.name+`: Vault is sealed; unseal it with "vault operator unseal"`, f.Error())

	run(t, s)
	eventually(t, func() bool { return log.count("still failing") >= 2 }, "tried again")
	unseal(t, server.Client, server.UnsealKeys)
	loggedIn(t, s)
	require.NoError(t, r.read(s))

	require.NoError(t, server.Client.Sys().Seal())
	require.ErrorIs(t, r.read(s), ErrSealed)
	unseal(t, server.Client, server.UnsealKeys)
	eventually(t, func() bool { return r.read(s) == nil }, "and reads again")
	assert.Equal(t, 1, log.count("logged in to Vault"), "with the token of before")
	assert.Len(t, log.at(slog.LevelWarn), 1)
}

func unseal(t *testing.T, client *api.Client, keys []string) {
	t.Helper()
	for _, key := range keys {
		_, err := client.Sys().Unseal(key)
		require.NoError(t, err)
	}
}

func TestAVaultThatIsNotThereIsWaitedFor(t *testing.T) {
	server := own(t)
	r := newRole(t, server, nil)
	s, _ := r.session(r.auth())
	require.NoError(t, s.Login(t.Context()))
	server.Stop()
	f := fault(t, r.read(s))
	assert.ErrorIs(t, f, ErrUnreachable)
	assert.True(t, f.Transient)
	f = fault(t, s.Login(t.Context()))
	assert.True(t, f.Transient)
	assert.Equal(t, "is Vault running at "+server.Address+"? (VAULT_ADDR)", f.Hint)
}

func TestAWrongAddressIsExplained(t *testing.T) {
	server := own(t, "-tls")
	plain := shared(t)
	for name, tc := range map[string]struct {
		address, hint string
		transient     bool
	}{
		"http where TLS is spoken": {"http" + server.Address[len("https"):], "Vault speaks TLS there; write https:// in the address", false},
		"TLS where http is spoken": {"https" + plain.Address[len("http"):], "Vault does not speak TLS there; write http:// in the address, if that is meant", false},
		"a name that is not there": {"http://vault.invalid:8200", "is the address http://vault.invalid:8200 right? (VAULT_ADDR)", true},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := newSession(t, config.Vault{Address: tc.address}, asRoot(plain))
			f := fault(t, s.Login(t.Context()))
			assert.ErrorIs(t, f, ErrUnreachable)
			assert.Equal(t, tc.transient, f.Transient)
			assert.Equal(t, tc.hint, f.Hint)
		})
	}
}

func TestALeaseThatVaultDoesNotKnowIsLost(t *testing.T) {
	server := shared(t)
	s, _ := newSession(t, vaultAt(server), asRoot(server))
	require.NoError(t, s.Login(t.Context()))
	_, err := s.Write(t.Context(), "sys/leases/renew", map[string]any{"lease_id": "secret/of/nobody"})
	f := fault(t, err)
	assert.True(t, f.LeaseLost)
	assert.ErrorIs(t, f, ErrRejected)
}

func TestAnErrorOfSomethingElseIsNoFault(t *testing.T) {
	err := errors.New("x")
	assert.False(t, IsTransient(err))
	assert.False(t, IsInvalidToken(err))
	assert.Zero(t, RetryAfter(err))
}
