package agent

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/agent/status"
	"github.com/smarteros/deaddrop/agent/supervise"
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
}

// Run works until the context ends, or until a configuration needs a restart.
func (c *changes) Run(ctx context.Context) error {
	files := c.notify()
	defer func() { _ = files.Close() }()
	c.seen = digest(c.cfg.Files)
	var settled <-chan time.Time
	for c.restart == nil {
		select {
		case <-ctx.Done():
			return nil
		case <-c.hangup:
			c.log.Info("reading everything again", "signal", "SIGHUP")
			c.systemd.Reloading()
			c.reread(ctx, files)
			c.refresh(ctx)
			c.systemd.Reloaded(ctx)
		case <-files.Events:
			settled = time.After(settle)
		case <-settled:
			settled = nil
			c.reread(ctx, files)
		case err := <-files.Errors:
			c.log.Warn("watching files", "error", err)
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

// notify returns a watcher of the files, or, where there can be none, one that
// never says anything.
func (c *changes) notify() *fsnotify.Watcher {
	files, err := fsnotify.NewWatcher()
	if err != nil {
		c.log.Warn("changed files will not be noticed; send SIGHUP after changing them", "error", err)
		return &fsnotify.Watcher{}
	}
	c.follow(files)
	return files
}

// follow watches the folders of all files, since most programs replace a file
// rather than write into it, and Kubernetes swaps a link beside it.
func (c *changes) follow(files *fsnotify.Watcher) {
	if files.Events == nil || c.load == nil {
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
			if err := files.Add(folder); err != nil {
				c.log.Warn("changes in this folder will not be noticed; send SIGHUP after changing files there", "folder", folder, "error", err)
			}
		}
	}
}

// reread takes over a configuration whose files have changed. One that is bad
// is refused, and said so once.
func (c *changes) reread(ctx context.Context, files *fsnotify.Watcher) {
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
	case err == nil && !reflect.DeepEqual(command(c.cfg), command(cfg)):
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
	c.seen = digest(cfg.Files)
	c.follow(files)
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

// command is what is supervised, without its variables.
func command(cfg *config.Config) *supervise.Command {
	if cfg.Supervise == nil {
		return nil
	}
	return &cfg.Supervise.Command
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
