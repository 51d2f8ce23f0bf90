// Package agent is the running agent: it wires session, watcher, renderer and
// reloads together.
package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/oklog/run"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/footprint"
	"github.com/smarteros/deaddrop/agent/internal/reconfigure"
	"github.com/smarteros/deaddrop/agent/internal/reload"
	"github.com/smarteros/deaddrop/agent/internal/textfile"
	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/agent/status"
	"github.com/smarteros/deaddrop/agent/supervise"
	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render"
)

// ErrReload is what [Once] fails with when files are current, but a service
// could not be told.
var ErrReload = errors.New("reload failed")

// Once brings every file of the configuration up to date and returns. Faults
// that may pass are retried until the context ends. The token is revoked at the
// end, unless keepToken is set or a lease depends on it. The errors of all drops
// are joined; they wrap the sentinels of packages session and watch.
func Once(ctx context.Context, cfg *config.Config, keepToken bool, log *slog.Logger) error {
	last, release := beyond(ctx, leaving)
	defer release()
	vault, err := session.New(cfg.Vault, cfg.Auth, log)
	if err != nil {
		return err
	}
	sinks := newSinks(cfg, vault, log)
	err = session.Retry(ctx, log, session.IsTransient, func() error { return vault.Login(ctx) })
	if err != nil {
		return err
	}
	unwritten := sinks.flush()
	warn(cfg, log)
	secrets := watch.NewSecrets(vault)
	d := newDropper(filesOnly(cfg), log)
	told := d.step(ctx)
	for d.recovered(cfg.CertShare); len(d.lacking()) > 0; d.recovered(cfg.CertShare) {
		d.learn(watch.Fetch(ctx, secrets, d.lacking(), log))
		told = append(told, d.step(ctx)...)
	}
	told = append(told, d.step(ctx)...)
	queue := reload.NewQueue(log)
	queue.Add(told...)
	failed := queue.Flush(ctx)
	d.noteTold(queue.Pending())

	bye, cancel := context.WithTimeout(last, closing)
	defer cancel()
	d.letGo(bye, secrets)
	vault.Close(bye, keepToken)
	if failed != nil {
		failed = errors.Join(ErrReload, failed)
	}
	return errors.Join(d.err(), unwritten, failed)
}

