package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
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

// vault stands in for KV where a test counts reads or needs time to pass by
// itself. KV is tried on a real Vault in package agent.
type vault struct {
	mu    sync.Mutex
	reads map[string][]time.Time
	store map[string]*render.Secret
	fail  map[string]error
	slow  map[string]time.Duration
}

func newVault(paths ...string) *vault {
	v := &vault{reads: map[string][]time.Time{}, store: map[string]*render.Secret{}, fail: map[string]error{}, slow: map[string]time.Duration{}}
	for _, path := range paths {
		v.put(path, 1)
	}
	return v
}

func (v *vault) put(path string, version int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.store[path] = &render.Secret{Path: path, Version: version, Data: secret.Of(map[string]any{})}
}

func (v *vault) setError(path string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.fail[path] = err
}

func (v *vault) count(path string) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.reads[path])
}

func (v *vault) Resolve(_ context.Context, r render.Request) (render.Request, error) {
	rest := strings.TrimPrefix(strings.TrimPrefix(r.Path, "secret/"), "data/")
	return r.At("secret/data/" + rest), nil
}

func (v *vault) Renew(context.Context, *Lease) (time.Duration, bool, error) {
	return 0, false, errors.New("there are no leases here")
}

func (v *vault) Forget() {}

func (v *vault) Revoke(context.Context, *Lease) error { return errors.New("there are no leases here") }

func (v *vault) Read(ctx context.Context, r render.Request) (*render.Secret, Life, error) {
	path := r.Path
	v.mu.Lock()
	v.reads[path] = append(v.reads[path], time.Now())
	s, err, slow := v.store[path], v.fail[path], v.slow[path]
	v.mu.Unlock()
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return nil, Life{}, ctx.Err()
	}
	return s, Life{}, err
}

// watching runs a watcher in a bubble of its own time.
func watching(t *testing.T, r Reader, f func(t *testing.T, w *Watcher)) {
	synctest.Test(t, func(t *testing.T) {
		w, stop := start(t, r)
		f(t, w)
		stop()
	})
}

func wanted(interval time.Duration, paths ...string) Wanted {
	w := Wanted{Interval: interval, Shares: Shares{Lease: 0.9, Cert: 2.0 / 3}}
	for _, path := range paths {
		w.Requests = append(w.Requests, render.Read(path))
	}
	return w
}

// next waits for a batch; after a time in which none can come it fails.
func next(t *testing.T, w *Watcher) Batch {
	t.Helper()
	select {
	case b := <-w.Batches():
		return b
	case <-time.After(time.Hour):
		require.FailNow(t, "no batch in an hour")
		return nil
	}
}

func none(t *testing.T, w *Watcher, d time.Duration) {
	t.Helper()
	select {
	case b := <-w.Batches():
		require.FailNow(t, "unexpected batch", "%v", b)
	case <-time.After(d):
	}
}

const (
	a = "secret/data/a"
	b = "secret/data/b"
)

func TestEachSecretIsReadOncePerIntervalWhateverItsSpellings(t *testing.T) {
	v := newVault(a)
	watching(t, v, func(t *testing.T, w *Watcher) {
		w.Want(t.Context(), wanted(10*time.Second, a, "secret/a", a))
		first := next(t, w)
		assert.Len(t, first, 2, "a reading under each spelling")
		assert.Same(t, first[render.Read(a)].Secret, first[render.Read("secret/a")].Secret)
		none(t, w, 95*time.Second)
		assert.InDelta(t, 10, v.count(a), 1)
		for i, at := range v.reads[a][1:] {
			pause := at.Sub(v.reads[a][i])
			assert.GreaterOrEqual(t, pause, 9*time.Second)
			assert.LessOrEqual(t, pause, 11*time.Second)
		}
	})
}

func TestAChangeIsFoundByVersionWithinAnInterval(t *testing.T) {
	v := newVault(a, b)
	watching(t, v, func(t *testing.T, w *Watcher) {
		w.Want(t.Context(), wanted(10*time.Second, a, b))
		assert.Len(t, next(t, w), 2)
		none(t, w, time.Minute)
		v.put(a, 2)
		start := time.Now()
		batch := next(t, w)
		assert.LessOrEqual(t, time.Since(start), 11*time.Second)
		require.Len(t, batch, 1)
		assert.Equal(t, 2, batch[render.Read(a)].Secret.Version)
		none(t, w, time.Minute)
	})
}

