package drop

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// DirMode returns the mode of a folder that lets in those who may read a file of mode
// file: its owner, and its group and others where they may read it. It never lets
// group or others write.
func DirMode(file fs.FileMode) fs.FileMode {
	mode := fs.FileMode(0o700)
	for _, class := range []fs.FileMode{0o010, 0o001} {
		if file&(class<<2) != 0 {
			mode |= class<<2 | class
		}
	}
	return mode
}

// Plan decides on mode and owner of the folders that are made, where [File.CreateDirs]
// asks for them. A folder lets in all who may read any of the files in it or below it
// that the plan knows of. It never lets group or others write, unless a [File.DirMode]
// does.
//
// A folder has one owner and one group. Where files below it have one user, the folder
// has that, too, and so with the group. Where there are several, the folder belongs to
// the agent, and everybody may pass it, but not list it (x for others): then the files
// keep out those whom they are not for.
//
// Only a folder that holds files and no folders is given to a user. One that has
// folders below it stays the agent's, and only its owner may write to it: who owns a
// folder can put a link in place of a folder in it. The user of the files may pass it.
// So it is with all folders above a [File.Strict].
//
// A folder that is there already is left as it is. The zero Plan knows of no files. A
// Plan must not be used concurrently.
type Plan struct{ folders map[string]*readers }

// NewFolder is what a folder is made like.
type NewFolder struct {
	Mode fs.FileMode
	// UID and GID are its owner; nil for the agent, and for the group that mkdir gives:
	// the agent's, or that of a parent with the setgid bit.
	UID, GID *int
}

// readers are those who may read files below a folder.
type readers struct {
	mode fs.FileMode
	// users and groups need the folder to let them in.
	users, groups ids
	// keep says that the folder has to stay the agent's.
	keep bool
	// otherUsers and otherGroups own files, but need not be let in: the mode of the file
	// or of its folders does not provide for it.
	otherUsers, otherGroups ids
}

// ids are some user ids or group ids, of which only a single one matters.
type ids struct {
	first int
	count int // 2 for several
}

// agentsOwn stands for the group of files that are given to no group.
const agentsOwn = -1

func (s *ids) add(id int) {
	switch {
	case s.count == 0:
		*s = ids{id, 1}
	case s.first != id:
		s.count = 2
	}
}

// only returns the id if there is one alone, and it is a real one.
func (s *ids) only() *int {
	if s.count != 1 || s.first == agentsOwn {
		return nil
	}
	return &s.first
}

// Add plans for a file: the folders above it are going to let its readers in.
func (p *Plan) Add(f File) { p.add(f, false) }

// AddMany is Add for a file that stands for many, each of a user and a group of its
// own.
func (p *Plan) AddMany(f File) { p.add(f, true) }

func (p *Plan) add(f File, many bool) {
	if p.folders == nil {
		p.folders = map[string]*readers{}
	}
	mode := f.DirMode.Perm()
	if mode == 0 {
		mode = DirMode(f.Mode)
	}
	file := absolute(f.Path)
	for path := file; path != filepath.Dir(path); {
		path = filepath.Dir(path)
		r := p.folders[path]
		if r == nil {
			r = &readers{}
			p.folders[path] = r
		}
		r.mode |= mode
		r.keep = r.keep || f.Strict || path != filepath.Dir(file)
		r.own(f, many)
	}
}

func (p *Plan) addUnits(units []Unit) {
	for _, u := range units {
		for _, f := range u.Files {
			p.Add(f)
		}
	}
}

// own notes the owners of a file.
func (r *readers) own(f File, many bool) {
	users, groups := &r.users, &r.groups
	if f.DirMode != 0 {
		users, groups = &r.otherUsers, &r.otherGroups
	}
	if f.UID != nil && *f.UID != 0 { // Root gets in anyway.
		users.add(*f.UID)
	}
	switch {
	case f.Mode&0o040 == 0 && f.GID != nil:
		r.otherGroups.add(*f.GID)
	case f.Mode&0o040 != 0 && f.GID != nil:
		groups.add(*f.GID)
	case f.Mode&0o040 != 0:
		groups.add(agentsOwn)
	}
	if many {
		users.count, groups.count = 2, 2
	}
}

// Folder returns what a folder of this path is made like.
func (p *Plan) Folder(path string) NewFolder {
	r := p.folders[absolute(path)]
	if r == nil {
		return NewFolder{Mode: 0o700}
	}
	is := NewFolder{Mode: r.mode, UID: r.users.only(), GID: r.groups.only()}
	if r.users.count == 0 {
		is.UID = r.otherUsers.only()
	}
	if r.groups.count == 0 {
		is.GID = r.otherGroups.only()
	}
	passes := r.users.count > 1 || r.groups.count > 1
	if is.UID != nil && *is.UID != os.Geteuid() && (r.keep || !mayWriteEverywhere()) {
		is.UID = nil // It is to stay the agent's, or the agent could not write to it any more.
		passes = true
	}
	if r.keep {
		is.Mode &^= 0o022
	}
	if passes {
		is.Mode |= 0o011 // Members of the folder's group do not count as others.
	}
	return is
}

// absolute is the path by which a folder is known, whatever the working folder.
func absolute(path string) string {
	if whole, err := filepath.Abs(path); err == nil {
		return whole
	}
	return filepath.Clean(path)
}

// Make makes a folder, and those above it, where they are missing.
func (p *Plan) Make(path string) error {
	root, err := p.open(location{path: filepath.Clean(path)})
	if err != nil {
		return fmt.Errorf("creating folder %w", err)
	}
	return root.Close()
}

