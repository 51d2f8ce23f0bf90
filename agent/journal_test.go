package agent

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/output"
)

// TestMain keeps tests out of the state directory of this machine.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "deaddrop-state-")
	if err != nil {
		panic(err)
	}
	if err := os.Setenv("STATE_DIRECTORY", dir); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

func leasesIn(p *pipeline, destination string) []string {
	return p.ledger.Store().Output(destination).Leases
}

func TestPipeline_TriesAgainToWriteItsJournal(t *testing.T) {
	synctest.Test(t, testJournalRetry)
}

func testJournalRetry(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	t.Setenv("STATE_DIRECTORY", state)
	p, dir := leasedPipeline(t, "")
	require.NoError(t, os.WriteFile(state, nil, 0o600))
	p.sync(t.Context())
	require.NoError(t, p.err(), "a journal keeps no secret from its service")
	require.FileExists(t, filepath.Join(dir, "a/b/db.env"))
	p.noteReloads(nil)
	require.NoError(t, os.Remove(state))
	p.noteReloads(nil)
	require.Empty(t, leasesIn(p, filepath.Join(dir, "a/b/db.env")), "it is not due")
	assert.Equal(t, time.Now().Add(5*time.Second), p.nextAttempt())
	time.Sleep(5 * time.Second)
	p.noteReloads(nil)
	assert.Equal(t, []string{"database/creds/app/1"}, leasesIn(p, filepath.Join(dir, "a/b/db.env")))
}

func TestPipeline_WritesItsJournalAtTheEndThoughItIsNotDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state := filepath.Join(t.TempDir(), "state")
		t.Setenv("STATE_DIRECTORY", state)
		p, dir := leasedPipeline(t, "")
		require.NoError(t, os.WriteFile(state, nil, 0o600))
		p.sync(t.Context())
		p.noteReloads(nil)
		require.NoError(t, os.Remove(state))
		p.close(nil)
		assert.Equal(t, []string{"database/creds/app/1"}, leasesIn(p, filepath.Join(dir, "a/b/db.env")))
	})
}

func TestPipeline_TakesItsJournalsToAnotherStateDirectory(t *testing.T) {
	first, second := filepath.Join(t.TempDir(), "state"), filepath.Join(t.TempDir(), "state")
	t.Setenv("STATE_DIRECTORY", first)
	p, dir := leasedPipeline(t, "")
	destination := filepath.Join(dir, "a/b/db.env")
	p.sync(t.Context())
	p.noteReloads(nil)
	require.Equal(t, []string{"database/creds/app/1"}, leasesIn(p, destination))

	cfg, err := config.Load(filepath.Join(dir, "deaddrop.hcl"))
	require.NoError(t, err)
	cfg.StateDir = second
	p.configure(cfg)
	p.sync(t.Context())
	p.noteReloads(nil)
	assert.Equal(t, []string{"database/creds/app/1"}, leasesIn(p, destination))
	assert.Equal(t, second, p.ledger.Store().Dir())
}

func TestPipeline_TakesTheTenantsToAnotherStateDirectory(t *testing.T) {
	p, dir := followingPipeline(t, "1h")
	p.tenantsAre("demo")
	p.sync(t.Context())
	cfg, err := config.Load(filepath.Join(dir, "deaddrop.hcl"))
	require.NoError(t, err)
	cfg.StateDir = filepath.Join(t.TempDir(), "state")
	p.configure(cfg)
	p.sync(t.Context())
	kept, ok := p.ledger.Store().Tenants(dir+"/out/*.env", dir+"/out")
	assert.True(t, ok)
	assert.Equal(t, []string{"demo"}, kept.Present)
}

func asked(p *pipeline, o *output.Output, leases []string) []string {
	return slices.DeleteFunc(slices.Clone(leases), func(id string) bool { return !p.asks(o, id) })
}

func TestAsks_AcceptsLeasesOfPathsThatTheOutputAsksFor(t *testing.T) {
	p, _ := leasedPipeline(t, "")
	o := p.outputs.Outputs()[0]
	all := []string{"database/creds/app/1", "database/creds/app2/1", "database/creds/1", "auth/approle/login/1"}
	assert.Equal(t, all[:1], asked(p, o, all))
	o.Drop.Secret = "team/database/creds/app" // in a namespace
	assert.Equal(t, all[:1], asked(p, o, all))
}
