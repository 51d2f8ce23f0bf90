package backup

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// File is a file that has its name only when it is complete. Until then it is in
// the same folder under a name that begins with a dot.
type File struct {
	path  string
	force bool
	temp  *os.File // nil for standard output
	out   *bufio.Writer
	sum   hash.Hash
	bytes int64
}

// CheckFile tells whether a file may be written: its folder is there, and it is
// not, or force allows to replace it.
func CheckFile(path string, force bool) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		_, err := os.Stat(filepath.Dir(path))
		return err
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is there, and is no ordinary file: write - for standard output", path)
	case !force:
		return fmt.Errorf("%s is there already: choose another name, or --force to replace it", path)
	}
	return nil
}

// NewFile begins a file that only its owner may read.
func NewFile(path string, force bool) (*File, error) {
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.partial")
	if err != nil {
		return nil, err
	}
	f := newFile(temp)
	f.path, f.force, f.temp = path, force, temp
	return f, nil
}

// NewStream writes to what is open already.
func NewStream(w io.Writer) *File { return newFile(w) }

func newFile(w io.Writer) *File { return &File{out: bufio.NewWriterSize(w, 64<<10), sum: sha256.New()} }

func (f *File) Write(b []byte) (int, error) {
	n, err := f.out.Write(b)
	f.sum.Write(b[:n])
	f.bytes += int64(n)
	return n, err
}

// Sum is the SHA-256 of what was written, and its size in bytes.
func (f *File) Sum() (string, int64) { return hex.EncodeToString(f.sum.Sum(nil)), f.bytes }

// Close ends the file, makes sure that it is on the disk, and gives it its name.
func (f *File) Close() error {
	if err := f.out.Flush(); err != nil || f.temp == nil {
		return err
	}
	if err := f.temp.Sync(); err != nil {
		return err
	}
	if err := f.temp.Close(); err != nil {
		return err
	}
	if err := f.name(); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(f.path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// name puts the file in place. What has come there meanwhile is not replaced.
func (f *File) name() error {
	if !f.force {
		err := os.Link(f.temp.Name(), f.path)
		if err == nil {
			return nil // Abort removes the other name.
		}
		if err := CheckFile(f.path, false); err != nil { // Not every file system has links.
			return err
		}
	}
	return os.Rename(f.temp.Name(), f.path)
}

// Abort removes what there is of a file that was not closed. It may be called
// after Close, too.
func (f *File) Abort() {
	if f.temp != nil {
		_ = f.temp.Close()
		_ = os.Remove(f.temp.Name())
	}
}
