package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/filestate"
	"github.com/smarteros/deaddrop/agent/internal/publish"
	"github.com/smarteros/deaddrop/render/drop"
)

// Nothing is written to find out what can be: access(2) knows modes, owners, access
// control lists and read-only file systems.

// target is a file that is to be written.
type target struct {
	path     string
	mode     fs.FileMode
	uid, gid *int
	inPlace  bool
	inSet    bool
	isSink   bool // whose mode is mostly the default: it says nothing of who reads it
}

// place is a folder that files are to be written to.
type place struct {
	path                 string
	create               bool
	strict, requireTmpfs bool
	existing             bool // all that is written there is written in place
}

// destinations looks at the folders of all files, once each, and at the files.
func (e *exam) destinations() {
	e.plan = e.cfg.Folders()
	for _, s := range e.drops {
		if s.env == "" {
			e.plan.Add(s.drop.File())
		}
	}
	targets, places := e.targets()
	wrong := map[string]bool{}
	for _, p := range places {
		e.folder(p)
		wrong[p.path] = e.Checks[len(e.Checks)-1].Status == Failed
	}
	for _, t := range targets {
		e.file(t, wrong[folderOf(t.path)])
		if !t.isSink && !wrong[folderOf(t.path)] {
			e.shutOut(t)
		}
	}
	e.state(places)
}

// targets are the files, and their folders in the order of the files.
func (e *exam) targets() (targets []target, places []place) {
	add := func(d config.Drop) {
		targets = append(targets, target{d.Destination, d.Mode, d.UID, d.GID, d.InPlace, d.Set != nil, false})
		places = join(places, place{folderOf(d.Destination), d.CreateDirs, d.Strict, d.RequireTmpfs, d.InPlace && filestate.Exists(d.Destination)})
	}
	for _, s := range e.drops {
		if s.env == "" {
			add(s.drop)
		}
	}
	for _, f := range e.cfg.Each { // Of which the tenants may not be known.
		places = join(places, place{path: folderOf(f.Place + "/"), create: f.CreateDirs})
	}
	for _, s := range e.cfg.Sinks {
		add(config.Drop{Destination: s.Path, Mode: s.Mode, UID: s.UID, GID: s.GID, CreateDirs: true})
		targets[len(targets)-1].isSink = true
	}
	return targets, places
}

// folderOf is the folder of a file, absolute: what is to be done about it is done
// elsewhere.
func folderOf(file string) string {
	folder, _ := filepath.Split(file)
	if whole, err := filepath.Abs(folder); err == nil {
		return whole
	}
	return filepath.Clean(folder)
}

func join(places []place, p place) []place {
	i := slices.IndexFunc(places, func(o place) bool { return o.path == p.path })
	if i < 0 {
		return append(places, p)
	}
	o := &places[i]
	o.create, o.strict, o.requireTmpfs = o.create || p.create, o.strict || p.strict, o.requireTmpfs || p.requireTmpfs
	o.existing = o.existing && p.existing
	return places
}

// folder tells whether files can be made in a folder, and whether it is a place for
// secrets.
func (e *exam) folder(p place) {
	dir, info, err := nearest(p.path)
	switch missing := dir != p.path; {
	case err != nil:
		e.fail("folder", p.path, errCheck, dir+" cannot be looked at: "+drop.Bare(err).Error(), "let user "+me()+" enter the folders above it (chmod o+x)")
	case !info.IsDir():
		e.fail("folder", p.path, errCheck, dir+" is not a folder", "choose another destination, or move "+dir+" away")
	case missing && !p.create:
		e.fail("folder", p.path, errCheck, "it does not exist, and create_dest_dirs is false", e.howToMake(p.path))
	case !p.existing && !writable(dir):
		e.unwritable(p, dir, info, missing)
	case isFull(dir):
		e.fail("folder", p.path, errCheck, "its file system is full", "make room: \"df -h "+dir+"\" and \"df -i "+dir+"\" show what is used")
	default:
		e.safety(p, dir, missing)
	}
}

