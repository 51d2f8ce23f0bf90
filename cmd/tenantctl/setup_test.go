package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/keys"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/setup"
	"github.com/smarteros/deaddrop/compose/policies"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// site is a folder of an operator, and a new Vault.
type site struct {
	t    *testing.T
	s    *vaulttest.Server
	dir  string
	env  []string
	said strings.Builder // by all commands
}

func newSite(t *testing.T) *site {
	t.Helper()
	return newSiteOf(t, vaulttest.Uninitialised(t, ""))
}

func newSiteOf(t *testing.T, s *vaulttest.Server) *site {
	t.Helper()
	dir := t.TempDir()
	return &site{t: t, s: s, dir: dir, env: []string{"VAULT_ADDR=" + s.Address, "HOME=" + dir, "PWD=" + dir}}
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) read(name string) string {
	s.t.Helper()
	text, err := os.ReadFile(s.path(name))
	require.NoError(s.t, err)
	return string(text)
}

func (s *site) write(name, text string) string {
	s.t.Helper()
	require.NoError(s.t, os.WriteFile(s.path(name), []byte(text), 0o600))
	return s.path(name)
}

// tenantctl runs with this on standard input, and returns all that it says.
func (s *site) tenantctl(stdin string, args ...string) (string, int) {
	s.t.Helper()
	out, errs, code := runWith(s.t, stdin, s.env, args...)
	s.said.WriteString(out + errs)
	return out + errs, code
}

// must is tenantctl, which succeeds.
func (s *site) must(args ...string) string {
	s.t.Helper()
	out, code := s.tenantctl("", args...)
	require.Zero(s.t, code, out)
	return out
}

// setup are the flags that go with this Vault, where /vault/logs is not to be had.
func (s *site) setup(more ...string) []string {
	return append([]string{"setup", "--wait", "20s", "--audit-file", s.path("audit.log")}, more...)
}

// ready has run setup once, with 3 keys of which 2 unseal, and is root.
func (s *site) ready() keys.Set {
	s.t.Helper()
	s.must(s.setup("--init", "--keys-file", "keys.json", "--shares", "3", "--threshold", "2")...)
	set := s.keys("keys.json")
	s.s.Client.SetToken(set.RootToken)
	s.env = append(s.env, "VAULT_TOKEN="+set.RootToken)
	return set
}

func (s *site) keys(name string) keys.Set {
	s.t.Helper()
	var set keys.Set
	require.NoError(s.t, json.Unmarshal([]byte(s.read(name)), &set))
	return set
}

// silent makes sure that none of these was said, and that there are some.
func (s *site) silent(secrets ...string) {
	s.t.Helper()
	require.NotEmpty(s.t, secrets)
	for _, secret := range secrets {
		require.NotEmpty(s.t, strings.TrimSpace(secret))
		assert.NotContains(s.t, s.said.String(), strings.TrimSpace(secret))
	}
}

// closed makes sure that nobody else can read what is in the folder.
func (s *site) closed() {
	s.t.Helper()
	require.NoError(s.t, filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		info, statErr := d.Info()
		if path != s.dir {
			assert.Zero(s.t, info.Mode().Perm()&0o077, path)
		}
		assert.False(s.t, strings.Contains(d.Name(), ".new") || strings.HasSuffix(d.Name(), ".tmp"), path)
		return firstOf(err, statErr)
	}))
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// get reads a path of Vault; nil where nothing is.
func (s *site) get(path string) map[string]any {
	s.t.Helper()
	answer, err := s.s.Client.Logical().Read(path)
	require.NoError(s.t, err, path)
	if answer == nil {
		return nil
	}
	return answer.Data
}

func (s *site) list(path string) any {
	s.t.Helper()
	answer, err := s.s.Client.Logical().List(path)
	var said *api.ResponseError
	switch {
	case errors.As(err, &said): // Of a role that is not there.
		return said.Errors
	case answer == nil:
		require.NoError(s.t, err, path)
		return nil
	}
	return answer.Data["keys"]
}

func (s *site) put(path string, data map[string]any) {
	s.t.Helper()
	_, err := s.s.Client.Logical().Write(path, data)
	require.NoError(s.t, err, path)
}

func (s *site) remove(path string) {
	s.t.Helper()
	_, err := s.s.Client.Logical().Delete(path)
	require.NoError(s.t, err, path)
}

