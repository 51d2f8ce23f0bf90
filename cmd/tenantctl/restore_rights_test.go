package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/archive"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/backup"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

const allRights = `path "*" { capabilities = ["create", "read", "update", "delete", "list", "sudo"] }`

// forgery is a backup by somebody who knows nothing but the public key: with a role that
// anybody can log in to who knows its role id, and who may do everything then.
func forgery(t *testing.T, recipient string) (file, roleID string) {
	t.Helper()
	roleID = "forged-" + rand.Text() // No marker: Vault logs names of aliases.
	return forge(t, recipient, []archive.Record{
		{Policy: &archive.Policy{Name: "all-rights", Text: allRights + "\n# \x1b[2J"}},
		{Secret: &archive.Secret{Path: "tenant/demo/nexa", Settings: archive.Settings{DeleteVersionAfter: "0s"}, Current: 1, Versions: []archive.Version{{Number: 1, Data: archive.Content(`{"key":"forged value"}`)}}}},
		{Role: &archive.Role{Mount: "approle", Name: "forged", RoleID: roleID, Settings: map[string]json.RawMessage{
			"token_policies": json.RawMessage(`["all-rights"]`), "bind_secret_id": json.RawMessage("false"),
			"token_bound_cidrs": json.RawMessage(`["0.0.0.0/0"]`), "token_ttl": json.RawMessage("0"),
		}}},
		{Entity: &archive.Entity{Name: "forged", Policies: []string{"all-rights"}, Metadata: map[string]string{"tenant_id": "demo"},
			Aliases: []archive.Alias{{Name: roleID, Mount: "approle", Type: "approle"}}}},
	}), roleID
}

// forge makes a backup of these records by somebody who knows nothing but the public key.
func forge(t *testing.T, recipient string, records []archive.Record) (file string) {
	t.Helper()
	r, err := age.ParseX25519Recipient(recipient)
	require.NoError(t, err)
	var content bytes.Buffer
	w, err := archive.NewWriter(&content, archive.Header{}, r)
	require.NoError(t, err)
	for _, record := range records {
		require.NoError(t, w.Write(record))
	}
	require.NoError(t, w.Close())
	file = filepath.Join(t.TempDir(), "forged.age")
	require.NoError(t, os.WriteFile(file, content.Bytes(), 0o600))
	return file
}

// untouched makes sure that nothing of a forgery is in Vault.
func untouched(t *testing.T, s *vaulttest.Server) {
	t.Helper()
	for _, path := range []string{"sys/policies/acl/all-rights", "auth/approle/role/forged", "identity/entity/name/forged", "secret/metadata/tenant/demo/nexa"} {
		answer, err := s.Client.Logical().Read(path)
		if err == nil { // There may be no AppRole.
			assert.Nil(t, answer, path)
		}
	}
}

func TestRestore_ShowsAForgedRoleAndRefusesItWithoutConsent(t *testing.T) {
	t.Parallel()
	s := vaulttest.Own(t)
	recipient, identity := newAgeKey(t)
	file, roleID := forgery(t, recipient)

	out, errs, code := run(t, vaultOf(s), "restore", file, "-i", identity)
	assert.Equal(t, exitUsage, code, errs)
	assert.Empty(t, out)
	for _, say := range []string{
		"Nothing proves who made this backup",
		"policy all-rights: create\n    + " + allRights + "\n    + # \\u001b[2J\n",
		"login approle: create\n    type: approle\n",
		"role forged: create\n    bind_secret_id: false (a login needs no secret id)\n    token_bound_cidrs: [\"0.0.0.0/0\"]\n    token_policies: [\"all-rights\"]\n",
		"entity forged: create\n    policies: [\"all-rights\"]\n    metadata tenant_id: \"demo\"\n    alias of approle: role \"forged\"\n",
		"Besides, it creates 1 secret and changes 0.",
		"add --yes",
	} {
		assert.Contains(t, errs, say)
	}
	for _, hidden := range []string{roleID, "forged value", "\x1b"} {
		assert.NotContains(t, errs, hidden)
	}
	untouched(t, s)

	plan, errs, code := run(t, vaultOf(s), "restore", file, "-i", identity, "--dry-run")
	require.Zero(t, code, errs)
	assert.Contains(t, plan, "role forged: create\n    bind_secret_id: false")
	untouched(t, s)

	out, errs, code = run(t, vaultOf(s), "restore", file, "-i", identity, "--secrets-only")
	require.Zero(t, code, errs)
	assert.NotContains(t, out+errs, "all-rights")
	assert.Equal(t, "forged value", readSecret(t, s, "demo", "nexa"))

	out, errs, code = run(t, vaultOf(s), "restore", file, "-i", identity, "--yes")
	require.Zero(t, code, errs+out)
	assert.Contains(t, errs, "token_policies: [\"all-rights\"]")
	_, err := s.Client.Logical().Write("auth/approle/login", map[string]any{"role_id": roleID})
	require.NoError(t, err) // So bad it is.
}

