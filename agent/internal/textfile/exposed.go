package textfile

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Exposure is a file, or a folder above it, that somebody else may change.
type Exposure struct {
	// Path is what they may change.
	Path string
	// Detail says who they are.
	Detail string
	// Hint is a command that keeps them out.
	Hint string
}

// Exposed returns the ways in which users other than root and the user of this process may
// change files: by writing to one, or by putting another in its place. There is one for
// each file or folder that is open to them. What is mounted read-only is not.
func Exposed(paths []string) []Exposure {
	var all []Exposure
	process := thisProcess()
	seen := map[string]bool{}
	for _, path := range paths {
		if IsStream(path) {
			continue
		}
		for _, each := range chain(path) {
			if seen[each] {
				continue
			}
			seen[each] = true
			if e := process.exposure(each); e != nil && !isReadOnly(each) {
				all = append(all, *e)
			}
		}
	}
	return all
}

// chain returns a path and the folders above it, and the same for what it leads to.
func chain(path string) []string {
	var all []string
	add := func(path string) {
		for ; ; path = filepath.Dir(path) {
			all = append(all, path)
			if path == filepath.Dir(path) {
				return
			}
		}
	}
	if absolute, err := filepath.Abs(path); err == nil {
		add(absolute)
		if real, err := filepath.EvalSymlinks(absolute); err == nil && real != absolute {
			add(real)
		}
	}
	return all
}

// exposure returns how a single file or folder is open to others, or nil.
func (r reader) exposure(path string) *Exposure {
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&fs.ModeSymlink != 0 {
		return nil // The folder of a link decides who may change it.
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	uid, gid, mode := int(stat.Uid), int(stat.Gid), info.Mode().Perm()
	// In a folder with the sticky bit, such as /tmp, nobody moves files of others.
	isShared := info.IsDir() && info.Mode()&fs.ModeSticky != 0
	switch {
	case uid != 0 && uid != r.uid:
		return &Exposure{path, "it belongs to user " + userName(uid), fmt.Sprintf("chown %d %s", r.uid, path)}
	case mode&0o002 != 0 && !isShared:
		return &Exposure{path, "every user may write to it", fmt.Sprintf("chmod %04o %s", mode&^0o022, path)}
	case mode&0o020 != 0 && !isShared && !r.isPrivate(gid):
		return &Exposure{path, "group " + groupName(gid) + " may write to it", fmt.Sprintf("chmod %04o %s", mode&^0o020, path)}
	}
	return nil
}

// isPrivate reports whether a group has no members besides root and the user, going by
// the convention of a group of the user's own name.
func (r reader) isPrivate(gid int) bool {
	return gid == 0 || gid == r.gid && groupName(gid) == userName(r.uid)
}

// readOnly is the flag of a mount: ST_RDONLY on Linux, MNT_RDONLY on macOS.
const readOnly = 1

// isReadOnly reports whether nobody can write through this mount.
func isReadOnly(path string) bool {
	var stat unix.Statfs_t
	return unix.Statfs(path, &stat) == nil && stat.Flags&readOnly != 0
}
