package reload

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/internal/redact"
	"github.com/smarteros/deaddrop/agent/servicetest"
)

// TestMain lets the test binary be the service that gets a signal.
func TestMain(m *testing.M) {
	servicetest.Main()
	if os.Getenv("BE_A_SERVICE") != "" {
		hup := make(chan os.Signal, 1)
		signal.Notify(hup, syscall.SIGHUP)
		fmt.Println("ready")
		if os.Args[len(os.Args)-1] == "with-a-worker" {
			worker := exec.Command(os.Args[0])
			worker.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			_ = worker.Start()
			fmt.Println("worker")
		}
		<-hup
		fmt.Println("reloaded")
		os.Exit(0)
	}
	if file := os.Getenv("BE_A_CHECK"); file != "" {
		fmt.Println(PIDFile{Path: file, Signal: syscall.SIGHUP}.Check(context.Background()))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func pidFile(t *testing.T, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "service.pid")
	require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
	return file
}

func TestSignalReachesTheProcessInThePidFile(t *testing.T) {
	service := exec.Command(os.Args[0])
	service.Env = append(os.Environ(), "BE_A_SERVICE=1")
	out, err := service.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, service.Start())
	ready := make([]byte, len("ready\n"))
	_, err = out.Read(ready)
	require.NoError(t, err)

	require.NoError(t, PIDFile{Path: pidFile(t, strconv.Itoa(service.Process.Pid)+"\n"), Signal: syscall.SIGHUP}.Do(t.Context(), Change{}))
	var rest bytes.Buffer
	_, err = rest.ReadFrom(out)
	require.NoError(t, err)
	assert.Equal(t, "reloaded\n", rest.String())
	require.NoError(t, service.Wait())
}

func TestSignalIsNotSentToAnyProcessButTheService(t *testing.T) {
	gone := exec.Command("true")
	require.NoError(t, gone.Run())
	for content, want := range map[string]string{
		"":                                    "is empty; is the service just starting?",
		"text":                                "does not hold a process id",
		"12 13":                               "does not hold a process id",
		"1":                                   "holds 1, which is not signalled",
		"0":                                   "holds 0, which is not a process id",
		"-5":                                  "holds -5, which is not a process id",
		strconv.Itoa(os.Getpid()):             "the agent's own process id",
		strconv.Itoa(gone.Process.Pid):        "there is no process",
		"99999999999999999999999999999999999": "does not hold a process id",
	} {
		err := PIDFile{Path: pidFile(t, content), Signal: syscall.SIGHUP}.Do(t.Context(), Change{})
		require.ErrorContains(t, err, want, content)
	}
	err := PIDFile{Path: "/nowhere/x.pid", Signal: syscall.SIGHUP}.Do(t.Context(), Change{})
	require.EqualError(t, err, "pid file /nowhere/x.pid does not exist; is the service running?")
}

func TestCommandRunsWithoutShellAndCredentials(t *testing.T) {
	for _, own := range []string{"VAULT_TOKEN", "VAULT_SECRET_ID", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		t.Setenv(own, "m4rker")
	}
	out := filepath.Join(t.TempDir(), "out")
	require.NoError(t, Command{Args: []string{"sh", "-c", `echo "$1" >"$0"; env >>"$0"`, out, "$HOME"}}.Do(t.Context(), Change{}))
	content, err := os.ReadFile(out)
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(string(content), "$HOME\n"))
	assert.NotContains(t, string(content), "m4rker")
}

func TestCommandFailureShowsNoOutput(t *testing.T) {
	err := Command{Args: []string{"sh", "-c", "cat /etc/hostname; echo m4rker >&2; exit 3"}}.Do(t.Context(), Change{})
	require.ErrorContains(t, err, "exit status 3")
	err = Command{Args: []string{"no-such-program"}}.Do(t.Context(), Change{})
	require.ErrorContains(t, err, "there is no program no-such-program")
}