// deleting are settings with which Vault deletes each version a second after it is written.
var deleting = archive.Settings{MaxVersions: 1, CASRequired: true, DeleteVersionAfter: "1s"}

// readKV reads settings as text.
func readKV(t *testing.T, s *vaulttest.Server, path string) string {
	t.Helper()
	answer, err := s.Client.Logical().Read(path)
	require.NoError(t, err)
	require.NotNil(t, answer, path)
	return fmt.Sprintf("%v %v %v", answer.Data["max_versions"], answer.Data["cas_required"], answer.Data["delete_version_after"])
}

func TestRestore_ShowsForgedSettingsOfTheEngineAndRefusesThemWithoutConsent(t *testing.T) {
	t.Parallel()
	s := vaulttest.Own(t)
	writeSecret(t, s, "demo", "nexa")
	recipient, identity := newAgeKey(t)
	file := forge(t, recipient, []archive.Record{{Engine: &archive.Engine{Mount: "secret", Settings: deleting}}})
	before := readKV(t, s, "secret/config")
	const change = "engine secret: update\n    max_versions: 0 → 1\n    cas_required: false → true\n    delete_version_after: 0s → 1s\n"

	for _, args := range [][]string{nil, {"--overwrite"}} {
		out, errs, code := run(t, vaultOf(s), append([]string{"restore", file, "-i", identity}, args...)...)
		assert.Equal(t, exitUsage, code, errs)
		assert.Empty(t, out)
		assert.Contains(t, errs, change)
		assert.Contains(t, errs, "add --yes, or restore secrets only with --secrets-only")
		assert.Equal(t, before, readKV(t, s, "secret/config"))
	}
	shown, code := atTerminal(t, vaultOf(s), []string{"restore", file, "-i", identity}, "y")
	assert.Equal(t, exitFailed, code, shown)
	assert.Equal(t, before, readKV(t, s, "secret/config"))

	plan, errs, code := run(t, vaultOf(s), "restore", file, "-i", identity, "--dry-run")
	require.Zero(t, code, errs)
	assert.Contains(t, plan, change)
	plan, errs, code = run(t, vaultOf(s), "restore", file, "-i", identity, "--dry-run", "-o", "json")
	require.Zero(t, code, errs)
	var summary restoreSummary
	require.NoError(t, json.Unmarshal([]byte(plan), &summary))
	require.Len(t, summary.Actions, 1)
	assert.Equal(t, []backup.Change{
		{Field: "max_versions", Old: "0", New: "1"}, {Field: "cas_required", Old: "false", New: "true"}, {Field: "delete_version_after", Old: "0s", New: "1s"},
	}, summary.Actions[0].Changes)
	verified, errs, code := run(t, nil, "restore", file, "-i", identity, "--verify")
	require.Zero(t, code, errs)
	assert.Contains(t, verified, "secret: max_versions 1, cas_required true, delete_version_after 1s")
	assert.Equal(t, before, readKV(t, s, "secret/config"))

	_, errs, code = run(t, vaultOf(s), "restore", file, "-i", identity, "--yes")
	require.Zero(t, code, errs)
	assert.Contains(t, errs, change)
	assert.Equal(t, "1 true 1s", readKV(t, s, "secret/config"))
}

