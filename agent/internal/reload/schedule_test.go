package reload

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// simulation drives a schedule and checks its rules at each step.
type simulation struct {
	*testing.T
	schedule
	now  time.Time
	jobs map[string]*simulatedJob // by the file of their change
}

type simulatedJob struct {
	keys                 []string
	attempted, succeeded map[string]bool
}

func newSimulation(t *testing.T) *simulation {
	return &simulation{T: t, schedule: schedule{targets: map[string]*target{}}, now: time.Unix(1e9, 0), jobs: map[string]*simulatedJob{}}
}

// addBatch adds a batch of jobs, each as the names of its actions.
func (s *simulation) addBatch(splay time.Duration, jobs ...string) {
	due := s.newBatch(s.now, s.now.Add(splay), splay > 0)
	for _, job := range jobs {
		file := fmt.Sprint("file", len(s.jobs))
		added := &simulatedJob{keys: strings.Fields(job), attempted: map[string]bool{}, succeeded: map[string]bool{}}
		var actions []namedAction
		for _, key := range added.keys {
			actions = append(actions, namedAction{key: key, name: key})
		}
		s.jobs[file] = added
		s.add(Change{Files: []string{file}}, actions, due)
	}
	s.check()
}

// startDue returns the names of the actions that begin.
func (s *simulation) startDue() []string {
	begun, next := s.start(s.now, nil)
	var names []string
	for _, a := range begun {
		names = append(names, a.target.name)
		assert.False(s, a.due.After(s.now), "an action runs before it is due")
		for _, file := range a.change.Files {
			job := s.jobs[file]
			for _, earlier := range job.keys[:slices.Index(job.keys, a.target.key)] {
				assert.True(s, job.attempted[earlier], "%s begins before %s in job %v", a.target.key, earlier, job.keys)
			}
		}
	}
	assert.True(s, next.IsZero() || next.After(s.now))
	s.check()
	return names
}

// finish ends a running attempt.
func (s *simulation) finish(a *attempt, err error) {
	for _, file := range a.change.Files {
		s.jobs[file].attempted[a.target.key] = true
		if err == nil {
			s.jobs[file].succeeded[a.target.key] = true
		}
	}
	if err != nil {
		s.fail(a, err, s.now)
	} else {
		s.succeed(a, s.now)
	}
	s.check()
}

func (s *simulation) finishNamed(name string, err error) {
	i := slices.IndexFunc(s.running, func(a *attempt) bool { return a.target.name == name })
	require.GreaterOrEqual(s, i, 0, "%s does not run", name)
	s.finish(s.running[i], err)
}

// check checks what holds at any time.
func (s *simulation) check() {
	require.LessOrEqual(s, len(s.running), maxRunning)
	retrying, running := 0, map[string]bool{}
	for _, a := range s.running {
		if a.isRetry() {
			retrying++
		}
		require.False(s, running[a.target.key], "%s runs twice at once", a.target.key)
		running[a.target.key] = true
	}
	require.LessOrEqual(s, retrying, maxRetrying)
	pending := s.pending()
	for file, job := range s.jobs {
		if isOwed := len(job.succeeded) < len(job.keys); isOwed != pending[file] {
			require.Equal(s, isOwed, pending[file], "job %v, which has succeeded in %v", job.keys, job.succeeded)
		}
	}
	for _, a := range s.waiting {
		require.True(s, slices.Contains(a.target.waiting, a))
		for previous := range a.after {
			require.True(s, slices.Contains(previous.before, a))
			require.True(s, slices.Contains(s.waiting, previous) || slices.Contains(s.running, previous), "%s waits for an attempt that is over", a.target.key)
		}
	}
}

// drain lets all succeed.
func (s *simulation) drain() {
	for range len(s.waiting) + len(s.running) + maxRunning {
		s.startDue()
		for len(s.running) > 0 {
			s.finish(s.running[0], nil)
		}
		s.now = s.now.Add(2 * time.Minute)
	}
	require.Empty(s, s.waiting, "actions wait for each other")
	require.Empty(s, s.pending())
}

