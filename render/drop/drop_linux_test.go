package drop

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// write writes a file. It checks the stamp in the result, and leaves it out.
func write(t *testing.T, f File) Result {
	t.Helper()
	r := Write([]File{f})[0]
	is, err := StampOf(f.Place, f.Path)
	if r.Err != nil {
		is = Stamp{}
	} else {
		require.NoError(t, err)
		require.NotZero(t, is)
	}
	assert.Equal(t, is, r.Stamp)
	r.Stamp = Stamp{}
	return r
}

// only asserts that a folder holds these names: no temporary file is left.
func only(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	got := []string{}
	for _, e := range entries {
		got = append(got, e.Name())
	}
	assert.ElementsMatch(t, names, got)
}

func mode(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	return info.Mode().Perm()
}

func TestWriteCreatesChangesAndLeavesAlone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "nexa.env")

	assert.Equal(t, Result{Outcome: Created}, write(t, File{Path: path, Content: []byte("A=1\n"), Mode: 0o600}))
	before, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o600), mode(t, path))

	assert.Equal(t, Result{Outcome: Unchanged}, write(t, File{Path: path, Content: []byte("A=1\n"), Mode: 0o600}))
	after, err := os.Stat(path)
	require.NoError(t, err)
	assert.True(t, os.SameFile(before, after), "the same inode")
	assert.Equal(t, before.ModTime(), after.ModTime())

	assert.Equal(t, Result{Outcome: Changed}, write(t, File{Path: path, Content: []byte("A=2\n"), Mode: 0o600}))
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "A=2\n", string(content))
	only(t, dir, "nexa.env")
}

func TestWriteSetsTheModeWhateverTheUmask(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	path := filepath.Join(t.TempDir(), "f")
	write(t, File{Path: path, Content: []byte("x"), Mode: 0o640})
	assert.Equal(t, fs.FileMode(0o640), mode(t, path))
}

func TestWriteMendsTheModeOfAnUnchangedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(path, []byte("x"), 0o644))
	r := write(t, File{Path: path, Content: []byte("x"), Mode: 0o600})
	assert.Equal(t, Result{Outcome: Unchanged, Warnings: []string{"its mode was 0644, and is 0600 now: write perms = \"0644\" to keep it"}}, r)
	assert.Equal(t, fs.FileMode(0o600), mode(t, path))
}

func TestAModeThatIsAnotherOneNowIsToldOnce(t *testing.T) {
	dir := t.TempDir()
	const told = "its mode was 0644, and is 0600 now: write perms = \"0644\" to keep it"
	for name, write := range map[string]func(content string) []string{
		"of a file": func(content string) []string {
			return write(t, File{Path: filepath.Join(dir, "file"), Content: []byte(content), Mode: 0o600}).Warnings
		},
		"in place": func(content string) []string {
			return write(t, File{Path: filepath.Join(dir, "in place"), Content: []byte(content), Mode: 0o600, InPlace: true}).Warnings
		},
		"in a set": func(content string) []string {
			return Stage([]Unit{setOf(dir, "in a set", content)}).Commit()[0][0].Warnings
		},
	} {
		path := filepath.Join(dir, strings.TrimPrefix(name, "of a "))
		require.NoError(t, os.WriteFile(path, []byte("x"), 0o644))
		assert.Equal(t, []string{told}, write("y"), name)
		assert.Empty(t, write("z"), name)
		require.NoError(t, os.Chmod(path, 0o644))
		assert.Equal(t, []string{told}, write("z"), name)
		assert.Empty(t, write("z"), name)
		assert.Equal(t, fs.FileMode(0o600), mode(t, path), name)
	}
	assert.Empty(t, write(t, File{Path: filepath.Join(dir, "new"), Mode: 0o600}).Warnings)
}

func TestWriteMakesMissingFoldersPrivate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a", "b", "f")
	res := write(t, File{Path: path, Content: []byte("x"), Mode: 0o600})
	require.ErrorContains(t, res.Err, "does not exist; create it or set create_dest_dirs = true")

	res = write(t, File{Path: path, Content: []byte("x"), Mode: 0o600, CreateDirs: true})
	require.NoError(t, res.Err)
	assert.Equal(t, fs.FileMode(0o700), mode(t, filepath.Join(dir, "a")))
	assert.Equal(t, fs.FileMode(0o700), mode(t, filepath.Join(dir, "a", "b")))
}

