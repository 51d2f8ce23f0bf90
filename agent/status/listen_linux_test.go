package status

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/smarteros/deaddrop/agent/config"
)

func TestMain(m *testing.M) {
	if attack := attacks[os.Getenv("BE_AN_ATTACKER")]; attack != nil {
		attack(os.Getenv("ATTACK"), os.Getenv("VICTIM"))
	}
	os.Exit(m.Run())
}

// attacks are what another user does in a folder of his own until he is killed.
var attacks = map[string]func(folder, victim string){
	"links":       putLinks,
	"directories": putDirectories,
	"fifos":       putFIFOs,
}

const attacker = 1234

// eachPrivate calls f with the path of each private folder that is in a folder now.
func eachPrivate(folder string, f func(path string)) {
	fmt.Println("ready")
	dir, err := os.Open(folder)
	if err != nil {
		return
	}
	for {
		names, _ := dir.Readdirnames(-1)
		_, _ = dir.Seek(0, 0)
		for _, name := range names {
			if strings.HasPrefix(name, ".s") {
				f(filepath.Join(folder, name))
			}
		}
	}
}

// putLinks puts a link to a folder of the attacker in the place of the private folder. In
// that one, the socket is a link to the victim.
func putLinks(folder, victim string) {
	trap := filepath.Join(folder, "trap")
	_ = os.Mkdir(trap, 0o777)
	_ = os.Chmod(trap, 0o777)
	_ = os.Symlink(victim, filepath.Join(trap, "s"))
	eachPrivate(folder, func(private string) {
		if os.Rename(private, filepath.Join(folder, "moved"+filepath.Base(private))) == nil {
			_ = os.Symlink(trap, private)
		}
	})
}

// putDirectories puts a folder of the attacker in the place of the private folder, and the
// victim's link in it.
func putDirectories(folder, victim string) {
	eachPrivate(folder, func(private string) {
		if os.Rename(private, filepath.Join(folder, "moved"+filepath.Base(private))) == nil && os.Mkdir(private, 0o777) == nil {
			_ = os.Symlink(victim, filepath.Join(private, "s"))
		}
	})
}

// putFIFOs puts a pipe that nobody writes to in the place of the private folder.
func putFIFOs(folder, _ string) {
	eachPrivate(folder, func(private string) {
		if os.Rename(private, filepath.Join(folder, "moved"+filepath.Base(private))) == nil {
			_ = syscall.Mkfifo(private, 0o666)
		}
	})
}

// startAttack runs one of attacks as another user, in a folder of that user. It returns
// the folder, and the path of a file that only root may read.
func startAttack(t *testing.T, name string) (folder, victim string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can be two users")
	}
	base, err := os.MkdirTemp("", "status") // Others may not enter t.TempDir.
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	require.NoError(t, os.Chmod(base, 0o755))
	program := filepath.Join(base, "program")
	require.NoError(t, exec.Command("install", "-m", "755", os.Args[0], program).Run())
	victim = filepath.Join(base, "victim")
	require.NoError(t, os.WriteFile(victim, []byte("root's"), 0o600))
	folder = filepath.Join(base, "folder")
	require.NoError(t, os.Mkdir(folder, 0o755))
	require.NoError(t, os.Chown(folder, attacker, attacker))

	cmd := exec.Command(program)
	cmd.Env = []string{"BE_AN_ATTACKER=" + name, "ATTACK=" + folder, "VICTIM=" + victim}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: attacker, Gid: attacker}, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", line)
	return folder, victim
}

func TestListen_TouchesNothingElseWhileSomebodySwapsItsFolders(t *testing.T) {
	for name := range attacks {
		t.Run(name, func(t *testing.T) {
			folder, victim := startAttack(t, name)
			was, err := os.Stat(victim)
			require.NoError(t, err)
			uid, gid := attacker, attacker
			made := 0
			for i := range 400 {
				at := config.Listener{Network: "unix", Address: filepath.Join(folder, fmt.Sprint("socket", i)), Mode: 0o666, UID: &uid, GID: &gid}
				bound, err := listen(t.Context(), at)
				if err == nil {
					made++
					require.NoError(t, bound.Close())
				}
				now, err := os.Stat(victim)
				require.NoError(t, err)
				require.Equal(t, was.Mode(), now.Mode(), "start %d", i)
				require.Equal(t, was.Sys().(*syscall.Stat_t).Uid, now.Sys().(*syscall.Stat_t).Uid, "start %d", i)
			}
			t.Logf("%d of 400 sockets were made", made)
			content, err := os.ReadFile(victim)
			require.NoError(t, err)
			assert.Equal(t, "root's", string(content))
		})
	}
}

func listenerIn(folder string) config.Listener {
	return config.Listener{Network: "unix", Address: filepath.Join(folder, "socket"), Mode: 0o640}
}

func names(t *testing.T, folder string) []string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestListen_GivesTheSocketItsModeAndOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may give it to others")
	}
	at := listenerIn(t.TempDir())
	uid, gid := 1234, 2345
	at.UID, at.GID = &uid, &gid
	bound, err := listen(t.Context(), at)
	require.NoError(t, err)
	info, err := os.Lstat(at.Address)
	require.NoError(t, err)
	assert.Equal(t, fs.ModeSocket|0o640, info.Mode())
	assert.Equal(t, uint32(1234), info.Sys().(*syscall.Stat_t).Uid)
	assert.Equal(t, uint32(2345), info.Sys().(*syscall.Stat_t).Gid)
	assert.Equal(t, []string{"socket"}, names(t, filepath.Dir(at.Address)))
	require.NoError(t, bound.Close())
	assert.Empty(t, names(t, filepath.Dir(at.Address)))
}

