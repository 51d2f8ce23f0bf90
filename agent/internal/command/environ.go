package command

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
)

// Environ returns the environment for programs that the agent runs: its own, without
// its credentials, and without the variables that systemd has set for the agent alone.
func Environ() []string { return slices.DeleteFunc(os.Environ(), isAgents) }

// isAgents reports whether a variable is for the agent alone.
func isAgents(variable string) bool {
	name, _, _ := strings.Cut(variable, "=")
	return slices.Contains([]string{"VAULT_TOKEN", "VAULT_SECRET_ID", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}, name)
}

// TooLargeError is a variable or an argument, or all of them together, that the kernel
// refuses as too large. It holds names and sizes, no values.
type TooLargeError struct {
	// Name is the variable that is too large, or the largest of all; "argument 2" for
	// one of the command line, where 0 is the program.
	Name string
	// Size is that of the variable, as NAME=value, in bytes.
	Size int
	// Total is that of all variables and arguments; 0 where one alone is too large.
	Total int
	// Limit is the most that the kernel takes, in bytes: of one, or of all.
	Limit int
}

// Hint says what the user can do about it.
func (e *TooLargeError) Hint() string {
	return "write it to a file, as by a drop or template block, and hand on the file's path"
}

func (e *TooLargeError) Error() string {
	what := "variable " + e.Name
	if strings.HasPrefix(e.Name, "argument ") {
		what = e.Name
	}
	if e.Total == 0 {
		return fmt.Sprintf("%s has %d bytes with its name, and the kernel takes %d; %s", what, e.Size, e.Limit, e.Hint())
	}
	return fmt.Sprintf("the environment and the arguments have %d bytes, and the kernel takes %d; the largest is %s with %d bytes; %s", e.Total, e.Limit, what, e.Size, e.Hint())
}

// CheckEnviron returns a [*TooLargeError] where the kernel would not start a program
// with these arguments and variables of the form NAME=value. It knows the program's
// path only as args has it, so that a total at the very limit may pass.
func CheckEnviron(args, environ []string) error {
	one, all := limits()
	if one == 0 {
		return nil // The limits of this system are not known.
	}
	largest := TooLargeError{}
	total := 0
	note := func(name, text string) {
		const pointer = 8
		total += len(text) + 1 + pointer // NUL ends it.
		if len(text) > largest.Size {
			largest.Name, largest.Size = name, len(text)
		}
	}
	for i, arg := range args {
		note(fmt.Sprintf("argument %d", i), arg)
	}
	for _, pair := range environ {
		name, _, _ := strings.Cut(pair, "=")
		note(name, pair)
	}
	switch {
	case largest.Size > one-1:
		largest.Limit = one - 1
	case total > all:
		largest.Total, largest.Limit = total, all
	default:
		return nil
	}
	return &largest
}

// explain names the largest variable if the kernel refused all of them as too large.
func explain(err error, cmd *exec.Cmd) error {
	if !errors.Is(err, syscall.E2BIG) {
		return err
	}
	if wrong := CheckEnviron(cmd.Args, cmd.Env); wrong != nil {
		return wrong
	}
	return err
}
