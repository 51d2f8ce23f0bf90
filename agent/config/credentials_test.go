package config

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/vaulttest"
)

func TestCredentialsThatWereTakenOutOfTheEnvironmentCountAtEveryLoad(t *testing.T) {
	folder(t)
	marker := vaulttest.Marker()
	t.Setenv("VAULT_ROLE_ID", "role")
	t.Setenv("VAULT_SECRET_ID", marker)
	t.Setenv("VAULT_TOKEN", marker)
	credentials := TakeCredentials()
	assert.NotContains(t, strings.Join(os.Environ(), "\n"), marker)
	require.NoError(t, os.WriteFile("x.hcl", []byte(oneDrop), 0o600))
	for range 2 {
		cfg, err := credentials.Load("x.hcl")
		require.NoError(t, err)
		assert.Equal(t, MethodAppRole, cfg.Auth.Method)
		assert.Equal(t, marker, cfg.Auth.SecretID.Value.Reveal())
	}
	cfg, err := Load("x.hcl")
	require.NoError(t, err)
	assert.False(t, cfg.Auth.SecretID.IsSet(), "it is not in the environment any more")
	t.Setenv("VAULT_ROLE_ID", "")
	_, err = credentials.Load("x.hcl")
	require.ErrorContains(t, err, "VAULT_SECRET_ID is set, but VAULT_ROLE_ID is not")

	t.Setenv("VAULT_ROLE_ID", "role")
	t.Setenv("VAULT_SECRET_ID", "")
	_, err = TakeCredentials().Load("x.hcl")
	require.ErrorContains(t, err, "VAULT_SECRET_ID is set, but empty")
}

func TestExpressionsDoNotGetTheAgentsSecrets(t *testing.T) {
	folder(t)
	t.Setenv("VAULT_TOKEN", vaulttest.Marker())
	_, err := load(t, "tenant = env(\"VAULT_TOKEN\", \"demo\")\n"+oneDrop)
	require.ErrorContains(t, err, "VAULT_TOKEN is the agent's own, and used by itself: leave the setting out")
}

func TestMlockIsOffUnlessSaid(t *testing.T) {
	folder(t)
	t.Setenv("VAULT_TOKEN", "x")
	cfg, err := load(t, "disable_mlock = false\n"+oneDrop)
	require.NoError(t, err)
	assert.False(t, cfg.LockMemory)
	require.Len(t, cfg.Warnings, 1)
	assert.Contains(t, cfg.Warnings[0].String(), "disable_mlock has no effect: memory is locked where mlock = true says so")
	cfg, err = load(t, "mlock = true\n"+oneDrop)
	require.NoError(t, err)
	assert.True(t, cfg.LockMemory)
	assert.Contains(t, cfg.String(), "mlock = true")
}
