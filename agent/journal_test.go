package agent

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/config"
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

func leasesIn(t *testing.T, d *dropper, destination string) []string {
	t.Helper()
	return d.journal.Output(destination).Leases
}

func TestDropper_TriesAgainToWriteItsJournal(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	t.Setenv("STATE_DIRECTORY", state)
	d, dir := leasedDropper(t, "")
	require.NoError(t, os.WriteFile(state, nil, 0o600))
	d.step(t.Context())
	require.NoError(t, d.err(), "a journal keeps no secret from its service")
	require.FileExists(t, filepath.Join(dir, "a/b/db.env"))
	d.noteTold(nil)
	require.NoError(t, os.Remove(state))
	d.noteTold(nil)
	assert.Equal(t, []string{"database/creds/app/1"}, leasesIn(t, d, filepath.Join(dir, "a/b/db.env")))
}

func TestDropper_TakesItsJournalsToAnotherStateDirectory(t *testing.T) {
	first, second := filepath.Join(t.TempDir(), "state"), filepath.Join(t.TempDir(), "state")
	t.Setenv("STATE_DIRECTORY", first)
	d, dir := leasedDropper(t, "")
	destination := filepath.Join(dir, "a/b/db.env")
	d.step(t.Context())
	d.noteTold(nil)
	require.Equal(t, []string{"database/creds/app/1"}, leasesIn(t, d, destination))

	cfg, err := config.Load(filepath.Join(dir, "deaddrop.hcl"))
	require.NoError(t, err)
	cfg.StateDir = second
	d.setDrops(cfg)
	d.step(t.Context())
	d.noteTold(nil)
	assert.Equal(t, []string{"database/creds/app/1"}, leasesIn(t, d, destination))
	assert.Equal(t, second, d.journal.Dir())
}

func TestDropper_TakesTheTenantsToAnotherStateDirectory(t *testing.T) {
	d, dir := followingDropper(t, "1h")
	d.tenantsAre("demo")
	d.step(t.Context())
	cfg, err := config.Load(filepath.Join(dir, "deaddrop.hcl"))
	require.NoError(t, err)
	cfg.StateDir = filepath.Join(t.TempDir(), "state")
	d.setDrops(cfg)
	d.step(t.Context())
	kept, ok := d.journal.Tenants(dir+"/out/*.env", dir+"/out")
	assert.True(t, ok)
	assert.Equal(t, []string{"demo"}, kept.Present)
}

func TestAsked_AcceptsLeasesOfPathsThatTheOutputAsksFor(t *testing.T) {
	d, _ := leasedDropper(t, "")
	s := d.states[0]
	all := []string{"database/creds/app/1", "database/creds/app2/1", "database/creds/1", "auth/approle/login/1"}
	assert.Equal(t, all[:1], d.asked(s, all))
	s.drop.Secret = "team/database/creds/app" // in a namespace
	s.uses = nil
	assert.Equal(t, all[:1], d.asked(s, all))
}
