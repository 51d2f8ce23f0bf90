package agent

import (
	"errors"
	"slices"
	"strings"

	"github.com/smarteros/deaddrop/agent/internal/command"
	"github.com/smarteros/deaddrop/agent/internal/output"
	"github.com/smarteros/deaddrop/render/drop"
)

// environment are the variables of the command.
type environment struct {
	pairs []string // NAME=value
	// isWhole says that all of them were rendered once.
	isWhole bool
	// hasChanged says that the command has not got them yet.
	hasChanged bool
	// isStarted says that the command has got its first ones.
	isStarted bool
}

// set replaces the variables.
func (e *environment) set(pairs []string) {
	e.hasChanged = e.hasChanged || !e.isWhole || !slices.Equal(pairs, e.pairs)
	e.pairs, e.isWhole = pairs, true
}

// publishEnvironment takes the variables in, once all of them could be rendered.
func (p *pipeline) publishEnvironment(r output.Rendered) {
	outputs := r.Group().Outputs
	var pairs []string
	for i, o := range outputs {
		if strings.ContainsRune(string(r.Files[i].Content), 0) {
			p.outputs.Fail(o, errors.New("the value holds NUL, which no environment can carry"), 0)
			return
		}
		pairs = append(pairs, o.Variable+"="+string(r.Files[i].Content))
	}
	if o, err := p.tooLarge(outputs, pairs); err != nil {
		p.outputs.Fail(o, err, 0)
		return
	}
	p.outputs.Succeed(r, slices.Repeat([]drop.Outcome{drop.Unchanged}, len(outputs)))
	p.environment.set(pairs)
}

// tooLarge returns the variable that is too large for the command to be started, or the
// largest if all together are.
func (p *pipeline) tooLarge(outputs []*output.Output, pairs []string) (*output.Output, error) {
	check := func(pairs []string) error { return command.CheckEnviron(nil, pairs) }
	if p.command != nil {
		check = p.command.CheckEnviron
	}
	err := check(pairs)
	var tooLarge *command.TooLargeError
	if !errors.As(err, &tooLarge) {
		return nil, nil
	}
	i := slices.IndexFunc(outputs, func(o *output.Output) bool { return o.Variable == tooLarge.Name })
	return outputs[max(i, 0)], err
}

// takeEnvironment returns the variables if they have changed, and not before all files were
// written once: the command may read them as it starts.
func (p *pipeline) takeEnvironment() (pairs []string, ok bool) {
	if len(p.awaited()) > 0 {
		return nil, false
	}
	ok = p.environment.hasChanged
	p.environment.isStarted = p.environment.isStarted || ok
	p.environment.hasChanged = false
	return p.environment.pairs, ok
}

// awaited are the drops, variables and for_each blocks that the command is not started
// without; none once it was.
func (p *pipeline) awaited() []string {
	if p.environment.isStarted {
		return nil
	}
	var names []string
	for _, o := range p.outputs.Outputs() {
		if o.Content() == nil && (!o.IsOfTenant() || o.Status() == output.Waiting || o.IsPending()) {
			names = append(names, o.Drop.Name)
		}
	}
	return append(names, p.blocks.Unknown(false)...)
}
