// Package harden keeps others out of the memory of the agent's own process: what is
// in it cannot be wiped, since Go moves and copies as it likes.
package harden

import (
	"errors"
	"io"
	"log"
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
// Where there can be no core dump, a panic ends the process by SIGABRT instead of exit
// code 2, which tells of a bad configuration here: what starts agents must not take one
// for the other. As process 1 of a container it ends with 2 still, as Linux drops the
// signal. What a panic prints are the stacks of all goroutines: addresses, no texts.
//
// Package log prints nothing from then on: net/http logs up to 4 kB of an answer that a
// server sends without being asked, and, with GODEBUG=http2debug=1, all headers.
//
// What fails does not keep the rest from being done.
func Process(variables ...string) error {
	log.SetOutput(io.Discard)
	// In this order: who is not root may not write to its memory afterwards.
	hidden, undumpable := hideEnviron(variables), errors.Join(noCoreFiles(), notDumpable())
	if undumpable == nil {
		abortOnPanic()
	}
	return errors.Join(hidden, undumpable)
}
