package safefile

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// readers are the functions that read a file of a directory.
func readers(t *testing.T, dir string) map[string]func(name string, limit int64) ([]byte, error) {
	t.Helper()
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	t.Cleanup(func() { _ = root.Close() })
	return map[string]func(string, int64) ([]byte, error){
		"Read":           func(name string, limit int64) ([]byte, error) { return Read(filepath.Join(dir, name), limit) },
		"ReadIn":         func(name string, limit int64) ([]byte, error) { return ReadIn(root, name, limit) },
		"ReadNoFollowIn": func(name string, limit int64) ([]byte, error) { return ReadNoFollowIn(root, name, limit) },
	}
}

func TestRead_ReturnsContentUpToTheLimit(t *testing.T) {
	dir := t.TempDir()
	content := bytes.Repeat([]byte("x"), 5000)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), content, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "empty"), nil, 0o600))
	for name, read := range readers(t, dir) {
		t.Run(name, func(t *testing.T) {
			got, err := read("file", 5000)
			require.NoError(t, err)
			assert.Equal(t, content, got)

			_, err = read("file", 4999)
			require.ErrorIs(t, err, ErrTooLarge)

			got, err = read("empty", 0)
			require.NoError(t, err)
			assert.Empty(t, got)

			_, err = read("none", 1)
			require.ErrorIs(t, err, fs.ErrNotExist)
		})
	}
}

func TestRead_RefusesWhatWouldBlockOrNeverEnd(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "directory"), 0o700))
	require.NoError(t, os.Symlink("/dev/zero", filepath.Join(dir, "zero")))
	giant, err := os.Create(filepath.Join(dir, "giant"))
	require.NoError(t, err)
	require.NoError(t, giant.Truncate(1<<40))
	require.NoError(t, giant.Close())
	for name, read := range readers(t, dir) {
		t.Run(name, func(t *testing.T) {
			for _, file := range []string{"fifo", "directory"} {
				_, err := read(file, 1<<20)
				require.ErrorIs(t, err, ErrNotRegular, file)
			}
			_, err := read("zero", 1<<20)
			require.Error(t, err) // A held directory does not even follow the link.
			_, err = read("giant", 1<<20)
			require.ErrorIs(t, err, ErrTooLarge)
		})
	}
	_, err = Read("/dev/zero", 1<<20)
	require.ErrorIs(t, err, ErrNotRegular)
}

func TestRead_FollowsLinksOnlyWhereToldTo(t *testing.T) {
	dir, outside := t.TempDir(), filepath.Join(t.TempDir(), "outside")
	require.NoError(t, os.WriteFile(outside, []byte("outside"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), []byte("inside"), 0o600))
	require.NoError(t, os.Symlink("file", filepath.Join(dir, "in")))
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "out")))
	read := readers(t, dir)

	got, err := read["Read"]("out", 10)
	require.NoError(t, err)
	assert.Equal(t, "outside", string(got))

	got, err = read["ReadIn"]("in", 10)
	require.NoError(t, err)
	assert.Equal(t, "inside", string(got))
	_, err = read["ReadIn"]("out", 10)
	require.ErrorContains(t, err, "escapes")

	for _, link := range []string{"in", "out"} {
		_, err = read["ReadNoFollowIn"](link, 10)
		require.ErrorIs(t, err, ErrNotRegular)
	}
}

func TestOpenDirectory_DoesNotWaitForAFIFO(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	_, err := OpenDirectory(filepath.Join(dir, "fifo"))
	require.EqualError(t, err, "open "+filepath.Join(dir, "fifo")+": not a directory")
	_, err = OpenDirectory(filepath.Join(dir, "none"))
	require.ErrorIs(t, err, fs.ErrNotExist)

	require.NoError(t, os.Symlink(dir, filepath.Join(dir, "link")))
	for _, path := range []string{dir, dir + "/", filepath.Join(dir, "link"), "/", "."} {
		root, err := OpenDirectory(path)
		require.NoError(t, err, path)
		require.NoError(t, root.Close())
	}
}

func TestRead_ReadsFilesThatTellNoSize(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	got, err := Read("/proc/self/status", 1<<20)
	require.NoError(t, err)
	assert.Contains(t, string(got), "Name:")
	_, err = Read("/proc/self/status", 10)
	require.ErrorIs(t, err, ErrTooLarge)
}
