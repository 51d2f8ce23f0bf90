package drop

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Stamp tells one state of a file from another, by what the kernel knows of it without
// reading it: device, inode, size, time of the last change of the content, type,
// permissions and owner. A file of a set has the generation that it is of, too. Stamps are
// compared with ==. The zero Stamp is that of no file.
//
// A Stamp that differs does not prove other content: a file may have been touched, and
// some network file systems round times later. [IsCurrent] compares the content. The same
// Stamp does not prove the same content either, since the owner of a file can set its time
// back, and two changes in one tick of the kernel's clock, 4 ms on most machines, have one
// time.
//
// The time of the last change of the inode (ctime) is left out, though nobody can set it
// back. It also changes where nothing does: by chown and chmod to what is there already,
// which entrypoints of containers do at each start, by a hard link that a backup makes, by
// a backup that restores access times. A file would be written again, its service
// restarted, and the entrypoint would do the same again.
type Stamp struct {
	device, inode  uint64
	size, modified int64 // bytes, and ns since 1970
	mode           uint32
	uid, gid       uint32
	generation     string // target of "..data", "" for a single file
}

func stampOf(stat *unix.Stat_t) Stamp {
	return Stamp{
		device: uint64(stat.Dev), inode: stat.Ino, size: stat.Size, modified: stat.Mtim.Nano(),
		mode: uint32(stat.Mode), uid: stat.Uid, gid: stat.Gid,
	}
}

// Difference says in a word or two in what now differs from s: "removed", "generation",
// "replaced", "owner", "permissions" or "content", the first that does. It is "" where
// nothing does. A file that has got another inode is "replaced".
func (s Stamp) Difference(now Stamp) string {
	switch {
	case s == now:
		return ""
	case now == Stamp{}:
		return "removed"
	case s.generation != now.generation:
		return "generation"
	case s.device != now.device || s.inode != now.inode || s.mode&unix.S_IFMT != now.mode&unix.S_IFMT:
		return "replaced"
	case s.uid != now.uid || s.gid != now.gid:
		return "owner"
	case s.mode != now.mode:
		return "permissions"
	}
	return "content"
}

// StampOf returns the stamp of a single file below a place, as [File.Place] has it. A
// symbolic link at the end of the path is not followed: the stamp is that of the link. It
// opens no file. A file or folder that is not there is no error; see [Stamp].
func StampOf(place, path string) (Stamp, error) {
	stamps, errs := Stamps([]Unit{{Files: []File{{Path: path, Place: place}}}})
	return stamps[0][0], errs[0]
}

// Stamps returns the stamp of each file of each unit, and for each unit the error that kept
// it from looking, or nil. Each folder is opened once. The stamp of a file in a set covers
// the generation that "..data" leads to, and that the name is the set's own link; where it
// is not, it is that of what has the name. Of the files only Path, Place and Strict count.
func Stamps(units []Unit) (stamps [][]Stamp, errs []error) {
	stamps, errs = make([][]Stamp, len(units)), make([]error, len(units))
	places := places{}
	defer places.close()
	for _, in := range inOrder(units, Unit.location) {
		folder, err := places.open(in.key)
		for _, i := range in.units {
			stamps[i] = make([]Stamp, len(units[i].Files))
			if err == nil {
				errs[i] = units[i].stamp(folder, stamps[i])
			} else if !errors.Is(err, fs.ErrNotExist) {
				errs[i] = fmt.Errorf("looking at %s: %w", units[i].name(), err)
			}
		}
		if err == nil {
			_ = unix.Close(folder)
		}
	}
	return stamps, errs
}

// stamp fills in the stamps of the files of a unit, whose folder is held.
func (u Unit) stamp(in int, stamps []Stamp) error {
	var present generation
	if u.Set != "" {
		present = openGeneration(in)
		defer present.close()
	}
	for i, f := range u.Files {
		_, base := split(f.Path)
		var err error
		if u.Set != "" && readLinkIn(in, base) == dataLink+"/"+base {
			stamps[i], err = present.stamp(base)
		} else {
			stamps[i], err = stampIn(in, base)
		}
		if err != nil {
			return fmt.Errorf("looking at %s: %w", f.Path, err)
		}
	}
	return nil
}

