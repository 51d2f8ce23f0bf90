package drop

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func ptr(id int) *int { return &id }

// made describes a folder: its mode, with the setgid bit, and its owner.
type made struct {
	mode     fs.FileMode
	uid, gid int
}

func madeLike(t *testing.T, path string) made {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	uid, gid := ownerOf(info)
	return made{info.Mode() & (fs.ModePerm | fs.ModeSetgid), uid, gid}
}

func needsRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can give folders away")
	}
}

func TestPlan_LetsInWhoMayReadTheFiles(t *testing.T) {
	const dir = "/nowhere/a"
	for name, tc := range map[string]struct {
		files []File
		want  NewFolder
	}{
		"no files":                {nil, NewFolder{Mode: 0o700}},
		"the agent":               {[]File{{Mode: 0o600}}, NewFolder{Mode: 0o700}},
		"the agent's group":       {[]File{{Mode: 0o440}}, NewFolder{Mode: 0o750}},
		"group that writes":       {[]File{{Mode: 0o660}}, NewFolder{Mode: 0o750}},
		"others":                  {[]File{{Mode: 0o444}}, NewFolder{Mode: 0o755}},
		"others alone":            {[]File{{Mode: 0o604}}, NewFolder{Mode: 0o705}},
		"a user":                  {[]File{{Mode: 0o600, UID: ptr(7)}}, NewFolder{Mode: 0o700, UID: ptr(7)}},
		"a group":                 {[]File{{Mode: 0o440, GID: ptr(8)}}, NewFolder{Mode: 0o750, GID: ptr(8)}},
		"user and group":          {[]File{{Mode: 0o440, UID: ptr(7), GID: ptr(8)}}, NewFolder{Mode: 0o750, UID: ptr(7), GID: ptr(8)}},
		"a group that may not":    {[]File{{Mode: 0o400, UID: ptr(7), GID: ptr(8)}}, NewFolder{Mode: 0o700, UID: ptr(7), GID: ptr(8)}},
		"a user and a group":      {[]File{{Mode: 0o600, UID: ptr(7)}, {Mode: 0o440, GID: ptr(8)}}, NewFolder{Mode: 0o750, UID: ptr(7), GID: ptr(8)}},
		"a record beside":         {[]File{{Mode: 0o600}, {Mode: 0o440, GID: ptr(8)}}, NewFolder{Mode: 0o750, GID: ptr(8)}},
		"two users":               {[]File{{Mode: 0o600, UID: ptr(7)}, {Mode: 0o600, UID: ptr(9)}}, NewFolder{Mode: 0o711}},
		"a user and root":         {[]File{{Mode: 0o600, UID: ptr(7)}, {Mode: 0o600, UID: ptr(0)}}, NewFolder{Mode: 0o700, UID: ptr(7)}},
		"two groups":              {[]File{{Mode: 0o440, GID: ptr(8)}, {Mode: 0o440, GID: ptr(9)}}, NewFolder{Mode: 0o751}},
		"a group and the agent's": {[]File{{Mode: 0o440, GID: ptr(8)}, {Mode: 0o440}}, NewFolder{Mode: 0o751}},
		"two groups that may not": {[]File{{Mode: 0o400, GID: ptr(8)}, {Mode: 0o400, GID: ptr(9)}}, NewFolder{Mode: 0o700}},
		"two users and others":    {[]File{{Mode: 0o644, UID: ptr(7)}, {Mode: 0o444, UID: ptr(9)}}, NewFolder{Mode: 0o755}},
		"a mode of its own":       {[]File{{Mode: 0o444, DirMode: 0o711}}, NewFolder{Mode: 0o711}},
		"narrower than the file":  {[]File{{Mode: 0o440, GID: ptr(8), DirMode: 0o700}}, NewFolder{Mode: 0o700, GID: ptr(8)}},
		"its own, and another's":  {[]File{{Mode: 0o600, DirMode: 0o711}, {Mode: 0o440, GID: ptr(8)}}, NewFolder{Mode: 0o751, GID: ptr(8)}},
		"two users, a mode given": {[]File{{Mode: 0o600, UID: ptr(7), DirMode: 0o700}, {Mode: 0o600, UID: ptr(9), DirMode: 0o700}}, NewFolder{Mode: 0o700}},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.want.UID != nil {
				needsRoot(t)
			}
			var p Plan
			for _, f := range tc.files {
				f.Path = dir + "/b/f"
				p.Add(f)
			}
			assert.Equal(t, tc.want, p.Folder(dir+"/b/"))
			above := tc.want
			if above.UID != nil {
				above.UID, above.Mode = nil, above.Mode|0o011
			}
			assert.Equal(t, above, p.Folder(dir), "it stays the agent's")
			assert.Equal(t, NewFolder{Mode: 0o700}, p.Folder(dir+"/c"), "it knows of no file there")
		})
	}
}