// state is all that setup could change: in Vault, and in the folder.
func (s *site) state() map[string]any {
	s.t.Helper()
	all := map[string]any{}
	for _, name := range policies.Names() {
		all[name] = s.get("sys/policies/acl/" + name)
	}
	for _, path := range []string{
		"sys/mounts", "sys/auth", "sys/audit", "auth/approle/role/nexa-runtime", "auth/approle/role/nexa-runtime/role-id", "auth/userpass/users/admin",
	} {
		all[path] = s.get(path)
	}
	for _, path := range []string{
		"sys/policies/acl", "auth/approle/role/nexa-runtime/secret-id", "auth/userpass/users", "secret/metadata/tenant", "secret/metadata/tenant/demo",
	} {
		all["list "+path] = s.list(path)
	}
	for _, service := range []string{"nexa", "shopify", "smtp", "supabase"} {
		all[service] = s.get("secret/metadata/tenant/demo/" + service)
	}
	require.NoError(s.t, filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "audit.log" {
			return err
		}
		info, err := d.Info()
		all["time of "+path], all["mode of "+path], all["content of "+path] = info.ModTime(), info.Mode(), s.read(strings.TrimPrefix(path, s.dir+"/"))
		return err
	}))
	return all
}

// login logs in as the runtime, with what is in the credentials folder.
func (s *site) login() *api.Secret {
	s.t.Helper()
	answer, err := s.s.Client.Logical().Write("auth/approle/login", map[string]any{
		"role_id":   strings.TrimSpace(s.read("credentials/nexa-runtime.role_id")),
		"secret_id": strings.TrimSpace(s.read("credentials/nexa-runtime.secret_id")),
	})
	require.NoError(s.t, err)
	return answer
}

func (s *site) as(token string) *api.Client {
	s.t.Helper()
	client, err := s.s.Client.Clone()
	require.NoError(s.t, err)
	client.SetToken(token)
	client.SetMaxRetries(0)
	return client
}

func TestSetupMakesANewVaultReady(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.must(s.setup("--init", "--keys-file", "keys.json")...)
	set := s.keys("keys.json")
	assert.Len(t, set.Keys, 5)
	assert.Equal(t, 3, set.Threshold)
	status, err := s.s.Client.Sys().SealStatus()
	require.NoError(t, err)
	assert.False(t, status.Sealed)
	assert.Equal(t, 3, status.T)
	assert.Equal(t, 5, status.N)
	s.s.Client.SetToken(set.RootToken)

	runtime := s.login()
	assert.Equal(t, 3600, runtime.Auth.LeaseDuration)
	assert.Equal(t, []string{policies.NexaRuntime}, runtime.Auth.TokenPolicies, "no default policy")
	assert.EqualValues(t, "86400", s.get("auth/approle/role/nexa-runtime")["token_max_ttl"].(json.Number))
	client := s.as(runtime.Auth.ClientToken)
	secret, err := client.KVv2("secret").Get(t.Context(), "tenant/demo/nexa")
	require.NoError(t, err)
	assert.Equal(t, "replace-me", secret.Data["api_key"])
	_, err = client.KVv2("secret").Get(t.Context(), "tenant/demo/shopify")
	assert.ErrorContains(t, err, "permission denied")

	s.must("login", "--password-file", "credentials/admin.password")
	admin := s.as(s.read(".vault-token"))
	require.NoError(t, admin.Sys().PutPolicy("made-by-admin", `path "secret/x" { capabilities = ["read"] }`))
	_, err = admin.KVv2("secret").Put(t.Context(), "tenant/new/nexa", map[string]any{"a": "b"})
	require.NoError(t, err)
	for _, password := range []string{"changeme123", "admin", "password", ""} {
		_, err := s.s.Client.Logical().Write("auth/userpass/login/admin", map[string]any{"password": password})
		assert.Error(t, err, password)
	}

	secrets := append(slices.Clone(set.Keys), set.RootToken, s.read("credentials/admin.password"),
		s.read("credentials/nexa-runtime.secret_id"), s.read(".vault-token"))
	s.silent(secrets...)
	s.closed()
	audit := s.read("audit.log")
	for _, secret := range secrets {
		assert.NotContains(t, audit, strings.TrimSpace(secret))
	}
}

func TestWhatASecondRunChangesIsNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.ready()
	before := s.state()
	out := s.must(s.setup("--init", "--keys-file", "keys.json")...)
	assert.Contains(t, out, "Nothing to change.")
	for line := range strings.Lines(strings.SplitN(out, "\n\n", 2)[0]) {
		assert.True(t, strings.HasPrefix(line, "ok "), line)
	}
	assert.Equal(t, before, s.state())
	out = s.must(s.setup("--check")...)
	assert.Contains(t, out, "Nothing to change.")
	assert.Equal(t, before, s.state())
}

// written are the requests of an audit log, from an offset on, that write.
func (s *site) written(offset int) (all []string) {
	s.t.Helper()
	for line := range strings.Lines(s.read("audit.log")[offset:]) {
		var entry struct {
			Type    string
			Request struct{ Operation, Path string }
		}
		require.NoError(s.t, json.Unmarshal([]byte(line), &entry))
		op := entry.Request.Operation
		if entry.Type == "request" && op != "read" && op != "list" {
			all = append(all, op+" "+entry.Request.Path)
		}
	}
	return all
}

func TestCheckFindsWhatHasDriftedAndWritesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.ready()
	for _, drift := range []struct {
		name string
		make func()
		say  []string
	}{
		{"policy edited", func() {
			s.put("sys/policies/acl/"+policies.NexaRuntime, map[string]any{"policy": policies.Read(policies.NexaRuntime) + "\npath \"secret/*\" { capabilities = [\"read\"] }\n"})
		}, []string{"change  policy nexa-runtime-policy", `- path "secret/*" { capabilities = ["read"] }`}},
		{"policy deleted", func() { s.remove("sys/policies/acl/" + policies.Tenant) }, []string{"create  policy tenant-policy"}},
		{"role changed", func() {
			s.put("auth/approle/role/nexa-runtime", map[string]any{"token_ttl": "30m", "token_no_default_policy": false, "token_period": "2h"})
		}, []string{"change  role nexa-runtime", "token_ttl: 30m → 1h", "token_no_default_policy: false → true", "token_period: 2h → 0s"}},
		{"role may more", func() {
			s.put("auth/approle/role/nexa-runtime", map[string]any{"token_policies": []string{policies.Admin, policies.NexaRuntime}})
		}, []string{"token_policies: [admin-policy, nexa-runtime-policy] → [nexa-runtime-policy]"}},
		{"role deleted", func() { s.remove("auth/approle/role/nexa-runtime") }, []string{"create  role nexa-runtime", "  role id in credentials", "change  secret id in credentials"}},
		{"AppRole disabled", func() { s.remove("sys/auth/approle") }, []string{"create  login by approle", "create  role nexa-runtime"}},
		{"user may more", func() {
			s.put("auth/userpass/users/admin/policies", map[string]any{"token_policies": "root-like,admin-policy"})
		}, []string{"change  user admin", "token_policies: [admin-policy, root-like] → [admin-policy]"}},
		{"user deleted", func() { s.remove("auth/userpass/users/admin") }, []string{"create  user admin"}},
		{"audit disabled", func() { require.NoError(t, s.s.Client.Sys().DisableAudit("file")) }, []string{"create  audit to"}},
		{"secret id revoked", func() {
			s.put("auth/approle/role/nexa-runtime/secret-id/destroy", map[string]any{"secret_id": strings.TrimSpace(s.read("credentials/nexa-runtime.secret_id"))})
		}, []string{"change  secret id in credentials/nexa-runtime.secret_id: Vault does not know"}},
		{"role id of another", func() { s.write("credentials/nexa-runtime.role_id", "other\n") }, []string{"change  role id in credentials/nexa-runtime.role_id: it holds"}},
		{"file deleted", func() { require.NoError(t, os.Remove(s.path("credentials/nexa-runtime.secret_id"))) }, []string{"create  secret id"}},
		{"files opened", func() {
			for _, name := range []string{"nexa-runtime.secret_id", "admin.password"} {
				require.NoError(t, os.Chmod(s.path("credentials/"+name), 0o644))
			}
		}, []string{"change  secret id", "change  user admin", "mode of credentials/nexa-runtime.secret_id: 0644 → 0600", "mode of credentials/admin.password: 0644 → 0600"}},
		{"example gone", func() { s.remove("secret/metadata/tenant/demo/smtp") }, []string{"create  example secret/tenant/demo/smtp"}},
		{"engine disabled", func() { require.NoError(t, s.s.Client.Sys().Unmount("secret")) }, []string{"create  KV version 2 at secret/", "create  example secret/tenant/demo/nexa"}},
	} {
		drift.make()
		before, offset := s.state(), len(s.read("audit.log"))
		out, code := s.tenantctl("", s.setup("--check")...)
		assert.Equal(t, exitFailed, code, drift.name)
		for _, say := range drift.say {
			assert.Contains(t, out, say, drift.name)
		}
		for _, op := range s.written(offset) { // Nothing, where there is no audit.
			assert.Equal(t, "update auth/approle/role/nexa-runtime/secret-id/lookup", op, drift.name)
		}
		assert.Equal(t, before, s.state(), drift.name)

		s.must(s.setup()...)
		s.login()
		s.closed()
	}
	assert.Contains(t, s.must(s.setup("--check")...), "Nothing to change.")
	s.must("login", "--password-file", "credentials/admin.password")
	s.silent(s.read("credentials/admin.password"), s.read("credentials/nexa-runtime.secret_id"))
}

