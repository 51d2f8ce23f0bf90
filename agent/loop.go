package agent

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/smarteros/deaddrop/agent/internal/footprint"
	"github.com/smarteros/deaddrop/agent/internal/reload"
	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/agent/status"
	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render"
)

// vaultSession is what the loop says of the session. [session.Session] is one.
type vaultSession interface {
	Address() string
	Status() session.Status
	CanRefreshPolicies() bool
}

// loop is the actor that keeps files current: one select, which passes values between the
// parts.
type loop struct {
	*pipeline
	vault   vaultSession
	watcher *watch.Watcher
	queue   *reload.Queue
	board   *status.Board
	updates <-chan update
	signals <-chan os.Signal // each asks for the status, in the log
	started time.Time

	wanted   []render.Request // by the watcher
	held     []*watch.Lease   // in files, as the watcher knows
	trim     <-chan time.Time
	inspect  <-chan time.Time // files: those that were published, and those that templates have read
	isLogged bool             // the log has what the command waits for
}

// trimAfter is when memory is given back that reading the configuration, the first secrets
// or a report took: an agent that then mostly sleeps would keep it for minutes.
const trimAfter = 2 * time.Second

// Run works until the context ends, or until a secret is missing that must not be.
func (l *loop) Run(ctx context.Context) error {
	var firstReads <-chan time.Time
	if l.command != nil {
		firstReads = time.After(firstReadsTime)
	}
	for {
		l.work(ctx)
		if err := l.outputs.Fatal(); err != nil {
			return err
		}
		if !l.wait(ctx, firstReads) {
			return nil
		}
	}
}

// work does what is due, and tells all other parts what they have to know of it.
func (l *loop) work(ctx context.Context) {
	for {
		l.act(ctx)
		if recovered := l.want(ctx); !recovered {
			break
		}
	}
	l.settle(ctx)
	l.logAwaited()
	l.board.Note(l.summary())
}

// wait waits for something to do. It reports false when the context has ended.
func (l *loop) wait(ctx context.Context, firstReads <-chan time.Time) bool {
	var due <-chan time.Time
	if at := l.nextAttempt(); !at.IsZero() {
		due = time.After(time.Until(at))
	}
	if l.inspect == nil {
		l.inspect = time.After(l.cfg.Interval)
	}
	for {
		select {
		case <-ctx.Done():
			return false
		case batch := <-l.watcher.Batches():
			l.logReadings(batch)
			l.learn(batch)
		case update := <-l.updates:
			if update.isHangup {
				l.noteChangedFiles()
				l.restoreChanged(true)
			}
			if update.config != nil {
				l.configure(update.config)
				l.wanted = nil
			}
		case leases := <-l.watcher.Revoked():
			l.ledger.NoteRevoked(leases)
		case <-l.queue.Settled(): // loop.act notes it.
		case <-l.inspect:
			l.inspect = nil
			l.noteChangedFiles()
			l.restoreChanged(false)
		case <-due:
		case <-firstReads:
		case <-l.trim:
			l.trim = nil
			footprint.Trim()
			continue
		case <-l.signals:
			l.logStatus(ctx)
			continue
		case answer := <-l.board.Asked():
			answer <- l.report(ctx)
			if l.trim == nil {
				l.trim = time.After(trimAfter)
			}
			continue
		case <-l.board.Pinged():
			continue
		}
		return true
	}
}

// act publishes what is due, and queues the reloads.
func (l *loop) act(ctx context.Context) {
	called := l.sync(ctx)
	if l.command != nil {
		if pairs, changed := l.takeEnvironment(); changed {
			called = append(called, reload.Job{Change: reload.Change{At: time.Now()}, Actions: l.command.SetEnviron(pairs)})
		}
	}
	if l.blocks.TakeNewReloads() || l.hasNewReloads {
		l.retain()
	}
	l.queue.Add(called...)
	l.noteReloads(l.queue.Pending())
}

// retain tells the queue which reloads there are.
func (l *loop) retain() {
	l.hasNewReloads = false
	all := l.subscriptions()
	if l.command != nil {
		all = append(all, reload.Subscription{Actions: l.command.Renewal()})
	}
	l.queue.Retain(l.cfg.Splay, all)
}

// want tells the watcher which secrets are asked for, if that has changed. It reports
// whether some of them are known from certificates of an earlier run.
func (l *loop) want(ctx context.Context) (recovered bool) {
	requests := l.readings.Requests()
	if l.wanted != nil && slices.Equal(requests, l.wanted) {
		return false
	}
	known := l.recoverCertificates(1)
	l.watcher.Want(ctx, watch.Wanted{
		Requests: requests, Known: known, Interval: l.cfg.Interval,
		Shares: watch.Shares{Lease: l.cfg.LeaseShare, Cert: l.cfg.CertShare},
	})
	l.wanted = requests
	l.readings.Prune()
	l.trim = time.After(trimAfter)
	return len(known) > 0
}

// settle tells the watcher which leases stand in files, if that has changed.
func (l *loop) settle(ctx context.Context) {
	settled := l.settled()
	if len(settled.Orphans) == 0 && slices.Equal(settled.InFiles, l.held) {
		return
	}
	l.watcher.Settle(ctx, settled)
	l.held = settled.InFiles
}

// logReadings logs which secrets cannot be read, and which can be read again: each once, or
// as a number if there are many, as in an outage.
func (l *loop) logReadings(batch watch.Batch) {
	var failed, recovered []render.Request
	for request, r := range batch {
		before, _ := l.readings.Reading(request)
		switch {
		case r.Err != nil && l.isExpected(request, r.Err):
		case r.Err != nil:
			failed = append(failed, request)
		case before.Err != nil && !l.isExpected(request, before.Err):
			recovered = append(recovered, request)
		}
	}
	const few = 3
	for i, request := range failed {
		if i == few {
			l.log.Warn("more secrets cannot be read", "count", len(failed)-few)
			break
		}
		message := "secret cannot be read, no file written yet"
		if l.hasFileOf(request) {
			message = "secret cannot be read, keeping last good files"
		}
		if errors.Is(batch[request].Err, watch.ErrMissing) {
			message = "secret is not there" // What becomes of its files depends on them.
		}
		args := []any{"secret", request, "error", batch[request].Err}
		if watch.IsPolicyDenial(batch[request].Err) && l.vault.CanRefreshPolicies() {
			args = append(args, "hint", "a policy that is attached to the role counts from the next login on: SIGHUP makes one now")
		}
		l.log.Warn(message, args...)
	}
	for i, request := range recovered {
		if i == few {
			l.log.Info("more secrets can be read again", "count", len(recovered)-few)
			break
		}
		l.log.Info("secret can be read again", "secret", request)
	}
}

// firstReadsTime is how long the first reads of all secrets may take before the log says
// that the command waits for them.
const firstReadsTime = 5 * time.Second

// logAwaited logs once what the command waits for, when all secrets were asked for.
func (l *loop) logAwaited() {
	if l.command == nil || l.command.HasEnviron() || l.isLogged || len(l.readings.Unresolved()) > 0 && time.Since(l.started) < firstReadsTime {
		return
	}
	const few = 10
	names := l.awaited()
	if len(names) == 0 {
		return
	}
	l.isLogged = true
	l.log.Warn("waiting to start the command", "command", l.command.Name(), "drop", names[:min(few, len(names))], "count", len(names))
}
