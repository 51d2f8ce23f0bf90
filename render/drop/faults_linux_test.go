package drop

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// asChild is set where the test's program is to be a process of its own, which
// is killed, or has other rights: one of the functions in children.
const asChild = "TEST_DROP_CHILD"

var children = map[string]func(dir string) error{
	"file":  func(dir string) error { return writeForEver(dir, oneFile) },
	"set":   func(dir string) error { return writeForEver(dir, oneSet) },
	"limit": writeBeyondLimit,
	"user":  writeAsUser,
	"make":  makeAsUser,

	"no sync":    commitWithoutSync,
	"chown only": makeForAUser,
	"no setgid":  makeWithoutSetgid,
}

func TestMain(m *testing.M) {
	child, dir, is := strings.Cut(os.Getenv(asChild), ":")
	if !is {
		os.Exit(m.Run())
	}
	if err := children[child](dir); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

func child(name, dir string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asChild+"="+name+":"+dir)
	return cmd
}

// body is what a generation looks like: a reader can tell whether it is whole,
// and of which generation it is.
func body(n int) []byte { return bytes.Repeat(fmt.Appendf(nil, "%08d\n", n), 400) }

// generationOf tells which generation a content is of, and whether it is whole.
func generationOf(content []byte) (int, bool) {
	n, err := strconv.Atoi(string(content[:min(8, len(content))]))
	return n, err == nil && bytes.Equal(content, body(n))
}

func oneFile(dir string, n int) Unit {
	return Unit{Files: []File{{Path: filepath.Join(dir, "f"), Content: body(n), Mode: 0o600}}}
}

func oneSet(dir string, n int) Unit {
	set := filepath.Join(dir, "set")
	return Unit{Set: set, Files: []File{
		{Path: filepath.Join(set, "a"), Content: body(n), Mode: 0o600, CreateDirs: true},
		{Path: filepath.Join(set, "b"), Content: body(n), Mode: 0o640},
	}}
}

// writeForEver writes one generation after the other, and a byte to standard
// output for each, until it is killed.
func writeForEver(dir string, unit func(string, int) Unit) error {
	for _, each := range []string{dir, filepath.Join(dir, "set")} {
		if _, err := Clean(each, time.Now()); err != nil {
			return err
		}
	}
	for n := int(time.Now().UnixNano() % 1e7); ; n++ {
		for _, r := range Stage([]Unit{unit(dir, n)}).Commit()[0] {
			if r.Err != nil {
				return r.Err
			}
		}
		_, _ = os.Stdout.Write([]byte{'.'})
	}
}

// written counts the bytes that a writer has written to standard output.
type written struct{ n atomic.Int64 }

func (w *written) Write(p []byte) (int, error) { w.n.Add(int64(len(p))); return len(p), nil }

// rounds is how often a test tries something that seldom goes wrong: a tenth as often with
// -short.
func rounds(full int) int {
	if testing.Short() {
		return full / 10
	}
	return full
}

// killed runs a writer again and again, and kills it at random moments, until it
// has made a thousand writes. A reader looks meanwhile, and after each death.
func killed(t *testing.T, name, dir string, look func()) {
	var writes written
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				look()
			}
		}
	}()
	deaths := 0
	for ; writes.n.Load() < int64(rounds(1000)) || deaths < rounds(100); deaths++ {
		before := writes.n.Load()
		var said bytes.Buffer
		cmd := child(name, dir)
		cmd.Stdout = io.MultiWriter(&writes, &said)
		require.NoError(t, cmd.Start())
		for deadline := time.Now().Add(time.Minute); writes.n.Load() == before && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond) // until it has begun
		}
		time.Sleep(time.Duration(rand.IntN(15_000)) * time.Microsecond)
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait()
		require.Empty(t, strings.Trim(said.String(), "."), "the writer has not failed")
		look()
	}
	close(stop)
	<-stopped
	t.Logf("%d writes, %d deaths", writes.n.Load(), deaths)
}

