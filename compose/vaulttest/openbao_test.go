package vaulttest

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// request sends a request with a token, and returns the status and the body.
func request(t *testing.T, s *Server, method, path, token, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.Address+"/v1/"+path, strings.NewReader(body))
	require.NoError(t, err)
	r.Header.Set("X-Vault-Token", token)
	answer, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return answer.StatusCode, string(text)
}

func TestOpenBao_DeniesAnInvalidTokenLikeAPolicy(t *testing.T) {
	t.Parallel()
	vault := Shared(t)
	bao := vault.OpenBao(t)
	create := func(settings *api.TokenCreateRequest) string {
		t.Helper()
		settings.NoDefaultPolicy = true
		answer, err := bao.Client.Auth().Token().CreateOrphan(settings)
		require.NoError(t, err)
		return answer.Auth.ClientToken
	}
	valid := create(&api.TokenCreateRequest{Policies: []string{"nothing"}})
	revoked := create(&api.TokenCreateRequest{Policies: []string{"nothing"}})
	require.NoError(t, bao.Client.Auth().Token().RevokeTree(revoked))
	usedUp := create(&api.TokenCreateRequest{Policies: []string{"nothing"}, NumUses: 1})
	_, _ = request(t, bao, "GET", "secret/data/x", usedUp, "")
	expired := create(&api.TokenCreateRequest{Policies: []string{"nothing"}, TTL: "1s"})
	time.Sleep(1500 * time.Millisecond)

	for name, token := range map[string]string{
		"policy": valid, "revoked": revoked, "used up": usedUp, "expired": expired,
		"unknown": "s.abcdefghijklmnopqrstuvwx", "of Vault": "hvs.unknown", "no token's form": "x",
	} {
		code, body := request(t, bao, "GET", "secret/data/x", token, "")
		assert.Equal(t, http.StatusForbidden, code, name)
		assert.Equal(t, "{\"errors\":[\"permission denied\"]}\n", body, name)
	}
	_, body := request(t, vault, "GET", "secret/data/x", toVault(revoked), "")
	assert.Contains(t, body, "invalid token", "Vault says more")
}

// A list of the mounts that a token may see tells a valid token from one that is not:
// package doctor relies on it.
func TestOpenBao_ListsMountsForAnyValidToken(t *testing.T) {
	t.Parallel()
	bao := Shared(t).OpenBao(t)
	answer, err := bao.Client.Auth().Token().CreateOrphan(&api.TokenCreateRequest{Policies: []string{"nothing"}, NoDefaultPolicy: true, NumUses: 1})
	require.NoError(t, err)
	token := answer.Auth.ClientToken
	for range 3 {
		code, _ := request(t, bao, "GET", "sys/internal/ui/mounts", token, "")
		assert.Equal(t, http.StatusOK, code, "it takes no use of the token")
	}
	_, body := request(t, bao, "GET", "sys/internal/ui/mounts/nothing", token, "")
	assert.Contains(t, body, "preflight capability check returned 403", "this denial is the policy's")
	require.NoError(t, bao.Client.Auth().Token().RevokeTree(token))
	code, body := request(t, bao, "GET", "sys/internal/ui/mounts", token, "")
	assert.Equal(t, http.StatusForbidden, code)
	assert.Equal(t, "{\"errors\":[\"permission denied\"]}\n", body)
}

