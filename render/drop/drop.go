// Package drop puts bytes into files so that no reader ever sees half of one.
//
// A file is written to a temporary name in its own folder, created exclusively
// with mode 0600 and without following links; its final mode is set before the
// first byte of content; content and folder are synced to disk; and it gets
// its name by rename. A file that already holds the same bytes is left alone.
package drop

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// tempPrefix begins the name of every temporary file.
const tempPrefix = ".deaddrop-"

// ErrRefused is what a destination that must not be replaced fails with: a
// symbolic link, a folder, a device, a socket.
var ErrRefused = errors.New("refused")

// File is one file to write.
type File struct {
	// Path is where it goes. Its last element may not be a symbolic link.
	Path string
	// Content is the whole of it.
	Content []byte
	// Mode holds its permission bits.
	Mode fs.FileMode
	// CreateDirs makes missing parent folders, with mode 0700.
	CreateDirs bool
}

// Outcome says what [Write] did with a file.
type Outcome int

// The outcomes of a write. Only Created and Changed give readers anything new.
const (
	Failed Outcome = iota
	Unchanged
	Created
	Changed
)

// Result is the outcome of one file. Err is set where Outcome is Failed.
type Result struct {
	Outcome Outcome
	Err     error
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

// Write writes the files, each on its own: the failure of one leaves it as it
// was and does not stop the others. All are prepared before the first is
// renamed, and every folder is synced once. The results are in the order of
// the files.
func Write(files []File) []Result {
	results := make([]Result, len(files))
	staged := make([]*stage, len(files))
	folders := folders{}
	defer folders.close()
	for i, f := range files {
		staged[i], results[i] = prepare(folders, f)
	}
	for i, s := range staged {
		if s != nil {
			results[i] = s.commit()
		}
	}
	for dir, root := range folders {
		err := syncFolder(root)
		if err == nil {
			continue
		}
		for i, s := range staged {
			if s != nil && s.root == root && results[i].Err == nil {
				results[i] = Result{Failed, fmt.Errorf("syncing folder %s: %w", dir, err)}
			}
		}
	}
	return results
}

// folders are the folders of one [Write], open, by path. What happens in them
// happens to the folder that was opened, whatever its path names by then.
type folders map[string]*os.Root

func (fs folders) open(dir string, create bool) (*os.Root, error) {
	if root := fs[dir]; root != nil {
		return root, nil
	}
	if create {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("creating folder %s: %w", dir, bare(err))
		}
	}
	root, err := os.OpenRoot(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("folder %s does not exist; create it or set create_dest_dirs = true", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("opening folder %s: %w", dir, bare(err))
	}
	fs[dir] = root
	return root, nil
}

func (fs folders) close() {
	for _, root := range fs {
		_ = root.Close()
	}
}

// stage is a file that is whole on disk, but not yet under its name.
type stage struct {
	root       *os.Root
	file       File
	base, temp string
	outcome    Outcome // if the rename succeeds
}

// prepare returns a nil stage when there is nothing to rename.
func prepare(folders folders, f File) (*stage, Result) {
	fail := func(err error) (*stage, Result) {
		return nil, Result{Failed, fmt.Errorf("writing %s: %w", f.Path, err)}
	}
	dir, base := filepath.Split(filepath.Clean(f.Path))
	if dir == "" {
		dir = "."
	}
	root, err := folders.open(filepath.Clean(dir), f.CreateDirs)
	if err != nil {
		return fail(err)
	}
	outcome, err := compare(root, base, f)
	if err != nil {
		return fail(err)
	}
	if outcome == Unchanged {
		return nil, Result{Outcome: Unchanged}
	}
	s := &stage{root: root, file: f, base: base, temp: tempPrefix + rand.Text(), outcome: outcome}
	if err := s.fill(); err != nil {
		_ = root.Remove(s.temp)
		return fail(bare(err))
	}
	return s, Result{}
}

// compare tells what writing f would do. A file with the right bytes and the
// wrong mode only gets its mode.
func compare(root *os.Root, base string, f File) (Outcome, error) {
	info, err := root.Lstat(base)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return Created, nil
	case err != nil:
		return Failed, bare(err)
	}
	if err := checkKind(f.Path, info); err != nil {
		return Failed, err
	}
	if info.Size() != int64(len(f.Content)) {
		return Changed, nil
	}
	old, err := root.ReadFile(base)
	if err != nil || !bytes.Equal(old, f.Content) {
		return Changed, nil
	}
	if info.Mode().Perm() != f.Mode.Perm() {
		if err := root.Chmod(base, f.Mode.Perm()); err != nil {
			return Failed, bare(err)
		}
	}
	return Unchanged, nil
}

func (s *stage) fill() (err error) {
	f, err := s.root.OpenFile(s.temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Chmod(s.file.Mode.Perm()); err != nil {
		return err
	}
	if _, err := f.Write(s.file.Content); err != nil {
		return err
	}
	return f.Sync()
}

func (s *stage) commit() Result {
	err := s.root.Rename(s.temp, s.base)
	if err == nil {
		return Result{Outcome: s.outcome}
	}
	_ = s.root.Remove(s.temp)
	err = bare(err)
	if errors.Is(err, syscall.EBUSY) {
		err = fmt.Errorf("%w: it is a mount point of its own, so it cannot be replaced; mount its folder instead", err)
	}
	return Result{Failed, fmt.Errorf("writing %s: %w", s.file.Path, err)}
}

func syncFolder(root *os.Root) error {
	dir, err := root.Open(".")
	if err != nil {
		return bare(err)
	}
	return bare(errors.Join(dir.Sync(), dir.Close()))
}

// bare takes away the operation and path that package os puts before an error:
// ours name the destination, and temporary names only confuse.
func bare(err error) error {
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
