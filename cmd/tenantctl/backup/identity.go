package backup

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/smarteros/deaddrop/cmd/tenantctl/archive"
	"github.com/smarteros/deaddrop/cmd/tenantctl/vault"
)

func (re *restorer) role(ctx context.Context, r *archive.Role) (Action, error) {
	a := Action{Kind: "role", Name: r.Name, Do: Create}
	m, err := re.mount(ctx, r.Mount, appRole)
	if err != nil {
		return a, err
	}
	var is *archive.Role
	if m.Accessor != "" {
		if is, err = readRole(ctx, re.v, r.Mount, r.Name); err != nil {
			return a, err
		}
	}
	path := "auth/" + r.Mount + "/role/" + r.Name
	data := map[string]any{}
	for key, value := range r.Settings {
		data[key] = value
	}
	if is == nil {
		data["role_id"] = r.RoleID
		return a, re.write(ctx, path, data)
	}
	delete(data, "local_secret_ids") // Vault takes that of new roles only.
	switch {
	case is.RoleID != r.RoleID && !re.Overwrite:
		a.Do, a.Why = Skip, "it has another role id in Vault, which may be in use"
		return a, nil
	case is.RoleID != r.RoleID:
		data["role_id"] = r.RoleID
		a.Do, a.Why = Update, "it has another role id in Vault"
	default:
		a.Do, a.Why = re.differing(sameSettings(r.Settings, is.Settings), "its settings are others in Vault")
	}
	if a.Do != Update {
		return a, nil
	}
	return a, re.write(ctx, path, data)
}

// sameSettings compares the settings of a backup; other versions of Vault may
// have more.
func sameSettings(want, is map[string]json.RawMessage) bool {
	for key, value := range want {
		if !bytes.Equal(value, is[key]) {
			return false
		}
	}
	return true
}

// mount returns a login, which is enabled where it is missing and is one of the
// platform. It has no type where there is none, and no accessor where a dry run
// did not enable it.
func (re *restorer) mount(ctx context.Context, path, kind string) (mount, error) {
	re.mu.Lock()
	defer re.mu.Unlock()
	if m, ok := re.mounts.byPath[path]; ok {
		if m.Type != kind {
			return m, fmt.Errorf("the login %s is of the type %s in Vault, and was of the type %s: %w", path, m.Type, kind, vault.ErrConflict)
		}
		return m, nil
	}
	if kind != appRole && kind != "userpass" {
		return mount{}, nil // It has settings that are not in the backup.
	}
	re.report(Action{Kind: "login", Name: path, Do: Create})
	if re.DryRun {
		re.mounts.byPath[path] = mount{Type: kind}
		return re.mounts.byPath[path], nil
	}
	if _, err := re.v.Write(ctx, "sys/auth/"+path, map[string]any{"type": kind}); err != nil {
		return mount{}, err
	}
	now, err := readMounts(ctx, re.v)
	if err != nil {
		return mount{}, err
	}
	re.mounts = now
	return now.byPath[path], nil
}

func (re *restorer) entity(ctx context.Context, e *archive.Entity) (Action, error) {
	a := Action{Kind: "entity", Name: e.Name}
	is, err := re.v.Entity(ctx, "name/"+e.Name)
	if err != nil {
		return a, err
	}
	a.Do = Create
	if is != nil {
		a.Do, a.Why = re.differing(sameEntity(e, is), otherEntity(e, is))
	}
	switch a.Do {
	case Skip:
		return a, nil // It may be of another tenant, which an alias would let the role be.
	case Create, Update:
		if is, err = re.putEntity(ctx, e, is); err != nil {
			return a, err
		}
	}
	for _, want := range e.Aliases {
		do, why, err := re.alias(ctx, is, want)
		if err != nil {
			return a, err
		}
		a.join(do, why)
	}
	return a, nil
}