func TestSchedule_SharesARunOfALaterJobThatWaitsForTheSame(t *testing.T) {
	s := newSimulation(t)
	s.addBatch(0, "hangs y z")
	assert.Equal(t, []string{"hangs"}, s.startDue())
	for range 3 {
		s.addBatch(0, "hangs y z")
	}
	assert.Empty(t, s.startDue())
	assert.Len(t, s.waiting, 5, "once after the run that hangs, and once after the next")
	s.addBatch(0, "y")
	assert.Equal(t, []string{"y"}, s.startDue(), "for itself, it waits for nothing")
	s.finishNamed("y", nil)
	s.finishNamed("hangs", nil)
	assert.ElementsMatch(t, []string{"y", "hangs"}, s.startDue())
	s.finishNamed("hangs", nil)
	assert.Empty(t, s.startDue(), "y runs")
	s.addBatch(0, "y")
	s.finishNamed("y", nil)
	assert.ElementsMatch(t, []string{"y", "z"}, s.startDue())
	s.finishNamed("z", nil)
	s.finishNamed("y", nil)
	assert.Equal(t, []string{"z"}, s.startDue(), "y has run for all that waited for it")
	s.drain()
}

func TestSchedule_KeepsTheOrderOfAJobWhenAnActionInItIsForgotten(t *testing.T) {
	s := newSimulation(t)
	s.addBatch(0, "a b c")
	assert.Equal(t, []string{"a"}, s.startDue())
	owed := s.retain([]namedAction{{key: "a", name: "a"}, {key: "c", name: "c"}})
	assert.Equal(t, []Change{changed("file0")}, owed)
	assert.Empty(t, s.startDue(), "c waits for a")
	s.succeed(s.running[0], s.now)
	begun, _ := s.start(s.now, nil)
	require.Len(t, begun, 1)
	assert.Equal(t, "c", begun[0].target.name)
}

func TestSchedule_KeepsItsRulesInRandomRuns(t *testing.T) {
	for seed := range uint64(25) {
		s, random := newSimulation(t), rand.New(rand.NewPCG(seed, 0))
		targets := strings.Split("abcdefghijklmnop", "")[:2+random.IntN(14)]
		for range 200 {
			switch random.IntN(10) {
			case 0, 1:
				var jobs []string
				for range 1 + random.IntN(3) {
					random.Shuffle(len(targets), func(i, j int) { targets[i], targets[j] = targets[j], targets[i] })
					jobs = append(jobs, strings.Join(targets[:1+random.IntN(min(4, len(targets)))], " "))
				}
				s.addBatch(time.Duration(random.IntN(2))*time.Second, jobs...)
			case 2, 3, 4:
				s.startDue()
			case 5, 6, 7, 8:
				if len(s.running) == 0 {
					continue
				}
				switch a := s.running[random.IntN(len(s.running))]; random.IntN(8) {
				case 0, 1:
					s.finish(a, errors.New("no luck"))
				case 2:
					s.suspend(a)
					s.check()
				default:
					s.finish(a, nil)
				}
			case 9:
				s.now = s.now.Add(time.Duration(random.IntN(3000)) * time.Millisecond)
			}
		}
		s.drain()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func TestSchedule_DoesNotGrowWhileATargetHangs(t *testing.T) {
	for seed := range uint64(4) {
		s, random := newSimulation(t), rand.New(rand.NewPCG(seed, 0))
		targets := strings.Split("abcdefgh", "")
		var jobs []string
		for range 6 {
			random.Shuffle(len(targets), func(i, j int) { targets[i], targets[j] = targets[j], targets[i] })
			jobs = append(jobs, strings.Join(targets[:1+random.IntN(4)], " "))
		}
		most := 0
		for range 300 {
			var batch []string
			for range 1 + random.IntN(3) {
				batch = append(batch, jobs[random.IntN(len(jobs))])
			}
			s.addBatch(0, batch...)
			s.startDue()
			for _, a := range slices.Clone(s.running) {
				if a.target.key != "a" && a.target.key != "b" && random.IntN(2) == 0 {
					s.finish(a, nil)
				}
			}
			most = max(most, len(s.waiting))
		}
		require.LessOrEqual(t, most, 100, "seed %d: %v", seed, jobs)
		s.drain()
	}
}