func TestACheckOfANewVaultMakesNoFile(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	out, code := s.tenantctl("", s.setup("--check", "--init", "--keys-file", "keys.json")...)
	assert.Equal(t, exitFailed, code)
	assert.Contains(t, out, "create  Vault is initialised")
	assert.Contains(t, out, "create  policy admin-policy")
	entries, err := os.ReadDir(s.dir)
	require.NoError(t, err)
	assert.Empty(t, entries)
	initialised, err := s.s.Client.Sys().InitStatus()
	require.NoError(t, err)
	assert.False(t, initialised)
}

func TestDriftIsAnAnswerForScriptsToo(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.ready()
	s.put("auth/approle/role/nexa-runtime", map[string]any{"token_ttl": "5m"})
	out, errs, code := run(t, s.env, s.setup("--check", "-o", "json")...)
	assert.Equal(t, exitFailed, code)
	assert.Empty(t, errs)
	var answer setupResult
	require.NoError(t, json.Unmarshal([]byte(out), &answer), out)
	assert.Equal(t, 1, answer.Changed)
	assert.Zero(t, answer.Created)
	at := slices.IndexFunc(answer.Steps, func(s setup.Step) bool { return s.Drifts() })
	assert.Equal(t, []setup.Difference{{Name: "token_ttl", Old: "5m", New: "1h"}}, answer.Steps[at].Differences)
	out, _, code = run(t, s.env, s.setup("--check", "-o", "yaml")...)
	assert.Equal(t, exitFailed, code)
	assert.Contains(t, out, "status: \"change\"\n    differences:\n      - name: \"token_ttl\"\n        old: \"5m\"\n        new: \"1h\"\n")
}

func TestSettingsBeyondThePlatformsStay(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.ready()
	s.put("auth/approle/role/nexa-runtime", map[string]any{"secret_id_bound_cidrs": "127.0.0.1/32", "token_ttl": "5m"})
	s.put("sys/policies/acl/other", map[string]any{"policy": `path "a" { capabilities = ["read"] }`})
	s.put("secret/data/tenant/demo/nexa", map[string]any{"data": map[string]any{"api_key": "real"}})
	s.must(s.setup()...)
	assert.Equal(t, []any{"127.0.0.1/32"}, s.get("auth/approle/role/nexa-runtime")["secret_id_bound_cidrs"])
	assert.NotNil(t, s.get("sys/policies/acl/other"))
	assert.Equal(t, map[string]any{"api_key": "real"}, s.get("secret/data/tenant/demo/nexa")["data"])
}

