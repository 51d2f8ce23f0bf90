package vaulttest

import (
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func put(t *testing.T, s *Server, value string) error {
	_, err := s.Client.KVv2("secret").Put(t.Context(), "app", map[string]any{"value": value})
	return err
}

func get(t *testing.T, s *Server) any {
	t.Helper()
	secret, err := s.Client.KVv2("secret").Get(t.Context(), "app")
	require.NoError(t, err)
	return secret.Data["value"]
}

// without returns the others.
func without(nodes []*Server, s *Server) []*Server {
	return slices.DeleteFunc(slices.Clone(nodes), func(other *Server) bool { return other == s })
}

func TestClusterHasAnotherLeaderWhenItsOwnIsKilled(t *testing.T) {
	nodes := Cluster(t, 3)
	leader := Leader(t, nodes)
	assert.Same(t, nodes[0], leader)
	require.NoError(t, put(t, leader, "first"))
	others := without(nodes, leader)
	for _, s := range others {
		assert.Equal(t, leader.RootToken, s.RootToken)
		assert.Equal(t, "first", get(t, s))
	}

	leader.Kill()
	assert.ErrorIs(t, syscall.Kill(leader.PID, 0), syscall.ESRCH)
	next := Leader(t, others)
	require.Eventually(t, func() bool { return put(t, next, "second") == nil }, time.Minute, 100*time.Millisecond)

	pid, address, client := leader.PID, leader.Address, leader.Client
	leader.Restart(t)
	assert.NotEqual(t, pid, leader.PID)
	assert.Equal(t, address, leader.Address)
	assert.Equal(t, "second", get(t, leader))
	_, err := client.Auth().Token().LookupSelf()
	assert.NoError(t, err, "a client from before the restart is still good")
}

func TestClusterComesBackFromNothing(t *testing.T) {
	nodes := Cluster(t, 3)
	require.NoError(t, put(t, nodes[2], "kept"))
	for _, s := range nodes {
		s.Kill()
	}
	RestartAll(t, nodes)
	Leader(t, nodes)
	for _, s := range nodes {
		assert.Equal(t, "kept", get(t, s))
	}
}

func TestRestartKeepsAddressAndState(t *testing.T) {
	s := Own(t, "-state", filepath.Join(t.TempDir(), "state"), "-tls")
	require.NoError(t, put(t, s, "kept"))
	address, ca := s.Address, s.CAFile
	s.Kill()
	assert.NoDirExists(t, filepath.Dir(ca))
	s.Restart(t)
	assert.Equal(t, address, s.Address)
	assert.Equal(t, "kept", get(t, s), "through a client that trusts the new authority")
	s.Stop()
	s.Restart(t)
	assert.Equal(t, "kept", get(t, s))
}
