package drop

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/smarteros/deaddrop/render/safefile"
)

// ownerOf gives the ids of a file's owner.
func ownerOf(info fs.FileInfo) (uid, gid int) {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(stat.Uid), int(stat.Gid)
	}
	return -1, -1
}

// stagedFile is the new content of a single file.
type stagedFile struct {
	dir      *folder
	file     File
	base     string
	temp     string
	open     *os.File // holds the lock that tells a cleaner to leave it alone
	old      fs.FileInfo
	warnings []string
	is       Stamp // of the new content
}

// stageFile returns nil where there is nothing to put in place.
func (d *folder) stageFile(f File) (staged, []Result, error) {
	fail := func(err error) (staged, []Result, error) {
		return nil, nil, fmt.Errorf("writing %s: %w", f.Path, err)
	}
	_, base := split(f.Path)
	old, is, same, err := d.compare(base, f)
	switch {
	case err != nil:
		return fail(err)
	case same:
		return nil, []Result{{Outcome: Unchanged, Warnings: d.modeWarning(base, f, old), Stamp: is}}, nil
	case old != nil && !f.InPlace && d.isMount(base):
		return fail(fmt.Errorf("%w, which cannot be replaced; mount its folder instead, or set write = \"in_place\"", errMount))
	}
	s := &stagedFile{dir: d, file: f, base: base, old: old}
	if err := s.fill(); err != nil {
		s.discard()
		if old == nil || !f.InPlace || !isUnwritable(err) {
			return fail(Bare(err))
		}
		// Nothing can be made beside it: a check then looks at memory.
		s.temp = ""
		if s.open, err = memory(f.Content); err != nil {
			return fail(Bare(err))
		}
	}
	return s, nil, nil
}

// isUnwritable tells whether a folder takes no new files.
func isUnwritable(err error) bool {
	return errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrPermission)
}

var errMount = errors.New("it is a mount of its own")

// present is the file that is there.
type present struct {
	info fs.FileInfo // nil where there is none
	// open is set where the content is right. The caller closes it.
	open *os.File
	// chowns and chmods say that owner or mode are not right.
	chowns, chmods bool
}

func (p present) close() {
	if p.open != nil {
		_ = p.open.Close()
	}
}

// look compares the file that is there with f, and changes nothing. Errors wrap
// [ErrRefused] for what is no file.
func (d *folder) look(base string, f File) (present, error) {
	old, err := d.root.Lstat(base)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return present{}, nil
	case err != nil:
		return present{}, Bare(err)
	}
	if err := checkKind(f.Path, old); err != nil {
		return present{}, err
	}
	there := present{info: old}
	if old.Size() != int64(len(f.Content)) {
		return there, nil
	}
	open, info, err := safefile.OpenNoFollowIn(d.root, base)
	if err != nil {
		return there, nil
	}
	there.info = info
	content, err := safefile.ReadOpen(open, info, base, int64(len(f.Content)))
	if err != nil || !bytes.Equal(content, f.Content) || f.Strict && f.controlledByOthers(info) != nil { // Others may have it open for writing.
		_ = open.Close()
		return there, nil
	}
	uid, gid := ownerOf(info)
	there.open = open
	there.chowns = f.UID != nil && *f.UID != uid || f.GID != nil && *f.GID != gid
	there.chmods = info.Mode().Perm() != f.Mode.Perm()
	return there, nil
}

// compare tells what is there, and whether it is what f says. A file with the
// right bytes and the wrong mode or owner only gets those.
func (d *folder) compare(base string, f File) (old fs.FileInfo, is Stamp, same bool, err error) {
	there, err := d.look(base, f)
	if err != nil || there.open == nil {
		return there.info, Stamp{}, false, err
	}
	defer there.close()
	if f.Rewrite || (there.chowns || there.chmods) && d.mayBeAnothers(there.info) {
		return there.info, Stamp{}, false, nil
	}
	if there.chowns {
		if err := there.open.Chown(id(f.UID), id(f.GID)); err != nil {
			return there.info, Stamp{}, false, chownError(f.UID, f.GID, Bare(err))
		}
	}
	if there.chmods {
		if err := there.open.Chmod(f.Mode.Perm()); err != nil && !f.InPlace {
			return there.info, Stamp{}, false, nil // It is another's; replacing it may be allowed.
		}
	}
	is, err = stampOpen(there.open)
	isAsRead := is.size == there.info.Size() && is.modified == there.info.ModTime().UnixNano()
	return there.info, is, err == nil && isAsRead, Bare(err)
}

