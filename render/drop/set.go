package drop

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/smarteros/deaddrop/render/safefile"
)

// The names in the folder of a set that begin with two dots are ours.
const (
	dataLink         = "..data"
	generationPrefix = "..gen-"
)

// stagedSet is a new generation of a set.
type stagedSet struct {
	dir        *folder
	unit       Unit
	generation string
	open       *os.File // holds the lock that tells a cleaner to leave it alone
	results    []Result
	old        []fs.FileInfo // nil where there was no file
}

// stageSet returns nil where there is nothing to put in place. So many of its files are
// written at the same time.
func (d *folder) stageSet(u Unit, atOnce int) (staged, []Result, error) {
	fail := func(err error) (staged, []Result, error) {
		return nil, nil, fmt.Errorf("writing %s: %w", u.Set, err)
	}
	for _, f := range u.Files {
		if err := d.replaceable(filepath.Base(f.Path)); err != nil {
			return fail(err)
		}
	}
	results, same := d.compareSet(u)
	if same {
		return nil, results, nil
	}
	s := &stagedSet{dir: d, unit: u, results: results}
	for _, f := range u.Files {
		info, _ := d.root.Stat(filepath.Base(f.Path))
		s.old = append(s.old, info)
	}
	if err := s.fill(atOnce); err != nil {
		s.discard()
		return fail(Bare(err))
	}
	return s, nil, nil
}

// replaceable tells whether a name in a set may become a link: it is ours, or a
// single file.
func (d *folder) replaceable(name string) error {
	info, err := d.root.Lstat(name)
	if err != nil || d.isOurs(name) {
		return nil
	}
	return checkKind(filepath.Join(d.at.path, name), info)
}

func (d *folder) isOurs(name string) bool {
	target, err := d.root.Readlink(name)
	return err == nil && target == dataLink+"/"+name
}

// compareSet compares each file with the present generation, and changes nothing. The set
// is the same when there is nothing else in it either.
func (d *folder) compareSet(u Unit) (results []Result, same bool) {
	same = true
	names := map[string]bool{}
	generation, folder := d.openPresent()
	if folder != nil {
		defer func() { _ = folder.Close() }()
	}
	for _, f := range u.Files {
		name := filepath.Base(f.Path)
		names[name] = true
		result := Result{Outcome: Created}
		if folder != nil && d.isOurs(name) {
			result = compareInSet(folder, name, f)
		}
		if f.Rewrite && result.Outcome == Unchanged {
			result.Outcome = Changed
		}
		result.Stamp.generation = generation
		same = same && result.Outcome == Unchanged
		results = append(results, result)
	}
	return results, same && folder != nil && hasInSet(folder, len(names))
}

// openPresent opens the present generation. It returns nil where there is none, or "..data"
// leads to something else.
func (d *folder) openPresent() (generation string, folder *os.Root) {
	generation, err := d.root.Readlink(dataLink)
	if err != nil || !isGeneration(generation) {
		return "", nil
	}
	if folder, err = openReal(d.root, generation, generation); err != nil {
		return "", nil
	}
	return generation, folder
}

// hasInSet reports whether a generation has so many files.
func hasInSet(generation *os.Root, count int) bool {
	dir, err := generation.Open(".")
	if err != nil {
		return false
	}
	defer func() { _ = dir.Close() }()
	entries, err := dir.ReadDir(count + 1) // Others may have put any number there.
	return (err == nil || errors.Is(err, io.EOF)) && len(entries) == count
}

func compareInSet(generation *os.Root, name string, f File) Result {
	if _, err := generation.Lstat(name); err != nil {
		return Result{Outcome: Created}
	}
	open, info, err := safefile.OpenNoFollowIn(generation, name)
	if err != nil {
		return Result{Outcome: Changed}
	}
	defer func() { _ = open.Close() }()
	content, err := safefile.ReadOpen(open, info, name, int64(len(f.Content)))
	uid, gid := ownerOf(info)
	isOther := err != nil || !bytes.Equal(content, f.Content) ||
		info.Mode().Perm() != f.Mode.Perm() || f.UID != nil && *f.UID != uid || f.GID != nil && *f.GID != gid
	is, err := stampOpen(open)
	if isOther || err != nil || is.size != info.Size() || is.modified != info.ModTime().UnixNano() {
		return Result{Outcome: Changed}
	}
	return Result{Outcome: Unchanged, Stamp: is}
}

func (s *stagedSet) fill(atOnce int) error {
	var folder *os.Root
	err := createLocked(func() string { return generationPrefix + rand.Text() }, func(name string) (err error) {
		folder, err = s.create(name)
		return err
	})
	if err != nil {
		return err
	}
	defer func() { _ = folder.Close() }()
	var writers errgroup.Group
	writers.SetLimit(atOnce)
	for i, f := range s.unit.Files {
		writers.Go(func() error {
			is, err := fillInSet(folder, f)
			if err != nil {
				return fmt.Errorf("%s: %w", filepath.Base(f.Path), Bare(err))
			}
			is.generation = s.generation
			s.results[i].Stamp = is
			return nil
		})
	}
	if err := writers.Wait(); err != nil {
		return err
	}
	// The folder of the set is what keeps others out.
	if err := s.open.Chmod(0o755); err != nil {
		return err
	}
	return s.open.Sync()
}

