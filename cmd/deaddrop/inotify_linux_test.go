package main

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// init lets the test binary take all instances of inotify that its user may have, and
// hold them until it is killed.
func init() {
	for os.Getenv("TEST_BE") == "holder of inotify" {
		if _, err := unix.InotifyInit1(unix.IN_CLOEXEC); err != nil {
			_, _ = os.Stdout.WriteString(err.Error() + "\n")
			time.Sleep(time.Hour)
		}
	}
}

// exhausted is a user of its own, so that no other test is kept from its instances.
const exhausted = 61532

func TestRun_WorksWhereInotifyIsExhausted(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		exhaust func(r *rig, cmd *exec.Cmd)
		hint    string
	}{
		"another process has all instances": {takeInstances, "fs.inotify.max_user_instances"},
		"no watch is left":                  {forbidWatches, "fs.inotify.max_user_watches"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, vaulttest.Shared(t))
			r.Put("nexa", map[string]any{"KEY": "one"})
			r.write("deaddrop.hcl", interval+r.drop("nexa", "  on_exit = \"remove\"\n"))
			cmd := r.command("run", "--config", "deaddrop.hcl")
			test.exhaust(r, cmd)
			p := r.startCommand(cmd)
			r.eventually("the file", func() bool { return strings.Contains(r.read("nexa.json"), "one") })
			assert.Equal(t, 1, strings.Count(p.log(), "cannot watch configuration files, polling them"))
			assert.Contains(t, p.log(), test.hint)

			r.write("deaddrop.hcl", interval+r.drop("nexa", "  perms = \"0640\"\n  on_exit = \"remove\"\n"))
			r.eventually("the changed configuration is noticed", func() bool {
				info, err := os.Stat(r.path("nexa.json"))
				return err == nil && info.Mode() == 0o640
			})
			p.stop()
			assert.NoFileExists(t, r.path("nexa.json"))
		})
	}
}

// takeInstances has another process of the user hold all instances.
func takeInstances(r *rig, cmd *exec.Cmd) {
	r.t.Helper()
	r.asUser(cmd, exhausted)
	holder := exec.Command(cmd.Path)
	holder.Env = []string{"TEST_BE=holder of inotify"}
	own := *cmd.SysProcAttr
	own.Pdeathsig = syscall.SIGKILL
	holder.SysProcAttr = &own
	out, err := holder.StdoutPipe()
	require.NoError(r.t, err)
	require.NoError(r.t, holder.Start())
	r.t.Cleanup(func() { _ = holder.Process.Kill(); _ = holder.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(r.t, err)
	require.Equal(r.t, syscall.EMFILE.Error()+"\n", line)
}

// forbidWatches runs a command in a user namespace in which there may be no watch.
func forbidWatches(r *rig, cmd *exec.Cmd) {
	r.t.Helper()
	in := func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
	}
	const limit = "echo 0 >/proc/sys/user/max_inotify_watches"
	try := exec.Command("sh", "-c", limit)
	in(try)
	if out, err := try.CombinedOutput(); err != nil {
		r.t.Skipf("there are no user namespaces here: %v: %s", err, out)
	}
	args := append([]string{"sh", "-c", limit + ` && exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)
	shell, err := exec.LookPath("sh")
	require.NoError(r.t, err)
	cmd.Path, cmd.Args = shell, args
	in(cmd)
}