func TestASealedVaultIsUnsealedByAnotherRun(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	set := s.ready()
	other := newSite(t)
	wrong := other.ready()
	reseal := func() { require.NoError(t, s.s.Client.Sys().Seal()) }
	sealed := func(want bool) {
		status, err := s.s.Client.Sys().SealStatus()
		require.NoError(t, err)
		assert.Equal(t, want, status.Sealed)
		assert.Zero(t, status.Progress, "no key is left behind")
	}

	reseal()
	for name, tc := range map[string]struct {
		stdin string
		flags []string
		say   string
	}{
		"no keys":        {"", nil, "is sealed: give --unseal"},
		"check":          {"", []string{"--check"}, "is sealed"},
		"wrong keys":     {"", []string{"--unseal", "--keys-file", other.path("keys.json")}, "these keys do not unseal"},
		"no such file":   {"", []string{"--unseal", "--keys-file", "none.json"}, "none.json: no such file"},
		"too few":        {set.Keys[0] + "\n", []string{"--unseal", "--keys-file", "-"}, "it takes 2 keys to unseal it, and there is 1"},
		"one key twice":  {set.Keys[0] + "\n" + set.Keys[0] + "\n", []string{"--unseal", "--keys-file", "-"}, "some of them the same"},
		"no keys in it":  {"hello\n", []string{"--unseal", "--keys-file", "-"}, "there is no key in it"},
		"something else": {"", []string{"--unseal", "--keys-file", s.write("x.json", `{"a":1}`)}, "neither a key nor a root token"},
	} {
		out, code := s.tenantctl(tc.stdin, s.setup(tc.flags...)...)
		assert.Equal(t, exitUnreachable, code, "%s: %s", name, out)
		assert.Contains(t, out, tc.say, name)
		if name == "one key twice" { // It stays until the next try.
			_, err := s.s.Client.Sys().ResetUnsealProcess()
			require.NoError(t, err)
		}
		sealed(true)
	}

	out := s.must(s.setup("--unseal", "--keys-file", "keys.json")...)
	assert.Contains(t, out, "change  Vault is unsealed")
	sealed(false)
	reseal()
	s.must(s.setup("--init", "--keys-file", "keys.json")...)
	sealed(false)
	reseal()
	out, code := s.tenantctl(set.Keys[2]+"\n"+set.Keys[0]+"\n", s.setup("--unseal", "--keys-file", "-")...)
	require.Zero(t, code, out)
	sealed(false)
	reseal()
	printed := s.write("printed.txt", "Unseal Key 1: "+set.Keys[0]+"\nUnseal Key 2: "+set.Keys[1]+"\n\nInitial Root Token: "+set.RootToken+"\n\nVault initialized with 3 key shares\n")
	s.must(s.setup("--unseal", "--keys-file", printed)...)
	sealed(false)
	s.silent(append(set.Keys, append(wrong.Keys, set.RootToken)...)...)
}

func TestTheRootTokenOfTheKeysFileIsUsedWhereThereIsNoOther(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.ready()
	s.env = s.env[:3]
	out, code := s.tenantctl("", s.setup("--check")...)
	assert.Equal(t, exitDenied, code)
	assert.Contains(t, out, "there is no token")
	s.must(s.setup("--check", "--keys-file", "keys.json")...)
	s.write(".vault-token", "hvs.of-another-vault")
	s.must(s.setup("--check", "--keys-file", "keys.json")...)
	out, code = s.tenantctl("", s.setup("--check")...)
	assert.Equal(t, exitDenied, code, out)
}

func TestWithoutRightsSetupSaysSo(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.ready()
	before := s.state()
	token, err := s.s.Client.Auth().Token().Create(&api.TokenCreateRequest{Policies: []string{"default"}})
	require.NoError(t, err)
	s.env = append(s.env, "VAULT_TOKEN="+token.Auth.ClientToken)
	out, code := s.tenantctl("", s.setup()...)
	assert.Equal(t, exitDenied, code)
	assert.Contains(t, out, "reading sys/audit: permission denied")
	assert.Equal(t, before, s.state())
}

func TestTheAdminMayRunSetup(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.ready()
	s.env = s.env[:3]
	s.must("login", "--password-file", "credentials/admin.password")
	assert.Contains(t, s.must(s.setup("--check")...), "Nothing to change.")
	s.put("auth/approle/role/nexa-runtime", map[string]any{"token_ttl": "5m"})
	s.remove("sys/policies/acl/" + policies.Tenant)
	s.must(s.setup()...)
	s.must(s.setup("--check")...)
	require.NoError(t, s.s.Client.Sys().DisableAudit("file"))
	out, code := s.tenantctl("", s.setup()...)
	assert.Equal(t, exitDenied, code)
	assert.Contains(t, out, `that takes a root token, which "tenantctl rotate-root" makes`)
	s.must("setup", "--no-audit")
}

