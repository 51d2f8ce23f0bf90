// Package supervise runs a command with secrets in its environment, and starts
// it anew when they change.
package supervise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/smarteros/deaddrop/agent/reload"
)

// grace is how long a command may take to end after its stop signal; it is then
// killed, and its children with it. 30 s is what Vault Agent gives.
const grace = 30 * time.Second

// Command says what to run.
type Command struct {
	// Args are the program and its arguments; at least one.
	Args []string
	// StopSignal asks the program to end.
	StopSignal syscall.Signal
	// Restart starts the program anew when its environment changes.
	Restart bool
}

// ExitError is the end of a command that has ended by itself, and not well. A
// signal counts as 128 and its number, as shells have it.
type ExitError struct{ Code int }

func (e *ExitError) Error() string {
	return fmt.Sprintf("the command has ended with exit code %d", e.Code)
}

// Process is an actor that runs one command: see [Process.Run].
type Process struct {
	command Command
	log     *slog.Logger
	environ chan []string
	grace   time.Duration
}

// New returns a process that waits for its environment.
func New(c Command, log *slog.Logger) *Process {
	return &Process{command: c, log: log, environ: make(chan []string, 1), grace: grace}
}

// SetEnviron hands variables on, in the form NAME=value, that come on top of
// the agent's own environment. The command starts with the first of them.
func (p *Process) SetEnviron(pairs []string) {
	for {
		select {
		case p.environ <- pairs:
			return
		case <-p.environ: // Nobody has taken the ones before.
		}
	}
}

// Run runs the command until it ends by itself, or until the context ends: then
// it stops the command first. It returns nil or an [*ExitError], or why the
// command cannot be run.
func (p *Process) Run(ctx context.Context) error {
	var environ []string
	select {
	case <-ctx.Done():
		return nil
	case environ = <-p.environ:
	}
	for {
		running, err := p.start(environ)
		if err != nil {
			return err
		}
		next, err := p.attend(ctx, running)
		if next == nil {
			return err
		}
		environ = next
	}
}

// running is a command that was started.
type running struct {
	*exec.Cmd
	ended chan struct{}
}

func (p *Process) start(environ []string) (*running, error) {
	args := p.command.Args
	r := &running{exec.Command(args[0], args[1:]...), make(chan struct{})}
	r.Stdin, r.Stdout, r.Stderr = os.Stdin, os.Stdout, os.Stderr
	r.Env = with(reload.Environ(), environ)
	r.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := r.Start(); err != nil {
		return nil, fmt.Errorf("starting the command %q: %w", args, err)
	}
	p.log.Info("started the command", "command", args[0], "pid", r.Process.Pid)
	go func() {
		defer close(r.ended)
		_ = r.Wait() // What it came to is in ProcessState.
	}()
	return r, nil
}

// with puts variables in place of others of the same name.
func with(environ, more []string) []string {
	taken := map[string]bool{}
	for _, pair := range more {
		name, _, _ := strings.Cut(pair, "=")
		taken[name] = true
	}
	rest := slices.DeleteFunc(environ, func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		return taken[name]
	})
	return append(rest, more...)
}

// attend waits for the end of a command. It returns the environment that the
// next one is to have, or nil when there is to be none.
func (p *Process) attend(ctx context.Context, r *running) ([]string, error) {
	for {
		select {
		case <-r.ended:
			return nil, p.exit(r, false)
		case <-ctx.Done():
			p.stop(r)
			return nil, p.exit(r, true)
		case environ := <-p.environ:
			if !p.command.Restart {
				p.log.Info("secrets of the command have changed; it goes on with the old ones, as restart_on_secret_changes says")
				continue
			}
			p.log.Info("secrets of the command have changed; starting it anew")
			p.stop(r)
			return environ, nil
		}
	}
}

// stop asks a command to end, and kills it where it does not.
func (p *Process) stop(r *running) {
	_ = r.Process.Signal(p.command.StopSignal)
	select {
	case <-r.ended:
		return
	case <-time.After(p.grace):
	}
	p.log.Warn("the command has not ended; killing it", "after", p.grace.String())
	_ = syscall.Kill(-r.Process.Pid, syscall.SIGKILL)
	<-r.ended
}

// exit tells what a command came to. One that was stopped may have ended by the
// signal that asked it to.
func (p *Process) exit(r *running, stopped bool) error {
	p.log.Info("the command has ended", "state", r.ProcessState.String())
	status, ok := r.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case !ok:
		return errors.New("the command has ended in a way that is not known")
	case status.Signaled() && stopped:
		return nil
	case status.Signaled():
		return &ExitError{128 + int(status.Signal())}
	case status.ExitStatus() != 0:
		return &ExitError{status.ExitStatus()}
	}
	return nil
}
