package backup

import (
	"maps"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/policies"
)

// fill makes secrets of every kind.
func fill(p *place) {
	p.write("secret/config", map[string]any{"max_versions": 5})
	p.puts(at("demo", "nexa"), 1, 3)
	p.puts(at("demo", "shopify"), 1, 12) // 8 to 12 are left.
	p.puts(at("other", "nexa"), 1, 4)
	p.write("secret/delete/"+at("other", "nexa"), map[string]any{"versions": []int{2}})
	p.write("secret/destroy/"+at("other", "nexa"), map[string]any{"versions": []int{3}})
	p.puts(at("other", "gone"), 1, 2)
	p.write("secret/delete/"+at("other", "gone"), map[string]any{"versions": []int{1, 2}})
	p.puts(at("other", "deep/er/é %41?#&+ x"), 1, 2)
	p.puts(at("other", "deep"), 1, 1)
	p.puts("tenant/alone", 1, 1)
	p.write("secret/metadata/"+at("other", "settings"), map[string]any{
		"max_versions": 20, "cas_required": true, "delete_version_after": "720h", "custom_metadata": map[string]any{"owner": "ops", "ü": "<&>"},
	})
	p.write("secret/metadata/"+at("other", "empty"), map[string]any{"custom_metadata": map[string]any{"a": "b"}})
	for n := range 2 {
		p.write("secret/data/"+at("other", "settings"), map[string]any{"data": map[string]any{"v": n + 1}, "options": map[string]any{"cas": n}})
	}
	p.put(at("other", "types"), map[string]any{"int": 12345678901, "float": 1.5, "bool": true, "null": nil, "list": []any{1, "a"}, "map": map[string]any{"<": ">"}, "": "\x00\u2028"})
	p.puts("elsewhere/x", 1, 1) // Not a tenant's.
}

func paths() []string {
	return []string{
		"tenant/alone", at("demo", "nexa"), at("demo", "shopify"), at("other", "deep"), at("other", "deep/er/é %41?#&+ x"),
		at("other", "empty"), at("other", "gone"), at("other", "nexa"), at("other", "settings"), at("other", "types"),
	}
}

func TestAnEmptyVaultGetsAllVersionsUnderTheirNumbers(t *testing.T) {
	t.Parallel()
	from, to := newPlace(t), newPlace(t)
	fill(from)
	file := from.backup(ReadOptions{})
	assert.ElementsMatch(t, paths(), slices.Collect(maps.Keys(secretsOf(t, file))))

	did := to.restore(file, RestoreOptions{})
	assert.Len(t, did, len(paths())+1, "%v", did)
	for _, path := range paths() {
		want, got := from.meta(path), to.meta(path)
		require.NotNil(t, got, path)
		assert.Equal(t, want.Settings, got.Settings, path)
		assert.Equal(t, want.Custom, got.Custom, path)
		assert.Equal(t, want.Current, got.Current, path)
		assert.Equal(t, from.live(path), to.live(path), path)
		for n := range want.Current + 1 { // A version that cannot be read there cannot be read here, nor undeleted.
			assert.Equal(t, from.get(path, n), to.get(path, n), "%s, version %d", path, n)
			if v, ok := got.version(n); ok && to.get(path, n) == nil {
				assert.True(t, v.Destroyed, "%s, version %d", path, n)
			}
		}
	}
	assert.Nil(t, to.meta("elsewhere/x"))
	assert.Equal(t, map[int]any{8: content(at("demo", "shopify"), 8), 9: content(at("demo", "shopify"), 9), 10: content(at("demo", "shopify"), 10),
		11: content(at("demo", "shopify"), 11), 12: content(at("demo", "shopify"), 12)}, to.live(at("demo", "shopify")))

	assert.Empty(t, to.restore(file, RestoreOptions{}), "a second time")
	assert.Empty(t, to.restore(file, RestoreOptions{Overwrite: true}), "a second time, overwriting")
	assert.Empty(t, from.restore(file, RestoreOptions{}), "where it comes from")
	again := secretsOf(t, to.backup(ReadOptions{}))
	for path, s := range secretsOf(t, file) {
		assert.Equal(t, s.Settings, again[path].Settings)
		for i, v := range s.Versions {
			if v.Data != nil {
				assert.Equal(t, string(v.Data), string(again[path].Versions[i].Data), path)
			}
		}
	}
}

func TestTheLatestVersionsKeepTheirNumbers(t *testing.T) {
	t.Parallel()
	from, to := newPlace(t), newPlace(t)
	fill(from)
	file := from.backup(ReadOptions{Latest: true})
	for path, s := range secretsOf(t, file) {
		assert.LessOrEqual(t, len(s.Versions), 1, path)
	}
	to.restore(file, RestoreOptions{})
	for _, path := range paths() {
		assert.Equal(t, from.get(path, 0), to.get(path, 0), path)
		assert.Equal(t, from.meta(path).Current, to.meta(path).Current, path)
	}
	assert.Len(t, to.live(at("demo", "shopify")), 1)
	assert.Empty(t, to.restore(file, RestoreOptions{}), "a second time")
}