func TestRestore_ShowsForgedSettingsOfSecretsAndRefusesThemWithoutConsent(t *testing.T) {
	t.Parallel()
	s := vaulttest.Own(t)
	writeSecret(t, s, "demo", "nexa")
	before := readKV(t, s, "secret/metadata/tenant/demo/nexa")
	recipient, identity := newAgeKey(t)
	var records []archive.Record
	content := archive.Content(`{"key":"forged value"}`)
	add := func(path string, settings archive.Settings, versions ...archive.Version) {
		records = append(records, archive.Record{Secret: &archive.Secret{Path: path, Settings: settings, Current: versions[len(versions)-1].Number, Versions: versions}})
	}
	// It goes on from what is in Vault, which only its readers know.
	answer, err := s.Client.Logical().Read("secret/data/tenant/demo/nexa")
	require.NoError(t, err)
	is, err := json.Marshal(answer.Data["data"])
	require.NoError(t, err)
	add("tenant/demo/nexa", deleting, archive.Version{Number: 1, Data: is}, archive.Version{Number: 2, Data: content})
	for n := range maxNames + 2 {
		add(fmt.Sprintf("tenant/demo/new%d", n), archive.Settings{MaxVersions: 3, DeleteVersionAfter: "0s"}, archive.Version{Number: 1, Data: content})
	}
	add("tenant/demo/plain", archive.Settings{DeleteVersionAfter: "0s"}, archive.Version{Number: 1, Data: content})
	file := forge(t, recipient, records)
	shows := []string{
		"settings of 1 secret:\n    max_versions: 0 → 1\n    cas_required: false → true\n    delete_version_after: 0s → 1s\n    in secret/tenant/demo/nexa\n",
		"settings of 7 secrets:\n    max_versions: 3\n    in secret/tenant/demo/new0\n",
		"    in secret/tenant/demo/new4\n    in 2 more\n",
	}
	for _, args := range [][]string{nil, {"--secrets-only"}, {"--tenant", "demo"}} {
		out, errs, code := run(t, vaultOf(s), append([]string{"restore", file, "-i", identity}, args...)...)
		assert.Equal(t, exitUsage, code, "%v: %s", args, errs)
		assert.Empty(t, out)
		for _, say := range append(shows, "Besides, it creates 8 secrets and changes 1.", "look at them, and add --yes\n") {
			assert.Contains(t, errs, say)
		}
		assert.NotContains(t, errs, "plain")
		assert.Equal(t, before, readKV(t, s, "secret/metadata/tenant/demo/nexa"))
	}
	plan, errs, code := run(t, vaultOf(s), "restore", file, "-i", identity, "--dry-run")
	require.Zero(t, code, errs)
	for _, say := range shows {
		assert.Contains(t, plan, say)
	}
	_, errs, code = run(t, vaultOf(s), "restore", file, "-i", identity, "--yes")
	require.Zero(t, code, errs)
	assert.Equal(t, "1 true 1s", readKV(t, s, "secret/metadata/tenant/demo/nexa"))

	// The second could only be compared with what is in Vault before the first.
	twice := forge(t, recipient, append(records, records[0]))
	_, errs, code = run(t, vaultOf(s), "restore", twice, "-i", identity, "--yes")
	assert.Equal(t, exitFailed, code)
	assert.Contains(t, errs, `the secret "tenant/demo/nexa" is in it twice`)
}

func TestRestore_AsksOnATerminalBeforeRightsChange(t *testing.T) {
	t.Parallel()
	s := vaulttest.Own(t)
	recipient, identity := newAgeKey(t)
	file, _ := forgery(t, recipient)
	for _, answer := range []string{"", "y", "no"} {
		shown, code := atTerminal(t, vaultOf(s), []string{"restore", file, "-i", identity}, answer)
		assert.Equal(t, exitFailed, code, shown)
		assert.Contains(t, shown, "that is not yes; nothing was restored")
		untouched(t, s)
	}
}

func TestRestore_ShowsWhatRightsWereAndBecome(t *testing.T) {
	t.Parallel()
	s := vaulttest.Own(t)
	writeSecret(t, s, "demo", "nexa")
	require.NoError(t, s.Client.Sys().PutPolicy("p", "# same\npath \"old\" { capabilities = [\"read\"] }\n# end"))
	roleID, _, err := s.AppRole("r", "# nothing")
	require.NoError(t, err)
	write := func(path string, data map[string]any) {
		_, err := s.Client.Logical().Write(path, data)
		require.NoError(t, err)
	}
	write("identity/entity", map[string]any{"name": "e", "policies": []string{"p"}, "metadata": map[string]string{"tenant_id": "demo"}})
	recipient, identity := newAgeKey(t)
	file := filepath.Join(t.TempDir(), "b")
	_, errs, code := run(t, vaultOf(s), "backup", file, "-r", recipient)
	require.Zero(t, code, errs)

	_, errs, code = run(t, vaultOf(s), "restore", file, "-i", identity)
	require.Zero(t, code, errs) // Nothing changes, and nothing is asked.
	assert.NotContains(t, errs, "rights")

	require.NoError(t, s.Client.Sys().PutPolicy("p", "# same\npath \"new\" { capabilities = [\"read\"] }\n# end"))
	write("auth/approle/role/r", map[string]any{"token_policies": []string{"p"}})
	write("identity/entity", map[string]any{"name": "e", "policies": []string{}, "metadata": map[string]string{"tenant_id": "other"}})
	_, errs, code = run(t, vaultOf(s), "restore", file, "-i", identity, "--overwrite")
	assert.Equal(t, exitUsage, code)
	for _, say := range []string{
		"policy p: update\n    - path \"new\" { capabilities = [\"read\"] }\n    + path \"old\" { capabilities = [\"read\"] }\n",
		"role r: update\n    token_policies: [\"p\"] → [\"r\"]\n",
		"entity e: update\n    policies: [] → [\"p\"]\n    metadata tenant_id: \"other\" → \"demo\"\n",
	} {
		assert.Contains(t, errs, say)
	}
	assert.NotContains(t, errs, roleID)
	is, err := s.Client.Sys().GetPolicy("p")
	require.NoError(t, err)
	assert.Contains(t, is, "new")
}

