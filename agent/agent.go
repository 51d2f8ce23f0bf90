// Package agent is the running agent: it wires session, watcher, renderer and
// reloads together.
package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"reflect"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/oklog/run"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/reload"
	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/agent/watch"
)

// ErrReload is what [Once] fails with when files are current, but a service
// could not be told.
var ErrReload = errors.New("reload failed")

// Once brings every file of the configuration up to date and returns. Faults
// that may pass are retried until the context ends. The errors of all drops are
// joined; they wrap the sentinels of packages session and watch.
func Once(ctx context.Context, cfg *config.Config, log *slog.Logger) error {
	vault, err := session.New(cfg.Vault, cfg.Auth, log)
	if err != nil {
		return err
	}
	err = session.Retry(ctx, log, session.IsTransient, func() error { return vault.Login(ctx) })
	if err != nil {
		return err
	}
	kv := watch.NewKV(vault)
	d := newDropper(cfg.Drops, log)
	reloads := d.step()
	for need := d.lacking(); len(need) > 0; need = d.lacking() {
		d.learn(watch.Fetch(ctx, kv, need, log))
		reloads = append(reloads, d.step()...)
	}
	queue := reload.NewQueue(log)
	queue.Add(reloads...)
	if err := queue.Flush(ctx); err != nil {
		return errors.Join(d.err(), ErrReload, err)
	}
	return d.err()
}

// Run keeps the files of a configuration current until the context ends. load
// reads the configuration again when its files have changed; a bad one is
// refused, and the old one kept. load is nil where there are no files.
func Run(ctx context.Context, cfg *config.Config, load func() (*config.Config, error), log *slog.Logger) error {
	queue := reload.NewQueue(log)
	for {
		next, err := runWith(ctx, cfg, load, queue, log)
		if err != nil || next == nil {
			return err
		}
		cfg = next // Vault or the login have changed: all starts anew.
	}
}

// runWith runs the actors of one configuration. It returns another one when
// that needs a new session, or nil when the context has ended.
func runWith(ctx context.Context, cfg *config.Config, load func() (*config.Config, error), queue *reload.Queue, log *slog.Logger) (*config.Config, error) {
	vault, err := session.New(cfg.Vault, cfg.Auth, log)
	if err != nil {
		return nil, err
	}
	watcher := watch.New(watch.NewKV(vault), cfg.Interval, log)
	keeper := &keeper{dropper: newDropper(cfg.Drops, log), watcher: watcher, queue: queue, interval: cfg.Interval, plans: make(chan *config.Config)}
	changes := &changes{cfg: cfg, load: load, watcher: watcher, plans: keeper.plans, log: log}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group run.Group
	for _, actor := range []func(context.Context) error{vault.Run, watcher.Run, keeper.Run, queue.Run, changes.Run} {
		group.Add(func() error { return actor(ctx) }, func(error) { cancel() })
	}
	err = group.Run()
	return changes.restart, err
}

// keeper is the actor that keeps files current.
type keeper struct {
	*dropper
	watcher  *watch.Watcher
	queue    *reload.Queue
	plans    chan *config.Config
	interval time.Duration
	wanted   []string
	trim     <-chan time.Time
}

// retryWrites is how soon a file that could not be written is tried again. What
// is wrong with a disk or a folder is not mended in a second.
const retryWrites = 5 * time.Second

// trimAfter is when the memory that reading the configuration and the first
// answers took is given back: an agent that then mostly sleeps would else keep
// it for minutes.
const trimAfter = 2 * time.Second

// Run works until the context ends.
func (k *keeper) Run(ctx context.Context) error {
	for {
		k.queue.Add(k.step()...)
		k.want(ctx)
		var retry <-chan time.Time
		if k.failed() {
			retry = time.After(retryWrites)
		}
		select {
		case <-ctx.Done():
			return nil
		case batch := <-k.watcher.Batches():
			k.report(batch)
			k.learn(batch)
		case cfg := <-k.plans:
			k.interval = cfg.Interval
			k.setDrops(cfg.Drops)
			k.wanted = nil
		case <-retry:
		case <-k.trim:
			debug.FreeOSMemory()
		}
	}
}

// want tells the watcher when other secrets are asked for than before.
func (k *keeper) want(ctx context.Context) {
	uses := k.uses()
	if k.wanted != nil && reflect.DeepEqual(uses, k.wanted) {
		return
	}
	k.watcher.Want(ctx, uses, k.interval)
	k.wanted = uses
	k.forget()
	k.trim = time.After(trimAfter)
}

// report logs what cannot be read, and what can be read again: each once, or as
// a number where there are many, as in an outage.
func (k *keeper) report(batch watch.Batch) {
	var failed, recovered []string
	for path, r := range batch {
		switch before := k.readings[path]; {
		case r.Err != nil:
			failed = append(failed, path)
		case before.Err != nil:
			recovered = append(recovered, path)
		}
	}
	const few = 3
	for i, path := range failed {
		if i == few {
			k.log.Warn("more secrets cannot be read", "count", len(failed)-few)
			break
		}
		k.log.Warn("secret cannot be read; its files stay as they are", "secret", path, "error", batch[path].Err)
	}
	for i, path := range recovered {
		if i == few {
			k.log.Info("more secrets can be read again", "count", len(recovered)-few)
			break
		}
		k.log.Info("secret can be read again", "secret", path)
	}
}

// hangups delivers SIGHUP until stop is called.
func hangups() (c <-chan os.Signal, stop func()) {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGHUP)
	return ch, func() { signal.Stop(ch) }
}
