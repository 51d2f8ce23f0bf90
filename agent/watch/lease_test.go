package watch

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/secret"
)

// engine stands in for an engine that issues something at every read, where a
// test needs hours to pass, or a Vault that fails just so. Real leases of a real
// database and real certificates are tried in cmd/deaddrop.
type engine struct {
	mu      sync.Mutex
	life    func(n int) Life // of the nth answer, from 1
	renew   func(l *Lease) (time.Duration, bool, error)
	fail    error
	slow    time.Duration // of a read
	revoke  error
	issued  []time.Time
	renewed []time.Time
	revoked []string
}

func (e *engine) Resolve(_ context.Context, r render.Request) (render.Request, error) { return r, nil }

func (e *engine) Read(context.Context, render.Request) (*render.Secret, Life, error) {
	time.Sleep(e.slow)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fail != nil {
		return nil, Life{}, e.fail
	}
	e.issued = append(e.issued, time.Now())
	n := len(e.issued)
	life := e.life(n)
	if life.Lease != nil {
		life.Lease.ID = fmt.Sprint("lease ", n)
	}
	return &render.Secret{Path: a, Data: secret.Of(map[string]any{"n": n})}, life, nil
}

func (e *engine) Forget() {}

func (e *engine) Renew(_ context.Context, l *Lease) (time.Duration, bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.renewed = append(e.renewed, time.Now())
	return e.renew(l)
}

func (e *engine) Revoke(_ context.Context, l *Lease) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.revoked = append(e.revoked, l.ID)
	return e.revoke
}

func (e *engine) set(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f()
}

// times are when something was issued.
func (e *engine) times() []time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.issued)
}

// ended are the leases that were revoked.
func (e *engine) ended() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.revoked)
}

func (e *engine) renewals() []time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.renewed)
}

// stats are how often something was issued, renewed and revoked.
func (e *engine) stats() (issued, renewed, revoked int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.issued), len(e.renewed), len(e.revoked)
}

// token ends when it is told to.
type token struct {
	mu      sync.Mutex
	ends    time.Time
	retired bool
	holds   int
}

func (t *token) Life() (time.Time, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ends, t.retired
}

func (t *token) Release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.holds--
}

func (t *token) held() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.holds
}

func leased(ttl time.Duration, renewable bool, tok Token) func(int) Life {
	return func(int) Life { return Life{Lease: &Lease{TTL: ttl, Renewable: renewable, Token: tok}} }
}

// inFiles says that a batch was dropped.
func inFiles(batch Batch) Settled {
	var s Settled
	for _, r := range batch {
		s.InFiles = append(s.InFiles, r.Life.Lease)
	}
	return s
}

// keep takes batches for some time, and says that each was dropped at once.
func keep(t *testing.T, w *Watcher, d time.Duration) (batches int) {
	t.Helper()
	end := time.After(d)
	for {
		select {
		case batch := <-w.Batches():
			batches++
			w.Settle(t.Context(), inFiles(batch))
		case <-end:
			return batches
		}
	}
}

// pauses are the times between events, in seconds.
func pauses(times []time.Time) []float64 {
	var all []float64
	for i := 1; i < len(times); i++ {
		all = append(all, times[i].Sub(times[i-1]).Seconds())
	}
	return all
}

func assertAllBetween(t *testing.T, all []float64, low, high float64) {
	t.Helper()
	require.NotEmpty(t, all)
	assert.GreaterOrEqual(t, slices.Min(all), low)
	assert.LessOrEqual(t, slices.Max(all), high)
}

func TestALeaseIsRenewedAtTwoThirdsAndNeverIssuedAgainByTheInterval(t *testing.T) {
	e := &engine{life: leased(time.Hour, true, nil), renew: func(l *Lease) (time.Duration, bool, error) { return l.TTL, true, nil }}
	watching(t, e, func(t *testing.T, w *Watcher) {
		w.Want(t.Context(), wanted(10*time.Second, a))
		assert.Equal(t, 1, keep(t, w, 24*time.Hour), "a renewal is no news")
		issued, renewed, revoked := e.stats()
		assert.Equal(t, 1, issued)
		assert.InDelta(t, 37, renewed, 2)
		assert.Zero(t, revoked)
		assertAllBetween(t, pauses(e.renewals()), 0.62*3600, 0.67*3600)
	})
}

