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
	"github.com/smarteros/deaddrop/render/secret"
)

func newTestPipeline(cfg *config.Config) *pipeline {
	p := newPipeline(slog.New(slog.DiscardHandler))
	p.configure(cfg)
	return p
}

func leasedPipeline(t *testing.T, settings string) (p *pipeline, dir string) {
	t.Helper()
	t.Setenv("VAULT_TOKEN", "none-is-asked")
	dir = t.TempDir()
	file := filepath.Join(dir, "deaddrop.hcl")
	require.NoError(t, os.WriteFile(file, []byte("drop \"db\" {\n  secret = \"database/creds/app\"\n  destination = \""+dir+"/a/b/db.env\"\n"+settings+"}\n"), 0o600))
	cfg, err := config.Load(file)
	require.NoError(t, err)
	p = newTestPipeline(cfg)
	p.sync(t.Context())
	p.learn(watch.Batch{render.Read("database/creds/app"): {
		Secret: &render.Secret{LeaseID: "database/creds/app/1", Data: secret.Of(map[string]any{"username": "u"})},
		Life:   watch.Life{Lease: &watch.Lease{ID: "database/creds/app/1", TTL: time.Hour}},
	}})
	return p, dir
}

func TestPipeline_MakesTheFolderOfAJournalForTheReadersOfTheFile(t *testing.T) {
	t.Setenv("STATE_DIRECTORY", "/dev/null/none") // So the journal is beside its file.
	p, dir := leasedPipeline(t, "  perms = \"0440\"\n")
	p.sync(t.Context())
	require.NoError(t, p.err())
	for _, folder := range []string{"a", "a/b"} {
		info, err := os.Stat(filepath.Join(dir, folder))
		require.NoError(t, err)
		assert.Equal(t, fs.FileMode(0o750), info.Mode().Perm(), folder)
	}
	info, err := os.Stat(filepath.Join(dir, "a/b/.db.env.deaddrop"))
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
}

func TestPipeline_MakesNoFolderForAJournalIfTheDropMayNot(t *testing.T) {
	t.Setenv("STATE_DIRECTORY", "/dev/null/none")
	p, dir := leasedPipeline(t, "  create_dest_dirs = false\n")
	p.sync(t.Context())
	require.ErrorContains(t, p.err(), "folder "+dir+"/a/b does not exist")
	assert.NoDirExists(t, filepath.Join(dir, "a"))
}

func TestPipeline_RemovesAFolderThatAKilledAgentHasNotFinished(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, ".deaddrop-ABCDEFGHIJKLMNOPQRSTUVWXYZ-new")
	require.NoError(t, os.Mkdir(left, 0o700))
	old := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(left, old, old))
	newTestPipeline(&config.Config{Drops: []config.Drop{{Destination: filepath.Join(dir, "new/f")}}})
	assert.NoDirExists(t, left)
}

func TestPipeline_WritesNoFileOfATenantWhoseFolderIsALink(t *testing.T) {
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
	p := newTestPipeline(cfg)
	batch := watch.Batch{}
	for _, tenant := range []string{"evil", "good"} {
		batch[render.Read("secret/tenant/"+tenant+"/nexa")] = watch.Reading{Secret: &render.Secret{Data: secret.Of(map[string]any{"k": "v"})}}
	}
	p.sync(t.Context())
	p.learn(batch)
	p.sync(t.Context())
	require.ErrorContains(t, p.err(), place+"/evil is a symbolic link: refused")
	assert.FileExists(t, filepath.Join(place, "good/nexa.json"))
	assert.NoFileExists(t, filepath.Join(outside, "nexa.json"))
	assert.FileExists(t, left)
}
