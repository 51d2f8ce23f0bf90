//go:build !linux

package harden

import "errors"

// Systems other than Linux are for development: nothing is done there.
func noCoreFiles() error { return nil }

func notDumpable() error { return nil }

// abortOnPanic leaves the exit code: aborting would make a core dump.
func abortOnPanic() {}

func hideEnviron([]string) error { return nil }

// LockMemory fails: only Linux does it for a whole program.
func LockMemory() error {
	return errors.New("memory can be locked on Linux only")
}
