package drop

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/smarteros/deaddrop/render/printable"
	"github.com/smarteros/deaddrop/render/safefile"
)

// maxLinks is how many symbolic links a path may have, as in the kernel.
const maxLinks = 40

// OpenFolder holds a folder. It follows a symbolic link only where nobody but root and
// the agent's user can have made it: the link belongs to one of them, and so does every
// folder on the way to it, none of which others may write to (those with the sticky bit,
// such as /tmp, excepted). Any other link is refused with [ErrRefused]: somebody may have
// put it in place of a folder. Errors name the folder, or the link.
func OpenFolder(path string) (*os.Root, error) {
	return location{path: filepath.Clean(path)}.open()
}

// walk goes down a path, one folder at a time. It holds the folder that it has come to,
// so that nobody can replace what it has looked at.
type walk struct {
	// at is open for going on only: the agent may be allowed to pass a folder that it
	// cannot list.
	at *os.File
	// path is that of at, without links.
	path string
	// isTrusted says that nobody else can make path lead to another folder, or replace
	// what root and the agent's user have in at.
	isTrusted bool
	links     int
}

const rootPath = string(filepath.Separator)

// restart goes to the root.
func (w *walk) restart() error {
	w.path, w.isTrusted = rootPath, true
	return w.move(unix.AT_FDCWD, rootPath)
}

// move opens a folder that is no link, lets the one before go, and judges the new one.
func (w *walk) move(in int, name string) error {
	fd, err := openToPass(in, name)
	if err != nil {
		return err
	}
	w.close()
	w.at = os.NewFile(uintptr(fd), w.path)
	info, err := w.at.Stat()
	if err != nil {
		return err
	}
	w.isTrusted = w.isTrusted && isTrustedFolder(info, true)
	return nil
}

func openToPass(in int, name string) (fd int, err error) {
	for {
		fd, err = unix.Openat(in, name, passOnly|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

func (w *walk) close() {
	if w.at != nil {
		_ = w.at.Close()
	}
}

// enter goes to a folder in the present one. isLink is true where it is a symbolic link.
func (w *walk) enter(name string) (isLink bool, err error) {
	in := int(w.at.Fd())
	err = w.move(in, name)
	if err == nil {
		w.path = filepath.Join(w.path, name)
		return false, nil
	}
	return isLinkIn(in, name), err
}

// isLinkIn reports whether a name in a held folder is that of a symbolic link.
func isLinkIn(in int, name string) bool {
	var stat unix.Stat_t
	return unix.Fstatat(in, name, &stat, unix.AT_SYMLINK_NOFOLLOW) == nil && stat.Mode&unix.S_IFMT == unix.S_IFLNK
}

// follow goes along an absolute path, and along the links in it that can be trusted.
func (w *walk) follow(path string) error {
	for names := namesOf(path); len(names) > 0; {
		name := names[0]
		names = names[1:]
		if name == ".." && !w.isTrusted { // Of a link: others may have moved the folder.
			return fmt.Errorf("a symbolic link leads to %s and back up: %w; write the path that it leads to", printable.Text(w.path), ErrRefused)
		}
		isLink, err := w.enter(name)
		switch {
		case err == nil:
			continue
		case !isLink:
			return err
		}
		target, err := w.readLink(name)
		if err != nil {
			return err
		}
		if filepath.IsAbs(target) {
			if err := w.restart(); err != nil {
				return err
			}
		}
		names = append(namesOf(target), names...)
	}
	return nil
}

// readLink returns the target of a link in the present folder. What it finds there stays
// there: nobody else can replace a link that can be trusted.
func (w *walk) readLink(name string) (string, error) {
	path, in := filepath.Join(w.path, name), int(w.at.Fd())
	var stat unix.Stat_t
	if err := unix.Fstatat(in, name, &stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return "", err
	}
	if !w.isTrusted || !isAgentsOrRoots(int(stat.Uid)) {
		return "", fmt.Errorf("%s is a symbolic link that others may have made: %w; write the path that it leads to", printable.Text(path), ErrRefused)
	}
	if w.links++; w.links > maxLinks {
		return "", unix.ELOOP
	}
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(in, name, target)
	if err != nil {
		return "", err
	}
	return string(target[:n]), nil
}

// descend goes through folders, none of which may be a link.
func (w *walk) descend(names []string) error {
	for _, name := range names {
		isLink, err := w.enter(name)
		if isLink {
			return refusedLink(filepath.Join(w.path, name))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// refusedLink is the error for a link where only a folder may be.
func refusedLink(path string) error {
	return fmt.Errorf("%s is a symbolic link: %w; put a folder there instead", printable.Text(path), ErrRefused)
}

// open returns the present folder. It is opened by its path, because an [os.Root] cannot
// be made of an open file, and has to be the same one.
func (w *walk) open() (*os.Root, error) {
	root, err := safefile.OpenDirectory(w.path)
	if err != nil {
		return nil, err
	}
	held, err := w.at.Stat()
	if err == nil {
		var opened fs.FileInfo
		if opened, err = root.Stat("."); err == nil && !os.SameFile(held, opened) {
			err = errReplaced
		}
	}
	if err != nil {
		_ = root.Close()
		return nil, err
	}
	return root, nil
}

// namesOf returns the elements of a path.
func namesOf(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == filepath.Separator })
}
