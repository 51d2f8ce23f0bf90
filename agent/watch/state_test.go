package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/internal/tally"
	"github.com/smarteros/deaddrop/render"
)

func TestStatesTellWhenSecretsWereReadAndAreReadNext(t *testing.T) {
	v := newVault("secret/data/a", "secret/data/b")
	watching(t, v, func(t *testing.T, w *Watcher) {
		w.Want(t.Context(), wanted(10*time.Second, "secret/a", "secret/data/a", "secret/b"))
		next(t, w)
		time.Sleep(time.Minute)
		states := w.States(t.Context())
		require.Len(t, states, 3)
		a := states[render.Read("secret/a")]
		assert.Equal(t, a, states[render.Read("secret/data/a")], "two spellings of one secret")
		assert.LessOrEqual(t, time.Since(a.Answered), 11*time.Second)
		assert.True(t, a.Next.After(time.Now()))
		assert.Zero(t, a.Failing)
		assert.Zero(t, a.Ends)

		v.setError("secret/data/b", errors.New("no"))
		next(t, w)
		failing := time.Now()
		time.Sleep(time.Minute)
		b := w.States(t.Context())[render.Read("secret/b")]
		assert.WithinDuration(t, failing, b.Failing, 2*time.Second, "since the first failure")
		assert.True(t, b.Answered.Before(b.Failing))
		assert.Zero(t, w.States(t.Context())[render.Read("secret/a")].Failing)
		v.setError("secret/data/b", nil)
		next(t, w)
		assert.Zero(t, w.States(t.Context())[render.Read("secret/b")].Failing)

		v.setError("secret/data/b", fmt.Errorf("x: %w", ErrMissing))
		next(t, w)
		time.Sleep(time.Minute)
		b = w.States(t.Context())[render.Read("secret/b")]
		assert.LessOrEqual(t, time.Since(b.Answered), 22*time.Second, "that there is none is an answer")
		assert.NotZero(t, b.Failing)
	})
}

func TestReadsAreCountedWhereSomeoneCounts(t *testing.T) {
	v := newVault("secret/data/a")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var reads tally.Tally
		w := New(v, slog.New(slog.DiscardHandler))
		w.CountReads(&reads)
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		w.Want(ctx, wanted(10*time.Second, "secret/a"))
		next(t, w)
		assert.EqualValues(t, 1, reads.Sum().Succeeded)
		v.setError("secret/data/a", errors.New("no"))
		next(t, w)
		assert.EqualValues(t, 1, reads.Sum().Failed)
		v.setError("secret/data/a", fmt.Errorf("x: %w", ErrMissing))
		next(t, w)
		assert.EqualValues(t, v.count("secret/data/a"), reads.Sum().Succeeded+reads.Sum().Failed)
		assert.Greater(t, reads.Sum().Succeeded, int64(1), "that there is none is an answer")
		cancel()
		require.NoError(t, <-ended)
		assert.Nil(t, w.States(ctx), "nobody answers any more")
	})
}

func TestStatesTellWhenALeaseEnds(t *testing.T) {
	e := &engine{life: leased(time.Hour, true, nil)}
	watching(t, e, func(t *testing.T, w *Watcher) {
		w.Want(t.Context(), wanted(10*time.Second, "database/creds/x"))
		next(t, w)
		is := w.States(t.Context())[render.Read("database/creds/x")]
		assert.WithinDuration(t, time.Now().Add(time.Hour), is.Ends, time.Second)
		assert.True(t, is.Next.Before(is.Ends))
	})
}
