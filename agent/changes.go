package agent

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/filestate"
	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/agent/status"
	"github.com/smarteros/deaddrop/agent/textfile"
	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render/safefile"
)

// settle is how long files must be left alone before they are read again:
// editors write in several steps.
const settle = 100 * time.Millisecond

// changes is the actor that notices new configuration and template files, and
// SIGHUP.
type changes struct {
	cfg     *config.Config
	load    func() (*config.Config, error)
	vault   *session.Session
	watcher *watch.Watcher
	plans   chan<- *config.Config
	hangup  <-chan os.Signal
	systemd *status.Systemd
	board   *status.Board
	log     *slog.Logger

	seen    [sha256.Size]byte
	restart *config.Config // set when the new configuration needs a new session

	newNotifier func() (*fsnotify.Watcher, error) // nil for that of the system
	notifier    *fsnotify.Watcher                 // nil where there can be none
	poll        <-chan time.Time                  // nil where all files are watched
	states      string                            // of the files, at the last poll
}

// Run works until the context ends, or until a configuration needs a restart.
func (c *changes) Run(ctx context.Context) error {
	c.startNotifier()
	defer c.stopNotifier()
	var events <-chan fsnotify.Event
	var failures <-chan error
	if c.notifier != nil {
		events, failures = c.notifier.Events, c.notifier.Errors
	}
	c.states, c.seen = fileStates(c.cfg.Files), digest(c.cfg.Files)
	var settled <-chan time.Time
	for c.restart == nil {
		select {
		case <-ctx.Done():
			return nil
		case <-c.hangup:
			c.log.Info("reading everything again", "signal", "SIGHUP")
			c.systemd.Reloading()
			c.reread(ctx)
			c.refresh(ctx)
			c.systemd.Reloaded(ctx)
		case <-events:
			settled = time.After(settle)
		case <-c.poll:
			if now := fileStates(c.cfg.Files); now != c.states {
				c.states = now
				settled = time.After(settle)
			}
		case <-settled:
			settled = nil
			c.reread(ctx)
		case err := <-failures:
			c.log.Warn("watching files", "error", err)
			if errors.Is(err, fsnotify.ErrEventOverflow) { // The event that was lost may have been of these files.
				settled = time.After(settle)
			}
		}
	}
	return nil
}

// refreshTimeout bounds the login that SIGHUP may call for.
const refreshTimeout = 10 * time.Second

// refresh reads every secret now. A policy that was attached to the role counts from the
// next login on, so where something is denied there is one first.
func (c *changes) refresh(ctx context.Context) {
	if c.restart != nil {
		return // Everything starts anew.
	}
	limit, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	if err := c.vault.RefreshPolicies(limit); err != nil {
		c.log.Warn("login failed, keeping the token", "error", err)
	}
	c.watcher.Refresh()
}

// startNotifier has the system notify the agent of changes. Where it does not, the files
// are polled: Linux counts the instances of inotify of all processes of a user, and every
// container may run as the same one.
func (c *changes) startNotifier() {
	if c.load == nil {
		return
	}
	create := c.newNotifier
	if create == nil {
		create = fsnotify.NewWatcher
	}
	notifier, err := create()
	if err != nil {
		c.startPolling(err)
		return
	}
	c.notifier = notifier
	c.watchFolders()
}

func (c *changes) stopNotifier() {
	if c.notifier != nil {
		_ = c.notifier.Close()
	}
}

// pollFiles is how often files are polled that cannot be watched.
const pollFiles = 5 * time.Second

// startPolling polls the files from now on, and logs why, once.
func (c *changes) startPolling(err error) {
	if c.poll != nil {
		return
	}
	c.poll = time.Tick(pollFiles)
	attributes := []any{"interval", pollFiles, "error", err}
	switch {
	case errors.Is(err, syscall.EMFILE):
		attributes = append(attributes, "hint", "raise sysctl fs.inotify.max_user_instances, which counts all processes of the user, or the limit of open files")
	case errors.Is(err, syscall.ENOSPC):
		attributes = append(attributes, "hint", "raise sysctl fs.inotify.max_user_watches, which counts all processes of the user")
	}
	c.log.Warn("cannot watch configuration files, polling them", attributes...)
}

