package vaulttest

import (
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAServerOfAConfigurationIsSetUpThroughTheAPIAndKeepsItOverARestart(t *testing.T) {
	t.Parallel()
	s := Uninitialised(t, "")
	health, err := s.Client.Sys().Health()
	require.NoError(t, err)
	assert.False(t, health.Initialized)
	assert.True(t, health.Sealed)
	assert.Empty(t, s.RootToken)
	assert.Empty(t, s.Client.Token())

	keys, err := s.Client.Sys().Init(&api.InitRequest{SecretShares: 3, SecretThreshold: 2})
	require.NoError(t, err)
	require.Len(t, keys.KeysB64, 3)
	unseal(t, s, keys.KeysB64[:2])
	s.Client.SetToken(keys.RootToken)
	require.NoError(t, s.Client.Sys().Mount("kv", &api.MountInput{Type: "kv"}))
	marker := Marker()
	_, err = s.Client.Logical().Write("kv/app", map[string]any{"value": marker})
	require.NoError(t, err)

	before := s.Address
	s.Kill()
	s.Restart(t)
	assert.Equal(t, before, s.Address)
	status, err := s.Client.Sys().SealStatus()
	require.NoError(t, err)
	assert.True(t, status.Initialized)
	assert.True(t, status.Sealed)
	unseal(t, s, keys.KeysB64[1:])
	s.Client.SetToken(keys.RootToken)
	secret, err := s.Client.Logical().Read("kv/app")
	require.NoError(t, err)
	assert.Equal(t, marker, secret.Data["value"])
}

func unseal(t *testing.T, s *Server, keys []string) {
	t.Helper()
	for _, key := range keys {
		_, err := s.Client.Sys().Unseal(key)
		require.NoError(t, err)
	}
	status, err := s.Client.Sys().SealStatus()
	require.NoError(t, err)
	require.False(t, status.Sealed)
}
