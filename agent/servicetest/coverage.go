package servicetest

import (
	"os"
	"path/filepath"
	"syscall"
)

// "make cover" sets these: a folder of programs that were built with -cover, and the one
// where they put what they have covered. Tests have a GOCOVERDIR of their own.
const (
	programsVariable = "DEADDROP_TEST_COVER_PROGRAMS"
	dataVariable     = "DEADDROP_TEST_COVER_DATA"
)

// MeasureCoverage replaces a test binary that is to be a program by that program, built
// with -cover, where "make cover" has built it: a test binary itself notes only what its
// own tests cover. It returns where the user of the process may not run that program.
func MeasureCoverage(program string) {
	dir := os.Getenv(programsVariable)
	if dir == "" {
		return
	}
	if err := syscall.Exec(filepath.Join(dir, program), os.Args, os.Environ()); err != syscall.EACCES {
		fail(err)
	}
}

// CoverageEnv is what [MeasureCoverage] needs in the environment of a program.
func CoverageEnv() []string {
	if os.Getenv(programsVariable) == "" {
		return nil
	}
	return []string{programsVariable + "=" + os.Getenv(programsVariable), "GOCOVERDIR=" + os.Getenv(dataVariable)}
}
