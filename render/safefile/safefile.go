// Package safefile reads files that somebody else may have put there or replaced.
//
// A plain [os.ReadFile] can be made to wait for ever by a FIFO, and to take all memory
// by a link to /dev/zero or by a sparse file of terabytes. The functions of this package
// open without blocking, accept regular files only, and read a bounded number of bytes.
// So they return soon, and need no context to cancel them.
package safefile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

var (
	// ErrNotRegular is the error for a FIFO, a device, a socket or a directory.
	ErrNotRegular = errors.New("not a regular file")
	// ErrTooLarge is the error for a file that has more bytes than the caller allows.
	ErrTooLarge = errors.New("file too large")
)

// openFlags open a FIFO without waiting for a writer, and a terminal without making it
// that of the process.
const openFlags = os.O_RDONLY | syscall.O_NONBLOCK | syscall.O_NOCTTY

// Open opens a regular file for reading. It follows links. Errors are those of package
// os, or wrap [ErrNotRegular].
func Open(path string) (*os.File, fs.FileInfo, error) {
	return open(path, os.Stat, os.OpenFile)
}

// OpenIn is [Open] for a name in a held directory. It follows links only within the
// directory; see [OpenNoFollowIn] for a file that may not be a link.
func OpenIn(dir *os.Root, name string) (*os.File, fs.FileInfo, error) {
	return open(name, dir.Stat, dir.OpenFile)
}

// OpenNoFollowIn is [OpenIn] for a file that may not be a symbolic link. A link is
// [ErrNotRegular].
func OpenNoFollowIn(dir *os.Root, name string) (*os.File, fs.FileInfo, error) {
	f, info, err := open(name, dir.Lstat, dir.OpenFile)
	if err != nil {
		return nil, nil, err
	}
	// os.Root follows links within its directory whatever the flags say.
	if now, err := dir.Lstat(name); err != nil || !os.SameFile(now, info) {
		_ = f.Close()
		return nil, nil, &fs.PathError{Op: "open", Path: name, Err: ErrNotRegular}
	}
	return f, info, nil
}

// OpenDirectory holds a directory. It follows links. Unlike [os.OpenRoot] it does not wait if
// somebody has put a FIFO in place of the directory.
func OpenDirectory(path string) (*os.Root, error) {
	root, err := os.OpenRoot(filepath.Clean(path) + "/.")
	var inPath *fs.PathError
	if errors.As(err, &inPath) {
		inPath.Path = path
	}
	return root, err
}

// open looks before it opens, because opening a device may have effects, and again
// afterwards, because the file may have been replaced in between.
func open(name string, stat func(string) (fs.FileInfo, error), openFile func(string, int, fs.FileMode) (*os.File, error)) (*os.File, fs.FileInfo, error) {
	info, err := stat(name)
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, &fs.PathError{Op: "open", Path: name, Err: ErrNotRegular}
	}
	f, err := openFile(name, openFlags, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err = f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: ErrNotRegular}
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// Read reads a regular file of at most limit bytes. It follows links. Errors are those of
// package os, or wrap [ErrNotRegular] or [ErrTooLarge].
func Read(path string, limit int64) ([]byte, error) {
	return readAll(path, limit)(Open(path))
}

// ReadIn is [Read] for a name in a held directory. It follows links only within the
// directory.
func ReadIn(dir *os.Root, name string, limit int64) ([]byte, error) {
	return readAll(name, limit)(OpenIn(dir, name))
}

// ReadNoFollowIn is [ReadIn] for a file that may not be a symbolic link.
func ReadNoFollowIn(dir *os.Root, name string, limit int64) ([]byte, error) {
	return readAll(name, limit)(OpenNoFollowIn(dir, name))
}

func readAll(name string, limit int64) func(*os.File, fs.FileInfo, error) ([]byte, error) {
	return func(f *os.File, info fs.FileInfo, err error) ([]byte, error) {
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		return ReadOpen(f, info, name, limit)
	}
}

// ReadOpen reads an open regular file of at most limit bytes from its beginning. Errors
// name it as name.
func ReadOpen(f *os.File, info fs.FileInfo, name string, limit int64) ([]byte, error) {
	if info.Size() > limit {
		return nil, tooLarge(name, limit)
	}
	// Files of /proc and /sys have no size, and others may grow meanwhile.
	content := make([]byte, 0, info.Size()+1)
	reader := io.NewSectionReader(f, 0, limit+1)
	for {
		n, err := reader.Read(content[len(content):cap(content)])
		content = content[:len(content)+n]
		switch {
		case int64(len(content)) > limit:
			return nil, tooLarge(name, limit)
		case errors.Is(err, io.EOF):
			return content, nil
		case err != nil:
			return nil, err
		case len(content) == cap(content):
			content = append(content, 0)[:len(content)]
		}
	}
}

// ReadStream reads a pipe, or another stream that the process owns, to its end: at most
// limit bytes. Unlike the other functions it waits. Errors name it as name.
func ReadStream(from io.Reader, name string, limit int64) ([]byte, error) {
	content, err := io.ReadAll(io.LimitReader(from, limit+1))
	if err == nil && int64(len(content)) > limit {
		err = tooLarge(name, limit)
	}
	return content, err
}

func tooLarge(name string, limit int64) error {
	return &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("%w: at most %d bytes are read", ErrTooLarge, limit)}
}
