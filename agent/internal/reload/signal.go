package reload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/process"
	"github.com/smarteros/deaddrop/agent/internal/signals"
	"github.com/smarteros/deaddrop/render/drop"
	"github.com/smarteros/deaddrop/render/safefile"
)

// PIDFile signals the process whose id a file holds. Without an expected user the owner of
// the file decides which process it may name: see [pidEntry.mayName].
type PIDFile config.PIDFile

func (s PIDFile) String() string { return config.PIDFile(s).String() }

// Do signals the process. It refuses process groups, process 1, the agent itself, a process
// that is younger than the file (the id has belonged to one that has ended), and a process
// of another user than could have written the file.
func (s PIDFile) Do(_ context.Context, change Change) error { return s.send(s.Signal, change) }

// Check tells of a file that names no process of the service, and of one that may
// not be signalled.
func (s PIDFile) Check(context.Context) error { return s.send(0, Change{}) }

func (s PIDFile) send(sig syscall.Signal, change Change) error {
	// An unknown user is worth an error before the service is there.
	isExpected, err := runsAs(s.ExpectUser)
	if err != nil {
		return err
	}
	f, err := readPID(s.Path)
	if err != nil {
		return err
	}
	return send(f.pid, sig, change, func(p process.Process) error {
		switch err := f.isStale(p); {
		case err != nil:
			return err
		case s.ExpectUser == "":
			return f.mayName(p)
		case !isExpected(p):
			return fmt.Errorf("pid file %s names process %d (%s), which runs as %s, not as expect_user = %q", s.Path, p.PID, p.Name, p.User(), s.ExpectUser)
		}
		return nil
	})
}

// runsAs returns what reports whether a process runs as the expected user, by name or id.
// Where that is "", every process does.
func runsAs(expectUser string) (func(process.Process) bool, error) {
	if expectUser == "" {
		return func(process.Process) bool { return true }, nil
	}
	uid, err := drop.UserID(expectUser)
	if err != nil {
		return nil, fmt.Errorf("expect_user: %w", err)
	}
	return func(p process.Process) bool { return p.RunsAs(uid) }, nil
}

// youth is how much younger than its file a process must be to count as another
// one. Clocks of file systems differ by less.
const youth = 2 * time.Second

// isStale returns an error for a process that is not the one that the file was written for.
func (f pidEntry) isStale(p process.Process) error {
	switch started := time.Now().Add(-p.Age()); {
	case p.Zombie:
		return absent("pid file %s is stale: process %d has ended; is the service running?", f.path, f.pid)
	case started.After(f.written.Add(youth)):
		return absent("pid file %s is stale: it was written %s, and process %d (%s) was started later, at %s, so it is another one; is the service running? (If the machine's clock was set in between, restart the service.)",
			f.path, f.written.UTC().Format(time.RFC3339), f.pid, p.Name, started.UTC().Format(time.RFC3339))
	}
	return nil
}

// pidEntry is a pid file as it was read.
type pidEntry struct {
	path    string
	pid     int
	written time.Time
	// owners are those of the file, and of each link that led to it.
	owners []int
	mode   fs.FileMode
}

// mayName returns an error unless whoever could have written the file may signal the
// process himself. Else a user could have root signal the process of someone else, by a
// file or link of his own. Only root and the agent's user may name any process; nobody
// else can make a file of theirs (fs.protected_hardlinks keeps others from giving one
// that exists a second name).
func (f pidEntry) mayName(p process.Process) error {
	trusted := true
	for _, owner := range f.owners {
		if owner == 0 || owner == os.Geteuid() {
			continue
		}
		trusted = false
		if !p.RunsAs(owner) {
			return fmt.Errorf("pid file %s belongs to user %d, but process %d (%s) runs as %s; let the service or root write it, or set expect_user to the user of the service's process", f.path, owner, f.pid, p.Name, p.User())
		}
	}
	if trusted && f.mode&0o002 != 0 {
		return fmt.Errorf("pid file %s has mode %04o, so any user may write it; chmod o-w it, or set expect_user to the user of the service's process", f.path, f.mode)
	}
	return nil
}

// mostPID is more than the first line of a pid file takes.
const mostPID = 64

// readPID returns the first line of a file, which other programs (PostgreSQL)
// let others follow, and who could have written it when.
func readPID(path string) (pidEntry, error) {
	file, chain, err := openChain(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return pidEntry{}, absent("pid file %s does not exist; is the service running?", path)
	case errors.Is(err, safefile.ErrNotRegular):
		return pidEntry{}, fmt.Errorf("pid file %s is not a file", path)
	case err != nil:
		return pidEntry{}, fmt.Errorf("reading pid file: %w", err)
	}
	defer func() { _ = file.Close() }()
	// Reading at an offset never waits, as reading a link to /proc/kmsg would.
	content, err := io.ReadAll(io.NewSectionReader(file, 0, mostPID))
	if err != nil {
		return pidEntry{}, fmt.Errorf("reading pid file: %w", err)
	}
	info := chain[len(chain)-1]
	f := pidEntry{path: path, written: info.ModTime(), mode: info.Mode().Perm()}
	for _, each := range chain {
		f.owners = append(f.owners, int(each.Sys().(*syscall.Stat_t).Uid))
	}
	line, _, _ := strings.Cut(string(content), "\n")
	switch f.pid, err = strconv.Atoi(strings.TrimSpace(line)); {
	case err != nil && len(content) == 0:
		return f, absent("pid file %s is empty; is the service just starting?", path)
	case err != nil:
		return f, fmt.Errorf("pid file %s does not hold a process id", path)
	case f.pid == 1:
		return f, fmt.Errorf("pid file %s holds 1, which is not signalled: every container and the machine have a process 1; where the service shares its PID namespace with the agent, name it by process = \"…\" instead of pid_file", path)
	case f.pid <= 0:
		return f, fmt.Errorf("pid file %s holds %d, which is not a process id", path, f.pid)
	case f.pid == os.Getpid():
		return f, fmt.Errorf("pid file %s holds the agent's own process id", path)
	}
	return f, nil
}