func TestAWriterThatIsKilledLeavesAWholeFile(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, Stage([]Unit{oneFile(dir, 0)}).Commit()[0][0].Err)
	killed(t, "file", dir, func() {
		content, err := os.ReadFile(filepath.Join(dir, "f"))
		assert.NoError(t, err)
		if _, whole := generationOf(content); !whole {
			t.Errorf("read %d bytes, from %.20q", len(content), content)
		}
	})
	ageLeftovers(t, dir)
	_, err := Clean(dir, time.Now())
	require.NoError(t, err)
	only(t, dir, "f")
}

func TestAWriterThatIsKilledLeavesAWholeSet(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, Stage([]Unit{oneSet(dir, 0)}).Commit()[0][0].Err)
	set := filepath.Join(dir, "set")
	killed(t, "set", dir, func() {
		a, b, ok := readSet(t, set)
		if !ok {
			return // It was replaced between opening and reading.
		}
		na, wholeA := generationOf(a)
		nb, wholeB := generationOf(b)
		if !wholeA || !wholeB || na != nb {
			t.Errorf("read %.20q and %.20q", a, b)
		}
	})
	ageLeftovers(t, set)
	_, err := Clean(set, time.Now())
	require.NoError(t, err)
	generation, err := os.Readlink(filepath.Join(set, dataLink))
	require.NoError(t, err)
	only(t, set, "a", "b", dataLink, generation)
}

// readSet reads both files as a careful reader does: from the folder of one
// generation. ok is false where that generation went away meanwhile.
func readSet(t *testing.T, set string) (a, b []byte, ok bool) {
	data, err := os.OpenRoot(filepath.Join(set, dataLink))
	if err != nil {
		assert.ErrorIs(t, err, fs.ErrNotExist)
		return nil, nil, false
	}
	defer func() { _ = data.Close() }()
	a, errA := data.ReadFile("a")
	b, errB := data.ReadFile("b")
	return a, b, errA == nil && errB == nil
}

// age makes a file or link an hour old.
func age(t *testing.T, path string) {
	t.Helper()
	old := unix.NsecToTimeval(time.Now().Add(-time.Hour).UnixNano())
	require.NoError(t, unix.Lutimes(path, []unix.Timeval{old, old}))
}

// ageLeftovers makes what a killed writer has left old enough for [Clean].
func ageLeftovers(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		age(t, filepath.Join(dir, e.Name()))
	}
}

func TestCleanLeavesAloneWhatIsBeingWritten(t *testing.T) {
	dir := t.TempDir()
	set := filepath.Join(dir, "set")
	left := filepath.Join(dir, tempName("f"))
	require.NoError(t, os.WriteFile(left, []byte("x"), 0o200))
	for _, mine := range []string{".deaddrop-notes.txt", "other"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, mine), nil, 0o600))
	}
	require.NoError(t, os.MkdirAll(filepath.Join(dir, ".deaddrop-config/sub"), 0o700))
	link := filepath.Join(dir, tempName("link"))
	require.NoError(t, os.Symlink("nowhere", link))
	age(t, link)
	require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, tempName("young"))))
	require.NoError(t, os.MkdirAll(filepath.Join(set, generationPrefix+"left"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(set, generationPrefix+"left", "a"), []byte("x"), 0o600))
	batch := Stage([]Unit{oneFile(dir, 1), oneSet(dir, 1)})
	removed, err := Clean(dir, time.Now())
	require.NoError(t, err)
	assert.Equal(t, 2, removed)
	removed, err = Clean(set, time.Now())
	require.NoError(t, err)
	assert.Equal(t, 1, removed)
	for _, results := range batch.Commit() {
		require.NoError(t, results[0].Err)
	}
	removed, err = Clean(filepath.Join(dir, "nowhere"), time.Now())
	require.NoError(t, err)
	assert.Zero(t, removed)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, 6, "f, set, a young link, and three of the user: %v", entries)
	assert.NoFileExists(t, left)
}

