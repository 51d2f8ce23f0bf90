//go:build race

package dotenv

// With the race detector each value takes ten times as long, and nothing here runs at once.
func init() { valuesReadBack /= 10 }
