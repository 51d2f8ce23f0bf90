package status

import (
	"context"
	"sync"
	"time"
)

// Board is where one asks how the agent is. The agent answers between two steps
// of its work, so that asking costs nothing while nobody does.
type Board struct {
	asked   chan chan<- *Report
	pinged  chan struct{}
	changed chan struct{}

	mu        sync.Mutex
	summary   Summary
	config    Config
	busyUntil time.Time
}

// NewBoard returns a board that nobody answers at yet.
func NewBoard() *Board {
	return &Board{asked: make(chan chan<- *Report), pinged: make(chan struct{}), changed: make(chan struct{}, 1)}
}

// Ask returns a report, or the error of the context when the agent is busy for
// longer.
func (b *Board) Ask(ctx context.Context) (*Report, error) {
	answer := make(chan *Report, 1)
	select {
	case b.asked <- answer:
		return <-answer, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Ping returns when the agent has come to the end of a step, or the error of the
// context.
func (b *Board) Ping(ctx context.Context) error {
	select {
	case b.pinged <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Asked are the questions, for the agent. Each wants one report.
func (b *Board) Asked() <-chan chan<- *Report { return b.asked }

// Pinged are the pings, for the agent.
func (b *Board) Pinged() <-chan struct{} { return b.pinged }

// Note takes in how the agent is after a step.
func (b *Board) Note(s Summary) {
	b.mu.Lock()
	news := b.summary != s
	b.summary = s
	b.mu.Unlock()
	if news {
		select {
		case b.changed <- struct{}{}:
		default: // It was not looked at yet.
		}
	}
}

// Summary is the last that was noted.
func (b *Board) Summary() Summary {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.summary
}

// NoteConfig takes in the configuration that is in force from now on.
func (b *Board) NoteConfig(c Config) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.config = c
}

// NoteRefused takes in that a newer configuration is not, and why.
func (b *Board) NoteRefused(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.config.Refused, b.config.Error = time.Now(), err.Error()
}

// Config is what was noted of the configuration.
func (b *Board) Config() Config {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.config
}

// Changed tells one listener that the summary has changed.
func (b *Board) Changed() <-chan struct{} { return b.changed }

// Busy says that the agent may not answer until then, and that this is no fault:
// it waits for something that ends by then. Zero is when it is done.
func (b *Board) Busy(until time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.busyUntil = until
}

// IsBusy tells whether the agent need not answer now.
func (b *Board) IsBusy() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Now().Before(b.busyUntil)
}
