package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/servicetest"
	"github.com/smarteros/deaddrop/compose/leaktest"
)

// TestMain lets the test binary be tenantctl, so that the tests below deal with
// real processes.
func TestMain(m *testing.M) {
	if os.Getenv("TEST_BE") == "tenantctl" {
		servicetest.MeasureCoverage("tenantctl")
		main()
		return
	}
	code := m.Run()
	_ = os.RemoveAll(plainProgram.dir)
	os.Exit(code)
}

// run runs tenantctl as a process with nothing on its standard input. Of the
// environment it has PATH, a home and a working folder of its own (HOME and PWD in
// env are others), and env.
func run(t *testing.T, env []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	return runWith(t, "", env, args...)
}

// runWith is run with this on standard input.
func runWith(t *testing.T, stdin string, env []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	return finish(t, command(t, env, args...), stdin)
}

// finish runs a command to its end.
func finish(t *testing.T, cmd *exec.Cmd, stdin string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	_ = cmd.Run() // Its code says the same.
	if cmd.ProcessState == nil {
		t.Fatalf("tenantctl did not start: %v", cmd.Args)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// plainProgram is tenantctl as "make build" makes it. TestMain removes it.
var plainProgram struct {
	sync.Once
	dir string
	err error
}

// plain lets a command run without the race detector, with which the key of a passphrase
// takes many seconds instead of one.
func plain(t *testing.T, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	plainProgram.Do(func() {
		if plainProgram.dir, plainProgram.err = os.MkdirTemp("", "tenantctl-"); plainProgram.err != nil {
			return
		}
		build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", filepath.Join(plainProgram.dir, "tenantctl"), ".")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			plainProgram.err = fmt.Errorf("%w: %s", err, out)
		}
	})
	require.NoError(t, plainProgram.err)
	cmd.Path = filepath.Join(plainProgram.dir, "tenantctl")
	return cmd
}

// command is tenantctl, not yet started. It has no controlling terminal. What it says is
// searched for secrets, unless it was asked to reveal them.
func command(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	if !slices.Contains(args, "--reveal") {
		leaktest.Command(t, cmd)
	}
	cmd.Dir = t.TempDir()
	// With -race a program else sleeps for a second as it ends.
	cmd.Env = append([]string{"TEST_BE=tenantctl", "GORACE=atexit_sleep_ms=20", "PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, env...)
	cmd.Env = append(cmd.Env, servicetest.CoverageEnv()...)
	for _, each := range env {
		if dir, ok := strings.CutPrefix(each, "PWD="); ok {
			cmd.Dir = dir
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

func TestABadCommandLineIsTold(t *testing.T) {
	t.Parallel()
	for args, say := range map[string]string{
		"tenatn":              `unknown command "tenatn"`,
		"version --no":        "unknown flag: --no",
		"version -o xml":      `--output "xml" is not known: use table, json, yaml`,
		"version superfluous": `unknown command "superfluous"`,
	} {
		out, errs, code := run(t, nil, strings.Fields(args)...)
		assert.Equal(t, exitUsage, code, args)
		assert.Contains(t, errs, say, args)
		assert.Empty(t, out, args)
	}
}

func TestTheHelpOfEveryCommandHasAnExample(t *testing.T) {
	t.Parallel()
	for _, cmd := range newRoot().Commands() {
		if name := cmd.Name(); name != "version" && name != "help" && name != "completion" && !cmd.HasSubCommands() {
			assert.NotEmpty(t, cmd.Example, name)
			out, _, code := run(t, nil, name, "--help")
			assert.Zero(t, code, name)
			assert.Contains(t, out, cmd.Example, name)
		}
	}
}