func TestPlan_LetsEverybodyPassWhereFilesAreForUsersNotKnownYet(t *testing.T) {
	var p Plan
	p.AddMany(File{Path: "/nowhere/tenants/any/f", Mode: 0o600})
	p.Add(File{Path: "/nowhere/tenants/demo/f", Mode: 0o600, GID: ptr(8)})
	assert.Equal(t, fs.FileMode(0o711), p.Folder("/nowhere/tenants").Mode)
	assert.Equal(t, fs.FileMode(0o700), p.Folder("/nowhere/tenants/demo").Mode)
}

func TestPlan_GivesAUserNoFolderThatHasFoldersBelow(t *testing.T) {
	needsRoot(t)
	user := ptr(stranger)
	var p Plan
	p.AddMany(File{Path: "/nowhere/flat/any.env", Mode: 0o600, UID: user})
	p.Add(File{Path: "/nowhere/tenants/demo/conf/x.env", Mode: 0o600, UID: user})
	p.Add(File{Path: "/nowhere/both/x.env", Mode: 0o600, UID: user, DirMode: 0o770})
	p.Add(File{Path: "/nowhere/both/conf/x.env", Mode: 0o600, UID: user, DirMode: 0o770})
	p.Add(File{Path: "/nowhere/one/x.env", Mode: 0o600, UID: user})
	for path, want := range map[string]NewFolder{
		"/nowhere":                   {Mode: 0o751},
		"/nowhere/flat":              {Mode: 0o711},
		"/nowhere/tenants":           {Mode: 0o711},
		"/nowhere/tenants/demo":      {Mode: 0o711},
		"/nowhere/tenants/demo/conf": {Mode: 0o700, UID: user},
		"/nowhere/both":              {Mode: 0o751},
		"/nowhere/both/conf":         {Mode: 0o770, UID: user},
		"/nowhere/one":               {Mode: 0o700, UID: user},
	} {
		assert.Equal(t, want, p.Folder(path), path)
	}
}

func TestPlan_FindsAFolderByWhicheverPath(t *testing.T) {
	t.Chdir(t.TempDir())
	here, err := os.Getwd()
	require.NoError(t, err)
	var p Plan
	p.Add(File{Path: "a/f", Mode: 0o444})
	for _, path := range []string{"a", "./a/", filepath.Join(here, "a")} {
		assert.Equal(t, fs.FileMode(0o755), p.Folder(path).Mode, path)
	}
	require.NoError(t, write(t, File{Path: "b/c/f", Mode: 0o440, CreateDirs: true}).Err)
	assert.Equal(t, fs.FileMode(0o750), mode(t, "b/c"))
}