// send sends a signal, or only looks whether it could be sent where that is 0.
// The process is held on to (by a pidfd, where the kernel has them) before
// verify looks at it, so that it cannot become another one in between.
func send(pid int, sig syscall.Signal, change Change, verify func(process.Process) error) error {
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
		if err := verify(process.Process{PID: pid}); err != nil {
			return err
		}
	case err != nil:
		return fmt.Errorf("process %d: %w", pid, err)
	default:
		if err := verify(p); err != nil {
			return err
		}
		if sig != 0 && change.precedes(p.Age()) {
			return &Unneeded{fmt.Sprintf("process %d was started after the change", pid)}
		}
	}
	if pid == 1 && sig != 0 && !process.Handles(pid, int(sig)) {
		return fmt.Errorf("process 1 has no handler for %s, and Linux keeps signals without one from process 1; is the service still starting?", signals.Name(sig))
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
type Process config.Process

func (s Process) String() string { return config.Process(s).String() }

// Do signals the one process that fits, and of a process and its descendants the
// first. Where several fit that do not descend from each other, none is.
func (s Process) Do(_ context.Context, change Change) error { return s.send(s.Signal, change) }

// Check tells of a process that may not be signalled, and of a PID namespace that
// has no others than the agent's own.
func (s Process) Check(context.Context) error { return s.send(0, Change{}) }

func (s Process) send(sig syscall.Signal, change Change) error {
	fits, err := s.matcher()
	if err != nil {
		return err
	}
	pid, err := s.find(fits)
	if err != nil {
		return err
	}
	return send(pid, sig, change, func(p process.Process) error {
		if !fits(p) {
			return absent("process %d has ended", p.PID)
		}
		return nil
	})
}

func (s Process) find(fits func(process.Process) bool) (int, error) {
	all, err := process.Find(fits)
	if err != nil {
		return 0, fmt.Errorf("looking for %q: %w", cmp.Or(s.Name, s.CommandLine), err)
	}
	fitting := map[int]process.Process{}
	for _, p := range all {
		fitting[p.PID] = p
	}
	var first []int
	users := map[string]bool{}
	for pid, p := range fitting {
		if _, descends := fitting[p.Parent]; !descends || p.Parent == pid {
			first = append(first, pid)
			users[p.User()] = true
		}
	}
	slices.Sort(first)
	switch what := cmp.Or(s.Name, s.CommandLine); {
	case len(first) == 1:
		return first[0], nil
	case len(users) > 1:
		return 0, fmt.Errorf("%d processes are %q (%s), of several users, and none was signalled: say by expect_user = \"…\" which user's it is", len(first), what, few(first))
	case len(first) > 1:
		return 0, fmt.Errorf("%d processes are %q (%s), and none was signalled: tell them apart by command_line = \"…\", or use a pid_file", len(first), what, few(first))
	case !process.InHostNamespace() && os.Getpid() == 1:
		return 0, fmt.Errorf("no process is %q: this container has a PID namespace of its own; share the service's: pid: \"service:NAME\" in the compose file, shareProcessNamespace: true in a pod", what)
	case s.ExpectUser != "":
		return 0, absent("no process of user %s is %q; %s", s.ExpectUser, what, whether())
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

// matcher returns what reports whether a process is the service's. It is never the agent,
// what the agent is just running, or the machine's own process 1.
func (s Process) matcher() (func(process.Process) bool, error) {
	pattern, err := regexp.Compile(s.CommandLine)
	if err != nil {
		return nil, fmt.Errorf("command_line: %w", err)
	}
	isExpected, err := runsAs(s.ExpectUser)
	if err != nil {
		return nil, err
	}
	self, inHost := os.Getpid(), process.InHostNamespace()
	return func(p process.Process) bool {
		switch {
		case p.Zombie, len(p.Args) == 0, p.PID == self, p.Parent == self:
			return false
		case p.PID == 1 && inHost:
			return false
		case !isExpected(p):
			return false
		case s.Name != "" && !isNamed(p, s.Name):
			return false
		}
		return s.CommandLine == "" || pattern.MatchString(strings.Join(p.Args, " "))
	}, nil
}

func isNamed(p process.Process, name string) bool {
	if strings.Contains(name, "/") {
		return name == p.Exe || name == p.Args[0]
	}
	return name == path.Base(p.Exe) || name == p.Name || name == path.Base(p.Args[0])
}
