package supervise

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/command"
	"github.com/smarteros/deaddrop/agent/internal/process"
	"github.com/smarteros/deaddrop/agent/internal/reload"
	"github.com/smarteros/deaddrop/agent/servicetest"
)

// TestMain lets the test binary be a service that answers signals.
func TestMain(m *testing.M) {
	servicetest.Main()
	os.Exit(m.Run())
}

// run runs a service in the background, and returns a function that reads its lines.
func run(t *testing.T, service servicetest.Service, restart bool, sig syscall.Signal) (p *Process, said func() string, log *bytes.Buffer, end func() error, cancel func()) {
	t.Helper()
	service.File = filepath.Join(t.TempDir(), "said")
	p, log, end, cancel = runCommand(t, service.Args(), restart, sig)
	said = func() string {
		content, _ := os.ReadFile(service.File)
		return string(content)
	}
	return p, said, log, end, cancel
}

// runCommand runs a command in the background.
func runCommand(t *testing.T, args []string, restart bool, sig syscall.Signal) (p *Process, log *bytes.Buffer, end func() error, cancel func()) {
	t.Helper()
	t.Setenv("VAULT_TOKEN", "m4rker")
	log = &bytes.Buffer{}
	p = New(config.Exec{Args: args, StopSignal: sig, Grace: config.DefaultStopGrace, Restart: restart}, slog.New(slog.NewTextHandler(log, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	end = func() error {
		select {
		case err := <-ended:
			return err
		case <-time.After(time.Minute):
			t.Fatal("it does not end")
			return nil
		}
	}
	return p, log, end, cancel
}

// renew does what a change of the environment calls for.
func renew(t *testing.T, p *Process, pairs ...string) {
	t.Helper()
	actions := p.SetEnviron(pairs)
	require.Len(t, actions, 1)
	require.NoError(t, actions[0].Do(t.Context(), reload.Change{At: time.Now()}))
}

// serve writes its environment, and a line when it is stopped.
var serve = servicetest.Service{Start: "$A $B $VAULT_TOKEN", On: map[string]string{"TERM": "stopped"}, Exit: map[string]int{"TERM": 0}}

func TestACommandStartsWithItsEnvironmentAndAnewWhenThatChanges(t *testing.T) {
	t.Setenv("A", "of the agent")
	p, said, _, end, cancel := run(t, serve, true, syscall.SIGTERM)
	assert.Empty(t, said(), "it waits for its environment")
	p.SetEnviron([]string{"A=1", "B=x"})
	require.Eventually(t, func() bool { return said() == "1 x \n" }, time.Minute, time.Millisecond)
	assert.Empty(t, p.SetEnviron([]string{"A=1", "B=x"}), "it is the same")
	renew(t, p, "A=2", "B=x")
	require.Eventually(t, func() bool { return said() == "1 x \nstopped\n2 x \n" }, time.Minute, time.Millisecond)
	cancel()
	require.NoError(t, end())
	assert.True(t, strings.HasSuffix(said(), "2 x \nstopped\n"), said())
}

func TestACommandMayKeepItsOldEnvironment(t *testing.T) {
	p, said, log, end, cancel := run(t, serve, false, syscall.SIGTERM)
	p.SetEnviron([]string{"A=1"})
	require.Eventually(t, func() bool { return said() == "1  \n" }, time.Minute, time.Millisecond)
	assert.Empty(t, p.SetEnviron([]string{"A=2"}))
	cancel()
	require.NoError(t, end())
	assert.Equal(t, "1  \nstopped\n", said())
	assert.Contains(t, log.String(), "goes on with the old ones")
}

func TestTheExitCodeOfACommandIsPassedOn(t *testing.T) {
	for script, code := range map[string]int{"exit 0": 0, "exit 7": 7, "kill -KILL $$": 137} {
		p, _, end, _ := runCommand(t, []string{"sh", "-c", script}, true, syscall.SIGTERM)
		p.SetEnviron(nil)
		err := end()
		if code == 0 {
			require.NoError(t, err)
			continue
		}
		var exit *ExitError
		require.ErrorAs(t, err, &exit)
		assert.Equal(t, code, exit.Code)
	}
}

func TestACommandThatDoesNotStopIsKilledWithItsChildren(t *testing.T) {
	p, said, log, end, cancel := run(t, servicetest.Service{Start: "$CHILD", HasChild: true, Ignore: []string{"TERM"}}, true, syscall.SIGTERM)
	p.command.Grace = 200 * time.Millisecond
	p.SetEnviron(nil)
	require.Eventually(t, func() bool { return said() != "" }, time.Minute, time.Millisecond)
	cancel()
	require.NoError(t, end())
	assert.Contains(t, log.String(), "killing it")
	require.Eventually(t, func() bool {
		stat, err := os.ReadFile("/proc/" + strings.TrimSpace(said()) + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ")
	}, time.Minute, time.Millisecond, "its child")
}

func TestTheStopSignalIsTheOneThatWasAskedFor(t *testing.T) {
	p, said, _, end, cancel := run(t, servicetest.Service{Start: "up", On: map[string]string{"INT": "int"}, Exit: map[string]int{"INT": 3}}, true, syscall.SIGINT)
	p.SetEnviron(nil)
	require.Eventually(t, func() bool { return said() == "up\n" }, time.Minute, time.Millisecond)
	cancel()
	var exit *ExitError
	require.ErrorAs(t, end(), &exit)
	assert.Equal(t, 3, exit.Code)
	assert.Equal(t, "up\nint\n", said())
}

func TestACommandThatIsNotThereIsAnError(t *testing.T) {
	p := New(config.Exec{Args: []string{"/nowhere"}}, slog.New(slog.DiscardHandler))
	p.SetEnviron([]string{"A=m4rker"})
	p.SetEnviron([]string{"A=m4rker"})
	err := p.Run(t.Context())
	require.ErrorContains(t, err, `starting the command /nowhere: `)
	assert.NotContains(t, err.Error(), "m4rker")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p = New(config.Exec{Args: []string{"/nowhere"}}, slog.New(slog.DiscardHandler))
	require.NoError(t, p.Run(ctx), "it never gets an environment")
}

func TestACommandMayGetASignalInsteadOfARestart(t *testing.T) {
	p, said, _, end, cancel := run(t, servicetest.Service{Start: "up", On: map[string]string{"HUP": "hup $A"}, Exit: map[string]int{"TERM": 0}}, false, syscall.SIGTERM)
	p.command.ReloadSignal = syscall.SIGHUP
	p.SetEnviron([]string{"A=1"})
	require.Eventually(t, func() bool { return said() == "up\n" }, time.Minute, time.Millisecond)
	renew(t, p, "A=2")
	require.Eventually(t, func() bool { return said() == "up\nhup 1\n" }, time.Minute, time.Millisecond, "its environment is the one that it was started with")
	cancel()
	require.NoError(t, end())
}

func TestAFileOfTheCommandRestartsItOrSignalsIt(t *testing.T) {
	p, said, _, end, cancel := run(t, servicetest.Service{Start: "up", On: map[string]string{"USR1": "usr"}, Exit: map[string]int{"TERM": 0}}, true, syscall.SIGTERM)
	before := reload.Change{At: time.Now()}
	var unneeded *reload.Unneeded
	require.ErrorAs(t, Reload{Of: p}.Do(t.Context(), before), &unneeded, "it was not started yet")
	p.SetEnviron(nil)
	require.Eventually(t, func() bool { return said() == "up\n" }, time.Minute, time.Millisecond)
	require.ErrorAs(t, Reload{Of: p}.Do(t.Context(), before), &unneeded, "it was started after the change")

	require.NoError(t, Reload{Of: p, Signal: syscall.SIGUSR1}.Do(t.Context(), reload.Change{At: time.Now()}))
	require.Eventually(t, func() bool { return said() == "up\nusr\n" }, time.Minute, time.Millisecond)
	require.NoError(t, Reload{Of: p}.Do(t.Context(), reload.Change{At: time.Now()}))
	require.Eventually(t, func() bool { return said() == "up\nusr\nup\n" }, time.Minute, time.Millisecond)
	cancel()
	require.NoError(t, end())
	require.ErrorAs(t, Reload{Of: p}.Do(t.Context(), reload.Change{At: time.Now()}), &unneeded, "it has ended")
}

func TestSignalsThatTheAgentHasNoUseForAreHandedOn(t *testing.T) {
	p, said, _, end, cancel := run(t, servicetest.Service{Start: "up", On: map[string]string{"USR2": "usr2", "QUIT": "quit"}, Exit: map[string]int{"TERM": 0}}, true, syscall.SIGTERM)
	p.SetEnviron(nil)
	require.Eventually(t, func() bool { return said() == "up\n" }, time.Minute, time.Millisecond)
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGUSR2))
	require.Eventually(t, func() bool { return said() == "up\nusr2\n" }, time.Minute, time.Millisecond)
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGQUIT))
	require.Eventually(t, func() bool { return said() == "up\nusr2\nquit\n" }, time.Minute, time.Millisecond)
	cancel()
	require.NoError(t, end())
}