func TestWrite_MakesFoldersForTheReadersOfTheFile(t *testing.T) {
	needsRoot(t)
	for _, umask := range []int{0, 0o077, 0o777} {
		old := syscall.Umask(umask)
		t.Cleanup(func() { syscall.Umask(old) })
		dir := t.TempDir()
		require.NoError(t, os.Chmod(dir, 0o700))
		at := func(name string) string { return filepath.Join(dir, name) }
		for _, r := range Write([]File{
			{Path: at("plain/x/f"), Mode: 0o600, CreateDirs: true},
			{Path: at("group/x/f"), Mode: 0o440, GID: ptr(8), CreateDirs: true},
			{Path: at("user/x/f"), Mode: 0o600, UID: ptr(7), GID: ptr(8), CreateDirs: true},
			{Path: at("others/x/f"), Mode: 0o444, CreateDirs: true},
			{Path: at("given/x/f"), Mode: 0o600, DirMode: 0o711, CreateDirs: true},
			{Path: at("shared/f"), Mode: 0o600, CreateDirs: true},
			{Path: at("shared/g"), Mode: 0o440, GID: ptr(8), CreateDirs: true},
		}) {
			require.NoError(t, r.Err)
		}
		for name, want := range map[string]made{
			"plain": {0o700, 0, 0}, "group": {0o750, 0, 8}, "user": {0o700, 7, 8}, "others": {0o755, 0, 0}, "given": {0o711, 0, 0},
		} {
			assert.Equal(t, want, madeLike(t, at(name+"/x")), name)
			if name == "user" {
				want = made{0o711, 0, 8} // A folder above stays the agent's, and lets the user pass.
			}
			assert.Equal(t, want, madeLike(t, at(name)), "the folders on the way, too")
		}
		assert.Equal(t, made{0o750, 0, 8}, madeLike(t, at("shared")), "for all of its files")
		only(t, dir, "plain", "group", "user", "others", "given", "shared")
		syscall.Umask(old)
	}
}

func TestStage_MakesTheFolderOfASetForTheReadersOfItsFiles(t *testing.T) {
	needsRoot(t)
	set := filepath.Join(t.TempDir(), "new", "set")
	u := setOf(set, "a", "1", "b", "1")
	u.Files[0].Mode, u.Files[0].GID = 0o440, ptr(8)
	stage(t, u)
	assert.Equal(t, made{0o750, 0, 8}, madeLike(t, set))
	assert.Equal(t, made{0o750, 0, 8}, madeLike(t, filepath.Dir(set)))
	require.NoError(t, os.Chmod(set, 0o700))
	u.Files[0].Content = []byte("2")
	stage(t, u)
	assert.Equal(t, made{0o700, 0, 8}, madeLike(t, set), "a folder that is there is left as it is")
}

func TestPlan_MakesFoldersForFilesThatComeLater(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a")
	var p Plan
	p.Add(File{Path: filepath.Join(dir, "b", "f"), Mode: 0o444})
	record := File{Path: filepath.Join(dir, ".f.deaddrop"), Mode: 0o600, CreateDirs: true}
	require.NoError(t, p.Write([]File{record})[0].Err)
	assert.Equal(t, fs.FileMode(0o755), mode(t, dir))
	require.NoError(t, p.Make(filepath.Join(dir, "b")))
	assert.Equal(t, fs.FileMode(0o755), mode(t, filepath.Join(dir, "b")))
	require.NoError(t, p.Make(dir))
}

func TestWrite_KeepsGroupAndSetgidBitOfTheParent(t *testing.T) {
	needsRoot(t)
	parent := filepath.Join(t.TempDir(), "parent")
	require.NoError(t, os.Mkdir(parent, 0o700))
	require.NoError(t, os.Chown(parent, 0, 2345))
	require.NoError(t, os.Chmod(parent, 0o750|fs.ModeSetgid))
	file := filepath.Join(parent, "a", "b", "f")
	require.NoError(t, write(t, File{Path: file, Mode: 0o440, CreateDirs: true}).Err)
	for _, name := range []string{"a", "a/b"} {
		assert.Equal(t, made{0o750 | fs.ModeSetgid, 0, 2345}, madeLike(t, filepath.Join(parent, name)))
	}
	assert.Equal(t, made{0o440, 0, 2345}, madeLike(t, file))
	require.NoError(t, write(t, File{Path: filepath.Join(parent, "c", "f"), Mode: 0o440, GID: ptr(8), CreateDirs: true}).Err)
	assert.Equal(t, made{0o750 | fs.ModeSetgid, 0, 8}, madeLike(t, filepath.Join(parent, "c")), "a group that is named goes first")
}

// makeAsUser is a process without rights.
func makeAsUser(dir string) error {
	syscall.Umask(0o077)
	r := Write([]File{{Path: filepath.Join(dir, "a", "b", "f"), Mode: 0o440, CreateDirs: true}})[0]
	if r.Err != nil {
		return r.Err
	}
	return Write([]File{{Path: filepath.Join(dir, "c", "f"), Mode: 0o440, GID: ptr(9), CreateDirs: true}})[0].Err
}