// otherEntity says in which way an entity is another one. That it cannot be used in
// Vault, but could when it was backed up, nobody shall overlook.
func otherEntity(e *archive.Entity, is *vault.Entity) string {
	if is.Disabled && !e.Disabled {
		return "it is disabled in Vault, and was not in the backup"
	}
	return "it is another one in Vault"
}

// join adds what is done with an alias to what is done with its entity.
func (a *Action) join(do, why string) {
	switch {
	case do == Skip, do == Update && a.Do == Unchanged:
		a.Do = do
	}
	if why != "" {
		a.Why = strings.TrimPrefix(a.Why+"; "+why, "; ")
	}
}

func sameEntity(e *archive.Entity, is *vault.Entity) bool {
	policies := slices.Sorted(slices.Values(is.Policies))
	return maps.Equal(e.Metadata, is.Metadata) && slices.Equal(e.Policies, policies) && e.Disabled == is.Disabled
}

// putEntity writes an entity, and returns it as it is then.
func (re *restorer) putEntity(ctx context.Context, e *archive.Entity, is *vault.Entity) (*vault.Entity, error) {
	metadata := e.Metadata
	if metadata == nil {
		metadata = map[string]string{}
	}
	policies := e.Policies
	if policies == nil {
		policies = []string{}
	}
	err := re.write(ctx, "identity/entity", map[string]any{
		"name": e.Name, "metadata": metadata, "policies": policies, "disabled": e.Disabled,
	})
	if err != nil {
		return nil, err
	}
	if re.DryRun {
		if is == nil {
			is = &vault.Entity{Name: e.Name}
		}
		return is, nil
	}
	is, err = re.v.Entity(ctx, "name/"+e.Name)
	if err == nil && is == nil {
		err = fmt.Errorf("writing the entity %s: somebody has deleted it: %w", e.Name, vault.ErrConflict)
	}
	return is, err
}

// alias gives an entity an alias, and says what had to be done for it.
func (re *restorer) alias(ctx context.Context, is *vault.Entity, want archive.Alias) (do, why string, err error) {
	m, err := re.mount(ctx, want.Mount, want.Type)
	if err != nil {
		return "", "", err
	}
	if m.Type == "" {
		return Skip, "Vault has no login " + want.Mount + " for its alias", nil
	}
	accessor := m.Accessor
	data := map[string]any{"name": want.Name, "mount_accessor": accessor, "canonical_id": is.ID, "custom_metadata": want.Custom}
	if want.Custom == nil {
		data["custom_metadata"] = map[string]string{}
	}
	for _, has := range is.Aliases {
		switch {
		case has.Accessor != accessor:
			continue
		case has.Name == want.Name && maps.Equal(has.Custom, want.Custom):
			return Unchanged, "", nil
		case has.Name == want.Name && !re.Overwrite:
			return Skip, "its alias of " + want.Mount + " has other metadata in Vault", nil
		case has.Name == want.Name:
			return Update, "its alias of " + want.Mount, re.write(ctx, "identity/entity-alias", data)
		case !re.Overwrite:
			return Skip, "it has another alias of " + want.Mount + " in Vault", nil
		}
		data["id"] = has.ID
		return Update, "its alias of " + want.Mount, re.write(ctx, "identity/entity-alias", data)
	}
	owner, err := re.owner(ctx, want.Name, accessor)
	if err != nil {
		return "", "", err
	}
	if owner != "" && !re.Overwrite {
		return Skip, "its alias of " + want.Mount + " belongs to the entity " + owner + " in Vault", nil
	}
	return Update, "its alias of " + want.Mount, re.write(ctx, "identity/entity-alias", data)
}

// owner is the name of the entity that has an alias, "" for none.
func (re *restorer) owner(ctx context.Context, name, accessor string) (string, error) {
	if accessor == "" {
		return "", nil
	}
	// It is a question, and not a change.
	answer, err := re.v.Write(ctx, "identity/lookup/entity", map[string]any{"alias_name": name, "alias_mount_accessor": accessor})
	if err != nil || answer == nil {
		return "", err
	}
	owner, _ := answer.Data["name"].(string)
	return owner, nil
}
