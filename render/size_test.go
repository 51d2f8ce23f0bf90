//go:build !race

package render

// hostileSize is the largest value of KV: 1 MiB.
const hostileSize = 1 << 20

// poolLoss is how much more is allocated where a sync.Pool forgets.
const poolLoss = 1

// callsOfAFunction is how many combinations of values each function is called with.
const callsOfAFunction = 80
