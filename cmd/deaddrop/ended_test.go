package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/session"
)

func TestRender_SaysThatASignalEndedItWhileItWaitedForVault(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		args   []string
		signal syscall.Signal
		code   int
	}{
		"render by SIGTERM":       {[]string{"render", "--once"}, syscall.SIGTERM, 143},
		"render by SIGINT":        {[]string{"render", "--once"}, syscall.SIGINT, 130},
		"a preview by SIGTERM":    {[]string{"render", "--diff"}, syscall.SIGTERM, 143},
		"exit_after_auth, too":    {[]string{"run"}, syscall.SIGTERM, 143},
		"several files, one line": {[]string{"render"}, syscall.SIGTERM, 143},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &rig{t: t, dir: t.TempDir(), env: []string{"VAULT_TOKEN=x", "VAULT_ADDR=http://127.0.0.1:1"}}
			drops := "exit_after_auth = true\n"
			for i := range 3 {
				drops += fmt.Sprintf("drop \"d%d\" {\n  secret = \"secret/x%d\"\n  destination = \"x%d\"\n}\n", i, i, i)
			}
			p := r.start(append(tc.args, "--config", r.write("x.hcl", drops))...)
			r.eventually("it waits for Vault", func() bool {
				return strings.Contains(p.log(), "trying again") || strings.Contains(p.log(), "cannot be read")
			})
			require.NoError(t, p.cmd.Process.Signal(tc.signal))
			p.ended(tc.code)
			assert.Equal(t, 1, strings.Count(p.log(), "ended by "+map[int]string{130: "SIGINT", 143: "SIGTERM"}[tc.code]+" while waiting for Vault: "), p.log())
			assert.Contains(t, p.log(), "connection refused", "the last failure")
		})
	}
}

func TestDoctor_ReportsNothingWhenASignalEndsIt(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = silent.Close() }()
	r := &rig{t: t, dir: t.TempDir(), env: []string{"VAULT_TOKEN=x", "VAULT_ADDR=http://" + silent.Addr().String()}}
	p := r.start("doctor", "--secret", "secret/x", "--out", "x")
	r.eventually("it waits for an answer", p.isConnected)
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGINT))
	p.ended(130)
	assert.Equal(t, "deaddrop: ended by SIGINT before it was done\n", p.log())
}

func TestOrEnded_KeepsWhatTimeWouldNotHaveMended(t *testing.T) {
	t.Parallel()
	unreachable := fmt.Errorf("reading a: %w", session.ErrUnreachable)
	wrong := errors.New("check refused new content")
	assert.Equal(t, wrong, orEnded(t.Context(), wrong), "nothing has ended it")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(signalled{syscall.SIGTERM})
	require.NoError(t, orEnded(ctx, nil), "it was done")

	err := orEnded(ctx, errors.Join(fmt.Errorf("%w (context canceled)", session.ErrUnreachable), unreachable, wrong, unreachable))
	assert.EqualError(t, err, "ended by SIGTERM while waiting for Vault: reading a: Vault cannot be reached\ncheck refused new content")
	assert.Equal(t, 143, exitCode(err))
	assert.EqualError(t, orEnded(ctx, fmt.Errorf("%w (context canceled)", session.ErrUnreachable)), "ended by SIGTERM while waiting for Vault")
	assert.EqualError(t, orEnded(ctx, wrong), "ended by SIGTERM before it was done\ncheck refused new content")
}
