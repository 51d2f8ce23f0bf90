package doctor

import (
	"os"

	"golang.org/x/sys/unix"
)

// inMemory is said of a folder that is not on a disk.
const inMemory = ", and in memory (tmpfs)"

// mayChown tells whether this process may give files away. Root in a container may
// lack the capability.
func mayChown() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return os.Geteuid() == 0
	}
	return data[0].Effective&(1<<unix.CAP_CHOWN) != 0
}