// open opens a folder that is made where it is missing. Errors name the folder that
// could not be made or opened.
func (p *Plan) open(at location) (*os.Root, error) {
	root, err := at.open()
	if !errors.Is(err, fs.ErrNotExist) || at.parent() == at {
		return root, err
	}
	parent, err := p.open(at.parent())
	if err != nil {
		return nil, err
	}
	defer func() { _ = parent.Close() }()
	name := filepath.Base(at.path)
	if err := makeFolder(parent, name, p.Folder(at.path)); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%s: %w", at.path, err)
	}
	return openReal(parent, name, at.path)
}

// makeFolder makes a folder under a temporary name, and gives it its own when mode and
// owner are right: nobody sees it half made, and who is killed leaves nothing that
// the next run would take for a folder of somebody else. It fails with
// [fs.ErrExist] where there is something of that name.
func makeFolder(parent *os.Root, name string, is NewFolder) error {
	return createLocked(func() string { return tempName(name) }, func(temp string) error {
		return makeFolderAs(parent, temp, name, is)
	})
}

func makeFolderAs(parent *os.Root, temp, name string, is NewFolder) error {
	if err := parent.Mkdir(temp, 0o700); err != nil {
		return Bare(err)
	}
	dir, keepsGroup, err := dress(parent, temp, is)
	if err == nil && !keepsGroup {
		_ = dir.Close()
		dir, err = makeExactly(parent, temp, is)
	}
	if err == nil {
		err = renameNew(parent, temp, name)
	}
	if err != nil {
		_ = parent.Remove(temp)
	}
	if dir != nil {
		_ = dir.Close()
	}
	return err
}

// renameUnlessThere is for file systems on which a rename cannot be told to replace
// nothing: then only an empty folder may be replaced, in the moment between.
func renameUnlessThere(in *os.Root, from, to string) error {
	if _, err := in.Lstat(to); err == nil {
		return fs.ErrExist
	}
	return Bare(in.Rename(from, to))
}

var errReplaced = errors.New("it was replaced meanwhile")

// dress gives a new folder its mode and owner, and leaves it open and locked: see
// [Clean]. keepsGroup is false where it cannot keep the setgid bit that it has from its
// parent: the kernel takes that from who is not in the group, and systemd
// (RestrictSUIDSGID=) refuses to set it.
func dress(parent *os.Root, temp string, is NewFolder) (dir *os.File, keepsGroup bool, err error) {
	dir, err = openEmpty(parent, temp, is)
	if err != nil {
		return nil, false, err
	}
	// The group comes first: it is not to get in before it is the right one. The user
	// comes last: then the folder is not the agent's any more.
	if is.GID != nil {
		if err := dir.Chown(-1, *is.GID); err != nil {
			return dir, false, chownError(nil, is.GID, Bare(err))
		}
	}
	info, err := dir.Stat()
	if err != nil {
		return dir, false, Bare(err)
	}
	inherited := info.Mode() & fs.ModeSetgid
	err = dir.Chmod(is.Mode.Perm() | inherited)
	if err != nil && inherited != 0 {
		if is.GID == nil {
			return dir, false, nil
		}
		err = dir.Chmod(is.Mode.Perm()) // Its files are given to the group one by one.
	}
	if err != nil {
		return dir, false, Bare(err)
	}
	if info, err = dir.Stat(); err != nil {
		return dir, false, Bare(err)
	}
	keepsGroup = is.GID != nil || info.Mode()&fs.ModeSetgid == inherited
	return dir, keepsGroup, give(dir, is.UID)
}

// give gives a folder to a user, if there is one.
func give(dir *os.File, uid *int) error {
	if uid == nil {
		return nil
	}
	if err := dir.Chown(*uid, -1); err != nil {
		return chownError(uid, nil, Bare(err))
	}
	return nil
}

// openEmpty opens and locks a folder that was just made. One that somebody has put in
// its place is refused where it is theirs or not empty; an empty one of the agent's is as
// good as the new one. File systems that give what root makes to another user (NFS with
// root_squash) cannot give it to a third one either: only what is given away has to be the
// agent's.
func openEmpty(parent *os.Root, name string, is NewFolder) (*os.File, error) {
	dir, err := parent.OpenFile(name, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, Bare(err)
	}
	info, err := dir.Stat()
	if err == nil {
		uid, _ := ownerOf(info)
		isOthers := uid != os.Geteuid() && (is.UID != nil || is.GID != nil)
		if isOthers || !isEmpty(dir, info) {
			err = errReplaced
		}
	}
	if err == nil {
		err = lock(dir)
	}
	if err != nil {
		_ = dir.Close()
		return nil, Bare(err)
	}
	return dir, nil
}

// makeExactly makes a folder anew, with its mode from the beginning: the kernel then
// leaves it the group and the setgid bit of its parent. Where that cannot be done,
// the folder has the group, but not the bit.
func makeExactly(parent *os.Root, temp string, is NewFolder) (*os.File, error) {
	if err := parent.Remove(temp); err != nil {
		return nil, Bare(err)
	}
	if err := mkdirExactly(parent, temp, is.Mode); err != nil {
		return nil, Bare(err)
	}
	dir, err := openEmpty(parent, temp, is)
	if err != nil {
		return nil, err
	}
	info, err := dir.Stat()
	if err == nil && info.Mode().Perm() != is.Mode.Perm() {
		err = dir.Chmod(is.Mode.Perm())
	}
	if err != nil {
		return dir, Bare(err)
	}
	return dir, give(dir, is.UID)
}
