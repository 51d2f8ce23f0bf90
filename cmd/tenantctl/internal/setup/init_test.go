package setup

import (
	"testing"

	"filippo.io/age"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/vault"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// The recipients, which age does not take together, are only how writing fails here;
// the command line refuses them before.
func TestKeysThatCannotBeWrittenAreThereToBePrinted(t *testing.T) {
	t.Parallel()
	one, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	two, err := age.GenerateHybridIdentity()
	require.NoError(t, err)
	s := vaulttest.Uninitialised(t, "")
	path := t.TempDir() + "/keys"
	job := New(vault.New(s.Client), Options{
		Init:   &Init{Shares: 1, Threshold: 1, File: path, Recipients: []age.Recipient{one.Recipient(), two.Recipient()}},
		Report: func(Step) {},
	})
	assert.ErrorContains(t, job.Run(t.Context()), "could not be written")
	require.NotNil(t, job.Fresh())
	status, err := s.Client.Sys().Unseal(job.Fresh().Keys[0])
	require.NoError(t, err)
	assert.False(t, status.Sealed)
	assert.FileExists(t, path, "what was begun stays")
}
