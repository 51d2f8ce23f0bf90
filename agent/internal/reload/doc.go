// Package reload notifies services of files that have changed: see [Action] for the
// ways, and [Queue] for when.
//
// # When an action runs
//
// A [Job] is one change and the actions that it calls for.
//
//   - Jobs run side by side, at most 8 actions at once. The actions of one job run one
//     after the other: each starts once the one before it has been attempted, whether
//     that succeeded or failed.
//   - Actions that are equal are one target. A target never runs twice at once.
//   - A failed action is retried with backoff, from 1 s to 1 min. First attempts go
//     before retries, and retries take at most half of the 8 places, so that targets
//     that hang at each retry leave room for the others.
//   - A new job tries its failed targets at once. Nothing else runs an action before it
//     is due.
//
// # When changes share a run
//
// Jobs that are added together are a batch, and so are all that are added while a batch
// waits out its splay. An action that several jobs of a batch list runs once, for all of
// their changes, in the last of its places: [a c] and [b c] run as a and b side by side,
// then c. Only if jobs contradict each other, an action runs again: [a b] and [b a] run
// as a, b, a.
//
// A job that comes later shares a run that is still waiting if the run waits for the same
// in both: for its target, its retry or a free place, or for an action that the job
// shares as well. Otherwise neither holds the other back: the action is queued again, and
// the two runs become one when they wait for the same. In this way, a target that hangs
// delays only its own jobs and those of their batch that share actions with them, and no
// stream of changes puts an action off forever.
//
// A run that has begun takes on no change: the service may have read the files before.
package reload
