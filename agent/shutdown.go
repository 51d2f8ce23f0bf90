package agent

import (
	"context"
	"time"
)

// logoutTime is how long revoking leases and the token may take at the end.
const logoutTime = 3 * time.Second

// shutdownTime is how long the agent may take to end, once asked to: in it are what a
// reload that is under way may take, and the logout. Supervisors give the agent 5 s.
const shutdownTime = 4 * time.Second

// outliving returns a context that outlives ctx by a time, unless it is released before.
func outliving(ctx context.Context, by time.Duration) (outliving context.Context, release func()) {
	outliving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(by, cancel) })
	return outliving, func() {
		stop()
		cancel()
	}
}

// inBackground works until the context ends, or until the function is called that it
// returns.
func inBackground(ctx context.Context, work func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		work(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}
