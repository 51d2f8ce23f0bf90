package reload

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/internal/process"
)

func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// printThenRun is a script that prints its process id, and then becomes another program,
// which so cannot print anything before.
const printThenRun = `echo $$; exec "$0" "$@"`

// another starts the test binary as a service under another name, whose parent is
// not the test. It tells its process id and what it says.
func another(t *testing.T, program string, args ...string) (pid int, said *bufio.Reader) {
	t.Helper()
	shell := exec.Command("sh", append([]string{"-c", `sh -c "$0" "$@" & wait`, printThenRun, program}, args...)...)
	shell.Env = append(os.Environ(), "BE_A_SERVICE=1")
	return startService(t, shell)
}

// startService starts a shell that tells the process id of a service and then what it says.
func startService(t *testing.T, shell *exec.Cmd) (pid int, said *bufio.Reader) {
	t.Helper()
	out, err := shell.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, shell.Start())
	said = bufio.NewReader(out)
	line, err := said.ReadString('\n')
	require.NoError(t, err)
	pid, err = strconv.Atoi(line[:len(line)-1])
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		_ = shell.Wait()
	})
	line, err = said.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", line)
	return pid, said
}

// renamed is the test binary under a name that no other program has.
func renamed(t *testing.T, name string) string {
	t.Helper()
	from, err := os.Open(os.Args[0])
	require.NoError(t, err)
	defer func() { _ = from.Close() }()
	path := filepath.Join(t.TempDir(), name)
	to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	require.NoError(t, err)
	_, err = io.Copy(to, from)
	require.NoError(t, err)
	require.NoError(t, to.Close())
	return path
}

// findOf returns the process that would be signalled.
func findOf(s Process) (int, error) {
	fits, err := s.matcher()
	if err != nil {
		return 0, err
	}
	return s.find(fits)
}

func reloadedBy(t *testing.T, said *bufio.Reader) {
	t.Helper()
	line, err := said.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "reloaded\n", line)
}

// ownName is a name that no other process has, also none of the same tests elsewhere.
func ownName() string { return "n" + strings.ToLower(rand.Text()[:8]) }

func TestAProcessIsFoundByItsProgramOrItsCommandLine(t *testing.T) {
	long := ownName() + "-a-service-with-a-long-name"
	program := renamed(t, long)
	for name, s := range map[string]Process{
		"name":         {Name: long},
		"path":         {Name: program},
		"command line": {CommandLine: long + ` .*--tenant=[d]emo-17`},
		"both":         {Name: long, CommandLine: "demo-17"},
	} {
		pid, said := another(t, program, "x", "--tenant=demo-17")
		s.Signal = syscall.SIGHUP
		found, err := findOf(s)
		require.NoError(t, err, name)
		assert.Equal(t, pid, found, name)
		require.NoError(t, s.Check(t.Context()), name)
		require.NoError(t, s.Do(t.Context(), Change{At: time.Now()}), name)
		reloadedBy(t, said)
		soon(t, "it has gone", func() bool { _, err := process.Read(pid); return err != nil })
	}
}

func TestNoProcessIsSignalledWhereSeveralFit(t *testing.T) {
	twice := ownName()
	program := renamed(t, twice)
	first, _ := another(t, program, "a")
	second, said := another(t, program, "b")
	s := Process{Name: twice, Signal: syscall.SIGHUP}
	require.EqualError(t, s.Do(t.Context(), Change{}), fmt.Sprintf(
		`2 processes are "%s" (%d, %d), and none was signalled: tell them apart by command_line = "…", or use a pid_file`, twice, min(first, second), max(first, second)))
	s.CommandLine = " b$"
	require.NoError(t, s.Do(t.Context(), Change{}))
	reloadedBy(t, said)
	p, err := process.Read(first)
	require.NoError(t, err)
	assert.False(t, p.Zombie)
}

func TestOfAProcessAndItsDescendantsTheFirstIsSignalled(t *testing.T) {
	master := ownName()
	program := renamed(t, master)
	pid, said := another(t, program, "with-a-worker")
	line, err := said.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "worker\n", line)
	found, err := findOf(Process{Name: master})
	require.NoError(t, err)
	assert.Equal(t, pid, found)
}

func TestNeitherTheAgentNorItsChildrenNorAZombieAreFound(t *testing.T) {
	program := renamed(t, "nexa-child")
	child := exec.Command(program)
	child.Env = append(os.Environ(), "BE_A_SERVICE=1")
	require.NoError(t, child.Start())
	t.Cleanup(func() { _ = child.Process.Kill(); _ = child.Wait() })
	// By its name alone the same tests of another checkout would be found.
	agent := Process{Name: filepath.Base(os.Args[0]), CommandLine: "^" + regexp.QuoteMeta(os.Args[0])}
	for _, s := range []Process{{Name: "nexa-child"}, agent, {Name: "no-such-program"}, {CommandLine: "^$"}} {
		_, err := findOf(s)
		require.ErrorContains(t, err, "is the service running", "%+v", s)
	}
	var missing *Absent
	require.ErrorAs(t, Process{Name: "nexa-child", Signal: syscall.SIGHUP}.Do(t.Context(), Change{}), &missing)
}

