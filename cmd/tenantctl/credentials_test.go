package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/credentials"
	"github.com/smarteros/deaddrop/compose/policies"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// newIssuer is an operator of a Vault that has the platform's policies and AppRole,
// whose tenant has a marker in each service.
func newIssuer(t *testing.T) (o *operator, marker string) {
	t.Helper()
	o, marker = newOperator(t), vaulttest.Marker()
	_, _, err := o.s.AppRole("enables-approle", "# nothing") // Whoever comes first does.
	require.NoError(t, err)
	for _, name := range policies.Names() {
		require.NoError(t, o.s.Client.Sys().PutPolicy(name, policies.Read(name)))
	}
	for _, service := range []string{"nexa", "shopify"} {
		o.does("tenant", "add", o.id, service, "KEY="+marker)
	}
	return o, marker
}

// issued is the answer of "credentials issue".
func (o *operator) issued(args ...string) credentials.Issued {
	o.t.Helper()
	var answer credentials.Issued
	o.json(&answer, append([]string{"credentials", "issue", o.id}, args...)...)
	return answer
}

// hasNoSecretID makes sure that no login of the tenant has a secret id.
func (o *operator) hasNoSecretID() {
	o.t.Helper()
	var found []credentials.Role
	o.json(&found, "credentials", "list", o.id)
	for _, role := range found {
		assert.Empty(o.t, role.SecretIDs)
	}
}

// login logs in to Vault as a service does.
func (o *operator) login(roleID, secretID string) (*api.Client, error) {
	o.t.Helper()
	client, err := o.s.Client.Clone()
	require.NoError(o.t, err)
	answer, err := client.Logical().Write("auth/approle/login", map[string]any{"role_id": roleID, "secret_id": secretID})
	if err != nil {
		return nil, err
	}
	client.SetToken(answer.Auth.ClientToken)
	return client, nil
}

func (o *operator) mustLogin(roleID, secretID string) *api.Client {
	o.t.Helper()
	client, err := o.login(roleID, secretID)
	require.NoError(o.t, err)
	return client
}

// canRead tells whether a login reads a service of a tenant.
func canRead(t *testing.T, client *api.Client, id, service string) bool {
	t.Helper()
	answer, err := client.Logical().Read("secret/data/tenant/" + id + "/" + service)
	if err != nil {
		require.ErrorContains(t, err, "permission denied")
		return false
	}
	return answer != nil
}

func TestAnIssuedLoginReadsItsServiceOnly(t *testing.T) {
	t.Parallel()
	o, _ := newIssuer(t)
	other, _ := newIssuer(t)
	i := o.issued("--service", "nexa", "--no-wrap")
	assert.Equal(t, []string{"entity", "role", "alias"}, i.Changed)
	client := o.mustLogin(i.RoleID, i.SecretID)
	assert.True(t, canRead(t, client, o.id, "nexa"))
	assert.False(t, canRead(t, client, o.id, "shopify"))
	assert.False(t, canRead(t, client, other.id, "nexa"))

	all := o.issued("--no-wrap")
	client = o.mustLogin(all.RoleID, all.SecretID)
	assert.True(t, canRead(t, client, o.id, "nexa"))
	assert.True(t, canRead(t, client, o.id, "shopify"))
	assert.False(t, canRead(t, client, other.id, "nexa"))

	role, err := o.s.Client.Logical().Read("auth/approle/role/" + i.Role)
	require.NoError(t, err)
	assert.Equal(t, []any{policies.TenantService}, role.Data["token_policies"])
	for key, value := range map[string]string{"token_ttl": "3600", "token_max_ttl": "86400", "token_no_default_policy": "true"} {
		assert.Equal(t, value, fmt.Sprint(role.Data[key]), key)
	}
}

