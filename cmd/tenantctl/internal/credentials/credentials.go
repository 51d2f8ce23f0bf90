// Package credentials manages the logins of tenants. A login is an AppRole, an
// entity whose metadata says which tenant and which service it is, and the alias
// that joins them: the policies of the platform are templates of that metadata.
package credentials

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/smarteros/deaddrop/agent/tenant"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/vault"
	"github.com/smarteros/deaddrop/compose/policies"
)

const (
	approle = "approle"
	roles   = "auth/" + approle + "/role"
)

// Login is that of a service of a tenant, or of the tenant as a whole where Service
// is "".
type Login struct {
	Tenant  string `json:"tenant"`
	Service string `json:"service"`
}

// Check tells what is wrong with the ids of a login.
func (l Login) Check() error {
	if err := tenant.CheckID(l.Tenant); err != nil {
		return err
	}
	if l.Service != "" {
		if err := tenant.CheckID(l.Service); err != nil {
			return err
		}
	}
	switch {
	case strings.Contains(l.Service, "."):
		return fmt.Errorf("the service %q has a dot in it, which a login's may not: what is behind the last dot of a role's name is the service", l.Service)
	case strings.HasSuffix(l.Role(), "-"):
		return fmt.Errorf("%q ends in a hyphen, which Vault lets no role's name do", l.Role())
	}
	return nil
}

// Role is the name of the AppRole and of the entity. No two logins have the same,
// but for upper and lower case, which Vault does not tell apart here: see [Issue].
func (l Login) Role() string {
	if l.Service == "" {
		return "tenant-" + l.Tenant
	}
	return "service-" + l.Tenant + "." + l.Service
}

// Policy is that of the login.
func (l Login) Policy() string {
	if l.Service == "" {
		return policies.Tenant
	}
	return policies.TenantService
}

func (l Login) String() string {
	if l.Service == "" {
		return "tenant " + l.Tenant
	}
	return "service " + l.Service + " of tenant " + l.Tenant
}

var roleName = regexp.MustCompile(`^(?:tenant-(.+)|service-(.+)\.([^.]+))$`)

// loginOf is the one whose role has this name.
func loginOf(role string) (Login, bool) {
	m := roleName.FindStringSubmatch(role)
	if m == nil {
		return Login{}, false
	}
	l := Login{Tenant: m[1] + m[2], Service: m[3]}
	return l, l.Check() == nil
}

// Store is the logins of a Vault.
type Store struct {
	v *vault.Client
	// accessor is that of the AppRole mount.
	accessor string
}

// Open returns the logins of a Vault. It is a [vault.ErrMissing] where AppRole is
// not enabled.
func Open(ctx context.Context, v *vault.Client) (*Store, error) {
	auths, err := v.Read(ctx, "sys/auth", nil)
	if err != nil {
		return nil, err
	}
	s := &Store{v: v}
	if auths != nil {
		mount, _ := auths.Data[approle+"/"].(map[string]any)
		s.accessor, _ = mount["accessor"].(string)
	}
	if s.accessor == "" {
		return nil, vault.Errorf(vault.ErrMissing, "AppRole is not enabled at auth/%s/; \"tenantctl setup\" does that", approle)
	}
	return s, nil
}

// owns tells whether an entity is that of a login, which may not have got its
// metadata yet.
func owns(e *vault.Entity, l Login) bool {
	return (e.Metadata[vault.TenantKey] == "" || e.Metadata[vault.TenantKey] == l.Tenant) && (e.Metadata[vault.ServiceKey] == "" || e.Metadata[vault.ServiceKey] == l.Service)
}

// entity returns nil where there is none.
func (s *Store) entity(ctx context.Context, name string) (*vault.Entity, error) {
	return s.v.Entity(ctx, "name/"+name)
}
