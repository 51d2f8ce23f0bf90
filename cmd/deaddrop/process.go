package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/harden"
	"github.com/smarteros/deaddrop/render/drop"
)

// confine does what is done to the process once its configuration is known.
func confine(cfg *config.Config) error {
	if cfg.Supervise == nil { // Else the command would inherit it, which is a service.
		syscall.Umask(0o077)
	}
	if !cfg.LockMemory {
		return nil
	}
	if err := harden.LockMemory(); err != nil {
		return config.Invalid("mlock = true: %v", err)
	}
	return nil
}

// process has the log and the pid file of a running agent, and applies changed settings
// to them. It is an [agent.Process].
type process struct {
	log     *processLog
	pidFile string // "" where there is none
}

// Apply changes log and pid file to those of a configuration. Where it cannot, it keeps
// the old ones and logs why.
func (p *process) Apply(cfg *config.Config) {
	p.log.apply(cfg)
	if cfg.PIDFile == p.pidFile {
		return
	}
	before := p.pidFile
	if err := p.writePIDFile(cfg); err != nil {
		p.log.Error("cannot write pid file, keeping the old one", "error", err)
		return
	}
	if before != "" && !isSameFile(before, p.pidFile) {
		_, _ = drop.Remove(before)
	}
}

// ReopenLog opens the file of the log again.
func (p *process) ReopenLog() { p.log.reopen() }

// writePIDFile keeps the process id in the file that the configuration names, if any.
func (p *process) writePIDFile(cfg *config.Config) error {
	if cfg.PIDFile != "" {
		content := []byte(strconv.Itoa(os.Getpid()) + "\n")
		file := drop.File{Path: cfg.PIDFile, Content: content, Mode: config.PIDFileMode, CreateDirs: true}
		if err := cfg.Folders().Write([]drop.File{file})[0].Err; err != nil {
			return err
		}
	}
	p.pidFile = cfg.PIDFile
	return nil
}

func (p *process) removePIDFile() {
	if p.pidFile != "" {
		_, _ = drop.Remove(p.pidFile)
	}
}

func isSameFile(one, other string) bool {
	a, errA := os.Lstat(one)
	b, errB := os.Lstat(other)
	return errA == nil && errB == nil && os.SameFile(a, b)
}

// outlive keeps signals from ending the process: HUP and USR1, which mean something
// only once the agent is at work, and PIPE, by which Linux tells that nobody reads
// the log any more. Programs that are started take them as ever.
func outlive(signals ...os.Signal) (stop func()) {
	ignored := make(chan os.Signal, 1)
	signal.Notify(ignored, signals...)
	return func() { signal.Stop(ignored) }
}

// lastResort is when the process ends after it was asked to, whatever still holds it
// up, such as a disk that does not answer. The agent's own limit is shorter.
const lastResort = 4900 * time.Millisecond

// endInTime ends the process some time after its context, unless it is disarmed
// before. Who asks a second time does not wait.
func endInTime(ctx context.Context) (disarm func()) {
	done := make(chan struct{})
	go func() {
		select {
		case <-done:
			return
		case <-ctx.Done():
		}
		signal.Reset(os.Interrupt, syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(lastResort):
			fmt.Fprintln(os.Stderr, "deaddrop: something does not end; leaving it behind")
			os.Exit(exitFailed)
		}
	}()
	return sync.OnceFunc(func() { close(done) })
}

// sayWhyItEnds logs that the process was asked to end, and by which signal: else an agent
// that someone has ended looks like one that has ended by itself.
func sayWhyItEnds(ctx context.Context, log *slog.Logger) (done func()) {
	said := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(said)
		log.Info("ending, as it was asked to", "cause", context.Cause(ctx))
	})
	return func() {
		if !stop() {
			<-said
		}
	}
}
