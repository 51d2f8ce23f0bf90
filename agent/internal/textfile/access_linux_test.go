package textfile

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
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

func TestRead_ExplainsADenial(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "secret_id")
	require.NoError(t, os.WriteFile(path, []byte("x"), 0o600))
	for dir := folder; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		require.NoError(t, os.Chmod(dir, 0o755))
	}
	require.NoError(t, os.Chmod(path, 0o000))
	asNobody(t, func() {
		_, err := Read(path)
		var access *AccessError
		require.ErrorAs(t, err, &access)
		assert.Contains(t, access.Detail, "may not read a file of ")
		assert.Contains(t, access.Detail, "with mode 0000")
		assert.Contains(t, access.Hint, path)
	})
	require.NoError(t, os.Chmod(path, 0o644))
	require.NoError(t, os.Chmod(folder, 0o600))
	asNobody(t, func() {
		_, err := Read(path)
		require.ErrorContains(t, err, "may not look into "+folder+", a folder of ")
	})
	require.NoError(t, os.Chmod(folder, 0o700))
}
