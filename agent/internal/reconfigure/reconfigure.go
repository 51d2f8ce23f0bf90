// Package reconfigure watches the files of a configuration, and SIGHUP. It loads the
// configuration again, refuses one that is invalid or that a running agent cannot apply,
// and hands each result to its consumer, as a [Change].
package reconfigure

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/textfile"
)

const (
	// settle is how long files must be left alone before they are read: editors write in
	// several steps.
	settle = 100 * time.Millisecond
	// settleMax is when files are read that are never left alone for that long.
	settleMax = time.Second
)

// Change is what a consumer has to apply. It sums up all that has happened since the
// consumer took the one before.
type Change struct {
	// Config is the new configuration, or nil if it is the same as before.
	Config *config.Config
	// NeedsSession reports that Config has another Vault, login or sink than the
	// configuration that the consumer took before.
	NeedsSession bool
	// Refused is why the newest configuration was refused, or nil. Config, if there is one,
	// is older, and counts.
	Refused error
	// Hangup reports that the process got a SIGHUP: all secrets are to be read now.
	Hangup bool
}

func (c Change) isEmpty() bool { return c.Config == nil && c.Refused == nil && !c.Hangup }

// Options are what an [Actor] depends on.
type Options struct {
	// Config is the configuration in force.
	Config *config.Config
	// Load reads the configuration again. It is nil where it was not read from files, or
	// from files that can be read once: see [IsPiped].
	Load func() (*config.Config, error)
	// Verify checks what a new session would be made of and [Options.Load] does not check,
	// such as certificates.
	Verify func(*config.Config) error
	// Hangups delivers SIGHUP.
	Hangups <-chan os.Signal
	// OnHangup is called for each SIGHUP, before anything is read. It may be nil.
	OnHangup func()
	// NewNotifier returns a new notifier; nil is for that of the operating system. Where it
	// fails, the files are polled.
	NewNotifier func() (Notifier, error)
	Log         *slog.Logger
}

// Actor watches the files of a configuration, and SIGHUP.
type Actor struct {
	Options
	changes chan Change
	pending Change

	taken   *config.Config // by the consumer
	started *config.Config // what the process was started with
	said    []string       // settings that need a restart, as logged
	refused refusal        // as logged; zero once a configuration is accepted

	watcher  *watcher
	tried    config.Sources   // of the last configuration that was loaded, valid or not
	rechecks config.Sources   // at the last look right after a load
	settled  <-chan time.Time // nil while no file has changed
	due      time.Time        // of settled
	latest   time.Time        // to which due may be put off
}

// refusal is why a configuration was refused, and which one.
type refusal struct {
	reason string
	of     config.Sources
}

func (r refusal) equal(other refusal) bool {
	return r.reason == other.reason && maps.Equal(r.of, other.of)
}

// New returns an actor whose consumer has taken o.Config.
func New(o Options) *Actor {
	if o.OnHangup == nil {
		o.OnHangup = func() {}
	}
	if o.NewNotifier == nil {
		o.NewNotifier = newNotifier
	}
	return &Actor{Options: o, changes: make(chan Change), taken: o.Config, started: o.Config, tried: o.Config.Sources}
}

// Changes delivers changes to one consumer. It is not closed.
func (a *Actor) Changes() <-chan Change { return a.changes }

// Run works until the context ends.
func (a *Actor) Run(ctx context.Context) error {
	if a.Load != nil {
		a.watcher = newWatcher(a.NewNotifier, a.Log)
		defer a.watcher.close()
		a.recheck()
	}
	for {
		var changes chan<- Change
		if !a.pending.isEmpty() {
			changes = a.changes
		}
		select {
		case <-ctx.Done():
			return nil
		case changes <- a.pending:
			if a.pending.Config != nil {
				a.taken = a.pending.Config
			}
			a.pending = Change{}
		case <-a.Hangups:
			a.OnHangup()
			a.Log.Info("reading everything again", "signal", "SIGHUP")
			a.reread()
			a.pending.Hangup = true
		case event := <-a.watcher.events():
			if a.watcher.concerns(event) {
				a.postpone()
			}
		case err := <-a.watcher.failures():
			a.Log.Warn("watching files", "error", err)
			if errors.Is(err, fsnotify.ErrEventOverflow) { // The event that was lost may have been of these files.
				a.postpone()
			}
		case <-a.watcher.ticks():
			if a.watcher.hasNewStates() {
				a.postpone()
			}
		case <-a.settled:
			a.settled = nil
			a.watcher.follow(a.tried.Paths())
			if a.hasChanged() {
				a.reread()
			}
		}
	}
}

// postpone has the files read once they are left alone.
func (a *Actor) postpone() {
	now := time.Now()
	if a.settled == nil {
		a.latest = now.Add(settleMax)
	}
	due := now.Add(settle)
	if due.After(a.latest) {
		due = a.latest
	}
	if a.settled == nil || !due.Equal(a.due) {
		a.settled, a.due = time.After(due.Sub(now)), due
	}
}