func TestCleanNeverTakesTheLiveGeneration(t *testing.T) {
	set := filepath.Join(t.TempDir(), "set")
	stop := make(chan struct{})
	var cleaners sync.WaitGroup
	for range 4 {
		cleaners.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_, _ = Clean(set, time.Now())
				}
			}
		})
	}
	for n := range rounds(300) {
		require.NoError(t, errOf(Stage([]Unit{oneSet(filepath.Dir(set), n)}).Commit()))
		a, b, ok := readSet(t, set)
		require.True(t, ok)
		require.Equal(t, a, b)
	}
	close(stop)
	cleaners.Wait()
}

func TestASetThatCannotBeLinkedIsAsItWas(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, first(dir))
	set := filepath.Join(dir, "set")
	unit := oneSet(dir, 2)
	unit.Files = append(unit.Files, File{Path: filepath.Join(set, "c"), Content: body(2), Mode: 0o600}, File{Path: filepath.Join(set, "d"), Content: body(2), Mode: 0o600})
	batch := Stage([]Unit{unit})
	require.NoError(t, os.Mkdir(filepath.Join(set, "d"), 0o700))
	err := errOf(batch.Commit())
	require.NoError(t, os.Remove(filepath.Join(set, "d")))
	untouched(t, dir, func() error { return err }, "file exists")
}

func TestInPlaceNeedsNoFolderThatTakesFiles(t *testing.T) {
	dir := t.TempDir()
	source, work := filepath.Join(dir, "source"), filepath.Join(dir, "work")
	require.NoError(t, os.WriteFile(source, []byte("old"), 0o644))
	require.NoError(t, os.Mkdir(work, 0o700))
	path := filepath.Join(work, "f")
	if err := syscall.Mount("tmpfs", work, "tmpfs", 0, ""); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v", err)
	}
	defer func() { _ = syscall.Unmount(work, syscall.MNT_DETACH) }()
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.NoError(t, syscall.Mount(source, path, "", syscall.MS_BIND, ""))
	require.NoError(t, syscall.Mount("tmpfs", work, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	uid := 1234
	batch := Stage([]Unit{{Files: []File{{Path: path, Content: []byte("new"), Mode: 0o600, UID: &uid, InPlace: true}}}})
	pending, err := os.ReadFile(batch.Pending(0))
	require.NoError(t, err)
	assert.Equal(t, "new", string(pending), "a check can look at it")
	require.NoError(t, errOf(batch.Commit()))
	content, err := os.ReadFile(source)
	require.NoError(t, err)
	assert.Equal(t, "new", string(content))
	info, err := os.Stat(source)
	require.NoError(t, err)
	owner, _ := ownerOf(info)
	assert.Equal(t, 1234, owner)
	assert.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
}

func TestInPlaceFollowsNoLink(t *testing.T) {
	dir := t.TempDir()
	path, victim := filepath.Join(dir, "f"), filepath.Join(dir, "victim")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o600))
	require.NoError(t, os.WriteFile(victim, []byte("victim"), 0o644))
	batch := Stage([]Unit{{Files: []File{{Path: path, Content: []byte("secret"), Mode: 0o600, InPlace: true}}}})
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Symlink("victim", path))
	require.ErrorContains(t, errOf(batch.Commit()), "replaced meanwhile")
	content, err := os.ReadFile(victim)
	require.NoError(t, err)
	assert.Equal(t, "victim", string(content))
}

// untouched asserts that a write fails, and that file and set stay as they are.
func untouched(t *testing.T, dir string, write func() error, reason string) {
	t.Helper()
	err := write()
	require.ErrorContains(t, err, reason)
	assert.NotContains(t, err.Error(), tempPrefix)
	assert.NotContains(t, err.Error(), "00000002")
	content, err := os.ReadFile(filepath.Join(dir, "f"))
	require.NoError(t, err)
	assert.Equal(t, body(1), content)
	a, b, ok := readSet(t, filepath.Join(dir, "set"))
	assert.True(t, ok)
	assert.Equal(t, body(1), a)
	assert.Equal(t, body(1), b)
	only(t, dir, "f", "set")
	generation, err := os.Readlink(filepath.Join(dir, "set", dataLink))
	require.NoError(t, err)
	only(t, filepath.Join(dir, "set"), "a", "b", dataLink, generation)
}

