package drop

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// tempPrefix begins the name of every temporary file and link.
const tempPrefix = ".deaddrop-"

// longestBase is how much of a file's name its temporary one ends in: checks may
// go by the ending.
const longestBase = 100

func tempName(base string) string {
	return tempPrefix + rand.Text() + "-" + base[max(0, len(base)-longestBase):]
}

// folder is one that is open. What happens in it happens to the folder that was
// opened, whatever its path names by then.
type folder struct {
	root *os.Root // nil while it is not held
	at   location
	is   fs.FileInfo // of the folder that was opened first
	// onDisk says that its files are not in memory alone.
	onDisk bool
}

// folders are those of one batch.
type folders struct {
	opened map[location]*folder
	make   func(location) (*os.Root, error)
}

// open opens a folder. One that is missing is made where create says so.
func (fs *folders) open(at location, create bool) (*folder, error) {
	if dir := fs.opened[at]; dir != nil {
		return dir, nil
	}
	if at.strict {
		if err := CheckTrustedOrNew(at.path); err != nil {
			return nil, fmt.Errorf("strict: folder %w", err)
		}
	}
	root, err := at.open()
	missing := errors.Is(err, os.ErrNotExist)
	switch {
	case missing && create:
		if root, err = fs.make(at); err != nil {
			return nil, fmt.Errorf("creating folder %w", err)
		}
	case missing:
		return nil, fmt.Errorf("folder %s does not exist; create it or set create_dest_dirs = true", at.path)
	case err != nil:
		return nil, fmt.Errorf("opening folder %w", err)
	}
	is, err := root.Stat(".")
	if err != nil {
		_ = root.Close()
		return nil, fmt.Errorf("opening folder %s: %w", at.path, Bare(err))
	}
	dir := &folder{root: root, at: at, is: is, onDisk: onDisk(at.path)}
	if at.strict { // A parent with the sticky bit may have let somebody else make it.
		err := CheckTrusted(at.path)
		if err != nil {
			err = fmt.Errorf("strict: folder %w", err)
		} else {
			err = dir.hold()
		}
		if err != nil {
			_ = root.Close()
			return nil, err
		}
	}
	if fs.opened == nil {
		fs.opened = map[location]*folder{}
	}
	fs.opened[at] = dir
	return dir, nil
}

func (fs *folders) close() {
	for _, dir := range fs.opened {
		dir.release()
	}
}

// release lets the folder go until it is held again.
func (d *folder) release() {
	if d.root != nil {
		_ = d.root.Close()
		d.root = nil
	}
}

// hold holds the folder, if it is not held, and fails where its path leads to another one
// by now.
func (d *folder) hold() error {
	current, err := d.at.open()
	if err == nil {
		var now fs.FileInfo
		if now, err = current.Stat("."); err == nil && os.SameFile(d.is, now) {
			if d.root != nil {
				return Bare(current.Close())
			}
			d.root = current
			return nil
		}
		_ = current.Close()
	}
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		return fmt.Errorf("opening folder %w", err)
	}
	return fmt.Errorf("folder %s was moved away or replaced meanwhile", d.at.path)
}

// mayBeAnothers reports whether a file of the folder has other names (hard links) that
// somebody else may have made: it may then be the file of a third one. Most kernels keep
// users from that (fs.protected_hardlinks), but not all.
func (d *folder) mayBeAnothers(file fs.FileInfo) bool {
	if stat, ok := file.Sys().(*syscall.Stat_t); !ok || stat.Nlink < 2 {
		return false
	}
	info, err := d.root.Stat(".")
	return err != nil || !isTrustedFolder(info, false)
}

func (d *folder) sync() error { return syncFolder(d.root) }

func syncFolder(root *os.Root) error {
	dir, err := root.Open(".")
	if err != nil {
		return Bare(err)
	}
	return Bare(errors.Join(dir.Sync(), dir.Close()))
}

// SyncBelow syncs a folder below a place, as [File.Place] has it, once more: see
// [Result.Unsynced]. Where place is "", see [OpenFolder].
func SyncBelow(place, path string) error {
	root, err := locationBelow(place, path).open()
	if err != nil {
		return fmt.Errorf("syncing folder %w", err)
	}
	defer func() { _ = root.Close() }()
	if err := syncFolder(root); err != nil {
		return fmt.Errorf("syncing folder %s: %w", path, err)
	}
	return nil
}

// errLocked is the error for a new file or folder that another process has locked first.
var errLocked = errors.New("another process has locked the new file")

// lock marks a temporary file or folder as one that is being written. The lock goes with
// the process, however that ends. It fails with [errLocked] instead of waiting.
func lock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errLocked
	}
	return err
}

// maxNames is how many names [createLocked] tries.
const maxNames = 10

