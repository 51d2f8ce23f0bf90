package main

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/status"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// restored is what the log says of a file that was changed and written again.
const restored = "file was changed by another program, restored it"

// isCurrent reports whether the agent says that all is well, in all ways that it has.
func (r *rig) isCurrent() bool {
	r.t.Helper()
	_, _, code := r.output("status", "--config", "deaddrop.hcl", "--check")
	drop := r.report().Drops[0]
	return code == 0 && drop.State == status.Current && drop.Error == ""
}

// restorations returns how often the agent has restored a file, as Prometheus sees it.
func (r *rig) restorations() int {
	r.t.Helper()
	_, metrics := r.get("/metrics")
	_, count, _ := strings.Cut(metrics, "\ndeaddrop_restored_total ")
	count, _, _ = strings.Cut(count, "\n")
	n, err := strconv.Atoi(count)
	require.NoError(r.t, err, metrics)
	return n
}

func TestTamper_PutsBackARemovedOrChangedFileAndReloadsItsService(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"A": "1"})
	r.simple(note("told", ""))
	p := r.start("run", "--config", "deaddrop.hcl")
	r.becomesReady()
	path := r.path("nexa.env")
	for i, tamper := range []struct {
		difference string
		do         func() error
	}{
		{"removed", func() error { return os.Remove(path) }},
		{"permissions", func() error { return os.Chmod(path, 0o666) }},
		{"content", func() error { return os.WriteFile(path, []byte("A=edited\n"), 0o600) }},
		{"replaced", func() error { return os.Rename(r.write("new.env", "A=other\n"), path) }},
	} {
		require.NoError(t, tamper.do(), tamper.difference)
		r.eventually(tamper.difference+": the service is reloaded", func() bool { return r.read("notes") == strings.Repeat("told\n", i+1) })
		assert.Equal(t, "A=1\n", r.read("nexa.env"), tamper.difference)
		info, err := os.Lstat(path)
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), info.Mode(), tamper.difference)
		r.eventually("it is current", r.isCurrent)
		assert.Equal(t, i+1, r.restorations(), tamper.difference)
		assert.Equal(t, 1, strings.Count(p.log(), `"difference":"`+tamper.difference+`"`), "it is logged once")
	}
	p.stop()
	assert.Equal(t, 4, strings.Count(p.log(), restored))
	assert.Equal(t, strings.Repeat("told\n", 4), r.read("notes"))
}

func TestTamper_PutsBackASetWithoutItsLink(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"A": "1"})
	r.write("deaddrop.hcl", r.Login(r.dir)+interval+r.statusListener()+`
set "pair" {
  destination = "pair"
  drop "env" {
    secret      = "`+r.Path("nexa")+`"
    destination = "nexa.env"
  }
  drop "json" {
    secret      = "`+r.Path("nexa")+`"
    destination = "nexa.json"
  }
`+note("told", "")+`}
`)
	p := r.start("run", "--config", "deaddrop.hcl")
	r.becomesReady()
	require.NoError(t, os.Remove(r.path("pair/..data")))
	assert.Empty(t, r.read("pair/nexa.env"))
	r.eventually("the service is reloaded", func() bool { return r.read("notes") == "told\n" })
	assert.Equal(t, "A=1\n", r.read("pair/nexa.env"))
	assert.Equal(t, "{\n  \"A\": \"1\"\n}\n", r.read("pair/nexa.json"))
	r.eventually("it is current", r.isCurrent)
	assert.Equal(t, 1, r.restorations(), "a set counts once")
	p.stop()
	out, code := r.deaddrop("render", "--config", "deaddrop.hcl")
	require.Zero(t, code, out)
	entries, err := os.ReadDir(r.path("pair"))
	require.NoError(t, err)
	assert.Len(t, entries, 4, "the next agent removes what nothing leads to: two links, ..data and one generation are left: %v", entries)
}

