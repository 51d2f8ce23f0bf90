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

func TestMayHold_WantsAFolderOfTheAgentAloneWhereADropIsStrict(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	folder := filepath.Join(dir, "parent/folder")
	require.NoError(t, os.MkdirAll(folder, 0o700))
	may := func(strict bool, file string) error {
		s := &state{drop: config.Drop{Destination: filepath.Join(folder, file), Strict: strict}}
		return new(dropper).mayHold(s, map[string]error{})
	}
	require.NoError(t, may(true, "x.env"))
	require.NoError(t, may(true, "new/x.env"))
	for path, mode := range map[string]fs.FileMode{folder: 0o770, filepath.Dir(folder): 0o777} {
		require.NoError(t, os.Chmod(path, mode))
		for _, file := range []string{"x.env", "new/x.env"} {
			require.NoError(t, may(false, file))
			err := may(true, file)
			require.ErrorContains(t, err, "strict: folder "+path+" may be written to by")
			require.ErrorContains(t, err, "; chmod go-w "+path)
		}
		require.NoError(t, os.Chmod(path, 0o700))
	}
	require.NoError(t, os.Remove(folder))
	require.NoError(t, os.Symlink("elsewhere", folder))
	require.ErrorContains(t, may(true, "x.env"), "strict: folder "+folder+" is a symbolic link")
}

func TestDropper_WritesNoFileOfATenantWhoseFolderIsALink(t *testing.T) {
	t.Setenv("VAULT_TOKEN", "none-is-asked")
	dir := t.TempDir()
	place, outside := filepath.Join(dir, "place"), filepath.Join(dir, "outside")
	require.NoError(t, os.MkdirAll(place, 0o700))
	require.NoError(t, os.Mkdir(outside, 0o700))
	require.NoError(t, os.Symlink(outside, filepath.Join(place, "evil")))
	left := filepath.Join(outside, ".deaddrop-ABCDEFGHIJKLMNOPQRSTUVWXYZ-nexa.json")
	require.NoError(t, os.WriteFile(left, []byte("half"), 0o600))
	file := filepath.Join(dir, "deaddrop.hcl")
	require.NoError(t, os.WriteFile(file, []byte("drop \"nexa\" {\n  for_each = [\"evil\", \"good\"]\n  secret = \"secret/tenant/${each.key}/nexa\"\n  destination = \""+place+"/${each.key}/nexa.json\"\n}\n"), 0o600))
	cfg, err := config.Load(file)
	require.NoError(t, err)
	d := newDropper(cfg, slog.New(slog.DiscardHandler))
	batch := watch.Batch{}
	for _, tenant := range []string{"evil", "good"} {
		batch[render.Read("secret/tenant/"+tenant+"/nexa")] = watch.Reading{Secret: &render.Secret{Data: secret.Of(map[string]any{"k": "v"})}}
	}
	d.step(t.Context())
	d.learn(batch)
	d.step(t.Context())
	require.ErrorContains(t, d.err(), place+"/evil is a symbolic link: refused")
	assert.FileExists(t, filepath.Join(place, "good/nexa.json"))
	assert.NoFileExists(t, filepath.Join(outside, "nexa.json"))
	assert.FileExists(t, left)
}
