package reload

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/smarteros/deaddrop/render/drop"
	"github.com/smarteros/deaddrop/render/safefile"
)

// mostLinks is as many links as Linux follows.
const mostLinks = 40

// openChain opens a regular file for reading. It returns what led to the file: the links
// one after the other, and the file last. Each is held while it is looked at and read, so
// that nobody can put another one there in between. A link in place of a folder on the way
// is followed only if nobody but root and the agent's user can have made it.
func openChain(path string) (*os.File, []fs.FileInfo, error) {
	var chain []fs.FileInfo
	for target := path; len(chain) <= mostLinks; {
		held, err := hold(target)
		if err != nil {
			return nil, nil, &fs.PathError{Op: "open", Path: path, Err: drop.Bare(err)}
		}
		file, next, err := follow(held, &chain)
		_ = held.Close()
		if err != nil || file != nil {
			return file, chain, err
		}
		if !filepath.IsAbs(next) { // Not [filepath.Join]: ".." counts from where a link leads.
			next = filepath.Dir(target) + "/" + next
		}
		target = next
	}
	return nil, nil, &fs.PathError{Op: "open", Path: path, Err: unix.ELOOP}
}

// hold opens what a path names, without following a link and without reading.
func hold(path string) (*os.File, error) {
	folder, err := drop.OpenFolder(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer func() { _ = folder.Close() }()
	dir, err := folder.Open(".")
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	fd, err := unix.Openat(int(dir.Fd()), filepath.Base(path), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// follow opens what is held, or returns where it leads if it is a link.
func follow(held *os.File, chain *[]fs.FileInfo) (file *os.File, target string, err error) {
	info, err := held.Stat()
	if err != nil {
		return nil, "", err
	}
	*chain = append(*chain, info)
	if info.Mode().Type() == fs.ModeSymlink {
		buffer := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(int(held.Fd()), "", buffer)
		return nil, string(buffer[:max(n, 0)]), err
	}
	file, opened, err := safefile.Open(held.Name())
	if err != nil {
		return nil, "", err
	}
	if !os.SameFile(opened, info) {
		_ = file.Close()
		return nil, "", errors.New("the pid file was replaced while it was opened")
	}
	return file, "", nil
}
