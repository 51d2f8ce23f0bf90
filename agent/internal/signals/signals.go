// Package signals converts between signals and their names.
package signals

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/smarteros/deaddrop/render"
)

// The first and the last real-time signal. They have no names of their own: the C library
// and kill -l count them from these two.
const rtMin, rtMax = 34, 64

// Parse reads a signal by name ("HUP", "SIGHUP", "RTMIN+3", in any case) or by number. Its
// error quotes the text, and suggests the nearest name.
func Parse(s string) (syscall.Signal, error) {
	name := "SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	if n, err := strconv.Atoi(s); err == nil && (unix.SignalName(syscall.Signal(n)) != "" || n >= rtMin && n <= rtMax) {
		return syscall.Signal(n), nil
	}
	for base, n := range map[string]int{"SIGRTMIN": rtMin, "SIGRTMAX": rtMax} {
		offset, isRT := strings.CutPrefix(name, base)
		more, err := strconv.Atoi(cmp.Or(offset, "0"))
		if isRT && err == nil && n+more >= rtMin && n+more <= rtMax && (offset == "" || strings.ContainsAny(offset[:1], "+-")) {
			return syscall.Signal(n + more), nil
		}
	}
	var names []string
	for n := syscall.Signal(1); n < 32; n++ {
		names = append(names, unix.SignalName(n))
	}
	if near := render.Nearest(name, names); near != "" {
		return 0, fmt.Errorf("there is no signal %q; did you mean %q?", s, near)
	}
	return 0, fmt.Errorf("there is no signal %q; examples are \"HUP\", \"USR1\", \"TERM\"", s)
}

// Name returns a name of the signal that [Parse] reads: "SIGHUP", "SIGRTMIN+3".
func Name(s syscall.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return fmt.Sprintf("SIGRTMIN+%d", int(s)-rtMin)
}
