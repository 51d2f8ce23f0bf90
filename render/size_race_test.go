//go:build race

package render

// hostileSize is smaller for the race detector, which makes these tests ten times as
// slow. What grows by the square of a value shows all the same.
const hostileSize = 1 << 15
