package textfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// AccessError is a file that the process may not read. It is an
// [fs.ErrPermission].
type AccessError struct {
	// Detail names the user of the process, and owner and mode of what is closed
	// to it.
	Detail string
	// Hint is a command that opens it.
	Hint string

	err error
}

func (e *AccessError) Error() string { return e.Detail + "; " + e.Hint }

// Unwrap gives the error of package os.
func (e *AccessError) Unwrap() error { return e.err }

// reader is the identity of a process that reads.
type reader struct {
	uid, gid int
	groups   []int
}

func thisProcess() reader {
	groups, _ := os.Getgroups()
	return reader{os.Geteuid(), os.Getegid(), groups}
}

// denied explains why a file may not be read: by its own mode, or by that of a
// folder above it.
func denied(path string, err error) error {
	var inPath *fs.PathError
	if errors.As(err, &inPath) {
		err = inPath.Err
	}
	info, lookErr := os.Stat(path)
	if lookErr == nil {
		return thisProcess().explain(path, info, err)
	}
	for folder := filepath.Dir(path); ; folder = filepath.Dir(folder) {
		if info, lookErr := os.Stat(folder); lookErr == nil {
			return thisProcess().explain(folder, info, err)
		}
		if folder == filepath.Dir(folder) {
			return err
		}
	}
}

// explain returns an error that says what keeps a user from a file, or from what is in a folder.
func (r reader) explain(path string, info fs.FileInfo, err error) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return err
	}
	uid, gid, mode := int(stat.Uid), int(stat.Gid), info.Mode().Perm()
	what, add := "read a file", fs.FileMode(0o4)
	if info.IsDir() {
		what, add = "look into "+path+", a folder", 0o1
	}
	e := &AccessError{err: err, Detail: fmt.Sprintf("permission denied: user %s may not %s of %s:%s with mode %04o",
		userName(r.uid), what, userName(uid), groupName(gid), mode)}
	switch {
	case uid == r.uid:
		e.Hint = fmt.Sprintf("chmod %04o %s", mode|add<<6, path)
	case gid == r.gid || slices.Contains(r.groups, gid):
		e.Hint = fmt.Sprintf("chmod %04o %s", mode|add<<3, path)
	case info.IsDir():
		e.Hint = fmt.Sprintf("chgrp %d %s && chmod %04o %s", r.gid, path, mode|add<<3, path)
	default:
		e.Hint = fmt.Sprintf("chown %d %s, or chgrp %d %s && chmod %04o %s", r.uid, path, r.gid, path, mode|add<<3, path)
	}
	return e
}

func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return strconv.Itoa(uid)
}

func groupName(gid int) string {
	if g, err := user.LookupGroupId(strconv.Itoa(gid)); err == nil {
		return g.Name
	}
	return strconv.Itoa(gid)
}
