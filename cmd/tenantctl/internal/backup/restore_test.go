package backup

import (
	"bytes"
	"errors"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/archive"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/vault"
	"github.com/smarteros/deaddrop/compose/policies"
)

func TestMissingVersionsAreAddedToAnOlderState(t *testing.T) {
	t.Parallel()
	from, to := newPlace(t), newPlace(t)
	nexa := at("demo", "nexa")
	from.puts(nexa, 1, 4)
	from.write("secret/destroy/"+nexa, map[string]any{"versions": []int{3}})
	from.write("secret/metadata/"+nexa, map[string]any{"custom_metadata": map[string]string{"owner": "ops"}})
	file := from.backup(ReadOptions{})
	to.puts(nexa, 1, 2)
	did := to.restore(file, RestoreOptions{})
	assert.Equal(t, map[string]string{"secret secret/" + nexa: "append: versions 3 to 4"}, did)
	assert.Equal(t, from.live(nexa), to.live(nexa))
	assert.Equal(t, map[string]string{"owner": "ops"}, to.meta(nexa).Custom)
}

func TestWhatIsNewerIsOverwrittenOnlyWhenTold(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	newer, other, deleted := at("demo", "newer"), at("demo", "other"), at("demo", "deleted")
	for _, path := range []string{newer, other, deleted} {
		p.puts(path, 1, 2)
	}
	file := p.backup(ReadOptions{})
	p.puts(newer, 3, 4)
	p.deleteAll(other)
	p.put(other, map[string]any{"v": "something else"})
	p.write("secret/delete/"+deleted, map[string]any{"versions": []int{2}})
	before := map[string]map[int]any{newer: p.live(newer), other: p.live(other), deleted: p.live(deleted)}

	did := p.restore(file, RestoreOptions{})
	assert.Len(t, did, 3)
	for path, live := range before {
		assert.Contains(t, did["secret secret/"+path], "skip: ")
		assert.Equal(t, live, p.live(path), path)
	}
	dry := p.restore(file, RestoreOptions{Overwrite: true, DryRun: true})
	for path, live := range before {
		assert.Equal(t, live, p.live(path), path)
	}
	did = p.restore(file, RestoreOptions{Overwrite: true})
	assert.Equal(t, dry, did, "the plan")
	assert.Contains(t, did["secret secret/"+newer], "overwrite: as version 5")
	for path := range before {
		assert.Equal(t, content(path, 2), p.get(path, 0)["v"], path)
	}
	assert.Equal(t, content(newer, 4), p.get(newer, 4)["v"], "what was overwritten is a version still")
	assert.Empty(t, p.restore(file, RestoreOptions{Overwrite: true}), "a second time")
}

func TestADryRunChangesNothing(t *testing.T) {
	t.Parallel()
	from, to := newPlace(t), newPlace(t)
	fill(from)
	from.enable("approle", "approle")
	from.tenantLogin("demo", "nexa")
	file := from.backup(ReadOptions{})
	to.puts(at("demo", "nexa"), 1, 1)
	before := recordsOf(t, to.backup(ReadOptions{}))
	plan := to.restore(file, RestoreOptions{DryRun: true})
	assert.Equal(t, before, recordsOf(t, to.backup(ReadOptions{})))
	assert.Empty(t, to.accessor("approle"))
	did := to.restore(file, RestoreOptions{})
	assert.Equal(t, plan, did)
}

func TestWhoWritesAtTheSameTimeLosesNothing(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		there int
		o     RestoreOptions
	}{"create": {0, RestoreOptions{}}, "append": {1, RestoreOptions{}}, "overwrite": {5, RestoreOptions{Overwrite: true}}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from, to := newPlace(t), newPlace(t)
			nexa := at("demo", "nexa")
			from.puts(nexa, 1, 3)
			to.puts(nexa, 1, test.there)
			real := to.v
			to.v = to.meddled(&meddle{method: http.MethodGet, suffix: "/metadata/" + nexa, after: func() {
				to.put(nexa, map[string]any{"v": "by somebody else"})
			}})
			did := to.restore(from.backup(ReadOptions{}), test.o)
			to.v = real
			assert.Equal(t, map[string]string{"secret secret/" + nexa: "skip: somebody has changed it meanwhile"}, did)
			assert.Equal(t, "by somebody else", to.get(nexa, 0)["v"])
			assert.Equal(t, test.there+1, to.meta(nexa).Current)
		})
	}
}

