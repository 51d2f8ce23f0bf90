package drop

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/smarteros/deaddrop/render/safefile"
)

// asStranger does something with the rights of another user.
func asStranger(t *testing.T, do func() error) {
	t.Helper()
	asRoot(t)
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // For ever: the thread ends with this goroutine.
		_ = syscall.Setfsgid(stranger)
		_ = syscall.Setfsuid(stranger)
		done <- do()
	}()
	require.NoError(t, <-done)
}

// platform is a folder with those of two tenants. The one of tenant "evil" belongs to
// a stranger; what is in evil/conf is as the agent has written it.
type platform struct {
	place, conf, outside string
}

func newPlatform(t *testing.T) platform {
	t.Helper()
	asRoot(t)
	dir := realTempDir(t)
	p := platform{filepath.Join(dir, "place"), filepath.Join(dir, "place/evil/conf"), filepath.Join(dir, "outside")}
	for _, folder := range []string{p.conf, filepath.Join(p.place, "good/conf"), p.outside} {
		require.NoError(t, os.MkdirAll(folder, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(folder, "x.env"), []byte("A=1\n"), 0o600))
	}
	require.NoError(t, os.Chown(filepath.Dir(p.conf), stranger, stranger))
	return p
}

// replaceConf lets the stranger put something else in place of evil/conf.
func (p platform) replaceConf(t *testing.T, put func() error) {
	t.Helper()
	asStranger(t, func() error {
		if err := os.Rename(p.conf, p.conf+".old"); err != nil {
			return err
		}
		return put()
	})
}

// attacks are what may lead out of a tenant's folder: to where, and how.
func (p platform) attacks() map[string]struct {
	victim string
	put    func() error
} {
	return map[string]struct {
		victim string
		put    func() error
	}{
		"link out of the place":    {p.outside, func() error { return os.Symlink(p.outside, p.conf) }},
		"link to another tenant":   {filepath.Join(p.place, "good/conf"), func() error { return os.Symlink("../good/conf", p.conf) }},
		"link to a link":           {p.outside, func() error { return errOfAll(os.Symlink(p.outside, p.conf+".2"), os.Symlink(p.conf+".2", p.conf)) }},
		"FIFO instead of a folder": {p.outside, func() error { return syscall.Mkfifo(p.conf, 0o666) }},
	}
}

// eachAttack runs a test for each attack, on a platform of its own.
func eachAttack(t *testing.T, test func(t *testing.T, p platform, victim string)) {
	t.Helper()
	asRoot(t)
	for name := range (platform{}).attacks() {
		t.Run(name, func(t *testing.T) {
			p := newPlatform(t)
			attack := p.attacks()[name]
			p.replaceConf(t, attack.put)
			test(t, p, attack.victim)
		})
	}
}

func TestRemoveBelow_LeavesFilesOfOthersWhereAFolderIsReplaced(t *testing.T) {
	eachAttack(t, func(t *testing.T, p platform, victim string) {
		removed, err := RemoveBelow(p.place, filepath.Join(p.conf, "x.env"))
		require.Error(t, err)
		assert.False(t, removed)
		assert.FileExists(t, filepath.Join(victim, "x.env"))
	})
}

func TestRemoveBelow_RemovesFilesInRealFolders(t *testing.T) {
	p := newPlatform(t)
	link := filepath.Join(filepath.Dir(p.place), "link") // The operator's own, above the place.
	require.NoError(t, os.Symlink("place", link))
	removed, err := RemoveBelow(link, link+"/evil/conf/x.env")
	require.NoError(t, err)
	assert.True(t, removed)
	assert.NoFileExists(t, filepath.Join(p.conf, "x.env"))
	for _, missing := range []string{"evil/conf/x.env", "evil/none/x.env", "none/x/x.env"} {
		removed, err = RemoveBelow(p.place, filepath.Join(p.place, missing))
		require.NoError(t, err)
		assert.False(t, removed)
	}
	_, err = RemoveBelow(p.place, filepath.Join(p.outside, "x.env"))
	require.ErrorIs(t, err, ErrRefused, "it is not below the place")
	_, err = RemoveBelow(p.place, filepath.Join(p.place, "good/conf"))
	require.ErrorIs(t, err, ErrRefused, "it is a folder")
	assert.FileExists(t, filepath.Join(p.outside, "x.env"))
	assert.FileExists(t, filepath.Join(p.place, "good/conf/x.env"))
}

