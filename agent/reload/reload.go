// Package reload makes services pick up what was dropped for them.
package reload

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smarteros/deaddrop/render"
)

// Action is one way to make a service pick up a change. Two actions whose
// String is the same are the same action: a batch of changes runs it once.
type Action interface {
	Do(ctx context.Context) error
	String() string
}

// Signal sends a signal to the process whose id a file holds.
type Signal struct {
	PIDFile string
	Signal  syscall.Signal
}

func (s Signal) String() string {
	return fmt.Sprintf("%s to the process in %s", unix.SignalName(s.Signal), s.PIDFile)
}

// Do sends the signal, or fails without having sent any. It never signals
// process groups, process 1 or the agent itself.
func (s Signal) Do(context.Context) error {
	pid, err := readPID(s.PIDFile)
	if err != nil {
		return err
	}
	process, err := os.FindProcess(pid) // by pidfd, where the kernel has it
	if err != nil {
		return fmt.Errorf("process %d of pid file %s: %w", pid, s.PIDFile, err)
	}
	defer func() { _ = process.Release() }()
	switch err := process.Signal(s.Signal); {
	case errors.Is(err, os.ErrProcessDone), errors.Is(err, syscall.ESRCH):
		return fmt.Errorf("pid file %s is stale: there is no process %d; is the service running?", s.PIDFile, pid)
	case errors.Is(err, syscall.EPERM):
		return fmt.Errorf("not allowed to signal process %d of pid file %s: run the agent as the service's user, or give it CAP_KILL", pid, s.PIDFile)
	case err != nil:
		return fmt.Errorf("signalling process %d of pid file %s: %w", pid, s.PIDFile, err)
	}
	return nil
}

func readPID(file string) (int, error) {
	content, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("pid file %s does not exist; is the service running?", file)
	}
	if err != nil {
		return 0, fmt.Errorf("reading pid file: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(content)))
	switch {
	case err != nil:
		return 0, fmt.Errorf("pid file %s does not hold a process id", file)
	case pid <= 1:
		return 0, fmt.Errorf("pid file %s holds %d, which is not signalled; it must name the service's own process", file, pid)
	case pid == os.Getpid():
		return 0, fmt.Errorf("pid file %s holds the agent's own process id", file)
	}
	return pid, nil
}

// ParseSignal reads a signal by name ("HUP", "SIGHUP", in any case) or number.
func ParseSignal(s string) (syscall.Signal, error) {
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	if n, err := strconv.Atoi(s); err == nil && unix.SignalName(syscall.Signal(n)) != "" {
		return syscall.Signal(n), nil
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

// Command runs a program, without a shell.
type Command struct {
	// Args are the program and its arguments; at least one.
	Args []string
	// Timeout ends the program and its children by SIGKILL; 0 is none.
	Timeout time.Duration
}

func (c Command) String() string { return fmt.Sprintf("command %q", c.Args) }

// Do runs the program and waits for it. Its output is thrown away, since it
// may hold secrets. It does not get the agent's own credentials.
func (c Command) Do(ctx context.Context) error {
	_, err := c.Output(ctx)
	if err != nil {
		return fmt.Errorf("%w (its output is not shown, as it may hold secrets)", err)
	}
	return nil
}

// maxOutput is how many bytes of a program's output are kept.
const maxOutput = 4 << 10

// Output is like [Command.Do], and returns the beginning of what the program has
// written. It may hold secrets.
func (c Command) Output(ctx context.Context) ([]byte, error) {
	limited := ctx
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, c.Timeout)
		defer cancel()
	}
	var out beginning
	cmd := exec.CommandContext(limited, c.Args[0], c.Args[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr = Environ(), &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	switch {
	case err == nil:
		return out.kept, nil
	case errors.Is(limited.Err(), context.DeadlineExceeded) && ctx.Err() == nil:
		return out.kept, fmt.Errorf("%s was ended after its timeout of %v", c, c.Timeout)
	default:
		return out.kept, fmt.Errorf("%s: %w", c, err)
	}
}

// beginning keeps what is written to it first, up to maxOutput.
type beginning struct{ kept []byte }

func (b *beginning) Write(p []byte) (int, error) {
	b.kept = append(b.kept, p[:min(len(p), maxOutput-len(b.kept))]...)
	return len(p), nil
}

// Environ is the environment for programs that the agent runs: its own, without
// its credentials.
func Environ() []string { return slices.DeleteFunc(os.Environ(), isCredential) }

func isCredential(variable string) bool {
	return strings.HasPrefix(variable, "VAULT_TOKEN=") || strings.HasPrefix(variable, "VAULT_SECRET_ID=")
}
