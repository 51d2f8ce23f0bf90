package drop

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sameSize is content of the size of "A=1\n".
var sameSize = []byte("A=2\n")

// keepTime does something to a file and sets the time of its content back.
func keepTime(t *testing.T, path string, do func() error) {
	t.Helper()
	info, err := os.Lstat(path)
	require.NoError(t, err)
	require.NoError(t, do())
	require.NoError(t, os.Chtimes(path, info.ModTime(), info.ModTime()))
}

// tampering is what may be done to a file, by the difference that it makes.
func tampering(t *testing.T, path string) map[string]func() error {
	t.Helper()
	return map[string]func() error{
		"content": func() error {
			age(t, path) // Two changes within one tick have one time.
			return os.WriteFile(path, sameSize, 0o600)
		},
		"permissions": func() error { return os.Chmod(path, 0o666) },
		"owner":       func() error { return os.Chown(path, stranger, -1) },
		"replaced": func() error {
			return errOfAll(os.WriteFile(path+".2", []byte("A=1\n"), 0o600), os.Rename(path+".2", path))
		},
		"removed": func() error { return os.Remove(path) },
	}
}

func TestStampOf_TellsHowAFileDiffers(t *testing.T) {
	asRoot(t)
	for difference := range tampering(t, "") {
		t.Run(difference, func(t *testing.T) {
			place := realTempDir(t)
			f := File{Path: filepath.Join(place, "a/x.env"), Content: []byte("A=1\n"), Mode: 0o600, Place: place, CreateDirs: true}
			published := Write([]File{f})[0].Stamp
			now, err := StampOf(place, f.Path)
			require.NoError(t, err)
			require.Equal(t, published, now)
			assert.Empty(t, published.Difference(now))
			require.NoError(t, tampering(t, f.Path)[difference]())
			now, err = StampOf(place, f.Path)
			require.NoError(t, err)
			assert.Equal(t, difference, published.Difference(now))
			isCurrent, err := IsCurrent(Unit{Files: []File{f}})
			require.NoError(t, err)
			assert.Equal(t, difference == "owner" || difference == "replaced", isCurrent, "no owner is named, and the content is the same")

			f.Rewrite = isCurrent
			assert.Equal(t, difference == "permissions", write(t, f).Outcome == Unchanged, "the mode of a file is mended")
			is, err := os.Stat(f.Path)
			require.NoError(t, err)
			uid, _ := ownerOf(is)
			assert.Equal(t, []any{0, fs.FileMode(0o600)}, []any{uid, is.Mode()})
		})
	}
}

func TestStampOf_IsThatOfALinkInPlaceOfAFile(t *testing.T) {
	dir := t.TempDir()
	f := File{Path: filepath.Join(dir, "f"), Content: []byte("A=1\n"), Mode: 0o600}
	published := Write([]File{f})[0].Stamp
	require.NoError(t, os.Rename(f.Path, f.Path+".moved"))
	require.NoError(t, os.Symlink("f.moved", f.Path))
	now, err := StampOf("", f.Path)
	require.NoError(t, err)
	assert.Equal(t, "replaced", published.Difference(now))
	isCurrent, err := IsCurrent(Unit{Files: []File{f}})
	require.NoError(t, err)
	assert.False(t, isCurrent)
	now, err = StampOf("", f.Path+".moved")
	require.NoError(t, err)
	assert.Equal(t, published, now, "a file keeps its stamp under another name")
}

func TestStampOf_StaysWhereNothingChanges(t *testing.T) {
	f := File{Path: filepath.Join(t.TempDir(), "f"), Content: []byte("A=1\n"), Mode: 0o600}
	published := Write([]File{f})[0].Stamp
	uid, gid := os.Getuid(), os.Getgid()
	for name, do := range map[string]func() error{
		"chown":     func() error { return os.Chown(f.Path, uid, gid) },
		"chmod":     func() error { return os.Chmod(f.Path, 0o600) },
		"hard link": func() error { return os.Link(f.Path, f.Path+".bak") },
		"reading":   func() error { _, err := os.ReadFile(f.Path); return err },
	} {
		require.NoError(t, do())
		now, err := StampOf("", f.Path)
		require.NoError(t, err)
		assert.Equal(t, published, now, name)
	}
}