func first(dir string) error { return errOf(Stage([]Unit{oneFile(dir, 1), oneSet(dir, 1)}).Commit()) }

func errOf(results [][]Result) error {
	for _, some := range results {
		for _, r := range some {
			if r.Err != nil {
				return r.Err
			}
		}
	}
	return nil
}

func second(unit func(string, int) Unit, dir string) func() error {
	return func() error { return errOf(Stage([]Unit{unit(dir, 2)}).Commit()) }
}

func TestAReadOnlyFolderLeavesTheOldFilesAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v", err)
	}
	defer func() { _ = syscall.Unmount(dir, 0) }()
	require.NoError(t, first(dir))
	require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	untouched(t, dir, second(oneFile, dir), "read-only file system")
	untouched(t, dir, second(oneSet, dir), "read-only file system")
}

func TestAFullDiskLeavesTheOldSetAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=16k"); err != nil {
		t.Skipf("cannot mount a small tmpfs here: %v", err)
	}
	defer func() { _ = syscall.Unmount(dir, 0) }()
	require.NoError(t, first(dir))
	untouched(t, dir, second(oneSet, dir), "no space left on device")
}

// writeBeyondLimit is a process that may not write so large a file. Quotas of
// file systems cannot be set up everywhere; to the writer this limit is like them.
func writeBeyondLimit(dir string) error {
	signal.Ignore(syscall.SIGXFSZ)
	limit := syscall.Rlimit{Cur: 1000, Max: 1000}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	fmt.Println(second(oneFile, dir)())
	fmt.Println(second(oneSet, dir)())
	return nil
}

func TestALimitOnTheSizeOfFilesLeavesTheOldOnesAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, first(dir))
	untouched(t, dir, func() error {
		out, err := child("limit", dir).CombinedOutput()
		require.NoError(t, err, string(out))
		assert.Equal(t, 2, strings.Count(string(out), "file too large"), string(out))
		return fmt.Errorf("%s", out)
	}, "file too large")
}

// commitWithoutSync is a process whose syncs fail when all files are written.
func commitWithoutSync(dir string) error {
	units := []Unit{oneFile(dir, 2), oneSet(dir, 2), {Files: []File{{Path: filepath.Join(dir, "new"), Content: body(2), Mode: 0o600}}}}
	units[1].Files[0].Content = body(1)
	batch := Stage(units)
	if err := filterCalls([]unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_FSYNC},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0x00050000 | uint32(unix.EIO)},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0x7fff0000},
	}); err != nil {
		return err
	}
	for _, results := range batch.Commit() {
		for _, r := range results {
			fmt.Println(r.Outcome, r.Err, r.Unsynced, errors.Is(r.Unsynced, syscall.EIO))
		}
	}
	for _, r := range Stage(units[2:]).Commit()[0] {
		fmt.Println(r.Outcome, r.Err, r.Unsynced)
	}
	fmt.Println(SyncBelow("", dir))
	return nil
}

func TestCommit_SaysThatFilesAreInPlaceWhereTheirFolderCannotBeSynced(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, first(dir))
	out, err := child("no sync", dir).CombinedOutput()
	require.NoError(t, err, string(out))
	unsynced := "syncing folder " + dir + ": input/output error"
	inSet := "syncing folder " + filepath.Join(dir, "set") + ": input/output error"
	assert.Equal(t, []string{
		fmt.Sprint(Changed, " <nil> ", unsynced, " true"),
		fmt.Sprint(Unchanged, " <nil> ", inSet, " true"),
		fmt.Sprint(Changed, " <nil> ", inSet, " true"),
		fmt.Sprint(Created, " <nil> ", unsynced, " true"),
		fmt.Sprint(Unchanged, " <nil> <nil>"), // It syncs nothing.
		unsynced,
	}, strings.Split(strings.TrimSpace(string(out)), "\n"))
	for name, want := range map[string]int{"f": 2, "new": 2, "set/a": 1, "set/b": 2} {
		content, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		assert.Equal(t, body(want), content, name)
	}
	generation, err := os.Readlink(filepath.Join(dir, "set", dataLink))
	require.NoError(t, err)
	only(t, filepath.Join(dir, "set"), "a", "b", dataLink, generation)
	only(t, dir, "f", "new", "set")
	require.NoError(t, SyncBelow(dir, filepath.Join(dir, "set")))
	require.ErrorIs(t, SyncBelow(dir, filepath.Join(dir, "nowhere")), fs.ErrNotExist)
}