func TestRemove_HoldsTheFolder(t *testing.T) {
	p := newPlatform(t)
	p.replaceConf(t, func() error { return syscall.Mkfifo(p.conf, 0o666) })
	_, err := Remove(filepath.Join(p.conf, "x.env")) // It does not wait for a writer.
	require.ErrorContains(t, err, "not a directory")
	require.ErrorContains(t, RemoveSet(p.conf), "not a directory")
	_, err = Clean(p.conf, time.Now())
	require.ErrorContains(t, err, "not a directory")
	require.ErrorContains(t, Write([]File{{Path: filepath.Join(p.conf, "x.env"), Mode: 0o600, CreateDirs: true}})[0].Err, "not a directory")
}

func TestRemoveSetBelow_LeavesSetsOfOthersWhereAFolderIsReplaced(t *testing.T) {
	eachAttack(t, func(t *testing.T, p platform, victim string) {
		stage(t, setOf(victim, "s.env", "A=1"))
		require.Error(t, RemoveSetBelow(p.place, p.conf))
		assert.FileExists(t, filepath.Join(victim, "s.env"))
	})
}

func TestRemoveSet_RemovesNoFolderThatIsNoGeneration(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "other"), 0o700))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, generationPrefix+"x"), 0o700))
	require.NoError(t, os.Symlink(generationPrefix+"x/../other", filepath.Join(dir, dataLink)))
	require.NoError(t, RemoveSet(dir))
	assert.DirExists(t, filepath.Join(dir, "other"))
}

func TestRemoveEmptyBelow_LeavesFoldersOfOthersWhereOneIsReplaced(t *testing.T) {
	eachAttack(t, func(t *testing.T, p platform, victim string) {
		empty := filepath.Join(victim, "empty")
		require.NoError(t, os.Mkdir(empty, 0o755))
		RemoveEmptyBelow(p.place, filepath.Join(p.conf, "empty"))
		assert.DirExists(t, empty)
		RemoveEmptyBelow(p.place, p.conf)
		_, err := os.Lstat(p.conf)
		require.NoError(t, err, "only folders are removed")
	})
}

func TestRemoveEmptyBelow_RemovesEmptyFoldersUpToThePlace(t *testing.T) {
	dir := t.TempDir()
	place := filepath.Join(dir, "place")
	require.NoError(t, os.MkdirAll(filepath.Join(place, "a/b/c"), 0o700))
	require.NoError(t, os.MkdirAll(filepath.Join(place, "d/e"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(place, "d/file"), nil, 0o600))
	RemoveEmptyBelow(place, filepath.Join(place, "a/b/c"))
	RemoveEmptyBelow(place, filepath.Join(place, "d/e"))
	RemoveEmptyBelow(place, place)
	RemoveEmptyBelow(place, dir)
	only(t, place, "d")
	only(t, filepath.Join(place, "d"), "file")
}

func TestCleanBelow_LeavesFoldersOfOthersWhereOneIsReplaced(t *testing.T) {
	eachAttack(t, func(t *testing.T, p platform, victim string) {
		left := filepath.Join(victim, tempName("x.env"))
		require.NoError(t, os.WriteFile(left, []byte("half"), 0o600))
		age(t, left)
		_, err := CleanBelow(p.place, p.conf, time.Now())
		require.Error(t, err)
		assert.FileExists(t, left)
	})
}

func TestClean_TouchesOnlyKindsThatThePackageMakes(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, tempName("fifo"))
	require.NoError(t, syscall.Mkfifo(fifo, 0o600))
	age(t, fifo)
	removed, err := Clean(dir, time.Now())
	require.NoError(t, err)
	assert.Zero(t, removed)
	_, err = os.Lstat(fifo)
	require.NoError(t, err)
}