// newSSHKey makes a key of SSH, and returns its file and that of the public key.
func newSSHKey(t *testing.T, passphrase string) (secret, public string) {
	t.Helper()
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("needs ssh-keygen")
	}
	secret = filepath.Join(t.TempDir(), "key")
	said, err := exec.Command("ssh-keygen", "-q", "-a", "2", "-t", "ed25519", "-N", passphrase, "-C", "ops", "-f", secret).CombinedOutput()
	require.NoError(t, err, "%s", said)
	return secret, secret + ".pub"
}

func TestRestore_DemandsASignatureByAKeyThatIsTrusted(t *testing.T) {
	t.Parallel()
	s := vaulttest.Own(t)
	recipient, identity := newAgeKey(t)
	secret, public := newSSHKey(t, "")
	otherSecret, otherPublic := newSSHKey(t, "")
	text, err := os.ReadFile(public)
	require.NoError(t, err)
	file, _ := forgery(t, recipient)
	refused := func(say string, args ...string) {
		t.Helper()
		_, errs, code := run(t, vaultOf(s), append([]string{"restore", file, "-i", identity, "--yes"}, args...)...)
		assert.Equal(t, exitFailed, code, errs)
		assert.Contains(t, errs, say)
		assert.Contains(t, errs, "nothing was restored")
		assert.NotContains(t, errs, "all-rights", "it was decrypted")
		untouched(t, s)
	}
	refused("the backup is not signed by a key that is trusted: there is no signature "+file+".sig: name its file with --signature", "--verify-key", public)

	signers := filepath.Join(t.TempDir(), "allowed_signers")
	for _, before := range []string{"ops@example.org ", `ops@example.org namespaces="tenantctl-backup" `} {
		require.NoError(t, os.WriteFile(signers, append([]byte("# who signs\n"+before), text...), 0o600))
		_, errs, code := run(t, vaultOf(s), "restore", file, "-i", identity, "--verify-key", signers)
		assert.Equal(t, exitUsage, code, errs)
		assert.Contains(t, errs, "allowed_signers, line 2: there is something before the key, such as a principal of an allowed_signers file: leave it out")
		assert.Contains(t, errs, `See "tenantctl restore --help".`)
	}

	sign := func(key, namespace string) {
		t.Helper()
		_ = os.Remove(file + ".sig")
		said, err := exec.Command("ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", namespace, file).CombinedOutput()
		require.NoError(t, err, "%s", said)
	}
	sign(otherSecret, archive.Namespace)
	refused("the backup is not signed by a key that is trusted: the key SHA256:", "--verify-key", public)
	sign(secret, "file")
	refused(`its signature is for "file"`, "--verify-key", public)
	require.NoError(t, os.WriteFile(file+".sig", []byte("-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n"), 0o600))
	refused("its signature is none of SSH", "--verify-key", public)
	refused("and not that of --sha256", "--sha256", fmt.Sprintf("%064x", 1))

	// By a key that is trusted, among others, it is as good as confirmed.
	sign(secret, archive.Namespace)
	_, errs, code := run(t, vaultOf(s), "restore", file, "-i", identity, "--verify-key", otherPublic, "--verify-key", string(text), "--yes")
	require.Zero(t, code, errs)
	assert.NotContains(t, errs, "Nothing proves")
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, append(content, 0), 0o600))
	_, errs, code = run(t, vaultOf(s), "restore", file, "-i", identity, "--verify-key", public, "--yes")
	assert.Equal(t, exitFailed, code)
	assert.Contains(t, errs, "its signature is for other content")
}

