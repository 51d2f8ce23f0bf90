package footprint

import (
	"bufio"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// unmapProgram lets go of the pages of the program's file. Where it cannot, they stay.
func unmapProgram() {
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer func() { _ = maps.Close() }()
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		if start, end, ok := readOnly(lines.Text(), program); ok {
			// What is never written to is in the file still.
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, start, end-start, unix.MADV_DONTNEED)
		}
	}
}

// readOnly reads a line of /proc/PID/maps, and tells whether it is a part of the
// program that cannot be written to: its code, or its constants. A line is like
// "00400000-00a1b000 r-xp 00000000 00:1b 1234    /usr/bin/deaddrop".
func readOnly(line, program string) (start, end uintptr, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 6 || !strings.HasSuffix(line, " "+program) || fields[1][0] != 'r' || fields[1][1] != '-' {
		return 0, 0, false
	}
	from, to, _ := strings.Cut(fields[0], "-")
	first, err := strconv.ParseUint(from, 16, 64)
	if err != nil {
		return 0, 0, false
	}
	last, err := strconv.ParseUint(to, 16, 64)
	return uintptr(first), uintptr(last), err == nil
}