// generation is the one that "..data" leads to.
type generation struct {
	name string
	fd   int // -1 where it is not there
}

// openGeneration opens the present generation of the set in a held folder.
func openGeneration(in int) generation {
	g := generation{name: readLinkIn(in, dataLink), fd: -1}
	if isGeneration(g.name) {
		if fd, err := openToPass(in, g.name); err == nil {
			g.fd = fd
		}
	}
	return g
}

func (g generation) close() {
	if g.fd >= 0 {
		_ = unix.Close(g.fd)
	}
}

// stamp returns that of a file of the generation.
func (g generation) stamp(name string) (Stamp, error) {
	if g.fd < 0 {
		return Stamp{}, nil
	}
	s, err := stampIn(g.fd, name)
	if s != (Stamp{}) {
		s.generation = g.name
	}
	return s, err
}

// stampIn returns the stamp of what has a name in a held folder.
func stampIn(in int, name string) (Stamp, error) {
	var stat unix.Stat_t
	err := unix.Fstatat(in, name, &stat, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Stamp{}, nil
	case err != nil:
		return Stamp{}, err
	}
	return stampOf(&stat), nil
}

// stampOpen returns the stamp of an open file, in which nobody can put another one.
func stampOpen(f *os.File) (Stamp, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
		return Stamp{}, err
	}
	return stampOf(&stat), nil
}

// readLinkIn returns the target of a link in a held folder, "" where there is none.
func readLinkIn(in int, name string) string {
	target := make([]byte, 512) // Those of a set are shorter.
	n, err := unix.Readlinkat(in, name, target)
	if err != nil {
		return ""
	}
	return string(target[:n])
}

// places are folders that several paths lead through, open for going on only.
type places map[string]*walk

// open opens a folder for going on only, from its place on where that is held already.
// Errors are those of [location.open].
func (p places) open(at location) (fd int, err error) {
	below, err := at.below()
	if err != nil {
		return -1, err
	}
	from := p[at.place]
	if from == nil {
		start := at
		if at.place != "" {
			start = location{path: at.place}
		}
		if from, err = start.walk(); err != nil {
			return -1, err
		}
		if at.place != "" {
			p[at.place] = from
		} else {
			defer from.close()
		}
	}
	fd, path := int(from.at.Fd()), from.path
	for i, name := range append([]string{"."}, below...) { // The dot makes a descriptor of its own.
		in := fd
		fd, err = openToPass(in, name)
		if err != nil && isLinkIn(in, name) {
			err = refusedLink(filepath.Join(path, name))
		}
		if i > 0 {
			_ = unix.Close(in)
		}
		if err != nil {
			return -1, at.errorOf(err)
		}
		path = filepath.Join(path, name)
	}
	return fd, nil
}

func (p places) close() {
	for _, w := range p {
		w.close()
	}
}

// IsCurrent reports whether content, mode and owner of what is in place are what [Stage]
// would put there. Unlike Stage it changes nothing. Files and folders that are not there are
// no error. An owner that a [File] does not name may be any.
func IsCurrent(u Unit) (bool, error) {
	fail := func(err error) (bool, error) {
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return false, fmt.Errorf("looking at %s: %w", u.name(), err)
	}
	at := u.location()
	root, err := at.open()
	if err != nil {
		return fail(err)
	}
	defer func() { _ = root.Close() }()
	d := &folder{root: root, at: at}
	if u.Set != "" {
		_, same := d.compareSet(u)
		return same, nil
	}
	there, err := d.look(filepath.Base(u.Files[0].Path), u.Files[0])
	if err != nil {
		if errors.Is(err, ErrRefused) {
			return false, nil // A link, say.
		}
		return fail(err)
	}
	defer there.close()
	return there.open != nil && !there.chowns && !there.chmods, nil
}