func TestWrite_WritesToNoFolderOfOthersWhereOneIsReplaced(t *testing.T) {
	eachAttack(t, func(t *testing.T, p platform, victim string) {
		f := File{Path: filepath.Join(p.conf, "x.env"), Content: []byte("A=evil\n"), Mode: 0o600, Place: p.place, CreateDirs: true}
		require.Error(t, Write([]File{f})[0].Err)
		f.Path = filepath.Join(p.conf, "more/x.env") // A folder is not made there either.
		require.Error(t, Write([]File{f})[0].Err)
		set := setOf(p.conf, "s.env", "A=evil")
		set.Files[0].Place = p.place
		require.Error(t, errOf(Stage([]Unit{set}).Commit()))
		content, err := os.ReadFile(filepath.Join(victim, "x.env"))
		require.NoError(t, err)
		assert.Equal(t, "A=1\n", string(content))
		only(t, victim, "x.env")
	})
}

func TestWrite_PutsNothingInPlaceWhereAFolderIsReplacedMeanwhile(t *testing.T) {
	asRoot(t)
	for name, hasPlace := range map[string]bool{"below a place": true, "single": false} {
		t.Run(name, func(t *testing.T) {
			p := newPlatform(t)
			f := File{Path: filepath.Join(p.conf, "x.env"), Content: []byte("A=2\n"), Mode: 0o600}
			if hasPlace {
				f.Place = p.place
			}
			batch := Stage([]Unit{{Files: []File{f}}})
			p.replaceConf(t, func() error { return os.Symlink(filepath.Base(p.conf)+".old", p.conf) })
			err := batch.Commit()[0][0].Err
			require.ErrorContains(t, err, "was moved away or replaced meanwhile")
			only(t, p.conf, "x.env")
		})
	}
}

func TestWrite_MakesFoldersBelowAPlaceAndThePlace(t *testing.T) {
	place := filepath.Join(t.TempDir(), "not/there")
	f := File{Path: filepath.Join(place, "a/b/x.env"), Content: []byte("A=1\n"), Mode: 0o600, Place: place, CreateDirs: true}
	assert.Equal(t, Created, write(t, f).Outcome)
	assert.Equal(t, Unchanged, write(t, f).Outcome)
	f.Path = filepath.Join(place, "y.env")
	assert.Equal(t, Created, write(t, f).Outcome)
	t.Chdir(place)
	for _, here := range []string{".", "./"} {
		assert.Equal(t, Unchanged, write(t, File{Path: "a/b/x.env", Content: []byte("A=1\n"), Mode: 0o600, Place: here}).Outcome)
	}
}

// The stranger exchanges file and FIFO all the time, so that the agent sees a file and then
// opens a FIFO sooner or later.
func TestWrite_WaitsForNoFIFOThatReplacesAFile(t *testing.T) {
	p := newPlatform(t)
	require.NoError(t, os.Chown(p.conf, stranger, stranger))
	path := filepath.Join(p.conf, "y.env")
	asStranger(t, func() error {
		return errOfAll(os.WriteFile(path, []byte("A=1\n"), 0o600), syscall.Mkfifo(path+".fifo", 0o666))
	})
	stop := exchangeAsStranger(t, path, path+".fifo")
	defer stop()
	for range 10000 {
		Write([]File{{Path: path, Content: []byte("A=1\n"), Mode: 0o600}})
	}
}

// exchangeAsStranger exchanges two names until it is stopped.
func exchangeAsStranger(t *testing.T, a, b string) (stop func()) {
	t.Helper()
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		asStranger(t, func() error {
			for {
				select {
				case <-done:
					return nil
				default:
					_ = unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
				}
			}
		})
	})
	return func() { close(done); wg.Wait() }
}

func TestStage_ReadsNoFIFOAndNoGiantOfASet(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"FIFO":  func(path string) error { return syscall.Mkfifo(path, 0o666) },
		"giant": func(path string) error { return errOfAll(os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<40)) },
		"link":  func(path string) error { return os.Symlink("/dev/zero", path) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			stage(t, setOf(dir, "a", "1"))
			present, err := filepath.EvalSymlinks(filepath.Join(dir, "a"))
			require.NoError(t, err)
			require.NoError(t, os.Remove(present))
			require.NoError(t, put(present))
			assert.Equal(t, []Outcome{Changed}, stage(t, setOf(dir, "a", "1")))
			content, err := os.ReadFile(filepath.Join(dir, "a"))
			require.NoError(t, err)
			assert.Equal(t, "1", string(content))
		})
	}
}

