// Package tally counts what a part of the agent does, for whoever asks.
package tally

import (
	"sync/atomic"
	"time"
)

// Tally counts what has succeeded and what has failed, and how long that took. A
// nil one counts nothing. It may be used concurrently.
type Tally struct {
	succeeded, failed, took atomic.Int64
}

// Note takes in one more that has begun then and has just ended.
func (t *Tally) Note(begun time.Time, err error) {
	if t == nil {
		return
	}
	t.took.Add(int64(time.Since(begun)))
	if err != nil {
		t.failed.Add(1)
	} else {
		t.succeeded.Add(1)
	}
}

// Sum is what a [Tally] has come to.
type Sum struct {
	Succeeded, Failed int64
	Took              time.Duration // all of them together
}

// Sum is what it has come to by now.
func (t *Tally) Sum() Sum {
	if t == nil {
		return Sum{}
	}
	return Sum{t.succeeded.Load(), t.failed.Load(), time.Duration(t.took.Load())}
}
