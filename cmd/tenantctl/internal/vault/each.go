package vault

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// Workers is how many requests are under way at most.
const Workers = 16

// Each calls do for 0 to n-1, some at a time, until one fails or ctx ends, and returns
// that error.
func Each(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	g, within := errgroup.WithContext(ctx)
	g.SetLimit(Workers)
	for i := range n {
		if within.Err() != nil {
			break
		}
		g.Go(func() error { return do(within, i) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}
