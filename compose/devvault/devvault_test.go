package devvault_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/devvault"
)

// start runs a server for the time of a test.
func start(t *testing.T, o devvault.Options) *devvault.Server {
	t.Helper()
	server, err := devvault.Start(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, server.Close()) })
	return server
}

// configOf is how to reach a server, over connections of its own.
func configOf(t *testing.T, server *devvault.Server) *api.Config {
	t.Helper()
	config := api.DefaultConfig()
	require.NoError(t, config.Error)
	config.Address = server.Address
	config.MaxRetries = 0 // a refusal is to be seen at once
	if server.CAFile != "" {
		require.NoError(t, config.ConfigureTLS(&api.TLSConfig{CACert: server.CAFile}))
	}
	return config
}

// clientOf returns a client of a server, with a token.
func clientOf(t *testing.T, server *devvault.Server, token string) *api.Client {
	t.Helper()
	client, err := api.NewClient(configOf(t, server))
	require.NoError(t, err)
	client.SetToken(token)
	return client
}

// root starts a server in memory and returns a client that may do everything.
func root(t *testing.T) (*devvault.Server, *api.Client) {
	t.Helper()
	server := start(t, devvault.Options{})
	return server, clientOf(t, server, server.RootToken)
}

func write(t *testing.T, client *api.Client, path string, data map[string]any) *api.Secret {
	t.Helper()
	secret, err := client.Logical().WriteWithContext(t.Context(), path, data)
	require.NoError(t, err, path)
	return secret
}

func TestServerIsReadyWhenStartReturns(t *testing.T) {
	server, client := root(t)
	health, err := client.Sys().HealthWithContext(t.Context())
	require.NoError(t, err)
	assert.True(t, health.Initialized)
	assert.False(t, health.Sealed)
	assert.False(t, health.Standby)
	assert.Equal(t, "1.21.0", health.Version)
	assert.Equal(t, server.Version, health.Version)
	_, err = client.KVv2("secret").Put(t.Context(), "app", map[string]any{"a": "b"})
	assert.NoError(t, err)
}

func TestRootTokenIsTheChosenOne(t *testing.T) {
	server := start(t, devvault.Options{RootToken: "chosen"})
	assert.Equal(t, "chosen", server.RootToken)
	token, err := clientOf(t, server, "chosen").Auth().Token().LookupSelfWithContext(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []any{"root"}, token.Data["policies"])
}

func TestAddressesBeyondLoopbackAreRefused(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:8200", "vault.example:8200", "8200"} {
		_, err := devvault.Start(t.Context(), devvault.Options{Listen: address})
		assert.ErrorContains(t, err, "listen address", address)
	}
	for _, address := range []string{"localhost:0", "127.0.0.2:8200", "[::1]:8200"} {
		assert.NoError(t, devvault.CheckListen(address))
	}
}

func TestTakenPortIsReported(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	_, err = devvault.Start(t.Context(), devvault.Options{Listen: taken.Addr().String()})
	assert.ErrorContains(t, err, "address already in use")
}

func TestSealedServerOpensWithItsKeys(t *testing.T) {
	server := start(t, devvault.Options{Sealed: true})
	client := clientOf(t, server, server.RootToken)
	_, err := client.KVv2("secret").Get(t.Context(), "app")
	assert.ErrorContains(t, err, "Vault is sealed")

	status, err := client.Sys().UnsealWithContext(t.Context(), server.UnsealKeys[0])
	require.NoError(t, err)
	assert.False(t, status.Sealed)
	_, err = client.KVv2("secret").Put(t.Context(), "app", map[string]any{"a": "b"})
	require.NoError(t, err)

	require.NoError(t, client.Sys().SealWithContext(t.Context()))
	status, err = client.Sys().SealStatusWithContext(t.Context())
	require.NoError(t, err)
	assert.True(t, status.Sealed)
	_, err = client.Sys().UnsealWithContext(t.Context(), server.UnsealKeys[0])
	require.NoError(t, err)
	secret, err := client.KVv2("secret").Get(t.Context(), "app")
	require.NoError(t, err)
	assert.Equal(t, "b", secret.Data["a"])
}