// createLocked calls create with new names until it does not fail with [errLocked], after
// which create must leave nothing behind. A cleaner locks each leftover for a moment, to see
// whether anybody is writing it; a process that has locked all of them is no cleaner.
func createLocked(newName func() string, create func(name string) error) error {
	var err error
	for range maxNames {
		if err = create(newName()); !errors.Is(err, errLocked) {
			return err
		}
	}
	return err
}

// Clean removes from a folder what writers have left there that were killed:
// temporary files and folders, and generations of a set that "..data" does not name.
// What another process is writing is left alone, and so is what holds nothing and was made
// less than a minute before now. It returns how much was removed.
func Clean(path string, now time.Time) (removed int, err error) { return CleanBelow("", path, now) }

// CleanBelow is [Clean] for a folder below a place, as [File.Place] has it.
func CleanBelow(place, path string, now time.Time) (removed int, err error) {
	root, err := locationBelow(place, path).open()
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("cleaning folder %w", err)
	}
	defer func() { _ = root.Close() }()
	err = eachEntry(root, maxEntries, func(e fs.DirEntry) {
		if isLeftover(e) && stale(root, e, now) && remove(root, e) == nil {
			removed++
		}
	})
	if err != nil {
		return removed, fmt.Errorf("cleaning folder %s: %w", path, err)
	}
	return removed, nil
}

// remove removes a temporary file, if the folder is held.
func (d *folder) remove(temp string) {
	if d.root != nil {
		_ = d.root.Remove(temp)
	}
}

// remove removes a leftover. A folder that was to get another name is empty.
func remove(root *os.Root, e fs.DirEntry) error {
	if strings.HasPrefix(e.Name(), generationPrefix) {
		return removeGeneration(root, e.Name())
	}
	return root.Remove(e.Name())
}

// tempNames are those that tempName gives.
var tempNames = regexp.MustCompile("^" + regexp.QuoteMeta(tempPrefix) + "[A-Z2-7]{26}-")

// isLeftover tells whether a name is one that only this package gives, to what it
// gives it.
func isLeftover(e fs.DirEntry) bool {
	switch e.Type() {
	case fs.ModeDir:
		return strings.HasPrefix(e.Name(), generationPrefix) || tempNames.MatchString(e.Name())
	case 0, fs.ModeSymlink:
		return tempNames.MatchString(e.Name())
	}
	return false
}

// young is how long what holds nothing is left alone: a link, which cannot be
// locked, and what was made, but not locked yet.
const young = time.Minute

// stale tells whether nobody is writing a file or generation any more. That a
// generation is the present one is looked at when it is certain that it will not
// become that: while its lock is held.
func stale(root *os.Root, e fs.DirEntry, now time.Time) bool {
	if e.Type()&fs.ModeSymlink != 0 {
		info, err := e.Info()
		return err == nil && now.Sub(info.ModTime()) > young
	}
	f, err := root.OpenFile(e.Name(), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if errors.Is(err, fs.ErrPermission) {
		info, err := e.Info() // Of mode 0200, say. Another user's is none of ours.
		if err != nil {
			return false
		}
		uid, _ := ownerOf(info)
		return uid == os.Geteuid() && now.Sub(info.ModTime()) > young
	}
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		return false
	}
	if info, err := f.Stat(); err != nil || !info.IsDir() && !info.Mode().IsRegular() || now.Sub(info.ModTime()) < young && isEmpty(f, info) {
		return false
	}
	current, _ := root.Readlink(dataLink)
	return e.Name() != current
}

func isEmpty(f *os.File, info fs.FileInfo) bool {
	if !info.IsDir() {
		return info.Size() == 0
	}
	names, _ := f.Readdirnames(1)
	return len(names) == 0
}

// Folder is what matters of the folder of a secret.
type Folder struct {
	// OthersMayWrite says that every user of the machine may put files there.
	OthersMayWrite bool
	// OnDisk says that its files are not in memory alone. It is false where that
	// cannot be told.
	OnDisk bool
	// FileSystem is the type of file system that it is on, such as "ext4", and Mount is
	// where that is mounted. They are "" where that is not known.
	FileSystem, Mount string
}

// Inspect looks at the folder of a file. One that does not exist yet is judged by
// the folder that it will be made in: it is then the agent's own.
func Inspect(path string) (Folder, error) {
	dir := Nearest(path)
	info, err := os.Stat(dir)
	if err != nil {
		return Folder{}, fmt.Errorf("folder %s: %w", dir, Bare(err))
	}
	made := dir != filepath.Clean(path)
	is := Folder{OthersMayWrite: !made && info.Mode().Perm()&0o002 != 0, OnDisk: onDisk(dir)}
	is.Mount, is.FileSystem = mountOf(dir)
	return is, nil
}

// Nearest returns the folder itself, or the one above it that would be there to make it
// in.
func Nearest(path string) string {
	dir := filepath.Clean(path)
	for {
		_, err := os.Stat(dir)
		if !errors.Is(err, os.ErrNotExist) || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}
