package command

import (
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCheckEnviron_KnowsWhatTheKernelTakes(t *testing.T) {
	one, all := limits()
	filled := func(total, of int) (environ []string) {
		for i := 0; total > 0; i++ {
			name := fmt.Sprintf("V%05d=", i)
			size := min(of, total)
			environ = append(environ, name+strings.Repeat("x", max(0, size-len(name)-9)))
			total -= size
		}
		return environ
	}
	const slack = 200 // the program's path, and what else the kernel puts there
	for name, environ := range map[string][]string{
		"a variable at the limit":   {"KEY=" + strings.Repeat("x", one-1-len("KEY="))},
		"a variable past the limit": {"KEY=" + strings.Repeat("x", one-len("KEY="))},
		"all below the limit":       filled(all-slack, 100_000),
		"all past the limit":        filled(all+slack, 100_000),
		"many small ones below":     filled(all-slack, 100),
		"many small ones past":      filled(all+slack, 100),
	} {
		cmd := exec.Command("/bin/true")
		cmd.Env = environ
		runs := cmd.Run()
		wrong := CheckEnviron(cmd.Args, environ)
		assert.Equal(t, runs == nil, wrong == nil, "%s: %v, %v", name, runs, wrong)
		if runs != nil {
			require.ErrorIs(t, runs, syscall.E2BIG, name)
		}
	}
}

func TestCheckEnviron_NamesTheVariableAndNotItsValue(t *testing.T) {
	large := strings.Repeat("m4rker", 30_000)
	for want, environ := range map[string][]string{
		"variable KEY has 180004 bytes with its name, and the kernel takes 131071; write it to a file": {"A=1", "KEY=" + large, "B=2"},
		"the largest is variable KEY5 with 120005 bytes": func() (all []string) {
			for i := range 60 {
				all = append(all, fmt.Sprintf("KEY%d=%s", i, large[:119_000]))
			}
			all[5] = "KEY5=" + large[:120_000]
			return all
		}(),
	} {
		err := Spec{Args: []string{"true"}, Env: environ}.Check()
		require.ErrorContains(t, err, want)
		assert.NotContains(t, err.Error(), "m4rker")
		err = Spec{Args: []string{"true"}, Env: environ}.Run(t.Context(), io.Discard)
		require.ErrorContains(t, err, want)
		assert.NotContains(t, err.Error(), "m4rker")
	}
	err := CheckEnviron([]string{"true", large}, nil)
	require.ErrorContains(t, err, "argument 1 has 180000 bytes")
}
