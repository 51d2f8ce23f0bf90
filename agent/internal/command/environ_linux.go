package command

import (
	"os"

	"golang.org/x/sys/unix"
)

// limits are how many bytes Linux takes of one variable or argument, with the NUL at
// its end, and of all of them: see MAX_ARG_STRLEN and bprm_stack_limits in fs/exec.c.
func limits() (one, all int) {
	one = 32 * os.Getpagesize()
	const least, most = 128 << 10, 6 << 20
	all = most
	var stack unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_STACK, &stack) == nil {
		all = int(max(least, min(most, stack.Cur/4)))
	}
	return one, all
}
