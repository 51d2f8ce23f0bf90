package backup

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/archive"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/vault"
)

// logins are the roles and entities of a backup, in the order of their names.
type logins struct {
	roles    []*archive.Role
	entities []*archive.Entity
}

// builtIn are policies that every Vault has.
func builtIn(policy string) bool {
	return strings.EqualFold(policy, "root") || strings.EqualFold(policy, "default") // As Vault does.
}

func (r *reader) logins(ctx context.Context) (*logins, error) {
	mounts, err := readMounts(ctx, r.v)
	if err != nil {
		return nil, err
	}
	var out logins
	if out.entities, err = r.entities(ctx, mounts); err != nil {
		return nil, err
	}
	if mounts.byPath[appRole].Type == appRole {
		if out.roles, err = r.roles(ctx); err != nil {
			return nil, err
		}
	}
	if len(r.Tenants) > 0 {
		part := newPart(r.Tenants)
		for _, e := range out.entities {
			part.see(archive.Record{Entity: e})
		}
		out.roles = slices.DeleteFunc(out.roles, func(role *archive.Role) bool { return !part.roleIDs[role.RoleID] })
	}
	return &out, nil
}

// mounts are the logins of a Vault.
type mounts struct {
	byPath     map[string]mount
	byAccessor map[string]string // the paths
}

type mount struct {
	Type     string `json:"type"`
	Accessor string `json:"accessor"`
}

func readMounts(ctx context.Context, v *vault.Client) (*mounts, error) {
	answer, err := v.Read(ctx, "sys/auth", nil)
	if err != nil {
		return nil, err
	}
	out := &mounts{map[string]mount{}, map[string]string{}}
	if answer == nil {
		return out, nil
	}
	for path, about := range answer.Data {
		fields, ok := about.(map[string]any)
		if !ok || !strings.HasSuffix(path, "/") {
			continue // It is not about a mount.
		}
		m, err := vault.Decode[mount](fields)
		if err != nil {
			return nil, fmt.Errorf("reading sys/auth: %w", err)
		}
		path = strings.TrimSuffix(path, "/")
		out.byPath[path], out.byAccessor[m.Accessor] = *m, path
	}
	return out, nil
}

// entities reads all entities, or those of the tenants that were asked for.
func (r *reader) entities(ctx context.Context, m *mounts) ([]*archive.Entity, error) {
	ids, err := r.v.List(ctx, "identity/entity/id")
	if err != nil {
		return nil, err
	}
	all := make([]*archive.Entity, len(ids))
	err = vault.Each(ctx, len(ids), func(ctx context.Context, i int) error {
		e, err := r.v.Entity(ctx, "id/"+ids[i])
		if err == nil && e != nil {
			all[i] = recordOf(e, m)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(e *archive.Entity) bool {
		return e == nil || len(r.Tenants) > 0 && !slices.Contains(r.Tenants, e.Metadata[vault.TenantKey])
	})
	slices.SortFunc(all, func(a, b *archive.Entity) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// recordOf leaves out aliases of logins that are no longer mounted.
func recordOf(e *vault.Entity, m *mounts) *archive.Entity {
	out := &archive.Entity{Name: e.Name, Metadata: e.Metadata, Policies: e.Policies, Disabled: e.Disabled}
	slices.Sort(out.Policies)
	for _, a := range e.Aliases {
		if path, ok := m.byAccessor[a.Accessor]; ok {
			out.Aliases = append(out.Aliases, archive.Alias{Name: a.Name, Mount: path, Type: m.byPath[path].Type, Custom: a.Custom})
		}
	}
	return out
}

func (r *reader) roles(ctx context.Context) ([]*archive.Role, error) {
	names, err := r.v.List(ctx, "auth/"+appRole+"/role")
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	all := make([]*archive.Role, len(names))
	err = vault.Each(ctx, len(names), func(ctx context.Context, i int) (err error) {
		all[i], err = readRole(ctx, r.v, appRole, names[i])
		return err
	})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(r *archive.Role) bool { return r == nil }), nil
}

// readRole returns nil if there is no such role.
func readRole(ctx context.Context, v *vault.Client, mount, name string) (*archive.Role, error) {
	path := "auth/" + mount + "/role/" + name
	settings, err := v.Read(ctx, path, nil)
	if err != nil || settings == nil {
		return nil, err
	}
	id, err := v.Read(ctx, path+"/role-id", nil)
	if err != nil || id == nil {
		return nil, err
	}
	role := &archive.Role{Mount: mount, Name: name, Settings: map[string]json.RawMessage{}}
	role.RoleID, _ = id.Data["role_id"].(string)
	for key, value := range settings.Data {
		if key == "policies" || key == "period" {
			continue // These are old names of token_policies and token_period.
		}
		if value == nil {
			value = []any{} // Vault says it one way for what was set to it, and another for what was never set.
		}
		if role.Settings[key], err = json.Marshal(value); err != nil {
			return nil, fmt.Errorf("reading %s: %w", path, err)
		}
	}
	return role, nil
}

// policies writes all policies, or those that the logins of a part have.
func (r *reader) policies(ctx context.Context, l *logins) error {
	names, err := r.v.List(ctx, "sys/policies/acl")
	if err != nil {
		return err
	}
	part := newPart(r.Tenants)
	for _, role := range l.roles {
		part.seeRole(role)
	}
	for _, e := range l.entities {
		part.see(archive.Record{Entity: e})
	}
	slices.Sort(names)
	for _, name := range names {
		if builtIn(name) || len(r.Tenants) > 0 && !part.policies[name] {
			continue
		}
		text, ok, err := readPolicy(ctx, r.v, name)
		if err != nil {
			return err
		}
		if !ok {
			continue // It was deleted meanwhile.
		}
		if err := r.write(archive.Record{Policy: &archive.Policy{Name: name, Text: text}}); err != nil {
			return err
		}
	}
	return nil
}

func readPolicy(ctx context.Context, v *vault.Client, name string) (text string, ok bool, err error) {
	answer, err := v.Read(ctx, "sys/policies/acl/"+name, nil)
	if err != nil || answer == nil {
		return "", false, err
	}
	text, ok = answer.Data["policy"].(string)
	return text, ok, nil
}
