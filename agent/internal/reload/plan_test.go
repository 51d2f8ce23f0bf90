package reload

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/config"
)

func onChange(name string) config.Reload {
	return config.Reload{Target: config.Command{Args: []string{name}}}
}

func act(name string) Action { return Command{Args: []string{name}} }

// actionsByFile are the actions of jobs, each of which is about one file.
func actionsByFile(t *testing.T, jobs []Job) map[string][]Action {
	t.Helper()
	actions := map[string][]Action{}
	for _, job := range jobs {
		require.Len(t, job.Change.Files, 1)
		actions[job.Change.Files[0]] = job.Actions
	}
	return actions
}

func TestPlanner_RunsTheReloadsOfASetAfterThoseOfItsFiles(t *testing.T) {
	set := &config.Set{Reloads: []config.Reload{onChange("set")}}
	drops := []config.Drop{
		{Destination: "/a", Reloads: []config.Reload{onChange("a")}, Set: set},
		{Destination: "/b", Reloads: []config.Reload{onChange("b")}, Set: set},
		{Destination: "/c", Set: set},
	}
	jobs := Planner{}.Plan(set, []FileChange{{Drop: &drops[0]}, {Drop: &drops[1]}, {Drop: &drops[2]}}, nil)
	assert.Equal(t, map[string][]Action{
		"/a": {act("a"), act("set")}, "/b": {act("b"), act("set")}, "/c": {act("set")},
	}, actionsByFile(t, jobs))
	assert.Equal(t, []Action{act("a"), act("set")}, Planner{}.Actions(&drops[0]))
	assert.Empty(t, Planner{}.Plan(set, nil, nil), "nothing has changed")
}

func TestPlanner_RunsOnlyReloadsOnStartForTheFirstFile(t *testing.T) {
	onStart := onChange("start")
	onStart.OnStart = true
	set := &config.Set{Reloads: []config.Reload{onChange("set"), {Target: config.Command{Args: []string{"set-start"}}, OnStart: true}}}
	a := config.Drop{Destination: "/a", Reloads: []config.Reload{onChange("a"), onStart}, Set: set}
	b := config.Drop{Destination: "/b", Set: set}
	assert.Equal(t, map[string][]Action{"/a": {act("start"), act("set-start")}, "/b": {act("set-start")}},
		actionsByFile(t, Planner{}.Plan(set, []FileChange{{Drop: &a, IsFirst: true}, {Drop: &b, IsFirst: true}}, nil)))
	assert.Equal(t, map[string][]Action{"/a": {act("start"), act("set"), act("set-start")}, "/b": {act("set"), act("set-start")}},
		actionsByFile(t, Planner{}.Plan(set, []FileChange{{Drop: &a, IsFirst: true}, {Drop: &b}}, nil)), "a file of the set was there before")
	assert.True(t, Planner{}.Wants(&a, set, true))
	assert.False(t, Planner{}.Wants(&config.Drop{Reloads: []config.Reload{onChange("a")}}, nil, true))
	assert.True(t, Planner{}.Wants(&config.Drop{Reloads: []config.Reload{onChange("a")}}, nil, false))
}

func TestPlanner_LeavesOutTheCommandIfNoneIsSupervised(t *testing.T) {
	d := config.Drop{Destination: "/a", Reloads: []config.Reload{{Target: config.Child{}}}}
	assert.Empty(t, Planner{}.Plan(nil, []FileChange{{Drop: &d}}, nil))
	child := act("child")
	planner := Planner{Child: func(config.Child) Action { return child }}
	assert.Equal(t, map[string][]Action{"/a": {child}}, actionsByFile(t, planner.Plan(nil, []FileChange{{Drop: &d}}, nil)))
}

func TestPlanner_SaysWhenAFileWasWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	earlier := time.Now().Add(-time.Hour).Truncate(time.Second)
	require.NoError(t, os.Chtimes(file, earlier, earlier))
	synctest.Test(t, func(t *testing.T) {
		d := config.Drop{Destination: file, Reloads: []config.Reload{onChange("a")}}
		for isEarlier, want := range map[bool]time.Time{false: time.Now(), true: earlier} {
			jobs := Planner{}.Plan(nil, []FileChange{{Drop: &d, IsEarlier: isEarlier}}, []string{"v4lue"})
			require.Len(t, jobs, 1)
			assert.True(t, jobs[0].Change.At.Equal(want), "%s", jobs[0].Change.At)
			assert.Equal(t, []string{"v4lue"}, jobs[0].Change.Hidden)
		}
		d.Destination = "/nowhere/a"
		assert.Equal(t, time.Now(), Planner{}.Plan(nil, []FileChange{{Drop: &d, IsEarlier: true}}, nil)[0].Change.At)
	})
}
