package main

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMain lets the tests start this binary as devvault, as a process of its own
// that they can kill.
func TestMain(m *testing.M) {
	if os.Getenv("DEVVAULT_TEST_AS_COMMAND") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// process is a running devvault.
type process struct {
	Address   string `json:"address"`
	RootToken string `json:"root_token"`

	cmd   *exec.Cmd
	stdin io.Closer
}

// launch runs devvault until the end of the test, or until it is killed.
func launch(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(os.Args[0], append(args, "-json", "-exit-with-stdin", "-log-level", "off")...)}
	p.cmd.Env = append(os.Environ(), "DEVVAULT_TEST_AS_COMMAND=yes")
	p.cmd.Stderr = os.Stderr
	stdout, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	p.stdin, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() {
		_ = p.stdin.Close()
		_ = p.cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(line, p))
	return p
}

func (p *process) kill(t *testing.T) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Kill())
	_ = p.cmd.Wait()
}

func (p *process) client(t *testing.T) *api.Client {
	t.Helper()
	config := api.DefaultConfig()
	require.NoError(t, config.Error)
	config.Address = p.Address
	client, err := api.NewClient(config)
	require.NoError(t, err)
	client.SetToken(p.RootToken)
	return client
}

func (p *process) put(t *testing.T, value string) error {
	_, err := p.client(t).KVv2("secret").Put(t.Context(), "app", map[string]any{"value": value})
	return err
}

func (p *process) get(t *testing.T) any {
	t.Helper()
	secret, err := p.client(t).KVv2("secret").Get(t.Context(), "app")
	require.NoError(t, err)
	return secret.Data["value"]
}

func (p *process) leads(t *testing.T) bool {
	status, err := p.client(t).Sys().LeaderWithContext(t.Context())
	return err == nil && status.IsSelf
}

func TestClusterOutlivesItsLeader(t *testing.T) {
	dir := t.TempDir()
	state := func(name string) []string {
		return []string{"-listen", "127.0.0.1:0", "-raft", name, "-state", filepath.Join(dir, name)}
	}
	leader := launch(t, state("one")...)
	var others []*process
	for _, name := range []string{"two", "three"} {
		others = append(others, launch(t, append(state(name),
			"-raft-join", leader.Address, "-keys", filepath.Join(dir, "one", "keys.json"))...))
	}
	require.True(t, leader.leads(t))
	require.NoError(t, leader.put(t, "first"))
	for _, p := range others {
		assert.Equal(t, leader.RootToken, p.RootToken)
		assert.False(t, p.leads(t))
		assert.Equal(t, "first", p.get(t))
	}

	leader.kill(t)
	require.Eventually(t, func() bool { return others[0].leads(t) || others[1].leads(t) }, time.Minute, 100*time.Millisecond)
	// Either may be the new leader, and the other one forwards to it.
	for _, p := range others {
		require.Eventually(t, func() bool { return p.put(t, "second via "+p.Address) == nil }, time.Minute, 100*time.Millisecond)
		assert.Equal(t, "second via "+p.Address, p.get(t))
	}

	// It needs nothing but its state to be a member again.
	back := launch(t, state("one")...)
	assert.Equal(t, leader.RootToken, back.RootToken)
	assert.Equal(t, "second via "+others[1].Address, back.get(t))
	require.NoError(t, back.put(t, "third"))

	others[0].kill(t)
	require.Eventually(t, func() bool { return back.put(t, "fourth") == nil }, time.Minute, 100*time.Millisecond)
	assert.Equal(t, "fourth", others[1].get(t))
}

func TestUnsealKeyOfTheCommandLineJoins(t *testing.T) {
	dir := t.TempDir()
	leader := launch(t, "-listen", "127.0.0.1:0", "-raft", "one", "-state", filepath.Join(dir, "one"), "-root-token", "root")
	content, err := os.ReadFile(filepath.Join(dir, "one", "keys.json"))
	require.NoError(t, err)
	var keys struct {
		UnsealKeys []string `json:"unseal_keys"`
	}
	require.NoError(t, json.Unmarshal(content, &keys))
	joined := launch(t, "-listen", "127.0.0.1:0", "-raft", "two", "-state", filepath.Join(dir, "two"), "-root-token", "root",
		"-raft-join", leader.Address, "-unseal-key", strings.Join(keys.UnsealKeys, ""))
	require.NoError(t, joined.put(t, "through a standby"))
	assert.Equal(t, "through a standby", leader.get(t))
}
