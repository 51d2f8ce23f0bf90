package agent

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/journal"
	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/secret"
)

// followingDropper follows the tenants of a folder, without a Vault: the test says
// what was read.
func followingDropper(t *testing.T, grace string) (d *dropper, dir string) {
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
	return newDropper(cfg, slog.New(slog.DiscardHandler)), dir
}

func (d *dropper) tenantsAre(names ...any) {
	list := &render.Secret{Data: secret.Of(map[string]any{"keys": names})}
	d.learn(watch.Batch{render.List("secret/tenant"): {Secret: list}})
}

func TestTheLeasesOfATenantThatIsGoneLiveAsLongAsItsFile(t *testing.T) {
	d, dir := followingDropper(t, "1h")
	old := journal.Output{Destination: filepath.Join(dir, "out/gone.env"), Leases: []string{"database/creds/gone/old", "database/creds/demo/another's"}}
	d.journal.SaveOutputs(old)
	d.tenantsAre("demo/", "gone/")
	lease := &watch.Lease{ID: "database/creds/demo/new", TTL: time.Hour}
	request := render.Read("database/creds/demo")
	d.step(t.Context())
	d.learn(watch.Batch{request: {
		Secret: &render.Secret{LeaseID: lease.ID, Data: secret.Of(map[string]any{"username": "u"})}, Life: watch.Life{Lease: lease},
	}})
	d.step(t.Context())
	require.FileExists(t, filepath.Join(dir, "out/demo.env"))

	d.tenantsAre()
	d.step(t.Context())
	assert.Contains(t, d.uses(), request, "it is renewed still")
	settled := d.settled()
	assert.Equal(t, []*watch.Lease{lease}, settled.InFiles)
	assert.Empty(t, settled.Orphans, "the file of an earlier run holds it")

	for _, m := range d.followed[0].members {
		m.gone = time.Now().Add(-2 * time.Hour)
	}
	d.step(t.Context())
	assert.NoFileExists(t, filepath.Join(dir, "out/demo.env"))
	assert.NotContains(t, d.uses(), request)
	settled = d.settled()
	assert.Empty(t, settled.InFiles)
	assert.Equal(t, old.Leases[:1], settled.Orphans, "an output has no say in the leases of others")
	assert.Empty(t, d.settled().Orphans, "it is revoked once")
}

func TestNothingIsKeptOfTenantsThatCameAndWent(t *testing.T) {
	d, _ := followingDropper(t, "0s")
	for range 3 {
		d.tenantsAre("a/", "b/", "c/")
		d.step(t.Context())
		d.tenantsAre("d")
		d.step(t.Context())
	}
	d.forget()
	assert.Len(t, d.states, 1)
	assert.Len(t, d.byDestination, 1)
	assert.Len(t, d.followed[0].members, 1)
	assert.LessOrEqual(t, len(d.folders), 1)
	assert.Empty(t, d.farewells)
}

func TestALostRecordOrAWrongClockRemovesNothing(t *testing.T) {
	d, dir := followingDropper(t, "1h")
	d.tenantsAre("demo")
	d.step(t.Context())
	d.tenantsAre()
	all, err := filepath.Glob(filepath.Join(dir, "state/tenants-*.json"))
	require.NoError(t, err)
	require.Len(t, all, 1)
	content := `{"pattern":"` + dir + `/out/*.env","present":null,"departed":{"demo":"2999-01-01T00:00:00Z"}}`
	require.NoError(t, os.WriteFile(all[0], []byte(content), 0o600))
	next := newDropperOf(&config.Config{StateDir: filepath.Join(dir, "state")}, slog.New(slog.DiscardHandler), false)
	f := &following{of: d.followed[0].of, members: map[string]*member{}, untold: map[string]bool{}}
	next.recall(f)
	assert.WithinDuration(t, time.Now(), f.members["demo"].gone, time.Minute, "since the future is since now")
}
