package devvault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/physical/raft"
	"github.com/hashicorp/vault/sdk/physical"
	"github.com/hashicorp/vault/vault"
)

// Raft makes a server a node of a cluster, on Vault's integrated storage.
type Raft struct {
	// NodeID is the node's name in its cluster. Without one there is no cluster.
	NodeID string
	// Join is the address of a node that runs already, http://HOST:PORT on
	// loopback. A new node joins its cluster; one that was a member before goes
	// back by itself, whatever is here. Without it a new node makes a cluster.
	Join string
	// UnsealKeys open the cluster to join.
	UnsealKeys []string
	// KeysFile is where UnsealKeys and the root token are read from instead: the
	// keys.json in the state folder of a node of the cluster.
	KeysFile string
}

// leaderWait is how long a node waits for a leader. An election takes a few
// seconds; only a cluster most of whose nodes are down needs more.
const leaderWait = time.Minute

// checkRaft finds options that do not go together, named as devvault's flags.
func (o Options) checkRaft() error {
	r := o.Raft
	keys := len(r.UnsealKeys) > 0 || r.KeysFile != ""
	switch {
	case r.NodeID == "" && r.Join != "":
		return errors.New("-raft-join needs -raft NODE_ID, this node's own name in the cluster")
	case r.Join == "" && keys:
		return errors.New("-unseal-key and -keys are of the cluster that a node joins: they need -raft-join")
	case r.NodeID == "":
		return nil
	case o.State == "":
		return errors.New("-raft needs -state DIR: integrated storage is on disk")
	case o.TLS:
		return errors.New("-raft and -tls do not go together: nodes join over plain HTTP on loopback")
	case o.Sealed:
		return errors.New("-raft and -sealed do not go together: a sealed node is no member of its cluster")
	case o.Audit != "":
		return errors.New("-raft and -audit do not go together: all nodes share their audit devices; enable one through the API")
	case r.Join == "":
		return nil
	case !keys:
		return errors.New("-raft-join needs the keys of the cluster: -unseal-key KEY, or -keys FILE with a member's keys.json")
	case len(r.UnsealKeys) > 0 && r.KeysFile != "":
		return errors.New("-unseal-key and -keys do not go together: one is enough to join")
	}
	return checkJoin(r.Join)
}

// checkJoin refuses what is not a devvault: the answer to the challenge of a
// join would cross the network in clear.
func checkJoin(address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return fmt.Errorf("address to join: %w", err)
	}
	if u.Scheme != "http" || u.Port() == "" || u.Path != "" || !onLoopback(u.Hostname()) {
		return fmt.Errorf("address to join %q is not http://HOST:PORT on loopback", address)
	}
	return nil
}

// node is what a member must still know after a restart: the others have its
// name and its address in their list of peers.
type node struct {
	ID             string `json:"node_id"`
	ClusterAddress string `json:"cluster_address"`
}

// loadNode returns nil where the state folder is not a node's.
func (s *state) loadNode() (*node, error) {
	content, err := os.ReadFile(s.nodeFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the node's name: %w", err)
	}
	var n node
	if err := json.Unmarshal(content, &n); err != nil {
		return nil, fmt.Errorf("reading the node's name in %s: %w", s.nodeFile(), err)
	}
	return &n, nil
}

func (s *state) nodeFile() string { return filepath.Join(s.dir, "node.json") }

// node returns the member of a cluster that lives in the state folder, and
// makes a folder without a Vault into one. It is nil without a name.
func (s *state) node(id string, ip net.IP) (*node, error) {
	if s.dir == "" {
		return nil, nil
	}
	known, err := s.loadNode()
	switch {
	case err != nil:
		return nil, err
	case known != nil && known.ID != id:
		return nil, fmt.Errorf("the Vault in %s is node %q of a cluster: start it with -raft %s", s.dir, known.ID, known.ID)
	case known != nil || id == "":
		return known, nil
	}
	if _, err := os.Stat(s.keysFile()); err == nil {
		return nil, fmt.Errorf("the Vault in %s is not a node of a cluster: start it without -raft, or give another state folder", s.dir)
	}
	address, err := freeAddress(ip)
	if err != nil {
		return nil, err
	}
	n := &node{ID: id, ClusterAddress: address}
	content, err := json.Marshal(n)
	if err != nil {
		return nil, fmt.Errorf("saving the node's name: %w", err)
	}
	if err := os.WriteFile(s.nodeFile(), append(content, '\n'), 0o600); err != nil {
		return nil, fmt.Errorf("saving the node's name: %w", err)
	}
	return n, nil
}

