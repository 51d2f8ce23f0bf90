package reload

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/smarteros/deaddrop/agent/command"
	"github.com/smarteros/deaddrop/agent/redact"
)

// Command runs a program, without a shell.
type Command struct {
	// Args are the program and its arguments; at least one.
	Args []string
	// Timeout ends the program and its children by SIGKILL; 0 is none.
	Timeout time.Duration
	// Env are variables, in the form NAME=value, on top of the agent's.
	Env []string
	// Dir is the working folder; "" is the agent's.
	Dir string
	// User, by name or number, runs the program; "" is the agent's own. It gets
	// the user's groups, too.
	User string
	// ShowOutput logs what the program prints when it fails, without hidden values.
	ShowOutput bool
	// Place is where the configuration has the command, such as "deaddrop.hcl:12", or "".
	// Commands that differ in nothing else are the same.
	Place string
}

// String leaves out the arguments, which may be secret. The place tells commands of the
// same program apart.
func (c Command) String() string {
	if c.Place == "" {
		return "command " + c.Args[0]
	}
	return "command " + c.Args[0] + " (" + c.Place + ")"
}

// Do runs the program and waits for it. It does not get the agent's own
// credentials, but what has changed: the paths in DEADDROP_CHANGED_FILES, a line
// each, and their number in DEADDROP_CHANGED_COUNT.
func (c Command) Do(ctx context.Context, change Change) error {
	var values []string
	for _, pair := range c.Env {
		_, value, _ := strings.Cut(pair, "=")
		values = append(values, value)
	}
	spec := c.spec()
	spec.Env = append(changedFiles(change.Files), c.Env...)
	output := &redact.Output{Keep: c.ShowOutput}
	if err := spec.Run(ctx, output); err != nil {
		err = fmt.Errorf("%s: %w", c, err)
		return redact.WithOutput(err, output, change.hiddenWith(values), "set show_output = true in the reload block to log the output, or run the command by hand")
	}
	return nil
}

// maxList is how many bytes of paths a program gets. Linux takes 128 KiB.
const maxList = 100 << 10

func changedFiles(files []string) []string {
	var list strings.Builder
	for _, file := range files {
		if list.Len()+len(file) > maxList {
			break
		}
		list.WriteString(file + "\n")
	}
	return []string{"DEADDROP_CHANGED_FILES=" + strings.TrimSuffix(list.String(), "\n"), "DEADDROP_CHANGED_COUNT=" + strconv.Itoa(len(files))}
}

// Check tells of a program, a folder or a user that is not there.
func (c Command) Check(context.Context) error {
	if err := c.spec().Check(); err != nil {
		return fmt.Errorf("%s: %w", c, err)
	}
	return nil
}

func (c Command) spec() command.Spec {
	return command.Spec{Args: c.Args, Timeout: c.Timeout, Env: c.Env, Dir: c.Dir, User: c.User}
}
