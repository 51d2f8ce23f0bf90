//go:build race

package render

// hostileSize is smaller for the race detector, which makes these tests ten times as
// slow. What grows by the square of a value shows all the same.
const hostileSize = 1 << 15

// poolLoss is how much more is allocated where a sync.Pool forgets, as it does on purpose
// for the race detector: package regexp makes its machine anew for many a match.
const poolLoss = 4

// callsOfAFunction is a sample: nothing here runs at once, and "make test" tries all of
// them without the race detector.
const callsOfAFunction = 8
