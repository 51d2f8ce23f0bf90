package reload

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/internal/process"
)

// The users of these tests: of a service, and of somebody else.
const (
	serviceUser = 1234
	otherUser   = 2345
)

// serviceOf starts a service of a user, whose parent is not the test. It returns its
// process id and what it prints.
func serviceOf(t *testing.T, uid int, program string) (pid int, said *bufio.Reader) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can be two users")
	}
	for dir := filepath.Dir(program); dir != "/"; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o001 == 0 {
			require.NoError(t, os.Chmod(dir, info.Mode().Perm()|0o011))
		}
	}
	shell := exec.Command("sh", "-c", `sh -c "$0" "$@" & wait`, printThenRun, program)
	shell.Env = []string{"BE_A_SERVICE=1", "PATH=" + os.Getenv("PATH")}
	shell.Dir = "/"
	shell.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	return startService(t, shell)
}

// pidFileOf is a pid file of a user.
func pidFileOf(t *testing.T, uid, pid int, mode os.FileMode) string {
	t.Helper()
	path := pidFile(t, strconv.Itoa(pid)+"\n")
	require.NoError(t, os.Chmod(path, mode))
	require.NoError(t, os.Chown(path, uid, -1))
	return path
}

// linkOf is a link of a user in a folder of that user.
func linkOf(t *testing.T, uid int, target string) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chown(dir, uid, -1))
	path := filepath.Join(dir, "service.pid")
	require.NoError(t, os.Symlink(target, path))
	require.NoError(t, os.Lchown(path, uid, -1))
	return path
}

// stillThere makes sure that a process has got no signal, which would end it.
func stillThere(t *testing.T, pid int) {
	t.Helper()
	p, err := process.Read(pid)
	require.NoError(t, err)
	require.False(t, p.Zombie)
}

func TestPIDFile_NamesNoProcessThatItsOwnerMayNotSignal(t *testing.T) {
	program := renamed(t, "nexa-victim")
	victim, said := serviceOf(t, otherUser, program)
	roots, _ := serviceOf(t, 0, program)
	for name, test := range map[string]struct {
		file string
		want string
	}{
		"a process of another user": {pidFileOf(t, serviceUser, victim, 0o644),
			fmt.Sprintf("belongs to user 1234, but process %d (nexa-victim) runs as user 2345", victim)},
		"a process of root": {pidFileOf(t, serviceUser, roots, 0o644),
			fmt.Sprintf("belongs to user 1234, but process %d (nexa-victim) runs as user 0", roots)},
		"a link to a pid file of root": {linkOf(t, serviceUser, pidFileOf(t, 0, roots, 0o644)),
			fmt.Sprintf("belongs to user 1234, but process %d (nexa-victim) runs as user 0", roots)},
		"a link to a link": {linkOf(t, 0, linkOf(t, serviceUser, pidFileOf(t, 0, roots, 0o644))),
			fmt.Sprintf("belongs to user 1234, but process %d (nexa-victim) runs as user 0", roots)},
		"a link to the pid file of another user": {linkOf(t, serviceUser, pidFileOf(t, otherUser, victim, 0o644)),
			fmt.Sprintf("belongs to user 1234, but process %d (nexa-victim) runs as user 2345", victim)},
		"a file that everybody may write": {pidFileOf(t, 0, victim, 0o666),
			"has mode 0666, so any user may write it"},
	} {
		t.Run(name, func(t *testing.T) {
			s := PIDFile{Path: test.file, Signal: syscall.SIGHUP}
			require.ErrorContains(t, s.Check(t.Context()), test.want)
			err := s.Do(t.Context(), Change{At: time.Now()})
			require.ErrorContains(t, err, test.want)
			require.ErrorContains(t, err, "expect_user")
			var absent *Absent
			assert.NotErrorAs(t, err, &absent)
			stillThere(t, victim)
			stillThere(t, roots)
		})
	}
	require.NoError(t, PIDFile{Path: pidFileOf(t, otherUser, victim, 0o644), Signal: syscall.SIGHUP}.Do(t.Context(), Change{At: time.Now()}))
	reloadedBy(t, said)
}

