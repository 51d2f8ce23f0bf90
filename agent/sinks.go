package agent

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/output"
	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/render/drop"
)

// sinks write every token of the session into files.
type sinks struct {
	files  []config.Sink
	plan   *drop.Plan  // of the folders that are made
	tokens chan string // the latest
	log    *slog.Logger
}

// newSinks shares the session's tokens, where there are sinks for them.
func newSinks(cfg *config.Config, vault *session.Session, log *slog.Logger) *sinks {
	s := &sinks{files: cfg.Sinks, plan: cfg.Folders(), tokens: make(chan string, 1), log: log}
	if len(s.files) > 0 {
		vault.Share(s.take)
	}
	return s
}

// take replaces a token that was not written yet.
func (s *sinks) take(token string) {
	for {
		select {
		case s.tokens <- token:
			return
		case <-s.tokens:
		}
	}
}

// Run writes tokens until the context ends. What fails is said once, and tried
// again.
func (s *sinks) Run(ctx context.Context) error {
	var token string
	var retry <-chan time.Time
	said := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case token = <-s.tokens:
		case <-retry:
		}
		retry = nil
		err := s.write(token)
		if err == nil {
			said = ""
			continue
		}
		retry = time.After(output.RetryAfter)
		if err.Error() != said {
			s.log.Error("the token cannot be written to its sink", "error", err)
			said = err.Error()
		}
	}
}

// flush writes the token that is waiting.
func (s *sinks) flush() error {
	select {
	case token := <-s.tokens:
		return s.write(token)
	default:
		return nil
	}
}

func (s *sinks) write(token string) error {
	var errs []error
	for _, to := range s.files {
		file := to.File()
		file.Content = []byte(token)
		r := s.plan.Write([]drop.File{file})[0]
		errs = append(errs, r.Err, r.Unsynced)
		if r.Outcome.IsChange() {
			s.log.Info("wrote the token to its sink", "path", to.Path)
		}
	}
	return errors.Join(errs...)
}
