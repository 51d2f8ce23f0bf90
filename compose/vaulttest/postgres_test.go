package vaulttest

import (
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCredentialsOfTheDatabaseEngineWorkUntilTheirLeaseIsRevoked(t *testing.T) {
	pg, s := NewPostgres(t), Shared(t)
	assert.False(t, pg.CanLogin(Admin, "wrong"))
	mount := s.Database(t, pg, time.Hour, 2*time.Hour)
	creds, err := s.Client.Logical().Read(mount + "/creds/app")
	require.NoError(t, err)
	user, password := creds.Data["username"].(string), creds.Data["password"].(string)
	assert.True(t, pg.CanLogin(user, password))
	require.NoError(t, s.Client.Sys().RevokeWithOptions(&api.RevokeOptions{LeaseID: creds.LeaseID, Sync: true}))
	assert.False(t, pg.CanLogin(user, password))

	static, err := s.Client.Logical().Read(s.StaticRole(t, pg, mount, "fixed", time.Hour))
	require.NoError(t, err)
	assert.True(t, pg.CanLogin("fixed", static.Data["password"].(string)))
}

func TestPKIIssuesCertificates(t *testing.T) {
	s := Shared(t)
	cert, err := s.Client.Logical().Write(s.PKI(t)+"/issue/web", map[string]any{"common_name": "a.example", "ttl": "10s"})
	require.NoError(t, err)
	assert.Contains(t, cert.Data["certificate"], "BEGIN CERTIFICATE")
}
