package session

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/config"
)

// loginWith logs in with the secret id, or the JWT, in a file that is to be removed. It
// calls meanwhile while Vault has the login.
func loginWith(t *testing.T, method, file string, meanwhile func()) *logged {
	t.Helper()
	vault := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if strings.HasSuffix(q.URL.Path, "/login") {
			meanwhile()
		}
		_, _ = fmt.Fprint(w, `{"request_id":"1","auth":{"client_token":"hvs.token-of-the-agent","lease_duration":60,"renewable":true}}`)
	}))
	t.Cleanup(vault.Close)
	auth := appRoleAuth()
	auth.SecretID, auth.Remove = config.ID{File: file}, true
	if method == config.MethodJWT {
		auth = config.Auth{Method: config.MethodJWT, MountPath: "jwt", File: file, Remove: true}
	}
	s, log := newSession(t, config.Vault{Address: vault.URL}, auth)
	require.NoError(t, s.Login(t.Context()))
	return log
}

func TestLogin_RemovesOnlyTheFileThatItRead(t *testing.T) {
	const content = "the-secret-id"
	write := func(path string) { require.NoError(t, os.WriteFile(path, []byte(content), 0o600)) }
	for _, method := range []string{config.MethodAppRole, config.MethodJWT} {
		t.Run(method, func(t *testing.T) {
			t.Run("as it was", func(t *testing.T) {
				file := filepath.Join(t.TempDir(), "id")
				write(file)
				loginWith(t, method, file, func() {})
				assert.NoFileExists(t, file)
			})
			t.Run("a link", func(t *testing.T) {
				dir, target := t.TempDir(), filepath.Join(t.TempDir(), "target")
				write(target)
				link := filepath.Join(dir, "id")
				require.NoError(t, os.Symlink(target, link))
				loginWith(t, method, link, func() {})
				assert.NoFileExists(t, link)
				assert.FileExists(t, target)
			})
			t.Run("a link in its place", func(t *testing.T) {
				file, target := filepath.Join(t.TempDir(), "id"), filepath.Join(t.TempDir(), "target")
				write(file)
				write(target)
				loginWith(t, method, file, func() {
					require.NoError(t, os.Remove(file))
					require.NoError(t, os.Symlink(target, file))
				})
				assert.FileExists(t, target)
				assert.FileExists(t, file)
			})
			t.Run("another file in its place", func(t *testing.T) {
				file := filepath.Join(t.TempDir(), "id")
				write(file)
				loginWith(t, method, file, func() {
					write(file + ".new")
					require.NoError(t, os.Rename(file+".new", file))
				})
				assert.FileExists(t, file)
			})
			t.Run("another folder in the place of its folder", func(t *testing.T) {
				// The owner of the upper folder lets the agent remove a file of a folder that only the agent may write to.
				upper, other := t.TempDir(), t.TempDir()
				dir := filepath.Join(upper, "dir")
				require.NoError(t, os.Mkdir(dir, 0o700))
				write(filepath.Join(dir, "id"))
				write(filepath.Join(other, "id"))
				loginWith(t, method, filepath.Join(dir, "id"), func() {
					require.NoError(t, os.Rename(dir, dir+".old"))
					require.NoError(t, os.Symlink(other, dir))
				})
				assert.FileExists(t, filepath.Join(other, "id"))
				assert.NoFileExists(t, filepath.Join(dir+".old", "id"))
			})
		})
	}
}

func TestLogin_SaysThatAFileCannotBeRemoved(t *testing.T) {
	h := &heldFile{path: "/x/id", err: os.ErrPermission}
	var left errNotRemoved
	require.ErrorAs(t, h.remove(config.ID{}.Value), &left)
	assert.NoError(t, hold(filepath.Join(t.TempDir(), "none", "id"), true).remove(config.ID{}.Value))
}
