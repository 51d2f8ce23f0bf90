package reload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// trace notes when actions begin and end, in seconds since it was made.
type trace struct {
	start time.Time
	mu    sync.Mutex
	lines []string
	sum   traceCounts
}

// traceCounts are the actions that run now, and the most that have run at once.
type traceCounts struct{ running, most int }

func newTrace() *trace { return &trace{start: time.Now()} }

func (tr *trace) note(what string, running int) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.sum.running += running
	tr.sum.most = max(tr.sum.most, tr.sum.running)
	tr.lines = append(tr.lines, fmt.Sprintf("%v %s", time.Since(tr.start).Round(time.Second), what))
}

func (tr *trace) count() traceCounts {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.sum
}

// take returns the lines so far, and forgets them.
func (tr *trace) take() []string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	lines := tr.lines
	tr.lines = nil
	return lines
}

// traced is an action that does what do says, if that is set.
type traced struct {
	name string
	to   *trace
	do   *func(context.Context) error
}

func (a traced) String() string { return a.name }

func (a traced) Check(context.Context) error { return nil }

func (a traced) Do(ctx context.Context, change Change) error {
	a.to.note(strings.TrimSpace("begin "+a.name+" "+strings.Join(change.Files, ",")), 1)
	defer a.to.note("end "+a.name, -1)
	if a.do == nil {
		return nil
	}
	return (*a.do)(ctx)
}

// takes is an action that succeeds after a time.
func (tr *trace) takes(name string, d time.Duration) traced {
	return tr.does(name, func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(d):
			return nil
		}
	})
}

func (tr *trace) does(name string, do func(context.Context) error) traced {
	return traced{name, tr, &do}
}

func changed(files ...string) Change { return Change{Files: files} }

// running starts a queue that runs until the end of the test.
func running(t *testing.T) *Queue {
	q := NewQueue(slog.New(slog.DiscardHandler))
	run(t, q)
	return q
}

// run runs a queue until stop is called, or until the end of the test.
func run(t *testing.T, q *Queue) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		assert.NoError(t, q.Run(ctx))
	}()
	stop = func() {
		cancel()
		<-stopped
	}
	t.Cleanup(stop)
	return stop
}

func TestQueue_RunsOthersWhileATargetHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, tr := running(t), newTrace()
		hangs, quick, shared := tr.takes("hangs", 90*time.Second), tr.takes("quick", 0), tr.takes("shared", 0)
		q.Add(Job{changed("1"), []Action{hangs, shared}}, Job{changed("2"), []Action{quick}})
		synctest.Wait()
		assert.ElementsMatch(t, []string{"0s begin hangs 1", "0s begin quick 2", "0s end quick"}, tr.take())
		assert.Equal(t, map[string]bool{"1": true}, q.Pending())

		time.Sleep(time.Second)
		q.Add(Job{changed("3"), []Action{quick, shared}})
		synctest.Wait()
		assert.Equal(t, []string{"1s begin quick 3", "1s end quick", "1s begin shared 3", "1s end shared"}, tr.take(), "a later job that shares an action with it")
		time.Sleep(time.Hour)
		assert.Equal(t, []string{"90s end hangs", "90s begin shared 1", "90s end shared"}, inSeconds(tr.take()))
		assert.Empty(t, q.Pending())
	})
}

// inSeconds writes minutes as seconds.
func inSeconds(lines []string) []string {
	for i, line := range lines {
		at, what, _ := strings.Cut(line, " ")
		if d, err := time.ParseDuration(at); err == nil {
			lines[i] = fmt.Sprintf("%.0fs %s", d.Seconds(), what)
		}
	}
	return lines
}

func TestQueue_NeverRunsATargetTwiceAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, tr := running(t), newTrace()
		slow := tr.takes("slow", 10*time.Second)
		for i := range 5 {
			q.Add(Job{changed(fmt.Sprint(i)), []Action{slow}}, Job{changed(fmt.Sprint(i)), []Action{slow}})
			time.Sleep(time.Second)
		}
		time.Sleep(time.Minute)
		assert.Equal(t, []string{"0s begin slow 0", "10s end slow", "10s begin slow 1,2,3,4", "20s end slow"}, tr.take(), "what changes meanwhile shares the next run")
		assert.Equal(t, 1, tr.count().most)
	})
}

func TestQueue_RunsTheActionsOfAJobInTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, tr := running(t), newTrace()
		fails := tr.does("fails", func(context.Context) error {
			time.Sleep(5 * time.Second)
			return errors.New("no luck")
		})
		q.Add(Job{changed("1"), []Action{tr.takes("a", 5*time.Second), fails, tr.takes("c", 0)}})
		time.Sleep(10*time.Second + 100*time.Millisecond)
		assert.Equal(t, []string{"0s begin a 1", "5s end a", "5s begin fails 1", "10s end fails", "10s begin c 1", "10s end c"}, tr.take(), "a failure does not hold back the next")
		assert.Equal(t, map[string]bool{"1": true}, q.Pending())
	})
}

func TestQueue_RunsAnActionThatJobsOfABatchShareOnceInItsLastPlace(t *testing.T) {
	for name, tc := range map[string]struct {
		jobs []string
		want []string
	}{
		"shared":         {[]string{"a c", "b c"}, []string{"0s begin a 0", "0s begin b 1", "1s begin c 0,1"}},
		"in the middle":  {[]string{"a c d", "b c e"}, []string{"0s begin a 0", "0s begin b 1", "1s begin c 0,1", "2s begin d 0", "2s begin e 1"}},
		"first":          {[]string{"c", "a c"}, []string{"0s begin a 1", "1s begin c 0,1"}},
		"contradictions": {[]string{"a b", "b a", "b a", "a b"}, []string{"0s begin a 0,3", "1s begin b 0,1,2,3", "2s begin a 1,2"}},
		"repeated":       {[]string{"a b a"}, []string{"0s begin b 0", "1s begin a 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q, tr := running(t), newTrace()
				actions := map[string]Action{}
				var jobs []Job
				for i, job := range tc.jobs {
					j := Job{Change: changed(fmt.Sprint(i))}
					for _, name := range strings.Fields(job) {
						if actions[name] == nil {
							actions[name] = tr.takes(name, time.Second)
						}
						j.Actions = append(j.Actions, actions[name])
					}
					jobs = append(jobs, j)
				}
				q.Add(jobs...)
				time.Sleep(time.Minute)
				var begun []string
				for _, line := range tr.take() {
					if strings.Contains(line, "begin") {
						begun = append(begun, line)
					}
				}
				assert.ElementsMatch(t, tc.want, begun)
				assert.Empty(t, q.Pending())
			})
		})
	}
}

func TestQueue_BoundsTheActionsThatRunAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, tr := running(t), newTrace()
		for i := range 20 {
			q.Add(Job{Change{}, []Action{tr.takes(fmt.Sprint(i), time.Second)}})
		}
		synctest.Wait()
		assert.Equal(t, 8, tr.count().running)
		time.Sleep(2*time.Second + 100*time.Millisecond)
		assert.Equal(t, 4, tr.count().running)
		time.Sleep(time.Minute)
		assert.Equal(t, 8, tr.count().most)
		assert.Len(t, tr.take(), 40)
	})
}

func TestQueue_KeepsPlacesForFirstAttemptsWhileRetriesHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, tr := running(t), newTrace()
		for i := range 20 {
			failed := false
			q.Add(Job{Change{}, []Action{tr.does(fmt.Sprint(i), func(ctx context.Context) error {
				if failed {
					<-ctx.Done() // The queue ends.
				}
				failed = true
				return errors.New("no luck")
			})}})
		}
		time.Sleep(time.Hour)
		assert.Equal(t, 4, tr.count().running)
		tr.take()
		q.Add(Job{Change{}, []Action{tr.takes("new", 0)}})
		synctest.Wait()
		assert.Len(t, tr.take(), 2)
	})
}

func TestQueue_RunsNothingBeforeItIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, tr := running(t), newTrace()
		bad := tr.does("bad", func(context.Context) error { return errors.New("no luck") })
		worse := tr.does("worse", func(context.Context) error { return errors.New("no luck") })
		subscriptions := []Subscription{{[]string{"1"}, []Action{bad, worse}}, {Actions: []Action{tr.takes("other", 0)}}}
		q.Retain(0, subscriptions)
		q.Add(Job{changed("1"), []Action{bad, worse}})
		synctest.Wait()
		tr.take()
		next := map[string]time.Time{}
		for _, s := range q.States() {
			next[s.Target] = s.Next
		}
		for range 100 {
			q.States()
			q.Pending()
			q.Tries()
			q.Retain(time.Second, subscriptions)
			q.Add()
			q.Add(Job{changed("2"), nil})
			synctest.Wait()
		}
		assert.Empty(t, tr.take())
		q.Retain(0, []Subscription{{[]string{"1"}, []Action{worse}}})
		synctest.Wait()
		assert.Empty(t, tr.take(), "the change of the other is handed on, but not due")
		for _, s := range q.States() {
			assert.Equal(t, next[s.Target], s.Next)
		}
		time.Sleep(time.Until(next["worse"]))
		synctest.Wait()
		assert.Len(t, tr.take(), 2)
	})
}

