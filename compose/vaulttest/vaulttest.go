// Package vaulttest gives tests a real Vault: devvault, built once and cached,
// or the server that DEADDROP_TEST_VAULT_ADDR and DEADDROP_TEST_VAULT_TOKEN
// name, so that another Vault or OpenBao can be put under the same tests.
package vaulttest

import (
	"bufio"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"
)

// Server is a Vault, and a client that is logged in to it as root.
type Server struct {
	Address    string   `json:"address"`
	RootToken  string   `json:"root_token"`
	UnsealKeys []string `json:"unseal_keys"`
	CAFile     string   `json:"ca_file"`
	PID        int      `json:"pid"`

	Client *api.Client `json:"-"`
	flags  []string
	env    []string // beside PATH and HOME
	cmd    *exec.Cmd
	stdin  io.Closer
}

var shared = sync.OnceValues(func() (*Server, error) {
	if addr := os.Getenv("DEADDROP_TEST_VAULT_ADDR"); addr != "" {
		s := &Server{Address: addr, RootToken: os.Getenv("DEADDROP_TEST_VAULT_TOKEN")}
		return s, s.connect()
	}
	return Start("-listen", "127.0.0.1:0")
})

// NotShort skips a test that needs a Vault where -short asks for the fast ones alone.
func NotShort(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("this test needs a Vault, and -short was asked for")
	}
}

// Shared returns the server that all tests of a package share. It ends with the
// test binary.
func Shared(t testing.TB) *Server {
	t.Helper()
	NotShort(t)
	s, err := shared()
	require.NoError(t, err)
	return s
}

// Own returns a devvault for one test, with these flags, on a free port unless
// they say otherwise. It is skipped where an outside server is under test.
func Own(t testing.TB, flags ...string) *Server {
	t.Helper()
	skipOutside(t)
	s, err := Start(append([]string{"-listen", FreeAddress(t)}, flags...)...)
	require.NoError(t, err)
	t.Cleanup(s.Stop)
	return s
}

func skipOutside(t testing.TB) {
	t.Helper()
	NotShort(t)
	if os.Getenv("DEADDROP_TEST_VAULT_ADDR") != "" {
		t.Skip("this test stops and seals its Vault, " + outside)
	}
}

// outside is why a test is skipped where an outside server is under test.
const outside = "which is not done to an outside server"

// Start runs devvault, building it first where it has changed.
func Start(flags ...string) (*Server, error) {
	s := &Server{flags: flags}
	if err := s.start(); err != nil {
		return nil, err
	}
	return s, nil
}

// start runs devvault with the server's flags, and reads what it says.
func (s *Server) start() (err error) {
	binary, err := Binary()
	if err != nil {
		return err
	}
	s.cmd = exec.Command(binary, append(slices.Clone(s.flags), "-json", "-exit-with-stdin")...)
	s.cmd.Stderr = os.Stderr
	s.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}, s.env...)
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if s.stdin, err = s.cmd.StdinPipe(); err != nil { // devvault ends when we do
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			s.Kill()
		}
	}()
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("devvault did not start: %w", err)
	}
	if err := json.Unmarshal(line, s); err != nil {
		return fmt.Errorf("devvault said %q: %w", line, err)
	}
	return s.connect()
}

// Stop ends a devvault. What it kept in memory is gone.
func (s *Server) Stop() {
	_ = s.stdin.Close()
	_ = s.cmd.Wait()
}

func (s *Server) connect() error {
	cfg := api.DefaultConfig()
	if cfg.Error != nil {
		return cfg.Error
	}
	if s.CAFile != "" {
		if err := cfg.ConfigureTLS(&api.TLSConfig{CACert: s.CAFile}); err != nil {
			return err
		}
	}
	cfg.Address = s.Address
	client, err := api.NewClient(cfg)
	if err != nil {
		return err
	}
	if err := client.SetAddress(s.Address); err != nil { // whatever VAULT_ADDR says
		return err
	}
	client.SetToken(s.RootToken)
	s.Client = client
	return nil
}

// AppRole makes a role, and a policy of the same name for it, and returns its
// ids. As on the platform its token lasts an hour, at most a day, and has no
// default policy.
func (s *Server) AppRole(name, policy string) (roleID, secretID string, err error) {
	auths, err := s.Client.Sys().ListAuth()
	if err != nil {
		return "", "", err
	}
	if auths["approle/"] == nil {
		err := s.Client.Sys().EnableAuthWithOptions("approle", &api.EnableAuthOptions{Type: "approle"})
		if err != nil && !strings.Contains(err.Error(), "already in use") { // by a test beside this one
			return "", "", err
		}
	}
	if err := s.Client.Sys().PutPolicy(name, policy); err != nil {
		return "", "", err
	}
	role, c := "auth/approle/role/"+name, s.Client.Logical()
	if _, err := c.Write(role, map[string]any{
		"token_policies": name, "token_ttl": "1h", "token_max_ttl": "24h", "token_no_default_policy": true,
	}); err != nil {
		return "", "", err
	}
	id, err := c.Read(role + "/role-id")
	if err != nil {
		return "", "", err
	}
	secret, err := c.Write(role+"/secret-id", nil)
	if err != nil {
		return "", "", err
	}
	return id.Data["role_id"].(string), secret.Data["secret_id"].(string), nil
}

// Binary builds devvault and returns its path. The binary is kept in the user's
// cache folder under a name made from its sources, so it is built once.
func Binary() (string, error) {
	source, err := sourceDir()
	if err != nil {
		return "", err
	}
	sum, err := hashOf(source)
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	cache = filepath.Join(cache, "deaddrop")
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return "", err
	}
	unlock, err := lock(filepath.Join(cache, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	binary := filepath.Join(cache, "devvault-"+sum)
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	fmt.Fprintln(os.Stderr, "building devvault, a real Vault for tests; the first time this takes minutes")
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", binary, "./cmd/devvault")
	build.Dir = source
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building devvault: %w\n%s", err, out)
	}
	return binary, nil
}

// sourceDir finds the module of devvault from any folder of the repository.
func sourceDir() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		source := filepath.Join(dir, "compose", "devvault")
		if _, err := os.Stat(filepath.Join(source, "go.mod")); err == nil {
			return source, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("compose/devvault is not in a folder above")
		}
	}
}

func hashOf(source string) (string, error) {
	h := sha256.New()
	h.Write([]byte(runtime.Version()))
	err := filepath.WalkDir(source, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, "_test.go") || filepath.Ext(path) == ".md" {
			return err
		}
		content, err := os.ReadFile(path)
		inner := sha256.Sum256(content)
		h.Write([]byte(filepath.Base(path)))
		h.Write(inner[:])
		return err
	})
	return hex.EncodeToString(h.Sum(nil)[:8]), err
}

// lock keeps the packages of one "go test" from building at the same time.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}

// Marker returns a random value to write into a secret and to search for where
// no secret may be.
func Marker() string { return "m4rker-" + rand.Text() }