func TestRestartOnAStateFolderKeepsSecretAndToken(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "state")
	first, err := devvault.Start(t.Context(), devvault.Options{State: dir})
	require.NoError(t, err)
	_, err = clientOf(t, first, first.RootToken).KVv2("secret").Put(t.Context(), "app", map[string]any{"a": "b"})
	require.NoError(t, err)
	_, err = devvault.Start(t.Context(), devvault.Options{State: dir})
	assert.ErrorContains(t, err, "in use by another server")
	require.NoError(t, first.Close())

	second := start(t, devvault.Options{State: dir})
	assert.Equal(t, first.Keys, second.Keys)
	secret, err := clientOf(t, second, first.RootToken).KVv2("secret").Get(t.Context(), "app")
	require.NoError(t, err)
	assert.Equal(t, "b", secret.Data["a"])

	keys, err := os.Stat(filepath.Join(dir, "keys.json"))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), keys.Mode())
}

func TestAnotherRootTokenIsRefusedForAKeptState(t *testing.T) {
	dir := t.TempDir()
	first, err := devvault.Start(t.Context(), devvault.Options{State: dir, RootToken: "one"})
	require.NoError(t, err)
	require.NoError(t, first.Close())
	_, err = devvault.Start(t.Context(), devvault.Options{State: dir, RootToken: "two"})
	assert.ErrorContains(t, err, "keeps the root token")
	assert.Equal(t, "one", start(t, devvault.Options{State: dir, RootToken: "one"}).RootToken)
}

func TestTLSIsTrustedThroughTheCAFileOnly(t *testing.T) {
	server := start(t, devvault.Options{TLS: true})
	require.True(t, strings.HasPrefix(server.Address, "https://127.0.0.1:"))
	_, err := clientOf(t, server, server.RootToken).Auth().Token().LookupSelfWithContext(t.Context())
	assert.NoError(t, err)

	distrusting := *server
	distrusting.CAFile = ""
	_, err = clientOf(t, &distrusting, server.RootToken).Auth().Token().LookupSelfWithContext(t.Context())
	assert.ErrorContains(t, err, "certificate signed by unknown authority")
}

func TestTemporaryCAFileGoesWithTheServer(t *testing.T) {
	server, err := devvault.Start(t.Context(), devvault.Options{TLS: true})
	require.NoError(t, err)
	require.FileExists(t, server.CAFile)
	require.NoError(t, server.Close())
	assert.NoDirExists(t, filepath.Dir(server.CAFile))
}

func TestRestartOnATLSFolderKeepsTheCA(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	first, err := devvault.Start(t.Context(), devvault.Options{TLS: true, TLSDir: dir})
	require.NoError(t, err)
	require.NoError(t, first.Close())
	ca, err := os.ReadFile(first.CAFile)
	require.NoError(t, err)

	second := start(t, devvault.Options{TLS: true, TLSDir: dir})
	kept, err := os.ReadFile(second.CAFile)
	require.NoError(t, err)
	assert.Equal(t, string(ca), string(kept))
}

func TestAuditFileGetsALinePerRequestAndResponse(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.log")
	server := start(t, devvault.Options{Audit: file})
	_, err := clientOf(t, server, server.RootToken).Auth().Token().LookupSelfWithContext(t.Context())
	require.NoError(t, err)
	log, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, 2, strings.Count(string(log), `"path":"auth/token/lookup-self"`))
}

func TestAuditFileOfARestartIsTheNewOne(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"first.log", "second.log"} {
		file := filepath.Join(dir, name)
		server, err := devvault.Start(t.Context(), devvault.Options{State: filepath.Join(dir, "state"), Audit: file})
		require.NoError(t, err)
		_, err = clientOf(t, server, server.RootToken).KVv2("secret").Put(t.Context(), name, map[string]any{"a": "b"})
		require.NoError(t, err)
		require.NoError(t, server.Close())
		log, err := os.ReadFile(file)
		require.NoError(t, err)
		assert.Contains(t, string(log), "secret/data/"+name)
	}
}

func TestStateFolderWithoutItsKeysIsRefused(t *testing.T) {
	dir := t.TempDir()
	first, err := devvault.Start(t.Context(), devvault.Options{State: dir})
	require.NoError(t, err)
	require.NoError(t, first.Close())
	require.NoError(t, os.Remove(filepath.Join(dir, "keys.json")))
	_, err = devvault.Start(t.Context(), devvault.Options{State: dir})
	assert.ErrorContains(t, err, "has no keys: delete it")
}