func errOfAll(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestWriteInPlace_ReadsNoGiant(t *testing.T) {
	path := filepath.Join(t.TempDir(), "giant")
	require.NoError(t, os.WriteFile(path, []byte("before"), 0o640))
	require.NoError(t, os.Truncate(path, 1<<40))
	err := Write([]File{{Path: path, Content: []byte("after"), Mode: 0o600, InPlace: true}})[0].Err
	require.ErrorIs(t, err, safefile.ErrTooLarge)
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, int64(1<<40), info.Size(), "it is left as it is")
	assert.Equal(t, fs.FileMode(0o640), info.Mode())
}

// Not every kernel keeps users from linking files of others, so root makes the link.
func TestWrite_WritesToNoFileOfOthersThroughAHardLink(t *testing.T) {
	p := newPlatform(t)
	victim := filepath.Join(p.outside, "x.env")
	require.NoError(t, os.Chown(p.conf, stranger, stranger))
	path := filepath.Join(p.conf, "x.env")
	for name, f := range map[string]File{
		"content in place": {Path: path, Content: []byte("A=evil\n"), Mode: 0o600, InPlace: true},
		"owner in place":   {Path: path, Content: []byte("A=1\n"), Mode: 0o644, UID: ptr(stranger), InPlace: true},
		"owner":            {Path: path, Content: []byte("A=1\n"), Mode: 0o644, UID: ptr(stranger)},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, os.Remove(path))
			require.NoError(t, os.Link(victim, path))
			result := Write([]File{f})[0]
			if f.InPlace {
				require.ErrorIs(t, result.Err, ErrRefused)
			} else {
				require.NoError(t, result.Err)
			}
			info, err := os.Stat(victim)
			require.NoError(t, err)
			uid, _ := OwnerOf(info)
			assert.Equal(t, 0, uid)
			assert.Equal(t, fs.FileMode(0o600), info.Mode())
			content, err := os.ReadFile(victim)
			require.NoError(t, err)
			assert.Equal(t, "A=1\n", string(content))
		})
	}
	own := filepath.Join(p.outside, "own") // In a folder of the agent links are the operator's.
	require.NoError(t, os.Link(victim, own))
	write(t, File{Path: own, Content: []byte("A=2\n"), Mode: 0o600, InPlace: true})
}

func TestCreateLocked_TriesOtherNamesAndGivesUp(t *testing.T) {
	dir := t.TempDir()
	names, holders := 0, []*os.File{}
	newName := func() string { names++; return filepath.Join(dir, strconv.Itoa(names)) }
	create := func(held int) func(name string) error {
		return func(name string) error {
			ours, err := os.Create(name)
			require.NoError(t, err)
			if names <= held { // Another process is faster.
				theirs, err := os.Open(name)
				require.NoError(t, err)
				holders = append(holders, theirs)
				require.NoError(t, syscall.Flock(int(theirs.Fd()), syscall.LOCK_SH))
			}
			if err = lock(ours); err != nil {
				require.NoError(t, os.Remove(name))
			}
			return errors.Join(err, ours.Close())
		}
	}
	require.NoError(t, createLocked(newName, create(3)))
	only(t, dir, "4")
	require.ErrorIs(t, createLocked(newName, create(1000)), errLocked)
	assert.Equal(t, 4+maxNames, names)
	only(t, dir, "4")
	require.ErrorIs(t, createLocked(newName, func(string) error { return fs.ErrPermission }), fs.ErrPermission)
	assert.Equal(t, 4+maxNames+1, names, "another error is final")
	for _, f := range holders {
		_ = f.Close()
	}
}

func TestLock_DoesNotWaitForWhoHoldsIt(t *testing.T) {
	dir := t.TempDir()
	theirs, err := os.Open(dir)
	require.NoError(t, err)
	defer func() { _ = theirs.Close() }()
	require.NoError(t, syscall.Flock(int(theirs.Fd()), syscall.LOCK_SH))
	ours, err := os.Open(dir)
	require.NoError(t, err)
	defer func() { _ = ours.Close() }()
	require.ErrorIs(t, lock(ours), errLocked)
}

