package vault

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/vaulttest"
)

func TestEachStopsAtTheFirstErrorAndWhenTheContextEnds(t *testing.T) {
	t.Parallel()
	var done atomic.Int64
	require.NoError(t, Each(t.Context(), 1000, func(context.Context, int) error { done.Add(1); return nil }))
	assert.EqualValues(t, 1000, done.Load())

	bad := errors.New("bad")
	done.Store(0)
	require.ErrorIs(t, Each(t.Context(), 1_000_000, func(context.Context, int) error {
		done.Add(1)
		return bad
	}), bad)
	assert.Less(t, done.Load(), int64(1_000_000))

	ended, end := context.WithCancel(t.Context())
	end()
	require.ErrorIs(t, Each(ended, 1, func(context.Context, int) error { return nil }), context.Canceled)
}

func TestOnlyAVersionThatIsNotTheNextOneFailsCheckAndSet(t *testing.T) {
	t.Parallel()
	v := New(vaulttest.Own(t).Client)
	put := func(options map[string]any) error {
		_, err := v.Write(t.Context(), "secret/data/x", map[string]any{"data": map[string]any{"a": "b"}, "options": options})
		return err
	}
	require.NoError(t, put(map[string]any{"cas": 0}))
	assert.True(t, IsCAS(put(map[string]any{"cas": 0})))
	_, err := v.Write(t.Context(), "secret/metadata/x", map[string]any{"cas_required": true})
	require.NoError(t, err)
	err = put(nil)
	require.ErrorContains(t, err, "check-and-set parameter required")
	assert.False(t, IsCAS(err))
	assert.False(t, IsCAS(nil))
}

func TestAnEntityIsReadByNameAndID(t *testing.T) {
	t.Parallel()
	v := New(vaulttest.Own(t).Client)
	_, err := v.Write(t.Context(), "identity/entity", map[string]any{"name": "e", "disabled": true, "metadata": map[string]string{TenantKey: "demo"}})
	require.NoError(t, err)
	e, err := v.Entity(t.Context(), "name/e")
	require.NoError(t, err)
	assert.True(t, e.Disabled)
	assert.Equal(t, "demo", e.Metadata[TenantKey])
	same, err := v.Entity(t.Context(), "id/"+e.ID)
	require.NoError(t, err)
	assert.Equal(t, e, same)
	none, err := v.Entity(t.Context(), "name/none")
	require.NoError(t, err)
	assert.Nil(t, none)
}