func TestASecondIssueChangesNothingButTheSecretID(t *testing.T) {
	t.Parallel()
	o, _ := newIssuer(t)
	first := o.issued("--service", "nexa", "--no-wrap", "--token-ttl", "30m")
	_, err := o.s.Client.Logical().Write("identity/entity/name/"+first.Role, map[string]any{
		"metadata": map[string]string{"tenant_id": o.id, "service": "nexa", "owner": "somebody"}})
	require.NoError(t, err)
	second := o.issued("--service", "nexa", "--no-wrap")
	assert.Empty(t, second.Changed)
	assert.Equal(t, first.RoleID, second.RoleID)
	assert.NotEqual(t, first.SecretID, second.SecretID)
	o.mustLogin(first.RoleID, first.SecretID)
	o.mustLogin(second.RoleID, second.SecretID)
	entity, err := o.s.Client.Logical().Read("identity/entity/name/" + first.Role)
	require.NoError(t, err)
	assert.Equal(t, "somebody", entity.Data["metadata"].(map[string]any)["owner"])
	role, err := o.s.Client.Logical().Read("auth/approle/role/" + first.Role)
	require.NoError(t, err)
	assert.Equal(t, "1800", fmt.Sprint(role.Data["token_ttl"]))

	_, err = o.s.Client.Logical().Write("auth/approle/role/"+first.Role, map[string]any{"token_policies": "root"})
	require.NoError(t, err)
	assert.Equal(t, []string{"role"}, o.issued("--service", "nexa").Changed, "the role gets its policy back")
}

func TestIssuingMendsWhatIsLeftOfALogin(t *testing.T) {
	t.Parallel()
	o, _ := newIssuer(t)
	first := o.issued("--service", "nexa", "--no-wrap")
	logical := o.s.Client.Logical()

	_, err := logical.Delete("auth/approle/role/" + first.Role) // Its alias stays.
	require.NoError(t, err)
	second := o.issued("--service", "nexa", "--no-wrap")
	assert.Equal(t, []string{"role", "alias"}, second.Changed)
	assert.True(t, canRead(t, o.mustLogin(second.RoleID, second.SecretID), o.id, "nexa"))

	_, err = logical.Delete("identity/entity/name/" + first.Role)
	require.NoError(t, err)
	assert.False(t, canRead(t, o.mustLogin(second.RoleID, second.SecretID), o.id, "nexa"), "the login makes an entity without metadata")
	third := o.issued("--service", "nexa", "--no-wrap")
	assert.Equal(t, []string{"entity", "alias"}, third.Changed)
	assert.True(t, canRead(t, o.mustLogin(third.RoleID, third.SecretID), o.id, "nexa"))
}

func TestTenantsWhoseNamesRunTogetherGetLoginsOfTheirOwn(t *testing.T) {
	t.Parallel()
	o, _ := newIssuer(t)
	seen := map[string]credentials.Login{}
	for _, l := range []credentials.Login{
		{Tenant: o.id, Service: "b-c"}, {Tenant: o.id + "-b", Service: "c"}, {Tenant: o.id + ".b", Service: "c"}, {Tenant: o.id + ".b"},
		{Tenant: o.id, Service: "b"}, {Tenant: o.id + "-b"}, {Tenant: o.id + ".b.c"}, {Tenant: o.id},
	} {
		service := l.Service
		if service == "" {
			service = "nexa"
		}
		_, _, _ = run(t, o.env, "tenant", "add", l.Tenant, service, "KEY=x") // Some are there.
		args := []string{"credentials", "issue", l.Tenant, "--no-wrap"}
		if l.Service != "" {
			args = append(args, "--service", l.Service)
		}
		var i credentials.Issued
		o.json(&i, args...)
		assert.NotContains(t, seen, i.RoleID, "%v", l)
		seen[i.RoleID] = l
		client := o.mustLogin(i.RoleID, i.SecretID)
		assert.True(t, canRead(t, client, l.Tenant, service), "%v", l)
	}
}

