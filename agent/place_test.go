package agent

import (
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/drop"
	"github.com/smarteros/deaddrop/render/secret"
)

func leasedDropper(t *testing.T, settings string) (d *dropper, dir string) {
	t.Helper()
	t.Setenv("VAULT_TOKEN", "none-is-asked")
	dir = t.TempDir()
	file := filepath.Join(dir, "deaddrop.hcl")
	require.NoError(t, os.WriteFile(file, []byte("drop \"db\" {\n  secret = \"database/creds/app\"\n  destination = \""+dir+"/a/b/db.env\"\n"+settings+"}\n"), 0o600))
	cfg, err := config.Load(file)
	require.NoError(t, err)
	d = newDropper(cfg, slog.New(slog.DiscardHandler))
	d.step(t.Context())
	d.learn(watch.Batch{render.Read("database/creds/app"): {
		Secret: &render.Secret{LeaseID: "database/creds/app/1", Data: secret.Of(map[string]any{"username": "u"})},
		Life:   watch.Life{Lease: &watch.Lease{ID: "database/creds/app/1", TTL: time.Hour}},
	}})
	return d, dir
}

func TestDropper_MakesTheFolderOfAJournalForTheReadersOfTheFile(t *testing.T) {
	t.Setenv("STATE_DIRECTORY", "/dev/null/none") // So the journal is beside its file.
	d, dir := leasedDropper(t, "  perms = \"0440\"\n")
	d.step(t.Context())
	require.NoError(t, d.err())
	for _, folder := range []string{"a", "a/b"} {
		info, err := os.Stat(filepath.Join(dir, folder))
		require.NoError(t, err)
		assert.Equal(t, fs.FileMode(0o750), info.Mode().Perm(), folder)
	}
	info, err := os.Stat(filepath.Join(dir, "a/b/.db.env.deaddrop"))
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
}

func TestDropper_MakesNoFolderForAJournalIfTheDropMayNot(t *testing.T) {
	t.Setenv("STATE_DIRECTORY", "/dev/null/none")
	d, dir := leasedDropper(t, "  create_dest_dirs = false\n")
	d.step(t.Context())
	require.ErrorContains(t, d.err(), "folder "+dir+"/a/b does not exist")
	assert.NoDirExists(t, filepath.Join(dir, "a"))
}

func TestDropper_RemovesAFolderThatAKilledAgentHasNotFinished(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, ".deaddrop-ABCDEFGHIJKLMNOPQRSTUVWXYZ-new")
	require.NoError(t, os.Mkdir(left, 0o700))
	old := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(left, old, old))
	newDropper(&config.Config{Drops: []config.Drop{{Destination: filepath.Join(dir, "new/f")}}}, slog.New(slog.DiscardHandler))
	assert.NoDirExists(t, left)
}

func TestOnDisk_NamesTheFileSystem(t *testing.T) {
	assert.Equal(t, "on a disk", OnDisk(drop.Folder{OnDisk: true}))
	assert.Equal(t, "on a disk (ext4, mounted at /)", OnDisk(drop.Folder{OnDisk: true, FileSystem: "ext4", Mount: "/"}))
	hint := inMemory("/run/deaddrop")
	assert.Contains(t, hint, "mount one at /run/deaddrop")
	if is, err := drop.Inspect("/run"); err == nil && is.OnDisk {
		assert.NotContains(t, hint, "/run is one", "it is not in memory here")
	}
}
