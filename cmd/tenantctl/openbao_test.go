package main

import (
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/rotate"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/vault"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// TestOnOpenBao runs the tests of credentials and logins on OpenBao's answers. Those of
// setup and rotate-root need servers of their own.
func TestOnOpenBao(t *testing.T) {
	t.Parallel()
	vaulttest.AgainOnOpenBao(t, "TestAnIssued", "TestASecondIssue", "TestByDefaultTheSecretIDIsWrapped", "TestASecretID",
		"TestNobodyLogsIn", "TestTheAdmin", "TestATenantsLogin", "TestTheAgentLogsIn", "TestFiveWhoIssue", "TestRevoke_")
}

// A token that has ended already is what a revocation is to achieve.
func TestRevoke_SucceedsForATokenThatHasEnded(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	answer, err := s.Client.Auth().Token().CreateOrphan(&api.TokenCreateRequest{Policies: []string{"default"}})
	require.NoError(t, err)
	token := answer.Auth.ClientToken
	for range 2 {
		require.NoError(t, rotate.Revoke(t.Context(), vault.New(s.Client), token))
	}
	answer, err = s.Client.Auth().Token().CreateOrphan(&api.TokenCreateRequest{Policies: []string{"nothing"}, NoDefaultPolicy: true})
	require.NoError(t, err)
	err = rotate.Revoke(t.Context(), vault.New(s.Client), answer.Auth.ClientToken)
	assert.ErrorContains(t, err, "permission denied", "it may not revoke itself, and lives")
}

func TestStatus_SaysThatATokenIsInvalidOnOpenBao(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.ready()
	bao := s.s.OpenBao(t)
	s.env = append(s.env[:3:3], "VAULT_ADDR="+bao.Address)
	s.write(".vault-token", "s.ofanothervaultofanother")
	out, code := s.tenantctl("", "status")
	assert.Equal(t, exitDenied, code)
	assert.Contains(t, out, "Token        (the token is invalid)\n")
	assert.Contains(t, out, `log in with "tenantctl login"`)
	assert.NotContains(t, out, "not allowed")
}