func TestAProcessThatIsYoungerThanThePidFileIsAnotherOne(t *testing.T) {
	pid, said := another(t, os.Args[0])
	file := pidFile(t, strconv.Itoa(pid))
	stale := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(file, stale, stale))
	s := PIDFile{Path: file, Signal: syscall.SIGHUP}
	for _, err := range []error{s.Do(t.Context(), Change{At: time.Now()}), s.Check(t.Context())} {
		require.ErrorContains(t, err, "is stale: it was written "+stale.UTC().Format(time.RFC3339))
		require.ErrorContains(t, err, "was started later")
	}
	require.NoError(t, os.Chtimes(file, time.Now(), time.Now()))
	require.NoError(t, s.Do(t.Context(), Change{At: time.Now()}))
	reloadedBy(t, said)
}

func TestAProcessThatWasStartedAfterTheChangeNeedsNoSignal(t *testing.T) {
	before := time.Now()
	time.Sleep(200 * time.Millisecond) // The kernel's clock of processes is real, and counts in hundredths.
	pid, said := another(t, os.Args[0])
	s := PIDFile{Path: pidFile(t, strconv.Itoa(pid)+"\nmore lines\n"), Signal: syscall.SIGHUP}
	var unneeded *Unneeded
	require.ErrorAs(t, s.Do(t.Context(), Change{At: before}), &unneeded)
	require.NoError(t, s.Do(t.Context(), Change{At: time.Now()}))
	reloadedBy(t, said)
}

func TestAPidFileThatIsNoFileDoesNotHoldUpTheAgent(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	require.ErrorContains(t, PIDFile{Path: pipe, Signal: syscall.SIGHUP}.Do(t.Context(), Change{}), "is not a file")
	require.ErrorContains(t, PIDFile{Path: t.TempDir(), Signal: syscall.SIGHUP}.Check(t.Context()), "is not a file")
}

func TestAProcessOfAnotherUserNeedsARight(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be two users")
	}
	pid, _ := another(t, os.Args[0])
	nobody := renamed(t, "as-nobody")
	require.NoError(t, os.Chmod(filepath.Dir(filepath.Dir(nobody)), 0o755))
	file := filepath.Join(filepath.Dir(nobody), "pid")
	require.NoError(t, os.WriteFile(file, []byte(strconv.Itoa(pid)), 0o644))
	check := exec.Command(nobody)
	check.Env = []string{"BE_A_CHECK=" + file}
	check.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := check.CombinedOutput()
	require.NoError(t, err)
	assert.Contains(t, string(out), fmt.Sprintf("not allowed to signal process %d: run the agent as the service's user, or give it CAP_KILL (cap_add: [KILL] in a compose file", pid))
}

func FuzzAPidFileNamesNoProcessThatMustNotBeSignalled(f *testing.F) {
	for _, content := range []string{"", "1", "0", "-1", "12\n13", " 7 \n", "text", "+9", "0x10", strconv.Itoa(os.Getpid()), "99999999999999999999"} {
		f.Add(content)
	}
	file := filepath.Join(f.TempDir(), "pid")
	f.Fuzz(func(t *testing.T, content string) {
		require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
		f, err := readPID(file)
		if err != nil {
			return
		}
		assert.Greater(t, f.pid, 1)
		assert.NotEqual(t, os.Getpid(), f.pid)
	})
}

func FuzzAHeaderFileBreaksNoRequest(f *testing.F) {
	for _, content := range []string{"", "A: b", "A:b\r\nC: d", "A\x00: b", ": b", "A: b\x7f", "\u00e9: b", "Host: x"} {
		f.Add(content)
	}
	file := filepath.Join(f.TempDir(), "headers")
	f.Fuzz(func(t *testing.T, content string) {
		require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
		header, err := HTTP{URL: "http://a/", Method: "GET", HeaderFile: file}.header()
		if err != nil {
			return
		}
		request := &http.Request{Method: "GET", URL: &url.URL{Scheme: "http", Host: "a"}, Header: header}
		var written bytes.Buffer
		require.NoError(t, request.Write(&written))
		again, err := http.ReadRequest(bufio.NewReader(&written))
		require.NoError(t, err, "%q", content)
		for name, values := range header {
			if name != "Host" && name != "Content-Length" && name != "Transfer-Encoding" && name != "Trailer" {
				assert.Equal(t, values, again.Header[name], "%q", content)
			}
		}
	})
}
