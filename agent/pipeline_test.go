package agent

import (
	"bytes"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/internal/journal"
	"github.com/smarteros/deaddrop/agent/internal/output"
	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/secret"
)

// staticPipeline runs on a configuration in which DIR stands for its folder.
func staticPipeline(t *testing.T, text string) (p *pipeline, dir string) {
	t.Helper()
	t.Setenv("VAULT_TOKEN", "none-is-asked")
	dir = t.TempDir()
	return newTestPipeline(loadText(t, dir, text)), dir
}

func (p *pipeline) read(path string, data map[string]any, life watch.Life) {
	p.learn(watch.Batch{render.Read(path): {Secret: &render.Secret{Path: path, Data: secret.Of(data)}, Life: life}})
}

func TestPipeline_WritesAFileAgainThatItHasRemovedItself(t *testing.T) {
	for _, policy := range []string{"warn", "restore"} {
		t.Run(policy, func(t *testing.T) {
			settings := "drop \"nexa\" {\n  on_missing = \"remove\"\n  on_tamper = \"" + policy + "\"\n"
			p, dir := staticPipeline(t, strings.Replace(oneDrop, "drop \"nexa\" {\n", settings, 1))
			path := filepath.Join(dir, "out/nexa.env")
			p.sync(t.Context())
			p.read("secret/nexa", map[string]any{"KEY": "one"}, watch.Life{})
			p.sync(t.Context())
			require.FileExists(t, path)
			p.learn(watch.Batch{render.Read("secret/nexa"): {Err: watch.ErrMissing}})
			p.sync(t.Context())
			require.NoFileExists(t, path)
			p.read("secret/nexa", map[string]any{"KEY": "one"}, watch.Life{})
			p.sync(t.Context())
			require.NoError(t, p.err())
			assert.FileExists(t, path)
			assert.Zero(t, p.publisher.Restored.Sum().Succeeded, "no other program has removed it")
		})
	}
}

func TestPipeline_WritesTheFilesOfATenantAgainThatItHasRemovedItself(t *testing.T) {
	text := "drop \"nexa\" {\n  for_each = \"secret/tenant/*\"\n  removal_grace = \"0s\"\n  on_tamper = \"warn\"\n" +
		"  secret = \"secret/tenant/${each.key}/nexa\"\n  destination = \"DIR/out/${each.key}.env\"\n}\n"
	p, dir := staticPipeline(t, text)
	path := filepath.Join(dir, "out/demo.env")
	appear := func() {
		p.tenantsAre("demo/")
		p.sync(t.Context())
		p.read("secret/tenant/demo/nexa", map[string]any{"KEY": "one"}, watch.Life{})
		p.sync(t.Context())
		require.NoError(t, p.err())
	}
	appear()
	require.FileExists(t, path)
	p.tenantsAre()
	p.sync(t.Context())
	require.NoFileExists(t, path)
	appear()
	assert.FileExists(t, path)
}

func TestPipeline_AppliesNewSettingsToAFileThatIsEditedOnPurpose(t *testing.T) {
	text := strings.Replace(oneDrop, "drop \"nexa\" {\n", "drop \"nexa\" {\n  on_tamper = \"warn\"\n  perms = \"0600\"\n", 1)
	p, dir := staticPipeline(t, text)
	p.sync(t.Context())
	p.read("secret/nexa", map[string]any{"KEY": "one"}, watch.Life{})
	p.sync(t.Context())
	p.configure(loadText(t, dir, strings.Replace(text, "0600", "0640", 1)))
	p.sync(t.Context())
	require.NoError(t, p.err())
	info, err := os.Stat(filepath.Join(dir, "out/nexa.env"))
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o640), info.Mode())
}

func TestPipeline_WritesADropThatTakesOverTheFileOfADepartedTenant(t *testing.T) {
	p, dir := followingPipeline(t, "1h")
	p.tenantsAre("demo/")
	p.sync(t.Context())
	p.read("database/creds/demo", map[string]any{"username": "u"}, watch.Life{})
	p.sync(t.Context())
	p.tenantsAre()
	p.sync(t.Context())
	p.configure(loadText(t, dir, "drop \"demo\" {\n  secret = \"secret/nexa\"\n  destination = \"DIR/out/demo.env\"\n}\n"))
	p.sync(t.Context())
	p.read("secret/nexa", map[string]any{"KEY": "one"}, watch.Life{})
	p.sync(t.Context())
	content, err := os.ReadFile(filepath.Join(dir, "out/demo.env"))
	require.NoError(t, err)
	assert.Equal(t, "KEY=one\n", string(content))
	status := p.outputs.Outputs()[0].Status()
	assert.Equal(t, output.Current, status)
}

func TestPipeline_KeepsTheTimeOfADepartureInANewConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := followingPipeline(t, "1h")
		p.tenantsAre("demo/")
		p.sync(t.Context())
		p.tenantsAre()
		departed := time.Now()
		time.Sleep(time.Minute)
		p.configure(p.cfg)
		status, since := p.outputs.Outputs()[0].Status(), p.outputs.Outputs()[0].Since()
		assert.Equal(t, output.Departed, status)
		assert.True(t, departed.Equal(since), since)
	})
}

