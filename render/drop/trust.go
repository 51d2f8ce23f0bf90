package drop

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/smarteros/deaddrop/render/printable"
)

// TrustError says why a folder is not the agent's alone.
type TrustError struct {
	// Folder is the folder that was asked about, and Path the one of it and its parents
	// that fails, or the symbolic link.
	Folder, Path string
	// Detail is what is wrong with Path.
	Detail string
	// Hint is what the user can do about it: a command, or another folder to use.
	Hint string
}

func (e *TrustError) Error() string { return e.Path + " " + e.Detail + "; " + e.Hint }

// CheckTrusted returns nil if nobody but the agent's user and root can change what a
// folder holds, or which folder its path leads to: it and all its parents belong to one
// of them, and neither group nor others may write to them. The group bits cover access
// control lists, too. Others may write to a parent with the sticky bit, such as /tmp: they
// cannot replace what is not theirs. No element of the path may be a symbolic link. The
// folder may have no default access control list: new files would get that.
//
// The folder has to exist; see [CheckTrustedOrNew]. The error is a [*TrustError], or one of
// package os.
//
// The answer stays true: each folder is looked at when all above it are known to be
// trusted, so that nobody else can replace it afterwards.
func CheckTrusted(dir string) error { return checkTrusted(dir, false) }

func checkTrusted(dir string, asParent bool) error {
	whole, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("checking folder %s: %w", dir, Bare(err))
	}
	for _, path := range withParents(whole) {
		info, err := os.Lstat(path)
		if err != nil {
			return fmt.Errorf("checking folder %s: %w", path, Bare(err))
		}
		if isParent := asParent || path != whole; !isTrustedFolder(info, isParent) {
			detail, hint := distrust(path, info, whole, isParent)
			return &TrustError{Folder: whole, Path: path, Detail: detail, Hint: hint}
		}
	}
	if !asParent && hasDefaultACL(whole) {
		return &TrustError{Folder: whole, Path: whole, Detail: "has a default access control list, which lets others into new files", Hint: "setfacl -k " + printable.Text(whole)}
	}
	return nil
}

// CheckTrustedOrNew is [CheckTrusted] for a folder that may not exist yet: then the
// nearest parent that exists has to be trusted, as a parent. If that has the sticky bit,
// somebody else may still be faster to make the folder, so whoever makes it has to call
// CheckTrusted afterwards.
func CheckTrustedOrNew(dir string) error {
	err := checkTrusted(dir, false)
	for errors.Is(err, fs.ErrNotExist) && filepath.Dir(dir) != dir {
		dir = filepath.Dir(dir)
		err = checkTrusted(dir, true)
	}
	return err
}

// withParents returns an absolute path and all above it, the root first.
func withParents(path string) []string {
	all := []string{path}
	for path != filepath.Dir(path) {
		path = filepath.Dir(path)
		all = append(all, path)
	}
	slices.Reverse(all)
	return all
}

// isAgentsOrRoots reports whether a user is the agent's or root.
func isAgentsOrRoots(uid int) bool { return uid == 0 || uid == os.Geteuid() }

// isTrustedFolder reports whether nobody but the agent's user and root can change what a
// folder holds. As a parent it may have the sticky bit: others can then add to it, but not
// replace what is not theirs.
func isTrustedFolder(info fs.FileInfo, asParent bool) bool {
	uid, _ := ownerOf(info)
	othersMayWrite := info.Mode().Perm()&0o022 != 0
	isSticky := info.Mode()&fs.ModeSticky != 0
	return info.IsDir() && isAgentsOrRoots(uid) && (!othersMayWrite || asParent && isSticky)
}

// distrust says why one element of the path of folder is not trusted, and what to do.
func distrust(path string, info fs.FileInfo, folder string, isParent bool) (detail, hint string) {
	uid, _ := ownerOf(info)
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		to, err := filepath.EvalSymlinks(path)
		if err != nil {
			return "is a symbolic link that leads nowhere", "use the path of a real folder"
		}
		return "is a symbolic link to " + printable.Text(to), "use the path without it: " + printable.Text(filepath.Join(to, strings.TrimPrefix(folder, path)))
	case !info.IsDir():
		return "is not a folder", "use the path of a folder"
	case !isAgentsOrRoots(uid):
		owners := "root"
		if agent := os.Geteuid(); agent != 0 {
			owners = fmt.Sprintf("root or user %d", agent)
		}
		return fmt.Sprintf("belongs to user %d, not to %s", uid, owners), takeOver(path, info, isParent)
	case info.Mode()&fs.ModeSticky != 0:
		return fmt.Sprintf("is for everyone to write to (mode %s)", modeText(info)), "use a folder in it: " + filepath.Join(path, "deaddrop")
	case info.Mode().Perm()&0o002 == 0:
		return fmt.Sprintf("may be written to by its group (mode %s)", modeText(info)), "chmod go-w " + path
	default:
		return fmt.Sprintf("may be written to by every user (mode %s)", modeText(info)), "chmod go-w " + path
	}
}

// takeOver is the command that takes a folder from its owner, who can still enter it
// afterwards.
func takeOver(path string, info fs.FileInfo, isParent bool) string {
	if isParent { // It may be the owner's home.
		return "use a folder that is not in it, or: chown root " + path
	}
	var changes []string
	if info.Mode().Perm()&0o022 != 0 {
		changes = append(changes, "go-w")
	}
	if info.Mode().Perm()&0o001 == 0 {
		changes = append(changes, "o+x")
	}
	if changes == nil {
		return "chown root " + path
	}
	return "chown root " + path + " && chmod " + strings.Join(changes, ",") + " " + path
}

// modeText is a mode as chmod takes it.
func modeText(info fs.FileInfo) string {
	mode := uint32(info.Mode().Perm())
	for bit, special := range map[fs.FileMode]uint32{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if info.Mode()&bit != 0 {
			mode |= special
		}
	}
	return fmt.Sprintf("%04o", mode)
}