// create makes the folder of a new generation, and locks it. Where it fails, it leaves
// nothing behind.
func (s *stagedSet) create(generation string) (*os.Root, error) {
	if err := s.dir.root.Mkdir(generation, 0o700); err != nil {
		return nil, err
	}
	folder, err := openReal(s.dir.root, generation, generation)
	if err == nil {
		if s.open, err = folder.Open("."); err == nil {
			err = lock(s.open)
		}
		if err != nil {
			_ = folder.Close()
		}
	}
	s.generation = generation
	if err != nil {
		s.discard()
		s.generation, s.open = "", nil
		return nil, err
	}
	return folder, nil
}

func fillInSet(folder *os.Root, f File) (is Stamp, err error) {
	file, err := folder.OpenFile(filepath.Base(f.Path), os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return Stamp{}, err
	}
	if _, err = put(file, f, nil); err == nil {
		is, err = stampOpen(file)
	}
	return is, errors.Join(err, file.Close())
}

func (s *stagedSet) folder() *folder { return s.dir }

func (s *stagedSet) path() string { return filepath.Join(s.dir.at.path, s.generation) }

func (s *stagedSet) discard() {
	if s.generation == "" {
		return // It has never been there.
	}
	if s.dir.root != nil {
		_ = removeGeneration(s.dir.root, s.generation)
	}
	s.unlock()
}

func (s *stagedSet) unlock() {
	if s.open != nil {
		_ = s.open.Close()
		s.open = nil
	}
}

// lockAgain locks the new generation where it was unlocked. It fails where a cleaner has
// removed it meanwhile.
func (s *stagedSet) lockAgain() error {
	if s.open != nil {
		return nil
	}
	folder, err := openReal(s.dir.root, s.generation, s.generation)
	if err != nil {
		return errReplaced
	}
	defer func() { _ = folder.Close() }()
	if s.open, err = folder.Open("."); err != nil {
		return err
	}
	if err := lock(s.open); err != nil {
		return err
	}
	now, err := s.dir.root.Lstat(s.generation)
	if err != nil {
		return errReplaced
	}
	if locked, err := s.open.Stat(); err != nil || !os.SameFile(locked, now) {
		return errReplaced
	}
	return nil
}

// commit replaces the link "..data". The links of names that are new follow: a
// name never leads to nothing. Where one cannot be made, all is as it was. What is
// left of the old generation goes last.
func (s *stagedSet) commit() ([]Result, error) {
	defer s.unlock()
	if err := s.lockAgain(); err != nil {
		s.discard()
		return nil, Bare(err)
	}
	before, _ := s.dir.root.Readlink(dataLink)
	if err := s.dir.link(s.generation, dataLink); err != nil {
		s.discard()
		return nil, Bare(err)
	}
	names := map[string]bool{}
	var made []string
	for _, f := range s.unit.Files {
		name := filepath.Base(f.Path)
		names[name] = true
		if s.dir.isOurs(name) {
			continue
		}
		if err := s.dir.link(dataLink+"/"+name, name); err != nil {
			s.undo(before, made)
			return nil, Bare(err)
		}
		made = append(made, name)
	}
	for i, f := range s.unit.Files {
		s.results[i].Warnings = s.dir.modeWarning(filepath.Base(f.Path), f, s.old[i])
	}
	s.dir.unlinkOthers(names)
	if isGeneration(before) {
		_ = removeGeneration(s.dir.root, before)
	}
	return s.results, nil
}

// undo puts the generation before back.
func (s *stagedSet) undo(before string, made []string) {
	if before == "" || s.dir.link(before, dataLink) != nil {
		_ = s.dir.root.Remove(dataLink)
	}
	for _, name := range made {
		_ = s.dir.root.Remove(name)
	}
	s.discard()
}

// link makes a symbolic link, in one step where there is one already.
func (d *folder) link(target, name string) error {
	temp := tempName(name)
	if err := d.root.Symlink(target, temp); err != nil {
		return err
	}
	err := d.root.Rename(temp, name)
	if err != nil {
		_ = d.root.Remove(temp)
	}
	return err
}

// unlinkOthers removes the links of names that the set has no more.
func (d *folder) unlinkOthers(names map[string]bool) {
	_ = eachEntry(d.root, maxEntries, func(e fs.DirEntry) {
		if e.Type() == fs.ModeSymlink && !names[e.Name()] && d.isOurs(e.Name()) {
			_ = d.root.Remove(e.Name())
		}
	})
}

// isGeneration reports whether the target of "..data" is the folder of a generation.
// Others may have made the link, and let it lead to another folder.
func isGeneration(target string) bool {
	return strings.HasPrefix(target, generationPrefix) && !strings.Contains(target, "/")
}

// RemoveSet takes the files of a set away, all in one step, and leaves its folder.
func RemoveSet(path string) error { return RemoveSetBelow("", path) }

// RemoveSetBelow is [RemoveSet] for a folder below a place, as [File.Place] has it.
func RemoveSetBelow(place, path string) error {
	at := locationBelow(place, path)
	root, err := at.open()
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("removing %w", err)
	}
	defer func() { _ = root.Close() }()
	d := &folder{root: root, at: at}
	generation, err := root.Readlink(dataLink)
	if err != nil {
		return nil // There is none.
	}
	if err := root.Remove(dataLink); err != nil {
		return fmt.Errorf("removing %s: %w", path, Bare(err))
	}
	d.unlinkOthers(nil)
	if isGeneration(generation) {
		if err := removeGeneration(root, generation); err != nil {
			return fmt.Errorf("removing %s: %w", filepath.Join(path, generation), Bare(err))
		}
	}
	return nil
}