func TestARestoreThatWasInterruptedGoesOn(t *testing.T) {
	t.Parallel()
	from, to := newPlace(t), newPlace(t)
	fill(from)
	file := from.backup(ReadOptions{})
	real, failed := to.v, errors.New("the cable was pulled")
	stops := 0
	for limit := int64(1); ; limit += 3 { // Ever later, until it comes through.
		var requests atomic.Int64
		to.v = to.meddled(&meddle{method: http.MethodPut, before: func() error {
			if requests.Add(1) > limit {
				return failed
			}
			return nil
		}})
		_, err := to.tryRestore(file, RestoreOptions{})
		if err == nil {
			break
		}
		require.ErrorContains(t, err, failed.Error())
		stops++
	}
	to.v = real
	assert.Greater(t, stops, 3)
	for _, path := range paths() {
		assert.Equal(t, from.live(path), to.live(path), path)
		assert.Equal(t, from.meta(path).Current, to.meta(path).Current, path)
	}
	assert.Empty(t, to.restore(file, RestoreOptions{}))
}

func TestHighNumbersNeedPlaceholdersUpToALimit(t *testing.T) {
	t.Parallel()
	from, to := newPlace(t), newPlace(t)
	nexa := at("demo", "nexa")
	from.puts(nexa, 1, 60) // 51 to 60 are left.
	file := from.backup(ReadOptions{})
	did := to.restore(file, RestoreOptions{MaxPlaceholders: 49})
	assert.Contains(t, did["secret secret/"+nexa], "skip: its version 60 needs 50 placeholders, more than --max-placeholders 49")
	assert.Nil(t, to.meta(nexa))
	to.restore(file, RestoreOptions{MaxPlaceholders: 50})
	assert.Equal(t, from.live(nexa), to.live(nexa))
}

func TestPoliciesRolesAndEntitiesThatDifferAreWrittenOnlyWhenTold(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.enable("approle", "approle")
	roleID := p.tenantLogin("demo", "nexa")
	p.puts(at("demo", "nexa"), 1, 1)
	file := p.backup(ReadOptions{})
	p.write("sys/policies/acl/"+policies.Tenant, map[string]any{"policy": `path "x" { capabilities = ["read"] }`})
	p.write("auth/approle/role/demo-nexa", map[string]any{"token_ttl": "2h"})
	p.write("identity/entity/name/demo-nexa", map[string]any{"metadata": map[string]string{vault.TenantKey: "evil"}})
	p.write("identity/entity-alias", map[string]any{"name": roleID, "mount_accessor": p.accessor("approle"), "custom_metadata": map[string]string{}})
	now := recordsOf(t, p.backup(ReadOptions{}))
	skipped := map[string]string{
		"policy " + policies.Tenant: "skip: it is another one in Vault",
		"role demo-nexa":            "skip: its settings are others in Vault",
		"entity demo-nexa":          "skip: it is another one in Vault",
	}
	assert.Equal(t, skipped, p.restore(file, RestoreOptions{}))
	assert.Equal(t, skipped, p.restore(file, RestoreOptions{}, "demo"))
	assert.Equal(t, now, recordsOf(t, p.backup(ReadOptions{})))
	did := p.restore(file, RestoreOptions{Overwrite: true})
	assert.Equal(t, map[string]string{
		"policy " + policies.Tenant: "update: it is another one in Vault",
		"role demo-nexa":            "update: its settings are others in Vault",
		"entity demo-nexa":          "update: it is another one in Vault; its alias of approle",
	}, did)
	assert.Empty(t, p.restore(file, RestoreOptions{}))
	assert.Equal(t, recordsOf(t, file), recordsOf(t, p.backup(ReadOptions{})))
}

