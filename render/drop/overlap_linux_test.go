package drop

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// beyondOpen is more units than stay open.
const beyondOpen = maxOpen + 20

// manyUnits are as many files, each in a folder of its own, and as many sets.
func manyUnits(dir string, n int, content string) []Unit {
	var units []Unit
	for i := range n {
		f := File{Path: filepath.Join(dir, fmt.Sprint("folder-", i), "f"), Content: []byte(content), Mode: 0o600, CreateDirs: true}
		units = append(units, Unit{Files: []File{f}}, setOf(filepath.Join(dir, fmt.Sprint("set-", i)), "a", content, "b", content))
	}
	return units
}

func TestStage_NeedsFewOpenFilesForManyFoldersAndSets(t *testing.T) {
	var old syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old))
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 350, Max: old.Max}))
	defer func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old) }()
	dir := t.TempDir()
	for _, want := range []Outcome{Created, Unchanged} {
		for _, results := range Stage(manyUnits(dir, 250, "x")).Commit() {
			for _, r := range results {
				require.NoError(t, r.Err)
				require.Equal(t, want, r.Outcome)
			}
		}
	}
}

func TestStage_KeepsTheFailureOfAUnitToItself(t *testing.T) {
	dir := t.TempDir()
	units := manyUnits(dir, beyondOpen, "x")
	isBlocked := func(i int) bool { return i%3 == 0 }
	for i, u := range units {
		if isBlocked(i) {
			require.NoError(t, os.MkdirAll(u.Files[0].Path, 0o700))
		}
	}
	for i, results := range Stage(units).Commit() {
		for _, r := range results {
			if isBlocked(i) {
				require.ErrorIs(t, r.Err, ErrRefused)
				require.ErrorContains(t, r.Err, "writing "+units[i].name())
			} else {
				require.NoError(t, r.Err)
				require.Equal(t, Created, r.Outcome)
			}
		}
	}
}

func TestCommit_PutsTheUnitsOfAFolderInPlaceInTheirOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	var files []File
	for i := range 50 {
		files = append(files, File{Path: path, Content: []byte(fmt.Sprint(i)), Mode: 0o600})
	}
	for _, r := range Write(files) {
		require.NoError(t, r.Err)
	}
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "49", string(content))
}

func TestCommit_RefusesAFolderThatWasReplacedWhileItWasNotHeld(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, errOf(Stage(manyUnits(dir, beyondOpen, "1")).Commit()))
	batch := Stage(manyUnits(dir, beyondOpen, "2"))
	replaced := map[int]string{2*beyondOpen - 2: "folder-", 2*beyondOpen - 1: "set-"}
	for _, name := range replaced {
		path := filepath.Join(dir, fmt.Sprint(name, beyondOpen-1))
		require.NoError(t, os.Rename(path, path+".moved"))
		require.NoError(t, os.Mkdir(path, 0o700))
	}
	for i, results := range batch.Commit() {
		if name, is := replaced[i]; is {
			path := filepath.Join(dir, fmt.Sprint(name, beyondOpen-1))
			require.ErrorContains(t, results[0].Err, "folder "+path+" was moved away or replaced meanwhile")
			only(t, path)
			continue
		}
		require.NoError(t, results[0].Err)
	}
	content, err := os.ReadFile(filepath.Join(dir, fmt.Sprint("folder-", beyondOpen-1)+".moved", "f"))
	require.NoError(t, err)
	assert.Equal(t, "1", string(content))
}

func TestCommit_LinksToNoGenerationThatACleanerHasRemoved(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, errOf(Stage(manyUnits(dir, beyondOpen, "1")).Commit()))
	units := manyUnits(dir, beyondOpen, "2")
	batch := Stage(units)
	cleaned := 0
	for i, u := range units {
		if u.Set == "" {
			continue
		}
		age(t, batch.Pending(i))
		removed, err := Clean(u.Set, time.Now())
		require.NoError(t, err)
		cleaned += removed
		require.Equal(t, i < maxOpen, removed == 0, "the first are locked")
	}
	require.Positive(t, cleaned)
	for i, results := range batch.Commit() {
		want := "2"
		if units[i].Set != "" && i >= maxOpen {
			require.ErrorIs(t, results[0].Err, errReplaced)
			want = "1"
		} else {
			require.NoError(t, results[0].Err)
		}
		content, err := os.ReadFile(units[i].Files[0].Path)
		require.NoError(t, err)
		require.Equal(t, want, string(content))
	}
	require.NoError(t, errOf(Stage(units).Commit()), "the next try writes them")
}

func TestReject_LeavesNothingOfAUnitThatIsNotOpen(t *testing.T) {
	dir := t.TempDir()
	units := manyUnits(dir, beyondOpen, "1")
	batch := Stage(units)
	for i := range units {
		batch.Reject(i, fs.ErrInvalid)
	}
	for i, results := range batch.Commit() {
		require.ErrorIs(t, results[0].Err, fs.ErrInvalid)
		only(t, filepath.Dir(units[i].Files[0].Path))
	}
}
