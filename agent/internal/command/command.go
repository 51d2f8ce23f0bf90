// Package command runs the programs that a configuration names: reload commands and
// checks. They run without a shell, without the agent's credentials, and in a process
// group of their own.
package command

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
)

// Spec is a program and how to run it.
type Spec struct {
	// Args are the program and its arguments; at least one.
	Args []string
	// Timeout is how long the program may run. After it, SIGKILL ends the program and its
	// children. 0 is no limit.
	Timeout time.Duration
	// Env are variables, in the form NAME=value, on top of the agent's: see [Environ].
	Env []string
	// Dir is the working folder; "" is the agent's.
	Dir string
	// User runs the program, by name or number, with the groups of the user; "" is the
	// agent's own user.
	User string
	// Files are inherited by the program, as descriptor 3 and so on. They stay the
	// caller's, who closes them.
	Files []*os.File
}

// outputDelay is how long output is still read after the program has ended, while a
// process that it has left behind keeps the pipe open.
const outputDelay = time.Second

// Run runs the program and waits for it. Standard output and standard error go to output.
// The error is an [*exec.ExitError], a [*TooLargeError] or one that says why the program
// cannot be run. It does not show the arguments, which may be secret.
func (s Spec) Run(ctx context.Context, output io.Writer) error {
	limit, cancel := context.WithCancel(ctx)
	if s.Timeout > 0 {
		limit, cancel = context.WithTimeout(ctx, s.Timeout)
	}
	defer cancel()
	program, err := s.program()
	if err != nil {
		return err
	}
	credential, err := s.credential()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(limit, program, s.Args[1:]...)
	cmd.Args[0] = s.Args[0]
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = s.environ(), s.Dir, output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: credential}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.ExtraFiles, cmd.WaitDelay = s.Files, outputDelay
	err = cmd.Run()
	switch hasTimedOut := errors.Is(limit.Err(), context.DeadlineExceeded) && ctx.Err() == nil; {
	case err == nil:
		return nil
	case hasTimedOut:
		return fmt.Errorf("ended after its timeout of %v", s.Timeout)
	default:
		return explain(err, cmd)
	}
}

// Check returns an error if the program, its folder or its user does not exist, or the
// arguments and variables are too large. It does not run the program.
func (s Spec) Check() error {
	if s.Dir != "" {
		if info, err := os.Stat(s.Dir); err != nil || !info.IsDir() {
			return fmt.Errorf("there is no folder %s to run it in", s.Dir)
		}
	}
	if _, err := s.credential(); err != nil {
		return err
	}
	program, err := s.program()
	if err != nil {
		return err
	}
	return CheckEnviron(append([]string{program}, s.Args...), s.environ())
}

// environ is the environment of the program.
func (s Spec) environ() []string { return slices.Concat(Environ(), s.userVariables(), s.Env) }

// program finds the program, relative to the folder that it runs in.
func (s Spec) program() (string, error) {
	name := s.Args[0]
	if s.Dir != "" && strings.Contains(name, "/") && !strings.HasPrefix(name, "/") {
		name = filepath.Join(s.Dir, name)
	}
	found, err := exec.LookPath(name)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("there is no program %s: install it, or write its full path", name)
	}
	if err != nil {
		return "", fmt.Errorf("program %s cannot be run: %w", name, errors.Unwrap(err))
	}
	return filepath.Abs(found) // The program may start in another folder.
}

// credential is the user and the groups of the program; nil for the agent's own.
func (s Spec) credential() (*syscall.Credential, error) {
	if s.User == "" {
		return nil, nil
	}
	u, err := lookup(s.User)
	if err != nil {
		return nil, fmt.Errorf("there is no user %q", s.User)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	switch {
	case err1 != nil || err2 != nil:
		return nil, fmt.Errorf("user %q has no id", s.User)
	case int(uid) == os.Geteuid():
		return nil, nil
	case os.Geteuid() != 0:
		return nil, fmt.Errorf("only root can run it as user %q; run the agent as that user", s.User)
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

// userVariables are the variables that name the user and the home directory.
func (s Spec) userVariables() []string {
	if s.User == "" {
		return nil
	}
	u, err := lookup(s.User)
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
