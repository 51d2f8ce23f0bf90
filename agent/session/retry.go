package session

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Backoff returns pauses that double from first up to a cap, with full jitter:
// each is anything between nothing and its bound, so that agents which an
// outage has stopped together do not come back together.
func Backoff(first, most time.Duration) *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(
		// The library varies a pause by its factor in both directions.
		backoff.WithInitialInterval(first/2), backoff.WithMaxInterval(most/2), backoff.WithRandomizationFactor(1),
		backoff.WithMultiplier(2), backoff.WithMaxElapsedTime(0))
}

// maxRetryAfter bounds what a server, or something in front of it, may ask for.
const maxRetryAfter = 5 * time.Minute

// RetryAfter is how long Vault has asked to be left alone, or 0.
func RetryAfter(err error) time.Duration {
	var f *Fault
	if errors.As(err, &f) {
		return min(f.RetryAfter, maxRetryAfter)
	}
	return 0
}

// Retry calls f until it succeeds, the context ends or an error is not worth
// another try, with [Backoff]. The first failure and the recovery are logged,
// not every try. The last error is returned.
func Retry(ctx context.Context, log *slog.Logger, worth func(error) bool, f func() error) error {
	pause := Backoff(400*time.Millisecond, 15*time.Second)
	start := time.Now()
	said := map[string]bool{}
	for try := 1; ; try++ {
		err := f()
		switch {
		case err == nil && try > 1:
			log.Info("recovered", "after", time.Since(start).Round(time.Millisecond).String(), "tries", try)
			return nil
		case err == nil:
			return nil
		case ctx.Err() != nil || !worth(err):
			return err
		case !said[kindOf(err)]:
			said[kindOf(err)] = true
			log.Warn("trying again until it works", "error", err)
		default:
			log.Debug("still failing", "error", err, "try", try)
		}
		if !sleep(ctx, max(pause.NextBackOff(), RetryAfter(err))) {
			return err
		}
	}
}

// sleep reports whether the time has passed before the context has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// kindOf is the part of an error that is worth saying once each: that Vault is
// sealed now, say, when before it could not be reached.
func kindOf(err error) string {
	var f *Fault
	if errors.As(err, &f) {
		return f.Kind.Error()
	}
	return err.Error()
}