func TestSomethingElseAtSecretIsLeftAlone(t *testing.T) {
	t.Parallel()
	for name, mount := range map[string]*api.MountInput{
		"KV version 1":           {Type: "kv", Options: map[string]string{"version": "1"}},
		"an engine of the type ": {Type: "transit"},
	} {
		s := newSite(t)
		s.must(s.setup("--init", "--keys-file", "keys.json", "--no-demo", "--no-credentials", "--admin-password-file", s.write("password", "correct horse battery"))...)
		s.s.Client.SetToken(s.keys("keys.json").RootToken)
		require.NoError(t, s.s.Client.Sys().Unmount("secret"))
		require.NoError(t, s.s.Client.Sys().Mount("secret", mount))
		for _, flag := range []string{"--check", "--no-demo"} {
			out, code := s.tenantctl("", s.setup("--keys-file", "keys.json", "--no-credentials", flag)...)
			assert.Equal(t, exitFailed, code)
			assert.Contains(t, out, name)
			assert.Contains(t, out, "failed  KV version 2 at secret/")
		}
		mounts, err := s.s.Client.Sys().ListMounts()
		require.NoError(t, err)
		assert.Equal(t, mount.Type, mounts["secret/"].Type)
	}
}

func TestKeysAreNeverOverwritten(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.write("keys.json", "precious")
	out, code := s.tenantctl("", s.setup("--init", "--keys-file", "keys.json")...)
	assert.Equal(t, exitFailed, code)
	assert.Contains(t, out, "is there already")
	assert.Equal(t, "precious", s.read("keys.json"))
	require.NoError(t, os.Symlink("elsewhere", s.path("link")))
	for _, path := range []string{"no/such/folder/keys.json", "link"} {
		out, code = s.tenantctl("", s.setup("--init", "--keys-file", path)...)
		assert.Equal(t, exitFailed, code, out)
	}
	initialised, err := s.s.Client.Sys().InitStatus()
	require.NoError(t, err)
	assert.False(t, initialised, "there is no place for the keys, so none are made")
}

// A proxy that refuses the initialisation is the only fake: Vault itself has no reason
// to.
func TestAnInitialisationThatFailsLeavesNoFile(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.env = append(s.env, "VAULT_ADDR="+refusing(t, s.s.Address, "PUT /v1/sys/init", http.StatusBadRequest, "no luck"))
	out, code := s.tenantctl("", s.setup("--init", "--keys-file", "keys.json")...)
	assert.Equal(t, exitFailed, code)
	assert.Contains(t, out, "initialising Vault")
	assert.Contains(t, out, "no luck")
	assert.NoFileExists(t, s.path("keys.json"))
}

// refusing is a proxy in front of Vault that answers one request itself.
func refusing(t *testing.T, address, request string, code int, message string) string {
	t.Helper()
	target, err := url.Parse(address)
	require.NoError(t, err)
	proxy := httputil.NewSingleHostReverseProxy(target)
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method+" "+r.URL.Path != request {
			proxy.ServeHTTP(w, r)
			return
		}
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(map[string]any{"errors": []string{message}})
	})
}

func serve(t *testing.T, handle http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	return server.URL
}

// OpenBao's answer is that of its version 2.6; the proxy gives it.
func TestOpenBaosRefusalOfAuditDevicesIsANote(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.env = append(s.env, "VAULT_ADDR="+refusing(t, s.s.Address, "PUT /v1/sys/audit/file", http.StatusBadRequest,
		"cannot enable audit device via API; use declarative, config-based audit device management instead"))
	out := s.must(s.setup("--init", "--keys-file", "keys.json")...)
	assert.Contains(t, out, "note    audit to "+s.path("audit.log"))
	assert.Contains(t, out, `audit "file" "file" { options { file_path = "`+s.path("audit.log")+`" } }`)
	assert.FileExists(t, s.path("credentials/nexa-runtime.secret_id"), "it went on")
	out, code := s.tenantctl("", s.setup("--check", "--keys-file", "keys.json")...)
	assert.Equal(t, exitFailed, code, "there is no audit, and a check says so: %s", out)
}

