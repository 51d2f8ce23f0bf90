package backup

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/smarteros/deaddrop/agent/tenant"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/archive"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/vault"
)

// Part is what belongs to some tenants: their secrets, the entities whose
// metadata name them, the roles that are aliases of these, and the policies of
// both. Of no tenants, it is everything.
type Part struct {
	tenants  []string
	secrets  map[string]bool
	roleIDs  map[string]bool
	policies map[string]bool
	roles    map[string][]string // the policies, by the role id
}

func newPart(tenants []string) *Part {
	return &Part{tenants, map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string][]string{}}
}

// NewPart makes a part that must See all records before it Has any, since roles
// stand before the entities that they belong to.
func NewPart(tenants []string) *Part { return newPart(tenants) }

// See takes note of a record.
func (p *Part) See(r archive.Record) {
	if len(p.tenants) == 0 {
		return
	}
	switch {
	case r.Secret != nil:
		p.secrets[tenantOf(r.Secret.Path)] = true
	case r.Role != nil:
		p.roles[r.Role.RoleID] = policiesOf(r.Role)
	}
	p.see(r)
}

func (p *Part) see(r archive.Record) {
	if r.Entity == nil || len(p.tenants) > 0 && !slices.Contains(p.tenants, r.Entity.Metadata[vault.TenantKey]) {
		return
	}
	for _, name := range r.Entity.Policies {
		p.policies[name] = true
	}
	for _, a := range r.Entity.Aliases {
		if a.Type == appRole {
			p.roleIDs[a.Name] = true
		}
	}
}

func (p *Part) seeRole(r *archive.Role) {
	for _, name := range policiesOf(r) {
		p.policies[name] = true
	}
}

// All tells whether it is everything.
func (p *Part) All() bool { return len(p.tenants) == 0 }

// Missing are tenants that have no secrets in what was seen.
func (p *Part) Missing() []string {
	return slices.DeleteFunc(slices.Clone(p.tenants), func(id string) bool { return p.secrets[id] })
}

// Has tells whether a record belongs to the part.
func (p *Part) Has(r archive.Record) bool {
	if len(p.tenants) == 0 {
		return true
	}
	switch {
	case r.Secret != nil:
		return slices.Contains(p.tenants, tenantOf(r.Secret.Path))
	case r.Role != nil:
		return p.roleIDs[r.Role.RoleID]
	case r.Entity != nil:
		return slices.Contains(p.tenants, r.Entity.Metadata[vault.TenantKey])
	case r.Policy != nil:
		return p.hasPolicy(r.Policy.Name)
	}
	return false
}

func (p *Part) hasPolicy(name string) bool {
	if p.policies[name] {
		return true
	}
	for id := range p.roleIDs {
		if slices.Contains(p.roles[id], name) {
			return true
		}
	}
	return false
}

func policiesOf(r *archive.Role) []string {
	var names []string
	_ = json.Unmarshal(r.Settings["token_policies"], &names) // What is no list names none.
	return names
}

// tenantOf is the id in the path of a secret.
func tenantOf(path string) string {
	rest, _ := strings.CutPrefix(path, tenant.Folder+"/")
	id, _, _ := strings.Cut(rest, "/")
	return id
}
