package process

import (
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReadTellsOfTheTestItself(t *testing.T) {
	self, err := Read(os.Getpid())
	require.NoError(t, err)
	assert.Equal(t, os.Getppid(), self.Parent)
	assert.Equal(t, os.Args, self.Args)
	exe, err := os.Executable()
	require.NoError(t, err)
	assert.Equal(t, exe, self.Exe)
	assert.True(t, strings.HasPrefix("process.test", self.Name), self.Name)
	assert.False(t, self.Zombie)
}

func TestAgeIsThatOfTheProcess(t *testing.T) {
	before := time.Now()
	child := exec.Command("sleep", "1000")
	require.NoError(t, child.Start())
	t.Cleanup(func() { _ = child.Process.Kill(); _ = child.Wait() })
	started := time.Now()
	p, err := Read(child.Process.Pid)
	require.NoError(t, err)
	now := time.Now()
	assert.GreaterOrEqual(t, p.Age(), now.Sub(started)-2*tick, "time has passed since then")
	assert.LessOrEqual(t, p.Age(), time.Since(before)+2*tick)
}

func TestAProcessThatHasEndedIsAZombieUntilItIsWaitedFor(t *testing.T) {
	child := exec.Command("true")
	require.NoError(t, child.Start())
	require.Eventually(t, func() bool { p, err := Read(child.Process.Pid); return err == nil && p.Zombie }, 10*time.Second, time.Millisecond)
	require.NoError(t, child.Wait())
	_, err := Read(child.Process.Pid)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestAllHoldsTheTestAndItsParent(t *testing.T) {
	all, err := Find(func(Process) bool { return true })
	require.NoError(t, err)
	var pids []int
	for _, p := range all {
		pids = append(pids, p.PID)
	}
	assert.Contains(t, pids, os.Getpid())
	assert.Contains(t, pids, os.Getppid())
}

func TestHandlesSeesAHandlerComeAndGo(t *testing.T) {
	child := exec.Command("sh", "-c", "trap : USR1; echo; read x")
	in, err := child.StdinPipe()
	require.NoError(t, err)
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	_, err = out.Read(make([]byte, 1))
	require.NoError(t, err)
	assert.True(t, Handles(child.Process.Pid, int(syscall.SIGUSR1)))
	assert.False(t, Handles(child.Process.Pid, int(syscall.SIGUSR2)))
	_ = in.Close()
	_ = child.Wait()
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGWINCH)
	assert.True(t, Handles(os.Getpid(), int(syscall.SIGWINCH)))
	assert.True(t, Handles(-1, 1), "what is not known is taken for granted")
}

func FuzzParseNeverPanics(f *testing.F) {
	for _, line := range []string{"", "1 (a) S", "7 (a ) Z (b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20", "x)y("} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		p, err := parse(line)
		if err == nil {
			assert.Contains(t, string(line), p.Name)
		}
	})
}

func TestANameMayHoldAnything(t *testing.T) {
	p, err := parse([]byte("7 (a ) Z (b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20"))
	require.NoError(t, err)
	assert.Equal(t, Process{PID: 7, Parent: 1, Name: "a ) Z (b", started: 19}, p)
}

func TestRunsAs_NeedsTheRealAndTheEffectiveUser(t *testing.T) {
	self, err := Read(os.Getpid())
	require.NoError(t, err)
	assert.True(t, self.RunsAs(os.Geteuid()))
	assert.False(t, self.RunsAs(4711))
	assert.False(t, Process{}.RunsAs(0), "it is not known")

	setuid := Process{users: parseUsers([]byte("Name:\tUid:\nUmask:\t0022\nUid:\t1234\t0\t0\t0\nGid:\t1\t1\t1\t1\n"))}
	assert.False(t, setuid.RunsAs(0), "a user has started it")
	assert.False(t, setuid.RunsAs(1234))
	assert.Equal(t, "users [1234 0]", setuid.User())
	for _, text := range []string{"", "Uid:\t0\t0", "\nUid:\t0\n", "\nUid:\tx\t0\n"} {
		assert.Nil(t, parseUsers([]byte(text)), text)
	}
}

func TestHandles_TellsSignalsApart(t *testing.T) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	assert.True(t, Handles(os.Getpid(), int(syscall.SIGHUP)))
	child := exec.Command("sleep", "1000")
	require.NoError(t, child.Start())
	t.Cleanup(func() { _ = child.Process.Kill(); _ = child.Wait() })
	require.Eventually(t, func() bool { p, err := Read(child.Process.Pid); return err == nil && p.Name == "sleep" }, 10*time.Second, time.Millisecond)
	assert.False(t, Handles(child.Process.Pid, int(syscall.SIGHUP)))
}

// Any user can start a process with megabytes of arguments.
func TestRead_KeepsTheBeginningOfLongArguments(t *testing.T) {
	long := exec.Command("sleep", append([]string{"60"}, slices.Repeat([]string{"0"}, 50_000)...)...)
	require.NoError(t, long.Start())
	t.Cleanup(func() { _ = long.Process.Kill(); _ = long.Wait() })
	var p Process
	require.Eventually(t, func() bool { // A process that has just begun has no arguments yet.
		var err error
		p, err = Read(long.Process.Pid)
		return err == nil && len(p.Args) > 0
	}, time.Minute, time.Millisecond)
	assert.Equal(t, []string{"sleep", "60", "0"}, p.Args[:3])
	assert.LessOrEqual(t, len(strings.Join(p.Args, " ")), maxArgBytes)
	assert.LessOrEqual(t, len(p.Args), maxArgs)
}