func TestAFolderThatIsReplacedMidwayIsNotWrittenTo(t *testing.T) {
	base := t.TempDir()
	dir, moved, trap := filepath.Join(base, "dir"), filepath.Join(base, "moved"), filepath.Join(base, "trap")
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.Mkdir(trap, 0o700))
	require.NoError(t, first(dir))
	batch := Stage([]Unit{oneFile(dir, 2), oneSet(dir, 2)})
	require.NoError(t, os.Rename(dir, moved))
	require.NoError(t, os.Symlink(trap, dir))
	results := batch.Commit()
	require.ErrorContains(t, results[1][0].Err, "folder "+filepath.Join(dir, "set")+" was moved away or replaced meanwhile")
	untouched(t, moved, func() error { return results[0][0].Err }, "folder "+dir+" was moved away or replaced meanwhile")
	only(t, trap)
}

// writeAsUser is a process without rights, whose folder and group are its own,
// but not the file in it.
func writeAsUser(dir string) error {
	path := filepath.Join(dir, "f")
	r := Write([]File{{Path: path, Content: []byte("new"), Mode: 0o640}})[0]
	fmt.Println(r.Err, r.Warnings)
	uid := 0
	fmt.Println(Write([]File{{Path: path, Content: []byte("newer"), Mode: 0o640, UID: &uid}})[0].Err)
	return nil
}

func TestAnAgentThatIsNotRootKeepsTheGroupWhereItMay(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become someone else")
	}
	dir, err := os.MkdirTemp("", "drop") // Others can enter it, other than t.TempDir.
	require.NoError(t, err)
	defer func() { _ = os.RemoveAll(dir) }()
	require.NoError(t, os.Chmod(dir, 0o755))
	program := filepath.Join(dir, "program")
	// Another program writes it: a process that is forked here meanwhile would have it open.
	require.NoError(t, exec.Command("install", "-m", "755", os.Args[0], program).Run())
	for name, tc := range map[string]struct {
		uid, gid, wantGID int
		says              string
	}{
		"its own file, a group that it is in":   {1234, 2345, 2345, "<nil> []"},
		"another's file, a group it is not in":  {0, 0, 1234, "<nil> [its group was 0, which this agent is not in, and is the agent's own now it belonged to user 0, and belongs to the agent now, which is not root]"},
		"another's file, a group that it is in": {0, 2345, 2345, "<nil> [it belonged to user 0, and belongs to the agent now, which is not root]"},
	} {
		work := filepath.Join(dir, "work")
		require.NoError(t, os.Mkdir(work, 0o700))
		require.NoError(t, os.Chown(work, 1234, 1234))
		require.NoError(t, os.WriteFile(filepath.Join(work, "f"), []byte("old"), 0o640))
		require.NoError(t, os.Chown(filepath.Join(work, "f"), tc.uid, tc.gid))
		cmd := child("user", work)
		cmd.Path = program
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1234, Gid: 1234, Groups: []uint32{2345}}}
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		lines := strings.Split(string(out), "\n")
		assert.Equal(t, tc.says, lines[0], name)
		assert.Contains(t, lines[1], "giving it to user 0: operation not permitted; only root, or who has CAP_CHOWN, may do that")
		info, err := os.Stat(filepath.Join(work, "f"))
		require.NoError(t, err)
		uid, gid := ownerOf(info)
		assert.Equal(t, []int{1234, tc.wantGID}, []int{uid, gid}, name)
		only(t, work, "f")
		require.NoError(t, os.RemoveAll(work))
	}
}

