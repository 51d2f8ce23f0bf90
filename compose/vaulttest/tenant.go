package vaulttest

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Tenant is a tenant of its own for one test, and an AppRole that may read its
// service "nexa" and whatever else [Tenant.Allow] adds. As on the platform the
// role has a token for an hour, at most a day, and no default policy.
type Tenant struct {
	ID       string
	RoleID   string
	SecretID string

	t      testing.TB
	s      *Server
	policy []string
}

// Tenant makes a tenant on the server.
func (s *Server) Tenant(t testing.TB) *Tenant {
	t.Helper()
	tn := &Tenant{ID: "rut-" + strings.ToLower(rand.Text()[:10]), t: t, s: s}
	tn.policy = []string{readRule("secret/data/tenant/" + tn.ID + "/nexa")}
	var err error
	tn.RoleID, tn.SecretID, err = s.AppRole(tn.ID, tn.policy[0])
	require.NoError(t, err)
	return tn
}

func (tn *Tenant) write(path string, data map[string]any) map[string]any {
	tn.t.Helper()
	answer, err := tn.s.Client.Logical().Write(path, data)
	require.NoError(tn.t, err)
	if answer == nil {
		return nil
	}
	return answer.Data
}

func readRule(path string) string {
	return fmt.Sprintf("path %q { capabilities = [\"read\"] }", path)
}

// Allow lets the role read one more path of the API.
func (tn *Tenant) Allow(path string) {
	tn.t.Helper()
	tn.Grant(path, "read")
}

// Grant gives the role capabilities at one more path of the API.
func (tn *Tenant) Grant(path string, capabilities ...string) {
	tn.t.Helper()
	tn.policy = append(tn.policy, fmt.Sprintf("path %q { capabilities = [\"%s\"] }", path, strings.Join(capabilities, `", "`)))
	tn.write("sys/policies/acl/"+tn.ID, map[string]any{"policy": strings.Join(tn.policy, "\n")})
}

// AllowAll lets the role read all services of the tenant.
func (tn *Tenant) AllowAll() {
	tn.t.Helper()
	tn.Allow("secret/data/tenant/" + tn.ID + "/*")
}

// Manage lets the role renew and revoke its token and its leases.
func (tn *Tenant) Manage() {
	tn.t.Helper()
	for _, path := range []string{"auth/token/renew-self", "auth/token/revoke-self", "sys/leases/renew", "sys/leases/revoke"} {
		tn.Grant(path, "update")
	}
}

// Tokens are the accessors of the role's tokens that are alive.
func (tn *Tenant) Tokens() []string {
	tn.t.Helper()
	answer, err := tn.s.Client.Logical().List("auth/token/accessors")
	require.NoError(tn.t, err)
	var mine []string
	for _, accessor := range answer.Data["keys"].([]any) {
		info, err := tn.s.Client.Auth().Token().LookupAccessor(accessor.(string))
		if err != nil {
			continue // It has ended meanwhile.
		}
		if meta, _ := info.Data["meta"].(map[string]any); meta["role_name"] == tn.ID {
			mine = append(mine, accessor.(string))
		}
	}
	return mine
}

// RevokeTokens ends all tokens of the role.
func (tn *Tenant) RevokeTokens() {
	tn.t.Helper()
	for _, accessor := range tn.Tokens() {
		_ = tn.s.Client.Auth().Token().RevokeAccessor(accessor) // It may have ended meanwhile.
	}
}

// Role changes settings of the role, such as token_ttl.
func (tn *Tenant) Role(settings map[string]any) {
	tn.t.Helper()
	tn.write("auth/approle/role/"+tn.ID, settings)
}

// NewSecretID gives the role another secret id, besides the old one.
func (tn *Tenant) NewSecretID() {
	tn.t.Helper()
	tn.SecretID = tn.write("auth/approle/role/"+tn.ID+"/secret-id", nil)["secret_id"].(string)
}

// Path is the logical path of a service's secret.
func (tn *Tenant) Path(service string) string { return "secret/tenant/" + tn.ID + "/" + service }

// Put writes a new version of a service's secret.
func (tn *Tenant) Put(service string, pairs map[string]any) {
	tn.t.Helper()
	tn.write("secret/data/tenant/"+tn.ID+"/"+service, map[string]any{"data": pairs})
}

// Login writes the ids into files in a folder and returns a configuration that
// logs in with them.
func (tn *Tenant) Login(dir string) string {
	tn.t.Helper()
	for name, id := range map[string]string{"role_id": tn.RoleID, "secret_id": tn.SecretID} {
		require.NoError(tn.t, os.WriteFile(filepath.Join(dir, name), []byte(id+"\n"), 0o600))
	}
	return fmt.Sprintf(`vault { address = %q }
auto_auth {
  method "approle" {
    config = { role_id_file_path = %q, secret_id_file_path = %q }
  }
}
`, tn.s.Address, filepath.Join(dir, "role_id"), filepath.Join(dir, "secret_id"))
}
