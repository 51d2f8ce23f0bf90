package main

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// folderOfAnother is a folder whose owner is another user, where the test may be two.
func folderOfAnother(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if os.Geteuid() == 0 {
		require.NoError(t, os.Chown(dir, 1234, 1234))
	}
	return dir
}

func TestOpenLog_RefusesWhatAnotherUserCouldPutInItsPlace(t *testing.T) {
	for name, test := range map[string]struct {
		put  func(t *testing.T, path, victim string)
		want string
	}{
		"a link":                 {func(t *testing.T, path, victim string) { require.NoError(t, os.Symlink(victim, path)) }, "is a symbolic link, which is not followed"},
		"a link to a new file":   {func(t *testing.T, path, victim string) { require.NoError(t, os.Symlink(victim+".new", path)) }, "is a symbolic link, which is not followed"},
		"a hard link":            {func(t *testing.T, path, victim string) { require.NoError(t, os.Link(victim, path)) }, "has several hard links"},
		"a FIFO nobody reads":    {func(t *testing.T, path, _ string) { require.NoError(t, syscall.Mkfifo(path, 0o600)) }, "is not a regular file"},
		"a FIFO that is read":    {putReadFIFO, "is not a regular file"},
		"a folder":               {func(t *testing.T, path, _ string) { require.NoError(t, os.Mkdir(path, 0o700)) }, "is a directory"},
		"a link to /dev/null":    {func(t *testing.T, path, _ string) { require.NoError(t, os.Symlink("/dev/null", path)) }, "is a symbolic link, which is not followed"},
		"a link that never ends": {func(t *testing.T, path, _ string) { require.NoError(t, os.Symlink(path, path)) }, "is a symbolic link, which is not followed"},
	} {
		t.Run(name, func(t *testing.T) {
			path, victim := filepath.Join(folderOfAnother(t), "agent.log"), filepath.Join(t.TempDir(), "victim")
			require.NoError(t, os.WriteFile(victim, []byte("root's"), 0o600))
			test.put(t, path, victim)
			_, err := openLog(path)
			require.ErrorContains(t, err, path)
			require.ErrorContains(t, err, test.want)
			content, err := os.ReadFile(victim)
			require.NoError(t, err)
			assert.Equal(t, "root's", string(content))
			assert.NoFileExists(t, victim+".new")
		})
	}
}

func putReadFIFO(t *testing.T, path, _ string) {
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	reader, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = reader.Close() })
}

func TestOpenLog_AppendsToAFileThatOnlyTheAgentMayRead(t *testing.T) {
	path := filepath.Join(folderOfAnother(t), "agent.log")
	for range 2 {
		file, err := openLog(path)
		require.NoError(t, err)
		_, err = file.WriteString("line\n")
		require.NoError(t, err)
		require.NoError(t, file.Close())
	}
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "line\nline\n", string(content))
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode())
}

func TestOpenLog_TakesDevicesAndOpenFilesOfProcesses(t *testing.T) {
	for path, want := range map[string]*os.File{"/dev/stdout": os.Stdout, "/dev/stderr": os.Stderr} {
		file, err := openLog(path)
		require.NoError(t, err)
		assert.Same(t, want, file)
	}
	null, err := os.OpenFile("/dev/null", os.O_WRONLY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = null.Close() })
	for _, path := range []string{"/dev/null", "/dev/fd/" + strconv.Itoa(int(null.Fd())), "/proc/self/fd/" + strconv.Itoa(int(null.Fd()))} {
		file, err := openLog(path)
		require.NoError(t, err, path)
		require.NoError(t, file.Close())
	}
	assert.False(t, isSystemFile("/dev/shm/agent.log"), "every user may put files there")
	assert.False(t, isSystemFile("/dev/../tmp/agent.log"))
}
