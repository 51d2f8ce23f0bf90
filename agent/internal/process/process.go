// Package process reads what Linux tells of the processes that the agent can
// see, in /proc. Elsewhere it finds none.
package process

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Process is a process as it was when it was read.
type Process struct {
	PID, Parent int
	// Name is the first 15 bytes of the program's name.
	Name string
	// Args are its arguments, the program first. A kernel thread and a zombie
	// have none.
	Args []string
	// Exe is the path of the program, or "" where it may not be read.
	Exe string
	// Zombie says that it has ended, and no one has taken note of it.
	Zombie bool

	started uint64 // ticks after the machine's start

	// users are its real and its effective user id; nil where they are not known.
	users []int
}

// RunsAs reports whether the process has a user and no other: a program with the setuid
// bit also has the one that it was started by. It is false where that is not known.
func (p Process) RunsAs(uid int) bool {
	return len(p.users) > 0 && !slices.ContainsFunc(p.users, func(id int) bool { return id != uid })
}

// User is the user that the process runs as, for messages.
func (p Process) User() string {
	switch {
	case len(p.users) == 0:
		return "user unknown"
	case p.RunsAs(p.users[0]):
		return "user " + strconv.Itoa(p.users[0])
	}
	return fmt.Sprintf("users %v", p.users)
}

// tick is what /proc counts time in, on all machines that Go runs on.
const tick = 10 * time.Millisecond

// ErrNoProc says that the system tells nothing of processes.
var ErrNoProc = errors.New("there is no /proc, where Linux tells of processes")

// Read returns a process. The error wraps [os.ErrNotExist] where there is none.
func Read(pid int) (Process, error) {
	folder := filepath.Join("/proc", strconv.Itoa(pid))
	stat, err := os.ReadFile(filepath.Join(folder, "stat"))
	if err != nil {
		return Process{}, err
	}
	p, err := parse(stat)
	if err != nil {
		return Process{}, err
	}
	p.Args = arguments(filepath.Join(folder, "cmdline"))
	exe, _ := os.Readlink(filepath.Join(folder, "exe"))
	p.Exe = strings.TrimSuffix(exe, " (deleted)")
	if status, err := os.ReadFile(filepath.Join(folder, "status")); err == nil {
		p.users = parseUsers(status)
	}
	return p, nil
}

// Every user can start processes with megabytes of arguments, which the agent must not keep.
const (
	maxArgBytes = 32 << 10
	maxArgs     = 1000
)

// arguments reads the beginning of a command line.
func arguments(path string) []string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	line, err := io.ReadAll(io.LimitReader(f, maxArgBytes))
	if err != nil || len(line) == 0 {
		return nil
	}
	return strings.SplitN(strings.TrimRight(string(line), "\x00"), "\x00", maxArgs)
}

// parseUsers reads a line of /proc/PID/status such as "Uid:	0	0	0	0": the real and
// the effective user id come first. It returns nil where there is none.
func parseUsers(status []byte) []int {
	fields := strings.Fields(string(statusLine(status, "Uid")))
	if len(fields) < 2 {
		return nil
	}
	var users []int
	for _, field := range fields[:2] {
		id, err := strconv.Atoi(field)
		if err != nil {
			return nil
		}
		users = append(users, id)
	}
	return users
}

// statusLine returns what follows a name in /proc/PID/status. A process chooses its own
// name, in the first line, but that shows no line break: see proc_pid_status(5).
func statusLine(status []byte, name string) []byte {
	_, rest, _ := bytes.Cut(status, []byte("\n"+name+":"))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	return bytes.TrimSpace(line)
}

// parse reads a line of /proc/PID/stat: see proc(5). The name stands between the
// first parenthesis and the last, and may hold anything.
func parse(stat []byte) (Process, error) {
	open, shut := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || shut < open {
		return Process{}, errors.New("/proc: this is not the state of a process")
	}
	fields := strings.Fields(string(stat[shut+1:]))
	const state, parent, started = 0, 1, 19
	if len(fields) <= started {
		return Process{}, errors.New("/proc: the state of a process is cut short")
	}
	p := Process{Name: string(stat[open+1 : shut]), Zombie: fields[state] == "Z" || fields[state] == "X"}
	var errs [3]error
	p.PID, errs[0] = strconv.Atoi(strings.TrimSpace(string(stat[:open])))
	p.Parent, errs[1] = strconv.Atoi(fields[parent])
	p.started, errs[2] = strconv.ParseUint(fields[started], 10, 63)
	if err := errors.Join(errs[:]...); err != nil {
		return Process{}, fmt.Errorf("/proc: the state of a process: %w", err)
	}
	return p, nil
}

// Find returns the processes of the agent's PID namespace that are wanted. It keeps no
// others, of which there may be any number, with long arguments.
func Find(wanted func(Process) bool) ([]Process, error) {
	folder, err := os.Open("/proc")
	if err != nil {
		return nil, ErrNoProc
	}
	defer func() { _ = folder.Close() }()
	names, err := folder.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	var found []Process
	seen := false
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if p, err := Read(pid); err == nil { // Else it has gone meanwhile.
			seen = true
			if wanted(p) {
				found = append(found, p)
			}
		}
	}
	if !seen {
		return nil, ErrNoProc
	}
	return found, nil
}

// Age is how long the process has been there, to a hundredth of a second. It
// counts the time that the machine was suspended.
func (p Process) Age() time.Duration {
	return max(0, sinceBoot()-time.Duration(p.started)*tick)
}

// InHostNamespace tells whether the agent sees all processes of the machine,
// rather than those of a container.
func InHostNamespace() bool {
	space, err := os.Readlink("/proc/self/ns/pid")
	return err == nil && space == "pid:[4026531836]" // PROC_PID_INIT_INO of Linux.
}

// Handles tells whether a process has a handler for a signal, by number. It is
// true where that cannot be known.
func Handles(pid, signal int) bool {
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return true
	}
	caught, err := strconv.ParseUint(string(statusLine(status, "SigCgt")), 16, 64)
	return err != nil || signal < 1 || signal > 64 || caught&(1<<(signal-1)) != 0
}