func TestVersionsMayBeCountedAnew(t *testing.T) {
	t.Parallel()
	from, to := newPlace(t), newPlace(t)
	fill(from)
	file := from.backup(ReadOptions{})
	did := to.restore(file, RestoreOptions{Renumber: true})
	assert.Contains(t, did["secret secret/"+at("other", "gone")], "none of its versions has content")
	shopify := at("demo", "shopify")
	assert.Equal(t, map[int]any{1: content(shopify, 8), 2: content(shopify, 9), 3: content(shopify, 10), 4: content(shopify, 11), 5: content(shopify, 12)}, to.live(shopify))
	assert.Len(t, to.restore(file, RestoreOptions{Renumber: true}), 1, "a second time, but for the one without content")
}

func TestARoleLogsInUnderItsOldIDAndReadsItsOwnSecrets(t *testing.T) {
	t.Parallel()
	from, to := newPlace(t), newPlace(t)
	from.enable("approle", "approle")
	from.enable("userpass", "userpass")
	demo, other := from.tenantLogin("demo", "nexa"), from.tenantLogin("other", "nexa")
	operator := from.write("identity/entity", map[string]any{"name": "operator", "policies": []string{"b", "a"}, "disabled": true})
	from.write("identity/entity-alias", map[string]any{"name": "op", "canonical_id": operator["id"], "mount_accessor": from.accessor("userpass")})
	from.puts(at("demo", "nexa"), 1, 2)
	from.puts(at("other", "nexa"), 1, 2)
	file := from.backup(ReadOptions{})

	did := to.restore(file, RestoreOptions{})
	for _, what := range []string{"login approle", "login userpass", "policy " + policies.Tenant, "role demo-nexa", "role other-nexa", "entity demo-nexa", "entity operator"} {
		assert.Contains(t, did[what], "create", what)
	}
	for id, roleID := range map[string]string{"demo": demo, "other": other} {
		c := to.login(roleID, id+"-nexa")
		secret, err := c.Logical().Read("secret/data/" + at(id, "nexa"))
		require.NoError(t, err)
		assert.Equal(t, content(at(id, "nexa"), 2), secret.Data["data"].(map[string]any)["v"])
		for _, foreign := range []string{"demo", "other"} {
			if foreign != id {
				_, err := c.Logical().Read("secret/data/" + at(foreign, "nexa"))
				assert.ErrorContains(t, err, "permission denied")
			}
		}
	}
	is, err := to.v.Entity(t.Context(), "name/operator")
	require.NoError(t, err)
	assert.True(t, is.Disabled)
	assert.ElementsMatch(t, []string{"a", "b"}, is.Policies)
	assert.Equal(t, "op", is.Aliases[0].Name)
	assert.Equal(t, to.accessor("userpass"), is.Aliases[0].Accessor)
	role, err := readRole(t.Context(), to.v, "approle", "demo-nexa")
	require.NoError(t, err)
	want, err := readRole(t.Context(), from.v, "approle", "demo-nexa")
	require.NoError(t, err)
	assert.Equal(t, want, role)
	assert.Empty(t, to.restore(file, RestoreOptions{}), "a second time")
	assert.Empty(t, to.restore(file, RestoreOptions{Overwrite: true}), "a second time, overwriting")
}

func TestOnlyAPartIsRestoredOrBackedUp(t *testing.T) {
	t.Parallel()
	from, part, all := newPlace(t), newPlace(t), newPlace(t)
	from.enable("approle", "approle")
	for n := range 3 {
		id := "t" + strconv.Itoa(n)
		from.tenantLogin(id, "nexa")
		from.puts(at(id, "nexa"), 1, 2)
	}
	from.write("sys/policies/acl/unused", map[string]any{"policy": policies.Read(policies.Tenant)})
	want := []string{"login approle", "policy " + policies.Tenant, "role t1-nexa", "entity t1-nexa", "secret secret/" + at("t1", "nexa")}
	did := part.restore(from.backup(ReadOptions{Tenants: []string{"t1"}}), RestoreOptions{})
	assert.ElementsMatch(t, want, slices.Collect(maps.Keys(did)))
	did = all.restore(from.backup(ReadOptions{}), RestoreOptions{}, "t1")
	assert.ElementsMatch(t, want, slices.Collect(maps.Keys(did)))
	did = all.restore(from.backup(ReadOptions{}), RestoreOptions{SecretsOnly: true})
	assert.ElementsMatch(t, []string{"secret secret/" + at("t0", "nexa"), "secret secret/" + at("t2", "nexa")}, slices.Collect(maps.Keys(did)))
}

func TestWhatHasNoTenantsIsBackedUpToo(t *testing.T) {
	t.Parallel()
	file := newPlace(t).backup(ReadOptions{})
	assert.Empty(t, newPlace(t).restore(file, RestoreOptions{}))
}