func TestTenantsThatDifferInCaseDoNotGetEachOthersLogin(t *testing.T) {
	t.Parallel()
	o, _ := newIssuer(t)
	i := o.issued("--service", "nexa", "--no-wrap")
	upper := strings.ToUpper(o.id)
	o.does("tenant", "add", upper, "nexa", "KEY=x")
	for _, args := range [][]string{{"issue", upper, "--service", "nexa"}} {
		said := o.fails(exitConflict, append([]string{"credentials"}, args...)...)
		assert.Contains(t, said, fmt.Sprintf("belongs to tenant %q", o.id))
	}
	assert.Contains(t, o.fails(exitMissing, "credentials", "revoke", upper, "--all"), "there are no credentials")
	assert.True(t, canRead(t, o.mustLogin(i.RoleID, i.SecretID), o.id, "nexa"))
	assert.False(t, canRead(t, o.mustLogin(i.RoleID, i.SecretID), upper, "nexa"))
}

func TestByDefaultTheSecretIDIsWrapped(t *testing.T) {
	t.Parallel()
	o, _ := newIssuer(t)
	i := o.issued("--service", "nexa")
	assert.Empty(t, i.SecretID)
	require.NotNil(t, i.Wrapped)
	assert.Equal(t, "auth/approle/role/"+i.Role+"/secret-id", i.Wrapped.Path)
	answer, err := o.s.Client.Logical().Unwrap(i.Wrapped.Token)
	require.NoError(t, err)
	o.mustLogin(i.RoleID, answer.Data["secret_id"].(string))
	_, err = o.s.Client.Logical().Unwrap(i.Wrapped.Token)
	assert.Error(t, err, "it is given once")

	out, errs, code := run(t, o.env, "credentials", "issue", o.id)
	require.Zero(t, code, errs)
	assert.Regexp(t, `WRAPPING TOKEN +(hvs|s)\.`, out)
	assert.Contains(t, errs, `secret_id_response_wrapping_path = "auth/approle/role/tenant-`+o.id+`/secret-id"`)
}

func TestAFolderOfIDsIsForItsOwnerOnly(t *testing.T) {
	t.Parallel()
	o, _ := newIssuer(t)
	out := o.does("credentials", "issue", o.id, "--service", "nexa", "--out-dir", "new/ids")
	role, secret := o.readFile("new/ids/role_id"), o.readFile("new/ids/secret_id")
	o.mustLogin(role, secret)
	assert.NotContains(t, out, secret)
	for _, name := range []string{"role_id", "secret_id"} {
		info, err := os.Stat(filepath.Join(o.dir, "new/ids", name))
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), info.Mode())
	}
}

func (o *operator) readFile(name string) string {
	o.t.Helper()
	content, err := os.ReadFile(filepath.Join(o.dir, name))
	require.NoError(o.t, err)
	return strings.TrimSpace(string(content))
}

func TestAnEnvFileKeepsItsOtherLines(t *testing.T) {
	t.Parallel()
	o, _ := newIssuer(t)
	o.file("x.env", "# mine\nVAULT_ADDR=http://vault\nexport VAULT_ROLE_ID=old\nVAULT_SECRET_ID='old'\nVAULT_NAMESPACE=ns")
	out := o.does("credentials", "issue", o.id, "--env", "x.env")
	text := o.readFile("x.env")
	assert.Regexp(t, `^# mine\nVAULT_ADDR=http://vault\nVAULT_NAMESPACE=ns\nVAULT_ROLE_ID=\S+\nVAULT_SECRET_ID=\S+$`, text)
	assert.NotContains(t, text, "old")
	_, secret, _ := strings.Cut(text, "VAULT_SECRET_ID=")
	assert.NotContains(t, out, secret)
	info, err := os.Stat(filepath.Join(o.dir, "x.env"))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode())
}