func TestALeaseThatCannotBeRenewedIsIssuedAnewBeforeItEnds(t *testing.T) {
	for name, e := range map[string]*engine{
		"not renewable": {life: leased(time.Hour, false, nil)},
		"renewal is denied": {life: leased(time.Hour, true, nil), renew: func(*Lease) (time.Duration, bool, error) {
			return 0, false, &session.Fault{Kind: session.ErrDenied}
		}},
		"renewal fails for ever": {life: leased(time.Hour, true, nil), renew: func(*Lease) (time.Duration, bool, error) {
			return 0, false, &session.Fault{Kind: session.ErrUnreachable, Transient: true}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			watching(t, e, func(t *testing.T, w *Watcher) {
				w.Want(t.Context(), wanted(10*time.Second, a))
				keep(t, w, 24*time.Hour)
				assertAllBetween(t, pauses(e.times()), 0.85*3600, 0.91*3600)
				issued, _, revoked := e.stats()
				assert.Equal(t, issued-1, revoked, "each lease but the last")
				assert.NotContains(t, e.ended(), fmt.Sprint("lease ", issued))
			})
		})
	}
}

func TestALeaseAtItsMaximumIsIssuedAnewWithinTheLastGrant(t *testing.T) {
	start := time.Time{}
	e := &engine{life: leased(time.Hour, true, nil)}
	e.renew = func(l *Lease) (time.Duration, bool, error) { // At most 2 h in all.
		return min(time.Hour, 2*time.Hour-time.Since(start)), true, nil
	}
	watching(t, e, func(t *testing.T, w *Watcher) {
		start = time.Now()
		w.Want(t.Context(), wanted(10*time.Second, a))
		for range 2 {
			select {
			case <-w.Batches():
			case <-time.After(3 * time.Hour):
				require.FailNow(t, "the lease has ended")
			}
		}
		life := e.times()[1].Sub(e.times()[0])
		assert.Less(t, life, 2*time.Hour, "no gap")
		assert.Greater(t, life, 100*time.Minute, "but not long before")
	})
}

func TestALeaseThatVaultHasLostIsIssuedAnewAtOnce(t *testing.T) {
	e := &engine{life: leased(time.Hour, true, nil), renew: func(*Lease) (time.Duration, bool, error) {
		return 0, false, &session.Fault{Kind: session.ErrRejected, LeaseLost: true}
	}}
	watching(t, e, func(t *testing.T, w *Watcher) {
		w.Want(t.Context(), wanted(10*time.Second, a))
		keep(t, w, 50*time.Minute)
		assertAllBetween(t, pauses(e.times()), 0.62*3600, 0.68*3600)
	})
}

func TestTheOldLeaseIsKeptUntilTheNewFileIsDropped(t *testing.T) {
	e := &engine{life: leased(time.Hour, false, nil)}
	watching(t, e, func(t *testing.T, w *Watcher) {
		w.Want(t.Context(), wanted(10*time.Second, a))
		first := next(t, w)
		w.Settle(t.Context(), inFiles(first))
		second := next(t, w)
		none(t, w, 20*time.Minute)
		_, _, revoked := e.stats()
		assert.Zero(t, revoked, "the file still holds the first")
		third := next(t, w)
		none(t, w, time.Minute)
		assert.Empty(t, e.ended())
		assert.NotSame(t, second[render.Read(a)].Secret, third[render.Read(a)].Secret)
		w.Settle(t.Context(), inFiles(third))
		none(t, w, revokeGrace-time.Second)
		assert.Empty(t, e.ended(), "the service gets time to reload")
		none(t, w, time.Minute)
		assert.ElementsMatch(t, []string{"lease 1", "lease 2"}, e.ended(), "no file has ever held the second")
	})
}