func TestWrite_KeepsTheSetgidBitWithoutBeingInTheGroup(t *testing.T) {
	needsRoot(t)
	dir, cmd := asUser(t, "make")
	require.NoError(t, os.Chown(dir, 1234, 2345))
	require.NoError(t, os.Chmod(dir, 0o750|fs.ModeSetgid))
	out, err := cmd.CombinedOutput()
	require.Error(t, err, "it cannot give the last folder to group 9")
	assert.Equal(t, "writing "+filepath.Join(dir, "c/f")+": creating folder "+filepath.Join(dir, "c")+": giving it to group 9: operation not permitted; only root, or who has CAP_CHOWN, may do that\n", string(out))
	for _, name := range []string{"a", "a/b"} {
		assert.Equal(t, made{0o750 | fs.ModeSetgid, 1234, 2345}, madeLike(t, filepath.Join(dir, name)))
	}
	assert.Equal(t, made{0o440, 1234, 2345}, madeLike(t, filepath.Join(dir, "a/b/f")))
	only(t, dir, "a")
}

// filterCalls lets a filter decide on system calls of this process.
func filterCalls(filter []unix.SockFilter) error {
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if _, _, err := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program))); err != 0 {
		return err
	}
	return nil
}

// makeWithoutSetgid is a process that may not set the setgid bit, as in a unit of systemd
// with RestrictSUIDSGID=.
func makeWithoutSetgid(dir string) error {
	const returnError = 0x00050000
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 3, K: unix.SYS_FCHMOD},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 24}, // its second argument
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, Jf: 1, K: unix.S_ISGID},
		{Code: unix.BPF_RET | unix.BPF_K, K: returnError | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0x7fff0000},
	}
	if err := filterCalls(filter); err != nil {
		return err
	}
	syscall.Umask(0o077)
	return errors.Join(
		Write([]File{{Path: filepath.Join(dir, "a", "f"), Mode: 0o440, UID: ptr(7), CreateDirs: true}})[0].Err,
		Write([]File{{Path: filepath.Join(dir, "b", "f"), Mode: 0o440, GID: ptr(8), CreateDirs: true}})[0].Err)
}

func TestWrite_KeepsTheSetgidBitWhereItMustNotSetIt(t *testing.T) {
	needsRoot(t)
	dir := t.TempDir()
	require.NoError(t, os.Chown(dir, 0, 2345))
	require.NoError(t, os.Chmod(dir, 0o750|fs.ModeSetgid))
	out, err := child("no setgid", dir).CombinedOutput()
	require.NoError(t, err, string(out))
	assert.Equal(t, made{0o750 | fs.ModeSetgid, 7, 2345}, madeLike(t, filepath.Join(dir, "a")))
	assert.Equal(t, made{0o440, 7, 2345}, madeLike(t, filepath.Join(dir, "a/f")))
	assert.Equal(t, made{0o750, 0, 8}, madeLike(t, filepath.Join(dir, "b")))
	assert.Equal(t, made{0o440, 0, 8}, madeLike(t, filepath.Join(dir, "b/f")))
	only(t, dir, "a", "b")
}

// asUser prepares one of children as user 1234, in a folder that others can reach,
// other than t.TempDir.
func asUser(t *testing.T, name string) (dir string, cmd *exec.Cmd) {
	t.Helper()
	base, err := os.MkdirTemp("", "drop")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	require.NoError(t, os.Chmod(base, 0o711)) // To pass it is enough.
	program := filepath.Join(base, "program")
	// Another program writes it: a process that is forked here meanwhile would have it open.
	require.NoError(t, exec.Command("install", "-m", "755", os.Args[0], program).Run())
	dir = filepath.Join(base, "work")
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.Chown(dir, 1234, 1234))
	cmd = child(name, dir)
	cmd.Path = program
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1234, Gid: 1234}}
	return dir, cmd
}

