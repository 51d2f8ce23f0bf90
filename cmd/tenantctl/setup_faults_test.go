package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/policies"
)

// losing is a proxy in front of Vault that loses the answers to one request, which
// Vault has got.
func losing(t *testing.T, address, request string) string {
	t.Helper()
	target, err := url.Parse(address)
	require.NoError(t, err)
	proxy := httputil.NewSingleHostReverseProxy(target)
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method+" "+r.URL.Path != request {
			proxy.ServeHTTP(w, r)
			return
		}
		proxy.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	})
}

// pgpWithout writes a public key to which nothing can be encrypted.
func (s *site) pgpWithout(name string, change func(*openpgp.Entity), config *packet.Config) {
	s.t.Helper()
	entity, err := openpgp.NewEntity(name, "", name+"@example.com", config)
	require.NoError(s.t, err)
	change(entity)
	var out bytes.Buffer
	require.NoError(s.t, entity.Serialize(&out))
	s.write(name, out.String())
}

func TestKeysThatCouldNotBeEncryptedAreNotMade(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	id, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	quantum, err := age.GenerateHybridIdentity()
	require.NoError(t, err)
	s.write("quantum", quantum.Recipient().String())
	s.pgpWithout("signs", func(e *openpgp.Entity) { e.Subkeys = nil }, nil)
	s.pgpWithout("expired", func(*openpgp.Entity) {}, &packet.Config{
		KeyLifetimeSecs: 60, Time: func() time.Time { return time.Now().Add(-time.Hour) },
	})
	for args, say := range map[string]string{
		"--age-recipient quantum --age-recipient " + id.Recipient().String(): "post-quantum",
		"--root-token-pgp-key signs":                                         "nothing can be encrypted to this key",
		"--shares 1 --threshold 1 --pgp-key signs":                           "nothing can be encrypted to this key",
		"--shares 1 --threshold 1 --pgp-key expired":                         "nothing can be encrypted to this key",
	} {
		out, code := s.tenantctl("", s.setup(append(strings.Fields(args), "--init", "--keys-file", "keys")...)...)
		assert.Equal(t, exitUsage, code, "%s: %s", args, out)
		assert.Contains(t, out, say, args)
		assert.NoFileExists(t, s.path("keys"))
	}
	initialised, err := s.s.Client.Sys().InitStatus()
	require.NoError(t, err)
	assert.False(t, initialised)
	s.must(s.setup("--init", "--keys-file", "keys", "--age-recipient", "quantum", "--no-credentials", "--admin-password-file", s.write("password", "correct horse battery"))...)
}

func TestALostInitialisationIsToldAsWhatItIs(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	direct := s.env
	s.env = append(s.env, "VAULT_ADDR="+losing(t, s.s.Address, "PUT /v1/sys/init"))
	out, code := s.tenantctl("", s.setup("--init", "--keys-file", "keys.json")...)
	assert.Equal(t, exitFailed, code, "it does not pass: %s", out)
	assert.Contains(t, out, "has initialised itself all the same, with keys that nobody has")
	assert.Contains(t, out, "empty its storage")
	assert.NoFileExists(t, s.path("keys.json"), "there is nothing in it")
	s.env = direct
	assert.True(t, s.look(exitUnreachable).Initialized)
}

func TestACheckLeavesVaultSealed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.ready()
	require.NoError(t, s.s.Client.Sys().Seal())
	out, code := s.tenantctl("", s.setup("--check", "--unseal", "--keys-file", "keys.json")...)
	assert.Equal(t, exitFailed, code)
	assert.Contains(t, out, "change  Vault is unsealed")
	assert.Contains(t, out, "0 to create, 1 to change")
	status, err := s.s.Client.Sys().SealStatus()
	require.NoError(t, err)
	assert.True(t, status.Sealed)
	assert.Zero(t, status.Progress)
	out, code = s.tenantctl(s.keys("keys.json").Keys[0], s.setup("--check", "--unseal", "--keys-file", "-")...)
	assert.Equal(t, exitUnreachable, code)
	assert.Contains(t, out, "it takes 2 keys to unseal it, and there is 1")
}