func TestWriteStrict_RefusesAFolderThatIsNotTheAgentsAlone(t *testing.T) {
	p := newPlatform(t)
	f := File{Path: filepath.Join(p.conf, "x.env"), Content: []byte("A=2\n"), Mode: 0o600, Strict: true, CreateDirs: true}
	for _, path := range []string{f.Path, filepath.Join(p.conf, "new/x.env")} {
		f.Path = path
		err := Write([]File{f})[0].Err
		var trust *TrustError
		require.ErrorAs(t, err, &trust)
		assert.Equal(t, filepath.Dir(p.conf), trust.Path)
	}
	only(t, p.conf, "x.env")

	set := setOf(p.conf, "s.env", "A=2")
	set.Files[0].Strict = true
	var trust *TrustError
	require.ErrorAs(t, errOf(Stage([]Unit{set}).Commit()), &trust)

	require.NoError(t, os.Chown(filepath.Dir(p.conf), 0, 0))
	assert.Equal(t, Created, write(t, f).Outcome)
}

func TestWriteStrict_KeepsTheFoldersThatItMakes(t *testing.T) {
	asRoot(t)
	dir := realTempDir(t)
	for name, f := range map[string]File{
		"for a user":            {Mode: 0o600, UID: ptr(stranger)},
		"for a user and group":  {Mode: 0o640, UID: ptr(stranger), GID: ptr(stranger)},
		"writable by the group": {Mode: 0o640, GID: ptr(stranger), DirMode: 0o770},
	} {
		t.Run(name, func(t *testing.T) {
			f.Content, f.Strict, f.CreateDirs = []byte("A=1\n"), true, true
			f.Path = filepath.Join(dir, strings.ReplaceAll(name, " ", "-"), "new/x.env")
			assert.Equal(t, Created, write(t, f).Outcome)
			require.NoError(t, CheckTrusted(filepath.Dir(f.Path)))
			read := func() error { _, err := os.ReadFile(f.Path); return err }
			asStranger(t, read)
		})
	}
	lax := File{Path: filepath.Join(dir, "both/lax/x.env"), Content: []byte("A=1\n"), Mode: 0o600, UID: ptr(stranger), CreateDirs: true}
	strict := File{Path: filepath.Join(dir, "both/strict/x.env"), Content: []byte("A=1\n"), Mode: 0o600, Strict: true, CreateDirs: true}
	for _, result := range Write([]File{lax, strict}) {
		require.NoError(t, result.Err)
	}
	uid, _ := OwnerOf(func() fs.FileInfo { info, _ := os.Stat(filepath.Join(dir, "both/lax")); return info }())
	assert.Equal(t, stranger, uid)
}

func TestWriteStrict_RefusesAFolderThatSomebodyElseWasFasterToMake(t *testing.T) {
	dir := realTempDir(t)
	sticky := filepath.Join(dir, "sticky")
	require.NoError(t, os.Mkdir(sticky, 0o700))
	require.NoError(t, os.Chmod(sticky, 0o777|fs.ModeSticky))
	f := File{Path: filepath.Join(sticky, "new/x.env"), Content: []byte("A=1\n"), Mode: 0o600, Strict: true, CreateDirs: true}
	require.NoError(t, CheckTrustedOrNew(filepath.Dir(f.Path)))
	asStranger(t, func() error { return os.Mkdir(filepath.Dir(f.Path), 0o777) })
	require.ErrorContains(t, Write([]File{f})[0].Err, "belongs to user 65534")
	only(t, filepath.Dir(f.Path))
}

func TestWrite_MakesNoFolderWhoseUserCanReplaceAFolderBelow(t *testing.T) {
	asRoot(t)
	dir := realTempDir(t)
	victim := filepath.Join(dir, "victim")
	require.NoError(t, os.Mkdir(victim, 0o755))
	for name, place := range map[string]string{"drop": "", "tenants": filepath.Join(dir, "tenants")} {
		t.Run(name, func(t *testing.T) {
			conf := filepath.Join(dir, name, "app/conf")
			f := File{Path: filepath.Join(conf, "x.env"), Content: []byte("A=1\n"), Mode: 0o600, UID: ptr(stranger), Place: place, CreateDirs: true}
			assert.Equal(t, Created, write(t, f).Outcome)
			asStranger(t, func() error {
				for folder := conf; folder != dir; folder = filepath.Dir(folder) {
					if err := os.Rename(folder, folder+".old"); err == nil {
						return errOfAll(os.Symlink(victim, folder), fs.ErrExist)
					}
				}
				_, err := os.ReadFile(f.Path)
				return errOfAll(err, os.WriteFile(filepath.Join(conf, "own"), nil, 0o600)) // The last folder is the user's.
			})
			f.Content = []byte("A=2\n")
			assert.Equal(t, Changed, write(t, f).Outcome)
			only(t, victim)
		})
	}
}