// makeForAUser is root without the right to write everywhere, such as in a container
// that has CAP_CHOWN alone.
func makeForAUser(dir string) error {
	for range 2 { // The second time, the folder is there.
		for i, r := range Write([]File{
			{Path: filepath.Join(dir, "user/f"), Content: []byte("x"), Mode: 0o600, UID: ptr(7), GID: ptr(8), CreateDirs: true},
			{Path: filepath.Join(dir, "group/f"), Content: []byte("x"), Mode: 0o440, GID: ptr(8), CreateDirs: true},
		}) {
			if r.Err != nil {
				return r.Err
			}
			_ = os.Remove(filepath.Join(dir, []string{"user/f", "group/f"}[i]))
		}
	}
	return nil
}

func TestWrite_DoesNotGiveAwayAFolderThatItCouldNotWriteTo(t *testing.T) {
	needsRoot(t)
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skip("there is no setpriv here")
	}
	dir := t.TempDir()
	cmd := child("chown only", dir)
	cmd.Path, cmd.Args = setpriv, []string{"setpriv", "--bounding-set", "-all,+chown", "--inh-caps", "-all", os.Args[0]}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	assert.Equal(t, made{0o711, 0, 8}, madeLike(t, filepath.Join(dir, "user")), "the user may pass")
	assert.Equal(t, made{0o750, 0, 8}, madeLike(t, filepath.Join(dir, "group")))
}

func TestWrite_LeavesNoHalfMadeFolder(t *testing.T) {
	dir := t.TempDir()
	parent, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer func() { _ = parent.Close() }()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "there"), 0o711))
	require.ErrorIs(t, makeFolder(parent, "there", NewFolder{Mode: 0o755}), fs.ErrExist)
	assert.Equal(t, fs.FileMode(0o711), mode(t, filepath.Join(dir, "there")), "an empty folder of somebody else's, too")
	require.ErrorIs(t, renameUnlessThere(parent, "nothing", "there"), fs.ErrExist)
	only(t, dir, "there")

	// One that a killed writer has left.
	left := filepath.Join(dir, tempName("left"))
	require.NoError(t, os.Mkdir(left, 0o700))
	_, err = Clean(dir, time.Now())
	require.NoError(t, err)
	assert.DirExists(t, left, "it may be a moment old")
	age(t, left)
	removed, err := Clean(dir, time.Now())
	require.NoError(t, err)
	assert.Equal(t, 1, removed)
	only(t, dir, "there")
}

func TestWrite_DressesNoFolderThatWasPutInPlaceOfTheNewOne(t *testing.T) {
	dir := t.TempDir()
	parent, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer func() { _ = parent.Close() }()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "full"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "full", "f"), nil, 0o600))
	require.NoError(t, os.Symlink("full", filepath.Join(dir, "link")))
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	for _, name := range []string{"full", "link", "fifo"} {
		_, _, err := dress(parent, name, NewFolder{Mode: 0o755})
		require.Error(t, err, name)
	}
	assert.Equal(t, fs.FileMode(0o700), mode(t, filepath.Join(dir, "full")))

	needsRoot(t)
	theirs := filepath.Join(dir, "theirs")
	require.NoError(t, os.Mkdir(theirs, 0o700))
	require.NoError(t, os.Chown(theirs, stranger, stranger))
	for _, is := range []NewFolder{{Mode: 0o755, UID: ptr(7)}, {Mode: 0o755, GID: ptr(7)}} {
		_, _, err = dress(parent, "theirs", is)
		require.ErrorIs(t, err, errReplaced)
	}
	assert.Equal(t, made{0o700, stranger, stranger}, madeLike(t, theirs))
}

func TestWrite_FailsWithTheFolderThatCannotBeMade(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	res := write(t, File{Path: filepath.Join(dir, "file", "a", "f"), Mode: 0o600, CreateDirs: true})
	require.EqualError(t, res.Err, "writing "+filepath.Join(dir, "file", "a", "f")+": opening folder "+filepath.Join(dir, "file", "a")+": not a directory")
	require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "dangling")))
	res = write(t, File{Path: filepath.Join(dir, "dangling", "a", "f"), Mode: 0o600, CreateDirs: true})
	require.ErrorContains(t, res.Err, "creating folder "+filepath.Join(dir, "dangling"))
	assert.NotContains(t, res.Err.Error(), tempPrefix)
	only(t, dir, "file", "dangling")
}
