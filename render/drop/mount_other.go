//go:build !linux

package drop

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// isMount is not known here.
func (d *folder) isMount(string) bool { return false }

// onDisk is not known here.
func onDisk(string) bool { return false }

// mountOf is not known here.
func mountOf(string) (at, kind string) { return "", "" }

// memory is a file that is in no folder.
func memory([]byte) (*os.File, error) {
	return nil, errors.New("no file can be made in its folder, and none in memory on this system")
}

// mayWriteEverywhere reports whether this process may write to folders of others.
func mayWriteEverywhere() bool { return os.Geteuid() == 0 }

func renameNew(in *os.Root, from, to string) error { return renameUnlessThere(in, from, to) }

// mkdirExactly makes a folder, from whose mode the umask is taken.
func mkdirExactly(in *os.Root, name string, mode fs.FileMode) error {
	return in.Mkdir(name, mode.Perm())
}

// passOnly opens a folder, which the agent has to be allowed to list here.
const passOnly = unix.O_RDONLY

// hasDefaultACL is not known here.
func hasDefaultACL(string) bool { return false }
