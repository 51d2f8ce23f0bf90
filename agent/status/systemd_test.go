package status

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// manager listens where systemd would.
func manager(t *testing.T) <-chan string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "notify")
	t.Setenv("NOTIFY_SOCKET", socket)
	return hearing(t, socket)
}

// hearing is what is said at a socket, from now on.
func hearing(t *testing.T, socket string) <-chan string {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	heard := make(chan string, 1000)
	go func() {
		for message := make([]byte, 4096); ; {
			n, err := conn.Read(message)
			if err != nil {
				return
			}
			heard <- string(message[:n])
		}
	}()
	return heard
}

func next(t *testing.T, heard <-chan string) string {
	t.Helper()
	select {
	case message := <-heard:
		return message
	case <-time.After(time.Minute):
		require.FailNow(t, "systemd was not told anything")
		return ""
	}
}

// listening starts a Systemd, and returns what stops it.
func listening(t *testing.T, s *Systemd) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// answering is an agent that turns its loop.
func answering(t *testing.T, board *Board) {
	t.Helper()
	go func() {
		for {
			select {
			case <-t.Context().Done():
				return
			case <-board.Pinged():
			}
		}
	}()
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestSystemdIsToldOfEachStepOnce(t *testing.T) {
	heard := manager(t)
	board := NewBoard()
	s := NewSystemd(board, quiet())
	stop := listening(t, s)
	answering(t, board)

	s.Reloading() // before it is ready: systemd would take the end of it for the start
	s.Reloaded(t.Context())
	board.Note(Summarize(0, 2, ""))
	assert.Equal(t, "STATUS=0 of 2 drops are current", next(t, heard))
	board.Note(Summarize(2, 2, ""))
	assert.Equal(t, "READY=1\nSTATUS=all 2 drops are current", next(t, heard))
	board.Note(Summarize(1, 2, "two\nlines"))
	assert.Equal(t, "STATUS=1 of 2 drops is current; two lines", next(t, heard))
	board.Note(Summarize(2, 2, ""))
	assert.Equal(t, "STATUS=all 2 drops are current", next(t, heard), "it is ready but once")

	s.Reloading()
	reloading := next(t, heard)
	since, isTime := strings.CutPrefix(reloading, "RELOADING=1\nMONOTONIC_USEC=")
	require.True(t, isTime, reloading)
	_, err := strconv.ParseUint(strings.TrimSpace(since), 10, 64)
	require.NoError(t, err)
	s.Reloaded(t.Context())
	assert.Equal(t, "READY=1", next(t, heard))

	stop()
	assert.Equal(t, "STOPPING=1", next(t, heard))
	assert.Empty(t, heard)
}

func TestFilesOfAnEarlierRunAreEnoughWhenVaultTakesLong(t *testing.T) {
	for name, tc := range map[string]struct {
		served bool
		want   string
	}{
		"with them":    {true, "READY=1\nSTATUS=the drop is not current"},
		"without them": {false, "READY=1\nSTATUS=the drop is current"},
	} {
		t.Run(name, func(t *testing.T) {
			heard := manager(t)
			board := NewBoard()
			summary := Summarize(0, 1, "")
			summary.Served = tc.served
			board.Note(summary)
			<-board.Changed()
			s := NewSystemd(board, quiet())
			s.patience = time.Millisecond
			listening(t, s)
			assert.Equal(t, "STATUS=the drop is not current", next(t, heard), "first it waits for Vault")
			if !tc.served {
				time.Sleep(20 * s.patience) // It would say something by now.
				board.Note(Summarize(1, 1, ""))
			}
			assert.Equal(t, tc.want, next(t, heard))
		})
	}
}

func TestTheWatchdogIsFedOnlyWhileTheAgentAnswersOrIsKnownToBeBusy(t *testing.T) {
	heard := manager(t)
	t.Setenv("WATCHDOG_USEC", "40000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	board := NewBoard()
	listening(t, NewSystemd(board, quiet()))

	<-board.Pinged()
	assert.Equal(t, "WATCHDOG=1", next(t, heard))
	// The next ping is there, and nobody answers it: nothing is said for several
	// times as long as systemd waits.
	never := time.After(200 * time.Millisecond)
	select {
	case message := <-heard:
		assert.Fail(t, "the agent hangs", message)
	case <-never:
	}
	board.Busy(time.Now().Add(time.Hour))
	assert.Equal(t, "WATCHDOG=1", next(t, heard))
	assert.Equal(t, "WATCHDOG=1", next(t, heard), "also the next time")
	board.Busy(time.Time{})
	answering(t, board)
	assert.Equal(t, "WATCHDOG=1", next(t, heard))
}

func TestNobodyIsToldWithoutSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	s := NewSystemd(NewBoard(), quiet())
	assert.Nil(t, s)
	s.Run(t.Context()) // returns at once
	s.Reloading()
	s.Reloaded(t.Context())
}

func TestASystemdThatCannotBeToldIsLoggedOnce(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/nowhere/notify")
	var log strings.Builder
	board := NewBoard()
	board.Note(Summarize(1, 1, ""))
	stop := listening(t, NewSystemd(board, slog.New(slog.NewTextHandler(&log, nil))))
	stop()
	assert.Equal(t, 1, strings.Count(log.String(), "systemd cannot be told how the agent is"))
}

func TestWhatSystemdCouldNotBeToldItIsToldLater(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	t.Setenv("NOTIFY_SOCKET", socket)
	var log synced
	board := NewBoard()
	board.Note(Summarize(1, 1, ""))
	listening(t, NewSystemd(board, slog.New(slog.NewTextHandler(&log, nil))))
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "systemd cannot be told") }, time.Minute, time.Millisecond)
	assert.Equal(t, "READY=1\nSTATUS=the drop is current", next(t, hearing(t, socket)))
}

// synced is a log that may be read while it is written.
type synced struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *synced) Write(line []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(line)
}

func (s *synced) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}
