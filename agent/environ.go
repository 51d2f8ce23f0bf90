package agent

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/command"
	"github.com/smarteros/deaddrop/render"
)

// environ are the variables of a supervised command.
type environ struct {
	pairs []string // NAME=value
	whole bool     // all of them were rendered once
	news  bool     // they were not handed on yet
	// started says that the command has got its first ones, said that the log has what
	// it waits for.
	started, said bool
}

// envDrop is a variable as a drop, which it is but for its file.
func envDrop(e config.EnvTemplate, wait config.Wait) config.Drop {
	d := config.Drop{Name: e.Name, Template: e.Template, OnMissing: config.KeepFile, Wait: wait}
	d.Format = render.FormatTemplate
	return d
}

// setEnviron takes the variables in, when all of them could be rendered.
func (d *dropper) setEnviron(r rendered) {
	var pairs []string
	for i, s := range r.states {
		if strings.ContainsRune(string(r.contents[i]), 0) {
			d.fail(s, errors.New("the value holds NUL, which no environment can carry"))
			d.follow(r.group, s, s.err)
			return
		}
		pairs = append(pairs, s.env+"="+string(r.contents[i]))
	}
	if s, err := d.checkEnviron(r.group, pairs); err != nil {
		s.dirty = false // It stays too large until a secret changes.
		d.fail(s, err)
		d.follow(r.group, s, err)
		return
	}
	for _, s := range r.states {
		s.dirty = false
		d.succeed(s, 0)
	}
	d.environ.news = d.environ.news || !d.environ.whole || !slices.Equal(pairs, d.environ.pairs)
	d.environ.pairs, d.environ.whole = pairs, true
}

// checkEnviron finds the variable that is too large for the command to be started, or
// the largest where all together are.
func (d *dropper) checkEnviron(g group, pairs []string) (*state, error) {
	check := func(pairs []string) error { return command.CheckEnviron(nil, pairs) }
	if d.process != nil {
		check = d.process.CheckEnviron
	}
	err := check(pairs)
	var wrong *command.TooLargeError
	if !errors.As(err, &wrong) {
		return nil, nil
	}
	for _, s := range g.states {
		if s.env == wrong.Name {
			return s, err
		}
	}
	return g.states[0], err
}

// takeEnviron returns the variables when they are not what they were, and not
// before all files were written once: the command may read them as it starts.
func (d *dropper) takeEnviron() ([]string, bool) {
	if len(d.awaited()) > 0 {
		return nil, false
	}
	news := d.environ.news
	d.environ.started = d.environ.started || news
	d.environ.news = false
	return d.environ.pairs, news
}

// awaited are the drops, variables and for_each blocks that the command is not started
// without; none once it was.
func (d *dropper) awaited() []string {
	if d.environ.started {
		return nil
	}
	var names []string
	for _, s := range d.states {
		if !s.wrote && (s.of == nil || s.lacks || s.dirty) {
			names = append(names, s.drop.Name)
		}
	}
	for _, f := range d.followed {
		if !f.began {
			names = append(names, f.of.Name)
		}
	}
	return names
}

// firstRound is how long the first reads of all secrets may take before the log says
// that the command waits for them.
const firstRound = 5 * time.Second

// logAwaited logs once what the command waits for, when all secrets were asked for.
func (k *keeper) logAwaited() {
	if k.process == nil || k.process.HasEnviron() || k.environ.said || len(k.lacking()) > 0 && time.Since(k.started) < firstRound {
		return
	}
	const few = 10
	names := k.awaited()
	if len(names) == 0 {
		return
	}
	k.environ.said = true
	k.log.Warn("waiting to start the command", "command", k.process.Name(), "drop", names[:min(few, len(names))], "count", len(names))
}

// endEnviron forgets the leases of a command that has ended: no one has them any
// more.
func (d *dropper) endEnviron() {
	for _, s := range d.states {
		if s.env != "" {
			s.leases, s.inFile = nil, nil
		}
	}
}
