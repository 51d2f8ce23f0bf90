package status

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/smarteros/deaddrop/agent/config"
)

// serverAt serves at a socket of a board that answers while the context lasts.
func serverAt(t *testing.T, ctx context.Context, board *Board, r *Report) (*Server, config.Listener) {
	t.Helper()
	at := config.Listener{Network: "unix", Address: filepath.Join(t.TempDir(), "s"), Mode: 0o600}
	s := NewServer(board, func() Counts { return Counts{} }, "1", time.Now(), slog.New(slog.DiscardHandler))
	var answering sync.WaitGroup
	answering.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case answer := <-board.Asked():
				copied := *r
				answer <- &copied
			case <-board.Pinged():
			}
		}
	})
	s.Keep([]config.Listener{at})
	t.Cleanup(func() {
		s.Close()
		answering.Wait()
	})
	require.Eventually(t, func() bool { _, err := os.Lstat(at.Address); return err == nil }, time.Minute, time.Millisecond)
	return s, at
}

func TestAServerWithoutListenersStartsNothing(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	s := NewServer(NewBoard(), func() Counts { return Counts{} }, "1", time.Now(), slog.New(slog.DiscardHandler))
	s.Keep(nil)
	goleak.VerifyNone(t, goleak.IgnoreCurrent())
	s.Close()
}

func TestAClosedServerLeavesNothingBehind(t *testing.T) {
	before := goleak.IgnoreCurrent()
	ctx, cancel := context.WithCancel(t.Context())
	s, at := serverAt(t, ctx, NewBoard(), &Report{})
	client, err := NewClient(at)
	require.NoError(t, err)
	ok, _, err := client.Alive(t.Context())
	require.NoError(t, err)
	assert.True(t, ok)
	cancel()
	waiting := make(chan error, 1)
	go func() { // One that waits for an agent that does not answer any more.
		_, err := client.Report(t.Context())
		waiting <- err
	}()
	s.Close()
	require.Error(t, <-waiting)
	assert.NoFileExists(t, at.Address)
	goleak.VerifyNone(t, before)
}

func TestAnAgentThatHangsIsNotAliveUnlessItHasSaidWhy(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	board := NewBoard()
	_, at := serverAt(t, ctx, board, &Report{})
	client, err := NewClient(at)
	require.NoError(t, err)
	cancel() // It does not answer from now on.
	board.Busy(time.Now().Add(time.Hour))
	ok, _, err := client.Alive(t.Context())
	require.NoError(t, err)
	assert.True(t, ok, "it is in a check")
	board.Busy(time.Time{})
	ok, says, err := client.Alive(t.Context())
	require.NoError(t, err)
	assert.False(t, ok)
	assert.Equal(t, "the agent has not answered for 3s", says)
}

func TestReadinessNamesTenDropsAtMost(t *testing.T) {
	r := &Report{Summary: Summary{Text: "0 of 30 drops are current"}, Session: Session{Error: "Vault is sealed"}}
	for range 30 {
		r.Drops = append(r.Drops, Drop{Name: "d", State: Failed, Error: "no"})
	}
	board := NewBoard()
	_, at := serverAt(t, t.Context(), board, r)
	client, err := NewClient(at)
	require.NoError(t, err)
	ok, says, err := client.Ready(t.Context())
	require.NoError(t, err)
	assert.False(t, ok)
	lines := strings.Split(says, "\n")
	assert.Equal(t, "0 of 30 drops are current", lines[0])
	assert.Equal(t, []string{"d: failed: no", "and 20 more", "not logged in: Vault is sealed"}, lines[10:])
	board.Note(Summary{Ready: true, Text: "all 30 drops are current"})
	ok, says, err = client.Ready(t.Context())
	require.NoError(t, err)
	assert.True(t, ok)
	assert.Equal(t, "all 30 drops are current", says)
}

func TestAReportComesThroughWhole(t *testing.T) {
	at := time.Now().UTC().Truncate(time.Second)
	want := &Report{
		PID: 1, Started: at, At: at, Summary: Summary{Ready: true, Text: "x"},
		Session: Session{Address: "https://vault:8200", LoggedIn: true, TokenSince: at, TokenEnds: at},
		Config:  Config{Files: []string{"f"}, Loaded: at, Warnings: []string{"w"}, Refused: at, Error: "e"},
		Secrets: []Secret{{Path: "p", Version: 2, Created: "c", Checked: at, Attempted: at, Next: at, Ends: at, Failing: at, Error: "e"}},
		Drops:   []Drop{{Name: "<d>", Destination: "/d", Tenant: "t", State: Stale, Since: at, Written: at, Reloads: []string{"r"}, Error: "e"}},
		ForEach: []ForEach{{Name: "n", Folder: "f", Tenants: 1, Error: "e", Failed: map[string]string{"a": "b"}}},
		Reloads: []Reload{{By: "r", State: Done, Since: at, Next: at, Tries: 1, Error: "e"}},
	}
	_, listener := serverAt(t, t.Context(), NewBoard(), want)
	client, err := NewClient(listener)
	require.NoError(t, err)
	got, err := client.Report(t.Context())
	require.NoError(t, err)
	want.Version = "1"
	assert.Equal(t, want, got)
}

func TestAnEmptyReportHasListsThatAreEmpty(t *testing.T) {
	_, at := serverAt(t, t.Context(), NewBoard(), &Report{})
	client, err := NewClient(at)
	require.NoError(t, err)
	_, body, err := client.get(t.Context(), "/status")
	require.NoError(t, err)
	var fields map[string]any
	require.NoError(t, json.Unmarshal(body, &fields))
	for _, list := range []string{"secrets", "drops", "reloads"} {
		assert.Equal(t, []any{}, fields[list], "a script goes through it without asking")
	}
}

func TestOnlyReadingIsAllowed(t *testing.T) {
	_, at := serverAt(t, t.Context(), NewBoard(), &Report{})
	client, err := NewClient(at)
	require.NoError(t, err)
	for _, path := range []string{"/healthz", "/readyz", "/status", "/metrics"} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions} {
			request, err := http.NewRequestWithContext(t.Context(), method, client.base+path, strings.NewReader("x"))
			require.NoError(t, err)
			answer, err := client.http.Do(request)
			require.NoError(t, err)
			_, _ = io.Copy(io.Discard, answer.Body)
			_ = answer.Body.Close()
			assert.Equal(t, http.StatusMethodNotAllowed, answer.StatusCode, method+path)
		}
	}
}

func TestSummarize_AgreesWithTheCount(t *testing.T) {
	for want, n := range map[string][2]int{
		"there are no drops": {0, 0}, "the drop is current": {1, 1}, "the drop is not current": {0, 1}, "0 of 2 drops are current": {0, 2},
		"1 of 2 drops is current": {1, 2}, "all 2 drops are current": {2, 2}, "3 of 4 drops are current": {3, 4},
	} {
		assert.Equal(t, want, Summarize(n[0], n[1], "").Text)
	}
}
