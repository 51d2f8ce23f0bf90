// Package drop puts bytes into files so that no reader ever sees half of one.
//
// A file is written to a temporary name in its own folder, created exclusively
// with mode 0600 and without following links; it gets its owner and its mode
// before the first byte of content; content and folder are synced to disk; and
// it gets its name by rename. A file that already holds the same bytes is left
// alone. Files that belong together change together: see [Unit].
package drop

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// ErrRefused is what a destination that must not be replaced fails with: a
// symbolic link, a folder, a device, a socket.
var ErrRefused = errors.New("refused")

// File is one file to write.
type File struct {
	// Path is where it goes. Its last element may not be a symbolic link, unless
	// it is that of a set.
	Path string
	// Content is the whole of it.
	Content []byte
	// Mode holds its permission bits.
	Mode fs.FileMode
	// UID and GID are its owner. Where they are nil it is the agent; but an agent
	// that is not root keeps the group of the file that is there, if it may.
	UID, GID *int
	// CreateDirs makes missing parent folders: see [Plan].
	CreateDirs bool
	// DirMode holds the permission bits of those folders; 0 for those that let in who
	// may read the file: see [DirMode].
	DirMode fs.FileMode
	// InPlace writes into the file that is there, which a bind mount of a single
	// file calls for. A reader may then see half of it.
	InPlace bool
	// Rewrite writes the file even where it is what it should be, such as after somebody
	// has given it to a user while UID is nil. The outcome is then Changed.
	Rewrite bool
	// Backup keeps the content before under the same name with ".bak" behind it.
	Backup bool
	// Place is a folder above the file, or "". Up to it the path is the operator's, and
	// symbolic links in it are followed. The folders below it may belong to somebody
	// else each, and have to be real folders, not links to those of others.
	Place string
	// Strict refuses a folder that is not the agent's alone, see [CheckTrusted], and
	// gives away none that is made.
	Strict bool
}

// locationOf is the folder of files.
func locationOf(folder string, files ...File) location {
	place, strict := "", false
	for _, f := range files {
		place, strict = cmp.Or(place, f.Place), strict || f.Strict
	}
	at := locationBelow(place, folder)
	at.strict = strict
	return at
}

// Unit is what is put in place in one step: a file, or a set.
//
// A set is laid out as Kubernetes lays out its volumes: the files are in a folder
// of one generation, "..data" is a link to that folder, and each name is a link
// through "..data". Replacing that one link changes all of them. Who reads
// several files opens the folder "..data" once and reads them there.
type Unit struct {
	// Set is the folder of a set, whose files all are in it; "" for a single file.
	Set   string
	Files []File
}

// Outcome says what became of a file.
type Outcome int

// The outcomes of a write. Only Created and Changed give readers anything new.
const (
	Failed Outcome = iota
	Unchanged
	Created
	Changed
)

// IsChange reports whether readers get anything new.
func (o Outcome) IsChange() bool { return o == Created || o == Changed }

// Result is the outcome of one file. Err is set where Outcome is Failed.
type Result struct {
	Outcome Outcome
	Err     error
	// Unsynced is set where the file is in place, as Outcome says, so that readers see it,
	// but its folder could not be synced: after a power failure the content before may be
	// back. Another write finds the file unchanged and syncs nothing; [SyncBelow] does.
	Unsynced error
	// Stamp is that of what is in place, taken from the open file when its content was
	// written or compared: nobody can have changed it before. It is zero where Outcome is
	// Failed.
	Stamp Stamp
	// Warnings tell what is not as one would expect, though the file is written.
	Warnings []string
}

// Check tells whether a file may be written at path, without touching it. It
// fails with [ErrRefused] for what [Write] would refuse, and nil for a file
// that does not exist yet.
func Check(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return nil // Missing or unreadable: writing will tell, with the whole story.
	}
	return checkKind(path, info)
}

func checkKind(path string, info fs.FileInfo) error {
	switch mode := info.Mode(); {
	case mode.IsRegular():
		return nil
	case mode&fs.ModeSymlink != 0:
		return fmt.Errorf("%s is a symbolic link: %w; name the file that it points to", path, ErrRefused)
	case mode.IsDir():
		return fmt.Errorf("%s is a folder: %w; name a file in it", path, ErrRefused)
	default:
		return fmt.Errorf("%s is not a regular file: %w", path, ErrRefused)
	}
}

