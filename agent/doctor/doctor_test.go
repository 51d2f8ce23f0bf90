package doctor

import (
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/drop"
)

// The answers are those of the servers, shortened.
func TestDoctor_NamesTheServer(t *testing.T) {
	for answer, want := range map[string]string{
		`{"version": "1.21.0", "enterprise": false, "echo_duration_ms": 0}`: "Vault 1.21.0",
		`{"version": "1.13.2", "performance_standby": false}`:               "Vault 1.13.2",
		`{"version": "2.6.2", "initialized": true, "standby": false}`:       "OpenBao 2.6.2",
		`{"version": "2.0.0", "enterprise": false, "clock_skew_ms": 0}`:     "Vault 2.0.0",
		`{"version": "1.21.0+ent", "enterprise": true}`:                     "Vault Enterprise 1.21.0+ent",
	} {
		var h healthAnswer
		require.NoError(t, json.Unmarshal([]byte(answer), &h))
		assert.Equal(t, want, h.server())
	}
}

// What is not harmless would leave a lease, a certificate or a key behind.
func TestOnlyWhatLeavesNoTraceIsRead(t *testing.T) {
	write, err := render.ParseRequest("kv/data/x", "a=b")
	require.NoError(t, err)
	for _, c := range []struct {
		engine   watch.Engine
		request  render.Request
		harmless bool
	}{
		{watch.Engine{Path: "secret/", Kind: "kv", KV: 2}, render.Read("secret/data/x"), true},
		{watch.Engine{Path: "kv/", Kind: "kv", KV: 1}, render.Read("kv/x"), true},
		{watch.Engine{Path: "kv/", Kind: "kv", KV: 2}, write, false},
		{watch.Engine{Path: "db/", Kind: "database"}, render.Read("db/creds/app"), false},
		{watch.Engine{Path: "db/", Kind: "database"}, render.Read("db/static-creds/app"), true},
		{watch.Engine{Path: "pki/", Kind: "pki"}, render.Read("pki/cert/ca"), true},
		{watch.Engine{Path: "pki/", Kind: "pki"}, render.Read("pki/issue/web"), false},
		{watch.Engine{Path: "aws/", Kind: "aws"}, render.Read("aws/creds/x"), false},
		{watch.Engine{Path: "db/", Kind: "database"}, render.List("db/roles"), true},
	} {
		assert.Equal(t, c.harmless, isHarmless(c.engine, c.request), "%s", c.request)
	}
}

func TestWhatToDoIsTakenOffAnError(t *testing.T) {
	for text, want := range map[string][2]string{
		"it is gone; is the service running?":       {"it is gone", "is the service running?"},
		"no socket x: mount it, or set DOCKER_HOST": {"no socket x", "mount it, or set DOCKER_HOST"},
		"docker: permission denied":                 {"docker: permission denied", ""},
		"reading pid file: run: input/output error": {"reading pid file: run: input/output error", ""},
	} {
		detail, fix := explain(errors.New(text))
		assert.Equal(t, want, [2]string{detail, fix}, text)
	}
}

func TestDoctor_ExplainsWhichFolderIsNotTheAgentsAlone(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	parent, folder, link := filepath.Join(dir, "parent"), filepath.Join(dir, "parent/folder"), filepath.Join(dir, "link")
	require.NoError(t, os.MkdirAll(folder, 0o700))
	require.NoError(t, os.Symlink("parent", link))
	explained := func(path string) [2]string {
		e := &exam{plan: &drop.Plan{}}
		e.safety(place{path: path, strict: true}, path, false)
		return [2]string{e.Checks[0].Detail, e.Checks[0].Fix}
	}
	require.NoError(t, os.Chmod(folder, 0o770))
	assert.Equal(t, [2]string{"strict = true: it may be written to by its group (mode 0770)", "chmod go-w " + folder}, explained(folder))
	require.NoError(t, os.Chmod(parent, 0o777))
	for _, path := range []string{folder, folder + "/new"} {
		assert.Equal(t, [2]string{"strict = true: " + parent + " may be written to by every user (mode 0777)", "chmod go-w " + parent}, explained(path))
	}
	assert.Equal(t, [2]string{"strict = true: " + link + " is a symbolic link to " + parent, "use the path without it: " + folder}, explained(link+"/folder"))
	assert.Equal(t, [2]string{"strict = true: it is for everyone to write to (mode 1777)", "use a folder in it: /tmp/deaddrop"}, explained("/tmp"))
}

func TestFoldersOfTheSystemAreNotGivenAway(t *testing.T) {
	for path, want := range map[string]bool{
		"/": true, "/run": true, "/tmp": true, "/etc/nexa": true, "/var/run": true, "/dev/mqueue": true,
		"/run/deaddrop": false, "/dev/shm/x": false, "/var/lib/nexa": false, "/srv/secrets": false,
	} {
		assert.Equal(t, want, isSystems(path), path)
	}
}

func TestDoctor_WarnsOfAProxyThatReadsTheSecretID(t *testing.T) {
	const remote = "http://user:pass@proxy.example:3128"
	for name, tc := range map[string]struct {
		address, variable, proxy string
		want                     Status
		detail, fix              string
	}{
		"no proxy":       {"http://vault.example:8200", "", "", Warning, "plain HTTP: whoever is between", "https://"},
		"remote proxy":   {"http://vault.example:8200", "VAULT_PROXY_ADDR", remote, Warning, "through the proxy http://user:xxxxx@proxy.example:3128 (VAULT_PROXY_ADDR): it can read the secret id", "unset VAULT_PROXY_ADDR"},
		"to loopback":    {"http://127.0.0.1:8200", "VAULT_HTTP_PROXY", remote, Warning, "(VAULT_HTTP_PROXY): it can read the secret id", "unset VAULT_HTTP_PROXY"},
		"loopback proxy": {"http://vault.example:8200", "VAULT_PROXY_ADDR", "http://127.0.0.1:3128", Warning, "plain HTTP: whoever is between", "https://"},
		"on the machine": {"http://127.0.0.1:8200", "VAULT_PROXY_ADDR", "http://127.0.0.1:3128", OK, "does not leave this machine", ""},
		"with TLS":       {"https://vault.example:8200", "VAULT_PROXY_ADDR", remote, Skipped, "the proxy is in between", ""},
	} {
		t.Run(name, func(t *testing.T) {
			for _, name := range []string{"VAULT_ADDR", "VAULT_PROXY_ADDR", "VAULT_HTTP_PROXY"} {
				t.Setenv(name, "")
			}
			if tc.variable != "" {
				require.NoError(t, os.Setenv(tc.variable, tc.proxy))
			}
			vault, _, err := session.Probe(config.Vault{Address: tc.address}, config.Auth{}, quiet())
			require.NoError(t, err)
			e := &exam{client: vault.Client()}
			e.address, err = url.Parse(tc.address)
			require.NoError(t, err)
			assert.Empty(t, e.greet(t.Context()))
			require.Len(t, e.Checks, 1)
			assert.Equal(t, tc.want, e.Checks[0].Status)
			assert.Contains(t, e.Checks[0].Detail, tc.detail)
			assert.Contains(t, e.Checks[0].Fix, tc.fix)
			assert.NotContains(t, e.Checks[0].Detail+e.Checks[0].Fix, "user:pass")
		})
	}
}
