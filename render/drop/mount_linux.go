package drop

import (
	"os"

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
