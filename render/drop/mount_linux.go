package drop

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// isMount tells whether a file in the folder is mounted there by itself.
func (d *folder) isMount(base string) bool {
	dir, err := d.root.Open(".")
	if err != nil {
		return false
	}
	defer func() { _ = dir.Close() }()
	var stat unix.Statx_t
	err = unix.Statx(int(dir.Fd()), base, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, 0, &stat)
	return err == nil && stat.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 && stat.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}

func onDisk(dir string) bool {
	var stat unix.Statfs_t
	if unix.Statfs(dir, &stat) != nil {
		return false
	}
	return stat.Type != unix.TMPFS_MAGIC && stat.Type != unix.RAMFS_MAGIC
}

// mountOf returns where the file system of a folder is mounted, and its type.
func mountOf(dir string) (at, kind string) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", ""
	}
	if whole, err := filepath.EvalSymlinks(absolute(dir)); err == nil {
		dir = whole
	}
	return findMount(string(table), dir)
}

// unescaped has what mountinfo writes for white space.
var unescaped = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// findMount looks a folder up in lines such as
//
//	36 35 98:0 /root /mounted/at rw,noatime master:1 - ext4 /dev/vda rw
//
// of which the last counts where one mount is over another.
func findMount(table, dir string) (at, kind string) {
	for line := range strings.Lines(table) {
		mount, source, ok := strings.Cut(line, " - ")
		fields, more := strings.Fields(mount), strings.Fields(source)
		if !ok || len(fields) < 5 || len(more) < 1 {
			continue
		}
		point := unescaped.Replace(fields[4])
		inside := point == dir || strings.HasPrefix(dir, strings.TrimSuffix(point, "/")+"/")
		if inside && len(point) >= len(at) {
			at, kind = point, more[0]
		}
	}
	return at, kind
}

// memory is a file that is in no folder.
func memory(content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("deaddrop", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "memory")
	if _, err := f.Write(content); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// mayWriteEverywhere reports whether this process may write to folders of others. Root in
// a container may lack the capability.
func mayWriteEverywhere() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return os.Geteuid() == 0
	}
	return data[0].Effective&(1<<unix.CAP_DAC_OVERRIDE) != 0
}

// renameNew renames within a folder, and fails with [fs.ErrExist] where there is
// something of the new name, even an empty folder.
func renameNew(in *os.Root, from, to string) error {
	dir, err := in.Open(".")
	if err != nil {
		return Bare(err)
	}
	defer func() { _ = dir.Close() }()
	err = unix.Renameat2(int(dir.Fd()), from, int(dir.Fd()), to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // Not every file system can.
		return renameUnlessThere(in, from, to)
	}
	return err
}

// mkdirExactly makes a folder with this very mode. The umask is that of a thread which
// shares it with no other, and ends with the function.
func mkdirExactly(in *os.Root, name string, mode fs.FileMode) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // For ever: the thread ends with it.
		if unix.Unshare(unix.CLONE_FS) == nil {
			unix.Umask(0)
		}
		done <- in.Mkdir(name, mode.Perm())
	}()
	return <-done
}

// passOnly opens a folder that the agent may pass, but perhaps not list.
const passOnly = unix.O_PATH

// hasDefaultACL reports whether a folder gives new files an access control list. Those of
// NFSv4 cannot be seen.
func hasDefaultACL(path string) bool {
	size, err := unix.Lgetxattr(path, "system.posix_acl_default", nil)
	return err == nil && size > 0
}
