package command

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRun_UsesNoShellAndPassesNoCredentials(t *testing.T) {
	for _, own := range []string{"VAULT_TOKEN", "VAULT_SECRET_ID", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		t.Setenv(own, "m4rker")
	}
	t.Setenv("COLOR", "red")
	var out bytes.Buffer
	require.NoError(t, Spec{Args: []string{"sh", "-c", `echo "$0 $COLOR $SIZE" >&2; env`, "$HOME"}, Env: []string{"COLOR=blue", "SIZE=1"}}.Run(t.Context(), &out))
	assert.True(t, strings.HasPrefix(out.String(), "$HOME blue 1\n"), out.String())
	assert.NotContains(t, out.String(), "m4rker")
}

func TestRun_FindsTheProgramInItsFolder(t *testing.T) {
	dir := t.TempDir()
	s := Spec{Args: []string{"./program", "a"}, Dir: dir}
	require.EqualError(t, s.Check(), "there is no program "+dir+"/program: install it, or write its full path")
	require.EqualError(t, s.Run(t.Context(), io.Discard), s.Check().Error())
	require.NoError(t, os.WriteFile(dir+"/program", []byte("#!/bin/sh\necho \"$0 $1 $PWD\"\n"), 0o600))
	require.EqualError(t, s.Check(), "program "+dir+"/program cannot be run: permission denied")
	require.NoError(t, os.Chmod(dir+"/program", 0o700))
	require.NoError(t, s.Check())
	var out bytes.Buffer
	require.NoError(t, s.Run(t.Context(), &out))
	assert.Equal(t, dir+"/program a "+dir+"\n", out.String())
	require.EqualError(t, Spec{Args: []string{"true"}, Dir: dir + "/none"}.Check(), "there is no folder "+dir+"/none to run it in")
}

func TestRun_HandsOnOpenFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "content")
	require.NoError(t, os.WriteFile(file, []byte("of a file"), 0o600))
	open, err := os.Open(file)
	require.NoError(t, err)
	defer func() { _ = open.Close() }()
	var out bytes.Buffer
	require.NoError(t, Spec{Args: []string{"cat", "/proc/self/fd/3"}, Files: []*os.File{open}}.Run(t.Context(), &out))
	assert.Equal(t, "of a file", out.String())
}

func TestRun_ReturnsTheExitStatus(t *testing.T) {
	err := Spec{Args: []string{"sh", "-c", "echo m4rker >&2; exit 3"}}.Run(t.Context(), io.Discard)
	require.EqualError(t, err, "exit status 3")
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
}

func TestRun_EndsTheProgramAndItsChildrenAfterTheTimeout(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	err := Spec{Args: []string{"sh", "-c", `sleep 1000 & echo $! >"$0"; wait`, pids}, Timeout: 200 * time.Millisecond}.Run(t.Context(), io.Discard)
	require.ErrorContains(t, err, "ended after its timeout of 200ms")
	child, err := os.ReadFile(pids)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(child)) + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ")
	}, 10*time.Second, 10*time.Millisecond, "the child is gone or a zombie")
}

func TestRun_EndsTheProgramWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ready, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	done := make(chan error)
	go func() {
		done <- Spec{Args: []string{"sh", "-c", `echo ready; exec sleep 1000`}, Timeout: time.Hour}.Run(ctx, ready)
	}()
	require.Eventually(t, func() bool { info, err := ready.Stat(); return err == nil && info.Size() > 0 }, time.Minute, time.Millisecond)
	cancel()
	require.EqualError(t, <-done, "signal: killed", "it is not called a timeout")
}

func TestSpec_RunsAsAnotherUser(t *testing.T) {
	require.ErrorContains(t, Spec{Args: []string{"true"}, User: "no-such-user"}.Check(), `there is no user "no-such-user"`)
	if os.Geteuid() != 0 {
		require.ErrorContains(t, Spec{Args: []string{"true"}, User: "nobody"}.Check(), "only root can run it")
		t.Skip("only root can run a program as another user")
	}
	for _, user := range []string{"nobody", "65534"} {
		var out bytes.Buffer
		require.NoError(t, Spec{Args: []string{"sh", "-c", `id -un; id -Gn; echo "$USER $LOGNAME $HOME"`}, User: user, Dir: "/"}.Run(t.Context(), &out))
		assert.Equal(t, "nobody\nnogroup\nnobody nobody /nonexistent\n", out.String())
	}
	var out bytes.Buffer
	require.NoError(t, Spec{Args: []string{"id", "-u"}, User: "4711", Dir: "/"}.Run(t.Context(), &out))
	assert.Equal(t, "4711\n", out.String(), "in a container a user may have a number only")
}