func TestRemoveSet_EndsWhileTheGenerationIsBeingFilled(t *testing.T) {
	p := newPlatform(t)
	require.NoError(t, os.Chown(p.conf, stranger, stranger))
	generation := filepath.Join(p.conf, generationPrefix+"X")
	asStranger(t, func() error {
		return errOfAll(os.Mkdir(generation, 0o777), os.Symlink(filepath.Base(generation), filepath.Join(p.conf, dataLink)))
	})
	var wg sync.WaitGroup
	started, done := make(chan struct{}), make(chan struct{})
	wg.Go(func() {
		asStranger(t, func() error {
			for i := 0; ; i++ {
				select {
				case <-done:
					return nil
				default:
					_ = os.WriteFile(filepath.Join(generation, strconv.Itoa(i%50_000)), nil, 0o600)
				}
				if i == 1000 {
					close(started)
				}
			}
		})
	})
	<-started
	_ = RemoveSet(p.conf) // That it ends is the point.
	close(done)
	wg.Wait()
}

func TestRemoveSet_RemovesOneLevelOfFoldersOnly(t *testing.T) {
	for name, remove := range map[string]func(dir string) error{
		"RemoveSet": RemoveSet,
		"Clean":     func(dir string) error { _, err := Clean(dir, time.Now()); return err },
		"Commit":    func(dir string) error { return errOf(Stage([]Unit{setOf(dir, "a", "2")}).Commit()) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			generation := filepath.Join(dir, generationPrefix+"X")
			require.NoError(t, os.MkdirAll(filepath.Join(generation, "nested/deep"), 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(generation, "a"), []byte("1"), 0o600))
			require.NoError(t, os.Symlink(dir, filepath.Join(generation, "link")))
			if name == "Clean" {
				age(t, generation)
			} else {
				require.NoError(t, os.Symlink(generationPrefix+"X", filepath.Join(dir, dataLink)))
			}
			err := remove(dir)
			if name == "RemoveSet" {
				require.ErrorContains(t, err, "directory not empty")
			} else {
				require.NoError(t, err)
			}
			only(t, generation, "nested")
			assert.DirExists(t, filepath.Join(generation, "nested/deep"))
		})
	}
}

func TestRemoveGeneration_LeavesWhatIsBeyondTheLimit(t *testing.T) {
	dir := t.TempDir()
	parent, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer func() { _ = parent.Close() }()
	generation := filepath.Join(dir, generationPrefix+"X")
	require.NoError(t, os.Mkdir(generation, 0o700))
	for i := range maxInGeneration + 5 {
		require.NoError(t, os.WriteFile(filepath.Join(generation, strconv.Itoa(i)), nil, 0o600))
	}
	require.ErrorIs(t, removeGeneration(parent, generationPrefix+"X"), errTooMany)
	entries, err := os.ReadDir(generation)
	require.NoError(t, err)
	assert.Len(t, entries, 5)
	require.NoError(t, removeGeneration(parent, generationPrefix+"X"))
	require.NoError(t, removeGeneration(parent, generationPrefix+"X"), "it is gone")
	only(t, dir)
}

func TestEachEntry_EndsAtTheLimit(t *testing.T) {
	dir := t.TempDir()
	for i := range 30 {
		require.NoError(t, os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), nil, 0o600))
	}
	in, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer func() { _ = in.Close() }()
	for limit, want := range map[int]int{30: 30, 29: 29, 1: 1} {
		seen := 0
		err := eachEntry(in, limit, func(fs.DirEntry) { seen++ })
		assert.Equal(t, want, seen)
		assert.Equal(t, limit < 30, errors.Is(err, errTooMany))
	}
}

