package doctor

import (
	"context"
	"fmt"
	"strings"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/agent/status"
	"github.com/smarteros/deaddrop/render"
)

// compare asks a running agent what it is denied, and warns of what this login may read:
// the token of the agent has the policies that the role had at its login.
func (e *exam) compare(ctx context.Context, at config.Listener) {
	if at.MetricsOnly || e.found == nil {
		return
	}
	limit, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	client, err := status.NewClient(at)
	if err != nil {
		return
	}
	report, err := client.Report(limit)
	if err != nil {
		return // Another program may have the address, or it may not be this user's to ask.
	}
	for _, s := range report.Secrets {
		for _, r := range []render.Request{render.Read(s.Path), render.List(s.Path)} {
			found, asked := e.found[r]
			if !asked || found.err != nil || found.untried || !strings.Contains(s.Error, session.ErrDenied.Error()) {
				continue
			}
			e.warn("agent", s.Path, "the running agent is denied this, and a new login is not: the role has other policies than at the agent's login",
				fmt.Sprintf("have it log in again: kill -HUP %d   (or \"systemctl reload UNIT\", \"docker kill --signal HUP CONTAINER\"). By itself it does so after 5 minutes, then ever more rarely", report.PID))
		}
	}
}