func TestStamps_TellHowASetDiffers(t *testing.T) {
	asRoot(t)
	for name, tc := range map[string]struct {
		a, b string // differences
		do   func(t *testing.T, set, generation string) error
	}{
		"no ..data":           {"removed", "removed", func(_ *testing.T, set, _ string) error { return os.Remove(filepath.Join(set, dataLink)) }},
		"no name":             {"removed", "", func(_ *testing.T, set, _ string) error { return os.Remove(filepath.Join(set, "a")) }},
		"no generation":       {"removed", "removed", func(_ *testing.T, _, generation string) error { return os.RemoveAll(generation) }},
		"file instead":        {"generation", "", func(_ *testing.T, set, _ string) error { return replace(filepath.Join(set, "a"), "A=1\n") }},
		"link to other names": {"generation", "", func(_ *testing.T, set, _ string) error { return relink(dataLink+"/b", filepath.Join(set, "a")) }},
		"content": {"content", "", func(t *testing.T, _, generation string) error {
			return tampering(t, filepath.Join(generation, "a"))["content"]()
		}},
		"permissions": {"permissions", "", func(_ *testing.T, _, generation string) error { return os.Chmod(filepath.Join(generation, "a"), 0o644) }},
		"owner": {"owner", "", func(_ *testing.T, _, generation string) error {
			return os.Chown(filepath.Join(generation, "a"), 0, stranger)
		}},
		"removed":            {"removed", "", func(_ *testing.T, _, generation string) error { return os.Remove(filepath.Join(generation, "a")) }},
		"link in generation": {"replaced", "", func(_ *testing.T, _, generation string) error { return relink("b", filepath.Join(generation, "a")) }},
		"other generation": {"generation", "generation", func(_ *testing.T, set, generation string) error {
			other := filepath.Join(set, generationPrefix+"OTHER")
			return errOfAll(os.CopyFS(other, os.DirFS(generation)), os.Chmod(filepath.Join(other, "a"), 0o600), os.Chmod(filepath.Join(other, "b"), 0o600), relink(filepath.Base(other), filepath.Join(set, dataLink)))
		}},
		"..data elsewhere": {"removed", "removed", func(_ *testing.T, set, generation string) error {
			return errOfAll(os.Rename(generation, filepath.Join(set, "moved")), relink("moved", filepath.Join(set, dataLink)))
		}},
		"generation is a link": {"removed", "removed", func(_ *testing.T, set, generation string) error {
			return errOfAll(os.Rename(generation, filepath.Join(set, "moved")), os.Symlink("moved", generation))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			set := filepath.Join(t.TempDir(), "set")
			u := setOf(set, "a", "A=1\n", "b", "B=1\n")
			results := Stage([]Unit{u}).Commit()[0]
			isCurrent, err := IsCurrent(u)
			require.NoError(t, err)
			assert.True(t, isCurrent)
			generation, err := os.Readlink(filepath.Join(set, dataLink))
			require.NoError(t, err)
			require.NoError(t, tc.do(t, set, filepath.Join(set, generation)))
			stamps, errs := Stamps([]Unit{u})
			require.NoError(t, errs[0])
			assert.Equal(t, []string{tc.a, tc.b}, []string{results[0].Stamp.Difference(stamps[0][0]), results[1].Stamp.Difference(stamps[0][1])})
			isCurrent, err = IsCurrent(u)
			require.NoError(t, err)
			assert.Equal(t, name == "owner" || name == "other generation", isCurrent)
		})
	}
}

// replace puts a new file in place of whatever is there.
func replace(path, content string) error {
	return errOfAll(os.Remove(path), os.WriteFile(path, []byte(content), 0o600))
}

// relink puts a new link in place of whatever is there.
func relink(target, path string) error {
	return errOfAll(os.Remove(path), os.Symlink(target, path))
}

func TestStageSet_RewritesASetThatIsTheSame(t *testing.T) {
	set := t.TempDir()
	u := setOf(set, "a", "1", "b", "1")
	stage(t, u)
	before, err := os.Readlink(filepath.Join(set, dataLink))
	require.NoError(t, err)
	u.Files[0].Rewrite = true
	assert.Equal(t, []Outcome{Changed, Unchanged}, stage(t, u))
	after, err := os.Readlink(filepath.Join(set, dataLink))
	require.NoError(t, err)
	assert.NotEqual(t, before, after)
}

