package config

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// asNobody runs f without root's right to read everything.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() == 0 {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		_, _ = unix.SetfsuidRetUid(65534)
		defer func() { _, _ = unix.SetfsuidRetUid(0) }()
	}
	f()
}

func TestLoad_SaysWhoMayNotReadAFileAndWhatToDo(t *testing.T) {
	dir := folder(t)
	text := login + "template {\n  source = \"x.ctmpl\"\n  destination = \"x\"\n}\n"
	writeAll(t, map[string]string{"x.ctmpl": "{{ template \"y.ctmpl\" }}", "y.ctmpl": "y", "deaddrop.hcl": text})
	for path := dir; path != os.TempDir() && path != "/"; path = filepath.Dir(path) {
		require.NoError(t, os.Chmod(path, 0o755))
	}
	readable := func(name string, mode os.FileMode) { require.NoError(t, os.Chmod(name, mode)) }
	for _, name := range []string{"role_id", "secret_id", "x.ctmpl", "y.ctmpl", "deaddrop.hcl"} {
		readable(name, 0o644)
	}
	for name, want := range map[string]string{
		"secret_id":    "deaddrop.hcl:3:69: secret_id_file_path secret_id cannot be read: permission denied: user ",
		"role_id":      "deaddrop.hcl:3:36: role_id_file_path role_id cannot be read: permission denied: user ",
		"x.ctmpl":      "deaddrop.hcl:7:12: template x.ctmpl cannot be read: permission denied: user ",
		"y.ctmpl":      "y.ctmpl: cannot be read: permission denied: user ",
		"deaddrop.hcl": "deaddrop.hcl: cannot be read: permission denied: user ",
	} {
		readable(name, 0o000)
		asNobody(t, func() {
			_, err := Load("deaddrop.hcl")
			require.ErrorContains(t, err, want)
			require.ErrorContains(t, err, " may not read a file of ")
			require.ErrorContains(t, err, " with mode 0000; ch")
		})
		readable(name, 0o644)
	}
}
