package status

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/render/printable"
)

const (
	// aliveWithin is how soon the agent has to answer, unless it has said why not.
	aliveWithin = 3 * time.Second
	// reportWithin is how long it is waited for a report. Then the agent is busy, and
	// what can be said without it is said.
	reportWithin = 2 * time.Second
	// mostBad is how many drops are named that are not as they should be.
	mostBad = 10
)

// handler answers at one listener.
func (s *Server) handler(at config.Listener) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", s.metrics)
	mux.HandleFunc("GET /agent/v1/metrics", s.metrics) // Vault Agent's.
	if !at.MetricsOnly {
		mux.HandleFunc("GET /healthz", s.healthz)
		mux.HandleFunc("GET /readyz", s.readyz)
		mux.HandleFunc("GET /status", s.status)
	}
	return knownHost(at, mux)
}

// knownHost keeps web pages from reading what only this machine may: a page whose
// name is made to point here asks with that name. What others may reach anyway goes
// by many names.
func knownHost(at config.Listener, next http.Handler) http.Handler {
	if at.Network == "unix" || !at.IsLoopback() {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		if host = strings.Trim(host, "[]"); host != "localhost" && net.ParseIP(host) == nil {
			http.Error(w, "ask by address, or as localhost", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// healthz tells whether the agent is alive: it answers, or is in something that ends.
func (s *Server) healthz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), aliveWithin)
	defer cancel()
	switch {
	case s.board.IsBusy(), s.board.Ping(ctx) == nil, s.board.IsBusy():
		text(w, http.StatusOK, "alive")
	default:
		text(w, http.StatusServiceUnavailable, fmt.Sprintf("the agent has not answered for %v", aliveWithin))
	}
}

// readyz tells whether every drop is current, and which are not.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	is := s.board.Summary()
	if is.Ready {
		text(w, http.StatusOK, is.Text)
		return
	}
	lines := []string{is.Text}
	if is.Text == "" {
		lines[0] = "the agent has just started"
	}
	if report := s.ask(r.Context()); report != nil {
		lines = append([]string{report.Text}, report.bad()...)
	}
	text(w, http.StatusServiceUnavailable, strings.Join(lines, "\n"))
}

// bad are lines about the drops that are not as they should be.
func (r *Report) bad() []string {
	var lines []string
	more := 0
	for _, d := range r.Drops {
		switch {
		case d.State.IsGood():
		case len(lines) == mostBad:
			more++
		default:
			line := fmt.Sprintf("%s: %s", printable.Text(d.Name), d.State)
			if d.Error != "" {
				line += ": " + printable.OneLine(d.Error)
			}
			lines = append(lines, line)
		}
	}
	if more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	if r.Session.Error != "" && !r.Session.LoggedIn {
		lines = append(lines, "not logged in: "+printable.OneLine(r.Session.Error))
	}
	return lines
}

// status shows all that the agent knows of itself.
func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	report := s.ask(r.Context())
	if report == nil {
		w.Header().Set("Retry-After", "5")
		text(w, http.StatusServiceUnavailable, "the agent is busy, such as with a check of new content; ask again soon. "+s.board.Summary().Text)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	lines := json.NewEncoder(printable.NewJSONWriter(w))
	lines.SetIndent("", "  ")
	lines.SetEscapeHTML(false)
	_ = lines.Encode(report)
}

func (s *Server) metrics(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	report := s.ask(r.Context())
	_ = WriteMetrics(w, s.version, s.board.Summary(), s.counts(), report, thisProcess(s.started))
}

// ask returns a report, or nil where the agent is busy.
func (s *Server) ask(ctx context.Context) *Report {
	ctx, cancel := context.WithTimeout(ctx, reportWithin)
	defer cancel()
	report, err := s.board.Ask(ctx)
	if err != nil {
		return nil
	}
	report.Version = s.version
	// Scripts go through lists without asking whether there are any.
	report.Secrets, report.Drops, report.Reloads = listed(report.Secrets), listed(report.Drops), listed(report.Reloads)
	return report
}

// listed is a list that JSON shows as one where it is empty, too.
func listed[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func text(w http.ResponseWriter, code int, lines string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = io.WriteString(printable.NewWriter(w), lines+"\n")
}
