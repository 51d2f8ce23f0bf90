package process

import (
	"time"

	"golang.org/x/sys/unix"
)

// sinceBoot is the clock that /proc gives starts of processes in.
func sinceBoot() time.Duration { return read(unix.CLOCK_BOOTTIME) }

// Uptime is how long the machine has been running, without the time that it was
// suspended: systemd's "monotonic" time.
func Uptime() time.Duration { return read(unix.CLOCK_MONOTONIC) }

func read(clock int32) time.Duration {
	var now unix.Timespec
	_ = unix.ClockGettime(clock, &now) // Both have been there since Linux 2.6.39.
	return time.Duration(now.Nano())
}
