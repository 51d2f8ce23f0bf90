package reload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fake is an action that fails a given number of times. Real actions do not fail
// on demand and then succeed.
type fake struct {
	name     string
	fails    *int
	runs     *[]time.Time
	changes  *[]Change
	check    error
	unneeded string
	takes    time.Duration
}

func (f fake) String() string { return f.name }

func (f fake) Check(context.Context) error { return f.check }

func (f fake) Do(ctx context.Context, change Change) error {
	*f.runs = append(*f.runs, time.Now())
	*f.changes = append(*f.changes, change)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(f.takes):
	}
	switch {
	case f.unneeded != "":
		return &Unneeded{f.unneeded}
	case *f.fails > 0:
		*f.fails--
		return errors.New("no luck")
	}
	return nil
}

func newFake(name string, fails int) fake {
	return fake{name: name, fails: &fails, runs: &[]time.Time{}, changes: &[]Change{}}
}

func TestQueue_RunsTheSameActionOncePerBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(slog.New(slog.DiscardHandler))
		go func() { _ = q.Run(t.Context()) }()
		a, b := newFake("a", 0), newFake("b", 0)
		q.Add(Job{Change{}, []Action{a, b}}, Job{Change{}, []Action{a}}, Job{Change{}, []Action{a}})
		synctest.Wait()
		assert.Len(t, *a.runs, 1)
		assert.Len(t, *b.runs, 1)
		q.Add(Job{Change{}, []Action{a}})
		synctest.Wait()
		assert.Len(t, *a.runs, 2)
		assert.Len(t, *b.runs, 1)
	})
}

func TestQueue_RetriesWithBackoffAndLogsTheFirstFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		q := NewQueue(slog.New(slog.NewTextHandler(&logged, nil)))
		go func() { _ = q.Run(t.Context()) }()
		a, b := newFake("a", 4), newFake("b", 0)
		q.Add(Job{Change{}, []Action{a, b}})
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		require.Len(t, *a.runs, 5)
		assert.Len(t, *b.runs, 1, "a failure does not hold up others")
		for i := 1; i < 5; i++ {
			assert.Greater(t, (*a.runs)[i].Sub((*a.runs)[i-1]), 400*time.Millisecond)
		}
		assert.Equal(t, 1, strings.Count(logged.String(), "reload failed"))
		assert.Equal(t, 1, strings.Count(logged.String(), "msg=reloaded target=a"))
	})
}

func TestQueue_RetriesAFailedActionAtOnceWhenItIsAddedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(slog.New(slog.DiscardHandler))
		go func() { _ = q.Run(t.Context()) }()
		a := newFake("a", 1)
		q.Add(Job{Change{}, []Action{a}})
		synctest.Wait()
		q.Add(Job{Change{}, []Action{a}})
		synctest.Wait()
		require.Len(t, *a.runs, 2)
		time.Sleep(time.Hour)
		assert.Len(t, *a.runs, 2, "done means done")
	})
}

func TestQueue_GathersABatchDuringItsSplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(slog.New(slog.DiscardHandler))
		go func() { _ = q.Run(t.Context()) }()
		a, b, c := newFake("a", 0), newFake("b", 0), newFake("c", 0)
		q.Retain(time.Minute, []Subscription{{Actions: []Action{a, b, c}}})
		start := time.Now()
		q.Add(Job{Change{}, []Action{a, b}})
		q.Add(Job{Change{}, []Action{c, a}})
		synctest.Wait()
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, f := range []fake{a, b, c} {
			require.Len(t, *f.runs, 1, f.name)
			assert.Equal(t, (*a.runs)[0], (*f.runs)[0], "what comes meanwhile runs with the batch")
		}
		assert.Greater(t, (*a.runs)[0].Sub(start), time.Duration(0))
	})
}

func TestQueue_RetriesWithTheFilesOfAllChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(slog.New(slog.DiscardHandler))
		go func() { _ = q.Run(t.Context()) }()
		a := newFake("a", 1)
		q.Add(Job{Change{Files: []string{"1"}}, []Action{a}})
		synctest.Wait()
		later := time.Now().Add(time.Millisecond)
		q.Add(Job{Change{Files: []string{"2", "1"}, At: later}, []Action{a}})
		synctest.Wait()
		assert.Equal(t, []Change{{Files: []string{"1"}}, {Files: []string{"1", "2"}, At: later}}, *a.changes)
	})
}

func TestQueue_HandsOnChangesOfActionsThatAreNotRetained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(slog.New(slog.DiscardHandler))
		go func() { _ = q.Run(t.Context()) }()
		a, b, c := newFake("a", 1000), newFake("b", 0), newFake("c", 0)
		b.takes = time.Second
		q.Retain(0, []Subscription{{Actions: []Action{a, b}}})
		q.Add(Job{Change{Files: []string{"1"}}, []Action{a}})
		synctest.Wait()
		q.Retain(0, []Subscription{{Files: []string{"0", "1"}, Actions: []Action{b}}, {Files: []string{"2"}, Actions: []Action{c}}})
		assert.Equal(t, map[string]bool{"1": true}, q.Pending())
		tries := len(*a.runs)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.Len(t, *b.changes, 1)
		assert.Equal(t, []string{"1"}, (*b.changes)[0].Files)
		assert.Empty(t, *c.changes, "its file has not changed")
		assert.Empty(t, q.Pending())
		time.Sleep(time.Hour)
		assert.Len(t, *a.runs, tries)
		states := q.States()
		require.Len(t, states, 2)
		assert.Equal(t, "b", states[0].Target)
		assert.Equal(t, "c", states[1].Target)
	})
}