// howToMake makes a folder as the agent would.
func (e *exam) howToMake(path string) string {
	mode, owner, group := e.made(path)
	if group != "" {
		owner += ":" + group
	}
	return fmt.Sprintf("mkdir -m %s -p %s && chown %s %s", mode, path, owner, path)
}

// nearest is the folder, or the one that it would be made in.
func nearest(path string) (dir string, info fs.FileInfo, err error) {
	dir = path
	info, err = os.Stat(dir)
	for errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
		info, err = os.Stat(dir)
	}
	return dir, info, err
}

func writable(dir string) bool {
	return unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS) == nil
}

func (e *exam) unwritable(p place, dir string, info fs.FileInfo, missing bool) {
	err := unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
	if errors.Is(err, unix.EROFS) {
		e.fail("folder", p.path, errCheck, dir+" is on a read-only file system",
			"mount a writable volume there.\n"+e.howToMount(p.path))
		return
	}
	uid, gid := drop.OwnerOf(info)
	what := fmt.Sprintf("user %s may not write to %s, which belongs to %d:%d with mode %04o", me(), dir, uid, gid, info.Mode().Perm())
	if missing {
		what = fmt.Sprintf("it does not exist, and user %s may not make it in %s, which belongs to %d:%d with mode %04o", me(), dir, uid, gid, info.Mode().Perm())
	}
	mode, owner, group := e.made(p.path)
	if group != "" {
		owner += " -g " + group
	}
	fix := fmt.Sprintf("install -d -m %s -o %s %s   (as root; or run deaddrop as user %d)", mode, owner, p.path, uid)
	e.fail("folder", p.path, errCheck, what, unlessSystems(p.path, fix)+"\n"+e.howToMount(p.path))
}

// howToMount gives a folder in memory that the agent may write to. It is told once:
// other folders are alike.
func (e *exam) howToMount(path string) string {
	if e.toldMount != "" {
		return "A folder in memory: as for " + e.toldMount
	}
	e.toldMount = path
	mode, uid, gid := e.made(path)
	if isSystems(path) {
		path = ownFolder
	}
	options := "uid=" + uid + ",mode=" + mode
	if gid != "" {
		options = "uid=" + uid + ",gid=" + gid + ",mode=" + mode
	}
	folder := firstBelowRun(path)
	return fmt.Sprintf("A folder in memory:\n"+
		"  Compose:  volumes: { secrets: { driver_opts: { type: tmpfs, device: tmpfs, o: \"%s\" } } }\n"+
		"            and for the service: volumes: [ \"secrets:%s\" ]\n"+
		"  systemd:  RuntimeDirectory=%s   (which is /run/%s)\n"+
		"  by hand:  mount -t tmpfs -o %s tmpfs %s", options, path, folder, folder, options, path)
}

// ownFolder is where secrets may be where they must not be elsewhere.
const ownFolder = "/run/deaddrop"

// isSystems tells whether a folder is not to be given away, or hidden by a mount:
// others live there, too.
func isSystems(path string) bool {
	path, err := filepath.Abs(path)
	if err != nil || filepath.Dir(path) == "/" {
		return true
	}
	if config.IsBelow(path, "/dev/shm") {
		return false
	}
	return slices.ContainsFunc([]string{"/bin", "/boot", "/dev", "/etc", "/lib", "/proc", "/sbin", "/sys", "/usr"}, func(folder string) bool {
		return config.IsBelow(path, folder)
	}) || path == "/var/run" || path == "/var/lib" || path == "/var/tmp"
}

// unlessSystems is how to change a folder, or where to write to instead of that.
func unlessSystems(path, fix string) string {
	if isSystems(path) {
		return "write to a folder of its own, such as " + ownFolder
	}
	return fix
}