func TestALeaseIsIssuedAnewBeforeItsTokenEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tok := &token{ends: time.Now().Add(time.Hour), holds: 1}
		later := &token{}
		e := &engine{life: func(n int) Life {
			if n == 1 {
				return leased(24*time.Hour, true, tok)(n)
			}
			return leased(24*time.Hour, true, later)(n)
		}, renew: func(l *Lease) (time.Duration, bool, error) { return l.TTL, true, nil }}
		w, stop := start(t, e)
		defer stop()
		begin := time.Now()
		w.Want(t.Context(), wanted(15*time.Second, a))
		keep(t, w, 58*time.Minute)
		issued, _, _ := e.stats()
		assert.Equal(t, 1, issued, "as long as the token has not been replaced, another lease would end with it, too")
		tok.mu.Lock()
		tok.retired = true
		tok.mu.Unlock()
		keep(t, w, time.Minute)
		require.Len(t, e.times(), 2)
		assert.Less(t, e.times()[1].Sub(begin), time.Hour)
		assert.Equal(t, []string{"lease 1"}, e.ended())
		assert.Zero(t, tok.held(), "the token is given back with the lease")
		keep(t, w, 12*time.Hour)
		assert.Len(t, e.times(), 2)
	})
}

func TestARenewedTokenLetsTheLeaseLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tok := &token{ends: time.Now().Add(time.Hour)}
		e := &engine{life: leased(24*time.Hour, true, tok), renew: func(l *Lease) (time.Duration, bool, error) { return l.TTL, true, nil }}
		w, stop := start(t, e)
		defer stop()
		w.Want(t.Context(), wanted(15*time.Second, a))
		for range 48 {
			keep(t, w, 40*time.Minute)
			tok.mu.Lock()
			tok.ends = time.Now().Add(time.Hour)
			tok.mu.Unlock()
		}
		assert.Len(t, e.times(), 1)
	})
}

func TestAFailingReissueKeepsTheLastSecretAndIsRetriedWithPauses(t *testing.T) {
	e := &engine{life: leased(time.Hour, false, nil)}
	watching(t, e, func(t *testing.T, w *Watcher) {
		w.Want(t.Context(), wanted(10*time.Second, a))
		first := next(t, w)
		e.set(func() { e.fail = errors.New("the database is down") })
		batch := next(t, w)
		assert.Same(t, first[render.Read(a)].Secret, batch[render.Read(a)].Secret)
		require.ErrorContains(t, batch[render.Read(a)].Err, "down")
		none(t, w, 6*time.Hour)
		e.set(func() { e.fail = nil })
		begin := time.Now()
		batch = next(t, w)
		require.NoError(t, batch[render.Read(a)].Err)
		assert.LessOrEqual(t, time.Since(begin), 10*time.Second)
	})
}

func TestLeasesThatStandInNoFileAreRevokedAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &engine{life: leased(time.Hour, false, nil)}
		w, stop := start(t, e)
		w.Want(t.Context(), wanted(10*time.Second, a))
		batch := next(t, w)
		next(t, w)
		stop()
		w.Close(t.Context(), inFiles(batch))
		assert.Equal(t, []string{"lease 2"}, e.ended())
	})
}

func TestOrphansAndWhatIsNotWantedAnyMoreAreRevoked(t *testing.T) {
	e := &engine{life: leased(time.Hour, false, nil)}
	watching(t, e, func(t *testing.T, w *Watcher) {
		w.Want(t.Context(), wanted(10*time.Second, a))
		keep(t, w, time.Second)
		w.Want(t.Context(), wanted(10*time.Second))
		w.Settle(t.Context(), Settled{Orphans: []string{"of old"}})
		none(t, w, time.Minute)
		assert.ElementsMatch(t, []string{"of old", "lease 1"}, e.ended())
	})
}

func TestARevocationIsRetriedUntilTheLeaseHasEnded(t *testing.T) {
	e := &engine{life: leased(time.Hour, false, nil), revoke: &session.Fault{Kind: session.ErrSealed, Transient: true}}
	watching(t, e, func(t *testing.T, w *Watcher) {
		w.Want(t.Context(), wanted(10*time.Second, a))
		keep(t, w, 10*time.Minute)
		w.Want(t.Context(), wanted(10*time.Second))
		w.Settle(t.Context(), Settled{})
		none(t, w, 10*time.Hour)
		_, _, tries := e.stats()
		assert.Greater(t, tries, 20)
		none(t, w, 10*time.Hour)
		_, _, more := e.stats()
		assert.Equal(t, tries, more)
	})
}

