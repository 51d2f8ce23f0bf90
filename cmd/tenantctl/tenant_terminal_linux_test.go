package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// types runs tenantctl on a terminal. As soon as a question is seen, the answer to
// it is typed. It returns what the terminal has shown, and the exit code.
func (o *operator) types(answers [][2]string, args ...string) (string, int) {
	o.t.Helper()
	master, slave := newTerminal(o.t)
	cmd := command(o.t, o.env, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	require.NoError(o.t, cmd.Start())
	require.NoError(o.t, slave.Close())
	var seen strings.Builder
	buffer := make([]byte, 4096)
	for {
		n, err := master.Read(buffer) // It fails when the last one has closed the terminal.
		seen.Write(buffer[:n])
		if err != nil {
			break
		}
		if len(answers) > 0 && strings.Contains(seen.String(), answers[0][0]) {
			_, err := fmt.Fprint(master, answers[0][1])
			require.NoError(o.t, err)
			answers = answers[1:]
		}
	}
	_ = cmd.Wait()
	return seen.String(), cmd.ProcessState.ExitCode()
}

func TestAValueThatIsTypedDoesNotShow(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	one, two := vaulttest.Marker(), vaulttest.Marker()
	seen, code := o.types([][2]string{{"Value of A (not shown): ", one + "\n"}, {"Value of B (not shown): ", two + "\n"}},
		"tenant", "add", o.id, "nexa", "A=-", "B=-")
	require.Zero(t, code, seen)
	assert.NotContains(t, seen, one)
	assert.NotContains(t, seen, two)
	assert.NotContains(t, seen, "hint:")
	assert.Equal(t, map[string]any{"A": one, "B": two}, o.reads("nexa"))
}

func TestAPersonIsToldOnceOfValuesOnTheCommandLine(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	seen, code := o.types(nil, "tenant", "add", o.id, "nexa", "A=1", "B=2")
	require.Zero(t, code, seen)
	assert.Equal(t, 1, strings.Count(seen, "hint: "), seen)
}

func TestATerminalIsAskedBeforeATenantIsDestroyed(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	o.does("tenant", "add", o.id, "nexa", "A=1")
	for _, answer := range []string{"\n", "yes\n", "nexa\n", "\x04"} {
		seen, code := o.types([][2]string{{"to go on: ", answer}}, "tenant", "destroy", o.id, "--all")
		assert.Equal(t, exitFailed, code, seen)
		assert.Contains(t, seen, "nothing was destroyed")
	}
	seen, code := o.types([][2]string{{"to go on: ", "\x03"}}, "tenant", "destroy", o.id, "--all")
	assert.NotZero(t, code, seen)
	assert.Equal(t, map[string]any{"A": "1"}, o.reads("nexa"))
	seen, code = o.types([][2]string{{"for good: nexa.", o.id + "\n"}}, "tenant", "destroy", o.id, "--all")
	assert.Zero(t, code, seen)
	o.fails(exitMissing, "tenant", "show", o.id)
}

func TestAQuestionEndsByControlC(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	seen, code := o.types([][2]string{{"(not shown): ", "half\x03"}}, "tenant", "add", o.id, "nexa", "A=-")
	assert.Equal(t, exitUsage, code, seen)
	assert.Contains(t, seen, "the value of A: it was not given")
	o.fails(exitMissing, "tenant", "show", o.id)
}
