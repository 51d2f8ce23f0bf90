package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/command"
	"github.com/smarteros/deaddrop/agent/internal/reload"
)

// commands looks at what is run, or told, when files change. Of drops that have the
// same, it looks once.
func (e *exam) commands(ctx context.Context) {
	seen := map[string]bool{}
	once := func(name, subject string) bool {
		first := !seen[name+subject]
		seen[name+subject] = true
		return first
	}
	for _, s := range e.drops {
		checks, reloads := []*config.Check{s.drop.Check}, s.drop.Reloads
		if s.drop.Set != nil {
			checks, reloads = append(checks, s.drop.Set.Check), append(reloads[:len(reloads):len(reloads)], s.drop.Set.Reloads...)
		}
		for _, c := range checks {
			if c != nil && once("check", fmt.Sprint(c.Args)) {
				e.program("check", c.Args)
			}
		}
		for _, r := range reloads {
			if once("reload", r.String()) {
				e.reload(ctx, r)
			}
		}
	}
	if e.cfg.Supervise != nil {
		e.program("exec", e.cfg.Supervise.Args)
	}
}

// program tells whether a command can be found. It is not run.
func (e *exam) program(name string, args []string) {
	if err := (command.Spec{Args: args}).Check(); err != nil {
		detail, fix := cutFix(err.Error())
		e.fail(name, args[0], err, detail, cmp.Or(fix, "make it executable: chmod +x "+args[0])+"; in a container, it has to be in deaddrop's own image")
		return
	}
	e.ok(name, args[0], "the program is there; not run")
}

// reload asks an action whether it could be done.
func (e *exam) reload(ctx context.Context, r config.Reload) {
	var err error
	if action, ok := reload.New(r.Target, nil); ok { // Else it is the agent's own command.
		err = action.Check(ctx)
	}
	var absent *reload.Absent
	if err == nil {
		e.ok("reload", r.String(), "could be told now; not done")
		return
	}
	detail, fix := cutFix(strings.TrimPrefix(err.Error(), r.String()+": "))
	if errors.As(err, &absent) {
		e.warn("reload", r.String(), detail, cmp.Or(fix, "is the service running?")+" If it is only to be started later, this is in order.")
		return
	}
	e.fail("reload", r.String(), err, detail, cmp.Or(fix, "see \"Reloads\" in the README for what this kind of reload needs"))
}

// listeners looks at where the agent itself is asked.
func (e *exam) listeners(ctx context.Context) {
	for _, l := range e.cfg.Listeners {
		if conn, err := dial(ctx, l.Network, l.Address); err == nil {
			_ = conn.Close()
			e.ok("listener", l.String(), "answers already: an agent is running, or another program has the address")
			e.compare(ctx, l)
			continue
		}
		if l.Network == "unix" {
			e.socket(l)
			continue
		}
		bound, err := new(net.ListenConfig).Listen(ctx, l.Network, l.Address)
		if err != nil {
			e.fail("listener", l.String(), errCheck, "it cannot be listened at: "+reason(err), "choose another address, such as 127.0.0.1:9810; ports below 1024 are root's")
			continue
		}
		_ = bound.Close()
		e.exposed(l)
	}
}

// socket tells whether a socket can be made.
func (e *exam) socket(l config.Listener) {
	folder := filepath.Dir(l.Address)
	dir, info, err := nearest(folder)
	if err != nil || !info.IsDir() || !writable(dir) {
		e.fail("listener", l.String(), errCheck, "user "+me()+" may not make it in "+dir, fmt.Sprintf("mkdir -p %s && chown %s %s", folder, me(), folder))
		return
	}
	e.exposed(l)
}

// exposed tells who can ask.
func (e *exam) exposed(l config.Listener) {
	if l.IsLoopback() || l.MetricsOnly {
		e.ok("listener", l.String(), "is free")
		return
	}
	e.warn("listener", l.String(), "whoever reaches this machine may ask for the state of the agent: names of secrets and files, no values",
		"listen at 127.0.0.1 or at a socket, or write role = \"metrics_only\"")
}
