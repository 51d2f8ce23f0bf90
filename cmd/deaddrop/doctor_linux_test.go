package main

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/smarteros/deaddrop/agent/doctor"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

func TestDoctorFindsAFileThatIsMountedByItself(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"K": "v"})
	r.write("deaddrop.hcl", r.plainDrop("replaced", "a.json", "")+r.plainDrop("in place", "b.json", "write = \"in_place\"\n"))
	for _, name := range []string{"from", "a.json", "b.json"} {
		r.write(name, "{}")
	}
	for _, name := range []string{"a.json", "b.json"} {
		if err := syscall.Mount(r.path("from"), r.path(name), "", syscall.MS_BIND, ""); err != nil {
			t.Skip("no file can be mounted here: " + err.Error())
		}
		t.Cleanup(func() { _ = syscall.Unmount(r.path(name), syscall.MNT_DETACH) })
	}
	found := r.doctor("--config", "deaddrop.hcl")
	assert.Equal(t, exitFailed, found.ExitCode)
	assert.Contains(t, found.has("file", doctor.Failed, "a.json: it is mounted by itself").Fix, `write = "in_place"`)
	found.has("file", doctor.OK, "b.json")
}