func TestIssue_KeepsLineBreaksAndByteOrderMarkOfAnEnvFile(t *testing.T) {
	t.Parallel()
	o, _ := newIssuer(t)
	for before, want := range map[string]string{
		"\ufeffVAULT_ROLE_ID=old\r\nA=1\r\n":           `^\x{feff}A=1\r\nVAULT_ROLE_ID=\S+\r\nVAULT_SECRET_ID=\S+\r\n$`,
		"A=1\r\nB=2":                                   `^A=1\r\nB=2\r\nVAULT_ROLE_ID=\S+\r\nVAULT_SECRET_ID=\S+\r\n$`,
		"VAULT_ROLE_ID=old\r\nVAULT_SECRET_ID=old\r\n": `^VAULT_ROLE_ID=\S+\r\nVAULT_SECRET_ID=\S+\r\n$`,
		"\ufeff": `^\x{feff}VAULT_ROLE_ID=\S+\nVAULT_SECRET_ID=\S+\n$`,
	} {
		o.file("x.env", before)
		o.does("credentials", "issue", o.id, "--env", "x.env")
		content, err := os.ReadFile(filepath.Join(o.dir, "x.env"))
		require.NoError(t, err)
		assert.Regexp(t, want, string(content))
		assert.NotContains(t, string(content), "old")
	}
}

func TestIssue_KeepsLinesWithinAValueOfAnEnvFile(t *testing.T) {
	t.Parallel()
	o, _ := newIssuer(t)
	value := "NOTE=\"as it was:\nVAULT_SECRET_ID=example\n\"\n"
	o.file("x.env", value+"VAULT_SECRET_ID=old\nLAST=1\n")
	o.does("credentials", "issue", o.id, "--env", "x.env")
	text := o.readFile("x.env")
	assert.True(t, strings.HasPrefix(text, value+"LAST=1\nVAULT_ROLE_ID="), text)
	assert.NotContains(t, text, "old")
}

func TestIssue_IssuesNothingWhereTheEnvFileIsUnclear(t *testing.T) {
	t.Parallel()
	o, _ := newIssuer(t)
	bad := "A=1\nB='no end\nVAULT_SECRET_ID=old\n"
	o.file("x.env", bad)
	said := o.fails(exitUsage, "credentials", "issue", o.id, "--env", "x.env")
	assert.Contains(t, said, "x.env, line 2: the value of B: its quotes do not end")
	assert.NotContains(t, said, "no end\n")
	assert.Equal(t, strings.TrimSpace(bad), o.readFile("x.env"))
	require.NoError(t, syscall.Mkfifo(filepath.Join(o.dir, "fifo"), 0o600))
	o.fails(exitUsage, "credentials", "issue", o.id, "--env", "fifo")
	o.fails(exitUsage, "credentials", "issue", o.id, "--env", "fifo/x.env")
	o.hasNoSecretID()
}

func TestIssue_TellsThatAFileHasAnotherMode(t *testing.T) {
	t.Parallel()
	o, _ := newIssuer(t)
	o.file("x.env", "A=1\n")
	path := filepath.Join(o.dir, "x.env")
	require.NoError(t, os.Chmod(path, 0o444))
	_, errs, code := run(t, o.env, "credentials", "issue", o.id, "--env", path)
	require.Zero(t, code, errs)
	assert.Contains(t, errs, path+" had the mode 0444, and has 0600 now: it holds a login")
	_, errs, code = run(t, o.env, "credentials", "issue", o.id, "--env", path)
	require.Zero(t, code, errs)
	assert.Empty(t, errs)
}

func TestWhereNoFileCanBeWrittenNoSecretIDIsIssued(t *testing.T) {
	t.Parallel()
	o, _ := newIssuer(t)
	require.NoError(t, os.Symlink("/dev/null", filepath.Join(o.dir, "link.env")))
	o.fails(exitUsage, "credentials", "issue", o.id, "--env", "link.env")
	o.file("file", "")
	out, _, code := run(t, o.env, "credentials", "issue", o.id, "--out-dir", "file/below")
	assert.NotZero(t, code)
	assert.Empty(t, out)
	o.hasNoSecretID()
}

