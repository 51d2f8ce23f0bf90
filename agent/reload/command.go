package reload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

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
	// Files are handed to the program, as descriptor 3 and so on.
	Files []*os.File
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
	c.Env = append(changedFiles(change.Files), c.Env...)
	output := &redact.Output{Keep: c.ShowOutput}
	if err := c.Run(ctx, output); err != nil {
		err = fmt.Errorf("%s: %w", c, err)
		return WithOutput(err, output, change.hiddenWith(values), "set show_output = true in the reload block to log the output, or run the command by hand")
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
	if c.Dir != "" {
		if info, err := os.Stat(c.Dir); err != nil || !info.IsDir() {
			return fmt.Errorf("%s: there is no folder %s to run it in", c, c.Dir)
		}
	}
	if _, err := c.credential(); err != nil {
		return fmt.Errorf("%s: %w", c, err)
	}
	program, err := c.program()
	if err != nil {
		return err
	}
	if err := CheckEnviron(append([]string{program}, c.Args...), c.environ()); err != nil {
		return fmt.Errorf("%s: %w", c, err)
	}
	return nil
}

// environ is what the program gets.
func (c Command) environ() []string { return slices.Concat(Environ(), c.home(), c.Env) }

// program finds what is to be run, relative to the folder that it is run in.
func (c Command) program() (string, error) {
	name := c.Args[0]
	if c.Dir != "" && strings.Contains(name, "/") && !strings.HasPrefix(name, "/") {
		name = filepath.Join(c.Dir, name)
	}
	found, err := exec.LookPath(name)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("there is no program %s: install it, or write its full path", name)
	}
	if err != nil {
		return "", fmt.Errorf("program %s cannot be run: %w", name, errors.Unwrap(err))
	}
	return filepath.Abs(found) // The program is started in another folder, perhaps.
}

// Run runs the program and waits for it. What the program prints goes to output. Errors
// do not name the program where it was started.
func (c Command) Run(ctx context.Context, output io.Writer) error {
	limit, cancel := limited(ctx, c.Timeout)
	defer cancel()
	program, err := c.program()
	if err != nil {
		return err
	}
	credential, err := c.credential()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(limit, program, c.Args[1:]...)
	cmd.Args[0] = c.Args[0]
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = c.environ(), c.Dir, output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: credential}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.ExtraFiles, cmd.WaitDelay = c.Files, time.Second
	switch err := cmd.Run(); {
	case err == nil:
		return nil
	case timedOut(ctx, limit):
		return fmt.Errorf("ended after its timeout of %v", c.Timeout)
	default:
		return explain(err, cmd)
	}
}

// credential is what the program runs as, or nil for what the agent runs as.
func (c Command) credential() (*syscall.Credential, error) {
	if c.User == "" {
		return nil, nil
	}
	u, err := lookup(c.User)
	if err != nil {
		return nil, fmt.Errorf("there is no user %q", c.User)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	switch {
	case err1 != nil || err2 != nil:
		return nil, fmt.Errorf("user %q has no id", c.User)
	case int(uid) == os.Geteuid():
		return nil, nil
	case os.Geteuid() != 0:
		return nil, fmt.Errorf("only root can run it as user %q; run the agent as that user", c.User)
	}
	groups := []uint32{}
	ids, _ := u.GroupIds()
	for _, text := range ids {
		if id, err := strconv.ParseUint(text, 10, 32); err == nil {
			groups = append(groups, uint32(id))
		}
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), Groups: groups}, nil
}

// home tells the program whose it is.
func (c Command) home() []string {
	if c.User == "" {
		return nil
	}
	u, err := lookup(c.User)
	if err != nil {
		return nil
	}
	return []string{"USER=" + u.Username, "LOGNAME=" + u.Username, "HOME=" + u.HomeDir}
}

// lookup finds a user. A number need not be known to the system, as in a container.
func lookup(name string) (*user.User, error) {
	u, err := user.Lookup(name)
	if err == nil {
		return u, nil
	}
	if _, isNumber := strconv.ParseUint(name, 10, 32); isNumber != nil {
		return nil, err
	}
	if u, err := user.LookupId(name); err == nil {
		return u, nil
	}
	return &user.User{Uid: name, Gid: name, Username: name, HomeDir: "/"}, nil
}

// Environ is the environment for programs that the agent runs: its own, without
// its credentials, and without what is between the agent and systemd.
func Environ() []string { return slices.DeleteFunc(os.Environ(), isOwn) }

func isOwn(variable string) bool {
	name, _, _ := strings.Cut(variable, "=")
	return slices.Contains([]string{"VAULT_TOKEN", "VAULT_SECRET_ID", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}, name)
}