func (a *Actor) hasChanged() bool {
	return !maps.Equal(config.ReadSources(a.tried.Paths()...), a.tried)
}

// recheck follows the files of the last load. They may have changed since they were read,
// and before they were followed.
func (a *Actor) recheck() {
	a.watcher.follow(a.tried.Paths())
	now := config.ReadSources(a.tried.Paths()...)
	// Files that differ in the same way twice do so without a change.
	if !maps.Equal(now, a.tried) && !maps.Equal(now, a.rechecks) {
		a.postpone()
	}
	a.rechecks = now
}

// reread loads the configuration, and keeps it for the consumer unless it is refused.
func (a *Actor) reread() {
	if a.Load == nil {
		return
	}
	defer a.recheck()
	cfg, needsSession, err := a.load()
	if err != nil {
		if refused := (refusal{err.Error(), a.tried}); !refused.equal(a.refused) {
			a.Log.Error("configuration refused, keeping the old one", "error", err)
			a.refused = refused
		}
		a.pending.Refused = err
		return
	}
	isUnchanged := a.refused.reason == "" && a.pending.Config == nil && !needsSession && isSame(a.taken, cfg)
	a.refused = refusal{}
	if isUnchanged {
		a.Log.Debug("configuration is unchanged")
		return
	}
	a.Log.Info("configuration reloaded", "files", len(cfg.Files), "drops", len(cfg.Drops))
	a.logRestart(cfg)
	a.pending.Config, a.pending.NeedsSession, a.pending.Refused = cfg, needsSession, nil
}

func (a *Actor) load() (cfg *config.Config, needsSession bool, err error) {
	cfg, err = a.Load()
	var invalid *config.Error
	switch {
	case errors.As(err, &invalid) && len(invalid.Sources) > 0:
		a.tried = invalid.Sources
		return nil, false, err
	case err != nil: // It names no files, so those of before stand for them.
		a.tried = config.ReadSources(a.tried.Paths()...)
		return nil, false, err
	}
	a.tried = cfg.Sources
	needsSession = !hasSameSession(a.taken, cfg)
	switch {
	case IsPiped(cfg):
		return nil, false, errPiped // An empty pipe is no reason to take drops back.
	case !reflect.DeepEqual(commandOf(a.taken), commandOf(cfg)):
		return nil, false, errCommand
	case needsSession && a.Verify != nil:
		certificates := config.ReadSources(certificatesOf(cfg)...)
		if err := a.Verify(cfg); err != nil {
			maps.Copy(certificates, a.tried)
			a.tried = certificates
			return nil, false, err
		}
	}
	return cfg, needsSession, nil
}

var (
	errPiped   = errors.New("the configuration reads from a pipe, which can only be read at the start")
	errCommand = errors.New("the exec block has changed: restart the agent to apply it")
)

// IsPiped reports whether a configuration was read from a pipe. It is used up then: there
// is nothing to compare with, and nothing to read again.
func IsPiped(cfg *config.Config) bool { return slices.ContainsFunc(cfg.Files, textfile.IsStream) }

// isSame reports whether a configuration was read from the same content as another, and came
// to the same: it also depends on users, groups and the environment.
func isSame(a, b *config.Config) bool {
	return maps.Equal(a.Sources, b.Sources) && a.String() == b.String()
}

func hasSameSession(a, b *config.Config) bool {
	return reflect.DeepEqual(a.Vault, b.Vault) && reflect.DeepEqual(a.Auth, b.Auth) && reflect.DeepEqual(a.Sinks, b.Sinks)
}

// commandOf returns the supervised command without its variables, or nil.
func commandOf(cfg *config.Config) *config.Exec {
	if cfg.Supervise == nil {
		return nil
	}
	return &cfg.Supervise.Exec
}

// certificatesOf returns the files that a session reads its TLS material from.
func certificatesOf(cfg *config.Config) []string {
	files := []string{cfg.Vault.CACert, cfg.Vault.ClientCert, cfg.Vault.ClientKey}
	return slices.DeleteFunc(files, func(file string) bool { return file == "" })
}

// logRestart names the settings in which a configuration differs from that with which the
// process was started, and which a running process cannot apply.
func (a *Actor) logRestart(cfg *config.Config) {
	var settings []string
	if cfg.LockMemory != a.started.LockMemory {
		settings = append(settings, "mlock")
	}
	if cfg.Once != a.started.Once {
		settings = append(settings, "exit_after_auth")
	}
	if len(settings) > 0 && !slices.Equal(settings, a.said) {
		a.Log.Warn("configuration change needs a restart", "settings", settings)
	}
	a.said = settings
}