func TestASecretIDIsBoundToNetworksUsesAndTime(t *testing.T) {
	t.Parallel()
	o, _ := newIssuer(t)
	far := o.issued("--no-wrap", "--cidr", "10.1.2.3,192.0.2.0/24")
	_, err := o.login(far.RoleID, far.SecretID)
	require.Error(t, err)
	assert.Contains(t, err.Error(), "unauthorized")

	twice := o.issued("--no-wrap", "--uses", "2", "--ttl", "1h", "--cidr", "127.0.0.0/8")
	client := o.mustLogin(twice.RoleID, twice.SecretID)
	self, err := client.Auth().Token().LookupSelf()
	assert.Error(t, err, "it has no default policy")
	assert.Nil(t, self)
	var found []credentials.Role
	o.json(&found, "credentials", "list", o.id)
	require.Len(t, found, 1)
	require.Len(t, found[0].SecretIDs, 2)
	first, second := found[0].SecretIDs[0], found[0].SecretIDs[1]
	assert.Equal(t, []string{"10.1.2.3/32", "192.0.2.0/24"}, first.CIDRs)
	assert.Nil(t, first.Expires)
	assert.Nil(t, first.UsesLeft)
	require.NotNil(t, second.UsesLeft)
	assert.Equal(t, 1, *second.UsesLeft)
	assert.NotNil(t, second.Expires)
	assert.Equal(t, "root", second.IssuedBy)
	assert.Equal(t, twice.Accessor, second.Accessor)
	o.mustLogin(twice.RoleID, twice.SecretID)
	_, err = o.login(twice.RoleID, twice.SecretID)
	assert.Error(t, err, "it was good for two")

	listed := o.does("credentials", "list", o.id)
	assert.Regexp(t, o.id+` +\(all\) +tenant-`+o.id+` +\S+ +\S+ \S+ +never +any +10.1.2.3/32, 192.0.2.0/24\n`, listed)
	for _, secret := range []string{far.SecretID, twice.SecretID} {
		assert.NotContains(t, listed, secret)
	}
}

func TestNobodyLogsInWithWhatWasRevoked(t *testing.T) {
	t.Parallel()
	o, _ := newIssuer(t)
	one, two := o.issued("--service", "nexa", "--no-wrap"), o.issued("--service", "nexa", "--no-wrap")
	other := o.issued("--service", "shopify", "--no-wrap")
	ofOne, ofTwo := o.mustLogin(one.RoleID, one.SecretID), o.mustLogin(two.RoleID, two.SecretID)

	o.does("credentials", "revoke", o.id, "--accessor", one.Accessor)
	_, err := o.login(one.RoleID, one.SecretID)
	assert.ErrorContains(t, err, "invalid role or secret ID")
	assert.True(t, canRead(t, ofOne, o.id, "nexa"), "its token goes on")
	assert.Contains(t, o.fails(exitMissing, "credentials", "revoke", o.id, "--accessor", one.Accessor), "has no secret id with the accessor")

	three := o.issued("--service", "nexa", "--no-wrap")
	ofThree := o.mustLogin(three.RoleID, three.SecretID)
	assert.Regexp(t, `nexa +\S+ +1 +1 +no\n`, o.does("credentials", "revoke", o.id, "--accessor", three.Accessor, "--tokens"))
	assert.False(t, canRead(t, ofThree, o.id, "nexa"))
	assert.True(t, canRead(t, ofTwo, o.id, "nexa"), "that is of another secret id")

	assert.Regexp(t, `nexa +\S+ +1 +2 +no\n`, o.does("credentials", "revoke", o.id, "--service", "nexa", "--tokens"))
	_, err = o.login(two.RoleID, two.SecretID)
	assert.Error(t, err)
	assert.False(t, canRead(t, ofOne, o.id, "nexa"))
	assert.False(t, canRead(t, ofTwo, o.id, "nexa"))
	ofOther := o.mustLogin(other.RoleID, other.SecretID)
	assert.True(t, canRead(t, ofOther, o.id, "shopify"))

	assert.Regexp(t, `(?s)nexa .*yes\n.*shopify +\S+ +1 +1 +yes\n`, o.does("credentials", "revoke", o.id, "--all"))
	assert.False(t, canRead(t, ofOther, o.id, "shopify"))
	for _, path := range []string{"auth/approle/role/" + one.Role, "identity/entity/name/" + one.Role, "auth/approle/role/" + other.Role} {
		left, err := o.s.Client.Logical().Read(path)
		require.NoError(t, err)
		assert.Nil(t, left, path)
	}
	assert.Contains(t, o.fails(exitMissing, "credentials", "revoke", o.id), "there are no credentials")
	assert.True(t, canRead(t, o.s.Client, o.id, "nexa"), "the secrets stay")
}