func TestASecretMadeAnewWithTheSameVersionIsAChange(t *testing.T) {
	v := newVault(a)
	watching(t, v, func(t *testing.T, w *Watcher) {
		w.Want(t.Context(), wanted(10*time.Second, a))
		next(t, w)
		v.mu.Lock()
		v.store[a] = &render.Secret{Path: a, Version: 1, Created: "later"}
		v.mu.Unlock()
		assert.Equal(t, "later", next(t, w)[render.Read(a)].Secret.Created)
	})
}

func TestWithoutVersionsAChangeIsFoundByContent(t *testing.T) {
	v := newVault()
	set := func(value string) {
		v.mu.Lock()
		v.store[a] = &render.Secret{Path: a, Data: secret.Of(map[string]any{"k": []any{value}})}
		v.mu.Unlock()
	}
	set("1")
	watching(t, v, func(t *testing.T, w *Watcher) {
		w.Want(t.Context(), wanted(10*time.Second, a))
		next(t, w)
		set("1")
		none(t, w, time.Minute)
		set("2")
		next(t, w)
	})
}

func TestChangesMadeTogetherComeInOneBatch(t *testing.T) {
	v := newVault(a, b)
	v.slow[b] = 300 * time.Millisecond
	watching(t, v, func(t *testing.T, w *Watcher) {
		w.Want(t.Context(), wanted(10*time.Second, a, b))
		assert.Len(t, next(t, w), 2)
		v.put(a, 2)
		v.put(b, 2)
		assert.Len(t, next(t, w), 2)
	})
}

func TestAHangingReadHoldsUpOthersForAMomentOnly(t *testing.T) {
	v := newVault(a, b)
	v.slow[b] = time.Minute
	watching(t, v, func(t *testing.T, w *Watcher) {
		start := time.Now()
		w.Want(t.Context(), wanted(10*time.Second, a, b))
		batch := next(t, w)
		assert.Len(t, batch, 1)
		assert.Equal(t, gather, time.Since(start))
		assert.Len(t, next(t, w), 1)
		assert.Equal(t, time.Minute, time.Since(start))
	})
}

func TestAFailureKeepsTheLastGoodSecretAndIsToldOnce(t *testing.T) {
	v := newVault(a, b)
	watching(t, v, func(t *testing.T, w *Watcher) {
		w.Want(t.Context(), wanted(10*time.Second, a, b))
		next(t, w)
		v.setError(a, errors.New("sealed"))
		batch := next(t, w)
		require.EqualError(t, batch[render.Read(a)].Err, "sealed")
		assert.Equal(t, 1, batch[render.Read(a)].Secret.Version)
		before := v.count(a)
		none(t, w, 100*time.Second)
		assert.InDelta(t, 20, v.count(a)-before, 12, "retried, but not in a busy loop")
		assert.InDelta(t, 10, v.count(b), 3, "others go on as they were")

		v.setError(a, nil)
		batch = next(t, w)
		require.NoError(t, batch[render.Read(a)].Err, "the recovery is told, even without a change")
	})
}

func TestRefreshReadsAllNow(t *testing.T) {
	v := newVault(a)
	watching(t, v, func(t *testing.T, w *Watcher) {
		w.Want(t.Context(), wanted(time.Hour, a))
		next(t, w)
		v.put(a, 2)
		start := time.Now()
		w.Refresh()
		assert.Equal(t, 2, next(t, w)[render.Read(a)].Secret.Version)
		assert.Zero(t, time.Since(start))
	})
}

func TestARefreshDuringAReadReadsOnceMore(t *testing.T) {
	v := newVault(a)
	v.slow[a] = time.Second
	watching(t, v, func(t *testing.T, w *Watcher) {
		w.Want(t.Context(), wanted(time.Hour, a))
		time.Sleep(500 * time.Millisecond)
		w.Refresh()
		time.Sleep(10 * time.Second)
		assert.Equal(t, 2, v.count(a))
	})
}

