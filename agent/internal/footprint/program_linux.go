package footprint

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// unmapProgram lets go of the pages of the program's file. Where it cannot, they stay.
func unmapProgram() {
	maps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer func() { _ = maps.Close() }()
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	for _, part := range untouched(maps, program) {
		// What was never written to is in the file still.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, part.start, part.end-part.start, unix.MADV_DONTNEED)
	}
}

// mapping is a part of the memory.
type mapping struct{ start, end uintptr }

// untouched reads /proc/PID/smaps, and returns the parts of the program that cannot be
// written to and never were. That they cannot be now is not enough: of a program that
// is made to be loaded anywhere (-buildmode=pie), constants that hold addresses were
// filled in as it started, and only then protected.
func untouched(smaps io.Reader, program string) []mapping {
	var parts []mapping
	var part mapping
	mayGo := false
	for lines := bufio.NewScanner(smaps); lines.Scan(); {
		line := lines.Text()
		switch fields := strings.Fields(line); {
		case len(fields) < 2:
		case !strings.HasSuffix(fields[0], ":"): // the first line of another part
			part.start, part.end, mayGo = readOnly(line, program)
		case fields[0] == "Anonymous:": // what is no longer as in the file
			mayGo = mayGo && fields[1] == "0"
		case fields[0] == "Swap:" && mayGo && fields[1] == "0": // the same, swapped out
			parts = append(parts, part)
		}
	}
	return parts
}

// readOnly reads the first line on a part, and tells whether it is one of the program
// that cannot be written to: its code, or its constants. A line is like
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
