package agent

import (
	"context"
	"errors"
	"log/slog"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/reload"
	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/agent/watch"
)

// ErrReload is what [Once] fails with if files are current, but a service could not be
// reloaded.
var ErrReload = errors.New("reload failed")

// Once brings every file of the configuration up to date and returns. Transient failures are
// retried until the context ends. The token is revoked at the end, unless keepToken is set
// or a lease depends on it. The errors of all drops are joined; they wrap the sentinels of
// packages session and watch.
func Once(ctx context.Context, cfg *config.Config, keepToken bool, log *slog.Logger) error {
	last, release := outliving(ctx, shutdownTime)
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
	logWarnings(cfg, log)
	secrets := watch.NewSecrets(vault)
	p := newPipeline(log)
	p.configure(filesOnly(cfg))
	var called []reload.Job
	p.resolve(ctx, secrets, func() { called = append(called, p.sync(ctx)...) })
	queue := reload.NewQueue(log)
	queue.Add(called...)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		ctx = last // The files that could be written are, and services have to know.
	}
	failed := queue.Flush(ctx)
	p.noteReloads(queue.Pending())

	logout, cancel := context.WithTimeout(last, logoutTime)
	defer cancel()
	p.revokeUnused(logout, secrets)
	p.close(queue.Pending()) // Removals have ended whose leases are revoked.
	vault.Close(logout, keepToken)
	if failed != nil {
		failed = errors.Join(ErrReload, failed)
	}
	return errors.Join(p.err(), unwritten, failed)
}

// resolve reads secrets until all that are asked for are known, and calls sync whenever some
// are.
func (p *pipeline) resolve(ctx context.Context, secrets watch.Reader, sync func()) {
	sync()
	for {
		p.recoverCertificates(p.cfg.CertShare)
		unresolved := p.readings.Unresolved()
		watch.Fetch(ctx, secrets, unresolved, p.log, func(batch watch.Batch) {
			p.learn(batch)
			sync()
		})
		sync()
		if len(unresolved) == 0 && len(p.readings.Unresolved()) == 0 {
			return
		}
	}
}

// filesOnly is the configuration without the command that is supervised.
func filesOnly(cfg *config.Config) *config.Config {
	files := *cfg
	files.Supervise = nil
	return &files
}

// err joins the failures of all drops and tenants.
func (p *pipeline) err() error {
	return errors.Join(append(p.blocks.Errs(), p.outputs.Errs()...)...)
}
