package doctor

import (
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/smarteros/deaddrop/render/drop"
)

// reader is somebody whom a file is for, as far as the configuration tells.
type reader struct {
	uid  int   // -1 for any
	gids []int // groups that the reader is in
}

func (r reader) String() string {
	switch {
	case r.uid >= 0:
		return fmt.Sprintf("user %d", r.uid)
	case len(r.gids) > 0:
		return fmt.Sprintf("members of group %d", r.gids[0])
	}
	return "other users"
}

// readers are those whom a file's mode lets read it, besides root and the agent. A file
// that only the agent's user may read is for nobody else.
func (t target) readers(gid int) []reader {
	var all []reader
	if t.uid != nil && *t.uid != 0 && *t.uid != os.Geteuid() && t.mode&0o400 != 0 {
		all = append(all, reader{*t.uid, groupsOf(*t.uid, t.gid)})
	}
	// Root's own group, which nobody has named, has no members to speak of.
	if t.mode&0o040 != 0 && (t.gid != nil || gid != 0) {
		all = append(all, reader{-1, []int{gid}})
	}
	if t.mode&0o004 != 0 {
		all = append(all, reader{uid: -1})
	}
	return all
}

// groupsOf are the groups of a user. One that this machine does not know, such as that
// of another container, is taken to be in the group that the file is given to.
func groupsOf(uid int, gid *int) []int {
	known, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		if gid == nil {
			return nil
		}
		return []int{*gid}
	}
	names, _ := known.GroupIds()
	var groups []int
	for _, name := range names {
		if id, err := strconv.Atoi(name); err == nil {
			groups = append(groups, id)
		}
	}
	return groups
}

// way is a folder on the way to a file.
type way struct {
	path     string
	mode     fs.FileMode
	uid, gid int
	missing  bool // it would be made like that
	last     bool // it holds the file
}

// lets reports whether a reader gets through.
func (w way) lets(r reader) bool {
	switch {
	case r.uid >= 0 && r.uid == w.uid:
		return w.mode&0o100 != 0
	case slices.Contains(r.gids, w.gid):
		return w.mode&0o010 != 0
	}
	return w.mode&0o001 != 0
}

// wayTo is all folders that who opens a file gets through, links' own among them. gid is
// the group that a new file gets there.
func (e *exam) wayTo(file string) (all []way, gid int) {
	folder := folderOf(file)
	there := drop.Nearest(folder)
	var seen []fs.FileInfo
	for _, path := range append(above(resolved(there)), above(there)...) {
		info, err := os.Stat(path)
		if err != nil || slices.ContainsFunc(seen, func(o fs.FileInfo) bool { return os.SameFile(info, o) }) {
			continue
		}
		seen = append(seen, info)
		uid, gid := drop.OwnerOf(info)
		all = append(all, way{path, info.Mode().Perm(), uid, gid, false, path == folder || path == resolved(folder)})
	}
	gid = os.Getegid()
	if info, err := os.Stat(there); err == nil && info.Mode()&fs.ModeSetgid != 0 {
		_, gid = drop.OwnerOf(info)
	}
	for _, path := range above(folder)[len(above(there)):] {
		is := e.plan.Folder(path)
		all = append(all, way{path, is.Mode, or(is.UID, os.Geteuid()), or(is.GID, gid), true, path == folder})
	}
	return all, gid
}

// above is a folder and all above it, from the root on.
func above(path string) []string {
	all := []string{path}
	for path != filepath.Dir(path) {
		path = filepath.Dir(path)
		all = append(all, path)
	}
	slices.Reverse(all)
	return all
}

func resolved(path string) string {
	if whole, err := filepath.EvalSymlinks(path); err == nil {
		return whole
	}
	return path
}

func or(id *int, otherwise int) int {
	if id != nil {
		return *id
	}
	return otherwise
}

// group is the one that a file has, or will have where nothing else is said.
func (t target) group(otherwise int) int {
	if t.gid != nil {
		return *t.gid
	}
	if info, err := os.Stat(t.path); err == nil {
		_, otherwise = drop.OwnerOf(info)
	}
	return otherwise
}

// shutOut warns of folders that keep out the readers of a file, once for each folder.
func (e *exam) shutOut(t target) {
	to, gid := e.wayTo(t.path)
	for _, r := range t.readers(t.group(gid)) {
		for _, w := range to {
			key := w.path + " " + r.String()
			if w.lets(r) || e.toldShut[key] {
				continue
			}
			if e.toldShut == nil {
				e.toldShut = map[string]bool{}
			}
			e.toldShut[key] = true
			detail := fmt.Sprintf("%s cannot enter it (mode %04o, owner %d:%d), and so not read %s, which is for them (%04o)", r, w.mode, w.uid, w.gid, t.path, t.mode.Perm())
			if w.missing {
				detail = "as it will be made, " + detail
			}
			e.warn("folder", w.path, detail, e.letIn(w, r, t))
		}
	}
}

// letIn is how to let a reader through a folder.
func (e *exam) letIn(w way, r reader, t target) string {
	if w.missing {
		return fmt.Sprintf("take dir_perms out, or write dir_perms = \"%04o\"", w.mode|drop.DirMode(t.mode))
	}
	bits := "x"
	if w.last {
		bits = "rx" // As a folder that deaddrop makes.
	}
	is := e.plan.Folder(w.path)
	closed := w.uid == os.Geteuid() && w.mode&0o077 == 0
	fix := "chmod o+x " + w.path
	switch {
	case r.uid >= 0 && r.uid == w.uid:
		fix = fmt.Sprintf("chmod u+%s %s", bits, w.path)
	case r.uid >= 0 && closed && or(is.UID, -1) == r.uid:
		fix = fmt.Sprintf("chown %d %s", r.uid, w.path)
	case r.uid < 0 && slices.Contains(r.gids, w.gid):
		fix = fmt.Sprintf("chmod g+%s %s", bits, w.path)
	case r.uid < 0 && len(r.gids) > 0 && w.uid == os.Geteuid() && w.mode&0o070 == 0:
		fix = fmt.Sprintf("chgrp %d %s && chmod g+%s %s", r.gids[0], w.path, bits, w.path)
	case len(r.gids) == 0 && r.uid < 0:
		fix = fmt.Sprintf("chmod o+%s %s", bits, w.path)
	}
	if w.uid == os.Geteuid() {
		fix += "   (deaddrop leaves a folder as it is that is there already)"
	}
	if isSystems(w.path) {
		return "write to another folder, such as " + ownFolder
	}
	return fix
}

// made is the command line's mode and owners of a folder that is to be made for the
// agent, as the agent would make it.
func (e *exam) made(path string) (mode, uid, gid string) {
	is := e.plan.Folder(path)
	mode, uid = fmt.Sprintf("%04o", is.Mode), me()
	if is.UID != nil {
		uid = strconv.Itoa(*is.UID)
	}
	if is.Mode&0o070 != 0 {
		gid = strconv.Itoa(or(is.GID, os.Getegid()))
	}
	return mode, uid, gid
}
