package agent

import (
	"cmp"
	"time"

	"github.com/smarteros/deaddrop/agent/reload"
)

// logStatus writes to the log how the session and each drop are: current, or
// why not and since when. It is an answer to SIGUSR1.
func (k *keeper) logStatus() {
	session := []any{"address", k.vault.Address()}
	switch ends, loggedIn := k.vault.TokenEnds(); {
	case !loggedIn:
		session = append(session, "state", "not logged in")
	case ends.IsZero():
		session = append(session, "state", "logged in")
	default:
		session = append(session, "state", "logged in", "token_ends", ends.UTC().Format(time.RFC3339))
	}
	k.log.Info("status of the session", session...)
	for _, f := range k.followed {
		args := []any{"drop", f.of.Name, "for_each", cmp.Or(f.of.Folder, "a list"), "tenants", len(f.members)}
		if f.err != nil {
			args = append(args, "error", f.err)
		}
		k.log.Info("status of a for_each", args...)
		for key, m := range f.members {
			if m.err != nil {
				k.log.Info("status of a tenant", "drop", f.of.Name, "tenant", key, "state", "failed", "error", m.err)
			}
		}
	}
	for _, s := range k.states {
		state, why := s.status()
		args := []any{"drop", s.drop.Name, "destination", s.drop.Destination, "state", state}
		if !s.since.IsZero() {
			args = append(args, "since", s.since.UTC().Format(time.RFC3339))
		}
		if why != nil {
			args = append(args, "error", why)
		}
		k.log.Info("status of a drop", args...)
	}
	for _, r := range k.queue.States() {
		k.log.Info("status of a reload", reloadStatus(r)...)
	}
}

func reloadStatus(r reload.State) []any {
	args := []any{"by", r.By}
	switch {
	case r.Err != nil && r.Tries == 0:
		args = append(args, "state", "not ready", "since", r.Since.UTC().Format(time.RFC3339), "error", r.Err)
	case r.Err != nil:
		args = append(args, "state", "failed", "since", r.Since.UTC().Format(time.RFC3339), "tries", r.Tries, "error", r.Err)
	case r.Waiting:
		args = append(args, "state", "waiting")
	case r.Done.IsZero():
		args = append(args, "state", "not needed yet")
	default:
		args = append(args, "state", "done", "since", r.Done.UTC().Format(time.RFC3339))
	}
	if r.Waiting {
		args = append(args, "next", r.Next.UTC().Format(time.RFC3339))
	}
	return args
}

// status is one word for how a drop is, and why where it is not well.
func (s *state) status() (word string, why error) {
	switch {
	case s.isGone:
		return "its tenant is gone", s.err
	case s.lacks:
		return "waiting", nil
	case s.absent:
		return "absent", nil
	case s.err != nil && s.wrote:
		return "stale", s.err
	case s.err != nil:
		return "failed", s.err
	case s.gone:
		return "removed", s.stale
	case s.stale != nil:
		return "stale", s.stale
	}
	return "current", nil
}
