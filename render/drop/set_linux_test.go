package drop

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// setOf is a set of files with these contents, by name in turn.
func setOf(dir string, pairs ...string) Unit {
	u := Unit{Set: dir}
	for i := 0; i < len(pairs); i += 2 {
		u.Files = append(u.Files, File{Path: filepath.Join(dir, pairs[i]), Content: []byte(pairs[i+1]), Mode: 0o600, CreateDirs: true})
	}
	return u
}

func stage(t *testing.T, u Unit) []Outcome {
	t.Helper()
	var outcomes []Outcome
	results := Stage([]Unit{u}).Commit()[0]
	stamps, errs := Stamps([]Unit{u})
	require.NoError(t, errs[0])
	for i, r := range results {
		require.NoError(t, r.Err)
		require.NotZero(t, r.Stamp)
		assert.Equal(t, stamps[0][i], r.Stamp)
		outcomes = append(outcomes, r.Outcome)
	}
	return outcomes
}

func TestASetChangesAsAWhole(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "set")
	read := func(name string) string {
		content, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		return string(content)
	}
	generation := func() string {
		name, err := os.Readlink(filepath.Join(dir, dataLink))
		require.NoError(t, err)
		return name
	}
	assert.Equal(t, []Outcome{Created, Created}, stage(t, setOf(dir, "a", "1", "b", "1")))
	assert.Equal(t, fs.FileMode(0o700), mode(t, dir))
	assert.Equal(t, fs.FileMode(0o600), mode(t, filepath.Join(dir, "a")))
	first := generation()
	assert.Equal(t, []Outcome{Unchanged, Unchanged}, stage(t, setOf(dir, "a", "1", "b", "1")))
	assert.Equal(t, first, generation())
	assert.Equal(t, []Outcome{Unchanged, Changed}, stage(t, setOf(dir, "a", "1", "b", "2")))
	assert.Equal(t, "1", read("a"))
	assert.Equal(t, "2", read("b"))
	only(t, dir, "a", "b", dataLink, generation())

	assert.Equal(t, []Outcome{Unchanged, Created}, stage(t, setOf(dir, "a", "1", "c", "3")))
	only(t, dir, "a", "c", dataLink, generation())
	require.NoError(t, os.Remove(filepath.Join(dir, "c")))
	assert.Equal(t, []Outcome{Unchanged, Created}, stage(t, setOf(dir, "a", "1", "c", "3")), "a link that was lost comes back")
	assert.Equal(t, "3", read("c"))

	require.NoError(t, RemoveSet(dir))
	only(t, dir)
	require.NoError(t, RemoveSet(dir))
	require.NoError(t, RemoveSet(filepath.Join(dir, "nowhere")))
}

func TestASetTakesOverFilesAndRefusesWhatIsNone(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a"), []byte("of a drop before"), 0o600))
	assert.Equal(t, []Outcome{Created}, stage(t, setOf(dir, "a", "1")))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "folder"), 0o700))
	require.NoError(t, os.Symlink("/etc/passwd", filepath.Join(dir, "link")))
	for _, name := range []string{"folder", "link"} {
		r := Stage([]Unit{setOf(dir, "a", "2", name, "2")}).Commit()[0]
		require.Len(t, r, 2)
		for _, each := range r {
			require.ErrorIs(t, each.Err, ErrRefused)
		}
	}
	content, err := os.ReadFile(filepath.Join(dir, "a"))
	require.NoError(t, err)
	assert.Equal(t, "1", string(content))
	r := Stage([]Unit{{Set: "/nowhere/set", Files: []File{{Path: "/nowhere/set/a"}}}}).Commit()[0][0]
	require.ErrorContains(t, r.Err, "folder /nowhere/set does not exist")
}

