package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// anotherSession marks a configuration whose "vault" block differs.
const anotherSession = "# another session\n"

// TestNoGoroutineOutlivesTheAgent drives all parts at once: several secrets, a
// failing one, a changed configuration, one that needs another session, a Vault
// that goes away, and the end in the middle of it.
func TestNoGoroutineOutlivesTheAgent(t *testing.T) {
	s := vaulttest.Own(t, "-state", t.TempDir())
	tenant := s.Tenant(t)
	tenant.AllowAll()
	tenant.Manage()
	dir := t.TempDir()
	file := filepath.Join(dir, "deaddrop.hcl")
	write := func(more string) {
		login := tenant.Login(dir)
		if more == anotherSession {
			login = strings.Replace(login, "vault {", "vault {\n  tls_skip_verify = true\n ", 1)
			login = strings.Replace(login, " }\n", "\n}\n", 1)
		}
		content := login + "template_config { static_secret_render_interval = \"1s\" }\n" + more
		for _, service := range []string{"nexa", "smtp", "missing"} {
			content += "drop \"" + service + "\" {\n  secret = \"" + tenant.Path(service) + "\"\n  destination = \"" + filepath.Join(dir, service+".env") + "\"\n}\n"
		}
		require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
	}
	write("")
	tenant.Put("nexa", map[string]any{"KEY": "one"})
	tenant.Put("smtp", map[string]any{"KEY": "one"})
	s.Client.CloneConfig().HttpClient.CloseIdleConnections()
	before := goleak.IgnoreCurrent()

	load := func() (*config.Config, error) { return config.Load(file) }
	cfg, err := load()
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, cfg, load, nil, "test", slog.New(slog.DiscardHandler)) }()
	holds := func(name, want string) {
		t.Helper()
		require.Eventually(t, func() bool {
			content, _ := os.ReadFile(filepath.Join(dir, name))
			return string(content) == want
		}, time.Minute, 10*time.Millisecond)
	}
	holds("nexa.env", "KEY=one\n")
	holds("smtp.env", "KEY=one\n")
	write("# a change that keeps the session\n")
	tenant.Put("nexa", map[string]any{"KEY": "two"})
	holds("nexa.env", "KEY=two\n")
	write(anotherSession)
	tenant.NewSecretID()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "secret_id"), []byte(tenant.SecretID), 0o600))
	tenant.Put("nexa", map[string]any{"KEY": "three"})
	holds("nexa.env", "KEY=three\n")
	s.Client.CloneConfig().HttpClient.CloseIdleConnections()
	s.Stop()
	time.Sleep(1500 * time.Millisecond) // Reads are failing and retried by now.
	cancel()
	require.NoError(t, <-ended)
	goleak.VerifyNone(t, before)
}

func TestOnceLeavesNothingBehindHoweverItEnds(t *testing.T) {
	s := vaulttest.Own(t)
	tenant := s.Tenant(t)
	tenant.Manage()
	tenant.Put("nexa", map[string]any{"KEY": "one"})
	dir := t.TempDir()
	s.Client.CloneConfig().HttpClient.CloseIdleConnections()
	before := goleak.IgnoreCurrent()
	for name, tc := range map[string]struct {
		service string
		fails   bool
	}{"well": {"nexa", false}, "denied": {"shopify", true}} {
		t.Run(name, func(t *testing.T) {
			text := tenant.Login(dir) + "drop \"x\" {\n  secret = \"" + tenant.Path(tc.service) + "\"\n  destination = \"" + filepath.Join(dir, name+".env") + "\"\n}\n"
			file := filepath.Join(dir, name+".hcl")
			require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
			cfg, err := config.Load(file)
			require.NoError(t, err)
			err = Once(t.Context(), cfg, false, slog.New(slog.DiscardHandler))
			assert.Equal(t, tc.fails, err != nil, "%v", err)
			assert.Empty(t, tenant.Tokens())
			s.Client.CloneConfig().HttpClient.CloseIdleConnections()
			goleak.VerifyNone(t, before)
		})
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("over"))
	cfg, err := config.Load(filepath.Join(dir, "well.hcl"))
	require.NoError(t, err)
	require.Error(t, Once(ctx, cfg, false, slog.New(slog.DiscardHandler)))
	goleak.VerifyNone(t, before)
}
