package main

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// queued starts deaddrop with arguments that have it read its configuration from standard
// input, a pipe. It returns when deaddrop has begun to read, and waits for the rest.
func (r *rig) queued(args ...string) (p *running, send func(config string)) {
	r.t.Helper()
	in, out, err := os.Pipe()
	require.NoError(r.t, err)
	r.t.Cleanup(func() { _, _ = in.Close(), out.Close() })
	p = r.startFrom(in, args...)
	_, err = out.WriteString("\n")
	require.NoError(r.t, err)
	r.eventually("it wants its configuration", func() bool {
		unread, err := unix.IoctlGetInt(int(in.Fd()), unix.TIOCINQ)
		return err == nil && unread == 0
	})
	return p, func(config string) {
		_, err := out.WriteString(config)
		require.NoError(r.t, err)
		require.NoError(r.t, out.Close())
	}
}

func TestSignalsThatComeBeforeTheConfigurationDoNotEndIt(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"KEY": "one"})
	p, send := r.queued("run", "--config", "/dev/stdin")
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1} {
		require.NoError(t, p.cmd.Process.Signal(sig))
	}
	send(r.Login(r.dir) + interval + r.drop("nexa", ""))
	r.eventually("it works", func() bool { return r.read("nexa.json") != "" })
	r.Put("nexa", map[string]any{"KEY": "two"})
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	r.eventually("and hears of later ones", func() bool { return strings.Contains(p.log(), "reading everything again") })
	p.ends(exitOK)
}

func TestTermEndsWhatNothingElseEnds(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	p, _ := r.queued("run", "--config", "/dev/stdin")
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	require.Error(t, p.cmd.Wait())
	assert.Equal(t, exitFailed, p.cmd.ProcessState.ExitCode())
	assert.Contains(t, p.log(), "something does not end; leaving it behind")
}

func TestASecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	p, _ := r.queued("run", "--config", "/dev/stdin")
	require.Eventually(t, func() bool {
		_ = p.cmd.Process.Signal(os.Interrupt)
		var status syscall.WaitStatus
		pid, _ := syscall.Wait4(p.cmd.Process.Pid, &status, syscall.WNOHANG, nil)
		return pid != 0 && status.Signaled() && status.Signal() == syscall.SIGINT
	}, time.Minute, 20*time.Millisecond)
	assert.NotContains(t, p.log(), "leaving it behind")
}