func TestACredentialsCommandLineThatIsWrongContactsNothing(t *testing.T) {
	t.Parallel()
	for args, say := range map[string]string{
		"issue":                                        "the id of a tenant is missing",
		"issue +":                                      `"+" is not an id`,
		"issue *":                                      `"*" is not an id`,
		"issue a/../b":                                 "is not an id",
		"issue demo --service +":                       `"+" is not an id`,
		"issue demo --service a.b":                     "has a dot in it",
		"issue demo --service a-":                      "ends in a hyphen",
		"issue demo --service=":                        "--service is empty",
		"issue demo --cidr 10.0.0.300/8":               `--cidr "10.0.0.300/8" is no network`,
		"issue demo --uses -1":                         "--uses",
		"issue demo --ttl -1s":                         "--ttl",
		"issue demo --wrap-ttl 0":                      "--wrap-ttl",
		"issue demo --wrap-ttl 1500ms":                 "whole seconds",
		"issue demo --token-ttl 2h --token-max-ttl 1h": "is longer than",
		"issue demo --no-wrap --wrap-ttl 1m":           "none of the others can be",
		"issue demo --env x --out-dir y":               "none of the others can be",
		"issue demo --env=":                            "--env is empty",
		"revoke":                                       "the id of a tenant is missing",
		"revoke a b":                                   "there are 2 arguments",
		"revoke ..":                                    "is not an id",
		"revoke demo --accessor=":                      "--accessor is empty",
		"revoke demo --accessor x --all":               "none of the others can be",
		"list +":                                       "is not an id",
		"":                                             "needs a command",
	} {
		assert.Contains(t, refused(t, append([]string{"credentials"}, strings.Fields(args)...)...), say, args)
	}
}

func TestASlipInATenantOrServiceMakesNoLogin(t *testing.T) {
	t.Parallel()
	o, _ := newIssuer(t)
	assert.Contains(t, o.fails(exitMissing, "credentials", "issue", o.id+"x"), "there is no tenant "+o.id+"x")
	assert.Contains(t, o.fails(exitMissing, "credentials", "issue", o.id, "--service", "nexxa"), "it has nexa, shopify")
	var found []credentials.Role
	o.json(&found, "credentials", "list", o.id)
	assert.Empty(t, found)
}

func TestTheAdminOfThePlatformIssuesAndRevokes(t *testing.T) {
	t.Parallel()
	o, marker := newIssuer(t)
	token, err := o.s.Client.Auth().Token().Create(&api.TokenCreateRequest{Policies: []string{policies.Admin}, NoDefaultPolicy: true})
	require.NoError(t, err)
	o.env = append(o.env, "VAULT_TOKEN="+token.Auth.ClientToken)
	i := o.issued("--service", "nexa", "--no-wrap")
	o.mustLogin(i.RoleID, i.SecretID)
	o.issued()
	o.does("tenant", "set", o.id, "nexa", "MORE=1")
	o.does("tenant", "show", o.id, "nexa")
	o.does("tenant", "delete", o.id)
	o.does("tenant", "undelete", o.id)
	o.does("tenant", "destroy", o.id, "--versions", "all", "--yes")
	o.does("tenant", "destroy", o.id, "--all", "--yes")
	assert.Regexp(t, `nexa +\S+ +1 +1 +yes`, o.does("credentials", "revoke", o.id, "--all"))
	assert.NotContains(t, o.does("tenant", "list"), marker)
}