func TestWhatIsNotWantedAnyMoreIsNotRead(t *testing.T) {
	v := newVault(a, b)
	watching(t, v, func(t *testing.T, w *Watcher) {
		w.Want(t.Context(), wanted(10*time.Second, a, b))
		next(t, w)
		w.Want(t.Context(), wanted(10*time.Second, b))
		before := v.count(a)
		v.put(a, 2)
		none(t, w, time.Minute)
		assert.Equal(t, before, v.count(a))

		w.Want(t.Context(), wanted(10*time.Second, a, b))
		assert.Len(t, next(t, w), 1, "what is wanted anew is read at once")
	})
}

func TestAShorterIntervalCountsFromNowOn(t *testing.T) {
	v := newVault(a)
	watching(t, v, func(t *testing.T, w *Watcher) {
		w.Want(t.Context(), wanted(time.Hour, a))
		next(t, w)
		w.Want(t.Context(), wanted(10*time.Second, a))
		v.put(a, 2)
		start := time.Now()
		next(t, w)
		assert.LessOrEqual(t, time.Since(start), 11*time.Second)
	})
}

func TestAThousandSecretsAreReadByAFewAtATime(t *testing.T) {
	var paths []string
	v := newVault()
	for i := range 1000 {
		path := fmt.Sprintf("secret/data/%d", i)
		paths = append(paths, path)
		v.put(path, 1)
		v.slow[path] = 8 * time.Millisecond
		if i%10 == 0 {
			v.setError(path, errors.New("denied"))
		}
	}
	watching(t, v, func(t *testing.T, w *Watcher) {
		start := time.Now()
		w.Want(t.Context(), wanted(10*time.Second, paths...))
		seen := Batch{}
		for len(seen) < 1000 {
			for path, r := range next(t, w) {
				seen[path] = r
			}
		}
		assert.Equal(t, time.Second, time.Since(start).Round(100*time.Millisecond), "1000 reads of 8 ms, 8 at a time")
		failed := 0
		for _, r := range seen {
			if r.Err != nil {
				failed++
			}
		}
		assert.Equal(t, 100, failed)
	})
}

// fetchAll returns all readings of a fetch at once.
func fetchAll(ctx context.Context, reader Reader, requests []render.Request, log *slog.Logger) Batch {
	all := Batch{}
	Fetch(ctx, reader, requests, log, func(batch Batch) { maps.Copy(all, batch) })
	return all
}

func TestFetchRetriesOnlyWhatMayPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVault(a, b, "secret/data/c")
		v.setError(a, &session.Fault{Op: "reading", Kind: session.ErrSealed, Transient: true})
		v.setError(b, &session.Fault{Op: "reading", Kind: session.ErrDenied})
		go func() {
			time.Sleep(5 * time.Second)
			v.setError(a, nil)
		}()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		batch := fetchAll(ctx, v, wanted(0, a, "secret/a", b, "secret/c").Requests, slog.New(slog.DiscardHandler))
		require.Len(t, batch, 4)
		require.NoError(t, batch[render.Read(a)].Err)
		assert.Same(t, batch[render.Read(a)].Secret, batch[render.Read("secret/a")].Secret)
		require.ErrorIs(t, batch[render.Read(b)].Err, session.ErrDenied)
		assert.Equal(t, 1, v.count(b))
		assert.Equal(t, 1, v.count("secret/data/c"))
	})
}

func TestFetch_DeliversWhatIsReadWhileASecretFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVault(a, b, "secret/data/c")
		v.setError(a, &session.Fault{Op: "reading", Kind: session.ErrUnreachable, Transient: true})
		go func() {
			time.Sleep(30 * time.Second)
			v.setError(a, nil)
		}()
		begun := time.Now()
		var delivered []int
		Fetch(t.Context(), v, wanted(0, a, b, "secret/c").Requests, slog.New(slog.DiscardHandler), func(batch Batch) {
			delivered = append(delivered, len(batch))
			if len(delivered) == 1 {
				assert.Zero(t, time.Since(begun))
				assert.NotContains(t, batch, render.Read(a))
			}
		})
		assert.Equal(t, []int{2, 1}, delivered)
		assert.GreaterOrEqual(t, time.Since(begun), 30*time.Second)
	})
}

func TestFetchEndsWithItsContextAndGivesTheReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVault(a)
		v.setError(a, &session.Fault{Op: "reading", Kind: session.ErrSealed, Transient: true})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		batch := fetchAll(ctx, v, wanted(0, a).Requests, slog.New(slog.DiscardHandler))
		require.ErrorIs(t, batch[render.Read(a)].Err, session.ErrSealed)
	})
}