// modeWarning tells of a mode that is another one now: who could read the file before
// may not be able to any more. That of another's file may have stayed.
func (d *folder) modeWarning(base string, f File, old fs.FileInfo) []string {
	if old == nil || old.Mode().Perm() == f.Mode.Perm() {
		return nil
	}
	now, err := d.root.Stat(base) // A name of a set is a link.
	if err != nil || now.Mode().Perm() != f.Mode.Perm() {
		return nil
	}
	return []string{fmt.Sprintf("its mode was %04o, and is %04o now: write perms = \"%04o\" to keep it", old.Mode().Perm(), f.Mode.Perm(), old.Mode().Perm())}
}

// id is what chown wants for an owner that is not to change.
func id(p *int) int {
	if p == nil {
		return -1
	}
	return *p
}

func chownError(uid, gid *int, err error) error {
	owner := ""
	if uid != nil {
		owner += fmt.Sprintf(" user %d", *uid)
	}
	if gid != nil {
		owner += fmt.Sprintf(" group %d", *gid)
	}
	return fmt.Errorf("giving it to%s: %w; only root, or who has CAP_CHOWN, may do that", owner, err)
}

// fill writes the temporary file, and leaves it open.
func (s *stagedFile) fill() (err error) {
	if err := createLocked(func() string { return tempName(s.base) }, s.create); err != nil {
		return err
	}
	if s.warnings, err = put(s.open, s.file, s.old); err != nil {
		return err
	}
	s.is, err = stampOpen(s.open)
	return err
}

// create makes an empty temporary file, and leaves it open and locked.
func (s *stagedFile) create(temp string) error {
	f, err := s.dir.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	s.open, s.temp = f, temp
	if err = lock(f); err != nil {
		s.discard()
		s.open = nil
	}
	return err
}

// put sets mode and owner, then the content. The mode comes first: who may only
// give files away cannot change what is another's.
func put(to *os.File, f File, old fs.FileInfo) (warnings []string, err error) {
	if err := to.Chmod(f.Mode.Perm()); err != nil {
		return nil, err
	}
	if warnings, err = own(to, f, old); err != nil {
		return nil, err
	}
	return warnings, fillWith(to, f)
}

func fillWith(to *os.File, f File) error {
	if _, err := to.Write(f.Content); err != nil {
		return err
	}
	return to.Sync()
}

// own sets the owner of a new file. An agent that is not root keeps the group of
// the file before it, and says so where it cannot.
func own(to *os.File, f File, old fs.FileInfo) (warnings []string, err error) {
	if f.UID != nil || f.GID != nil {
		if err := to.Chown(id(f.UID), id(f.GID)); err != nil {
			return nil, chownError(f.UID, f.GID, Bare(err))
		}
		return nil, nil
	}
	if old == nil || os.Geteuid() == 0 {
		return nil, nil
	}
	uid, gid := ownerOf(old)
	if to.Chown(-1, gid) != nil {
		warnings = append(warnings, fmt.Sprintf("its group was %d, which this agent is not in, and is the agent's own now", gid))
	}
	if uid != os.Geteuid() {
		warnings = append(warnings, fmt.Sprintf("it belonged to user %d, and belongs to the agent now, which is not root", uid))
	}
	return warnings, nil
}

func (s *stagedFile) folder() *folder { return s.dir }

func (s *stagedFile) path() string {
	if s.temp == "" {
		return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), s.open.Fd())
	}
	return filepath.Join(s.dir.at.path, s.temp)
}

func (s *stagedFile) discard() {
	if s.open == nil {
		return // It has never been there.
	}
	s.dir.remove(s.temp)
	_ = s.open.Close()
}

// unlock leaves what is in no folder open.
func (s *stagedFile) unlock() {
	if s.temp != "" {
		_ = s.open.Close()
	}
}