// Write writes single files, each on its own: the failure of one leaves it as it
// was and does not stop the others. The results are in the order of the files.
func Write(files []File) []Result { return new(Plan).Write(files) }

// Write is [Write] with a plan that knows of other files, too.
func (p *Plan) Write(files []File) []Result {
	units := make([]Unit, len(files))
	for i, f := range files {
		units[i] = Unit{Files: []File{f}}
	}
	return slices.Concat(p.Stage(units).Commit()...)
}

// Batch are units whose content is whole on disk, but not in place yet.
type Batch struct {
	units   []Unit
	staged  []staged // nil where there is nothing to put in place
	results [][]Result
	folders folders
}

// staged is the new content of a unit.
type staged interface {
	// path is where the content is until it is in place: a file, or the folder of
	// a set.
	path() string
	// commit puts it in place, or leaves nothing behind.
	commit() ([]Result, error)
	// discard leaves nothing behind, if the folder is held.
	discard()
	// unlock closes what holds the lock.
	unlock()
	folder() *folder
}

const (
	// maxSyncs is how many files, and later how many folders, of a batch are written to disk
	// at the same time. A journal of a file system commits many syncs in one go, but more of
	// them than this only get into each other's way.
	maxSyncs = 8
	// maxOpen is how many units of a batch stay open until they are in place, each with its
	// folder: their locks need that. A cleaner may remove the others in between; they are
	// then written at the next try.
	maxOpen = 128
)

// Stage prepares units. [Batch.Commit] must follow.
func Stage(units []Unit) *Batch { return new(Plan).Stage(units) }

// Stage is [Stage] with a plan that knows of other files, too. Where a folder is
// missing, the plan is told of the files of the units.
//
// Some units are written at the same time if they are on a disk. When Stage returns, the content of each is on
// disk.
func (p *Plan) Stage(units []Unit) *Batch {
	b := &Batch{units: units, staged: make([]staged, len(units)), results: make([][]Result, len(units))}
	planned := false
	b.folders.make = func(at location) (*os.Root, error) {
		if !planned {
			p.addUnits(units)
			planned = true
		}
		return p.open(at)
	}
	var writers errgroup.Group
	writers.SetLimit(maxSyncs)
	started := 0
	for _, at := range inOrder(units, Unit.location) {
		keep, left := started < maxOpen, new(atomic.Int64)
		left.Store(int64(len(at.units)))
		for _, i := range at.units {
			dir, err := b.folders.open(at.key, units[i].createsFolder())
			if err != nil { // Where a later one succeeds, its unit makes the folder.
				b.fail(i, fmt.Errorf("writing %s: %w", units[i].name(), err))
				left.Add(-1)
				continue
			}
			isOpen := started < maxOpen
			started++
			write := func() error {
				b.stage(i, dir)
				if s := b.staged[i]; s != nil && !isOpen {
					s.unlock()
				}
				if left.Add(-1) == 0 && !keep {
					dir.release()
				}
				return nil
			}
			if dir.onDisk {
				writers.Go(write)
			} else { // There is nothing to wait for.
				_ = write()
			}
		}
	}
	_ = writers.Wait()
	return b
}

// stage prepares a unit in its folder.
func (b *Batch) stage(i int, dir *folder) {
	var err error
	if u := b.units[i]; u.Set != "" {
		atOnce := 1
		if dir.onDisk {
			atOnce = max(1, maxSyncs/len(b.units))
		}
		b.staged[i], b.results[i], err = dir.stageSet(u, atOnce)
	} else {
		b.staged[i], b.results[i], err = dir.stageFile(u.Files[0])
	}
	if err != nil {
		b.fail(i, err)
	}
}

// unitsOf are the units, by index, that have a key in common.
type unitsOf[K comparable] struct {
	key   K
	units []int
}

