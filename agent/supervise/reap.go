package supervise

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/smarteros/deaddrop/agent/internal/process"
)

// patience is how long a zombie must have been one before it is taken for an
// orphan. The agent waits for the programs that it has started itself, so that
// theirs are gone at once; taking one of those would lose its exit code.
const patience = 2 * time.Second

// Reap is an actor that takes note of the end of orphans, which Linux leaves to
// process 1. It returns at once where the agent is another process.
func Reap(ctx context.Context) error {
	if os.Getpid() != 1 {
		return nil
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	defer signal.Stop(ended)
	seen := map[int]bool{}
	var look <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ended:
			if look == nil {
				look = time.After(patience)
			}
		case <-look:
			if seen, look = reap(seen), nil; len(seen) > 0 {
				look = time.After(patience)
			}
		}
	}
}

// reap takes the zombies that were there at the last look, and returns the
// others.
func reap(before map[int]bool) map[int]bool {
	fresh := map[int]bool{}
	zombies, _ := process.Find(func(p process.Process) bool { return p.Zombie && p.Parent == os.Getpid() })
	for _, p := range zombies {
		if before[p.PID] {
			_, _ = syscall.Wait4(p.PID, nil, syscall.WNOHANG, nil)
		} else {
			fresh[p.PID] = true
		}
	}
	return fresh
}