func TestWhatIsPendingCanBeLookedAtAndRejected(t *testing.T) {
	dir := t.TempDir()
	set, file := filepath.Join(dir, "set"), filepath.Join(dir, "f.json")
	units := []Unit{setOf(set, "a", "1"), {Files: []File{{Path: file, Content: []byte("1"), Mode: 0o600}}}}
	batch := Stage(units)
	content, err := os.ReadFile(filepath.Join(batch.Pending(0), "a"))
	require.NoError(t, err)
	assert.Equal(t, "1", string(content))
	content, err = os.ReadFile(batch.Pending(1))
	require.NoError(t, err)
	assert.Equal(t, "1", string(content))
	assert.Equal(t, ".json", filepath.Ext(batch.Pending(1)), "checks may go by the ending")
	batch.Reject(0, fs.ErrInvalid)
	batch.Reject(1, fs.ErrInvalid)
	for _, results := range batch.Commit() {
		assert.Equal(t, []Result{{Outcome: Failed, Err: fs.ErrInvalid}}, results)
	}
	only(t, dir, "set")
	only(t, set)

	require.NoError(t, errOf(Stage(units).Commit()))
	batch = Stage(units)
	assert.Empty(t, batch.Pending(0), "nothing has changed")
	assert.Empty(t, batch.Pending(1))
	require.NoError(t, errOf(batch.Commit()))
}

func TestBackupKeepsTheContentBefore(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, content := range []string{"1", "2", "3", "3"} {
		require.NoError(t, write(t, File{Path: path, Content: []byte(content), Mode: 0o600, Backup: true}).Err)
	}
	content, err := os.ReadFile(path + ".bak")
	require.NoError(t, err)
	assert.Equal(t, "2", string(content))
	assert.Equal(t, fs.FileMode(0o600), mode(t, path+".bak"))
	only(t, dir, "f", "f.bak")
}

func TestRemoveTakesOnlyFilesAway(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	removed, err := Remove(path)
	require.NoError(t, err)
	assert.True(t, removed)
	removed, err = Remove(path)
	require.NoError(t, err)
	assert.False(t, removed)
	_, err = Remove(dir)
	require.ErrorIs(t, err, ErrRefused)
}

func TestInspectTellsWhoMayWriteToAFolder(t *testing.T) {
	dir := t.TempDir()
	for mode, others := range map[fs.FileMode]bool{0o700: false, 0o775: false, 0o777: true} {
		require.NoError(t, os.Chmod(dir, mode))
		folder, err := Inspect(dir)
		require.NoError(t, err)
		assert.Equal(t, others, folder.OthersMayWrite, mode)
	}
	folder, err := Inspect(filepath.Join(dir, "new", "er"))
	require.NoError(t, err)
	assert.False(t, folder.OthersMayWrite, "the agent makes it")
	folder, err = Inspect("/dev/shm")
	require.NoError(t, err)
	assert.False(t, folder.OnDisk)
	_, err = Inspect("/proc/self/comm/x")
	require.Error(t, err)
}

func TestInspect_NamesTheFileSystemAndItsMount(t *testing.T) {
	const table = "20 1 254:0 / / rw - ext4 /dev/vda rw\n" +
		"21 20 0:5 / /dev/shm rw shared:3 - tmpfs tmpfs rw\n" +
		"22 20 0:6 / /srv/a\\040b rw - xfs /dev/vdb rw\n" +
		"23 22 0:7 / /srv/a\\040b rw - tmpfs tmpfs rw\n" +
		"broken\n"
	for dir, want := range map[string][2]string{
		"/":          {"/", "ext4"},
		"/run":       {"/", "ext4"},
		"/dev/shm":   {"/dev/shm", "tmpfs"},
		"/dev/shm/x": {"/dev/shm", "tmpfs"},
		"/dev/shmx":  {"/", "ext4"},
		"/srv/a b/c": {"/srv/a b", "tmpfs"},
	} {
		at, kind := findMount(table, dir)
		assert.Equal(t, want, [2]string{at, kind}, dir)
	}
	is, err := Inspect("/dev/shm/not-there")
	require.NoError(t, err)
	assert.Equal(t, "tmpfs", is.FileSystem)
	assert.Equal(t, "/dev/shm", is.Mount)
}
