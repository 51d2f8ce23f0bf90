package devvault_test

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func mount(t *testing.T, client *api.Client, path, kind string) {
	t.Helper()
	require.NoError(t, client.Sys().MountWithContext(t.Context(), path, &api.MountInput{Type: kind}))
}

func TestKVVersion1ReadsWhatWasWritten(t *testing.T) {
	_, client := root(t)
	mount(t, client, "old", "kv")
	require.NoError(t, client.KVv1("old").Put(t.Context(), "app", map[string]any{"a": "b"}))
	secret, err := client.KVv1("old").Get(t.Context(), "app")
	require.NoError(t, err)
	assert.Equal(t, "b", secret.Data["a"])
}

func TestKVVersion2KeepsVersions(t *testing.T) {
	_, client := root(t)
	kv := client.KVv2("secret")
	_, err := kv.Put(t.Context(), "app", map[string]any{"a": "1"})
	require.NoError(t, err)
	_, err = kv.Patch(t.Context(), "app", map[string]any{"b": "2"})
	require.NoError(t, err)
	secret, err := kv.Get(t.Context(), "app")
	require.NoError(t, err)
	assert.Equal(t, map[string]any{"a": "1", "b": "2"}, secret.Data)

	require.NoError(t, kv.Delete(t.Context(), "app"))
	_, err = kv.Get(t.Context(), "app")
	require.NoError(t, err, "a deleted version is still told of")
	require.NoError(t, kv.Undelete(t.Context(), "app", []int{2}))
	require.NoError(t, kv.Destroy(t.Context(), "app", []int{1}))
	metadata, err := kv.GetMetadata(t.Context(), "app")
	require.NoError(t, err)
	assert.Equal(t, 2, metadata.CurrentVersion)
	assert.True(t, metadata.Versions["1"].Destroyed)
	assert.True(t, metadata.Versions["2"].DeletionTime.IsZero())
}

func TestMountOfAPathTellsItsKVVersion(t *testing.T) {
	_, client := root(t)
	found, err := client.Logical().ReadWithContext(t.Context(), "sys/internal/ui/mounts/secret/app")
	require.NoError(t, err)
	assert.Equal(t, "secret/", found.Data["path"])
	assert.Equal(t, map[string]any{"version": "2"}, found.Data["options"])
}

func TestPKIIssuesCertificates(t *testing.T) {
	_, client := root(t)
	mount(t, client, "pki", "pki")
	write(t, client, "pki/root/generate/internal", map[string]any{"common_name": "example.test", "key_type": "ec"})
	write(t, client, "pki/roles/web", map[string]any{"allowed_domains": "example.test", "allow_subdomains": true, "key_type": "ec"})
	issued := write(t, client, "pki/issue/web", map[string]any{"common_name": "a.example.test", "ttl": "1h"})
	assert.Contains(t, issued.Data["certificate"], "BEGIN CERTIFICATE")
	assert.Contains(t, issued.Data["private_key"], "BEGIN EC PRIVATE KEY")
}

func TestTransitDecryptsWhatItEncrypted(t *testing.T) {
	_, client := root(t)
	mount(t, client, "transit", "transit")
	write(t, client, "transit/keys/app", nil)
	plain := base64.StdEncoding.EncodeToString([]byte("hello"))
	encrypted := write(t, client, "transit/encrypt/app", map[string]any{"plaintext": plain})
	decrypted := write(t, client, "transit/decrypt/app", map[string]any{"ciphertext": encrypted.Data["ciphertext"]})
	assert.Equal(t, plain, decrypted.Data["plaintext"])
}

func TestDatabaseTakesThePostgreSQLPlugin(t *testing.T) {
	_, client := root(t)
	mount(t, client, "database", "database")
	write(t, client, "database/config/app", map[string]any{
		"plugin_name":       "postgresql-database-plugin",
		"connection_url":    "postgresql://{{username}}:{{password}}@127.0.0.1:1/app",
		"username":          "vault",
		"password":          "vault",
		"allowed_roles":     "app",
		"verify_connection": false,
	})
	config, err := client.Logical().ReadWithContext(t.Context(), "database/config/app")
	require.NoError(t, err)
	assert.Equal(t, "postgresql-database-plugin", config.Data["plugin_name"])
}

func TestWrappedResponseIsUnwrappedOnce(t *testing.T) {
	_, client := root(t)
	wrapped := write(t, client, "sys/wrapping/wrap", map[string]any{"a": "b"})
	secret, err := client.Logical().UnwrapWithContext(t.Context(), wrapped.WrapInfo.Token)
	require.NoError(t, err)
	assert.Equal(t, "b", secret.Data["a"])
	_, err = client.Logical().UnwrapWithContext(t.Context(), wrapped.WrapInfo.Token)
	assert.ErrorContains(t, err, "wrapping token is not valid")
}

func TestFileAuditCanBeEnabledAtRunTime(t *testing.T) {
	_, client := root(t)
	file := filepath.Join(t.TempDir(), "audit.log")
	require.NoError(t, client.Sys().EnableAuditWithOptionsWithContext(t.Context(), "file", &api.EnableAuditOptions{
		Type: "file", Options: map[string]string{"file_path": file},
	}))
	_, err := client.Sys().LeaderWithContext(t.Context())
	require.NoError(t, err)
	_, err = client.KVv2("secret").Put(t.Context(), "app", map[string]any{"a": "b"})
	require.NoError(t, err)
	log, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Contains(t, string(log), `"path":"secret/data/app"`)
}

func TestMetricsAndConfigurationAnswer(t *testing.T) {
	_, client := root(t)
	for _, path := range []string{"sys/metrics", "sys/config/state/sanitized", "sys/plugins/catalog"} {
		_, err := client.Logical().ReadRawWithContext(t.Context(), path)
		assert.NoError(t, err, path)
	}
}
