package backup

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/tenant"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/archive"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/vault"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// emptyVault has the client that tenantctl has.
func emptyVault(b *testing.B) *vault.Client {
	b.Helper()
	s := vaulttest.Own(b)
	b.Setenv("VAULT_ADDR", s.Address)
	b.Setenv("VAULT_TOKEN", s.RootToken)
	v, err := vault.Connect()
	require.NoError(b, err)
	return v
}

// manySecrets makes 2,500 tenants, each with the services of the platform.
func manySecrets(b *testing.B) *vault.Client {
	b.Helper()
	v := emptyVault(b)
	var ids []string
	for n := range 2500 {
		ids = append(ids, fmt.Sprintf("rut-%08d-0", n))
	}
	err := vault.Each(b.Context(), len(ids), func(ctx context.Context, i int) error {
		id := ids[i]
		for _, service := range tenant.Services() {
			if _, err := v.Write(ctx, "secret/data/"+at(id, service), map[string]any{"data": map[string]any{
				"API_KEY": vaulttest.Marker(), "API_SECRET": vaulttest.Marker(), "URL": "https://example.org/" + id, "MODEL": "large",
			}}); err != nil {
				return err
			}
		}
		return nil
	})
	require.NoError(b, err)
	return v
}

func BenchmarkBackupOfTenThousandSecrets(b *testing.B) {
	if testing.Short() {
		b.Skip("it writes 10,000 secrets first, which -short is not for")
	}
	v := manySecrets(b)
	key, err := age.GenerateX25519Identity()
	require.NoError(b, err)
	for b.Loop() {
		size := backUp(b, v, filepath.Join(b.TempDir(), "backup"), key.Recipient())
		b.ReportMetric(float64(size), "file-bytes")
	}
	b.ReportMetric(10_000*float64(b.N)/b.Elapsed().Seconds(), "secrets/s")
}

func backUp(b *testing.B, v *vault.Client, path string, recipient age.Recipient) int64 {
	b.Helper()
	head, err := Head(b.Context(), v, ReadOptions{})
	require.NoError(b, err)
	file, err := NewFile(path, true)
	require.NoError(b, err)
	w, err := archive.NewWriter(file, head, recipient)
	require.NoError(b, err)
	require.NoError(b, Read(b.Context(), v, ReadOptions{}, w.Write))
	require.NoError(b, w.Close())
	require.NoError(b, file.Close())
	require.Equal(b, 10_000, w.Counts().Secrets)
	_, size := file.Sum()
	return size
}

func BenchmarkRestoreOfTenThousandSecrets(b *testing.B) {
	if testing.Short() {
		b.Skip("it writes 10,000 secrets first, which -short is not for")
	}
	key, err := age.GenerateX25519Identity()
	require.NoError(b, err)
	path := filepath.Join(b.TempDir(), "backup")
	backUp(b, manySecrets(b), path, key.Recipient())
	for b.Loop() {
		b.StopTimer()
		v := emptyVault(b)
		b.StartTimer()
		created := restoreFile(b, v, path, key)
		b.StopTimer()
		require.Equal(b, 10_000, created)
		b.StartTimer()
	}
	b.ReportMetric(10_000*float64(b.N)/b.Elapsed().Seconds(), "secrets/s")
}

func restoreFile(b *testing.B, v *vault.Client, path string, key age.Identity) (created int) {
	b.Helper()
	f, err := os.Open(path)
	require.NoError(b, err)
	defer f.Close()
	source, err := archive.NewSource(f)
	require.NoError(b, err)
	require.NoError(b, source.Unlock(key))
	o := RestoreOptions{Part: NewPart(nil)}
	_, _, err = source.Verify(o.Part.See)
	require.NoError(b, err)
	r, err := source.Open()
	require.NoError(b, err)
	require.NoError(b, Restore(b.Context(), v, r, o, func(a Action) {
		if a.Kind == "secret" && a.Do == Create {
			created++
		}
	}))
	_, err = r.Next()
	require.ErrorIs(b, err, io.EOF)
	return created
}