func TestListen_TakesAPathAsLongAsASocketMayHave(t *testing.T) {
	folder := t.TempDir()
	folder = filepath.Join(folder, strings.Repeat("x", 107-len(folder)-len("//socket")))
	require.NoError(t, os.Mkdir(folder, 0o700))
	at := listenerIn(folder)
	require.Len(t, at.Address, 107)
	bound, err := listen(t.Context(), at)
	require.NoError(t, err)
	conn, err := net.Dial("unix", at.Address)
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	require.NoError(t, bound.Close())
}

// deadSocket leaves a socket behind, as an agent that was killed does.
func deadSocket(t *testing.T, path string) {
	t.Helper()
	bound, err := net.Listen("unix", path)
	require.NoError(t, err)
	bound.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, bound.Close())
}

func TestListen_ReplacesNothingButADeadSocket(t *testing.T) {
	for name, test := range map[string]struct {
		put  func(t *testing.T, path string)
		want string
	}{
		"a dead socket": {deadSocket, ""},
		"a live socket": {func(t *testing.T, path string) {
			bound, err := net.Listen("unix", path)
			require.NoError(t, err)
			t.Cleanup(func() { _ = bound.Close() })
		}, "another process listens there; is another deaddrop running?"},
		"a file": {func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path, nil, 0o600))
		}, "there is something else that is no socket"},
		"a link to a dead socket": {func(t *testing.T, path string) {
			dead := filepath.Join(t.TempDir(), "dead")
			deadSocket(t, dead)
			require.NoError(t, os.Symlink(dead, path))
		}, "there is something else that is no socket"},
	} {
		t.Run(name, func(t *testing.T) {
			at := listenerIn(t.TempDir())
			test.put(t, at.Address)
			was, err := os.Lstat(at.Address)
			require.NoError(t, err)
			bound, err := listen(t.Context(), at)
			if test.want == "" {
				require.NoError(t, err)
				assert.Equal(t, []string{"socket"}, names(t, filepath.Dir(at.Address)))
				require.NoError(t, bound.Close())
				return
			}
			require.ErrorContains(t, err, test.want)
			_, again := listen(t.Context(), at)
			require.EqualError(t, again, err.Error(), "the same error is logged once")
			now, err := os.Lstat(at.Address)
			require.NoError(t, err)
			assert.True(t, os.SameFile(was, now))
			assert.Equal(t, []string{"socket"}, names(t, filepath.Dir(at.Address)))
		})
	}
}

func TestListen_PutsBackWhatCameWhileItMadeTheSocket(t *testing.T) {
	for name, replaced := range map[string]bool{"a free name": false, "the name of a dead socket": true} {
		t.Run(name, func(t *testing.T) {
			folder, err := os.OpenRoot(t.TempDir())
			require.NoError(t, err)
			defer func() { _ = folder.Close() }()
			if replaced {
				deadSocket(t, filepath.Join(folder.Name(), "socket"))
			}
			old, err := findOld(t.Context(), folder, "socket")
			require.NoError(t, err)
			defer old.release()
			private, err := makePrivate(folder)
			require.NoError(t, err)
			deadSocket(t, private.path())

			_ = folder.Remove("socket")
			require.NoError(t, folder.WriteFile("socket", []byte("others'"), 0o600))
			require.Error(t, private.move(folder, "socket", old))
			private.discard()
			content, err := folder.ReadFile("socket")
			require.NoError(t, err)
			assert.Equal(t, "others'", string(content))
			assert.Equal(t, []string{"socket"}, names(t, folder.Name()))
		})
	}
}

func TestIsPrivate_RefusesAFolderThatSomebodyElseCouldHavePutThere(t *testing.T) {
	require.NoError(t, isPrivate(fresh(t, 0o700)))
	require.ErrorIs(t, isPrivate(fresh(t, 0o750)), errReplaced)
	full := fresh(t, 0o700)
	require.NoError(t, os.WriteFile(filepath.Join(full.Name(), "s"), nil, 0o600))
	require.ErrorIs(t, isPrivate(full), errReplaced)
	if os.Geteuid() == 0 {
		others := fresh(t, 0o700)
		require.NoError(t, others.Chown(attacker, -1))
		require.ErrorIs(t, isPrivate(others), errReplaced)
	}
}

// fresh is a new folder.
func fresh(t *testing.T, mode fs.FileMode) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "folder")
	require.NoError(t, os.Mkdir(path, mode))
	dir, err := os.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { _ = dir.Close() })
	return dir
}

func TestSocket_IsRemovedFromTheFolderItWasMadeIn(t *testing.T) {
	base := t.TempDir()
	at := listenerIn(filepath.Join(base, "folder"))
	require.NoError(t, os.Mkdir(filepath.Dir(at.Address), 0o700))
	bound, err := listen(t.Context(), at)
	require.NoError(t, err)
	moved := filepath.Join(base, "moved")
	require.NoError(t, os.Rename(filepath.Dir(at.Address), moved))
	require.NoError(t, os.Mkdir(filepath.Dir(at.Address), 0o700))
	require.NoError(t, os.WriteFile(at.Address, []byte("others'"), 0o600))
	require.NoError(t, bound.Close())
	assert.Empty(t, names(t, moved))
	assert.FileExists(t, at.Address)
}

func TestListen_DoesNotWaitForAFIFOInPlaceOfItsFolder(t *testing.T) {
	at := listenerIn(filepath.Join(t.TempDir(), "folder"))
	require.NoError(t, unix.Mkfifo(filepath.Dir(at.Address), 0o600))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := listen(ctx, at)
	require.ErrorIs(t, err, syscall.ENOTDIR)
}