func TestQueue_ReportsTheStatesOfActions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		q := NewQueue(slog.New(slog.NewTextHandler(&logged, nil)))
		go func() { _ = q.Run(t.Context()) }()
		good, bad, never, late, told := newFake("good", 0), newFake("bad", 3), newFake("never", 0), newFake("late", 0), newFake("told", 0)
		never.check, late.check = errors.New("no such unit"), absent("not there yet")
		told.unneeded = "it was started later"
		all := []Action{good, bad, never, late, told}
		q.Retain(0, []Subscription{{Actions: all}})
		synctest.Wait()
		assert.Contains(t, logged.String(), `level=ERROR msg="reload cannot work" target=never error="no such unit"`)
		assert.Contains(t, logged.String(), `level=WARN msg="reload target not found yet" target=late error="not there yet"`)
		q.Retain(0, []Subscription{{Actions: all}})
		synctest.Wait()
		assert.Equal(t, 1, strings.Count(logged.String(), "no such unit"), "it is said once")
		q.Add(Job{Change{}, []Action{good, bad, told}})
		synctest.Wait()
		assert.Contains(t, logged.String(), `msg="reload not needed" target=told reason="it was started later"`)

		now := time.Now()
		var found []State
		for _, s := range q.States() {
			s.Next = time.Time{}
			found = append(found, s)
		}
		assert.Equal(t, []State{
			{Target: "bad", Waiting: true, Err: errors.New("no luck"), Since: now, Tries: 1},
			{Target: "good", Done: now},
			{Target: "late", Err: late.check, Since: now},
			{Target: "never", Err: never.check, Since: now},
			{Target: "told", Done: now},
		}, found)
		time.Sleep(time.Hour)
		synctest.Wait()
		state := q.States()[0]
		assert.NoError(t, state.Err)
		assert.False(t, state.Waiting)
		assert.False(t, state.Done.IsZero())
	})
}

func TestChange_HidesTheValuesOfAllItJoins(t *testing.T) {
	first, second, unknown := Change{Hidden: []string{"a"}}, Change{Hidden: []string{"b"}}, Change{}
	assert.Equal(t, []string{"a", "b"}, first.and(second).Hidden)
	assert.Nil(t, unknown.and(second).Hidden)
	assert.Nil(t, first.and(unknown).Hidden)
}

func TestQueue_HandsOnTheChangeOfAnActionThatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(slog.New(slog.DiscardHandler))
		go func() { _ = q.Run(t.Context()) }()
		old, heir := newFake("old", 1), newFake("heir", 0)
		old.takes = time.Minute
		q.Retain(0, []Subscription{{Actions: []Action{old}}})
		q.Add(Job{Change{Files: []string{"1"}}, []Action{old}})
		synctest.Wait()
		assert.Equal(t, map[string]bool{"1": true}, q.Pending())
		q.Retain(0, []Subscription{{Files: []string{"1"}, Actions: []Action{heir}}})
		synctest.Wait()
		require.Len(t, *heir.changes, 1)
		assert.Equal(t, []string{"1"}, (*heir.changes)[0].Files)
		q.Retain(0, []Subscription{{Files: []string{"1"}, Actions: []Action{heir}}})
		time.Sleep(time.Hour)
		assert.Len(t, *heir.runs, 1, "it is handed on once")
		q.Retain(0, nil)
		assert.Len(t, *old.runs, 1)
		assert.Empty(t, q.Pending())
		assert.Empty(t, q.States())
	})
}

func TestQueue_GivesRunningActionsTwoSecondsWhenItsContextEnds(t *testing.T) {
	for takes, left := range map[time.Duration]int{time.Second: 1, time.Minute: 2} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			q := NewQueue(slog.New(slog.DiscardHandler))
			stopped := make(chan struct{})
			go func() { defer close(stopped); _ = q.Run(ctx) }()
			slow, next := newFake("slow", 0), newFake("next", 0)
			slow.takes = takes
			q.Add(Job{Change{Files: []string{"1"}}, []Action{slow}})
			for i := range maxRunning - 1 {
				busy := newFake(fmt.Sprint("busy", i), 0)
				busy.takes = time.Second
				q.Add(Job{Change{}, []Action{busy}})
			}
			q.Add(Job{Change{Files: []string{"2"}}, []Action{next}})
			synctest.Wait()
			start := time.Now()
			cancel()
			<-stopped
			assert.LessOrEqual(t, time.Since(start), shutdownGrace)
			assert.Empty(t, *next.runs, "nothing else is begun")
			assert.Len(t, q.Pending(), left, "the next agent runs the rest")

			go func() { _ = q.Run(t.Context()) }() // As after a new login.
			time.Sleep(time.Hour)
			synctest.Wait()
			assert.Empty(t, q.Pending())
			assert.Len(t, *next.runs, 1)
			assert.Len(t, *slow.runs, left)
		})
	}
}
