package reload

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
)

// TooLargeError says that the kernel starts no program with these variables or
// arguments. It holds names and sizes, no value.
type TooLargeError struct {
	// Name is the variable that is too large, or the largest of all; "argument 2" for
	// one of the command line, where 0 is the program.
	Name string
	// Size is that of the variable, as NAME=value, in bytes.
	Size int
	// Total is that of all variables and arguments; 0 where one alone is too large.
	Total int
	// Limit is the most that the kernel takes: of one, or of all.
	Limit int
}

// Hint is what the user can do about it.
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
		return nil // It is not known of this system.
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

// explain names the largest variable where the kernel found all of them too large.
func explain(err error, cmd *exec.Cmd) error {
	if !errors.Is(err, syscall.E2BIG) {
		return err
	}
	if wrong := CheckEnviron(cmd.Args, cmd.Env); wrong != nil {
		return wrong
	}
	return err
}
