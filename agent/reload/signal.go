package reload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/smarteros/deaddrop/agent/process"
)

// PIDFile signals the process whose id a file holds.
type PIDFile struct {
	Path   string
	Signal syscall.Signal
}

func (s PIDFile) String() string {
	return fmt.Sprintf("%s to the process in %s", SignalName(s.Signal), s.Path)
}

// Do never signals process groups, process 1, the agent itself or a process that
// is younger than the file: such a one was given the id of another that has ended.
func (s PIDFile) Do(_ context.Context, change Change) error {
	pid, written, err := readPID(s.Path)
	if err != nil {
		return err
	}
	return send(pid, s.Signal, change, s.stranger(pid, written))
}

// Check tells of a file that names no process of the service, and of one that may
// not be signalled.
func (s PIDFile) Check(context.Context) error {
	pid, written, err := readPID(s.Path)
	if err != nil {
		return err
	}
	return send(pid, 0, Change{}, s.stranger(pid, written))
}

// youth is how much younger than its file a process must be to count as another
// one. Clocks of file systems differ by less.
const youth = 2 * time.Second

// stranger tells whether a process is not the one that the file was written for.
func (s PIDFile) stranger(pid int, written time.Time) func(process.Process) error {
	return func(p process.Process) error {
		switch started := time.Now().Add(-p.Age()); {
		case p.Zombie:
			return absent("pid file %s is stale: process %d has ended; is the service running?", s.Path, pid)
		case started.After(written.Add(youth)):
			return absent("pid file %s is stale: it was written %s, and process %d (%s) was started later, at %s, so it is another one; is the service running? (If the machine's clock was set in between, restart the service.)",
				s.Path, written.UTC().Format(time.RFC3339), pid, p.Name, started.UTC().Format(time.RFC3339))
		}
		return nil
	}
}

// readPID returns the first line of a file, which other programs (PostgreSQL)
// let others follow, and when it was written.
func readPID(file string) (pid int, written time.Time, err error) {
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0) // A pipe must not hold us up.
	if errors.Is(err, os.ErrNotExist) {
		return 0, written, absent("pid file %s does not exist; is the service running?", file)
	}
	if err != nil {
		return 0, written, fmt.Errorf("reading pid file: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return 0, written, fmt.Errorf("reading pid file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return 0, written, fmt.Errorf("pid file %s is not a file", file)
	}
	content, err := io.ReadAll(io.LimitReader(f, 64))
	if err != nil {
		return 0, written, fmt.Errorf("reading pid file: %w", err)
	}
	line, _, _ := strings.Cut(string(content), "\n")
	switch pid, err = strconv.Atoi(strings.TrimSpace(line)); {
	case err != nil && len(content) == 0:
		return 0, written, absent("pid file %s is empty; is the service just starting?", file)
	case err != nil:
		return 0, written, fmt.Errorf("pid file %s does not hold a process id", file)
	case pid == 1:
		return 0, written, fmt.Errorf("pid file %s holds 1, which is not signalled: every container and the machine have a process 1; where the service shares its PID namespace with the agent, name it by process = \"…\" instead of pid_file", file)
	case pid <= 0:
		return 0, written, fmt.Errorf("pid file %s holds %d, which is not a process id", file, pid)
	case pid == os.Getpid():
		return 0, written, fmt.Errorf("pid file %s holds the agent's own process id", file)
	}
	return pid, info.ModTime(), nil
}