func TestQueue_RetriesAnActionThatWasAddedAfterTheLastRetain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := running(t)
		a := newFake("a", 1)
		q.Retain(0, nil)
		q.Add(Job{changed("1"), []Action{a}})
		synctest.Wait()
		assert.Equal(t, map[string]bool{"1": true}, q.Pending())
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Len(t, *a.runs, 2)
		assert.Empty(t, q.Pending())
	})
}

func TestQueue_CountsAReloadAsPendingAtEachStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTrace()
		var q *Queue
		pending := func(when string, files ...string) {
			t.Helper()
			want := map[string]bool{}
			for _, file := range files {
				want[file] = true
			}
			assert.Equal(t, want, q.Pending(), when)
		}
		var logs, isDone atomic.Int32
		q = NewQueue(slog.New(handler(func(message string) {
			logs.Add(1)
			if isDone.Load() == 0 {
				pending(message, "1")
			}
		})))
		failures := 2
		a := tr.does("a", func(context.Context) error {
			pending("as it begins", "1")
			time.Sleep(time.Second)
			if failures--; failures >= 0 {
				return errors.New("no luck")
			}
			return nil
		})
		subscriptions := []Subscription{{[]string{"1"}, []Action{a}}}
		q.Retain(time.Minute, subscriptions)
		q.Add(Job{changed("1"), []Action{a}})
		pending("before it is run", "1")
		stop := run(t, q)
		synctest.Wait()
		pending("during the splay", "1")
		q.Add(Job{changed("1"), []Action{a}})
		pending("added again", "1")
		q.Retain(0, subscriptions)
		for tr.count().most == 0 {
			pending("during the splay", "1")
			time.Sleep(20 * time.Millisecond)
		}
		pending("while it runs", "1")
		q.Add(Job{changed("1"), []Action{a}})
		pending("added while it runs", "1")
		stop() // It fails within the grace period.
		pending("when it was cut off", "1")
		require.Equal(t, 1, failures)
		stop = run(t, q)
		synctest.Wait()
		pending("while it runs again", "1")
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, 0, failures)
		pending("during its backoff", "1")
		stop()
		pending("stopped during its backoff", "1")
		run(t, q)
		for n := len(tr.take()); n == 0; n = len(tr.take()) {
			pending("during its backoff", "1")
			time.Sleep(20 * time.Millisecond)
		}
		heir := tr.takes("heir", time.Second)
		q.Retain(0, []Subscription{{[]string{"1"}, []Action{heir}}})
		pending("handed on while it runs", "1")
		time.Sleep(999 * time.Millisecond)
		pending("while both run", "1")
		assert.Positive(t, logs.Load())
		isDone.Store(1)
		time.Sleep(time.Second)
		synctest.Wait()
		pending("when both have succeeded")
		assert.Len(t, q.Settled(), 1)
	})
}

// handler is a log handler that calls a function with each message.
type handler func(message string)

func (handler) Enabled(context.Context, slog.Level) bool { return true }

func (h handler) Handle(_ context.Context, r slog.Record) error { h(r.Message); return nil }

func (h handler) WithAttrs([]slog.Attr) slog.Handler { return h }

func (h handler) WithGroup(string) slog.Handler { return h }

func TestQueue_FlushMakesOneAttemptOfEachSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		q, tr := NewQueue(slog.New(slog.NewTextHandler(&logged, nil))), newTrace()
		fails := func(name string, after time.Duration) Action {
			return tr.does(name, func(context.Context) error {
				time.Sleep(after)
				return errors.New(name + " failed")
			})
		}
		assert.NoError(t, q.Flush(t.Context()), "nothing is waiting")
		q.Retain(time.Hour, nil)
		last := tr.takes("last", 0)
		q.Add(Job{changed("1"), []Action{fails("slow", 90*time.Second), last}},
			Job{changed("2"), []Action{fails("quick", time.Second), last}}, Job{changed("3"), []Action{tr.takes("good", 0)}})
		err := q.Flush(t.Context())
		require.EqualError(t, err, "slow failed\nquick failed", "in the order of adding")
		assert.Equal(t, 90*time.Second, time.Since(tr.start))
		assert.Len(t, tr.take(), 8)
		assert.Equal(t, map[string]bool{"1": true, "2": true}, q.Pending())

		require.EqualError(t, q.Flush(t.Context()), "quick failed\nslow failed", "what waits for its retry is attempted, too")
		assert.Equal(t, 2, strings.Count(logged.String(), `msg="reload failed" `))
		assert.NotContains(t, logged.String(), "retry")
		assert.Len(t, tr.take(), 4)
	})
}