func TestCommandGetsWhatHasChangedAndItsOwnSettings(t *testing.T) {
	dir := t.TempDir()
	c := Command{Args: []string{"./tell"}, Dir: dir, Env: []string{"COLOR=blue", "HOME=/nowhere"}}
	require.ErrorContains(t, c.Check(t.Context()), "there is no program "+dir+"/tell")
	require.NoError(t, os.WriteFile(dir+"/tell", []byte("#!/bin/sh\nprintf '%s|' \"$0\" \"$PWD\" \"$COLOR\" \"$HOME\" \"$DEADDROP_CHANGED_COUNT\" \"$DEADDROP_CHANGED_FILES\" >out\n"), 0o600))
	require.ErrorContains(t, c.Check(t.Context()), "cannot be run: permission denied")
	require.NoError(t, os.Chmod(dir+"/tell", 0o700))
	require.NoError(t, c.Check(t.Context()))
	require.NoError(t, c.Do(t.Context(), Change{Files: []string{"/run/a.env", "/run/b c.json"}}))
	out, err := os.ReadFile(dir + "/out")
	require.NoError(t, err)
	assert.Equal(t, dir+"/tell|"+dir+"|blue|/nowhere|2|/run/a.env\n/run/b c.json|", string(out))

	many := make([]string, 100_000)
	for i := range many {
		many[i] = fmt.Sprintf("/run/deaddrop/tenant-%d/nexa.env", i)
	}
	require.NoError(t, c.Do(t.Context(), Change{Files: many}), "Linux takes no more than 128 KiB of one variable")
	out, err = os.ReadFile(dir + "/out")
	require.NoError(t, err)
	assert.Contains(t, string(out), "|100000|/run/deaddrop/tenant-0/nexa.env\n")
	require.ErrorContains(t, Command{Args: []string{"true"}, Dir: "/nowhere"}.Check(t.Context()), "there is no folder /nowhere")
}

func TestCommand_LogsItsOutputOnlyWhenAskedTo(t *testing.T) {
	secret := strings.Repeat("s3cr3t+Value/", 23) + "x" // 300 bytes
	script := `printf '%3800s' ''; echo "$0"; echo "$0" | fold -w 76; set -x; : "$0"; : "$TOKEN"; yes | head -c 100000; exit 3`
	c := Command{Args: []string{"sh", "-c", script, secret}, Env: []string{"TOKEN=its-t0ken"}}
	known := Change{Hidden: []string{secret}}
	for name, tc := range map[string]struct {
		show   bool
		change Change
		hint   string
	}{
		"by default":       {false, known, "set show_output = true in the reload block to log the output, or run the command by hand"},
		"values not known": {true, Change{}, "the output is not logged, as the values to hide in it are not known any more"},
	} {
		c.ShowOutput = tc.show
		err := c.Do(t.Context(), tc.change)
		require.EqualError(t, err, "command sh: exit status 3", name)
		logged := redact.OutputOf(err)
		require.Len(t, logged, 4, name)
		assert.Regexp(t, `^500\d\d lines, 10\d{4} bytes$`, logged[1], name)
		assert.Equal(t, []any{"printed", "hint", tc.hint}, []any{logged[0], logged[2], logged[3]}, name)
	}
	c.ShowOutput = true
	err := c.Do(t.Context(), known)
	require.EqualError(t, err, "command sh: exit status 3")
	var failed *redact.OutputError
	require.ErrorAs(t, err, &failed)
	assert.True(t, strings.HasPrefix(failed.Output, "[redacted]\n+ : [redacted]\n"), "%q", failed.Output)
	assert.Contains(t, failed.Output, "y\ny\n")
	for _, part := range []string{"s3cr", "Value", "t0ken"} {
		assert.NotContains(t, failed.Output, part)
	}
	assert.Less(t, len(failed.Output), 5000)
	require.NoError(t, Command{Args: []string{"true"}, ShowOutput: true}.Do(t.Context(), known))
	assert.Nil(t, redact.OutputOf(err.(*redact.OutputError).Err))
}

func TestCommand_ErrorsLeaveOutTheArguments(t *testing.T) {
	for name, c := range map[string]Command{
		"fails":    {Args: []string{"sh", "-c", "exit 1", "m4rker"}},
		"timeout":  {Args: []string{"sh", "-c", "sleep 60", "m4rker"}, Timeout: 20 * time.Millisecond},
		"folder":   {Args: []string{"true", "m4rker"}, Dir: "/nowhere"},
		"program":  {Args: []string{"no-such-program", "m4rker"}},
		"user":     {Args: []string{"true", "m4rker"}, User: "no-such-user"},
		"too long": {Args: []string{"true", strings.Repeat("m4rker", 1<<20)}},
	} {
		err := c.Do(t.Context(), Change{})
		require.Error(t, err, name)
		assert.NotContains(t, err.Error(), "m4rker", name)
		assert.NotContains(t, c.String(), "m4rker", name)
		if err := c.Check(t.Context()); err != nil {
			assert.NotContains(t, err.Error(), "m4rker", name)
		}
	}
}
