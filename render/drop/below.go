package drop

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// location is a folder, and how far its path is trusted.
type location struct {
	path string
	// place and strict are those of a [File].
	place  string
	strict bool
}

// locationBelow is a folder below a place, or anywhere where place is "".
func locationBelow(place, folder string) location {
	at := location{path: filepath.Clean(folder)}
	if place != "" {
		at.place = filepath.Clean(place)
	}
	return at
}

// below returns the names that lead from the place to the folder. There are none where
// the folder has no place, or is it.
func (at location) below() ([]string, error) {
	if at.place == "" {
		return nil, nil
	}
	inside, err := filepath.Rel(at.place, at.path)
	switch {
	case err != nil || !filepath.IsLocal(inside):
		return nil, fmt.Errorf("%s is not below %s: %w", at.path, at.place, ErrRefused)
	case inside == ".":
		return nil, nil
	}
	return strings.Split(inside, string(filepath.Separator)), nil
}

// open opens a folder that exists. Errors name the folder, or a symbolic link in its path.
func (at location) open() (*os.Root, error) {
	w, err := at.walk()
	if err != nil {
		return nil, err
	}
	defer w.close()
	root, err := w.open()
	if err != nil {
		return nil, at.errorOf(err)
	}
	return root, nil
}

// walk walks to a folder that exists, which the caller closes. Errors are those of open.
func (at location) walk() (*walk, error) {
	below, err := at.below()
	if err != nil {
		return nil, err
	}
	above := at.path
	if at.place != "" {
		above = at.place
	}
	whole, err := filepath.Abs(above)
	if err != nil {
		return nil, at.errorOf(err)
	}
	w := &walk{}
	if err = w.restart(); err == nil {
		err = w.follow(whole)
	}
	if err == nil {
		err = w.descend(below)
	}
	if err != nil {
		w.close()
		return nil, at.errorOf(err)
	}
	return w, nil
}

// errorOf names the folder in an error, unless that names a symbolic link.
func (at location) errorOf(err error) error {
	if errors.Is(err, ErrRefused) {
		return err
	}
	return fmt.Errorf("%s: %w", at.path, Bare(err))
}

// parent is the folder above. That of the place has none.
func (at location) parent() location {
	if at.path == at.place {
		at.place = ""
	}
	at.path = filepath.Dir(at.path)
	return at
}

// openReal opens a folder in a held one. A link to a folder is refused, even one that
// stays within the held folder: there are folders of others, too. path is for errors.
func openReal(parent *os.Root, name, path string) (*os.Root, error) {
	info, err := parent.Lstat(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, Bare(err))
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		return nil, fmt.Errorf("%s is a symbolic link: %w; put a folder there instead", path, ErrRefused)
	}
	root, err := parent.OpenRoot(name + "/.") // The dot is as in [safefile.OpenDirectory].
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, Bare(err))
	}
	// os.Root follows a link that has come in between.
	if now, err := root.Stat("."); err != nil || !os.SameFile(info, now) {
		_ = root.Close()
		return nil, fmt.Errorf("%s: %w", path, errReplaced)
	}
	return root, nil
}

// Remove removes a file. It refuses what [Write] would refuse. removed is false where
// there is no file, which is no error.
func Remove(path string) (removed bool, err error) { return RemoveBelow("", path) }

// RemoveBelow is [Remove] for a file below a place, as [File.Place] has it: the
// folders between them have to be real ones, not links. Where place is "", see
// [OpenFolder].
func RemoveBelow(place, path string) (removed bool, err error) {
	folder, base := split(path)
	root, err := locationBelow(place, folder).open()
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("removing %s: %w", path, err)
	}
	defer func() { _ = root.Close() }()
	info, err := root.Lstat(base)
	if err == nil {
		if err := checkKind(path, info); err != nil {
			return false, err
		}
		err = unlink(root, base, 0)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("removing %s: %w", path, Bare(err))
	}
	return true, nil
}

// RemoveEmptyBelow removes a folder below a place if it is empty, and then those above
// it, up to the place, which stays. It removes no links.
func RemoveEmptyBelow(place, folder string) {
	at := location{path: filepath.Clean(folder), place: filepath.Clean(place)}
	names, err := at.below()
	if err != nil || len(names) == 0 {
		return
	}
	root, err := location{path: at.place}.open()
	if err != nil {
		return
	}
	defer func() { _ = root.Close() }()
	removeEmpty(root, names)
}

// removeEmpty removes folders, each in the one before, and reports whether all are gone.
func removeEmpty(parent *os.Root, names []string) bool {
	if len(names) > 1 {
		child, err := openReal(parent, names[0], names[0])
		if err != nil {
			return false
		}
		gone := removeEmpty(child, names[1:])
		_ = child.Close()
		if !gone {
			return false
		}
	}
	return unlink(parent, names[0], unix.AT_REMOVEDIR) == nil
}

// unlink removes a name from a held folder: that of a file, or with AT_REMOVEDIR that of
// an empty folder. [os.Root.Remove] would remove either.
func unlink(in *os.Root, name string, flags int) error {
	dir, err := in.Open(".")
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	return unix.Unlinkat(int(dir.Fd()), name, flags)
}

// maxEntries is how many entries of a folder are looked at, and maxInGeneration how many
// files of a generation are removed. Others may add more of them all the time.
const (
	maxEntries      = 100_000
	maxInGeneration = 10_000
)

var errTooMany = errors.New("it has too many entries to look at all of them")

// eachEntry calls do for the entries of a held folder, some at a time, and fails with
// [errTooMany] after max of them.
func eachEntry(in *os.Root, max int, do func(fs.DirEntry)) error {
	dir, err := in.Open(".")
	if err != nil {
		return Bare(err)
	}
	defer func() { _ = dir.Close() }()
	for seen := 0; ; {
		entries, err := dir.ReadDir(256)
		for _, e := range entries {
			if seen++; seen > max {
				return errTooMany
			}
			do(e)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return Bare(err)
		}
	}
}

// removeGeneration removes the folder of a generation and the files in it. The package
// makes no folders in there: where there are any, or too many files, they stay.
func removeGeneration(in *os.Root, name string) error {
	folder, err := openReal(in, name, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	err = eachEntry(folder, maxInGeneration, func(e fs.DirEntry) { _ = unlink(folder, e.Name(), 0) })
	_ = folder.Close()
	if err != nil {
		return err
	}
	return unlink(in, name, unix.AT_REMOVEDIR)
}