// firstBelowRun is a name for RuntimeDirectory=.
func firstBelowRun(path string) string {
	if inside, is := strings.CutPrefix(path, "/run/"); is {
		return inside
	}
	return "deaddrop"
}

// safety tells who else may get at what is in a folder, and whether it outlives its
// files.
func (e *exam) safety(p place, dir string, missing bool) {
	is, err := drop.Inspect(p.path)
	if err != nil {
		e.fail("folder", p.path, err, drop.Bare(err).Error(), "")
		return
	}
	good := true
	bad := func(required bool, setting, detail, fix string) {
		good = false
		if required {
			e.fail("folder", p.path, errCheck, setting+": "+detail, fix)
			return
		}
		e.warn("folder", p.path, detail, fix)
	}
	if p.strict {
		e.trust(p.path, func(detail, fix string) { bad(true, "strict = true", detail, fix) })
	} else if is.OthersMayWrite {
		bad(false, "", "every user of this machine may write to it, and put other files in place of these", unlessSystems(p.path, "chmod o-w "+p.path))
	}
	if is.OnDisk {
		bad(p.requireTmpfs, "require_tmpfs = true", "it is "+publish.OnDisk(is)+", where secrets stay after the file is gone", e.howToMount(p.path))
	}
	if !good {
		return
	}
	where := "is writable"
	if missing {
		where = "is made in " + dir
	}
	e.ok("folder", p.path, "%s%s", where, inMemory)
}

// trust explains which folder on the way to one is not the agent's alone.
func (e *exam) trust(folder string, bad func(detail, fix string)) {
	err := drop.CheckTrustedOrNew(folder)
	var wrong *drop.TrustError
	switch {
	case err == nil:
	case !errors.As(err, &wrong):
		bad(err.Error(), "")
	default:
		fix := wrong.Hint
		if strings.HasPrefix(fix, "chmod ") || strings.HasPrefix(fix, "chown ") {
			fix = unlessSystems(wrong.Path, fix)
		}
		subject := wrong.Path
		if wrong.Path == folder {
			subject = "it"
		}
		bad(subject+" "+wrong.Detail, fix)
	}
}

func isFull(dir string) bool {
	var stat unix.Statfs_t
	if unix.Statfs(dir, &stat) != nil {
		return false
	}
	return stat.Blocks > 0 && stat.Bavail == 0 && os.Geteuid() != 0 || stat.Blocks > 0 && stat.Bfree == 0 || stat.Files > 0 && stat.Ffree == 0
}

// file looks at what is at a destination now. Where its folder is wrong, only what
// is wrong besides is worth a word.
func (e *exam) file(t target, wrongFolder bool) {
	if problem, fix := t.obstacle(); problem != "" {
		e.fail("file", t.path, errCheck, problem, fix)
		return
	}
	if problem, fix := t.ownership(); problem != "" {
		e.fail("file", t.path, errCheck, problem, fix)
		return
	}
	if wrongFolder {
		e.skip("file", t.path, "not looked at, as its folder is wrong")
		return
	}
	info, err := os.Stat(t.path)
	if err != nil {
		e.ok("file", t.path, "not there yet; will have mode %04o%s", t.mode.Perm(), t.owner())
		return
	}
	if differs := t.differs(info); differs != "" {
		fix := "the next render sets it right; it is so until then: " + t.mend()
		if was := info.Mode().Perm(); was&^t.mode.Perm() != 0 {
			fix += fmt.Sprintf("\nOr, if others are to read it: perms = \"%04o\"", was)
		}
		e.warn("file", t.path, differs, fix)
		return
	}
	e.ok("file", t.path, "is there, with mode %04o%s", t.mode.Perm(), t.owner())
}

