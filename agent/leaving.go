package agent

import (
	"context"
	"time"
)

// closing is how long it may take to say goodbye to Vault.
const closing = 3 * time.Second

// leaving is how long it may take to end, once asked to: in it are what a reload that
// is under way may take, and the goodbye. Who supervises the agent gets 5 s.
const leaving = 4 * time.Second

// beyond returns a context that outlives ctx by a time, unless it is released before.
func beyond(ctx context.Context, by time.Duration) (outliving context.Context, release func()) {
	outliving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(by, cancel) })
	return outliving, func() {
		stop()
		cancel()
	}
}
