package harden

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/leaktest"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// TestMain lets the test binary be a hardened process.
func TestMain(m *testing.M) {
	switch os.Getenv("TEST_BE") {
	case "hardened":
		fmt.Println(Process("SECRET", "EMPTY", "UNSET"))
		_, _ = os.Stdin.Read(make([]byte, 1))
		fmt.Println(os.Getenv("SECRET"), os.Getenv("OTHER"))
	case "panicking":
		_ = Process("SECRET")
		_ = at(os.Getenv("SECRET"), 1000)
	case "locked":
		fmt.Println(LockMemory())
		_, _ = os.Stdin.Read(make([]byte, 1))
		fmt.Println(len(make([]byte, 100<<20)))
	default:
		os.Exit(m.Run())
	}
}

// at panics where a text is too short.
//
//go:noinline
func at(text string, i int) byte { return text[i] }

// nobody is a user that is not root.
const nobody = 65534

// being starts the test binary as something, and as a user where root may do that.
// end lets it go on, and returns what it said.
func being(t *testing.T, what string, uid uint32, env ...string) (pid int, end func() string) {
	t.Helper()
	cmd := exec.Command(programFor(t))
	cmd.Env = append([]string{"TEST_BE=" + what}, env...)
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	var out strings.Builder
	said := make(chan string, 1)
	cmd.Stdout = write(func(p []byte) {
		out.Write(p)
		select {
		case said <- out.String():
		default:
		}
	})
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	select {
	case <-said:
	case <-time.After(time.Minute):
		t.Fatal("it says nothing")
	}
	return cmd.Process.Pid, func() string {
		_, _ = in.Write([]byte("x"))
		require.NoError(t, cmd.Wait())
		return out.String()
	}
}

type write func([]byte)

func (w write) Write(p []byte) (int, error) { w(p); return len(p), nil }

// programFor is the test binary where every user may run it.
func programFor(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "harden")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	program := filepath.Join(dir, "program")
	// Another program writes it: a process that is forked here meanwhile would have it open.
	require.NoError(t, exec.Command("install", "-m", "755", os.Args[0], program).Run())
	return program
}

func proc(pid int, name string) string { return fmt.Sprintf("/proc/%d/%s", pid, name) }

func TestAHardenedProcessHidesItsSecretsAndStillKnowsThem(t *testing.T) {
	for name, uid := range map[string]uint32{"as root": 0, "as another user": nobody} {
		t.Run(name, func(t *testing.T) {
			if uid == 0 && os.Geteuid() != 0 {
				t.Skip("this is not root")
			}
			marker := vaulttest.Marker()
			pid, end := being(t, "hardened", uid, "BEFORE=1", "SECRET="+marker, "EMPTY=", "SECRETX=other", "OTHER=behind")
			if os.Geteuid() == 0 {
				environ, err := os.ReadFile(proc(pid, "environ"))
				require.NoError(t, err)
				assert.NotContains(t, string(environ), marker)
				assert.Contains(t, string(environ), "BEFORE=1\x00SECRET=\x00")
				assert.Contains(t, string(environ), "\x00EMPTY=\x00SECRETX=other\x00OTHER=behind\x00")
			}
			assert.Equal(t, "<nil>\n"+marker+" behind\n", end())
		})
	}
}

func TestAHardenedProcessMakesNoCoreDump(t *testing.T) {
	pid, end := being(t, "hardened", nobody)
	limits, err := os.ReadFile(proc(pid, "limits"))
	require.NoError(t, err)
	assert.Regexp(t, `Max core file size +0 `, string(limits))
	info, err := os.Stat(proc(pid, "fd"))
	require.NoError(t, err)
	assert.Zero(t, info.Sys().(*syscall.Stat_t).Uid, "what is not dumpable belongs to root")
	end()
}

func TestAPanicIsNoBadConfigurationAndShowsNoSecret(t *testing.T) {
	marker := vaulttest.Marker()
	cmd := exec.Command(os.Args[0])
	cmd.Env = []string{"TEST_BE=panicking", "SECRET=" + marker}
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	require.Error(t, err)
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	assert.Equal(t, syscall.SIGABRT, status.Signal(), "exit code 2 is that of a bad configuration")
	assert.False(t, status.CoreDump())
	assert.Contains(t, string(out), "index out of range [1000] with length")
	assert.Contains(t, string(out), "harden.at(")
	leaktest.Output(t, "what a panic says", string(out))
}

func TestAnotherProcessOfTheSameUserCannotLookIntoIt(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("this is not root, who can start processes of another user")
	}
	pid, end := being(t, "hardened", nobody, "SECRET=x")
	for _, name := range []string{"environ", "maps", "mem"} {
		look := exec.Command("cat", proc(pid, name))
		look.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		out, err := look.CombinedOutput()
		require.Error(t, err, name)
		assert.Contains(t, string(out), "Permission denied", name)
	}
	end()
}

func TestLockedMemoryIsWhatIsUsedNotWhatIsReserved(t *testing.T) {
	if may, err := mayLock(); err != nil || !may {
		t.Skip("memory may not be locked here")
	}
	pid, end := being(t, "locked", 0)
	status, err := os.ReadFile(proc(pid, "status"))
	require.NoError(t, err)
	var locked, resident, reserved int
	for line := range strings.Lines(string(status)) {
		for name, to := range map[string]*int{"VmLck": &locked, "VmRSS": &resident, "VmSize": &reserved} {
			if rest, found := strings.CutPrefix(line, name+":"); found {
				_, err := fmt.Sscan(rest, to)
				require.NoError(t, err)
			}
		}
	}
	t.Logf("locked %d kB, resident %d kB, reserved %d kB", locked, resident, reserved)
	assert.Positive(t, locked)
	assert.Less(t, resident, 200<<10)
	assert.Contains(t, end(), "<nil>\n104857600\n")
}

func TestLockingMemorySaysWhatItNeeds(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("this is not root, who can start processes of another user")
	}
	_, end := being(t, "locked", nobody)
	assert.Contains(t, end(), "LimitMEMLOCK=infinity in a systemd unit; ulimits: { memlock: -1 } in a compose file")
}
