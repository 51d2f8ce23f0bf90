package policies_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/tenant"
	"github.com/smarteros/deaddrop/compose/policies"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// house is a Vault with the policies of the platform and two tenants, each with
// all services. Their ids are the test's own.
type house struct {
	t    *testing.T
	s    *vaulttest.Server
	a, b string
	// secretOfA and secretOfB are in every service of theirs.
	secretOfA, secretOfB string
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, s: vaulttest.Shared(t), a: name("rut-a-"), b: name("rut-b-"), secretOfA: vaulttest.Marker(), secretOfB: vaulttest.Marker()}
	auths, err := h.s.Client.Sys().ListAuth()
	require.NoError(t, err)
	for _, method := range []string{"approle", "userpass"} {
		if auths[method+"/"] == nil {
			require.NoError(t, h.s.Client.Sys().EnableAuthWithOptions(method, &api.EnableAuthOptions{Type: method}))
		}
	}
	for _, policy := range policies.Names() {
		require.NoError(t, h.s.Client.Sys().PutPolicy(policy, policies.Read(policy)))
	}
	for _, service := range tenant.Services() {
		h.root("secret/data/"+h.of(h.a, service), map[string]any{"data": map[string]any{"KEY": h.secretOfA}})
		h.root("secret/data/"+h.of(h.b, service), map[string]any{"data": map[string]any{"KEY": h.secretOfB}})
	}
	return h
}

func name(prefix string) string { return prefix + strings.ToLower(rand.Text()[:10]) }

// of is the path of a service below secret/data/ or secret/metadata/.
func (h *house) of(id, service string) string { return "tenant/" + id + "/" + service }

func (h *house) root(path string, data map[string]any) map[string]any {
	h.t.Helper()
	answer, err := h.s.Client.Logical().Write(path, data)
	require.NoError(h.t, err, path)
	if answer == nil {
		return nil
	}
	return answer.Data
}

// someone is logged in.
type someone struct {
	t        *testing.T
	address  string
	token    string
	entityID string
}

// role logs in with an AppRole of this policy, whose entity has this metadata.
func (h *house) role(policy string, metadata map[string]any) *someone {
	h.t.Helper()
	role := name("role-")
	h.root("auth/approle/role/"+role, map[string]any{
		"token_policies": policy, "token_ttl": "1h", "token_max_ttl": "24h", "token_no_default_policy": true,
	})
	id, err := h.s.Client.Logical().Read("auth/approle/role/" + role + "/role-id")
	require.NoError(h.t, err)
	auths, err := h.s.Client.Sys().ListAuth()
	require.NoError(h.t, err)
	entity := h.root("identity/entity", map[string]any{"name": role, "metadata": metadata})
	h.root("identity/entity-alias", map[string]any{
		"name": id.Data["role_id"], "canonical_id": entity["id"], "mount_accessor": auths["approle/"].Accessor,
	})
	secret := h.root("auth/approle/role/"+role+"/secret-id", nil)
	return h.login("auth/approle/login", map[string]any{"role_id": id.Data["role_id"], "secret_id": secret["secret_id"]})
}

func (h *house) tenant(id string) *someone {
	h.t.Helper()
	return h.role(policies.Tenant, map[string]any{"tenant_id": id})
}

// admin logs in with a user's password, as people do.
func (h *house) admin() *someone {
	h.t.Helper()
	user, password := name("admin-"), rand.Text()
	h.root("auth/userpass/users/"+user, map[string]any{"password": password, "token_policies": policies.Admin})
	return h.login("auth/userpass/login/"+user, map[string]any{"password": password})
}

func (h *house) login(path string, data map[string]any) *someone {
	h.t.Helper()
	answer, err := h.s.Client.Logical().Write(path, data)
	require.NoError(h.t, err)
	return &someone{t: h.t, address: h.s.Address, token: answer.Auth.ClientToken, entityID: answer.Auth.EntityID}
}