// warn logs what of a configuration has no effect, and whether others may change it.
func warn(cfg *config.Config, log *slog.Logger) {
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

// filesOnly is the configuration without the command that is supervised.
func filesOnly(cfg *config.Config) *config.Config {
	files := *cfg
	files.Supervise = nil
	return &files
}

// Run keeps the files of a configuration current until the context ends. load
// reads the configuration again when its files have changed; a bad one is
// refused, and the old one kept. load is nil where there are no files.
//
// process applies the settings of a new configuration that belong to the process; it may
// be nil.
//
// Where the configuration has a command to supervise, Run ends with it: with nil
// or a [*supervise.ExitError]. Version is shown to those who ask how the agent is.
func Run(ctx context.Context, cfg *config.Config, load func() (*config.Config, error), process Process, version string, log *slog.Logger) error {
	warn(cfg, log)
	if load != nil && reconfigure.IsPiped(cfg) {
		log.Warn("configuration was read from a pipe, ignoring changed files")
		load = nil
	}
	defer inBackground(context.Background(), func(ctx context.Context) { _ = supervise.Reap(ctx) })()
	r := runner{load: load, host: process, queue: reload.NewQueue(log), board: status.NewBoard(), started: time.Now(), log: log}
	r.counts = &counts{reloads: r.queue.Tries}
	r.server = status.NewServer(r.board, r.counts.now, version, r.started, log)
	defer r.server.Close()
	r.board.NoteConfig(configStatus(cfg))
	r.systemd = status.NewSystemd(r.board, log)
	defer inBackground(ctx, r.systemd.Run)()
	if cfg.Supervise == nil {
		return r.loop(ctx, cfg)
	}
	// The command ends before the agent does: its secrets are good until then.
	command, stopCommand := context.WithCancel(ctx)
	defer stopCommand()
	agent, stopAgent := context.WithCancel(context.WithoutCancel(ctx))
	defer stopAgent()
	r.process = supervise.New(cfg.Supervise.Exec, log)
	ended := make(chan error, 1)
	go func() {
		err := r.process.Run(command)
		stopAgent()
		ended <- err
	}()
	err := r.loop(agent, cfg)
	stopCommand()
	if failed := <-ended; failed != nil {
		return failed
	}
	return err
}

// Process applies the settings of a configuration that belong to the process itself.
type Process interface {
	// Apply changes the log and the pid file. Where it cannot, it keeps the old ones and
	// logs why.
	Apply(cfg *config.Config)
	// ReopenLog opens the log file again, since logrotate may have renamed it.
	ReopenLog()
}

// inBackground works until the context ends, or the function is called that it
// returns.
func inBackground(ctx context.Context, work func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		work(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// loop runs one session after the other, until the context ends.
func (r runner) loop(ctx context.Context, cfg *config.Config) error {
	// They are listened to for as long as this runs: between two sessions, too.
	hangups, stop := notified(syscall.SIGHUP)
	defer stop()
	r.status, stop = notified(syscall.SIGUSR1)
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
		next, err := r.run(ctx, cfg)
		if err != nil || next == nil {
			return err
		}
		cfg = next // Vault or the login have changed: all starts anew.
	}
}

// runner is what outlives a session.
type runner struct {
	load    func() (*config.Config, error)
	host    Process // may be nil
	changes <-chan reconfigure.Change
	queue   *reload.Queue
	process *supervise.Process // nil where no command is supervised
	board   *status.Board
	server  *status.Server
	counts  *counts
	systemd *status.Systemd // nil where systemd does not listen
	started time.Time
	status  <-chan os.Signal
	log     *slog.Logger
}

// run runs the actors of one configuration. It returns another one when that
// needs a new session, or nil when the context has ended.
func (r runner) run(ctx context.Context, cfg *config.Config) (*config.Config, error) {
	vault, err := session.New(cfg.Vault, cfg.Auth, r.log)
	if err != nil {
		return nil, err
	}
	sinks := newSinks(cfg, vault, r.log)
	watcher := watch.New(watch.NewSecrets(vault), r.log)
	vault.CountInto(&r.counts.session)
	watcher.CountReads(&r.counts.reads)
	r.listen(cfg)
	keeper := &keeper{
		dropper: newDropper(cfg, r.log), vault: vault, watcher: watcher, queue: r.queue,
		cfg: cfg, plans: make(chan *config.Config), status: r.status, board: r.board, started: r.started,
		listen: r.listen,
	}
	keeper.counts = r.counts
	keeper.dropper.process, keeper.dropper.busy = r.process, r.board.Busy
	keeper.retain()
	next := make(chan *config.Config, 1)
	follow := func(ctx context.Context) error { return r.follow(ctx, keeper, next) }

	last, release := beyond(ctx, leaving)
	defer release()
	actors, cancel := context.WithCancel(ctx)
	defer cancel()
	var group run.Group
	for _, actor := range []func(context.Context) error{vault.Run, sinks.Run, watcher.Run, keeper.Run, r.queue.Run, follow} {
		group.Add(func() error { return actor(actors) }, func(error) { cancel() })
	}
	err = group.Run()
	keeper.noteTold(r.queue.Pending())
	if len(next) == 0 {
		keeper.endEnviron()
		keeper.onExit()
	}
	bye, cancel := context.WithTimeout(last, closing)
	defer cancel()
	watcher.Close(bye, keeper.settled())
	vault.Close(bye, false)
	select {
	case cfg := <-next:
		return cfg, err
	default:
		return nil, err
	}
}

// onHangup begins what SIGHUP calls for. [runner.follow] ends it.
func (r runner) onHangup() {
	if r.host != nil {
		r.host.ReopenLog()
	}
	r.systemd.Reloading()
}

// follow hands changes on to the actors of a session until the context ends, or until a
// configuration needs a new session: that one it sends to next.
func (r runner) follow(ctx context.Context, k *keeper, next chan<- *config.Config) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case change := <-r.changes:
			if change.Config != nil {
				r.adopt(change.Config)
			}
			if change.Refused != nil {
				r.board.NoteRefused(change.Refused)
			}
			switch {
			case change.NeedsSession:
				next <- change.Config
			case change.Config != nil:
				select {
				case k.plans <- change.Config:
				case <-ctx.Done():
					return nil
				}
			}
			if change.Hangup {
				if !change.NeedsSession { // Else everything starts anew.
					k.refresh(ctx)
				}
				r.systemd.Reloaded(ctx)
			}
			if change.NeedsSession {
				return nil
			}
		}
	}
}

