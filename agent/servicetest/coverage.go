package servicetest

import (
	"os"
	"path/filepath"
	"syscall"
)

// programsVariable names a folder of programs that were built with -cover. "make cover"
// sets it, and GOCOVERDIR.
const programsVariable = "DEADDROP_TEST_COVER_PROGRAMS"

// MeasureCoverage replaces a test binary that is to be a program by that program, built
// with -cover, where "make cover" has built it: a test binary itself notes only what its
// own tests cover.
func MeasureCoverage(program string) {
	if dir := os.Getenv(programsVariable); dir != "" {
		fail(syscall.Exec(filepath.Join(dir, program), os.Args, os.Environ()))
	}
}

// CoverageEnv is what [MeasureCoverage] needs in the environment of a program.
func CoverageEnv() []string {
	if os.Getenv(programsVariable) == "" {
		return nil
	}
	return []string{programsVariable + "=" + os.Getenv(programsVariable), "GOCOVERDIR=" + os.Getenv("GOCOVERDIR")}
}
