package vaulttest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// Cluster returns n devvaults with integrated storage in state folders of their
// own. The first one leads; more than half of them must run for the cluster to
// have a leader. It is skipped where an outside server is under test.
func Cluster(t testing.TB, n int) []*Server {
	t.Helper()
	skipOutside(t)
	dir := t.TempDir()
	var nodes []*Server
	for i := range n {
		name := "node-" + strconv.Itoa(i+1)
		flags := []string{
			"-listen", FreeAddress(t), "-raft", name, "-state", filepath.Join(dir, name),
			// That peers are gone is what the tests are about.
			"-log-level", "off",
		}
		if i > 0 {
			flags = append(flags, "-raft-join", nodes[0].Address, "-keys", filepath.Join(dir, "node-1", "keys.json"))
		}
		s, err := Start(flags...)
		require.NoError(t, err, name)
		t.Cleanup(s.Stop)
		nodes = append(nodes, s)
	}
	return nodes
}

// Leader waits until one of the servers leads their cluster, and returns it.
func Leader(t testing.TB, servers []*Server) *Server {
	t.Helper()
	var leader *Server
	require.Eventually(t, func() bool {
		for _, s := range servers {
			if s.leads() {
				leader = s
			}
		}
		return leader != nil
	}, 2*time.Minute, 50*time.Millisecond, "no server leads the cluster")
	return leader
}

// leads asks once: one that does not answer is no leader.
func (s *Server) leads() bool {
	client, err := s.Client.Clone()
	if err != nil {
		return false
	}
	client.SetMaxRetries(0)
	client.SetClientTimeout(5 * time.Second)
	status, err := client.Sys().Leader()
	return err == nil && status.IsSelf
}

// Kill ends a devvault at once, without its consent (SIGKILL), and waits until
// it is gone.
func (s *Server) Kill() {
	if s.cmd == nil {
		panic("vaulttest: an outside server is not to be killed")
	}
	_ = s.cmd.Process.Kill()
	s.Stop()
	named := slices.ContainsFunc(s.flags, func(f string) bool { return strings.HasPrefix(f, "-tls-dir") })
	if s.CAFile != "" && !named { // the temporary folder that it can no longer delete
		_ = os.RemoveAll(filepath.Dir(s.CAFile))
	}
}

// Restart runs a devvault that was stopped or killed again, at the same address
// and on the same state, and refreshes the fields of s. Without -state it is a
// new Vault. A node of a cluster waits for a leader, so where most nodes are
// down, [RestartAll] is for them.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	require.NoError(t, s.restart())
}

// RestartAll is [Server.Restart] for several servers at once.
func RestartAll(t testing.TB, servers []*Server) {
	t.Helper()
	var g errgroup.Group
	for _, s := range servers {
		g.Go(s.restart)
	}
	require.NoError(t, g.Wait())
}

func (s *Server) restart() error {
	again := &Server{flags: slices.Clone(s.flags), env: s.env}
	if !s.configured() { // whose address is in its configuration
		_, address, _ := strings.Cut(s.Address, "://")
		again.flags = append(again.flags, "-listen", address) // the last one counts
	}
	if err := again.start(); err != nil {
		return fmt.Errorf("restarting devvault at %s: %w", s.Address, err)
	}
	again.flags = s.flags
	*s = *again
	return nil
}

// The ports for servers that restart. They are below those that the kernel gives
// to outgoing connections: one of these could have the port meanwhile.
const firstPort, lastPort = 10000, 32767

// FreeAddress is HOST:PORT on loopback where nothing listens, for a server that may
// be stopped and started again.
func FreeAddress(t testing.TB) string {
	t.Helper()
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", firstPort+rand.N(lastPort-firstPort+1))
		if l, err := net.Listen("tcp", address); err == nil {
			require.NoError(t, l.Close())
			return address
		}
	}
	require.FailNow(t, "no free port")
	return ""
}
