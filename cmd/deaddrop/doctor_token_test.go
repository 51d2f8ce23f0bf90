package main

import (
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/doctor"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// givenToken is a token with the policy of the rig, without the default policy.
func (r *rig) givenToken(s *vaulttest.Server) string {
	r.t.Helper()
	answer, err := s.Client.Auth().Token().CreateOrphan(&api.TokenCreateRequest{Policies: []string{r.ID}, NoDefaultPolicy: true, TTL: "1h"})
	require.NoError(r.t, err)
	return answer.Auth.ClientToken
}

func TestDoctor_TellsAnEndedTokenFromOneWithoutRights(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	r := newRig(t, s)
	r.Put("nexa", map[string]any{"K": "v"})
	token := r.givenToken(s)
	r.write("token", token)
	r.write("deaddrop.hcl", "auto_auth {\n  method \"token_file\" {\n    config = { token_file_path = \"token\" }\n  }\n}\n"+
		r.plainDrop("a", "a.env", "")+"drop \"b\" {\n  secret = \"secret/tenant/other/nexa\"\n  destination = \"b.env\"\n}\n")
	r.env = r.env[:2:2]

	found := r.doctor("--config", "deaddrop.hcl")
	assert.Equal(t, exitDenied, found.ExitCode)
	found.has("login", doctor.OK, "token in token")
	found.has("secret", doctor.OK, r.Path("nexa"))
	c := found.has("secret", doctor.Failed, "secret/tenant/other/nexa: permission denied")
	assert.Contains(t, c.Fix, "add to a policy of this login")

	require.NoError(t, s.Client.Auth().Token().RevokeTree(token))
	found = r.doctor("--config", "deaddrop.hcl")
	assert.Equal(t, exitDenied, found.ExitCode)
	c = found.has("login", doctor.Failed, "token in token: the token is not valid: ")
	assert.Contains(t, c.Fix, "deliver a new one")
	found.has("secret", doctor.Skipped, "as the login failed")
	assert.NotContains(t, found.text, token)
}

func TestDoctor_BlamesNoPolicyWhenTheTokenEndsMeanwhile(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	r := newRig(t, s)
	r.Put("nexa", map[string]any{"K": "v"})
	r.Grant("secret/metadata/tenant/"+r.ID+"/", "list")
	token := r.givenToken(s)
	var once sync.Once
	r.env = []string{r.env[0], "VAULT_TOKEN=" + token, "VAULT_ADDR=" + through(t, s, func(proxy *httputil.ReverseProxy) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if strings.HasPrefix(q.URL.Path, "/v1/secret/data/") {
				once.Do(func() { assert.NoError(t, s.Client.Auth().Token().RevokeTree(token)) })
			}
			proxy.ServeHTTP(w, q)
		})
	})}
	found := r.doctor("--secret", r.Path("nexa"), "--out", "nexa.env")
	assert.Equal(t, exitDenied, found.ExitCode)
	c := found.has("secret", doctor.Failed, "the token has ended, or was revoked, while this check ran")
	assert.Equal(t, "deliver a new token", c.Fix)
	assert.NotContains(t, found.text, "add to")
}

func TestDoctor_RecognizesAWrappingTokenGivenAsSecretID(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	r := newRig(t, s)
	wrapper, err := s.Client.Clone()
	require.NoError(t, err)
	wrapper.SetToken(s.RootToken)
	wrapper.SetWrappingLookupFunc(func(string, string) string { return "5m" })
	wrapped, err := wrapper.Logical().Write("auth/approle/role/"+r.ID+"/secret-id", nil)
	require.NoError(t, err)
	token := wrapped.WrapInfo.Token

	r.env = append(r.env, "VAULT_SECRET_ID="+token)
	found := r.doctor("--secret", r.Path("nexa"), "--out", "nexa.env")
	assert.Equal(t, exitDenied, found.ExitCode)
	c := found.has("login", doctor.Failed, "invalid role or secret ID")
	assert.Contains(t, c.Fix, `unwrap it first ("VAULT_TOKEN=… vault unwrap -field=secret_id")`)

	r.SecretID = token
	r.write("deaddrop.hcl", r.Login(r.dir)+r.plainDrop("nexa", "nexa.env", ""))
	r.env = r.env[:2:2]
	found = r.doctor("--config", "deaddrop.hcl")
	c = found.has("login", doctor.Failed, "invalid role or secret ID")
	assert.Contains(t, c.Fix, `secret_id_response_wrapping_path = "auth/approle/role/ROLE/secret-id"`)
	assert.NotContains(t, found.text, token)
}