func TestATenantsLoginMayDoNothingOfThis(t *testing.T) {
	t.Parallel()
	o, marker := newIssuer(t)
	i := o.issued("--no-wrap")
	o.env = append(o.env, "VAULT_TOKEN="+o.mustLogin(i.RoleID, i.SecretID).Token())
	for _, args := range [][]string{
		{"tenant", "list"}, {"tenant", "set", o.id, "nexa", "A=1"}, {"tenant", "delete", o.id}, {"tenant", "add", o.id, "new", "A=1"},
		{"credentials", "issue", o.id}, {"credentials", "list"}, {"credentials", "revoke", o.id},
	} {
		assert.NotContains(t, o.fails(exitDenied, args...), marker)
	}
	assert.Contains(t, o.does("tenant", "show", o.id, "nexa", "--reveal"), marker, "it is its own")
}

// deaddropBinary builds the agent once.
var deaddropBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "deaddrop-")
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "deaddrop")
	out, err := exec.Command("go", "build", "-o", binary, "../deaddrop").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return binary, nil
})

func TestTheAgentLogsInWithWhatWasIssued(t *testing.T) {
	t.Parallel()
	o, marker := newIssuer(t)
	binary, err := deaddropBinary()
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(filepath.Dir(binary)) })
	render := func(name string, env []string, auth string) string {
		config := o.file(name+".hcl", fmt.Sprintf("vault { address = %q }\n%s\ndrop \"nexa\" {\n  secret = \"secret/tenant/%s/nexa\"\n  destination = %q\n}\n",
			o.s.Address, auth, o.id, name+".out"))
		cmd := exec.Command(binary, "render", "--once", "--config", config)
		cmd.Dir, cmd.Env = o.dir, append([]string{"PATH=" + os.Getenv("PATH")}, env...)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return o.readFile(name + ".out")
	}
	approle := func(folder, more string) string {
		return fmt.Sprintf("auto_auth {\n method \"approle\" {\n  config = {\n role_id_file_path = %q\n secret_id_file_path = %q\n %s }\n }\n}",
			folder+"/role_id", folder+"/secret_id", more)
	}
	o.does("credentials", "issue", o.id, "--service", "nexa", "--out-dir", "plain", "--uses", "1")
	assert.Equal(t, "KEY="+marker, render("plain", nil, approle("plain", "")))

	o.does("credentials", "issue", o.id, "--service", "nexa", "--out-dir", "wrapped", "--wrap-ttl", "5m")
	assert.Regexp(t, `^(hvs|s)\.`, o.readFile("wrapped/secret_id"), "it is a wrapping token")
	path := "secret_id_response_wrapping_path = \"auth/approle/role/service-" + o.id + ".nexa/secret-id\""
	assert.Equal(t, "KEY="+marker, render("wrapped", nil, approle("wrapped", path)))

	o.does("credentials", "issue", o.id, "--env", "agent.env")
	assert.Equal(t, "KEY="+marker, render("env", strings.Fields(o.readFile("agent.env")), ""))
}

func TestFiveWhoIssueAtOnceAllGetALoginThatWorks(t *testing.T) {
	t.Parallel()
	o, _ := newIssuer(t)
	var all sync.WaitGroup
	answers := make([]credentials.Issued, 5)
	for n := range answers {
		cmd := command(t, o.env, "credentials", "issue", o.id, "--service", "nexa", "--no-wrap", "-o", "json")
		all.Go(func() {
			out, err := cmd.Output()
			if assert.NoError(t, err) {
				assert.NoError(t, json.Unmarshal(out, &answers[n]))
			}
		})
	}
	all.Wait()
	for _, i := range answers {
		assert.True(t, canRead(t, o.mustLogin(i.RoleID, i.SecretID), o.id, "nexa"))
	}
}