// The ports that a node's cluster address is from. They are below those that
// the kernel gives to outgoing connections: one of these could have the port
// when the node comes back to it.
const firstPort, lastPort = 10000, 32767

// freeAddress finds a port for the traffic between nodes. Vault wants to know it
// before it listens.
func freeAddress(ip net.IP) (address string, err error) {
	for range 100 {
		port := firstPort + rand.N(lastPort-firstPort+1)
		address = net.JoinHostPort(ip.String(), strconv.Itoa(port))
		var l net.Listener
		if l, err = net.Listen("tcp", address); err == nil {
			return address, l.Close()
		}
	}
	return "", fmt.Errorf("finding a free port for the cluster: %w", err)
}

// raftStorage opens the node's part of the integrated storage.
func (s *state) raftStorage(n *node, log hclog.Logger) (physical.Backend, error) {
	dir := filepath.Join(s.dir, "raft")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making its folder: %w", err)
	}
	return raft.NewRaftBackend(map[string]string{
		"path":    dir,
		"node_id": n.ID,
		// The shortest time-outs that Vault has: a second until the loss of a
		// leader is noticed.
		"performance_multiplier": "1",
	}, log)
}

// cluster adds to a core's configuration what makes it a node.
func (n *node) cluster(c *vault.CoreConfig, apiAddress string) {
	c.HAPhysical = c.Physical.(physical.HABackend)
	c.RedirectAddr = apiAddress
	c.ClusterAddr = "https://" + n.ClusterAddress
	// A standby is to find its new leader soon.
	c.PeriodicLeaderRefreshInterval = 250 * time.Millisecond
	// It would have a new node wait for ten seconds until it may vote, and a
	// cluster whose leader is lost meanwhile would have no majority.
	c.DisableAutopilot = true
}

// connect says where the core listens for the other nodes, and who answers what
// they forward. Vault starts the listener when it is unsealed.
func (n *node) connect(core *vault.Core) error {
	address, err := net.ResolveTCPAddr("tcp", n.ClusterAddress)
	if err != nil {
		return fmt.Errorf("cluster address: %w", err)
	}
	core.SetClusterListenerAddrs([]*net.TCPAddr{address})
	core.SetClusterHandler(vaulthttp.Handler.Handler(&vault.HandlerProperties{
		Core: core, ListenerConfig: &configutil.Listener{},
	}))
	return nil
}

// join makes the server a member of a running cluster.
func (s *Server) join(ctx context.Context, o Options) error {
	keys, err := o.joinKeys()
	if err != nil {
		return err
	}
	s.Keys = *keys
	if _, err := s.core.JoinRaftCluster(ctx, []*raft.LeaderJoinInfo{{LeaderAPIAddr: o.Raft.Join}}, false); err != nil {
		return fmt.Errorf("joining %s: %w", o.Raft.Join, err)
	}
	if err := s.enterKeys(); err != nil {
		return fmt.Errorf("joining %s: %w", o.Raft.Join, err)
	}
	// It stays sealed until it has a copy of what the leader has.
	if err := s.waitForLeader(ctx); err != nil {
		return fmt.Errorf("joining %s: %w", o.Raft.Join, err)
	}
	return s.state.save(s.Keys)
}

// joinKeys are the keys of the cluster to join.
func (o Options) joinKeys() (*Keys, error) {
	if o.Raft.KeysFile == "" {
		return &Keys{RootToken: o.RootToken, UnsealKeys: o.Raft.UnsealKeys}, nil
	}
	keys, err := loadKeys(o.Raft.KeysFile)
	if err != nil {
		return nil, err
	}
	if o.RootToken != "" && o.RootToken != keys.RootToken {
		return nil, fmt.Errorf("the cluster at %s has a root token already: join it without another one", o.Raft.Join)
	}
	return keys, nil
}

// waitForLeader waits until requests to this node are answered: by itself when
// it is the leader, else by the one it forwards them to. Outside of a cluster
// there is nothing to wait for.
func (s *Server) waitForLeader(ctx context.Context) error {
	if s.node == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, leaderWait)
	defer cancel()
	for {
		// An error is one more way of having no leader yet.
		if self, leader, _, err := s.core.Leader(); err == nil && (self || isActive(ctx, leader)) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("node %s waited for a leader of its cluster, whose nodes must mostly be running: %w", s.node.ID, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// isActive asks a leader whether it is one, as a node that comes back first
// knows the last one that it had, which may be gone.
func isActive(ctx context.Context, address string) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/v1/sys/health", nil)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	_, _ = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}