// send sends a signal, or only looks whether it could be sent where that is 0.
// The process is held on to (by a pidfd, where the kernel has them) before
// stranger looks at it, so that it cannot become another one in between.
func send(pid int, sig syscall.Signal, change Change, stranger func(process.Process) error) error {
	held, err := os.FindProcess(pid)
	if err != nil {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	defer func() { _ = held.Release() }()
	switch p, err := process.Read(pid); {
	case errors.Is(err, os.ErrNotExist):
		if _, err := process.Read(os.Getpid()); err == nil {
			return absent("there is no process %d; %s", pid, whether())
		} // Else there is no /proc, and the kernel tells.
	case err != nil:
		return fmt.Errorf("process %d: %w", pid, err)
	default:
		if err := stranger(p); err != nil {
			return err
		}
		if sig != 0 && change.precedes(p.Age()) {
			return &Unneeded{fmt.Sprintf("process %d was started after the change", pid)}
		}
	}
	if pid == 1 && sig != 0 && !process.Handles(pid, int(sig)) {
		return fmt.Errorf("process 1 has no handler for %s, and Linux keeps signals without one from process 1; is the service still starting?", SignalName(sig))
	}
	switch err := held.Signal(sig); {
	case errors.Is(err, os.ErrProcessDone), errors.Is(err, syscall.ESRCH):
		return absent("there is no process %d; %s", pid, whether())
	case errors.Is(err, syscall.EPERM):
		return fmt.Errorf("not allowed to signal process %d: run the agent as the service's user, or give it CAP_KILL (cap_add: [KILL] in a compose file, AmbientCapabilities=CAP_KILL in a unit)", pid)
	case err != nil:
		return fmt.Errorf("signalling process %d: %w", pid, err)
	}
	return nil
}

// Process signals the process that runs a program. It is for services whose
// processes the agent sees, as in a shared PID namespace.
type Process struct {
	// Name is the program: its file's name or path, or how it calls itself; or "".
	Name string
	// CommandLine is a regular expression that the arguments, joined by blanks,
	// have to match; or "".
	CommandLine string
	Signal      syscall.Signal
}

func (s Process) String() string {
	what := strings.TrimSpace(s.Name + " " + s.CommandLine)
	return fmt.Sprintf("%s to the process %q", SignalName(s.Signal), what)
}

// Do signals the one process that fits, and of a process and its descendants the
// first. Where several fit that do not descend from each other, none is.
func (s Process) Do(_ context.Context, change Change) error {
	pid, err := s.find()
	if err != nil {
		return err
	}
	return send(pid, s.Signal, change, s.stranger)
}

// Check tells of a process that may not be signalled, and of a PID namespace that
// has no others than the agent's own.
func (s Process) Check(context.Context) error {
	pid, err := s.find()
	if err != nil {
		return err
	}
	return send(pid, 0, Change{}, s.stranger)
}

func (s Process) stranger(p process.Process) error {
	if !s.fits(p) {
		return absent("process %d has ended", p.PID)
	}
	return nil
}

func (s Process) find() (int, error) {
	all, err := process.All()
	if err != nil {
		return 0, fmt.Errorf("looking for %q: %w", cmp.Or(s.Name, s.CommandLine), err)
	}
	fitting := map[int]process.Process{}
	for _, p := range all {
		if s.fits(p) {
			fitting[p.PID] = p
		}
	}
	var first []int
	for pid, p := range fitting {
		if _, descends := fitting[p.Parent]; !descends || p.Parent == pid {
			first = append(first, pid)
		}
	}
	slices.Sort(first)
	switch what := cmp.Or(s.Name, s.CommandLine); {
	case len(first) == 1:
		return first[0], nil
	case len(first) > 1:
		return 0, fmt.Errorf("%d processes are %q (%s), and none was signalled: tell them apart by command_line = \"…\", or use a pid_file", len(first), what, few(first))
	case !process.InHostNamespace() && os.Getpid() == 1:
		return 0, fmt.Errorf("no process is %q: this container has a PID namespace of its own; share the service's: pid: \"service:NAME\" in the compose file, shareProcessNamespace: true in a pod", what)
	default:
		return 0, absent("no process is %q; %s", what, whether())
	}
}

// whether asks what may be the matter where a process is not there.
func whether() string {
	if process.InHostNamespace() {
		return "is the service running?"
	}
	return "is the service running, and in the agent's PID namespace (pid: \"service:NAME\" in the compose file)?"
}

// few lists process ids, so many as fit on a line.
func few(pids []int) string {
	var texts []string
	for i, pid := range pids {
		if i == 5 {
			texts = append(texts, "…")
			break
		}
		texts = append(texts, strconv.Itoa(pid))
	}
	return strings.Join(texts, ", ")
}

// fits never chooses the agent, what the agent is just running, or the machine's
// own process 1.
func (s Process) fits(p process.Process) bool {
	switch self := os.Getpid(); {
	case p.Zombie, len(p.Args) == 0, p.PID == self, p.Parent == self:
		return false
	case p.PID == 1 && process.InHostNamespace():
		return false
	case s.Name != "" && !isNamed(p, s.Name):
		return false
	case s.CommandLine == "":
		return true
	}
	pattern, err := regexp.Compile(s.CommandLine)
	return err == nil && pattern.MatchString(strings.Join(p.Args, " "))
}

func isNamed(p process.Process, name string) bool {
	if strings.Contains(name, "/") {
		return name == p.Exe || name == p.Args[0]
	}
	return name == path.Base(p.Exe) || name == p.Name || name == path.Base(p.Args[0])
}