// adopt applies the settings of a new configuration that need no session.
func (r runner) adopt(cfg *config.Config) {
	warn(cfg, r.log)
	r.board.NoteConfig(configStatus(cfg))
	if r.host != nil {
		r.host.Apply(cfg)
	}
}

// refreshTimeout bounds the login that SIGHUP may call for.
const refreshTimeout = 10 * time.Second

// refresh reads every secret now. A policy that was attached to the role counts from the
// next login on, so where something is denied there is one first.
func (k *keeper) refresh(ctx context.Context) {
	limit, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	if err := k.vault.RefreshPolicies(limit); err != nil {
		k.log.Warn("login failed, keeping the token", "error", err)
	}
	k.watcher.Refresh()
}

// listen opens the listeners of a configuration, and closes all others.
func (r runner) listen(cfg *config.Config) {
	r.server.Folders = cfg.Folders()
	r.server.Keep(cfg.Listeners)
}

// keeper is the actor that keeps files current.
type keeper struct {
	*dropper
	vault   *session.Session
	watcher *watch.Watcher
	queue   *reload.Queue
	cfg     *config.Config
	plans   chan *config.Config
	status  <-chan os.Signal // asks for the report, for the log
	board   *status.Board
	listen  func(*config.Config)
	started time.Time
	wanted  []render.Request
	told    []*watch.Lease
	trim    <-chan time.Time
	look    <-chan time.Time // at the files that templates read
}

// retryWrites is how soon a file that could not be written is tried again. What
// is wrong with a disk or a folder is not mended in a second.
const retryWrites = 5 * time.Second

// trimAfter is when the memory that reading the configuration and the first
// answers took, or a report to whoever asks, is given back: an agent that then mostly
// sleeps would else keep it for minutes.
const trimAfter = 2 * time.Second

// Run works until the context ends, or until a secret is gone that must not be.
func (k *keeper) Run(ctx context.Context) error {
	var awaiting <-chan time.Time
	if k.process != nil {
		awaiting = time.After(firstRound)
	}
	for {
		k.act(ctx)
		k.logAwaited()
		if err := k.fatal(); err != nil {
			return err
		}
		k.want(ctx)
		k.settle(ctx)
		k.board.Note(k.summary())
		var retry, due <-chan time.Time
		if at := k.nextDue(); !at.IsZero() {
			due = time.After(time.Until(at))
		}
		if k.failed() {
			retry = time.After(retryWrites)
		}
		if k.look == nil && k.readsFiles() {
			k.look = time.After(k.cfg.Interval)
		}
		select {
		case <-ctx.Done():
			return nil
		case batch := <-k.watcher.Batches():
			k.logReadings(batch)
			k.learn(batch)
		case cfg := <-k.plans:
			k.cfg = cfg
			k.listen(cfg)
			k.setDrops(cfg)
			k.retain()
			k.wanted = nil
		case <-k.status:
			k.logStatus(ctx)
		case answer := <-k.board.Asked():
			answer <- k.report(ctx)
			if k.trim == nil {
				k.trim = time.After(trimAfter)
			}
		case <-k.board.Pinged():
		case <-awaiting:
		case <-retry:
		case <-due:
		case <-k.queue.Settled():
			k.noteTold(k.queue.Pending())
		case <-k.look:
			k.look = nil
			k.lookAtFiles()
		case <-k.trim:
			k.trim = nil
			footprint.Trim()
		}
	}
}

