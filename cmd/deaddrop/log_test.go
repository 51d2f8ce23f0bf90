package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/config"
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
	t.Parallel()
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
	t.Parallel()
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
	t.Parallel()
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

// logOf opens the log of a configuration, for a command line.
func logOf(t *testing.T, cfg *config.Config, flags options) *processLog {
	t.Helper()
	l, err := flags.newLog(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { l.output.replace(nil, nil) })
	return l
}

func readLog(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(content)
}

func TestProcessLog_TakesOverAChangedConfiguration(t *testing.T) {
	one, two := filepath.Join(t.TempDir(), "one.log"), filepath.Join(t.TempDir(), "two.log")
	l := logOf(t, &config.Config{LogFile: one}, options{})
	derived := l.With("a", 1).WithGroup("g").With("b", 2)
	derived.Debug("not wanted")
	derived.Info("first")
	assert.Regexp(t, `^{"time":"[^"]*","level":"INFO","msg":"first","a":1,"g":{"b":2}}\n$`, readLog(t, one))

	l.apply(&config.Config{LogFile: two, LogFormat: "text", LogLevel: "debug"})
	derived.Debug("second")
	assert.Regexp(t, `^time=\S* level=DEBUG msg=second a=1 g.b=2\n$`, readLog(t, two))
	assert.NotContains(t, readLog(t, one), "second")

	l.apply(&config.Config{LogFile: one, LogLevel: "warn"})
	derived.Info("not wanted")
	derived.Warn("third")
	assert.Contains(t, readLog(t, one), `"msg":"third"`)
	assert.NotContains(t, readLog(t, one)+readLog(t, two), "not wanted")
}

func TestProcessLog_FlagsGoBeforeTheConfiguration(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.log")
	l := logOf(t, &config.Config{LogFile: path, LogLevel: "debug", LogFormat: "json"}, options{logLevel: "warn", logFormat: "text"})
	l.Info("not wanted")
	l.apply(&config.Config{LogFile: path, LogLevel: "info", LogFormat: "json"})
	l.Info("not wanted")
	l.Warn("wanted")
	assert.Regexp(t, `^time=\S* level=WARN msg=wanted\n$`, readLog(t, path))
}

func TestProcessLog_KeepsTheOldFileWhereTheNewOneCannotBeOpened(t *testing.T) {
	dir := t.TempDir()
	path, other := filepath.Join(dir, "agent.log"), filepath.Join(dir, "other.log")
	require.NoError(t, os.Symlink(path, other))
	l := logOf(t, &config.Config{LogFile: path}, options{})
	l.apply(&config.Config{LogFile: other, LogLevel: "debug"})
	l.Debug("goes on")
	assert.Contains(t, readLog(t, path), `"cannot open log file, keeping the old one","error":"`+other+" is a symbolic link")
	assert.Contains(t, readLog(t, path), "goes on")

	require.NoError(t, os.Remove(other))
	l.reopen()
	l.Info("tried again")
	assert.Contains(t, readLog(t, other), "tried again")
}

func TestProcessLog_IsOpenedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.log")
	l := logOf(t, &config.Config{LogFile: path}, options{})
	l.Info("one")
	require.NoError(t, os.Rename(path, path+".1"))
	l.Info("two")
	l.reopen()
	l.Info("three")
	assert.Contains(t, readLog(t, path+".1"), "two")
	assert.Equal(t, 1, strings.Count(readLog(t, path), "\n"))
	assert.Contains(t, readLog(t, path), "three")
}

func TestProcessLog_LosesNoLineWhileItIsOpenedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.log")
	l := logOf(t, &config.Config{LogFile: path}, options{})
	const writers, lines = 4, 200
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for range lines {
				l.Info("line")
			}
		})
	}
	for range 50 {
		l.reopen()
	}
	all.Wait()
	assert.Equal(t, writers*lines, strings.Count(readLog(t, path), `"msg":"line"`))
}

func TestProcessLog_LeavesStandardStreamsOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.log")
	l := logOf(t, &config.Config{LogFile: "/dev/stderr"}, options{logLevel: "error"})
	l.reopen()
	for _, file := range []string{path, "", "/dev/stdout", path} {
		l.apply(&config.Config{LogFile: file})
	}
	for _, stream := range []*os.File{os.Stdout, os.Stderr} {
		_, err := stream.Stat()
		assert.NoError(t, err)
	}
}

func TestProcess_MovesItsPIDFile(t *testing.T) {
	dir := t.TempDir()
	log, one, two := filepath.Join(dir, "log"), filepath.Join(dir, "one.pid"), filepath.Join(dir, "run/two.pid")
	p := &process{log: logOf(t, &config.Config{LogFile: log}, options{})}
	apply := func(pidFile string) { p.Apply(&config.Config{LogFile: log, PIDFile: pidFile}) }
	pid := strconv.Itoa(os.Getpid()) + "\n"
	require.NoError(t, p.writePIDFile(&config.Config{PIDFile: one}))
	apply(two)
	assert.NoFileExists(t, one)
	assert.Equal(t, pid, readLog(t, two))

	apply(dir)
	assert.Equal(t, pid, readLog(t, two), "a folder cannot be a pid file")
	assert.Equal(t, 1, strings.Count(readLog(t, log), "cannot write pid file, keeping the old one"))

	apply(dir + "/run/../run/two.pid")
	assert.Equal(t, pid, readLog(t, two), "it is the same file by another name")
	apply("")
	assert.NoFileExists(t, two)
	apply(one)
	p.removePIDFile()
	assert.NoFileExists(t, one)
}
