// Package input opens the files that an operator names on the command line.
//
// A name may lead into a folder of somebody else, so that only regular files are opened,
// as package safefile does. The exception are the names of devices, which are root's, and
// of descriptors that the process has already, such as those of the shell's <(command).
package input

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/smarteros/deaddrop/render/safefile"
)

// Open opens a regular file, a device or a descriptor of the process. Errors name the file.
func Open(path string) (*os.File, fs.FileInfo, error) {
	if !isDevice(path) {
		return safefile.Open(path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = &fs.PathError{Op: "open", Path: path, Err: safefile.ErrNotRegular}
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// Read reads a file of at most limit bytes. Errors name the file.
func Read(path string, limit int64) ([]byte, error) {
	f, info, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if info.Mode().IsRegular() {
		return safefile.ReadOpen(f, info, path, limit)
	}
	return safefile.ReadStream(f, path, limit)
}

// Check reports what keeps a file from being read, for those that a library reads by
// itself. It reads nothing. A file that is not there is the library's error to report.
func Check(path string, limit int64) error {
	if path == "" || isDevice(path) {
		return nil
	}
	f, info, err := safefile.Open(path)
	switch {
	case errors.Is(err, safefile.ErrNotRegular):
		return err
	case err != nil:
		return nil
	}
	_ = f.Close()
	if info.Size() > limit {
		return &fs.PathError{Op: "read", Path: path, Err: safefile.ErrTooLarge}
	}
	return nil
}

// isDevice reports whether a path is that of a device or of a descriptor of the process.
// It goes by the name alone: a link to such a name may be somebody else's.
func isDevice(path string) bool {
	switch filepath.Dir(filepath.Clean(path)) {
	case "/dev", "/dev/fd", "/proc/self/fd":
		return true
	}
	return false
}
