package harden

import (
	"bytes"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// noCoreFiles lowers the soft limit alone, so that programs that are started may
// raise theirs again.
func noCoreFiles() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil {
		return fmt.Errorf("reading the limit of core files: %w", err)
	}
	limit.Cur = 0
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &limit); err != nil {
		return fmt.Errorf("turning off core files: %w", err)
	}
	return nil
}

// notDumpable makes most of /proc/PID root's. It also stops core dumps that go to a
// program, which the limit does not. A program that is started is dumpable again.
func notDumpable() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("making the process not dumpable: %w", err)
	}
	return nil
}

// abortOnPanic is what GOTRACEBACK=crash does; but programs that are started, which may
// be written in Go, too, would inherit that.
func abortOnPanic() { debug.SetTraceback("crash") }

// hideEnviron overwrites values in the memory that the kernel has put the environment
// in, and that /proc/PID/environ shows. Go has copied all of it before main.
func hideEnviron(variables []string) error {
	block, err := os.ReadFile("/proc/self/environ")
	if err != nil {
		return nil // Without /proc nobody reads it there.
	}
	secrets := valuesIn(block, variables)
	if len(secrets) == 0 {
		return nil
	}
	start, err := environStart()
	if err == nil {
		err = overwrite(start, secrets)
	}
	if err != nil {
		return fmt.Errorf("hiding credentials in the environment of the process: %w; deliver them in files instead", err)
	}
	return nil
}

// span is a part of the environment.
type span struct{ at, size int }

// valuesIn finds the values of variables in a block of NAME=value, each with a zero
// behind it.
func valuesIn(block []byte, variables []string) []span {
	var found []span
	at := 0
	for _, pair := range bytes.SplitAfter(block, []byte{0}) {
		name, value, isPair := bytes.Cut(pair, []byte("="))
		if isPair && slices.Contains(variables, string(name)) {
			found = append(found, span{at + len(name) + 1, len(bytes.TrimSuffix(value, []byte{0}))})
		}
		at += len(pair)
	}
	return found
}

// environStart is the address of the environment: see proc_pid_stat(5).
func environStart() (int64, error) {
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	const envStart = 47 // env_start is field 50; the first behind the name is 3.
	if len(fields) <= envStart {
		return 0, fmt.Errorf("/proc/self/stat does not tell where it is")
	}
	return strconv.ParseInt(string(fields[envStart]), 10, 64)
}

func overwrite(start int64, secrets []span) error {
	memory, err := os.OpenFile("/proc/self/mem", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = memory.Close() }()
	for _, each := range secrets {
		if _, err := memory.WriteAt(make([]byte, each.size), start+int64(each.at)); err != nil {
			return err
		}
	}
	return nil
}