// The folder was the stranger's before, and is the agent's now. The file in it, which the
// stranger has open, is the stranger's still, or has another name.
func TestWriteStrict_WritesNothingIntoAFileOfOthers(t *testing.T) {
	asRoot(t)
	for name, prepare := range map[string]func(path string) error{
		"owner": func(path string) error { return os.Chown(path, stranger, stranger) },
		"link":  func(path string) error { return os.Link(path, path+".2") },
	} {
		for _, content := range []string{"A=1\n", "A=2\n", "A=longer\n"} {
			t.Run(name+" "+content, func(t *testing.T) {
				dir := realTempDir(t)
				f := File{Path: filepath.Join(dir, "x.env"), Content: []byte(content), Mode: 0o600, Strict: true, InPlace: true}
				require.NoError(t, os.WriteFile(f.Path, []byte("A=1\n"), 0o600))
				require.NoError(t, prepare(f.Path))
				before, err := os.Stat(f.Path)
				require.NoError(t, err)
				theirs, err := os.Open(f.Path)
				require.NoError(t, err)
				defer func() { _ = theirs.Close() }()

				require.ErrorIs(t, Write([]File{f})[0].Err, ErrRefused)
				got, err := safefile.ReadOpen(theirs, before, "theirs", 100)
				require.NoError(t, err)
				assert.Equal(t, "A=1\n", string(got))

				f.InPlace = false // Replacing is fine.
				assert.Equal(t, Changed, write(t, f).Outcome)
				after, err := os.Stat(f.Path)
				require.NoError(t, err)
				assert.False(t, os.SameFile(before, after))
				f.InPlace, f.Content = true, []byte("A=3\n")
				assert.Equal(t, Changed, write(t, f).Outcome)
			})
		}
	}
	f := File{Path: filepath.Join(realTempDir(t), "x.env"), Content: []byte("A=1\n"), Mode: 0o600, Strict: true, InPlace: true, UID: ptr(stranger)}
	assert.Equal(t, Created, write(t, f).Outcome)
	f.Content = []byte("A=2\n")
	assert.Equal(t, Changed, write(t, f).Outcome, "it is of the user that it is for")
	assert.Equal(t, Unchanged, write(t, f).Outcome)
}

// setDefaultACL lets a user read new files of a folder, as setfacl -d -m u:ID:r does.
func setDefaultACL(t *testing.T, dir string, uid uint32) {
	t.Helper()
	acl := binary.LittleEndian.AppendUint32(nil, 2) // the version
	entry := func(tag, perm uint16, id uint32) {
		acl = binary.LittleEndian.AppendUint16(acl, tag)
		acl = binary.LittleEndian.AppendUint16(acl, perm)
		acl = binary.LittleEndian.AppendUint32(acl, id)
	}
	const none = ^uint32(0)
	entry(0x01, 7, none) // the owner
	entry(0x02, 4, uid)  // the user
	entry(0x04, 0, none) // the group
	entry(0x10, 4, none) // the mask
	entry(0x20, 0, none) // others
	if err := unix.Setxattr(dir, "system.posix_acl_default", acl, 0); err != nil {
		t.Skipf("no default access control lists here: %v", err)
	}
}

func TestWriteStrict_RefusesAFolderWithADefaultACL(t *testing.T) {
	dir := realTempDir(t)
	setDefaultACL(t, dir, stranger)
	for _, folder := range []string{dir, filepath.Join(dir, "new")} { // A new folder inherits it.
		err := Write([]File{{Path: filepath.Join(folder, "x.env"), Content: []byte("A=1\n"), Mode: 0o640, Strict: true, CreateDirs: true}})[0].Err
		var trust *TrustError
		require.ErrorAs(t, err, &trust)
		assert.Equal(t, TrustError{Folder: folder, Path: folder, Detail: "has a default access control list, which lets others into new files", Hint: "setfacl -k " + folder}, *trust)
		assert.NoFileExists(t, filepath.Join(folder, "x.env"))
	}
	require.NoError(t, unix.Removexattr(filepath.Join(dir, "new"), "system.posix_acl_default"))
	require.NoError(t, CheckTrusted(filepath.Join(dir, "new")), "that of a parent does no harm")
}
