//go:build !race

package render

// hostileSize is the largest value of KV: 1 MiB.
const hostileSize = 1 << 20
