package servicetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

// A program that nohup starts ignores SIGHUP, and a shell in its place could not trap it.
func TestService_AnswersSignalsThatWereIgnoredWhenItStarted(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "said")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "text"), []byte("content"), 0o600))
	args := Service{File: file, Start: "up $A", On: map[string]string{"HUP": "hup ${file:text}"}, Exit: map[string]int{"TERM": 7}}.Args()
	cmd := exec.Command("sh", append([]string{"-c", `trap "" HUP; exec "$0" "$@"`}, args...)...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "A=1")
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	becomes := func(want string) {
		require.Eventually(t, func() bool { content, _ := os.ReadFile(file); return string(content) == want }, time.Minute, time.Millisecond)
	}
	becomes("up 1\n")
	require.NoError(t, cmd.Process.Signal(syscall.SIGHUP))
	becomes("up 1\nhup content\n")
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.Error(t, cmd.Wait())
	assert.Equal(t, 7, cmd.ProcessState.ExitCode())
}

func TestService_EndsWhenAFileAppears(t *testing.T) {
	dir := t.TempDir()
	args := Service{File: filepath.Join(dir, "said"), Start: "$CHILD", HasChild: true, Ignore: []string{"TERM"}, Until: filepath.Join(dir, "leave"), UntilCode: 9}.Args()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	require.Eventually(t, func() bool { content, _ := os.ReadFile(filepath.Join(dir, "said")); return len(content) > 1 }, time.Minute, time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "leave"), nil, 0o600))
	require.Error(t, cmd.Wait())
	assert.Equal(t, 9, cmd.ProcessState.ExitCode())
}