func TestOpenBao_HasTokensOfItsOwn(t *testing.T) {
	t.Parallel()
	vault := Shared(t)
	bao := vault.OpenBao(t)
	assert.Regexp(t, `^s\.`, bao.RootToken)
	self, err := bao.Client.Auth().Token().LookupSelf()
	require.NoError(t, err)
	assert.Equal(t, bao.RootToken, self.Data["id"])

	for kind, prefix := range map[string]string{"service": "s.", "batch": "b."} {
		answer, err := bao.Client.Auth().Token().CreateOrphan(&api.TokenCreateRequest{Type: kind, Policies: []string{"default"}})
		require.NoError(t, err, kind)
		token := answer.Auth.ClientToken
		assert.True(t, strings.HasPrefix(token, prefix), kind)
		found, err := bao.Client.Auth().Token().Lookup(token)
		require.NoError(t, err, kind)
		assert.Equal(t, token, found.Data["id"], kind)
		client, err := bao.Client.Clone()
		require.NoError(t, err)
		client.SetToken(token)
		_, err = client.Auth().Token().LookupSelf()
		assert.NoError(t, err, kind)
	}

	wrapping, err := bao.Client.Clone()
	require.NoError(t, err)
	wrapping.SetToken(bao.RootToken)
	wrapping.SetWrappingLookupFunc(func(string, string) string { return "5m" })
	wrapped, err := wrapping.Logical().Write("auth/token/create-orphan", map[string]any{"policies": "default"})
	require.NoError(t, err)
	assert.Regexp(t, `^s\.`, wrapped.WrapInfo.Token)
	info, err := bao.Client.Logical().Write("sys/wrapping/lookup", map[string]any{"token": wrapped.WrapInfo.Token})
	require.NoError(t, err)
	assert.Equal(t, "auth/token/create-orphan", info.Data["creation_path"])
	unwrapped, err := bao.Client.Logical().Unwrap(wrapped.WrapInfo.Token)
	require.NoError(t, err)
	assert.Regexp(t, `^s\.`, unwrapped.Auth.ClientToken)
	_, err = bao.Client.Logical().Unwrap(wrapped.WrapInfo.Token)
	assert.ErrorContains(t, err, "wrapping token is not valid or does not exist")
}

func TestOpenBao_LeavesSecretsAsTheyAre(t *testing.T) {
	t.Parallel()
	bao := Shared(t).OpenBao(t)
	data := map[string]any{"token": "s.of-a-service", "id": "hvs.of-another", "number": json.Number("1234567890"), "sign": "<&>"}
	path := "secret/data/" + strings.ToLower(Marker())
	_, err := bao.Client.Logical().Write(path, map[string]any{"data": data})
	require.NoError(t, err)
	secret, err := bao.Client.Logical().Read(path)
	require.NoError(t, err)
	assert.Equal(t, data, secret.Data["data"])
}

func TestOpenBao_AnswersForTheServer(t *testing.T) {
	t.Parallel()
	bao := Shared(t).OpenBao(t)
	_, body := request(t, bao, "GET", "sys/health", "", "")
	var health map[string]any
	require.NoError(t, json.Unmarshal([]byte(body), &health))
	for _, field := range []string{"enterprise", "clock_skew_ms", "echo_duration_ms", "performance_standby", "replication_dr_mode"} {
		assert.NotContains(t, health, field)
	}
	assert.Equal(t, OpenBaoVersion, health["version"])
	assert.Equal(t, false, health["sealed"])

	code, body := request(t, bao, "GET", "secret/of-version-one", bao.RootToken, "")
	assert.Equal(t, http.StatusNotFound, code)
	assert.Contains(t, body, "If using the OpenBao CLI, use 'bao kv get' for this operation.")

	code, body = request(t, bao, "PUT", "sys/audit/file", bao.RootToken, `{"type":"file","options":{"file_path":"/nowhere/x"}}`)
	assert.Equal(t, http.StatusBadRequest, code)
	assert.Contains(t, body, "cannot enable audit device via API")

	code, _ = request(t, bao, "GET", "sys/events/subscribe/kv-v2/data-write", bao.RootToken, "")
	assert.Equal(t, http.StatusNotFound, code)
}

func TestOpenBao_BoundsBodies(t *testing.T) {
	t.Parallel()
	bao := Shared(t).OpenBao(t)
	code, _ := request(t, bao, "POST", "auth/token/lookup", bao.RootToken, strings.Repeat(" ", maxBody+1))
	assert.Equal(t, http.StatusRequestEntityTooLarge, code)
}
