package status

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/render/drop"
)

// Server answers at the listeners of a configuration. It does nothing, and costs
// nothing, where there are none.
type Server struct {
	// Folders makes the missing folders of sockets. It is for the next [Server.Keep].
	Folders *drop.Plan

	board   *Board
	counts  func() Counts
	version string
	started time.Time
	log     *slog.Logger

	open []*endpoint
}

// NewServer returns a server without listeners. What has been done comes from counts,
// which may be called concurrently.
func NewServer(board *Board, counts func() Counts, version string, started time.Time, log *slog.Logger) *Server {
	return &Server{Folders: &drop.Plan{}, board: board, counts: counts, version: version, started: started, log: log}
}

// Keep opens the listeners that are new, and closes those that are not there any
// more. The others go on as if nothing had happened. It must not be called
// concurrently.
func (s *Server) Keep(listeners []config.Listener) {
	s.open = slices.DeleteFunc(s.open, func(e *endpoint) bool {
		if slices.ContainsFunc(listeners, e.isAt) {
			return false
		}
		e.close()
		return true
	})
	for _, at := range listeners {
		if !slices.ContainsFunc(s.open, func(e *endpoint) bool { return e.isAt(at) }) {
			s.open = append(s.open, s.start(at))
		}
	}
}

// Close closes all listeners.
func (s *Server) Close() { s.Keep(nil) }

// endpoint is a listener that is kept open.
type endpoint struct {
	at     config.Listener
	cancel context.CancelFunc
	done   sync.WaitGroup
}

func (e *endpoint) close() {
	e.cancel()
	e.done.Wait()
}

// isAt tells whether it is the same listener in every respect.
func (e *endpoint) isAt(at config.Listener) bool {
	same := func(a, b *int) bool { return a == nil && b == nil || a != nil && b != nil && *a == *b }
	mine := e.at
	if !same(mine.UID, at.UID) || !same(mine.GID, at.GID) {
		return false
	}
	mine.UID, mine.GID, at.UID, at.GID = nil, nil, nil, nil
	return mine == at
}

func (s *Server) start(at config.Listener) *endpoint {
	ctx, cancel := context.WithCancel(context.Background())
	e := &endpoint{at: at, cancel: cancel}
	folders := s.Folders // The field may be another one's by the time.
	e.done.Go(func() { s.run(ctx, at, folders) })
	return e
}

// run serves at a listener until the context ends. One that cannot be had is tried
// again, for files are more important: it stops nothing.
func (s *Server) run(ctx context.Context, at config.Listener, folders *drop.Plan) {
	always := func(error) bool { return true }
	for ctx.Err() == nil {
		var bound net.Listener
		err := session.Retry(ctx, s.log, always, func() (err error) {
			if at.Network == "unix" { // The listener would make the folder for the agent alone.
				err = folders.Make(filepath.Dir(at.Address))
			}
			if err == nil {
				bound, err = listen(ctx, at)
			}
			return err
		})
		if err != nil {
			return // The context has ended.
		}
		s.log.Info("tells how the agent is", "address", addressOf(at, bound), "metrics_only", at.MetricsOnly)
		s.serve(ctx, at, bound)
	}
}

// addressOf has the port that was chosen where the configuration leaves that open.
func addressOf(at config.Listener, bound net.Listener) string {
	if at.Network == "unix" {
		return at.String()
	}
	return bound.Addr().String()
}

// goodbye is how long answers under way may take when a listener is closed.
const goodbye = 500 * time.Millisecond

func (s *Server) serve(ctx context.Context, at config.Listener, bound net.Listener) {
	server := &http.Server{
		Handler:           s.handler(at),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		// Questions that wait for the agent are not waited for at the end.
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbye)
		defer cancel()
		if server.Shutdown(limit) != nil {
			_ = server.Close()
		}
	})
	err := server.Serve(bound)
	if !stop() {
		<-stopped
		return
	}
	_ = server.Close()
	s.log.Error("a status listener has failed, and is opened anew", "address", at.String(), "error", err)
}