func TestQueue_FlushEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, tr := NewQueue(slog.New(slog.DiscardHandler)), newTrace()
		q.Add(Job{changed("1"), []Action{tr.takes("hangs", time.Hour), tr.takes("next", 0)}}, Job{changed("2"), []Action{tr.takes("good", 0)}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := q.Flush(ctx)
		require.ErrorIs(t, err, context.Canceled, "of the action")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, time.Minute+shutdownGrace, time.Since(tr.start))
		assert.Equal(t, map[string]bool{"1": true}, q.Pending())
		require.ErrorIs(t, q.Flush(ctx), context.DeadlineExceeded)
	})
}

func TestQueue_LeavesNothingRunning(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	ctx, cancel := context.WithCancel(t.Context())
	q, tr := NewQueue(slog.New(slog.DiscardHandler)), newTrace()
	begun := make(chan struct{})
	a := tr.does("a", func(context.Context) error {
		close(begun)
		<-ctx.Done()
		return nil
	})
	q.Retain(0, []Subscription{{Actions: []Action{a}}})
	q.Add(Job{changed("1"), []Action{a}})
	go func() { <-begun; cancel() }()
	require.NoError(t, q.Run(ctx))
	assert.Empty(t, q.Pending(), "it succeeded within the grace period")
}

// checking is an action whose check takes a minute.
type checking struct {
	traced
	began *int
}

func (c checking) Check(ctx context.Context) error {
	*c.began++
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Minute):
		return errors.New("cannot work")
	}
}

func TestQueue_RunsActionsWhileChecksHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		q, tr := NewQueue(slog.New(slog.NewTextHandler(&logged, nil))), newTrace()
		var all []Action
		began := make([]int, 10)
		for i := range began {
			all = append(all, checking{tr.takes(fmt.Sprint(i), 0), &began[i]})
		}
		q.Retain(0, []Subscription{{Actions: all}})
		stop := run(t, q)
		synctest.Wait()
		q.Add(Job{changed("1"), []Action{tr.takes("a", 0)}})
		synctest.Wait()
		assert.Len(t, tr.take(), 2)
		stop()
		assert.NotContains(t, logged.String(), "cannot work")

		run(t, q)
		time.Sleep(time.Hour)
		synctest.Wait()
		assert.Equal(t, 10, strings.Count(logged.String(), `msg="reload cannot work"`), "checks that were cut off are made again")
	})
}

// panicking is an action whose methods panic with a secret.
type panicking struct{ name string }

func (p panicking) String() string { return p.name }

func (p panicking) Check(context.Context) error { panic("m4rker") }

func (p panicking) Do(context.Context, Change) error { panic(errors.New("m4rker")) }

func TestQueue_TakesAPanicAsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		q, tr := NewQueue(slog.New(slog.NewTextHandler(&logged, nil))), newTrace()
		run(t, q)
		bad, good := panicking{"bad"}, tr.takes("good", 0)
		q.Retain(0, []Subscription{{Actions: []Action{bad, good}}})
		synctest.Wait()
		assert.Contains(t, logged.String(), `msg="reload cannot work" target=bad error="panic: value of type string"`)
		q.Add(Job{changed("1"), []Action{bad, good}})
		synctest.Wait()
		assert.Len(t, tr.take(), 2, "others go on")
		assert.Contains(t, logged.String(), `msg="reload failed, retrying" target=bad error="panic: value of type *errors.errorString"`)
		assert.Contains(t, logged.String(), "run_test.go", "where it was")
		assert.NotContains(t, logged.String(), "m4rker")
		state := q.States()[0]
		assert.True(t, state.Waiting)
		var panicked *PanicError
		require.ErrorAs(t, state.Err, &panicked)
		assert.Equal(t, map[string]bool{"1": true}, q.Pending())
	})
}

func TestRecovered_KeepsTheTextOfRuntimeErrors(t *testing.T) {
	var none []int
	require.EqualError(t, recovered(func() error { return errors.New(fmt.Sprint(none[0])) }), "panic: runtime error: index out of range [0] with length 0")
	require.NoError(t, recovered(func() error { return nil }))
}

func TestChange_IsAsLateAsTheLatestOfThoseItJoins(t *testing.T) {
	early, late := time.Unix(1, 0), time.Unix(2, 0)
	assert.Equal(t, late, Change{At: early}.and(Change{At: late}).At)
	assert.Equal(t, late, Change{At: late}.and(Change{At: early}).At, "a change that is handed on may be older")
	assert.Equal(t, late, Change{}.and(Change{At: late}).At)
	assert.Zero(t, Change{At: late}.and(Change{}).At, "one that is not known precedes nothing")
}