func TestStamps_FollowNoLinkOfOthers(t *testing.T) {
	eachAttack(t, func(t *testing.T, p platform, victim string) {
		stage(t, setOf(victim, "s.env", "A=1"))
		before, err := StampOf("", filepath.Join(victim, "x.env"))
		require.NoError(t, err)
		require.NotZero(t, before)
		for _, place := range []string{p.place, ""} {
			now, err := StampOf(place, filepath.Join(p.conf, "x.env"))
			require.Error(t, err)
			assert.Zero(t, now)
			set := setOf(p.conf, "s.env", "A=1")
			set.Files[0].Place = place
			stamps, errs := Stamps([]Unit{set})
			require.Error(t, errs[0])
			assert.Equal(t, [][]Stamp{{{}}}, stamps)
			_, err = IsCurrent(set)
			require.Error(t, err)
		}
	})
}

func TestStamps_LookAtEachUnitByItself(t *testing.T) {
	place := realTempDir(t)
	at := func(name string) Unit {
		return Unit{Files: []File{{Path: filepath.Join(place, name), Content: []byte("x"), Mode: 0o600, Place: place, CreateDirs: true}}}
	}
	units := []Unit{at("a/f"), at("missing/f"), at("a/missing"), at("file/f"), at("a/b/c/f"), at("a/g"), at("../outside")}
	results := Stage([]Unit{units[0], units[4], units[5]}).Commit()
	require.NoError(t, errOf(results))
	require.NoError(t, os.WriteFile(filepath.Join(place, "file"), nil, 0o600))
	stamps, errs := Stamps(units)
	want := [][]Stamp{{results[0][0].Stamp}, {{}}, {{}}, {{}}, {results[1][0].Stamp}, {results[2][0].Stamp}, {{}}}
	assert.Equal(t, want, stamps)
	for i, err := range errs {
		switch i {
		case 3:
			require.ErrorIs(t, err, syscall.ENOTDIR)
			require.EqualError(t, err, "looking at "+filepath.Join(place, "file/f")+": "+filepath.Join(place, "file")+": not a directory")
		case 6:
			require.ErrorIs(t, err, ErrRefused)
		default:
			require.NoError(t, err)
		}
	}
	for i, u := range units {
		isCurrent, err := IsCurrent(u)
		assert.Equal(t, i == 0 || i == 4 || i == 5, isCurrent)
		assert.Equal(t, errs[i] != nil, err != nil)
	}
}

func TestIsCurrent_ChangesNothing(t *testing.T) {
	f := File{Path: filepath.Join(t.TempDir(), "f"), Content: []byte("A=1\n"), Mode: 0o600}
	write(t, f)
	require.NoError(t, os.Chmod(f.Path, 0o640))
	before, err := StampOf("", f.Path)
	require.NoError(t, err)
	isCurrent, err := IsCurrent(Unit{Files: []File{f}})
	require.NoError(t, err)
	assert.False(t, isCurrent, "its mode is another one")
	f.UID = ptr(1234)
	_, err = IsCurrent(Unit{Files: []File{f}})
	require.NoError(t, err)
	after, err := StampOf("", f.Path)
	require.NoError(t, err)
	assert.Equal(t, before, after)
	f.UID, f.Mode = nil, 0o640
	isCurrent, err = IsCurrent(Unit{Files: []File{f}})
	require.NoError(t, err)
	assert.True(t, isCurrent)
	keepTime(t, f.Path, func() error { return os.WriteFile(f.Path, sameSize, 0o640) })
	after, err = StampOf("", f.Path)
	require.NoError(t, err)
	assert.Equal(t, before, after, "the content has another one, which the stamp cannot tell")
	isCurrent, err = IsCurrent(Unit{Files: []File{f}})
	require.NoError(t, err)
	assert.False(t, isCurrent)
}

func BenchmarkStamps_OfAThousand(b *testing.B) {
	for name, at := range map[string]func(i int) string{
		"in one folder":    func(i int) string { return fmt.Sprint("f", i) },
		"in a folder each": func(i int) string { return fmt.Sprintf("t%d/f", i) },
		"in a set each":    func(i int) string { return fmt.Sprintf("s%d/f", i) },
	} {
		b.Run(name, func(b *testing.B) {
			place := b.TempDir()
			var units []Unit
			for i := range 1000 {
				u := Unit{Files: []File{{Path: filepath.Join(place, at(i)), Content: []byte("x"), Mode: 0o600, Place: place, CreateDirs: true}}}
				if name == "in a set each" {
					u.Set = filepath.Dir(u.Files[0].Path)
				}
				units = append(units, u)
			}
			results := Stage(units).Commit()
			for b.Loop() {
				stamps, errs := Stamps(units)
				for i := range units {
					if errs[i] != nil || stamps[i][0] != results[i][0].Stamp {
						b.Fatal(errs[i], results[i][0].Err)
					}
				}
			}
		})
	}
}