func TestPipeline_KeepsTheLeasesOfAFileThatABlockTakesOver(t *testing.T) {
	p, dir := staticPipeline(t, "drop \"demo\" {\n  secret = \"database/creds/demo\"\n  destination = \"DIR/out/demo.env\"\n}\n")
	lease := &watch.Lease{ID: "database/creds/demo/1", TTL: time.Hour}
	p.sync(t.Context())
	p.read("database/creds/demo", map[string]any{"username": "u"}, watch.Life{Lease: lease})
	p.sync(t.Context())
	require.Equal(t, []*watch.Lease{lease}, p.settled().InFiles)
	p.configure(loadText(t, dir, "drop \"db\" {\n  for_each = [\"demo\"]\n  secret = \"database/creds/${each.key}\"\n  destination = \"DIR/out/${each.key}.env\"\n}\n"))
	assert.Equal(t, []*watch.Lease{lease}, p.settled().InFiles, "they are in the file until it is written again")
}

func TestPipeline_EndsARemovalOnceItsLeasesAreRevokedInASingleRun(t *testing.T) {
	text := "drop \"db\" {\n  for_each = \"secret/tenant/*\"\n  removal_grace = \"0s\"\n  secret = \"database/creds/${each.key}\"\n" +
		"  destination = \"DIR/out/${each.key}.env\"\n  reload {\n    command = [\"true\"]\n  }\n}\n"
	p, dir := staticPipeline(t, text)
	p.tenantsAre("demo/")
	p.sync(t.Context())
	p.read("database/creds/demo", map[string]any{"username": "u"}, watch.Life{Lease: &watch.Lease{ID: "database/creds/demo/1", TTL: time.Hour}})
	p.sync(t.Context())
	p.noteReloads(nil)

	p = newTestPipeline(loadText(t, dir, text)) // a single run
	p.tenantsAre()
	p.sync(t.Context())
	require.NoFileExists(t, filepath.Join(dir, "out/demo.env"))
	p.noteReloads(nil)
	p.revokeUnused(t.Context(), &fakeVault{})
	p.noteReloads(nil)
	kept, ok := p.ledger.Store().Tenants(p.cfg.Each[0].Pattern, p.cfg.Each[0].Place)
	require.True(t, ok)
	assert.Empty(t, kept.PendingReloads, "the next run reloads nothing once more")
}

func TestPipeline_KeepsTheJournalOfAnOutputThatIsNotInTheConfiguration(t *testing.T) {
	p, dir := staticPipeline(t, oneDrop)
	path := filepath.Join(dir, "out/db.env")
	p.ledger.Store().SaveOutputs(journal.Output{Destination: path, Leases: []string{"database/creds/app/1"}})
	with := "drop \"db\" {\n  secret = \"database/creds/app\"\n  destination = \"DIR/out/db.env\"\n}\n"
	p.configure(loadText(t, dir, with))
	p.sync(t.Context())
	p.configure(loadText(t, dir, oneDrop))
	assert.Empty(t, p.settled().Orphans)
	p.noteReloads(nil)
	assert.Equal(t, []string{"database/creds/app/1"}, leasesIn(p, path), "its file still has it")
	p.configure(loadText(t, dir, with))
	p.sync(t.Context())
	p.read("database/creds/app", map[string]any{"username": "u"}, watch.Life{Lease: &watch.Lease{ID: "database/creds/app/2", TTL: time.Hour}})
	p.sync(t.Context())
	assert.Equal(t, []string{"database/creds/app/1"}, p.settled().Orphans)
}

func TestPreview_LogsNoRemovalThatItDoesNotMake(t *testing.T) {
	t.Setenv("VAULT_TOKEN", "none-is-asked")
	text := strings.Replace(oneDrop, "drop \"nexa\" {\n", "drop \"nexa\" {\n  on_missing = \"remove\"\n", 1)
	cfg := loadText(t, t.TempDir(), text)
	var log bytes.Buffer
	p := newPipeline(slog.New(slog.NewTextHandler(&log, nil)))
	p.isDry = true
	p.configure(cfg)
	p.preview()
	p.learn(watch.Batch{render.Read("secret/nexa"): {Err: watch.ErrMissing}})
	require.Len(t, p.preview(), 1)
	assert.NotContains(t, log.String(), "the secret is gone")
}

func TestPipeline_EndsARemovalThoughAnotherTenantHoldsTheSameLease(t *testing.T) {
	text := "drop \"db\" {\n  for_each = \"secret/tenant/*\"\n  removal_grace = \"0s\"\n  secret = \"database/creds/all\"\n" +
		"  destination = \"DIR/out/${each.key}.env\"\n}\n"
	p, dir := staticPipeline(t, text)
	path := filepath.Join(dir, "out/demo.env")
	lease := &watch.Lease{ID: "database/creds/all/1", TTL: time.Hour}
	p.tenantsAre("demo/", "gone/")
	p.sync(t.Context())
	p.read("database/creds/all", map[string]any{"username": "u"}, watch.Life{Lease: lease})
	p.sync(t.Context())
	p.tenantsAre("demo/")
	p.sync(t.Context())
	p.noteReloads(nil)
	require.Equal(t, []*watch.Lease{lease}, p.settled().InFiles)
	assert.Empty(t, p.blocks.Subscriptions(), "the lease is not to be revoked")
	assert.Equal(t, []string{lease.ID}, leasesIn(p, path))
	assert.Empty(t, leasesIn(p, filepath.Join(dir, "out/gone.env")))

	p.read("database/creds/all", map[string]any{"username": "v"}, watch.Life{Lease: &watch.Lease{ID: "database/creds/all/2", TTL: time.Hour}})
	p.sync(t.Context())
	p.noteReloads(nil)
	assert.ElementsMatch(t, []string{lease.ID, "database/creds/all/2"}, leasesIn(p, path), "until it is revoked")
}
