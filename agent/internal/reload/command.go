package reload

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/command"
	"github.com/smarteros/deaddrop/agent/internal/redact"
)

// Command runs a program, without a shell.
type Command config.Command

func (c Command) String() string { return config.Command(c).String() }

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