// obstacle is what keeps a file from being replaced.
func (t target) obstacle() (problem, fix string) {
	check := drop.Check
	if t.inSet {
		check = drop.CheckInSet
	}
	if err := check(t.path); err != nil {
		detail, how := explain(err)
		return strings.TrimPrefix(detail, t.path+" "), how
	}
	info, err := os.Lstat(t.path)
	if err != nil {
		return "", ""
	}
	switch {
	case t.inPlace && unix.Faccessat(unix.AT_FDCWD, t.path, unix.R_OK|unix.W_OK, unix.AT_EACCESS) != nil:
		return "write = \"in_place\", and user " + me() + " may not write to the file", "chown " + me() + " " + t.path
	case !t.inPlace && !t.inSet && drop.IsMount(t.path):
		return "it is mounted by itself, and cannot be replaced", "mount its folder instead of the file, or write into the drop: write = \"in_place\""
	case !t.inPlace && isStuck(t.path, info):
		uid, _ := drop.OwnerOf(info)
		return fmt.Sprintf("it belongs to user %d, and only its owner may replace it in a folder with the sticky bit", uid), "remove it as that user, or choose another folder than " + filepath.Dir(t.path)
	}
	return "", ""
}

// isStuck tells whether another one's file is in a folder like /tmp.
func isStuck(path string, info fs.FileInfo) bool {
	folder, err := os.Stat(filepath.Dir(path))
	if err != nil || folder.Mode()&fs.ModeSticky == 0 || os.Geteuid() == 0 {
		return false
	}
	owner, _ := drop.OwnerOf(info)
	whose, _ := drop.OwnerOf(folder)
	return owner != os.Geteuid() && whose != os.Geteuid()
}

// ownership tells whether the file can be given to whom it is for.
func (t target) ownership() (problem, fix string) {
	if mayChown() {
		return "", ""
	}
	const how = "run deaddrop as root, or with CAP_CHOWN (Compose: cap_add: [ CHOWN ]; systemd: AmbientCapabilities=CAP_CHOWN)"
	if t.uid != nil && *t.uid != os.Geteuid() {
		return fmt.Sprintf("user %s cannot give it to user %d", me(), *t.uid), how + fmt.Sprintf("; or as user %d, and take \"user\" out", *t.uid)
	}
	groups, _ := os.Getgroups()
	if t.gid != nil && *t.gid != os.Getegid() && !slices.Contains(groups, *t.gid) {
		return fmt.Sprintf("user %s cannot give it to group %d, which it is not in", me(), *t.gid),
			fmt.Sprintf("put it into the group (Compose: group_add: [ \"%d\" ]; systemd: SupplementaryGroups=%d), or %s", *t.gid, *t.gid, how)
	}
	return "", ""
}

func (t target) owner() string {
	text := ""
	if t.uid != nil {
		text += fmt.Sprintf(", user %d", *t.uid)
	}
	if t.gid != nil {
		text += fmt.Sprintf(", group %d", *t.gid)
	}
	return text
}

// differs tells how mode and owner of a file are not those of the configuration.
func (t target) differs(info fs.FileInfo) string {
	var all []string
	if info.Mode().Perm() != t.mode.Perm() {
		all = append(all, fmt.Sprintf("its mode is %04o, not %04o", info.Mode().Perm(), t.mode.Perm()))
	}
	uid, gid := drop.OwnerOf(info)
	if t.uid != nil && *t.uid != uid {
		all = append(all, fmt.Sprintf("it belongs to user %d, not %d", uid, *t.uid))
	}
	if t.gid != nil && *t.gid != gid {
		all = append(all, fmt.Sprintf("its group is %d, not %d", gid, *t.gid))
	}
	return strings.Join(all, "; ")
}

func (t target) mend() string {
	text := fmt.Sprintf("chmod %04o %s", t.mode.Perm(), t.path)
	if t.uid != nil {
		text += fmt.Sprintf(" && chown %d %s", *t.uid, t.path)
	}
	if t.gid != nil {
		text += fmt.Sprintf(" && chgrp %d %s", *t.gid, t.path)
	}
	return text
}
