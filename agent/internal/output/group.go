package output

import (
	"fmt"
	"slices"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/filestate"
)

// Group are the outputs that change together: those of a set, the variables of the command,
// or one file alone.
type Group struct {
	// Set is what the outputs belong to, or nil.
	Set     *config.Set
	Outputs []*Output

	schedule schedule
}

// IsEnvironment reports whether the outputs are variables.
func (g *Group) IsEnvironment() bool { return g.Outputs[0].Variable != "" }

// NextAttempt is when the group is to be rendered next; zero if nothing is to be done.
func (g *Group) NextAttempt() time.Time { return g.schedule.at }

// changed schedules the group after a change of something that it is made of. Changes of
// content that is published are gathered as the configuration says.
func (g *Group) changed() {
	wait := g.Outputs[0].Drop.Wait // In a set it is the set's.
	for _, o := range g.Outputs {
		if wait.Min == 0 || o.content == nil {
			g.schedule.now()
			return
		}
	}
	g.schedule.gather(wait.Min, wait.Max)
}

// GroupError is the failure of an output whose group has failed. It is logged for the
// output that is the cause, not again for the others.
type GroupError struct {
	// Set is the name of the set, or "" for the variables of the command.
	Set string
	// Output is the name of the output that has failed.
	Output string
	Err    error
}

func (e *GroupError) Error() string {
	of := "it changes together with the other variables"
	if e.Set != "" {
		of = fmt.Sprintf("it changes together with set %q", e.Set)
	}
	return fmt.Sprintf("%s, and %q has failed: %v", of, e.Output, e.Err)
}

func (e *GroupError) Unwrap() error { return e.Err }

// hasFile reports whether a file of the group exists, of any writer.
func (g *Group) hasFile() bool {
	return slices.ContainsFunc(g.Outputs, func(o *Output) bool { return filestate.Exists(o.Drop.Destination) })
}

// showsOutput reports whether a check or a reload of the group is to log its output.
func (g *Group) showsOutput() bool {
	var checks []*config.Check
	var reloads []config.Reload
	for _, o := range g.Outputs {
		checks, reloads = append(checks, o.Drop.Check), append(reloads, o.Drop.Reloads...)
	}
	if g.Set != nil {
		checks, reloads = append(checks, g.Set.Check), append(reloads, g.Set.Reloads...)
	}
	return slices.ContainsFunc(checks, func(c *config.Check) bool { return c != nil && c.ShowOutput }) ||
		slices.ContainsFunc(reloads, config.Reload.ShowsOutput)
}