func TestOwnerIsSetBeforeTheContentAndMendedLater(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	dir := t.TempDir()
	path, uid, gid := filepath.Join(dir, "f"), 1234, 2345
	f := File{Path: path, Content: []byte("x"), Mode: 0o440, UID: &uid, GID: &gid}
	owner := func(path string) []int {
		info, err := os.Stat(path)
		require.NoError(t, err)
		u, g := ownerOf(info)
		return []int{u, g}
	}
	require.NoError(t, write(t, f).Err)
	assert.Equal(t, []int{uid, gid}, owner(path))
	uid = 77
	assert.Equal(t, Result{Outcome: Unchanged}, write(t, f))
	assert.Equal(t, []int{77, gid}, owner(path))
	set := Unit{Set: filepath.Join(dir, "set"), Files: []File{{Path: filepath.Join(dir, "set", "a"), Content: []byte("x"), Mode: 0o400, UID: &uid, CreateDirs: true}}}
	require.NoError(t, errOf(Stage([]Unit{set}).Commit()))
	assert.Equal(t, []int{77, 0}, owner(filepath.Join(dir, "set", "a")))
}

func TestInPlaceWritesIntoABindMountedFile(t *testing.T) {
	dir := t.TempDir()
	source, path := filepath.Join(dir, "source"), filepath.Join(dir, "mounted")
	require.NoError(t, os.WriteFile(source, []byte("old content that is longer"), 0o640))
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	if err := syscall.Mount(source, path, "", syscall.MS_BIND, ""); err != nil {
		t.Skipf("cannot bind-mount here: %v", err)
	}
	defer func() { _ = syscall.Unmount(path, 0) }()
	res := write(t, File{Path: path, Content: []byte("new"), Mode: 0o600})
	require.EqualError(t, res.Err, "writing "+path+`: it is a mount of its own, which cannot be replaced; mount its folder instead, or set write = "in_place"`)
	before, err := os.Stat(source)
	require.NoError(t, err)
	assert.Equal(t, Result{Outcome: Changed, Warnings: []string{"its mode was 0640, and is 0600 now: write perms = \"0640\" to keep it"}}, write(t, File{Path: path, Content: []byte("new"), Mode: 0o600, InPlace: true}))
	assert.Equal(t, Result{Outcome: Unchanged}, write(t, File{Path: path, Content: []byte("new"), Mode: 0o600, InPlace: true}))
	after, err := os.Stat(source)
	require.NoError(t, err)
	assert.True(t, os.SameFile(before, after))
	content, err := os.ReadFile(source)
	require.NoError(t, err)
	assert.Equal(t, "new", string(content))
	assert.Equal(t, Result{Outcome: Created}, write(t, File{Path: filepath.Join(dir, "fresh"), Content: []byte("new"), Mode: 0o600, InPlace: true}))
	only(t, dir, "source", "mounted", "fresh")
}

func TestInPlacePutsTheOldContentBackWhereTheNewOneDoesNotFit(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("cannot mount a small tmpfs here: %v", err)
	}
	defer func() { _ = syscall.Unmount(dir, 0) }()
	path := filepath.Join(dir, "f")
	old := bytes.Repeat([]byte("o"), 8<<10)
	require.NoError(t, write(t, File{Path: path, Content: old, Mode: 0o600}).Err)
	// The temporary file fits, but both do not.
	res := write(t, File{Path: path, Content: bytes.Repeat([]byte("n"), 44<<10), Mode: 0o600, InPlace: true})
	require.ErrorContains(t, res.Err, "no space left on device")
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, old, content)
	only(t, dir, "f")
}

func TestManyFilesNeedFewOpenOnes(t *testing.T) {
	var old syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old))
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 200, Max: old.Max}))
	defer func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old) }()
	var files []File
	dir := t.TempDir()
	for i := range 500 {
		files = append(files, File{Path: filepath.Join(dir, strconv.Itoa(i)), Content: []byte("x"), Mode: 0o600})
	}
	for _, r := range Write(files) {
		require.NoError(t, r.Err)
	}
}