func TestARunThatWasStoppedIsTakenUp(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.write("file", "")
	out, code := s.tenantctl("", "setup", "--init", "--keys-file", "keys.json", "--audit-file", s.path("file/audit.log"))
	assert.Equal(t, exitFailed, code)
	assert.Contains(t, out, "enabling the audit device file")
	assert.Contains(t, out, "--no-audit")
	assert.NoFileExists(t, s.path("credentials/admin.password"))
	env := s.env
	s.env = append(s.env, "VAULT_ADDR="+refusing(t, s.s.Address, "PUT /v1/secret/data/tenant/demo/smtp", http.StatusBadRequest, "no luck"))
	out, code = s.tenantctl("", s.setup("--init", "--keys-file", "keys.json")...)
	assert.Equal(t, exitFailed, code)
	assert.Contains(t, out, "no luck")
	assert.NoFileExists(t, s.path("credentials/nexa-runtime.role_id"))
	s.env = env
	password := s.read("credentials/admin.password")
	out = s.must(s.setup("--init", "--keys-file", "keys.json")...)
	assert.Contains(t, out, "ok      user admin")
	assert.Equal(t, password, s.read("credentials/admin.password"))
	s.must("login", "--password-file", "credentials/admin.password")
}

func TestSetupWaitsForVault(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.s.Stop()
	cmd := command(t, s.env, s.setup("--init", "--keys-file", "keys.json", "--wait", "5m")...)
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(stderr).ReadString('\n')
	require.NoError(t, err)
	assert.Contains(t, line, "waiting for Vault: ")
	s.s.Restart(t)
	require.NoError(t, cmd.Wait())
	s.s.Stop()
	out, code := s.tenantctl("", s.setup("--wait", "0")...)
	assert.Equal(t, exitUnreachable, code)
	assert.Contains(t, out, "is Vault running at "+s.s.Address)
	out, code = s.tenantctl("", s.setup("--wait", "300ms")...)
	assert.Equal(t, exitUnreachable, code)
	assert.Contains(t, out, "connection refused", "and not that time is up: that is what helps")
}

func TestAPasswordIsSetOnceUnlessToldOtherwise(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	first, second := vaulttest.Marker(), vaulttest.Marker()
	s.must(s.setup("--init", "--keys-file", "keys.json", "--admin", "anna", "--admin-password-file", s.write("one", first+"\n"))...)
	assert.NoFileExists(t, s.path("credentials/anna.password"))
	login := func(file string) int {
		_, code := s.tenantctl("", "login", "--user", "anna", "--password-file", file)
		return code
	}
	s.write("two", second+"\n")
	again := func(flags ...string) string {
		return s.must(s.setup(append(flags, "--keys-file", "keys.json", "--admin", "anna")...)...)
	}
	assert.Contains(t, again("--admin-password-file", "two"), "Nothing to change.")
	assert.Zero(t, login("one"))
	assert.Contains(t, again("--admin-password-file", "two", "--reset-admin-password"), "change  user anna")
	assert.Equal(t, exitDenied, login("one"))
	assert.Zero(t, login("two"))
	again("--reset-admin-password")
	assert.Equal(t, exitDenied, login("two"))
	assert.Zero(t, login("credentials/anna.password"))
	old := s.write("old", s.read("credentials/anna.password"))
	again("--reset-admin-password")
	assert.Equal(t, exitDenied, login(old))
	assert.Zero(t, login("credentials/anna.password"))
	s.silent(first, second, s.read("old"), s.read("credentials/anna.password"))
	s.closed()
}

func TestKeysEncryptedWithAgeUnsealAndAreNowhereElse(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	id, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	second, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	stranger, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	s.write("id", id.String()+"\n")
	s.write("second", second.String()+"\n")
	s.write("stranger", stranger.String()+"\n")
	s.write("recipients", "# the team\n"+second.Recipient().String()+"\n")
	s.must(s.setup("--init", "--keys-file", "keys.age", "--age-recipient", id.Recipient().String(), "--age-recipient", "recipients")...)
	text := s.read("keys.age")
	assert.True(t, strings.HasPrefix(text, "age-encryption.org/v1\n"))
	for _, name := range []string{"id", "second"} {
		file, err := keys.Open(s.path("keys.age"), []string{s.path(name)})
		require.NoError(t, err)
		assert.Len(t, file.Keys, 5)
		s.s.Client.SetToken(file.RootToken)
		s.silent(append(file.Keys, file.RootToken)...)
	}
	require.NoError(t, s.s.Client.Sys().Seal())
	for _, tc := range []struct {
		flags []string
		say   string
	}{
		{nil, "give --age-identity"},
		{[]string{"--age-identity", "stranger"}, "encrypted to others"},
		{[]string{"--age-identity", "none"}, "no such file"},
	} {
		out, code := s.tenantctl("", s.setup(append(tc.flags, "--unseal", "--keys-file", "keys.age")...)...)
		assert.Equal(t, exitUnreachable, code, out)
		assert.Contains(t, out, tc.say)
	}
	out := s.must(s.setup("--unseal", "--keys-file", "keys.age", "--age-identity", "second")...)
	assert.Contains(t, out, "1 changed")
	s.silent(id.String(), second.String(), stranger.String())
}

