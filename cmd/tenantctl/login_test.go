package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/status"
	"github.com/smarteros/deaddrop/compose/policies"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

func TestLoginKeepsATokenThatOtherCommandsUse(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.ready()
	s.env = s.env[:3]
	out, errs, code := run(t, s.env, "login", "--password-file", "credentials/admin.password", "-o", "json")
	require.Zero(t, code, errs)
	var answer loginResult
	require.NoError(t, json.Unmarshal([]byte(out), &answer))
	assert.Equal(t, []string{policies.Admin, "default"}, answer.Policies)
	assert.WithinDuration(t, time.Now().Add(8*time.Hour), *answer.Expires, 10*time.Minute)
	assert.Empty(t, answer.Token)
	info, err := os.Stat(s.path(".vault-token"))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode())
	assert.Contains(t, s.must("status"), "userpass-admin")

	said, code := s.tenantctl(s.read("credentials/admin.password"), "login", "--password-file", "-")
	require.Zero(t, code, said)
	assert.Contains(t, said, "and lasts until ")
	s.silent(s.read(".vault-token"), s.read("credentials/admin.password"))
	out, errs, code = run(t, s.env, "login", "--password-file", "credentials/admin.password", "--print-token")
	require.Zero(t, code, errs)
	assert.Equal(t, s.read(".vault-token")+"\n", out)
	assert.NotContains(t, errs, s.read(".vault-token"))
	s.env = append(s.env, "VAULT_TOKEN=x")
	assert.Contains(t, s.must("login", "--password-file", "credentials/admin.password"), "VAULT_TOKEN is set")
}

func TestALoginThatIsRefusedKeepsTheTokenBefore(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.ready()
	s.write(".vault-token", "before")
	wrong := vaulttest.Marker()
	for args, code := range map[string]int{
		"--password-file wrong": exitDenied,
		"--user nobody --password-file credentials/admin.password": exitDenied,
		"--user ../approle/login --password-file wrong":            exitUsage,
		"--password-file none":                                     exitUsage,
		"":                                                         exitUsage, // There is no terminal.
	} {
		s.write("wrong", wrong)
		out, got := s.tenantctl("", append([]string{"login"}, strings.Fields(args)...)...)
		assert.Equal(t, code, got, "%s: %s", args, out)
	}
	assert.Equal(t, "before", s.read(".vault-token"))
	s.silent(wrong, s.read("credentials/admin.password"))
	s.s.Stop()
	_, code := s.tenantctl("", "login", "--password-file", "wrong")
	assert.Equal(t, exitUnreachable, code)
	s.s.Restart(t)
	out, code := s.tenantctl("", "login", "--password-file", "wrong")
	assert.Equal(t, exitUnreachable, code, out)
	assert.Contains(t, out, "is sealed")
}

// look is what status answers in JSON.
func (s *site) look(code int) (r status.Report) {
	s.t.Helper()
	out, errs, got := run(s.t, s.env, "status", "-o", "json")
	s.said.WriteString(out + errs)
	require.Equal(s.t, code, got, errs)
	require.NoError(s.t, json.Unmarshal([]byte(out), &r), out)
	return r
}

func TestStatusOfEveryStageOfAVault(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	r := s.look(exitUnreachable)
	assert.False(t, r.Initialized)
	assert.True(t, r.Seal.Sealed)

	set := s.ready()
	r = s.look(exitOK)
	assert.Equal(t, s.s.Address, r.Address)
	assert.Equal(t, "1.21.0", r.Version)
	assert.Equal(t, "file", r.Storage)
	assert.Equal(t, status.Seal{Type: "shamir", Threshold: 2, Shares: 3}, r.Seal)
	assert.Contains(t, r.Mounts, status.Mount{Path: "secret/", Type: "kv", Version: "2"})
	assert.Contains(t, r.Logins, status.Mount{Path: "approle/", Type: "approle"})
	assert.Equal(t, []status.Audit{{Path: "file/", Type: "file", File: s.path("audit.log")}}, r.Audit)
	assert.Equal(t, &status.Token{Name: "root", Policies: []string{"root"}}, r.Token)
	assert.Equal(t, 1, *r.Tenants)
	assert.Empty(t, r.Unseen)
	s.put("secret/data/tenant/two/nexa", map[string]any{"data": map[string]any{"a": "b"}})
	assert.Equal(t, 2, *s.look(exitOK).Tenants)

	require.NoError(t, s.s.Client.Sys().Seal())
	_, err := s.s.Client.Sys().Unseal(set.Keys[0])
	require.NoError(t, err)
	r = s.look(exitUnreachable)
	assert.Equal(t, status.Seal{Sealed: true, Type: "shamir", Threshold: 2, Shares: 3, Progress: 1}, r.Seal)
	out, code := s.tenantctl("", "status")
	assert.Equal(t, exitUnreachable, code)
	assert.Contains(t, out, "yes (shamir, 2 of 3 keys unseal it); keys given: 1")
	s.s.Stop()
	out, code = s.tenantctl("", "status")
	assert.Equal(t, exitUnreachable, code)
	assert.Contains(t, out, "is Vault running at "+s.s.Address)
	s.silent(append(set.Keys, set.RootToken)...)
}

func TestStatusShowsAsMuchAsAllowed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.ready()
	s.env = s.env[:3]
	out := s.must("status")
	assert.Contains(t, out, "Tenants      (no token)\n")
	token, err := s.s.Client.Auth().Token().Create(&api.TokenCreateRequest{Policies: []string{policies.NexaRuntime}, NoDefaultPolicy: true})
	require.NoError(t, err)
	s.write(".vault-token", token.Auth.ClientToken)
	out = s.must("status")
	assert.Contains(t, out, "Engines      (not allowed)\n")
	assert.Contains(t, out, "Token        (not allowed)\n")
	assert.Contains(t, out, "Tenants      1\n")
	r := s.look(exitOK)
	assert.Nil(t, r.Mounts)
	assert.Contains(t, r.Unseen, status.Obstacle{What: status.Devices, Why: "not allowed"})
	s.must("login", "--password-file", "credentials/admin.password")
	out = s.must("status")
	assert.NotContains(t, out, "not allowed")
	assert.Contains(t, out, "secret/ kv version 2")
	s.silent(s.read(".vault-token"), token.Auth.ClientToken)
}
