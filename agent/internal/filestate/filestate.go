// Package filestate reports whether a file exists, and whether it is another one than
// before, without reading it.
package filestate

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// Of is a text that is another one once the file was replaced or written to. The time of
// the last change is not enough for that: it goes by ticks of some milliseconds, and a
// new certificate is often as long as the old one. The error is that of [os.Stat].
func Of(path string) (string, fs.FileInfo, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", nil, err
	}
	inode := uint64(0)
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		inode = stat.Ino
	}
	return fmt.Sprint(inode, info.Size(), info.ModTime().UnixNano()), info, nil
}

// Exists reports whether something has a path: a symbolic link counts, wherever it leads.
func Exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