// ask sends a request whose path is not made any tidier, and follows where Vault
// redirects it to.
func (w *someone) ask(method, path string, data any) (int, string) {
	w.t.Helper()
	var body io.Reader
	if data != nil {
		text, err := json.Marshal(data)
		require.NoError(w.t, err)
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(w.t.Context(), method, w.address, body)
	require.NoError(w.t, err)
	path, query, _ := strings.Cut(path, "?")
	request.URL = &url.URL{Scheme: request.URL.Scheme, Host: request.URL.Host, Opaque: "/v1/" + path, RawQuery: query}
	request.Header.Set("X-Vault-Token", w.token)
	request.Header.Set("X-Vault-Request", "true")
	if method == http.MethodPatch {
		request.Header.Set("Content-Type", "application/merge-patch+json")
	}
	answer, err := http.DefaultClient.Do(request)
	require.NoError(w.t, err)
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	require.NoError(w.t, err)
	return answer.StatusCode, string(text)
}

func (w *someone) may(method, path string, data any) string {
	w.t.Helper()
	code, text := w.ask(method, path, data)
	require.Contains(w.t, []int{http.StatusOK, http.StatusNoContent}, code, "%s %s: %s", method, path, text)
	return text
}

func (w *someone) mayNot(method, path string, data any) {
	w.t.Helper()
	code, text := w.ask(method, path, data)
	assert.Equal(w.t, http.StatusForbidden, code, "%s %s: %s", method, path, text)
}

const list = "LIST"

var someData = map[string]any{"data": map[string]any{"KEY": "overwritten"}}

func TestATenantReadsWhatIsItsOwn(t *testing.T) {
	h := newHouse(t)
	who := h.tenant(h.a)
	for _, service := range tenant.Services() {
		assert.Contains(t, who.may("GET", "secret/data/"+h.of(h.a, service), nil), h.secretOfA)
		who.may("GET", "secret/metadata/"+h.of(h.a, service), nil)
	}
	names := who.may(list, "secret/metadata/tenant/"+h.a+"/", nil)
	for _, service := range tenant.Services() {
		assert.Contains(t, names, service)
	}
	who.may("POST", "auth/token/renew-self", nil)
	who.may("POST", "auth/token/revoke-self", nil)
	who.mayNot("GET", "secret/data/"+h.of(h.a, "nexa"), nil) // The token has ended.
}

func TestATenantWritesNothingOfItsOwn(t *testing.T) {
	h := newHouse(t)
	who := h.tenant(h.a)
	h.maysNotWrite(who, h.a)
	assert.Contains(t, who.may("GET", "secret/data/"+h.of(h.a, "nexa"), nil), h.secretOfA)
}

// maysNotWrite tries all ways to change a tenant's secrets.
func (h *house) maysNotWrite(who *someone, id string) {
	h.t.Helper()
	path := h.of(id, "nexa")
	for _, method := range []string{"POST", "PUT", "PATCH"} {
		who.mayNot(method, "secret/data/"+path, someData)
		who.mayNot(method, "secret/metadata/"+path, map[string]any{"max_versions": 1})
	}
	for _, verb := range []string{"delete", "undelete", "destroy"} {
		who.mayNot("POST", "secret/"+verb+"/"+path, map[string]any{"versions": []int{1}})
	}
	who.mayNot("POST", "secret/data/"+h.of(id, "new"), someData)
	who.mayNot("DELETE", "secret/data/"+path, nil)
	who.mayNot("DELETE", "secret/metadata/"+path, nil)
	who.mayNot("POST", "secret/config", map[string]any{"max_versions": 1})
}

func TestATenantCannotReadListOrWriteAnother(t *testing.T) {
	h := newHouse(t)
	who := h.tenant(h.a)
	for _, service := range append(tenant.Services(), "", "no-such-service") {
		path := h.of(h.b, service)
		for _, engine := range []string{"data", "metadata", "subkeys", "undelete", "destroy", "delete"} {
			who.mayNot("GET", "secret/"+engine+"/"+path, nil)
		}
		who.mayNot("GET", "secret/data/"+path+"?version=1", nil)
	}
	for _, folder := range []string{"", "tenant", "tenant/", "tenant/" + h.b, "tenant/" + h.b + "/", "tenant/" + h.b + "/nexa"} {
		who.mayNot(list, "secret/metadata/"+folder, nil)
		who.mayNot("GET", "secret/metadata/"+folder+"?list=true", nil)
	}
	h.maysNotWrite(who, h.b)
}

// A tenant that isn't there answers as one that is: nobody finds out by trying.
func TestATenantCannotGuessWhichOthersThereAre(t *testing.T) {
	h := newHouse(t)
	who := h.tenant(h.a)
	for _, path := range []string{
		"secret/data/tenant/%s/nexa", "secret/metadata/tenant/%s/nexa", "secret/metadata/tenant/%s/", "sys/internal/ui/mounts/secret/tenant/%s/nexa",
		"secret/data/tenant/" + h.a + "/%2e%2e/%s/nexa", "secret/metadata/tenant/" + h.a + "/%2e%2e/%s/nexa",
	} {
		there, saidOfB := who.ask("GET", strings.ReplaceAll(path, "%s", h.b), nil)
		missing, saidOfNone := who.ask("GET", strings.ReplaceAll(path, "%s", "no-such-tenant"), nil)
		assert.Equal(t, missing, there, path)
		assert.Equal(t, withoutIDs(saidOfNone), withoutIDs(saidOfB), path)
	}
}

// withoutIDs leaves out what differs from request to request.
func withoutIDs(text string) any {
	var answer map[string]any
	if json.Unmarshal([]byte(text), &answer) != nil {
		return text
	}
	delete(answer, "request_id")
	return answer
}

func TestNoSpellingOfAPathLeadsToAnotherTenant(t *testing.T) {
	h := newHouse(t)
	who := h.tenant(h.a)
	for _, path := range []string{
		"secret/data/tenant/A/../B/nexa", "secret/data/tenant/A/%2e%2e/B/nexa", "secret/data/tenant/A/%2E%2E/B/nexa",
		"secret/data/tenant/A/..%2fB/nexa", "secret/data/tenant/A/..%2FB%2Fnexa", "secret/data/tenant/A%2f..%2fB/nexa",
		"secret/data/tenant/A/%252e%252e/B/nexa", "secret/data/tenant/A/./../B/nexa", "secret/data/tenant/A//../B/nexa",
		`secret/data/tenant/A/..\B\nexa`, "secret/data/tenant/A/..%5cB%5cnexa", "secret/data/tenant/A/nexa/../../B/nexa",
		"secret/data/tenant/A/..;/B/nexa", "secret/data/tenant/A/%00/../../B/nexa", "secret/data/tenant/A/%c0%ae%c0%ae/B/nexa",
		"secret/data/tenant/A/nexa%00/../../B/nexa", "secret/data//tenant/B/nexa", "secret//data/tenant/B/nexa", "/secret/data/tenant/B/nexa",
		"secret/data/tenant/%42/nexa", "secret/data/./tenant/B/nexa", "secret/data/tenant/B/nexa/", "secret/data/tenant/+/nexa",
		"secret/data/tenant/*", "secret/data/tenant/*/nexa", "secret/data/tenant/A/*/../../B/nexa", "secret/data/TENANT/B/nexa",
		"secret/metadata/tenant/A/../", "secret/metadata/tenant/A/%2e%2e/", "secret/metadata/tenant/A/../B/", "secret/metadata/tenant/A/..",
		"secret/metadata/tenant/A/..%2f", "secret/subkeys/tenant/A/../B/nexa",
		// Vault's KV engine does clean the paths of metadata, after the policy was asked.
		"secret/metadata/tenant/A/%2e%2e/B/nexa", "secret/metadata/tenant/A/%2e%2e/B/", "secret/metadata/tenant/A/..%2fB%2f",
		"secret/metadata/tenant/A/..%2fB%2fnexa", "secret/metadata/tenant/A/%2e%2e/%2e%2e/", "secret/metadata/tenant/A/%2e%2e",
		"secret/metadata/tenant/A/x/%2e%2e/%2e%2e/B/nexa", "secret/metadata/tenant/A/%2e/%2e%2e/B/nexa",
	} {
		path = strings.NewReplacer("A", h.a, "B", h.b, "%42", strings.ReplaceAll(h.b, "-", "%2d")).Replace(path)
		for _, method := range []string{"GET", list} {
			code, text := who.ask(method, path, nil)
			if code == http.StatusOK {
				t.Errorf("%s %s is answered: %s", method, path, text)
			}
			assert.NotContains(t, text, h.secretOfB, "%s %s", method, path)
			assert.NotContains(t, strings.ReplaceAll(text, path, ""), h.b, "%s %s", method, path)
		}
		for _, method := range []string{"POST", "PATCH", "DELETE"} {
			code, text := who.ask(method, path, someData)
			assert.GreaterOrEqual(t, code, 400, "%s %s: %s", method, path, text)
		}
	}
	kept, err := h.s.Client.KVv2("secret").Get(t.Context(), h.of(h.b, "nexa"))
	require.NoError(t, err)
	assert.Equal(t, h.secretOfB, kept.Data["KEY"])
	assert.Equal(t, 1, kept.VersionMetadata.Version)
}

func TestATenantWhoseIDBeginsLikeAnothersSeesNothingOfIt(t *testing.T) {
	h := newHouse(t)
	who := h.tenant(h.b[:len(h.b)-1])
	who.mayNot("GET", "secret/data/"+h.of(h.b, "nexa"), nil)
	who.mayNot(list, "secret/metadata/tenant/"+h.b+"/", nil)
	who = h.tenant(strings.ToUpper(h.b))
	who.mayNot("GET", "secret/data/"+h.of(h.b, "nexa"), nil)
}

func TestATenantLearnsOfTheMountOnly(t *testing.T) {
	h := newHouse(t)
	other := name("other-")
	require.NoError(t, h.s.Client.Sys().Mount(other, &api.MountInput{Type: "kv"}))
	who := h.tenant(h.a)
	var mounts struct {
		Data struct{ Secret, Auth map[string]any }
	}
	require.NoError(t, json.Unmarshal([]byte(who.may("GET", "sys/internal/ui/mounts", nil)), &mounts))
	assert.Contains(t, mounts.Data.Secret, "secret/")
	assert.NotContains(t, mounts.Data.Secret, other+"/")
	assert.NotContains(t, mounts.Data.Auth, "approle/")
	assert.NotContains(t, mounts.Data.Auth, "userpass/")

	said := who.may("GET", "sys/internal/ui/mounts/secret/"+h.of(h.a, "nexa"), nil)
	assert.Contains(t, said, `"version":"2"`)
	assert.NotContains(t, said, h.b)
	who.mayNot("GET", "sys/internal/ui/mounts/"+other, nil)
}

func TestWithoutATenantTheTenantsPolicyOpensNothing(t *testing.T) {
	h := newHouse(t)
	for what, metadata := range map[string]map[string]any{
		"no metadata": nil, "another key": {"tenant": h.a}, "another case": {"TENANT_ID": h.a}, "only a service": {"service": "nexa"},
	} {
		for _, policy := range []string{policies.Tenant, policies.TenantService} {
			t.Run(what+", "+policy, func(t *testing.T) {
				who := h.role(policy, metadata)
				who.t = t
				for _, path := range []string{h.of(h.a, "nexa"), h.of(h.b, "nexa"), "tenant//nexa", "tenant/"} {
					who.mayNot("GET", "secret/data/"+path, nil)
					who.mayNot(list, "secret/metadata/"+path, nil)
				}
			})
		}
	}
}

func TestATenantCannotBecomeAnother(t *testing.T) {
	h := newHouse(t)
	for _, policy := range []string{policies.Tenant, policies.TenantService} {
		who := h.role(policy, map[string]any{"tenant_id": h.a, "service": "nexa"})
		metadata := map[string]any{"metadata": map[string]any{"tenant_id": h.b}}
		for _, path := range []string{"identity/entity/id/" + who.entityID, "identity/entity", "identity/entity-alias", "identity/entity/merge", "identity/group"} {
			who.mayNot("POST", path, metadata)
			who.mayNot("PATCH", path, metadata)
		}
		who.mayNot("GET", "identity/entity/id/"+who.entityID, nil)
		who.mayNot(list, "identity/entity/id", nil)
		who.mayNot("POST", "identity/lookup/entity", map[string]any{"id": who.entityID})
		h.escalatesNot(who)
		who.mayNot("GET", "secret/data/"+h.of(h.b, "nexa"), nil)
	}
}

// escalatesNot tries the ways to more rights.
func (h *house) escalatesNot(who *someone) {
	h.t.Helper()
	for _, policy := range policies.Names() {
		for _, method := range []string{"POST", "PUT", "DELETE", "PATCH"} {
			who.mayNot(method, "sys/policies/acl/"+policy, map[string]any{"policy": `path "*" { capabilities = ["sudo"] }`})
			who.mayNot(method, "sys/policy/"+policy, map[string]any{"policy": `path "*" { capabilities = ["sudo"] }`})
		}
		who.mayNot("GET", "sys/policies/acl/"+policy, nil)
	}
	who.mayNot("POST", "sys/policies/acl/"+name("new-"), map[string]any{"policy": ""})
	who.mayNot(list, "sys/policies/acl", nil)
	who.mayNot("POST", "auth/token/create", map[string]any{"policies": []string{"admin-policy"}})
	who.mayNot("POST", "auth/token/create-orphan", nil)
	who.mayNot(list, "auth/token/accessors", nil)
	who.mayNot("POST", "auth/approle/role/x", map[string]any{"token_policies": "root"})
	who.mayNot("POST", "auth/approle/role/x/secret-id", nil)
	who.mayNot(list, "auth/approle/role", nil)
	who.mayNot("POST", "auth/userpass/users/x", map[string]any{"password": "x"})
	who.mayNot("GET", "sys/mounts", nil)
	who.mayNot("GET", "sys/auth", nil)
	who.mayNot("GET", "sys/audit", nil)
	who.mayNot("POST", "sys/mounts/x", map[string]any{"type": "kv"})
	who.mayNot("PUT", "sys/seal", nil)
	who.mayNot("GET", "cubbyhole/x", nil)
}

// This is why tenantctl takes no such ids: Vault puts metadata into the path of a
// policy before it looks for patterns in it.
func TestATenantIDThatIsAPatternWouldOpenOtherTenants(t *testing.T) {
	h := newHouse(t)
	reads := func(id string) bool {
		code, text := h.tenant(id).ask("GET", "secret/data/"+h.of(h.b, "nexa"), nil)
		return code == http.StatusOK && strings.Contains(text, h.secretOfB)
	}
	assert.True(t, reads("+"), "one segment, any of them: Vault does read the tenant's id as a pattern")
	for id, opens := range map[string]bool{
		"+": true, "*": false, "": false, h.b[:4] + "*": false, h.b + "/nexa/..": false, "..": false, ".": false,
		"{{identity.entity.name}}": false, h.b + "/*": false, "x/../" + h.b: false,
		"+/+": false, "x/../+": false, h.b + "/": false, "/" + h.b: false,
	} {
		assert.Equal(t, opens, reads(id), "%q", id)
		assert.Error(t, tenant.CheckID(id), "%q", id)
	}
	assert.True(t, reads(h.b), "what is no pattern opens its own")
}

func TestAServiceIDThatIsAPatternWouldOpenOtherServices(t *testing.T) {
	h := newHouse(t)
	for id, opens := range map[string]bool{"+": true, "*": true, "s*": true, "": false, "nexa": false, "shopify": true} {
		who := h.role(policies.TenantService, map[string]any{"tenant_id": h.b, "service": id})
		code, _ := who.ask("GET", "secret/data/"+h.of(h.b, "shopify"), nil)
		assert.Equal(t, opens, code == http.StatusOK, "%q", id)
		assert.Equal(t, id == "nexa" || id == "shopify", tenant.CheckID(id) == nil, "%q", id)
	}
}

func TestAServiceOfATenantReadsItsOwnSecretOnly(t *testing.T) {
	h := newHouse(t)
	who := h.role(policies.TenantService, map[string]any{"tenant_id": h.a, "service": "nexa"})
	assert.Contains(t, who.may("GET", "secret/data/"+h.of(h.a, "nexa"), nil), h.secretOfA)
	who.may("GET", "secret/metadata/"+h.of(h.a, "nexa"), nil)
	who.may("GET", "sys/internal/ui/mounts/secret/"+h.of(h.a, "nexa"), nil)
	who.may("POST", "auth/token/renew-self", nil)
	for _, service := range []string{"shopify", "smtp", "supabase", "nexa2", "nex", "nexa/below"} {
		who.mayNot("GET", "secret/data/"+h.of(h.a, service), nil)
		who.mayNot("GET", "secret/metadata/"+h.of(h.a, service), nil)
	}
	for _, folder := range []string{"tenant/", "tenant/" + h.a + "/", "tenant/" + h.b + "/"} {
		who.mayNot(list, "secret/metadata/"+folder, nil)
	}
	who.mayNot("GET", "secret/data/"+h.of(h.b, "nexa"), nil)
	h.maysNotWrite(who, h.a)
}

func TestTheRuntimeReadsNexaOfAnyTenantAndNothingElse(t *testing.T) {
	h := newHouse(t)
	who := h.role(policies.NexaRuntime, nil)
	assert.Contains(t, who.may("GET", "secret/data/"+h.of(h.a, "nexa"), nil), h.secretOfA)
	assert.Contains(t, who.may("GET", "secret/data/"+h.of(h.b, "nexa"), nil), h.secretOfB)
	tenants := who.may(list, "secret/metadata/tenant/", nil)
	assert.Contains(t, tenants, h.a+"/")
	assert.Contains(t, tenants, h.b+"/")
	who.may("GET", "sys/internal/ui/mounts/secret/tenant", nil)
	who.may("POST", "auth/token/renew-self", nil)
	for _, id := range []string{h.a, h.b} {
		for _, service := range []string{"shopify", "smtp", "supabase", "nexa2", "nexa/below", "+", "*"} {
			who.mayNot("GET", "secret/data/"+h.of(id, service), nil)
		}
		who.mayNot(list, "secret/metadata/tenant/"+id+"/", nil)
		who.mayNot(list, "secret/metadata/tenant/"+id, nil)
		who.mayNot("GET", "secret/metadata/"+h.of(id, "nexa"), nil)
		h.maysNotWrite(who, id)
	}
	who.mayNot(list, "secret/metadata/", nil)
	who.mayNot("GET", "secret/data/tenant/nexa", nil)
	who.mayNot("GET", "secret/data/tenant/a/b/nexa", nil)
	h.escalatesNot(who)
	who.may("POST", "auth/token/revoke-self", nil)
}

func TestNobodyButTheAdminWritesPolicies(t *testing.T) {
	h := newHouse(t)
	h.escalatesNot(h.tenant(h.a))
	h.escalatesNot(h.role(policies.NexaRuntime, nil))
	h.admin().may("POST", "sys/policies/acl/"+name("new-"), map[string]any{"policy": `path "secret/x" { capabilities = ["read"] }`})
}

func TestTheAdminDoesWhatTenantctlDoes(t *testing.T) {
	h := newHouse(t)
	who := h.admin()
	id, role, user, policy := name("rut-"), name("role-"), name("user-"), name("policy-")
	path := h.of(id, "nexa")
	for _, step := range []struct {
		method, path string
		data         any
	}{
		{"GET", "sys/internal/ui/mounts/secret", nil}, {"GET", "sys/mounts", nil}, {"GET", "sys/auth", nil}, {"GET", "sys/audit", nil},
		{"POST", "sys/mounts/" + name("kv-"), map[string]any{"type": "kv"}}, {"POST", "sys/auth/" + role, map[string]any{"type": "approle"}},
		{"POST", "sys/mounts/secret/tune", map[string]any{"description": "secrets of the tenants"}},

		{"POST", "secret/data/" + path, map[string]any{"data": map[string]any{"K": "1"}, "options": map[string]any{"cas": 0}}},
		{"POST", "secret/data/" + path, map[string]any{"data": map[string]any{"K": "2"}, "options": map[string]any{"cas": 1}}},
		{"PATCH", "secret/data/" + path, map[string]any{"data": map[string]any{"L": "3"}, "options": map[string]any{"cas": 2}}},
		{"GET", "secret/data/" + path + "?version=1", nil}, {"GET", "secret/metadata/" + path, nil}, {"GET", "secret/subkeys/" + path, nil},
		{"POST", "secret/metadata/" + path, map[string]any{"max_versions": 20}},
		{"PATCH", "secret/metadata/" + path, map[string]any{"custom_metadata": map[string]any{"a": "b"}}},
		{list, "secret/metadata/tenant/", nil}, {list, "secret/metadata/tenant/" + id + "/", nil},
		{"DELETE", "secret/data/" + path, nil}, {"POST", "secret/undelete/" + path, map[string]any{"versions": []int{3}}},
		{"POST", "secret/delete/" + path, map[string]any{"versions": []int{1}}},
		{"PUT", "secret/destroy/" + path, map[string]any{"versions": []int{1}}}, {"DELETE", "secret/metadata/" + path, nil},

		{"POST", "sys/policies/acl/" + policy, map[string]any{"policy": `path "secret/x" { capabilities = ["read"] }`}},
		{"GET", "sys/policies/acl/" + policy, nil}, {list, "sys/policies/acl", nil}, {"DELETE", "sys/policies/acl/" + policy, nil},

		{"POST", "auth/approle/role/" + role, map[string]any{"token_policies": policies.Tenant}}, {list, "auth/approle/role", nil},
		{"GET", "auth/approle/role/" + role, nil}, {"GET", "auth/approle/role/" + role + "/role-id", nil},
		{"POST", "auth/approle/role/" + role + "/secret-id", nil}, {list, "auth/approle/role/" + role + "/secret-id", nil},
		{"POST", "identity/entity", map[string]any{"name": role, "metadata": map[string]any{"tenant_id": id}}},
		{"GET", "identity/entity/name/" + role, nil}, {list, "identity/entity/name", nil}, {list, "identity/entity/id", nil},
		{"DELETE", "identity/entity/name/" + role, nil}, {"DELETE", "auth/approle/role/" + role, nil},
		{"POST", "auth/userpass/users/" + user, map[string]any{"password": rand.Text(), "token_policies": policies.Admin}},
		{list, "auth/userpass/users", nil}, {"GET", "auth/userpass/users/" + user, nil}, {"DELETE", "auth/userpass/users/" + user, nil},

		{list, "auth/token/accessors", nil}, {"GET", "auth/token/lookup-self", nil}, {"POST", "auth/token/renew-self", nil},
		{"GET", "sys/health", nil}, {"GET", "sys/seal-status", nil}, {"GET", "sys/leader", nil},
		{"POST", "auth/token/revoke-self", nil},
	} {
		who.may(step.method, step.path, step.data)
	}
}

func TestTheAdminEndsTokensByTheirAccessors(t *testing.T) {
	h := newHouse(t)
	who, victim := h.admin(), h.tenant(h.a)
	var own struct{ Data struct{ Accessor string } }
	answer, err := h.s.Client.Logical().Write("auth/token/lookup", map[string]any{"token": victim.token})
	require.NoError(t, err)
	own.Data.Accessor = answer.Data["accessor"].(string)
	said := who.may("POST", "auth/token/lookup-accessor", map[string]any{"accessor": own.Data.Accessor})
	assert.Contains(t, said, victim.entityID)
	assert.NotContains(t, said, victim.token)
	who.may("POST", "auth/token/revoke-accessor", map[string]any{"accessor": own.Data.Accessor})
	victim.mayNot("GET", "secret/data/"+h.of(h.a, "nexa"), nil)
}

func TestTheAdminIsNotRoot(t *testing.T) {
	h := newHouse(t)
	who := h.admin()
	for _, step := range [][2]string{
		{"POST", "sys/seal"}, {"POST", "sys/rotate"}, {"GET", "sys/raw/core/mounts"}, {list, "sys/raw/"},
		{"POST", "auth/token/create"}, {"POST", "auth/token/create-orphan"}, {"DELETE", "sys/mounts/secret"}, {"POST", "sys/remount"},
		{"DELETE", "sys/audit/file"}, {"POST", "sys/audit/file"}, {"PUT", "sys/audit/" + name("raw-")}, {"DELETE", "sys/auth/approle"}, {"GET", "sys/config/auditing/request-headers"},
		{"POST", "sys/leases/revoke-force/auth"}, {"POST", "sys/plugins/catalog/secret/x"}, {"GET", "sys/storage/raft/snapshot"},
	} {
		who.mayNot(step[0], step[1], map[string]any{})
	}
}

// The tenant's policy has no * because of this. Where it fails, Vault has become
// stricter, and nothing is wrong.
func TestAPolicyWithAnAsteriskWouldLetDotsOut(t *testing.T) {
	h := newHouse(t)
	policy := name("asterisk-")
	h.root("sys/policies/acl/"+policy, map[string]any{
		"policy": `path "secret/metadata/tenant/{{identity.entity.metadata.tenant_id}}/*" { capabilities = ["read", "list"] }`,
	})
	who := h.role(policy, map[string]any{"tenant_id": h.a})
	assert.Contains(t, who.may(list, "secret/metadata/tenant/"+h.a+"/%2e%2e/", nil), h.b)
	who.may("GET", "secret/metadata/tenant/"+h.a+"/%2e%2e/"+h.of(h.b, "nexa")[len("tenant/"):], nil)
}
