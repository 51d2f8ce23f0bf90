package status

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// path is that of the socket in the private folder. It leads there whatever becomes of
// the folder's name, and is short: the address of a socket has at most 107 bytes.
func (p *privateFolder) path() string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", p.dir.Fd(), inPrivate)
}

// heldFile is a file that is held, whatever becomes of its name.
type heldFile struct{ *os.File }

// hold holds a file that may be a socket or a link, without opening what it stands for.
// As long as it is held, no other file has its inode.
func hold(folder *os.Root, name string) (heldFile, error) {
	dir, err := folder.Open(".")
	if err != nil {
		return heldFile{}, err
	}
	defer func() { _ = dir.Close() }()
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return heldFile{}, err
	}
	return heldFile{os.NewFile(uintptr(fd), name)}, nil
}

// path leads to the very file.
func (f heldFile) path() string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// move gives the socket its name in the folder. It takes the place of the old one, and
// of nothing else: what has come there meanwhile is put back.
func (p *privateFolder) move(folder *os.Root, name string, old *oldSocket) error {
	to, err := folder.Open(".")
	if err != nil {
		return bare(err)
	}
	defer func() { _ = to.Close() }()
	rename := func(flags uint) error {
		return unix.Renameat2(int(p.dir.Fd()), inPrivate, int(to.Fd()), name, flags)
	}
	if old == nil {
		err = rename(unix.RENAME_NOREPLACE)
	} else {
		err = rename(unix.RENAME_EXCHANGE)
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // Not every file system can.
		return rename(0)
	}
	if err != nil || old == nil {
		return err
	}
	replaced, err := p.Lstat(inPrivate)
	if err == nil && os.SameFile(replaced, old.file) {
		return nil
	}
	p.ours = rename(unix.RENAME_EXCHANGE) == nil
	return errReplaced
}
