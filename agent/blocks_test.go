package agent

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/journal"
	"github.com/smarteros/deaddrop/agent/internal/output"
	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/secret"
)

// followingPipeline follows the tenants of a folder, without a Vault: the test says
// what was read.
func followingPipeline(t *testing.T, grace string) (p *pipeline, dir string) {
	t.Helper()
	t.Setenv("VAULT_TOKEN", "none-is-asked")
	dir = t.TempDir()
	t.Setenv("STATE_DIRECTORY", filepath.Join(dir, "state"))
	file := filepath.Join(dir, "deaddrop.hcl")
	require.NoError(t, os.WriteFile(file, []byte(`drop "db" {
  for_each      = "secret/tenant/*"
  removal_grace = "`+grace+`"
  secret        = "database/creds/${each.key}"
  destination   = "`+dir+`/out/${each.key}.env"
}
`), 0o600))
	cfg, err := config.Load(file)
	require.NoError(t, err)
	return newTestPipeline(cfg), dir
}

func (p *pipeline) tenantsAre(names ...any) {
	list := &render.Secret{Data: secret.Of(map[string]any{"keys": names})}
	p.learn(watch.Batch{render.List("secret/tenant"): {Secret: list}})
}

func TestPipeline_KeepsTheLeasesOfADepartedTenantAsLongAsItsFile(t *testing.T) {
	synctest.Test(t, testLeasesOfADepartedTenant)
}

func testLeasesOfADepartedTenant(t *testing.T) {
	p, dir := followingPipeline(t, "1h")
	old := journal.Output{Destination: filepath.Join(dir, "out/gone.env"), Leases: []string{"database/creds/gone/old", "database/creds/demo/another's"}}
	p.ledger.Store().SaveOutputs(old)
	p.tenantsAre("demo/", "gone/")
	lease := &watch.Lease{ID: "database/creds/demo/new", TTL: time.Hour}
	request := render.Read("database/creds/demo")
	p.sync(t.Context())
	p.learn(watch.Batch{request: {
		Secret: &render.Secret{LeaseID: lease.ID, Data: secret.Of(map[string]any{"username": "u"})}, Life: watch.Life{Lease: lease},
	}})
	p.sync(t.Context())
	require.FileExists(t, filepath.Join(dir, "out/demo.env"))

	p.tenantsAre()
	p.sync(t.Context())
	assert.Contains(t, p.readings.Requests(), request, "it is renewed still")
	settled := p.settled()
	assert.Equal(t, []*watch.Lease{lease}, settled.InFiles)
	assert.Empty(t, settled.Orphans, "the file of an earlier run holds it")

	time.Sleep(time.Hour)
	p.sync(t.Context())
	assert.NoFileExists(t, filepath.Join(dir, "out/demo.env"))
	assert.NotContains(t, p.readings.Requests(), request)
	settled = p.settled()
	assert.Empty(t, settled.InFiles)
	assert.Equal(t, old.Leases[:1], settled.Orphans, "an output has no say in the leases of others")
	assert.Empty(t, p.settled().Orphans, "it is revoked once")
}

func TestPipeline_KeepsNothingOfTenantsThatCameAndWent(t *testing.T) {
	p, _ := followingPipeline(t, "0s")
	for range 3 {
		p.tenantsAre("a/", "b/", "c/")
		p.sync(t.Context())
		p.tenantsAre("d")
		p.sync(t.Context())
	}
	p.readings.Prune()
	assert.Len(t, p.outputs.Outputs(), 1)
	assert.Equal(t, 1, p.blocks.Snapshots()[0].Tenants)
	p.noteReloads(nil)
	assert.Empty(t, p.blocks.Subscriptions())
}

func TestPipeline_RemovesNothingAfterALostJournalOrWithAWrongClock(t *testing.T) {
	p, dir := followingPipeline(t, "1h")
	p.tenantsAre("demo")
	p.sync(t.Context())
	p.tenantsAre()
	all, err := filepath.Glob(filepath.Join(dir, "state/tenants-*.json"))
	require.NoError(t, err)
	require.Len(t, all, 1)
	content := `{"pattern":"` + dir + `/out/*.env","present":null,"departed":{"demo":"2999-01-01T00:00:00Z"}}`
	require.NoError(t, os.WriteFile(all[0], []byte(content), 0o600))
	p = newTestPipeline(p.cfg)
	status, since := p.outputs.Outputs()[0].Status(), p.outputs.Outputs()[0].Since()
	assert.Equal(t, output.Departed, status)
	assert.WithinDuration(t, time.Now(), since, time.Minute, "since the future is since now")
	p.tenantsAre()
	p.sync(t.Context())
	assert.Equal(t, 1, p.blocks.Snapshots()[0].Tenants)
}

func TestPipeline_RemovesTheFilesOfOtherTenantsThoughOneFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, dir := followingPipeline(t, "0s")
		p.tenantsAre("a/", "b/", "c/")
		p.sync(t.Context())
		for _, id := range []string{"a", "b", "c"} {
			p.read("database/creds/"+id, map[string]any{"username": "u"}, watch.Life{})
		}
		p.sync(t.Context())
		file := filepath.Join(dir, "out/b.env")
		require.NoError(t, os.Remove(file))
		require.NoError(t, os.MkdirAll(filepath.Join(file, "folder"), 0o700)) // It cannot be removed.
		pending := func() []string {
			kept, _ := p.ledger.Store().Tenants(p.cfg.Each[0].Pattern, p.cfg.Each[0].Place)
			return kept.PendingReloads
		}
		p.tenantsAre("d/")
		p.sync(t.Context())
		assert.NoFileExists(t, filepath.Join(dir, "out/a.env"))
		assert.NoFileExists(t, filepath.Join(dir, "out/c.env"))
		assert.Equal(t, []string{"a", "c"}, pending(), "the removal of b has not begun")
		kept, _ := p.ledger.Store().Tenants(p.cfg.Each[0].Pattern, p.cfg.Each[0].Place)
		assert.Equal(t, []string{"b"}, slices.Collect(maps.Keys(kept.Departed)), "the files of others are gone")
		assert.Equal(t, time.Now().Add(output.RetryAfter), p.nextAttempt())
		reason := p.outputs.Owner(file).Reason()
		require.ErrorContains(t, reason, "removing the files of a tenant that is gone")

		require.NoError(t, os.RemoveAll(file))
		time.Sleep(output.RetryAfter)
		p.sync(t.Context())
		assert.Equal(t, 1, p.blocks.Snapshots()[0].Tenants)
		p.noteReloads(nil)
		assert.Empty(t, pending())
	})
}