// nextDue is when something is to be written or removed that has waited for it, or
// zero.
func (k *keeper) nextDue() time.Time {
	held, removal := k.held, k.nextRemoval()
	if held.IsZero() || !removal.IsZero() && removal.Before(held) {
		return removal
	}
	return held
}

// act writes what there is to write, and tells who is to know.
func (k *keeper) act(ctx context.Context) {
	if k.grown {
		k.retain()
	}
	batch := k.step(ctx)
	if k.process != nil {
		if pairs, changed := k.takeEnviron(); changed {
			batch = append(batch, reload.Job{Change: reload.Change{At: time.Now()}, Actions: k.process.SetEnviron(pairs)})
		}
	}
	k.queue.Add(batch...)
	k.noteTold(k.queue.Pending())
}

// retain tells the queue which reloads there are.
func (k *keeper) retain() {
	k.grown = false
	all := k.subscriptions()
	if k.process != nil {
		all = append(all, reload.Subscription{Actions: k.process.Renewal()})
	}
	k.queue.Retain(k.cfg.Splay, all)
}

// want tells the watcher when other secrets are asked for than before.
func (k *keeper) want(ctx context.Context) {
	uses := k.uses()
	if k.wanted != nil && slices.Equal(uses, k.wanted) {
		return
	}
	known := k.recovered(1)
	k.watcher.Want(ctx, watch.Wanted{
		Requests: uses, Known: known, Interval: k.cfg.Interval,
		Shares: watch.Shares{Lease: k.cfg.LeaseShare, Cert: k.cfg.CertShare},
	})
	k.wanted = uses
	k.forget()
	k.trim = time.After(trimAfter)
	if len(known) > 0 {
		k.act(ctx)
		k.want(ctx)
	}
}

// settle tells the watcher which leases stand in files, when that has changed.
func (k *keeper) settle(ctx context.Context) {
	settled := k.settled()
	if len(settled.Orphans) == 0 && slices.Equal(settled.InFiles, k.told) {
		return
	}
	k.watcher.Settle(ctx, settled)
	k.told = settled.InFiles
}

// logReadings logs what cannot be read, and what can be read again: each once, or as
// a number where there are many, as in an outage.
func (k *keeper) logReadings(batch watch.Batch) {
	var failed, recovered []render.Request
	for request, r := range batch {
		switch before := k.readings[request]; {
		case r.Err != nil && k.expectsNothing(request, r.Err):
		case r.Err != nil:
			failed = append(failed, request)
		case before.Err != nil && !k.expectsNothing(request, before.Err):
			recovered = append(recovered, request)
		}
	}
	const few = 3
	for i, request := range failed {
		if i == few {
			k.log.Warn("more secrets cannot be read", "count", len(failed)-few)
			break
		}
		what := "secret cannot be read, no file written yet"
		if k.hasFileOf(request) {
			what = "secret cannot be read, keeping last good files"
		}
		if isMissing(batch[request].Err) {
			what = "secret is not there" // What becomes of its files depends on them.
		}
		args := []any{"secret", request, "error", batch[request].Err}
		if watch.IsPolicyDenial(batch[request].Err) && k.vault.CanRefreshPolicies() {
			args = append(args, "hint", "a policy that is attached to the role counts from the next login on: SIGHUP makes one now")
		}
		k.log.Warn(what, args...)
	}
	for i, request := range recovered {
		if i == few {
			k.log.Info("more secrets can be read again", "count", len(recovered)-few)
			break
		}
		k.log.Info("secret can be read again", "secret", request)
	}
}

// hasFileOf reports whether there is a file, or a command with a variable, that was
// made of the secret.
func (k *keeper) hasFileOf(request render.Request) bool {
	return slices.ContainsFunc(k.states, func(s *state) bool {
		return slices.Contains(s.uses, request) && (s.hasFile() || s.env != "" && k.process != nil && k.process.HasEnviron())
	})
}

// notified delivers a signal until stop is called.
func notified(sig os.Signal) (c <-chan os.Signal, stop func()) {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, sig)
	return ch, func() { signal.Stop(ch) }
}
