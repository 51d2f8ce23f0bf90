// Package harden keeps others out of the memory of the agent's own process: what is
// in it cannot be wiped, since Go moves and copies as it likes.
package harden

import (
	"errors"
)

// Process takes care that nothing of the process gets into core dumps, and that no
// other process of the same user reads its memory, its environment or its open
// files, or traces it. Root with CAP_SYS_PTRACE still may. The values of the named
// variables are overwritten where Linux shows the environment that a process was
// started with; os.Getenv gives them still.
//
// Programs that the process starts are not kept from being looked into; but the soft
// limit for the size of core files, which is 0 now, is theirs, too. They may raise it.
//
// What fails does not keep the rest from being done.
func Process(variables ...string) error {
	// In this order: who is not root may not write to its memory afterwards.
	return errors.Join(hideEnviron(variables), noCoreFiles(), notDumpable())
}
