package backup

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/archive"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/vault"
)

func (re *restorer) role(ctx context.Context, r *archive.Role) (Action, error) {
	a := Action{Kind: "role", Name: r.Name, Do: Create}
	re.mu.Lock()
	re.roles[r.RoleID] = r.Name
	re.mu.Unlock()
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
		if key != "role_id" { // That is none of its settings.
			data[key] = value
		}
	}
	if is == nil {
		a.Changes = settingChanges(data, nil)
		data["role_id"] = r.RoleID
		return a, re.write(ctx, path, data)
	}
	delete(data, "local_secret_ids") // Vault takes that of new roles only.
	switch {
	case is.RoleID != r.RoleID && !re.Overwrite:
		a.Do, a.Why = Skip, "it has another role id in Vault, which may be in use"
		return a, nil
	case is.RoleID != r.RoleID:
		a.Do, a.Why = Update, "it has another role id in Vault"
	default:
		a.Do, a.Why = re.differing(sameSettings(r.Settings, is.Settings), "its settings are others in Vault")
	}
	if a.Do != Update {
		return a, nil
	}
	a.Changes = settingChanges(data, is.Settings)
	if is.RoleID != r.RoleID {
		a.Changes = slices.Insert(a.Changes, 0, Change{"role_id", "the one in Vault", "the one in the backup"})
		data["role_id"] = r.RoleID
	}
	return a, re.write(ctx, path, data)
}

// settingChanges are the settings of a role that are others than in Vault, or of a new
// one, for which is is nil, those that are not empty.
func settingChanges(data map[string]any, is map[string]json.RawMessage) []Change {
	empty := []string{`""`, "0", "[]", "{}", "null", "false"}
	var changes []Change
	for _, key := range slices.Sorted(maps.Keys(data)) {
		value, _ := data[key].(json.RawMessage)
		switch {
		case is != nil && bytes.Equal(value, is[key]):
		case is == nil && slices.Contains(empty, string(value)) && key != "bind_secret_id":
		default:
			changes = append(changes, Change{key, string(is[key]), string(value)})
		}
	}
	if is == nil && changes == nil {
		changes = []Change{{"settings", "", "Vault's defaults"}}
	}
	return changes
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
	re.report(Action{Kind: "login", Name: path, Do: Create, Changes: []Change{{"type", "", kind}}})
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
		a.Changes = entityChanges(e, is)
		if is, err = re.putEntity(ctx, e, is); err != nil {
			return a, err
		}
	}
	for _, want := range e.Aliases {
		did, err := re.alias(ctx, is, want)
		if err != nil {
			return a, err
		}
		a.join(did)
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
func (a *Action) join(did Action) {
	switch {
	case did.Do == Skip, did.Do == Update && a.Do == Unchanged:
		a.Do = did.Do
	}
	if did.Why != "" {
		a.Why = strings.TrimPrefix(a.Why+"; "+did.Why, "; ")
	}
	a.Changes = append(a.Changes, did.Changes...)
}

// entityChanges compares all but aliases with an entity in Vault, nil for none.
func entityChanges(e *archive.Entity, is *vault.Entity) []Change {
	var was vault.Entity
	var changes []Change
	if is != nil {
		was = *is
	}
	add := func(field, before, after string) {
		if before != after {
			changes = append(changes, Change{field, before, after})
		}
	}
	policies := func(names []string) string { return asJSON(append([]string{}, slices.Sorted(slices.Values(names))...)) }
	if is == nil {
		changes = []Change{{"policies", "", policies(e.Policies)}}
	} else {
		add("policies", policies(was.Policies), policies(e.Policies))
	}
	// Policies may be templates that metadata fills in.
	keys := maps.Clone(was.Metadata)
	if keys == nil {
		keys = map[string]string{}
	}
	maps.Copy(keys, e.Metadata)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		before, after := "", ""
		if value, ok := was.Metadata[key]; ok {
			before = asJSON(value)
		}
		if value, ok := e.Metadata[key]; ok {
			after = asJSON(value)
		}
		add("metadata "+key, before, after)
	}
	if was.Disabled != e.Disabled {
		add("disabled", asJSON(was.Disabled), asJSON(e.Disabled))
	}
	return changes
}

func asJSON(v any) string {
	text, _ := json.Marshal(v) // Text, lists and maps of it, and booleans never fail.
	return string(text)
}

// aliasText describes an alias without a role id.
func (re *restorer) aliasText(kind, name string, custom map[string]string) string {
	text := asJSON(name)
	if kind == appRole {
		re.mu.Lock()
		role, ok := re.roles[name]
		re.mu.Unlock()
		if text = "a role that is not in the backup"; ok {
			text = "role " + asJSON(role)
		}
	}
	if len(custom) > 0 {
		text += " with metadata " + asJSON(custom)
	}
	return text
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

// alias gives an entity an alias, and returns what had to be done for it.
func (re *restorer) alias(ctx context.Context, is *vault.Entity, want archive.Alias) (Action, error) {
	m, err := re.mount(ctx, want.Mount, want.Type)
	if err != nil {
		return Action{}, err
	}
	if m.Type == "" {
		return Action{Do: Skip, Why: "Vault has no login " + want.Mount + " for its alias"}, nil
	}
	accessor := m.Accessor
	data := map[string]any{"name": want.Name, "mount_accessor": accessor, "canonical_id": is.ID, "custom_metadata": want.Custom}
	if want.Custom == nil {
		data["custom_metadata"] = map[string]string{}
	}
	update := func(old string) (Action, error) {
		changes := []Change{{"alias of " + want.Mount, old, re.aliasText(m.Type, want.Name, want.Custom)}}
		return Action{Do: Update, Why: "its alias of " + want.Mount, Changes: changes}, re.write(ctx, "identity/entity-alias", data)
	}
	for _, has := range is.Aliases {
		switch {
		case has.Accessor != accessor:
			continue
		case has.Name == want.Name && maps.Equal(has.Custom, want.Custom):
			return Action{Do: Unchanged}, nil
		case has.Name == want.Name && !re.Overwrite:
			return Action{Do: Skip, Why: "its alias of " + want.Mount + " has other metadata in Vault"}, nil
		case has.Name == want.Name:
			return update(re.aliasText(m.Type, has.Name, has.Custom))
		case !re.Overwrite:
			return Action{Do: Skip, Why: "it has another alias of " + want.Mount + " in Vault"}, nil
		}
		data["id"] = has.ID
		return update(re.aliasText(m.Type, has.Name, has.Custom))
	}
	owner, err := re.owner(ctx, want.Name, accessor)
	if err != nil {
		return Action{}, err
	}
	switch {
	case owner != "" && !re.Overwrite:
		return Action{Do: Skip, Why: "its alias of " + want.Mount + " belongs to the entity " + owner + " in Vault"}, nil
	case owner != "":
		return update("of the entity " + asJSON(owner))
	}
	return update("")
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
