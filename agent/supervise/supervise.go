// Package supervise runs a command with secrets in its environment, and starts
// it anew when they change.
package supervise

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/command"
	"github.com/smarteros/deaddrop/agent/internal/reload"
)

// ExitError is the end of a command that has ended by itself, and not well. A
// signal counts as 128 and its number, as shells have it.
type ExitError struct{ Code int }

func (e *ExitError) Error() string {
	return fmt.Sprintf("the command has ended with exit code %d", e.Code)
}

// Process is an actor that runs one command: see [Process.Run].
type Process struct {
	command config.Exec
	log     *slog.Logger
	orders  chan order
	ended   chan struct{}

	mu      sync.Mutex
	environ []string      // for the next start
	whole   chan struct{} // closed when there is an environment
}

// order asks the actor to do something to the command.
type order struct {
	signal syscall.Signal // 0 is a restart
	change reload.Change
	done   chan error
}

// New returns a process that waits for its environment.
func New(c config.Exec, log *slog.Logger) *Process {
	return &Process{command: c, log: log, orders: make(chan order), ended: make(chan struct{}), whole: make(chan struct{})}
}

// Name is the program.
func (p *Process) Name() string { return p.command.Args[0] }

// HasEnviron reports whether there is an environment, with which the command starts.
func (p *Process) HasEnviron() bool {
	select {
	case <-p.whole:
		return true
	default:
		return false
	}
}

// SetEnviron hands variables on, in the form NAME=value, that come on top of
// the agent's own environment. The command starts with the first of them; for
// later ones that are not the same SetEnviron returns what is to be done to it.
func (p *Process) SetEnviron(pairs []string) []reload.Action {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := p.environ == nil
	if !first && slices.Equal(pairs, p.environ) {
		return nil // It is the same after a new login, too.
	}
	p.environ = append([]string{}, pairs...)
	if first {
		close(p.whole)
		return nil
	}
	if len(p.Renewal()) == 0 {
		p.log.Info("secrets of the command have changed; it goes on with the old ones, as restart_on_secret_changes says")
	}
	return p.Renewal()
}

// Renewal is what is done to the command when its environment changes.
func (p *Process) Renewal() []reload.Action {
	switch {
	case p.command.ReloadSignal != 0:
		return []reload.Action{Reload{Of: p, Signal: p.command.ReloadSignal}}
	case p.command.Restart:
		return []reload.Action{Reload{Of: p}}
	}
	return nil
}

// Run runs the command until it ends by itself, or until the context ends: then
// it stops the command first. It returns nil or an [*ExitError], or why the
// command cannot be run. Signals that the agent has no use for itself are handed
// on to the command.
func (p *Process) Run(ctx context.Context) error {
	defer close(p.ended)
	if !p.await(ctx) {
		return nil
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, forwarded()...)
	defer signal.Stop(signals)
	for {
		running, err := p.start()
		if err != nil {
			return err
		}
		again, err := p.attend(ctx, running, signals)
		if !again {
			return err
		}
	}
}

// await waits for the environment. It returns false when the context ends first.
func (p *Process) await(ctx context.Context) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-p.whole:
			return true
		case order := <-p.orders:
			order.done <- &reload.Unneeded{Why: "the command was not started yet"}
		}
	}
}

// forwarded are the signals that are handed on: neither those that the agent acts
// on (HUP, USR1, INT, TERM), nor those that tell of itself.
func forwarded() []os.Signal {
	all := []os.Signal{syscall.SIGQUIT, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGCONT, syscall.SIGALRM, syscall.SIGIO}
	for n := syscall.Signal(34); n <= 64; n++ { // Those of real time.
		all = append(all, n)
	}
	return all
}

// running is a command that was started.
type running struct {
	*exec.Cmd
	ended   chan struct{}
	started time.Time
}

// prepare makes a command ready with the environment of now, and finds out what would
// keep it from being started.
func (p *Process) prepare() (*exec.Cmd, error) {
	p.mu.Lock()
	environ := p.environ
	p.mu.Unlock()
	args := p.command.Args
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = with(command.Environ(), environ)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	_, err := exec.LookPath(args[0])
	if err == nil {
		err = cmp.Or(cmd.Err, p.CheckEnviron(environ))
	}
	if err != nil {
		return nil, fmt.Errorf("starting the command %s: %w", args[0], err)
	}
	return cmd, nil
}

// CheckEnviron returns a [*command.TooLargeError] where the command cannot be started
// with these variables, of the form NAME=value, on top of the agent's own.
func (p *Process) CheckEnviron(pairs []string) error {
	return command.CheckEnviron(p.command.Args, with(command.Environ(), pairs))
}

func (p *Process) start() (*running, error) {
	started := time.Now() // before the environment is taken: later changes must count
	cmd, err := p.prepare()
	if err != nil {
		return nil, err
	}
	args := p.command.Args
	r := &running{cmd, make(chan struct{}), started}
	if err := r.Start(); err != nil {
		return nil, fmt.Errorf("starting the command %s: %w", args[0], err)
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

// attend waits for the end of a command. It tells whether another is to be
// started.
func (p *Process) attend(ctx context.Context, r *running, signals <-chan os.Signal) (again bool, err error) {
	for {
		select {
		case <-r.ended:
			return false, p.exit(r, false)
		case <-ctx.Done():
			p.stop(r)
			return false, p.exit(r, true)
		case sig := <-signals:
			_ = r.Process.Signal(sig) // It may have ended just now.
		case order := <-p.orders:
			switch {
			case !order.change.At.IsZero() && order.change.At.Before(r.started):
				order.done <- &reload.Unneeded{Why: "the command was started after the change"}
			case order.signal != 0:
				order.done <- r.Process.Signal(order.signal)
			default:
				if _, err := p.prepare(); err != nil {
					order.done <- fmt.Errorf("%w; the running one goes on", err)
					continue
				}
				p.log.Info("secrets of the command have changed; starting it anew")
				p.stop(r)
				if ctx.Err() != nil { // It took so long that the agent is to end.
					order.done <- &reload.Unneeded{Why: "the command is not started again, as the agent ends"}
					return false, p.exit(r, true)
				}
				order.done <- nil
				return true, nil
			}
		}
	}
}

// stop asks a command to end, and kills it where it does not.
func (p *Process) stop(r *running) {
	_ = r.Process.Signal(p.command.StopSignal)
	select {
	case <-r.ended:
		return
	case <-time.After(p.command.Grace):
	}
	p.log.Warn("the command has not ended; killing it", "after", p.command.Grace.String())
	_ = syscall.Kill(-r.Process.Pid, syscall.SIGKILL)
	<-r.ended
}

// Reload returns the action that signals or restarts the command.
func (p *Process) Reload(c config.Child) reload.Action { return Reload{Of: p, Signal: c.Signal} }

// Reload signals or restarts a supervised command.
type Reload struct {
	Of *Process
	// Signal is sent; 0 restarts the command instead.
	Signal syscall.Signal
}

func (r Reload) String() string { return config.Child{Signal: r.Signal}.String() }

// Do waits until the command was signalled or has ended to be started anew.
func (r Reload) Do(ctx context.Context, change reload.Change) error {
	o := order{r.Signal, change, make(chan error, 1)}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-r.Of.ended:
		return &reload.Unneeded{Why: "the command has ended"}
	case r.Of.orders <- o:
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-o.done:
		return err
	}
}

// Check finds nothing: the command is the agent's own.
func (r Reload) Check(context.Context) error { return nil }

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