func TestABadCommandLineOfSetupContactsNobody(t *testing.T) {
	t.Parallel()
	contacted := make(chan string, 100)
	address := serve(t, func(_ http.ResponseWriter, r *http.Request) { contacted <- r.URL.Path })
	s := newSiteOf(t, &vaulttest.Server{Address: address})
	for name, text := range map[string]string{
		"short": "changeme123\n", "same": "aaaaaaaaaaaaaaaa\n", "empty": "\n", "two": "correct horse battery\nstaple\n", "default": "ChangeMe123456\n",
		"secret.age": "AGE-SECRET-KEY-1\n", "junk": "junk\n",
	} {
		s.write(name, text)
	}
	for args, say := range map[string]string{
		"--init":                                          "--init needs a file for the keys",
		"--init --keys-file -":                            "--init needs a file for the keys",
		"--init --keys-file k --threshold 6":              "--threshold: a number from 2 to 5",
		"--init --keys-file k --threshold 1":              "--threshold: a number from 2 to 5",
		"--init --keys-file k --shares 0":                 "--shares: a number from 1 to 255",
		"--init --keys-file k --shares 256 --threshold 2": "--shares: a number from 1 to 255",
		"--init --keys-file k --pgp-key junk":             "there is 1 of them for 5 shares",
		"--init --keys-file k --age-recipient junk":       "--age-recipient: junk, line 1",
		"--init --keys-file k --age-recipient age1x":      "--age-recipient: this is not a recipient",
		"--init --keys-file k --age-recipient secret.age": "this is a secret key",
		"--init --keys-file k --root-token-pgp-key junk":  "junk: this is no public key of PGP",
		"--age-recipient age1x":                           "it goes with --init",
		"--print-keys":                                    "it goes with --init",
		"--unseal":                                        "--keys-file",
		"--age-identity x":                                "--age-identity is for a --keys-file",
		"--admin ../root":                                 "a user's name has letters",
		"--admin a/b":                                     "a user's name has letters",
		"--admin-password-file none":                      "no such file",
		"--admin-password-file short":                     "has 11 characters; 12 are the least",
		"--admin-password-file same":                      "only 1 different character",
		"--admin-password-file default":                   "tried first",
		"--admin-password-file empty":                     "the first line of empty is empty",
		"--admin-password-file two":                       "more than one line",
		"--audit-file logs/audit.log":                     "give an absolute path",
		"--audit-file /a --no-audit":                      "none of the others can be",
		"--credentials-dir=":                              "--credentials-dir is empty",
		"--check --reset-admin-password":                  "none of the others can be",
		"--keys-file - --admin-password-file - --unseal":  "cannot both be standard input",
		"superfluous":                                     "unknown command",
	} {
		out, code := s.tenantctl("", append([]string{"setup"}, strings.Fields(args)...)...)
		assert.Equal(t, exitUsage, code, "%s: %s", args, out)
		assert.Contains(t, out, say, args)
	}
	assert.Empty(t, contacted)
	s.silent("changeme123", "aaaaaaaaaaaaaaaa", "ChangeMe123456", "staple")
}

func TestKeysArePrintedOnlyWhenAskedFor(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	out, errs, code := run(t, s.env, s.setup("--init", "--keys-file", "keys.json", "--print-keys", "-o", "json")...)
	require.Zero(t, code, errs)
	var answer setupResult
	require.NoError(t, json.Unmarshal([]byte(out), &answer))
	assert.Equal(t, s.keys("keys.json"), *answer.Keys)
	s = newSite(t)
	out, errs, code = run(t, s.env, s.setup("--init", "--keys-file", "keys.json", "--print-keys")...)
	require.Zero(t, code, errs)
	assert.Contains(t, out, "\nUnseal Key 5: "+s.keys("keys.json").Keys[4]+"\nInitial Root Token: "+s.keys("keys.json").RootToken+"\n")
}