func TestOnlyZombiesThatNobodyWaitsForAreReaped(t *testing.T) {
	orphan := exec.Command("true") // Nobody waits for it, as for an orphan.
	require.NoError(t, orphan.Start())
	isZombie := func() bool { p, err := process.Read(orphan.Process.Pid); return err == nil && p.Zombie }
	require.Eventually(t, isZombie, time.Minute, time.Millisecond)
	seen := reap(nil)
	assert.True(t, seen[orphan.Process.Pid])
	assert.True(t, isZombie(), "it may be someone's who is about to wait for it")
	assert.False(t, reap(seen)[orphan.Process.Pid])
	_, err := process.Read(orphan.Process.Pid)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestProcess_GoesOnWhenItsNewEnvironmentIsTooLarge(t *testing.T) {
	p, said, log, end, cancel := run(t, serve, true, syscall.SIGTERM)
	p.SetEnviron([]string{"A=1"})
	require.Eventually(t, func() bool { return said() == "1  \n" }, time.Minute, time.Millisecond)
	for name, pairs := range map[string][]string{"one": {"A=2", "B=" + strings.Repeat("m4rker", 30_000)}, "all": slices.Repeat([]string{"B=" + strings.Repeat("m4rker", 20_000)}, 60)} {
		var wrong *command.TooLargeError
		require.ErrorAs(t, p.CheckEnviron(pairs), &wrong)
		assert.Equal(t, "B", wrong.Name)
		actions := p.SetEnviron(pairs)
		require.Len(t, actions, 1)
		err := actions[0].Do(t.Context(), reload.Change{At: time.Now()})
		require.ErrorContains(t, err, "variable B", name)
		require.ErrorContains(t, err, "the running one goes on", name)
		assert.NotContains(t, err.Error(), "m4rker")
	}
	assert.Equal(t, "1  \n", said(), "it was not stopped")
	assert.NotContains(t, log.String(), "starting it anew")
	renew(t, p, "A=3", "B=x")
	require.Eventually(t, func() bool { return said() == "1  \nstopped\n3 x \n" }, time.Minute, time.Millisecond)
	cancel()
	require.NoError(t, end())
}

func TestProcess_NamesTheVariableThatIsTooLargeToStart(t *testing.T) {
	p := New(config.Exec{Args: []string{"true"}}, slog.New(slog.DiscardHandler))
	p.SetEnviron([]string{"A=1", "KEY=" + strings.Repeat("m4rker", 30_000)})
	err := p.Run(t.Context())
	require.ErrorContains(t, err, `starting the command true: variable KEY has 180004 bytes`)
	assert.NotContains(t, err.Error(), "m4rker")
}

func TestProcess_GoesOnWhenItsProgramIsGone(t *testing.T) {
	program := filepath.Join(t.TempDir(), "service")
	self, err := os.Executable()
	require.NoError(t, err)
	require.NoError(t, os.Symlink(self, program))
	p, said, _, end, cancel := run(t, serve, true, syscall.SIGTERM)
	p.command.Args[0] = program
	p.SetEnviron([]string{"A=1"})
	require.Eventually(t, func() bool { return said() == "1  \n" }, time.Minute, time.Millisecond)
	require.NoError(t, os.Remove(program))
	actions := p.SetEnviron([]string{"A=2"})
	require.ErrorContains(t, actions[0].Do(t.Context(), reload.Change{At: time.Now()}), "the running one goes on")
	require.NoError(t, os.Symlink(self, program))
	require.NoError(t, actions[0].Do(t.Context(), reload.Change{At: time.Now()}))
	require.Eventually(t, func() bool { return said() == "1  \nstopped\n2  \n" }, time.Minute, time.Millisecond)
	cancel()
	require.NoError(t, end())
}
