package harden

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// LockMemory keeps the memory of the process out of swap from now on. A page counts
// when it is first used, not when it is reserved: Go reserves much more than it uses.
//
// It fails where memory may be locked up to a limit only: a process that comes to it
// later would end. Programs that the process starts do not inherit it.
func LockMemory() error {
	may, err := mayLock()
	if err != nil {
		return fmt.Errorf("locking memory: %w", err)
	}
	if !may {
		return errors.New("locking memory needs no limit for it, or the capability IPC_LOCK: " +
			"LimitMEMLOCK=infinity in a systemd unit; ulimits: { memlock: -1 } in a compose file, or --ulimit memlock=-1")
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return fmt.Errorf("locking memory: %w", err)
	}
	return nil
}

// mayLock tells whether there is no limit.
func mayLock() (bool, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return false, err
	}
	if limit.Cur == unix.RLIM_INFINITY {
		return true, nil
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData // of 32 capabilities each
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return false, err
	}
	return sets[0].Effective&(1<<unix.CAP_IPC_LOCK) != 0, nil
}
