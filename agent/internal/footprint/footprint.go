// Package footprint keeps the memory small of a process that mostly sleeps.
package footprint

import "runtime/debug"

// Trim gives back what starting took and waiting does not need: free memory, and the
// pages of the program's own file. These are the larger part of a small agent, and
// most of them are code that only starting runs. The kernel maps those that are
// needed again, from its cache.
func Trim() {
	debug.FreeOSMemory()
	unmapProgram()
}