// watchFolders watches the folders of all files, since most programs replace a file
// rather than write into it, and Kubernetes swaps a link beside it.
func (c *changes) watchFolders() {
	if c.notifier == nil {
		return
	}
	for _, file := range c.cfg.Files {
		folders := []string{filepath.Dir(file)}
		if info, err := os.Stat(file); err == nil && info.IsDir() {
			folders = append(folders, file)
		}
		if target, err := filepath.EvalSymlinks(file); err == nil {
			folders = append(folders, filepath.Dir(target))
		}
		for _, folder := range folders {
			if err := c.notifier.Add(folder); err != nil {
				c.startPolling(fmt.Errorf("folder %s: %w", folder, err))
			}
		}
	}
}

// fileStates is another text once one of the files was replaced or written to.
func fileStates(files []string) string {
	var all strings.Builder
	for _, file := range files {
		state, _, err := filestate.Of(file)
		if err != nil {
			state = err.Error()
		}
		all.WriteString(state + "\n")
	}
	return all.String()
}

// reread takes over a configuration whose files have changed. One that is bad
// is refused, and said so once.
func (c *changes) reread(ctx context.Context) {
	if c.load == nil {
		return
	}
	now := digest(c.cfg.Files)
	if now == c.seen {
		return
	}
	c.seen = now
	cfg, err := c.load()
	anew := err == nil && (!reflect.DeepEqual(c.cfg.Vault, cfg.Vault) || !reflect.DeepEqual(c.cfg.Auth, cfg.Auth) || !reflect.DeepEqual(c.cfg.Sinks, cfg.Sinks))
	switch {
	case err == nil && isPiped(cfg):
		err = errPiped // An empty pipe is no reason to take drops back.
	case err == nil && !reflect.DeepEqual(commandOf(c.cfg), commandOf(cfg)):
		err = errors.New("the exec block has changed, for which the agent has to be started anew")
	case anew:
		// What is wrong with certificates shows only here.
		_, err = session.New(cfg.Vault, cfg.Auth, slog.New(slog.DiscardHandler))
	}
	if err != nil {
		c.log.Error("the changed configuration is refused; the old one stays in force", "error", err)
		c.board.NoteRefused(err)
		return
	}
	warn(cfg, c.log)
	c.board.NoteConfig(configStatus(cfg))
	c.cfg = cfg
	c.states, c.seen = fileStates(cfg.Files), digest(cfg.Files)
	c.watchFolders()
	c.log.Info("the configuration has changed", "files", len(cfg.Files), "drops", len(cfg.Drops))
	if anew {
		c.restart = cfg
		return
	}
	select {
	case c.plans <- cfg:
	case <-ctx.Done():
	}
}

var errPiped = errors.New("the configuration reads from a pipe, which can only be read at the start")

// isPiped reports whether a configuration was read from a pipe. It is used up then: there
// is nothing to compare with, and nothing to read again.
func isPiped(cfg *config.Config) bool { return slices.ContainsFunc(cfg.Files, textfile.IsStream) }

// commandOf is what is supervised, without its variables.
func commandOf(cfg *config.Config) *config.Exec {
	if cfg.Supervise == nil {
		return nil
	}
	return &cfg.Supervise.Exec
}

// digest is of the names and contents of files, and the names in folders; what
// cannot be read counts as empty.
func digest(files []string) (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, file := range files {
		content, err := safefile.Read(file, textfile.MaxSize)
		if err != nil {
			content = listing(file)
		}
		inner := sha256.Sum256(content)
		h.Write([]byte(file + "\x00"))
		h.Write(inner[:])
	}
	h.Sum(sum[:0])
	return sum
}

// listing are the names of what is in a folder of configuration files.
func listing(folder string) []byte {
	entries, _ := os.ReadDir(folder)
	var names []byte
	for _, e := range entries {
		names = append(names, e.Name()+"\x00"...)
	}
	return names
}
