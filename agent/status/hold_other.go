//go:build !linux

package status

import (
	"os"
	"path/filepath"
)

// path is that of the socket in the private folder. Only Linux can name a file in an open
// folder; elsewhere a folder that was replaced shows afterwards, for the socket is not in
// the open one then.
func (p *privateFolder) path() string { return filepath.Join(p.Name(), inPrivate) }

// heldFile is a file by its path.
type heldFile struct {
	folder *os.Root
	name   string
}

// hold does not hold anything outside of Linux.
func hold(folder *os.Root, name string) (heldFile, error) {
	_, err := folder.Lstat(name)
	return heldFile{folder, name}, err
}

func (f heldFile) path() string               { return filepath.Join(f.folder.Name(), f.name) }
func (f heldFile) Stat() (os.FileInfo, error) { return f.folder.Lstat(f.name) }
func (f heldFile) Close() error               { return nil }

// move gives the socket its name in the folder. Both names are looked up in the folder
// that is open.
func (p *privateFolder) move(folder *os.Root, name string, _ *oldSocket) error {
	return bare(folder.Rename(filepath.Join(p.name, inPrivate), name))
}
