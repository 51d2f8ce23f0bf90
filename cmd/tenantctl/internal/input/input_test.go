package input

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/render/safefile"
)

func TestRead_ReadsDescriptorsOfTheProcess(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	for _, folder := range []string{"/dev/fd", "/proc/self/fd"} {
		r, w, err := os.Pipe()
		require.NoError(t, err)
		_, err = w.WriteString("content")
		require.NoError(t, err)
		require.NoError(t, w.Close())
		path := fmt.Sprintf("%s/%d", folder, r.Fd())
		got, err := Read(path, 7)
		require.NoError(t, err)
		assert.Equal(t, "content", string(got))
		require.NoError(t, r.Close())
	}
}

func TestRead_RefusesADescriptorWithTooMuch(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer func() { _ = r.Close() }()
	_, err = w.WriteString("content")
	require.NoError(t, err)
	require.NoError(t, w.Close())
	_, err = Read(fmt.Sprintf("/dev/fd/%d", r.Fd()), 6)
	require.ErrorIs(t, err, safefile.ErrTooLarge)
}

// A link to /dev/stdin in a folder of somebody else would make tenantctl wait for, or
// take, what was meant for something else.
func TestRead_RefusesFIFOsAndLinksToDevices(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer func() { _, _ = r.Close(), w.Close() }()
	require.NoError(t, os.Symlink(fmt.Sprintf("/dev/fd/%d", r.Fd()), filepath.Join(dir, "link")))
	require.NoError(t, os.Symlink("/dev/zero", filepath.Join(dir, "zero")))
	for _, path := range []string{filepath.Join(dir, "fifo"), filepath.Join(dir, "link"), filepath.Join(dir, "zero"), "/dev/shm", dir} {
		_, err := Read(path, 100)
		require.ErrorIs(t, err, safefile.ErrNotRegular, path)
		if path != "/dev/shm" {
			require.ErrorIs(t, Check(path, 100), safefile.ErrNotRegular, path)
		}
	}
	_, err = Read("/dev/zero", 100)
	require.ErrorIs(t, err, safefile.ErrTooLarge)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "large"), make([]byte, 101), 0o600))
	_, err = Read(filepath.Join(dir, "large"), 100)
	require.ErrorIs(t, err, safefile.ErrTooLarge)
	require.ErrorIs(t, Check(filepath.Join(dir, "large"), 100), safefile.ErrTooLarge)
	require.NoError(t, Check(filepath.Join(dir, "none"), 100))
	require.NoError(t, Check("", 100))
}
