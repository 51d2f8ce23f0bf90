// Package agent is the running agent. Its loop is the only code that knows all parts: it
// passes values from secrets to files to reloads.
package agent

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/oklog/run"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/reconfigure"
	"github.com/smarteros/deaddrop/agent/internal/reload"
	"github.com/smarteros/deaddrop/agent/internal/textfile"
	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/agent/status"
	"github.com/smarteros/deaddrop/agent/supervise"
	"github.com/smarteros/deaddrop/agent/watch"
)

// Process applies the settings of a configuration that belong to the process itself.
type Process interface {
	// Apply changes the log and the pid file. If it cannot, it keeps the old ones and logs
	// why.
	Apply(cfg *config.Config)
	// ReopenLog opens the log file again, since logrotate may have renamed it.
	ReopenLog()
}

// Run keeps the files of a configuration current until the context ends. load reads the
// configuration again when its files have changed; an invalid one is refused, and the old
// one kept. load is nil if there are no files. process may be nil.
//
// If the configuration has a command to supervise, Run ends with it: with nil or a
// [*supervise.ExitError]. The status shows version.
func Run(ctx context.Context, cfg *config.Config, load func() (*config.Config, error), process Process, version string, log *slog.Logger) error {
	logWarnings(cfg, log)
	if load != nil && reconfigure.IsPiped(cfg) {
		log.Warn("configuration was read from a pipe, ignoring changed files")
		load = nil
	}
	defer inBackground(context.Background(), func(ctx context.Context) { _ = supervise.Reap(ctx) })()
	r := runner{load: load, process: process, queue: reload.NewQueue(log), board: status.NewBoard(), started: time.Now(), log: log}
	r.counts = &counts{reloads: r.queue.Tries}
	r.server = status.NewServer(r.board, r.counts.now, version, r.started, log)
	defer r.server.Close()
	r.board.NoteConfig(configStatus(cfg))
	r.systemd = status.NewSystemd(r.board, log)
	defer inBackground(ctx, r.systemd.Run)()
	if cfg.Supervise == nil {
		return r.runSessions(ctx, cfg)
	}
	// The command ends before the agent does: its secrets are good until then.
	command, stopCommand := context.WithCancel(ctx)
	defer stopCommand()
	agent, stopAgent := context.WithCancel(context.WithoutCancel(ctx))
	defer stopAgent()
	r.command = supervise.New(cfg.Supervise.Exec, log)
	ended := make(chan error, 1)
	go func() {
		err := r.command.Run(command)
		stopAgent()
		ended <- err
	}()
	err := r.runSessions(agent, cfg)
	stopCommand()
	if failed := <-ended; failed != nil {
		return failed
	}
	return err
}

// logWarnings logs the settings of a configuration that have no effect, and whether other
// users may change it.
func logWarnings(cfg *config.Config, log *slog.Logger) {
	for _, w := range cfg.Warnings {
		log.Warn(w.String())
	}
	var open []string
	for _, e := range textfile.Exposed(cfg.Files) {
		open = append(open, e.Path+": "+e.Detail)
	}
	if len(open) > 0 {
		log.Warn("other users may change the configuration", "files", strings.Join(open, "; "),
			"hint", `run "deaddrop doctor" for the commands that keep them out`)
	}
}

// runner holds the parts that outlive a session.
type runner struct {
	load    func() (*config.Config, error)
	process Process // may be nil
	changes <-chan reconfigure.Change
	queue   *reload.Queue
	command *supervise.Process // nil if no command is supervised
	board   *status.Board
	server  *status.Server
	counts  *counts
	systemd *status.Systemd // nil if systemd does not listen
	started time.Time
	signals <-chan os.Signal // each asks for the status, in the log
	log     *slog.Logger
}

// runSessions runs one session after the other, until the context ends.
func (r runner) runSessions(ctx context.Context, cfg *config.Config) error {
	// Signals are received between two sessions, too.
	hangups, stop := notified(syscall.SIGHUP)
	defer stop()
	r.signals, stop = notified(syscall.SIGUSR1)
	defer stop()
	files := reconfigure.New(reconfigure.Options{
		Config: cfg, Load: r.load, Hangups: hangups, OnHangup: r.onHangup, Log: r.log,
		Verify: func(cfg *config.Config) error {
			_, err := session.New(cfg.Vault, cfg.Auth, slog.New(slog.DiscardHandler))
			return err
		},
	})
	r.changes = files.Changes()
	defer inBackground(ctx, func(ctx context.Context) { _ = files.Run(ctx) })()
	for {
		next, err := r.runSession(ctx, cfg)
		if err != nil || next == nil {
			return err
		}
		cfg = next // It has another Vault or login: all starts anew.
	}
}

// notified delivers a signal until stop is called.
func notified(sig os.Signal) (c <-chan os.Signal, stop func()) {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, sig)
	return ch, func() { signal.Stop(ch) }
}

// runSession runs the actors of one session. It returns the configuration that needs a new
// one, or nil when the context has ended.
func (r runner) runSession(ctx context.Context, cfg *config.Config) (*config.Config, error) {
	vault, err := session.New(cfg.Vault, cfg.Auth, r.log)
	if err != nil {
		return nil, err
	}
	sinks := newSinks(cfg, vault, r.log)
	watcher := watch.New(watch.NewSecrets(vault), r.log)
	vault.CountInto(&r.counts.session)
	watcher.CountReads(&r.counts.reads)
	r.listen(cfg)
	p := r.newPipeline()
	p.configure(cfg)
	f := follower{runner: r, vault: vault, watcher: watcher, updates: make(chan update), next: make(chan *config.Config, 1)}
	loop := &loop{
		pipeline: p, vault: vault, watcher: watcher, queue: r.queue, board: r.board, updates: f.updates,
		signals: r.signals, started: r.started,
	}

	last, release := outliving(ctx, shutdownTime)
	defer release()
	actors, cancel := context.WithCancel(ctx)
	defer cancel()
	var group run.Group
	for _, actor := range []func(context.Context) error{vault.Run, sinks.Run, watcher.Run, loop.Run, r.queue.Run, f.Run} {
		group.Add(func() error { return actor(actors) }, func(error) { cancel() })
	}
	err = group.Run()
	var next *config.Config
	select {
	case next = <-f.next:
	default:
	}
	p.close(r.queue.Pending())
	if next == nil {
		p.outputs.EndCommand()
		p.onExit()
	}
	logout, cancel := context.WithTimeout(last, logoutTime)
	defer cancel()
	watcher.Close(logout, p.settled())
	vault.Close(logout, false)
	return next, err
}

func (r runner) newPipeline() *pipeline {
	p := newPipeline(r.log)
	p.command, p.publisher.Busy = r.command, r.board.Busy
	p.outputs.Renders, p.publisher.Restored = &r.counts.renders, &r.counts.restored
	p.publisher.Checks, p.publisher.Writes = &r.counts.checks, &r.counts.writes
	if r.command != nil {
		p.outputs.IsCommandStarted = r.command.HasEnviron
	}
	return p
}

// listen opens the listeners of a configuration, and closes all others.
func (r runner) listen(cfg *config.Config) {
	r.server.Folders = cfg.Folders()
	r.server.Keep(cfg.Listeners)
}
