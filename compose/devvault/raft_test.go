package devvault_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/devvault"
)

func TestOptionsThatDoNotFitACluster(t *testing.T) {
	const join = "http://127.0.0.1:8200"
	keys := []string{"a2V5"}
	for want, o := range map[string]devvault.Options{
		"-raft needs -state":          {Raft: devvault.Raft{NodeID: "n"}},
		"-raft-join needs -raft":      {State: "s", Raft: devvault.Raft{Join: join, UnsealKeys: keys}},
		"need -raft-join":             {State: "s", Raft: devvault.Raft{NodeID: "n", UnsealKeys: keys}},
		"-keys are of the cluster":    {State: "s", Raft: devvault.Raft{KeysFile: "f"}},
		"needs the keys of the":       {State: "s", Raft: devvault.Raft{NodeID: "n", Join: join}},
		"one is enough":               {State: "s", Raft: devvault.Raft{NodeID: "n", Join: join, UnsealKeys: keys, KeysFile: "f"}},
		"-raft and -tls do not":       {State: "s", TLS: true, Raft: devvault.Raft{NodeID: "n"}},
		"-raft and -sealed do not":    {State: "s", Sealed: true, Raft: devvault.Raft{NodeID: "n"}},
		"-raft and -audit do not":     {State: "s", Audit: "a", Raft: devvault.Raft{NodeID: "n"}},
		`"https://127.0.0.1:1" is no`: {State: "s", Raft: devvault.Raft{NodeID: "n", Join: "https://127.0.0.1:1", UnsealKeys: keys}},
		`"http://192.0.2.1:1" is no`:  {State: "s", Raft: devvault.Raft{NodeID: "n", Join: "http://192.0.2.1:1", UnsealKeys: keys}},
		`"127.0.0.1" is no`:           {State: "s", Raft: devvault.Raft{NodeID: "n", Join: "127.0.0.1", UnsealKeys: keys}},
	} {
		assert.ErrorContains(t, o.Check(), want)
		_, err := devvault.Start(t.Context(), o)
		assert.ErrorContains(t, err, want)
	}
	assert.NoDirExists(t, "s")
}

func TestStandbyForwardsToItsLeader(t *testing.T) {
	leader := start(t, devvault.Options{State: t.TempDir(), RootToken: "chosen", Raft: devvault.Raft{NodeID: "one"}})
	standby := start(t, devvault.Options{State: t.TempDir(), RootToken: "chosen", Raft: devvault.Raft{
		NodeID: "two", Join: leader.Address, UnsealKeys: leader.UnsealKeys,
	}})
	assert.Equal(t, leader.Keys, standby.Keys)
	status, err := clientOf(t, standby, "").Sys().LeaderWithContext(t.Context())
	require.NoError(t, err)
	assert.False(t, status.IsSelf)
	assert.Equal(t, leader.Address, status.LeaderAddress)

	_, err = clientOf(t, standby, "chosen").KVv2("secret").Put(t.Context(), "app", map[string]any{"a": "b"})
	require.NoError(t, err)
	for _, node := range []*devvault.Server{leader, standby} {
		secret, err := clientOf(t, node, "chosen").KVv2("secret").Get(t.Context(), "app")
		require.NoError(t, err)
		assert.Equal(t, "b", secret.Data["a"])
	}
}

func TestKeysFileOfAMemberIsEnoughToJoin(t *testing.T) {
	dir := t.TempDir()
	leader := start(t, devvault.Options{State: dir, Raft: devvault.Raft{NodeID: "one"}})
	join := devvault.Options{State: t.TempDir(), Raft: devvault.Raft{
		NodeID: "two", Join: leader.Address, KeysFile: filepath.Join(dir, "keys.json"),
	}}
	join.RootToken = "another"
	_, err := devvault.Start(t.Context(), join)
	require.ErrorContains(t, err, "has a root token already")
	join.RootToken = ""
	assert.Equal(t, leader.Keys, start(t, join).Keys)
}

func TestClusterIsNotJoinedWithoutItsKeys(t *testing.T) {
	leader := start(t, devvault.Options{State: t.TempDir(), Raft: devvault.Raft{NodeID: "one"}})
	join := devvault.Raft{NodeID: "two", Join: leader.Address, UnsealKeys: []string{"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}}
	_, err := devvault.Start(t.Context(), devvault.Options{State: t.TempDir(), Raft: join})
	assert.ErrorContains(t, err, "joining "+leader.Address)

	join.UnsealKeys, join.KeysFile = nil, "missing.json"
	_, err = devvault.Start(t.Context(), devvault.Options{State: t.TempDir(), Raft: join})
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func TestServerOutsideOfAClusterCannotBeJoined(t *testing.T) {
	alone := start(t, devvault.Options{})
	_, err := devvault.Start(t.Context(), devvault.Options{State: t.TempDir(), Raft: devvault.Raft{
		NodeID: "two", Join: alone.Address, UnsealKeys: alone.UnsealKeys,
	}})
	assert.ErrorContains(t, err, "joining "+alone.Address)
}

func TestNodeRestartsOnItsStateUnderItsNameOnly(t *testing.T) {
	dir := t.TempDir()
	first, err := devvault.Start(t.Context(), devvault.Options{State: dir, Raft: devvault.Raft{NodeID: "one"}})
	require.NoError(t, err)
	_, err = clientOf(t, first, first.RootToken).KVv2("secret").Put(t.Context(), "app", map[string]any{"a": "b"})
	require.NoError(t, err)
	require.NoError(t, first.Close())

	for _, name := range []string{"", "two"} {
		_, err := devvault.Start(t.Context(), devvault.Options{State: dir, Raft: devvault.Raft{NodeID: name}})
		assert.ErrorContains(t, err, "start it with -raft one")
	}
	second := start(t, devvault.Options{State: dir, Raft: devvault.Raft{NodeID: "one"}})
	assert.Equal(t, first.Keys, second.Keys)
	secret, err := clientOf(t, second, second.RootToken).KVv2("secret").Get(t.Context(), "app")
	require.NoError(t, err)
	assert.Equal(t, "b", secret.Data["a"])
}

func TestStateOfALoneServerDoesNotBecomeANode(t *testing.T) {
	dir := t.TempDir()
	alone, err := devvault.Start(t.Context(), devvault.Options{State: dir})
	require.NoError(t, err)
	require.NoError(t, alone.Close())
	_, err = devvault.Start(t.Context(), devvault.Options{State: dir, Raft: devvault.Raft{NodeID: "one"}})
	assert.ErrorContains(t, err, "is not a node of a cluster")
}