func TestPIDFile_NamesAProcessOfItsOwnerOrAnyIfItIsOfRoot(t *testing.T) {
	program := renamed(t, "nexa-own")
	for name, file := range map[string]func(pid int) PIDFile{
		"the service's own": func(pid int) PIDFile { return PIDFile{Path: pidFileOf(t, serviceUser, pid, 0o644)} },
		"root's":            func(pid int) PIDFile { return PIDFile{Path: pidFileOf(t, 0, pid, 0o664)} },
		"a relative link": func(pid int) PIDFile {
			file := pidFileOf(t, serviceUser, pid, 0o644)
			require.NoError(t, os.Symlink("service.pid", filepath.Join(filepath.Dir(file), "link")))
			return PIDFile{Path: filepath.Join(filepath.Dir(file), "link")}
		},
		"another user's, with expect_user": func(pid int) PIDFile {
			return PIDFile{Path: pidFileOf(t, otherUser, pid, 0o666), ExpectUser: strconv.Itoa(serviceUser)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			pid, said := serviceOf(t, serviceUser, program)
			s := file(pid)
			s.Signal = syscall.SIGHUP
			require.NoError(t, s.Check(t.Context()))
			require.NoError(t, s.Do(t.Context(), Change{At: time.Now()}))
			reloadedBy(t, said)
		})
	}
}

func TestPIDFile_WithExpectUserNamesNoProcessOfAnother(t *testing.T) {
	pid, _ := serviceOf(t, otherUser, renamed(t, "nexa-expect"))
	for _, owner := range []int{0, otherUser, serviceUser} {
		s := PIDFile{Path: pidFileOf(t, owner, pid, 0o644), Signal: syscall.SIGHUP, ExpectUser: strconv.Itoa(serviceUser)}
		want := fmt.Sprintf(`names process %d (nexa-expect), which runs as user 2345, not as expect_user = "1234"`, pid)
		require.ErrorContains(t, s.Do(t.Context(), Change{At: time.Now()}), want)
		require.ErrorContains(t, s.Check(t.Context()), want)
		s.ExpectUser = "no-such-user"
		require.ErrorContains(t, s.Check(t.Context()), `expect_user: `)
		require.ErrorContains(t, s.Check(t.Context()), `no-such-user`)
	}
	stillThere(t, pid)
}

func TestPIDFile_FollowsNoLinksForEver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "loop")
	require.NoError(t, os.Symlink("loop", path))
	require.ErrorIs(t, PIDFile{Path: path}.Check(t.Context()), syscall.ELOOP)
	dangling := filepath.Join(t.TempDir(), "dangling")
	require.NoError(t, os.Symlink("gone", dangling))
	var absent *Absent
	require.ErrorAs(t, PIDFile{Path: dangling}.Check(t.Context()), &absent)
}

func TestProcess_WithExpectUserIgnoresNamesakesOfOthers(t *testing.T) {
	name := ownName()
	program := renamed(t, name)
	pid, said := serviceOf(t, serviceUser, program)
	namesake, _ := serviceOf(t, otherUser, program)
	s := Process{Name: name, Signal: syscall.SIGHUP}
	require.EqualError(t, s.Do(t.Context(), Change{}), fmt.Sprintf(
		`2 processes are "%s" (%d, %d), of several users, and none was signalled: say by expect_user = "…" which user's it is`, name, min(pid, namesake), max(pid, namesake)))
	s.ExpectUser = strconv.Itoa(serviceUser)
	require.NoError(t, s.Check(t.Context()))
	require.NoError(t, s.Do(t.Context(), Change{}))
	reloadedBy(t, said)
	soon(t, "it has gone", func() bool { _, err := process.Read(pid); return err != nil })

	var missing *Absent
	require.ErrorAs(t, s.Do(t.Context(), Change{}), &missing)
	require.ErrorContains(t, missing, `no process of user 1234 is "`+name+`"`)
	s.ExpectUser = "no-such-user"
	require.ErrorContains(t, s.Check(t.Context()), "no-such-user")
	stillThere(t, namesake)
}