func TestWriteRefusesWhatIsNoRegularFile(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	require.NoError(t, os.WriteFile(target, []byte("precious"), 0o600))
	link, dangling, folder, fifo := filepath.Join(dir, "link"), filepath.Join(dir, "dangling"), filepath.Join(dir, "folder"), filepath.Join(dir, "fifo")
	require.NoError(t, os.Symlink(target, link))
	require.NoError(t, os.Symlink(filepath.Join(dir, "nowhere"), dangling))
	require.NoError(t, os.Mkdir(folder, 0o700))
	require.NoError(t, syscall.Mkfifo(fifo, 0o600))

	for path, reason := range map[string]string{link: "is a symbolic link", dangling: "is a symbolic link", folder: "is a folder", fifo: "is not a regular file"} {
		require.ErrorIs(t, Check(path), ErrRefused)
		res := write(t, File{Path: path, Content: []byte("x"), Mode: 0o600})
		assert.Equal(t, Failed, res.Outcome)
		require.ErrorIs(t, res.Err, ErrRefused)
		require.ErrorContains(t, res.Err, reason)
	}
	require.NoError(t, Check(target))
	require.NoError(t, Check(filepath.Join(dir, "new")))
	content, err := os.ReadFile(target)
	require.NoError(t, err)
	assert.Equal(t, "precious", string(content))
	only(t, dir, "target", "link", "dangling", "folder", "fifo")
}

func TestOneFailureLeavesTheOtherFilesToBeWritten(t *testing.T) {
	dir := t.TempDir()
	blocked := filepath.Join(dir, "blocked")
	require.NoError(t, os.Mkdir(blocked, 0o700))
	results := Write([]File{
		{Path: filepath.Join(dir, "a"), Content: []byte("a"), Mode: 0o600},
		{Path: blocked, Content: []byte("b"), Mode: 0o600},
		{Path: filepath.Join(dir, "c"), Content: []byte("c"), Mode: 0o600},
	})
	assert.Equal(t, []Outcome{Created, Failed, Created}, []Outcome{results[0].Outcome, results[1].Outcome, results[2].Outcome})
	only(t, dir, "a", "blocked", "c")
}

func TestAFullDiskLeavesTheOldFileAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("cannot mount a small tmpfs here: %v", err)
	}
	defer func() { _ = syscall.Unmount(dir, 0) }()
	path := filepath.Join(dir, "f")
	require.NoError(t, write(t, File{Path: path, Content: []byte("old"), Mode: 0o600}).Err)

	res := write(t, File{Path: path, Content: bytes.Repeat([]byte("n"), 1<<20), Mode: 0o600})
	require.ErrorIs(t, res.Err, syscall.ENOSPC)
	assert.EqualError(t, res.Err, "writing "+path+": no space left on device")
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "old", string(content))
	only(t, dir, "f")
}

func TestABindMountedFileIsNotReplacedAndTheMessageSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	source, path := filepath.Join(dir, "source"), filepath.Join(dir, "mounted")
	require.NoError(t, os.WriteFile(source, []byte("old"), 0o600))
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	if err := syscall.Mount(source, path, "", syscall.MS_BIND, ""); err != nil {
		t.Skipf("cannot bind-mount here: %v", err)
	}
	defer func() { _ = syscall.Unmount(path, 0) }()
	res := write(t, File{Path: path, Content: []byte("new"), Mode: 0o600})
	require.ErrorContains(t, res.Err, "mount its folder instead")
	only(t, dir, "source", "mounted")
}

func TestReadersOnlyEverSeeAWholeFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	content := func(i int) []byte { return []byte(strings.Repeat(strconv.Itoa(i%10), 100_000)) }
	require.NoError(t, write(t, File{Path: path, Content: content(0), Mode: 0o600}).Err)
	done := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			got, err := os.ReadFile(path)
			if !assert.NoError(t, err) || !assert.Len(t, got, 100_000) || !assert.Equal(t, len(got), bytes.Count(got, got[:1])) {
				return
			}
		}
	})
	for i := range 200 {
		assert.NoError(t, write(t, File{Path: path, Content: content(i), Mode: 0o600}).Err)
	}
	close(done)
	reader.Wait()
}

func TestErrorsHoldNoContent(t *testing.T) {
	res := write(t, File{Path: "/proc/deaddrop/f", Content: []byte("m4rker"), Mode: 0o600, CreateDirs: true})
	require.Error(t, res.Err)
	assert.NotContains(t, res.Err.Error(), "m4rker")
	assert.NotContains(t, res.Err.Error(), tempPrefix)
}
