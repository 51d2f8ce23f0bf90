package agent

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/reload"
	"github.com/smarteros/deaddrop/render/drop"
)

func TestNewsOf_RunsTheReloadsOfASetAfterThoseOfItsFiles(t *testing.T) {
	command := func(name string) reload.Action { return reload.Command{Args: []string{name}} }
	reloads := func(name string) []config.Reload {
		return []config.Reload{{Target: config.Command{Args: []string{name}}}}
	}
	r := rendered{group: group{set: &config.Set{Reloads: reloads("set")}, states: []*state{
		{wrote: true, drop: config.Drop{Destination: "/a", Reloads: reloads("a")}},
		{wrote: true, drop: config.Drop{Destination: "/b", Reloads: reloads("b")}},
		{wrote: true, drop: config.Drop{Destination: "/c"}},
		{wrote: true, drop: config.Drop{Destination: "/same", Reloads: reloads("same")}},
	}}}
	actions := map[string][]reload.Action{}
	for _, job := range new(dropper).newsOf(r, []drop.Outcome{drop.Changed, drop.Changed, drop.Changed, drop.Unchanged}) {
		assert.Len(t, job.Change.Files, 1)
		actions[job.Change.Files[0]] = job.Actions
	}
	assert.Equal(t, map[string][]reload.Action{
		"/a": {command("a"), command("set")}, "/b": {command("b"), command("set")}, "/c": {command("set")},
	}, actions)
}