func (s *stagedFile) commit() ([]Result, error) {
	result := Result{Outcome: Changed, Warnings: s.warnings, Stamp: s.is}
	if s.old == nil {
		result.Outcome = Created
	}
	if s.old != nil && s.file.InPlace {
		defer s.discard()
		err := s.overwrite()
		result.Stamp = s.is
		result.Warnings = append(result.Warnings, s.dir.modeWarning(s.base, s.file, s.old)...)
		return []Result{result}, Bare(err)
	}
	if err := s.backup(); err != nil {
		s.discard()
		return nil, fmt.Errorf("keeping a backup: %w", Bare(err))
	}
	if err := s.dir.root.Rename(s.temp, s.base); err != nil {
		s.discard()
		return nil, Bare(err)
	}
	_ = s.open.Close() // It was synced.
	result.Warnings = append(result.Warnings, s.dir.modeWarning(s.base, s.file, s.old)...)
	return []Result{result}, nil
}

// backup gives the file that is about to be replaced a second name.
func (s *stagedFile) backup() error {
	if !s.file.Backup || s.old == nil {
		return nil
	}
	temp := tempName(s.base)
	if err := s.dir.root.Link(s.base, temp); err != nil {
		return err
	}
	err := s.dir.root.Rename(temp, s.base+".bak")
	_ = s.dir.root.Remove(temp) // It is there still where both were the same file.
	return err
}

// overwrite writes into the file that is there, and what was there again where
// that fails. Owner and mode come first, as for a new file; but who mounted the
// file may own it, so that neither can be changed.
func (s *stagedFile) overwrite() error {
	// Opening a device may have effects.
	if now, err := s.dir.root.Lstat(s.base); err != nil || !os.SameFile(now, s.old) {
		return errReplaced
	}
	f, err := s.dir.root.OpenFile(s.base, os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	err = s.overwriteOpen(f)
	return errors.Join(err, f.Close())
}

func (s *stagedFile) overwriteOpen(f *os.File) error {
	// os.Root follows links within the folder, whatever the flags say.
	now, err := f.Stat()
	if err != nil || !os.SameFile(now, s.old) || !now.Mode().IsRegular() {
		return errReplaced
	}
	if s.file.Strict {
		if err := s.file.controlledByOthers(now); err != nil {
			return err
		}
	}
	if s.dir.mayBeAnothers(now) {
		return fmt.Errorf("it has other names (hard links), which others may have made: %w; remove it, or those", ErrRefused)
	}
	before, err := safefile.ReadOpen(f, now, s.base, max(maxBefore, 4*int64(len(s.file.Content))))
	if err != nil {
		return fmt.Errorf("reading what is there: %w", Bare(err))
	}
	_ = f.Chmod(s.file.Mode.Perm())
	if s.file.UID != nil || s.file.GID != nil {
		if err := f.Chown(id(s.file.UID), id(s.file.GID)); err != nil {
			return chownError(s.file.UID, s.file.GID, Bare(err))
		}
	}
	if err := rewrite(f, s.file.Content); err != nil {
		return errors.Join(Bare(err), Bare(rewrite(f, before)))
	}
	s.is, err = stampOpen(f)
	return err
}

// controlledByOthers returns an error where somebody else has, or may have, the file that
// is there: it belongs neither to the agent, nor to root, nor to the user of f, or has
// another name. It may be from a time when the folder was not trusted, and its owner may
// have it open, or give it another mode.
func (f File) controlledByOthers(there fs.FileInfo) error {
	stat, ok := there.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	if uid := int(stat.Uid); !isAgentsOrRoots(uid) && (f.UID == nil || uid != *f.UID) {
		return fmt.Errorf("strict: the file that is there belongs to user %d: %w; remove it, and a new one is made", uid, ErrRefused)
	}
	if stat.Nlink > 1 {
		return fmt.Errorf("strict: the file that is there has other names (hard links): %w; remove it, and a new one is made", ErrRefused)
	}
	return nil
}

// maxBefore is how much is kept in memory of a file that is written in place, to write it
// again where that fails. A file that has more is none of an agent.
const maxBefore = 4 << 20

func rewrite(f *os.File, content []byte) error {
	if _, err := f.WriteAt(content, 0); err != nil {
		return err
	}
	if err := f.Truncate(int64(len(content))); err != nil {
		return err
	}
	return f.Sync()
}
