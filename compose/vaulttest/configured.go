package vaulttest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// anyPort is what stands for a free port in a configuration.
const anyPort = "127.0.0.1:0"

// Uninitialised returns a devvault for one test that does what a configuration of
// Vault says, as a new server does: it is not initialised, and sealed, and its
// Client has no token. Each 127.0.0.1:0 in the configuration becomes a free
// address, which the server keeps over [Server.Restart]. Without a configuration
// it has file storage in a temporary folder, and a listener without TLS; env is
// its environment, as NAME=VALUE. It is skipped where an outside server is under
// test.
func Uninitialised(t testing.TB, config string, env ...string) *Server {
	t.Helper()
	skipOutside(t)
	if config == "" {
		config = fmt.Sprintf(`
			storage "file" { path = %q }
			listener "tcp" {
				address     = %q
				tls_disable = true
			}
			disable_mlock = true
			log_level     = "error"
		`, t.TempDir(), anyPort)
	}
	for strings.Contains(config, anyPort) {
		config = strings.Replace(config, anyPort, FreeAddress(t), 1)
	}
	file := filepath.Join(t.TempDir(), "vault.hcl")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	s := &Server{flags: []string{"server", "-config", file}, env: env}
	require.NoError(t, s.start())
	t.Cleanup(s.Stop)
	return s
}

// configured tells whether the server is one of [Uninitialised].
func (s *Server) configured() bool { return len(s.flags) > 0 && s.flags[0] == "server" }
