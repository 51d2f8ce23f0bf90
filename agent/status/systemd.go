package status

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/smarteros/deaddrop/render/printable"
)

// patience is how long systemd is not told that the agent is ready while there are
// only files of an earlier run: they may be old, and Vault may just be slow.
const patience = 10 * time.Second

// tellAgain is how soon systemd is told again what it could not be told.
const tellAgain = time.Second

// Systemd tells systemd how the agent is: a line for "systemctl status", when it is
// ready, reloads and stops, and that it is alive where systemd watches over that. A
// nil one tells nobody, at no cost.
type Systemd struct {
	board    *Board
	watchdog time.Duration // within which systemd wants to hear; 0 is never
	patience time.Duration
	log      *slog.Logger
	complain sync.Once

	mu    sync.Mutex
	ready bool // as systemd was told
}

// NewSystemd returns nil where systemd does not wait to be told: without
// Type=notify in the unit.
func NewSystemd(board *Board, log *slog.Logger) *Systemd {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return nil
	}
	s := &Systemd{board: board, patience: patience, log: log}
	var err error
	if s.watchdog, err = daemon.SdWatchdogEnabled(false); err != nil {
		log.Warn("systemd's watchdog is not served", "error", err)
	}
	return s
}

// Run works until the context ends. It is the board's one listener.
//
// The agent is ready when every drop is current for the first time, or, where that
// takes longer than patience, when every drop has a file at least: what is ordered
// after the agent would otherwise wait for a Vault that it does not need.
func (s *Systemd) Run(ctx context.Context) {
	if s == nil {
		return
	}
	var watching sync.WaitGroup
	defer watching.Wait()
	if s.watchdog > 0 {
		watching.Go(func() { s.watch(ctx) })
	}
	contentWithOld, said := false, ""
	patience := time.After(s.patience)
	for {
		summary := s.board.Summary()
		news := ""
		if !s.isReady() && (summary.Ready || contentWithOld && summary.Served) {
			news = daemon.SdNotifyReady + "\n"
		}
		var again <-chan time.Time
		if line := statusLine(summary); line != said || news != "" {
			if s.tell(news + line) {
				said = line
				if news != "" {
					s.noteReady()
				}
			} else { // It may be that which systemd waits for.
				again = time.After(tellAgain)
			}
		}
		select {
		case <-ctx.Done():
			s.tell(daemon.SdNotifyStopping)
			return
		case <-s.board.Changed():
		case <-again:
		case <-patience:
			contentWithOld = true
		}
	}
}

// noteReady notes that systemd was told so.
func (s *Systemd) noteReady() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready = true
}

func statusLine(summary Summary) string {
	text := printable.Text(strings.Join(strings.Fields(summary.Text), " ")) // A line break would end it.
	if text == "" {
		return ""
	}
	return "STATUS=" + text
}

// watch tells systemd that the agent is alive, as long as it is.
func (s *Systemd) watch(ctx context.Context) {
	for ctx.Err() == nil {
		if !s.isAlive(ctx) {
			continue // That took its time.
		}
		s.tell(daemon.SdNotifyWatchdog)
		select {
		case <-ctx.Done():
		case <-time.After(s.watchdog / 2):
		}
	}
}

// isAlive tells whether the agent answers, or has said why it does not.
func (s *Systemd) isAlive(ctx context.Context) bool {
	limit, cancel := context.WithTimeout(ctx, s.watchdog/4)
	defer cancel()
	return s.board.IsBusy() || s.board.Ping(limit) == nil || s.board.IsBusy()
}

// Reloading says that the configuration is read again. [Systemd.Reloaded] has to
// follow.
func (s *Systemd) Reloading() {
	if s.isReady() {
		s.tell(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
	}
}

// Reloaded says that it was, once the agent has come to the end of a step with it.
func (s *Systemd) Reloaded(ctx context.Context) {
	if s.isReady() {
		_ = s.board.Ping(ctx)
		s.tell(daemon.SdNotifyReady)
	}
}

// isReady is false before the agent was ready once: what systemd is told of reloads
// would else make it so.
func (s *Systemd) isReady() bool {
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ready
}

// tell returns whether systemd has been told.
func (s *Systemd) tell(news string) bool {
	_, err := daemon.SdNotify(false, news)
	if err != nil {
		s.complain.Do(func() { s.log.Warn("systemd cannot be told how the agent is", "error", err) })
	}
	return err == nil
}
