//go:build !race

package render

// hostileSize is the largest value of KV: 1 MiB.
const hostileSize = 1 << 20

// poolLoss is how much more is allocated where a sync.Pool forgets.
const poolLoss = 1
