package agent

import (
	"context"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/agent/watch"
)

// update is what the loop has to take over.
type update struct {
	// config is the new configuration, or nil if it is the same as before.
	config *config.Config
	// isHangup says that all files are to be compared with what was published.
	isHangup bool
}

// follower is the actor that takes changes of the configuration, and SIGHUP, to the parts of
// a session. It ends when a configuration needs a new session, which it sends to next.
type follower struct {
	runner
	vault   *session.Session
	watcher *watch.Watcher
	updates chan update
	next    chan *config.Config
}

// Run works until the context ends, or until a configuration needs a new session.
func (f follower) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case change := <-f.changes:
			if change.Config != nil {
				f.adopt(change.Config)
			}
			if change.Refused != nil {
				f.board.NoteRefused(change.Refused)
			}
			if change.NeedsSession {
				f.next <- change.Config
				if change.Hangup {
					f.systemd.Reloaded(ctx)
				}
				return nil
			}
			select {
			case f.updates <- update{change.Config, change.Hangup}:
			case <-ctx.Done():
				return nil
			}
			if change.Hangup {
				f.refresh(ctx)
				f.systemd.Reloaded(ctx)
			}
		}
	}
}

// onHangup begins what SIGHUP calls for. [follower.Run] ends it.
func (r runner) onHangup() {
	if r.process != nil {
		r.process.ReopenLog()
	}
	r.systemd.Reloading()
}

// adopt applies the settings of a new configuration that need no session.
func (f follower) adopt(cfg *config.Config) {
	logWarnings(cfg, f.log)
	f.board.NoteConfig(configStatus(cfg))
	f.listen(cfg)
	if f.process != nil {
		f.process.Apply(cfg)
	}
}

// refreshTimeout bounds the login that SIGHUP may call for.
const refreshTimeout = 10 * time.Second

// refresh reads every secret now. A policy that was attached to the role counts from the
// next login on, so where something is denied there is one first.
func (f follower) refresh(ctx context.Context) {
	limit, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	if err := f.vault.RefreshPolicies(limit); err != nil {
		f.log.Warn("login failed, keeping the token", "error", err)
	}
	f.watcher.Refresh()
}