func TestTamper_FindsAnEditAtHangupThatOnlyTheContentShows(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"A": "1"})
	r.simple(note("told", ""))
	// SIGHUP alone has the agent look: at an interval, it might do so before the test has set
	// the time of the file back.
	r.write("deaddrop.hcl", strings.Replace(r.read("deaddrop.hcl"), `"1s"`, `"1h"`, 1))
	p := r.start("run", "--config", "deaddrop.hcl")
	r.becomesReady()
	path := r.path("nexa.env")
	before, err := os.Stat(path)
	require.NoError(t, err)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, append([]byte("B"), content[1:]...), 0o600))
	require.NoError(t, os.Chtimes(path, before.ModTime(), before.ModTime()))
	after, err := os.Stat(path)
	require.NoError(t, err)
	assert.True(t, os.SameFile(before, after))
	assert.Equal(t, []any{before.Size(), before.ModTime()}, []any{after.Size(), after.ModTime()})

	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	r.eventually("the service is reloaded", func() bool { return r.read("notes") == "told\n" })
	assert.Equal(t, "A=1\n", r.read("nexa.env"))
	r.eventually("it is current", r.isCurrent)
	assert.Equal(t, 1, r.restorations())
	p.stop()
	assert.Equal(t, 1, strings.Count(p.log(), restored))
}

func TestTamper_LeavesAFileThatIsEditedOnPurposeUntilItsSecretChanges(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"A": "1"})
	r.simple("  on_tamper = \"warn\"\n" + note("told", ""))
	p := r.start("run", "--config", "deaddrop.hcl")
	r.becomesReady()
	r.write("nexa.env", "A=edited\n")
	r.eventually("it is stale", func() bool { return r.report().Drops[0].State == status.Stale })
	assert.Equal(t, "another program has changed the file: content", r.report().Drops[0].Error)
	_, complaints, code := r.output("status", "--config", "deaddrop.hcl", "--check")
	assert.Equal(t, 1, code)
	assert.Contains(t, complaints, "another program has changed the file")

	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	r.eventually("everything is read again", func() bool { return strings.Contains(p.log(), "reading everything again") })
	assert.Equal(t, status.Stale, r.report().Drops[0].State)
	assert.Equal(t, "A=edited\n", r.read("nexa.env"))

	r.Put("nexa", map[string]any{"A": "2"})
	r.eventually("the service is reloaded after the new secret", func() bool { return r.read("notes") == "told\n" })
	assert.Equal(t, "A=2\n", r.read("nexa.env"))
	r.eventually("it is current", r.isCurrent)
	assert.Zero(t, r.restorations())
	p.stop()
	assert.Equal(t, 1, strings.Count(p.log(), "file was changed by another program, leaving it"))
	assert.NotContains(t, p.log(), restored)
}

func TestTamper_NeedsNoVaultToPutAFileBack(t *testing.T) {
	t.Parallel()
	s := vaulttest.Own(t)
	r := newRig(t, s)
	r.Put("nexa", map[string]any{"A": "1"})
	r.simple(note("told", ""))
	r.write("deaddrop.hcl", strings.Replace(r.read("deaddrop.hcl"), `"nexa.env"`, `"out/nexa.env"`, 1))
	p := r.start("run", "--config", "deaddrop.hcl")
	r.becomesReady()
	s.Stop()
	r.eventually("Vault is away", func() bool { return strings.Contains(p.log(), "is Vault running at") })
	// A folder is moved in one step: while it is being removed, the agent may write into it.
	require.NoError(t, os.Rename(r.path("out"), r.path("moved")))
	r.eventually("the service is reloaded", func() bool { return r.read("notes") == "told\n" })
	assert.Equal(t, "A=1\n", r.read("out/nexa.env"))
	assert.Equal(t, 1, r.restorations())
	p.stop()
	assert.Equal(t, 1, strings.Count(p.log(), restored))
}