func TestBackup_SignsAsSSHKeygenVerifies(t *testing.T) {
	t.Parallel()
	s, to := vaulttest.Own(t), vaulttest.Own(t)
	marker := writeSecret(t, s, "demo", "nexa")
	recipient, identity := newAgeKey(t)
	secret, public := newSSHKey(t, "")
	dir := t.TempDir()
	file := filepath.Join(dir, "b")
	out, errs, code := run(t, vaultOf(s), "backup", file, "-r", recipient, "--sign-key", secret, "-o", "json")
	require.Zero(t, code, errs)
	var summary backupSummary
	require.NoError(t, json.Unmarshal([]byte(out), &summary))
	assert.Equal(t, file+".sig", summary.Signature)
	assert.Equal(t, []string{"b", "b.sig"}, names(t, dir))

	text, err := os.ReadFile(public)
	require.NoError(t, err)
	signers := filepath.Join(t.TempDir(), "signers")
	require.NoError(t, os.WriteFile(signers, append([]byte("ops "), text...), 0o600))
	verify := exec.Command("ssh-keygen", "-Y", "verify", "-f", signers, "-I", "ops", "-n", archive.Namespace, "-s", file+".sig")
	verify.Stdin, err = os.Open(file)
	require.NoError(t, err)
	said, err := verify.CombinedOutput()
	require.NoError(t, err, "%s", said)
	assert.Contains(t, string(said), summary.SignedBy)

	_, errs, code = run(t, vaultOf(to), "restore", file, "-i", identity, "--verify-key", public, "--sha256", summary.SHA256, "--yes")
	require.Zero(t, code, errs)
	assert.Equal(t, marker, readSecret(t, to, "demo", "nexa"))

	for args, say := range map[string]string{
		"":                               "is there already",
		"--force --signature " + dir:     "the signature: " + dir,
		"--force --sign-key " + public:   "this is no secret key of SSH",
		"--force --sign-key " + identity: "this is no secret key of SSH",
	} {
		fresh := filepath.Join(dir, "b2")
		require.NoError(t, os.WriteFile(fresh+".sig", nil, 0o600))
		_, errs, code := run(t, vaultOf(s), append([]string{"backup", fresh, "-r", recipient, "--sign-key", secret}, strings.Fields(args)...)...)
		assert.Equal(t, exitUsage, code, args)
		assert.Contains(t, errs, say)
		assert.NoFileExists(t, fresh)
	}
	for _, args := range [][]string{
		{"backup", "-", "-r", recipient, "--sign-key", secret}, {"backup", file, "--force", "-r", recipient, "--signature", "x"},
		{"restore", "-", "--verify-key", public}, {"restore", file, "--signature", "x"}, {"restore", file, "--sha256", "12"},
		{"restore", file, "--verify-key", secret}, {"restore", file, "--verify-key", "ssh-ed25519 nonsense"},
	} {
		_, errs, code := run(t, vaultOf(s), args...)
		assert.Equal(t, exitUsage, code, "%v: %s", args, errs)
	}
}

func TestBackup_AsksForThePassphraseOfTheSigningKey(t *testing.T) {
	t.Parallel()
	s := vaulttest.Own(t)
	writeSecret(t, s, "demo", "nexa")
	recipient, _ := newAgeKey(t)
	passphrase := vaulttest.Marker()
	secret, public := newSSHKey(t, passphrase)
	file := filepath.Join(t.TempDir(), "b")
	args := []string{"backup", file, "-r", recipient, "--sign-key", secret}
	_, errs, code := run(t, vaultOf(s), args...)
	assert.Equal(t, exitUsage, code)
	assert.Contains(t, errs, "the key has a passphrase (there is no terminal")
	shown, code := atTerminal(t, vaultOf(s), args, "wrong")
	assert.Equal(t, exitUsage, code)
	assert.Contains(t, shown, "the passphrase is wrong")
	shown, code = atTerminal(t, vaultOf(s), args, passphrase)
	require.Zero(t, code, shown)
	assert.NotContains(t, shown, passphrase)
	_, errs, _ = run(t, nil, "restore", file, "--verify", "--verify-key", public)
	assert.Contains(t, errs, "give --identity") // The signature is good.
}