// certLife is that of a certificate for an hour.
func certLife(now time.Time) Life {
	return Life{Issued: now.Round(0), NotAfter: now.Round(0).Add(time.Hour), TTL: time.Hour}
}

func TestACertificateIsIssuedAnewAtItsShare(t *testing.T) {
	e := &engine{life: func(int) Life { return certLife(time.Now()) }}
	watching(t, e, func(t *testing.T, w *Watcher) {
		w.Want(t.Context(), wanted(10*time.Second, a))
		keep(t, w, 24*time.Hour)
		assertAllBetween(t, pauses(e.times()), 0.62*3600, 0.67*3600)
		assert.Empty(t, e.ended(), "a certificate ends by itself")
	})
}

func TestAKnownCertificateIsNotIssuedBeforeItIsTime(t *testing.T) {
	e := &engine{life: func(int) Life { return certLife(time.Now()) }}
	watching(t, e, func(t *testing.T, w *Watcher) {
		known := wanted(10*time.Second, a)
		known.Known = map[render.Request]Reading{render.Read(a): {Secret: &render.Secret{}, Life: certLife(time.Now().Add(-30 * time.Minute))}}
		w.Want(t.Context(), known)
		none(t, w, 6*time.Minute)
		begin := time.Now()
		next(t, w)
		assert.Less(t, time.Since(begin), 5*time.Minute)
	})
}

func TestAJumpOfTheWallClockIsNoticedForCertificatesAndLeavesTheRestAlone(t *testing.T) {
	var mu sync.Mutex
	var offset time.Duration
	e := &engine{life: func(int) Life {
		mu.Lock()
		defer mu.Unlock()
		now, ends := time.Now().Add(offset).Round(0), time.Now().Round(0).Add(time.Hour)
		return Life{Issued: now, NotAfter: ends, TTL: usable(&x509.Certificate{NotBefore: ends.Add(-time.Hour), NotAfter: ends}, now)}
	}}
	leases := &engine{life: leased(time.Hour, false, nil)}
	synctest.Test(t, func(t *testing.T) {
		wall := func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return time.Now().Add(offset)
		}
		w, stop := start(t, e, wall)
		defer stop()
		other, stopOther := start(t, leases, wall)
		defer stopOther()
		w.Want(t.Context(), wanted(15*time.Second, a))
		other.Want(t.Context(), wanted(15*time.Second, a))
		keep(t, w, time.Minute)
		keep(t, other, time.Minute)
		mu.Lock()
		offset = 50 * time.Minute
		mu.Unlock()
		begin := time.Now()
		next(t, w)
		assert.LessOrEqual(t, time.Since(begin), longestSleep)
		keep(t, other, 10*time.Minute)
		assert.Len(t, leases.times(), 1, "a lease counts by the clock that does not jump")

		mu.Lock()
		offset = 10 * 365 * 24 * time.Hour // Nothing that Vault issues seems valid any more.
		mu.Unlock()
		before := len(e.times())
		keep(t, w, 2*time.Hour)
		assert.LessOrEqual(t, len(e.times())-before, 5, "and yet there is no busy loop")
	})
}

func TestSchedulesOfAnswersWithoutALease(t *testing.T) {
	for name, tc := range map[string]struct {
		request   render.Request
		data      map[string]any
		low, high float64 // pauses in seconds; 0 for never again
	}{
		"a static role by its next rotation":        {render.Read(a), map[string]any{"rotation_period": json.Number("60"), "ttl": json.Number("3"), "password": "p"}, 0.5, 5},
		"a static role at the interval at least":    {render.Read(a), map[string]any{"rotation_period": json.Number("86400"), "ttl": json.Number("80000")}, 8, 12},
		"a time to live by its share":               {render.Read(a), map[string]any{"token": "t", "ttl": json.Number("3600")}, 0.85 * 3600, 0.91 * 3600},
		"anything else at the interval":             {render.Read(a), map[string]any{"keys": "k"}, 8, 12},
		"a write that says nothing is not repeated": {write(t, a), map[string]any{"ciphertext": "c"}, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			e := &engine{}
			e.life = func(int) Life {
				return lifeOf(tc.request, &render.Secret{Data: secret.Of(tc.data)}, time.Now())
			}
			watching(t, e, func(t *testing.T, w *Watcher) {
				w.Want(t.Context(), Wanted{Requests: []render.Request{tc.request}, Interval: 10 * time.Second, Shares: Shares{Lease: 0.9}})
				keep(t, w, 4*time.Hour)
				if tc.high == 0 {
					assert.Len(t, e.times(), 1)
					return
				}
				assertAllBetween(t, pauses(e.times()), tc.low, tc.high)
			})
		})
	}
}