// inOrder groups units, in the order of the first unit of each group.
func inOrder[K comparable, U any](all []U, keyOf func(U) K) []*unitsOf[K] {
	var groups []*unitsOf[K]
	byKey := map[K]*unitsOf[K]{}
	for i, each := range all {
		key := keyOf(each)
		group := byKey[key]
		if group == nil {
			group = &unitsOf[K]{key: key}
			byKey[key] = group
			groups = append(groups, group)
		}
		group.units = append(group.units, i)
	}
	return groups
}

// Pending returns where the new content of a unit is: of a file, or the folder
// of a set. It is "" where nothing is to be put in place.
func (b *Batch) Pending(unit int) string {
	if b.staged[unit] == nil {
		return ""
	}
	return b.staged[unit].path()
}

// Open returns the new content of a unit where it is in no folder, which is then for
// programs that get the open file: others may not look into the agent's own. Else it
// is nil.
func (b *Batch) Open(unit int) *os.File {
	if s, isFile := b.staged[unit].(*stagedFile); isFile && s.temp == "" {
		return s.open
	}
	return nil
}

// Reject throws the new content of a unit away.
func (b *Batch) Reject(unit int, err error) {
	if s := b.staged[unit]; s != nil {
		if dir := s.folder(); dir.root == nil && dir.hold() == nil {
			defer dir.release()
		}
		s.discard()
	}
	b.fail(unit, err)
}

// fail makes the failure of a unit that of each of its files.
func (b *Batch) fail(unit int, err error) {
	b.staged[unit] = nil
	b.results[unit] = slices.Repeat([]Result{{Outcome: Failed, Err: err}}, len(b.units[unit].Files))
}

// Commit puts in place what was staged and not rejected, and returns a result
// for each file of each unit. Every folder is synced once, when all of its units are in
// place; where that fails, they are in place nevertheless: see [Result.Unsynced]. The units of a folder are put in place one after the other, in their order; those
// of other folders may be so at the same time.
func (b *Batch) Commit() [][]Result {
	defer b.folders.close()
	var writers errgroup.Group
	writers.SetLimit(maxSyncs)
	for _, in := range inOrder(b.staged, folderOf) {
		if in.key != nil {
			writers.Go(func() error {
				b.commitIn(in.key, in.units)
				return nil
			})
		}
	}
	_ = writers.Wait()
	return b.results
}

// folderOf returns the folder of a staged unit, or nil where nothing is to be put in place.
func folderOf(s staged) *folder {
	if s == nil {
		return nil
	}
	return s.folder()
}

// commitIn puts the units of one folder in place, and syncs it.
func (b *Batch) commitIn(dir *folder, units []int) {
	defer dir.release()
	gone := dir.hold()
	var moved []int
	for _, i := range units {
		s, err := b.staged[i], gone
		if err != nil {
			s.discard()
		} else {
			b.results[i], err = s.commit()
		}
		if err != nil {
			b.fail(i, fmt.Errorf("writing %s: %w", b.units[i].name(), err))
			continue
		}
		moved = append(moved, i)
	}
	if len(moved) == 0 {
		return
	}
	if err := dir.sync(); err != nil {
		err = fmt.Errorf("syncing folder %s: %w", dir.at.path, err)
		for _, i := range moved {
			for j := range b.results[i] {
				b.results[i][j].Unsynced = err
			}
		}
	}
}

// location is the folder of a unit's files.
func (u Unit) location() location {
	folder := u.Set
	if folder == "" {
		folder, _ = split(u.Files[0].Path)
	}
	return locationOf(folder, u.Files...)
}

// createsFolder reports whether the folder is made where it is missing.
func (u Unit) createsFolder() bool {
	return slices.ContainsFunc(u.Files, func(f File) bool { return f.CreateDirs })
}

func (u Unit) name() string {
	if u.Set != "" {
		return u.Set
	}
	return u.Files[0].Path
}

// split gives folder and name of a path.
func split(path string) (dir, base string) {
	dir, base = filepath.Split(filepath.Clean(path))
	return filepath.Clean(dir), base // Clean makes "." of "".
}

// Bare takes away the operation and path that package os puts before an error, for
// messages that name the file anyway, and where temporary names would only confuse.
func Bare(err error) error {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}
