package doctor

import (
	"errors"

	"github.com/smarteros/deaddrop/agent/internal/journal"
	"github.com/smarteros/deaddrop/render/drop"
)

// state checks that the agent has somewhere to keep leases, pending reloads and tenants
// for its next start.
func (e *exam) state(places []place) {
	dir, err := journal.Directory(e.cfg.StateDir)
	switch {
	case err == nil:
		e.ok("state", dir, "only user %s can write to it", me())
	case !errors.Is(err, journal.ErrNoDirectory):
		detail, fix := err.Error(), journal.Hint
		var untrusted *drop.TrustError
		if errors.As(err, &untrusted) {
			detail, fix = untrusted.Path+" "+untrusted.Detail, untrusted.Hint+"\nOr "+journal.Hint
		}
		e.warn("state", "directory", detail+", so certificates, leases and pending reloads are forgotten at a restart", fix)
	default:
		for _, p := range places {
			if drop.CheckOwn(p.path) != nil {
				e.warn("state", "directory", "there is none, so certificates, leases and pending reloads are forgotten at a restart", journal.Hint)
				return
			}
		}
		e.ok("state", "directory", "there is none, and files keep their state in hidden files beside them")
	}
}