func TestAPasswordWhoseAnswerIsLostIsKept(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	direct := s.env
	s.env = append(s.env, "VAULT_ADDR="+losing(t, s.s.Address, "PUT /v1/auth/userpass/users/admin"))
	out, code := s.tenantctl("", s.setup("--init", "--keys-file", "keys.json")...)
	assert.Equal(t, exitUnreachable, code)
	assert.Contains(t, out, "whether Vault has the new password is not known: it is in credentials/admin.password.new")
	s.env = direct
	s.must("login", "--password-file", "credentials/admin.password.new")
	out = s.must(s.setup("--keys-file", "keys.json")...)
	assert.Contains(t, out, "note    user admin: credentials/admin.password.new is left over")
	s.silent(s.read("credentials/admin.password.new"))
	s.must(s.setup("--keys-file", "keys.json", "--reset-admin-password")...)
	s.must("login", "--password-file", "credentials/admin.password")
	s.closed()
}

func TestAPasswordThatVaultRefusesIsNotKept(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.env = append(s.env, "VAULT_ADDR="+refusing(t, s.s.Address, "PUT /v1/auth/userpass/users/admin", http.StatusBadRequest, "no luck"))
	_, code := s.tenantctl("", s.setup("--init", "--keys-file", "keys.json")...)
	assert.Equal(t, exitFailed, code)
	s.closed()
}

func TestAuditDevicesThatShowSecretsAreWrong(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.ready()
	enable := func(name, file string) {
		require.NoError(t, s.s.Client.Sys().EnableAuditWithOptions(name, &api.EnableAuditOptions{
			Type: "file", Options: map[string]string{"file_path": s.path(file), "log_raw": "1"},
		}))
	}
	check := func(say string) {
		out, code := s.tenantctl("", s.setup("--check")...)
		assert.Equal(t, exitFailed, code)
		assert.Contains(t, out, "wrong   no secrets in the audit log: "+say)
		assert.Contains(t, out, "Nothing to change for setup, and 1 wrong")
		assert.NotContains(t, s.must(s.setup()...), "Nothing to change.")
	}
	enable("second", "second.log")
	check("second/ " + s.path("second.log"))
	assert.Contains(t, s.must("status"), "second/ file "+s.path("second.log")+", raw: secrets are in it")
	require.NoError(t, s.s.Client.Sys().DisableAudit("second"))
	assert.Contains(t, s.must(s.setup("--check")...), "Nothing to change.")

	require.NoError(t, s.s.Client.Sys().DisableAudit("file"))
	enable("file", "audit.log")
	check("file/ " + s.path("audit.log"))
}

func TestTheAuditLogHasWhatSetupDoes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.ready()
	written := s.written(0)
	for _, op := range []string{
		"update sys/mounts/secret", "update sys/policies/acl/" + policies.Admin, "update sys/auth/approle", "create auth/userpass/users/admin",
	} {
		assert.Contains(t, written, op)
	}
}

func TestWhoMayReadTheKeysIsSaid(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.ready()
	const warning = "keys.json can be read by all users of this machine"
	assert.NotContains(t, s.must(s.setup("--check", "--keys-file", "keys.json")...), warning)
	for _, name := range []string{"keys.json", "credentials/admin.password"} {
		require.NoError(t, os.Chmod(s.path(name), 0o644))
	}
	s.env = s.env[:3]
	assert.Contains(t, s.must("login", "--password-file", "credentials/admin.password"), "admin.password can be read by all users of this machine")
	out, _ := s.tenantctl("", s.setup("--check", "--keys-file", "keys.json")...)
	assert.NotContains(t, out, warning, "the token of the login is used, and the keys are not read")
	require.NoError(t, os.Remove(s.path(".vault-token")))
	out, _ = s.tenantctl("", s.setup("--check", "--keys-file", "keys.json")...)
	assert.Contains(t, out, warning)
}

// full is standard output on a full disk.
func full(t *testing.T, env []string, args ...string) (stderr string, code int) {
	t.Helper()
	out, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	require.NoError(t, err)
	defer out.Close()
	cmd := command(t, env, args...)
	var errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = out, io.Writer(&errs)
	_ = cmd.Run() // Its code says the same.
	return errs.String(), cmd.ProcessState.ExitCode()
}

func TestKeysThatCannotBePrintedAreInTheFile(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	errs, code := full(t, s.env, s.setup("--init", "--keys-file", "keys.json", "--print-keys")...)
	assert.Equal(t, exitFailed, code)
	assert.Contains(t, errs, "no space left on device")
	assert.Len(t, s.keys("keys.json").Keys, 5)
}