func write(t *testing.T, path string) render.Request {
	t.Helper()
	r, err := render.ParseRequest(path, "plaintext=x")
	require.NoError(t, err)
	return r
}

func TestTheTimeToTheNextRotationIsNoChange(t *testing.T) {
	role := func(password, ttl string) *render.Secret {
		return &render.Secret{Data: secret.Of(map[string]any{"rotation_period": json.Number("60"), "password": password, "ttl": json.Number(ttl)})}
	}
	assert.False(t, changed(role("p", "50"), role("p", "40")))
	assert.True(t, changed(role("p", "50"), role("q", "40")))
}

func TestTheLifeOfACertificateIsReadFromItAndSurvivesABadClock(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	issued := time.Now().Truncate(time.Second).UTC()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(7), NotBefore: issued.Add(-backdated), NotAfter: issued.Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	require.NoError(t, err)
	data := map[string]any{"serial_number": "07", "certificate": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
	for name, tc := range map[string]struct{ ahead, ttl time.Duration }{
		"in step":               {0, time.Hour},
		"a year late":           {-365 * 24 * time.Hour, time.Hour},
		"a year ahead":          {365 * 24 * time.Hour, time.Hour},
		"half an hour ahead":    {30 * time.Minute, 30 * time.Minute},
		"all but a minute":      {time.Hour - time.Second, 3630 * time.Second / 60},
		"ten minutes too early": {-10 * time.Minute, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			now := issued.Add(tc.ahead)
			life := lifeOf(write(t, "pki/issue/web"), &render.Secret{Data: secret.Of(data)}, now)
			assert.Equal(t, Life{Issued: now, NotAfter: tmpl.NotAfter, TTL: tc.ttl}, life)
			s := plan(life, Shares{Cert: 2.0 / 3}, now, now, now)
			at, sure := s.due(nil, now, now)
			assert.True(t, sure)
			assert.Greater(t, at.Sub(now), tc.ttl/2)
			assert.Less(t, at.Sub(now), tc.ttl)
		})
	}
}

// start runs a watcher in the bubble that is there.
func start(t *testing.T, r Reader, wall ...func() time.Time) (*Watcher, func()) {
	ctx, cancel := context.WithCancel(t.Context())
	w := New(r, slog.New(slog.DiscardHandler))
	for _, clock := range wall {
		w.wall = clock
	}
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	return w, func() {
		cancel()
		require.NoError(t, <-ended)
	}
}

func TestARestOfLessThanASecondIsNotWaitedFor(t *testing.T) {
	e := &engine{life: leased(time.Hour, true, nil), renew: func(*Lease) (time.Duration, bool, error) { return time.Second, true, nil }}
	watching(t, e, func(t *testing.T, w *Watcher) {
		w.Want(t.Context(), wanted(10*time.Second, a))
		keep(t, w, 50*time.Minute)
		times := e.times()
		require.Len(t, times, 2)
		assert.Equal(t, e.renewals()[0], times[1])
	})
}

func TestWhatIsIssuedForNobodyAnyMoreIsRevoked(t *testing.T) {
	e := &engine{life: leased(time.Hour, false, nil), slow: time.Minute}
	watching(t, e, func(t *testing.T, w *Watcher) {
		w.Want(t.Context(), wanted(10*time.Second, a))
		time.Sleep(30 * time.Second)
		w.Want(t.Context(), wanted(10*time.Second))
		none(t, w, time.Minute)
		assert.Len(t, e.times(), 1)
		assert.Equal(t, []string{"lease 1"}, e.ended())
	})
}
