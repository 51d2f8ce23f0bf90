package status

import (
	"bytes"
	"os"
	"strconv"
	"time"
)

// Process is what the agent takes of the machine.
type Process struct {
	Started       time.Time
	ResidentBytes int64 // 0 where the system does not tell
	CPU           time.Duration
	OpenFiles     int
}

// tick is the unit of times in /proc: Linux counts in hundredths of seconds for
// programs, whatever the kernel does.
const tick = 10 * time.Millisecond

// thisProcess looks at the process that it is part of.
func thisProcess(started time.Time) Process {
	p := Process{Started: started}
	if statm, err := os.ReadFile("/proc/self/statm"); err == nil {
		p.ResidentBytes = field(statm, 1) * int64(os.Getpagesize())
	}
	if stat, err := os.ReadFile("/proc/self/stat"); err == nil {
		_, rest, _ := bytes.Cut(stat, []byte(") "))
		p.CPU = time.Duration(field(rest, 11)+field(rest, 12)) * tick
	}
	if files, err := os.ReadDir("/proc/self/fd"); err == nil {
		p.OpenFiles = len(files) - 1 // The folder itself is one.
	}
	return p
}

func field(line []byte, i int) int64 {
	fields := bytes.Fields(line)
	if i >= len(fields) {
		return 0
	}
	n, _ := strconv.ParseInt(string(fields[i]), 10, 64)
	return n
}