func TestARestoreOfATenantLeavesThePoliciesOfAllAlone(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.enable("approle", "approle")
	p.tenantLogin("demo", "nexa")
	p.puts(at("demo", "nexa"), 1, 1)
	file := p.backup(ReadOptions{})
	newer := `path "x" { capabilities = ["read"] }`
	p.write("sys/policies/acl/"+policies.Tenant, map[string]any{"policy": newer})
	did := p.restore(file, RestoreOptions{Overwrite: true}, "demo")
	assert.Equal(t, map[string]string{
		"policy " + policies.Tenant: "skip: it is another one in Vault, and is not for the tenant alone; restore it without --tenant",
	}, did)
	text, _, err := readPolicy(t.Context(), p.v, policies.Tenant)
	require.NoError(t, err)
	assert.Equal(t, newer, text)
}

func TestWhoWasDisabledStaysSoUnlessTold(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.enable("approle", "approle")
	roleID := p.tenantLogin("demo", "nexa")
	p.puts(at("demo", "nexa"), 1, 1)
	file := p.backup(ReadOptions{})
	p.write("identity/entity/name/demo-nexa", map[string]any{"disabled": true})
	const why = "it is disabled in Vault, and was not in the backup"
	for _, tenants := range [][]string{nil, {"demo"}} {
		assert.Equal(t, map[string]string{"entity demo-nexa": "skip: " + why}, p.restore(file, RestoreOptions{}, tenants...))
	}
	secret := p.write("auth/approle/role/demo-nexa/secret-id", nil)
	_, err := p.s.Client.Logical().Write("auth/approle/login", map[string]any{"role_id": roleID, "secret_id": secret["secret_id"]})
	require.Error(t, err, "it is disabled still")
	assert.Equal(t, map[string]string{"entity demo-nexa": "update: " + why}, p.restore(file, RestoreOptions{Overwrite: true}))
	p.login(roleID, "demo-nexa")
}

func TestAnEntityOfAnotherTenantGetsNoAlias(t *testing.T) {
	t.Parallel()
	from, to := newPlace(t), newPlace(t)
	from.enable("approle", "approle")
	to.enable("approle", "approle")
	from.tenantLogin("demo", "nexa")
	from.puts(at("demo", "nexa"), 1, 1)
	to.write("identity/entity", map[string]any{"name": "demo-nexa", "metadata": map[string]string{vault.TenantKey: "other"}})
	did := to.restore(from.backup(ReadOptions{}), RestoreOptions{})
	assert.Equal(t, "skip: it is another one in Vault", did["entity demo-nexa"])
	is, err := to.v.Entity(t.Context(), "name/demo-nexa")
	require.NoError(t, err)
	assert.Empty(t, is.Aliases)
}

func TestSettingsOfTheEngineThatSomebodyMadeStayUnlessTold(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.write("secret/config", map[string]any{"max_versions": 5})
	file := p.backup(ReadOptions{})
	p.write("secret/config", map[string]any{"max_versions": 20})
	assert.Equal(t, map[string]string{"engine secret": "skip: its settings are others in Vault"}, p.restore(file, RestoreOptions{}))
	assert.Equal(t, map[string]string{"engine secret": "update: its settings are others in Vault"}, p.restore(file, RestoreOptions{Overwrite: true}))
	assert.Empty(t, p.restore(file, RestoreOptions{}))
}

// What was deleted in Vault after the backup is newer, although its number is lower.
func TestADeletedSecretOfATenantThatWasMadeAnewStaysDeleted(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	nexa := at("demo", "nexa")
	p.puts(nexa, 1, 2)
	file := p.backup(ReadOptions{})
	p.deleteAll(nexa)
	p.put(nexa, map[string]any{"v": "anew"})
	p.write("secret/delete/"+nexa, map[string]any{"versions": []int{1}})
	did := p.restore(file, RestoreOptions{})
	assert.Equal(t, map[string]string{"secret secret/" + nexa: "skip: Vault has version 1, which has nothing in common with the backup"}, did)
	assert.Empty(t, p.live(nexa))
	assert.Equal(t, 1, p.meta(nexa).Current)
	p.restore(file, RestoreOptions{Overwrite: true})
	assert.Equal(t, map[int]any{2: content(nexa, 2)}, p.live(nexa))
}

func TestAnotherRoleIDThatMayBeInUseStaysUnlessTold(t *testing.T) {
	t.Parallel()
	from, to := newPlace(t), newPlace(t)
	from.enable("approle", "approle")
	to.enable("approle", "approle")
	old, inUse := from.tenantLogin("demo", "nexa"), to.tenantLogin("demo", "nexa")
	from.puts(at("demo", "nexa"), 1, 1)
	file := from.backup(ReadOptions{})
	did := to.restore(file, RestoreOptions{})
	assert.Contains(t, did["role demo-nexa"], "skip: it has another role id")
	assert.Contains(t, did["entity demo-nexa"], "skip: it has another alias of approle")
	to.login(inUse, "demo-nexa")

	did = to.restore(file, RestoreOptions{Overwrite: true})
	assert.Contains(t, did["role demo-nexa"], "update: ")
	assert.Contains(t, did["entity demo-nexa"], "update: ")
	answer := must(t)(to.login(old, "demo-nexa").Logical().Read("secret/data/" + at("demo", "nexa")))
	assert.NotNil(t, answer)
	assert.Empty(t, to.restore(file, RestoreOptions{Overwrite: true}))
}

// A login before the restore makes an entity by itself, which then has the alias.
func TestAnAliasOfAnotherEntityMovesOnlyWhenTold(t *testing.T) {
	t.Parallel()
	from, to := newPlace(t), newPlace(t)
	from.enable("approle", "approle")
	to.enable("approle", "approle")
	roleID := from.tenantLogin("demo", "nexa")
	from.puts(at("demo", "nexa"), 1, 1)
	file := from.backup(ReadOptions{})
	to.write("auth/approle/role/demo-nexa", map[string]any{"role_id": roleID})
	to.login(roleID, "demo-nexa")
	did := to.restore(file, RestoreOptions{})
	assert.Regexp(t, "^skip: .*belongs to the entity", did["entity demo-nexa"])
	to.restore(file, RestoreOptions{Overwrite: true})
	assert.NotNil(t, must(t)(to.login(roleID, "demo-nexa").Logical().Read("secret/data/"+at("demo", "nexa"))))
	assert.Empty(t, to.restore(file, RestoreOptions{Overwrite: true}))
}

func TestALoginOfAnotherTypeUnderTheSameNameIsAnError(t *testing.T) {
	t.Parallel()
	from, to := newPlace(t), newPlace(t)
	from.enable("approle", "approle")
	from.tenantLogin("demo", "nexa")
	to.enable("approle", "userpass")
	_, err := to.tryRestore(from.backup(ReadOptions{}), RestoreOptions{})
	require.ErrorContains(t, err, "the login approle is of the type userpass in Vault, and was of the type approle")
}

func TestWithoutAnEngineNothingIsRestored(t *testing.T) {
	t.Parallel()
	from, to := newPlace(t), newPlace(t)
	fill(from)
	require.NoError(t, to.s.Client.Sys().Unmount("secret"))
	_, err := to.tryRestore(from.backup(ReadOptions{}), RestoreOptions{})
	require.ErrorContains(t, err, "secret/config")
	t.Log(err)
}

// The content of the records of a plain archive is the only thing that a fake
// replaces here: the order in which a writer of another version might have it.
func TestRecordsOfAnyOrderAreRestored(t *testing.T) {
	t.Parallel()
	from, to := newPlace(t), newPlace(t)
	from.enable("approle", "approle")
	from.tenantLogin("demo", "nexa")
	for n := range 40 {
		from.puts(at("demo", strconv.Itoa(n)), 1, 2)
	}
	all := recordsOf(t, from.backup(ReadOptions{}))
	for i, j := 0, len(all)-1; i < j; i, j = i+1, j-1 {
		all[i], all[j] = all[j], all[i]
	}
	to.restore(packed(t, all), RestoreOptions{})
	assert.Len(t, recordsOf(t, to.backup(ReadOptions{})), len(all))
}

func packed(t *testing.T, all []archive.Record) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := archive.NewWriter(&out, archive.Header{})
	require.NoError(t, err)
	for _, r := range all {
		require.NoError(t, w.Write(r))
	}
	require.NoError(t, w.Close())
	return out.Bytes()
}
