package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/doctor"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// diagnosis is what doctor says with -o json.
type diagnosis struct {
	doctor.Report
	ExitCode int `json:"exit_code"`

	t    *testing.T
	text string
}

// doctor runs it to the end.
func (r *rig) doctor(args ...string) diagnosis {
	r.t.Helper()
	return r.diagnose(r.command(append([]string{"doctor", "-o", "json"}, args...)...))
}

func (r *rig) diagnose(cmd *exec.Cmd) diagnosis {
	r.t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run()
	d := diagnosis{t: r.t, text: out.String()}
	require.NoError(r.t, json.Unmarshal(out.Bytes(), &d), "%s%s", out.String(), errs.String())
	assert.Equal(r.t, d.ExitCode, cmd.ProcessState.ExitCode())
	assert.Empty(r.t, errs.String())
	for _, c := range d.Checks {
		if c.Status == doctor.Failed || c.Status == doctor.Warning {
			assert.NotEmpty(r.t, c.Fix, "%+v: says what to do", c)
		}
	}
	return d
}

// has finds a check of this name and status whose subject and detail hold a text.
func (d diagnosis) has(name string, status doctor.Status, text string) doctor.Check {
	d.t.Helper()
	for _, c := range d.Checks {
		if c.Name == name && c.Status == status && strings.Contains(c.Subject+": "+c.Detail, text) {
			return c
		}
	}
	require.Failf(d.t, "no such check", "%s %s with %q in\n%s", name, status, text, d.text)
	return doctor.Check{}
}

// inMemory is a folder on a tmpfs.
func inMemory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "doctor-")
	if err != nil {
		t.Skip("there is no /dev/shm to write to: " + err.Error())
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// plainDrop is a block that writes the tenant's secret.
func (r *rig) plainDrop(name, destination, more string) string {
	return fmt.Sprintf("drop %q {\n  secret = %q\n  destination = %q\n%s}\n", name, r.Path("nexa"), destination, more)
}

const allIsWell = `✓ config      deaddrop.hcl: valid, with 2 drops
✓ credentials role id: from DIR/role_id
✓ credentials secret id: from DIR/secret_id
✓ address     http://127.0.0.1:PORT: 127.0.0.1 answers on port PORT (VAULT_ADDR)
✓ tls         127.0.0.1:PORT: plain HTTP, which does not leave this machine
✓ vault       Vault VERSION: initialised, unsealed, active
✓ clock       as Vault's, to 1s
✓ login       approle at auth/approle: works; this was one use of the secret id, if its uses are limited
✓ token       policy TENANT: lives for 1h0m0s, renewable
✓ secret      secret/tenant/TENANT/nexa: may be read: KV v2, version 1, 2 keys
✓ content     url: the template renders, from 1 secret
✓ content     nexa: can be written as dotenv for compose
✓ logout      token of this check: revoked
✓ folder      MEMORY: is writable, and in memory (tmpfs)
✓ folder      MEMORY/new: is made in MEMORY, and in memory (tmpfs)
✓ file        MEMORY/url: not there yet; will have mode 0600
✓ file        MEMORY/new/nexa.env: not there yet; will have mode 0440
✓ state       DIR/state: only user 0 can write to it
✓ check       true: the program is there; not run
✓ reload      SIGHUP to the process in service.pid: could be told now; not done

All is well: 20 in order.
`

func TestDoctorSaysALineForAllThatIsWell(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"API_KEY": "k v", "URL": "u"})
	r.Manage()
	r.service()
	memory := inMemory(t)
	template := "\ntemplate {\n  contents = \"{{ with secret \\\"" + r.Path("nexa") + "\\\" }}{{ .Data.data.URL }}{{ end }}\"\n  destination = \"" + memory + "/url\"\n}\n"
	r.write("deaddrop.hcl", r.Login(r.dir)+r.plainDrop("nexa", memory+"/new/nexa.env", "dialect = \"compose\"\n perms = \"0440\"\n check { command = [\"true\"] }\n"+reload)+strings.Replace(template, "template {", "template {", 1))
	r.env = append(r.env[:2:2], "NO_COLOR=1")
	out, code := r.deaddrop("doctor", "--config", "deaddrop.hcl")
	require.Zero(t, code, out)
	out = strings.NewReplacer(r.dir, "DIR", r.ID, "TENANT", memory, "MEMORY", portOf(t, r.env[1]), "PORT").Replace(out)
	out = regexp.MustCompile(`(Vault|OpenBao) \d+\.\d+\.\d+\S*:`).ReplaceAllString(out, "Vault VERSION:")
	want := strings.Replace(allIsWell, "content     url", "content     MEMORY/url", 1)
	assert.Equal(t, want, out)
}

func portOf(t *testing.T, variable string) string {
	t.Helper()
	_, address, _ := strings.Cut(variable, "=")
	u, err := url.Parse(address)
	require.NoError(t, err)
	return u.Port()
}

// snapshot is all that there is below a folder: names, sizes, modes and times.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	require.NoError(t, filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil {
			fmt.Fprintln(&all, path, info.Size(), info.Mode(), info.ModTime().UnixNano())
		}
		return err
	}))
	return all.String()
}

func TestDoctorLeavesNoTrace(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	d := newDatabase(t, s, time.Hour, time.Hour)
	d.Put("nexa", map[string]any{"API_KEY": "k"})
	d.Manage()
	d.Grant("sys/capabilities-self", "update")
	d.write("deaddrop.hcl", d.Login(d.dir)+`
drop "db" {
  secret      = "`+d.mount+`/creds/app"
  destination = "db.env"
  check { command = ["touch", "checked"] }
  reload { command = ["touch", "reloaded"] }
}
template {
  destination = "new/out"
  contents    = "{{ with secret \"`+d.mount+`/creds/app\" }}{{ .Data.password }}{{ end }}{{ with secret \"transit/encrypt/x\" \"plaintext=eA==\" }}{{ .Data.ciphertext }}{{ end }}"
}
`)
	before := snapshot(t, d.dir)
	found := d.doctor("--config", "deaddrop.hcl")
	assert.Equal(t, before, snapshot(t, d.dir), "no file is written, and no command is run")
	assert.Empty(t, d.Tokens(), "the token is revoked")
	leases, err := s.Client.Logical().List("sys/leases/lookup/" + d.mount + "/creds/app")
	require.NoError(t, err)
	assert.Nil(t, leases, "nothing is issued")
	found.has("secret", doctor.OK, d.mount+"/creds/app: may be had from the database engine; not tried, as it would issue something")
	found.has("content", doctor.Skipped, "db: not tried")
	found.has("secret", doctor.Failed, "transit/encrypt/x")
	found.has("logout", doctor.OK, "revoked")
}

func TestDoctorWithoutTheDefaultPolicyCannotAskForWhatItMustNotTry(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, vaulttest.Shared(t), time.Hour, time.Hour)
	found := d.doctor("--config", "deaddrop.hcl")
	assert.Zero(t, found.ExitCode, "it is no failure: %s", found.text)
	c := found.has("secret", doctor.Warning, "may not ask (sys/capabilities-self)")
	assert.Contains(t, c.Fix, `path "`+d.mount+`/creds/app" { capabilities = ["read"] }`)
	found.has("logout", doctor.OK, "may not be revoked (auth/token/revoke-self); it ends by itself in 1h0m0s")
}

func TestDoctorNamesMissingRights(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, vaulttest.Shared(t), time.Hour, time.Hour)
	d.Grant("sys/capabilities-self", "update")
	d.Grant("sys/leases/renew", "update")
	d.write("deaddrop.hcl", d.Login(d.dir)+`
drop "db" {
  secret      = "`+d.mount+`/creds/app"
  destination = "db.env"
}
drop "other" {
  secret      = "`+d.mount+`/creds/other"
  destination = "other.env"
}
`)
	found := d.doctor("--config", "deaddrop.hcl")
	assert.Equal(t, exitDenied, found.ExitCode)
	c := found.has("secret", doctor.Failed, d.mount+"/creds/other: permission denied: it may do nothing there, and needs read")
	assert.Contains(t, c.Fix, "add to the policy "+d.ID+":\n  path \""+d.mount+"/creds/other\" { capabilities = [\"read\"] }\n")
	found.has("right", doctor.Warning, "sys/leases/revoke")
	found.has("right", doctor.Warning, "auth/token/renew-self")
	assert.NotContains(t, found.text, `"sys/leases/renew"`)
}

func TestDoctorFindsWhatIsWrongWithSecrets(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	r := newRig(t, s)
	r.Put("nexa", map[string]any{"API_KEY": "a", "SPACED": "a b"})
	gone := "secret/data/tenant/" + r.ID + "/gone"
	r.Allow(gone)
	for name, c := range map[string]struct {
		block  string
		code   int
		check  string
		detail string
		fix    string
	}{
		"denied": {
			"drop \"x\" {\n secret = \"secret/tenant/other/nexa\"\n destination = \"x.json\"\n}", exitDenied,
			"secret", "secret/tenant/other/nexa: permission denied", `path "secret/data/tenant/other/nexa" { capabilities = ["read"] }`,
		},
		"no such engine": {
			"drop \"x\" {\n secret = \"nothing/here\"\n destination = \"x.json\"\n}", exitDenied,
			"secret", "nothing/here: permission denied", `"vault secrets list" shows what is mounted`,
		},
		"missing secret": {
			"drop \"x\" {\n secret = \"secret/tenant/ID/gone\"\n destination = \"x.json\"\n}", exitMissing,
			"secret", "secret/tenant/ID/gone: there is no such secret", "tenantctl tenant set ID gone KEY=-   (or: vault kv put secret/tenant/ID/gone KEY=VALUE)",
		},
		"missing key": {
			"template {\n contents = \"{{ with secret \\\"secret/tenant/ID/nexa\\\" }}{{ .Data.data.API_KEX }}{{ end }}\"\n destination = \"x\"\n}", exitMissing,
			"content", `has no key "API_KEX"`, `did you mean "API_KEY"? Else write it: tenantctl tenant set ID nexa API_KEX=-`,
		},
		"a value that the dialect cannot carry": {
			"drop \"x\" {\n secret = \"secret/tenant/ID/nexa\"\n destination = \"x.env\"\n}", exitFailed,
			"content", `key "SPACED" holds a blank`, "name the reader as the dialect",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r.t = t
			id := strings.NewReplacer("ID", r.ID)
			r.write("deaddrop.hcl", id.Replace(c.block))
			found := r.doctor("--config", "deaddrop.hcl")
			assert.Equal(t, c.code, found.ExitCode, found.text)
			assert.Equal(t, doctor.Failed, found.Overall)
			bad := found.has(c.check, doctor.Failed, id.Replace(c.detail))
			assert.Contains(t, bad.Fix, id.Replace(c.fix))
		})
	}
}

func TestDoctorSortsFailuresLikeRender(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Allow("secret/data/tenant/" + r.ID + "/gone")
	r.write("deaddrop.hcl", "drop \"a\" {\n secret = \""+r.Path("gone")+"\"\n destination = \"a.json\"\n check { command = [\"no-such-check\"] }\n}\ndrop \"b\" {\n secret = \"secret/tenant/other/nexa\"\n destination = \"b.json\"\n}")
	found := r.doctor("--config", "deaddrop.hcl")
	found.has("check", doctor.Failed, "no-such-check")
	found.has("secret", doctor.Failed, "no such secret")
	found.has("secret", doctor.Failed, "permission denied")
	assert.Equal(t, exitDenied, found.ExitCode)
}

func TestDoctorFollowsTenants(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	r := newRig(t, s)
	folder := "secret/" + r.ID
	for path, pairs := range map[string]map[string]any{"one/nexa": {"K": "v"}, "two/nexa": {"K": "v"}, "three/other": {"K": "v"}} {
		_, err := s.Client.Logical().Write("secret/data/"+r.ID+"/"+path, map[string]any{"data": r.mark(pairs)})
		require.NoError(t, err)
	}
	r.write("deaddrop.hcl", `
drop "nexa" {
  for_each    = "`+folder+`/*"
  secret      = "`+folder+`/${each.key}/nexa"
  destination = "out/${each.key}/nexa.json"
}
`)
	found := r.doctor("--config", "deaddrop.hcl")
	assert.Equal(t, exitDenied, found.ExitCode)
	c := found.has("tenants", doctor.Failed, folder+"/: permission denied")
	assert.Contains(t, c.Fix, `path "secret/metadata/`+r.ID+`/" { capabilities = ["list"] }`)

	r.Grant("secret/metadata/"+r.ID+"/", "list")
	r.Allow("secret/data/" + r.ID + "/+/nexa")
	found = r.doctor("--config", "deaddrop.hcl")
	assert.Zero(t, found.ExitCode, found.text)
	found.has("tenants", doctor.OK, "3 tenants")
	found.has("secret", doctor.OK, folder+"/one/nexa")
	found.has("secret", doctor.Skipped, folder+"/three/nexa: its tenant has no such secret")
	found.has("file", doctor.OK, "out/two/nexa.json")

	r.write("deaddrop.hcl", strings.ReplaceAll(r.read("deaddrop.hcl"), "}/nexa\"", "}/nexus\""))
	r.Allow("secret/data/" + r.ID + "/+/nexus")
	found = r.doctor("--config", "deaddrop.hcl")
	assert.Zero(t, found.ExitCode, found.text)
	found.has("tenants", doctor.Warning, "nexa: no tenant has the secret")
}

func TestDoctorOfASealedVault(t *testing.T) {
	t.Parallel()
	s := vaulttest.Own(t, "-sealed")
	dir := t.TempDir()
	r := &rig{t: t, dir: dir, env: []string{"VAULT_ADDR=" + s.Address, "VAULT_ROLE_ID=r", "VAULT_SECRET_ID=s"}}
	found := r.doctor("--secret", "secret/tenant/demo/nexa", "--out", "nexa.env")
	assert.Equal(t, exitUnreachable, found.ExitCode)
	c := found.has("vault", doctor.Failed, "it is sealed")
	assert.Contains(t, c.Fix, "vault operator unseal")
	found.has("login", doctor.Skipped, "as Vault does not serve")
	found.has("folder", doctor.Warning, "on a disk") // What does not need Vault is looked at all the same.
}

func TestDoctorFindsOutWhyVaultIsNotReached(t *testing.T) {
	t.Parallel()
	free := vaulttest.FreeAddress(t)
	s := vaulttest.Own(t, "-tls")
	for name, c := range map[string]struct {
		env           []string
		check, detail string
		fix           string
	}{
		"nobody listens":      {[]string{"VAULT_ADDR=http://" + free}, "address", free + " refuses the connection", "In a container, 127.0.0.1 is the container itself"},
		"no such name":        {[]string{"VAULT_ADDR=https://vault.invalid:8200"}, "address", "the name vault.invalid is not found", "is the address right"},
		"no such socket":      {[]string{"VAULT_ADDR=unix:///nowhere/vault.sock"}, "address", "no such file", "does it listen at /nowhere/vault.sock?"},
		"proxy is not there":  {[]string{"VAULT_ADDR=https://vault.invalid", "HTTPS_PROXY=http://user:pass@" + free}, "address", "http://user:xxxxx@" + free + " (HTTPS_PROXY), which does not answer", "NO_PROXY=vault.invalid"},
		"authority not known": {[]string{"VAULT_ADDR=" + s.Address}, "tls", "is not known here: CN=devvault CA", "set VAULT_CACERT="},
		"HTTP to HTTPS":       {[]string{"VAULT_ADDR=" + strings.Replace(s.Address, "https", "http", 1)}, "vault", "400", "write https:// in the address"},
		"HTTPS to HTTP":       {[]string{"VAULT_ADDR=" + strings.Replace(vaulttest.Shared(t).Address, "http:", "https:", 1)}, "tls", "does not speak TLS", "write http://"},
		"wrong server name":   {[]string{"VAULT_ADDR=" + s.Address, "VAULT_CACERT=" + s.CAFile, "VAULT_TLS_SERVER_NAME=vault.example"}, "tls", "not for vault.example; it is for localhost, 127.0.0.1, ::1", "VAULT_TLS_SERVER_NAME=localhost"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &rig{t: t, dir: t.TempDir(), env: append(c.env, "VAULT_ROLE_ID=r", "VAULT_SECRET_ID=s")}
			found := r.doctor("--secret", "secret/tenant/demo/nexa", "--out", "nexa.env")
			assert.Equal(t, exitUnreachable, found.ExitCode, found.text)
			assert.Contains(t, found.has(c.check, doctor.Failed, c.detail).Fix, c.fix)
			assert.NotContains(t, found.text, "pass@")
		})
	}
}

func TestDoctorWarnsOfACertificateThatIsNotVerified(t *testing.T) {
	t.Parallel()
	s := vaulttest.Own(t, "-tls")
	r := newRig(t, s)
	r.Put("nexa", map[string]any{"K": "v"})
	found := r.doctor("--secret", r.Path("nexa"), "--out", "nexa.env")
	assert.Zero(t, found.ExitCode)
	found.has("tls", doctor.OK, "valid until")
	r.env = append(r.env[:4:4], "VAULT_SKIP_VERIFY=true")
	found = r.doctor("--secret", r.Path("nexa"), "--out", "nexa.env")
	assert.Zero(t, found.ExitCode)
	assert.Equal(t, doctor.Warning, found.Overall)
	found.has("tls", doctor.Warning, "is not verified")
}

// TestDoctorReadsCertificates puts a listener in front of Vault, as there is no way to
// give Vault a certificate that is bad in these ways at once.
func TestDoctorReadsCertificates(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	r := newRig(t, s)
	r.Put("nexa", map[string]any{"K": "v"})
	now := time.Now()
	for name, c := range map[string]struct {
		from, until time.Time
		names       []string
		status      doctor.Status
		details     []string
	}{
		"expired":            {now.Add(-48 * time.Hour), now.Add(-24 * time.Hour), []string{"127.0.0.1"}, doctor.Failed, []string{"has expired"}},
		"not valid yet":      {now.Add(24 * time.Hour), now.Add(48 * time.Hour), []string{"127.0.0.1"}, doctor.Failed, []string{"is not valid yet"}},
		"expired and wrong":  {now.Add(-48 * time.Hour), now.Add(-24 * time.Hour), []string{"vault.example"}, doctor.Failed, []string{"has expired", "not for 127.0.0.1; it is for vault.example"}},
		"ends in days":       {now.Add(-360 * 24 * time.Hour), now.Add(5*24*time.Hour + time.Hour), []string{"127.0.0.1"}, doctor.Warning, []string{"ends in 5 days"}},
		"ends in weeks":      {now.Add(-360 * 24 * time.Hour), now.Add(20*24*time.Hour + time.Hour), []string{"127.0.0.1"}, doctor.Warning, []string{"ends in 20 days"}},
		"short-lived, fresh": {now.Add(-time.Hour), now.Add(23 * time.Hour), []string{"127.0.0.1"}, doctor.OK, []string{"valid until"}},
	} {
		t.Run(name, func(t *testing.T) {
			r.t = t
			address, ca := inFrontOf(t, s.Address, c.from, c.until, c.names)
			r.env = []string{"VAULT_ADDR=" + address, "VAULT_CACERT=" + ca, "VAULT_ROLE_ID=" + r.RoleID, "VAULT_SECRET_ID=" + r.SecretID}
			found := r.doctor("--secret", r.Path("nexa"), "--out", "nexa.env")
			for _, detail := range c.details {
				found.has("tls", c.status, detail)
			}
			code := exitOK
			if c.status == doctor.Failed {
				code = exitUnreachable
				found.has("login", doctor.Skipped, "there is no safe connection to Vault")
			}
			assert.Equal(t, code, found.ExitCode, found.text)
			assert.NotContains(t, found.text, "the authority that signed", "it is known, whatever else is wrong")
		})
	}
}

// inFrontOf serves a Vault with a certificate of an authority whose own one is in the
// file ca.
func inFrontOf(t *testing.T, vault string, from, until time.Time, names []string) (address, ca string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "doctor's test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: from.Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	root, err := x509.CreateCertificate(rand.Reader, authority, authority, key.Public(), key)
	require.NoError(t, err)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: from, NotAfter: until, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, name)
		}
	}
	cert, err := x509.CreateCertificate(rand.Reader, leaf, authority, key.Public(), key)
	require.NoError(t, err)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}})
	require.NoError(t, err)
	target, err := url.Parse(vault)
	require.NoError(t, err)
	server := &http.Server{Handler: httputil.NewSingleHostReverseProxy(target), ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	ca = filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root}), 0o600))
	return "https://" + listener.Addr().String(), ca
}

// through is a proxy in front of Vault, which does something of its own.
func through(t *testing.T, s *vaulttest.Server, with func(*httputil.ReverseProxy) http.Handler) (address string) {
	t.Helper()
	target, err := url.Parse(s.Address)
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{Handler: with(httputil.NewSingleHostReverseProxy(target))}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return "http://" + listener.Addr().String()
}

func TestDoctorWarnsOfAClockThatIsWrong(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	r := newRig(t, s)
	r.Put("nexa", map[string]any{"K": "v"})
	r.env = append(r.env, "VAULT_ADDR="+through(t, s, func(proxy *httputil.ReverseProxy) http.Handler {
		proxy.ModifyResponse = func(answer *http.Response) error {
			answer.Header.Set("Date", time.Now().Add(-10*time.Minute).UTC().Format(http.TimeFormat))
			return nil
		}
		return proxy
	}))
	found := r.doctor("--secret", r.Path("nexa"), "--out", "nexa.env")
	assert.Zero(t, found.ExitCode)
	assert.Regexp(t, `^this machine's clock is (10m|9m)[0-9]+s ahead of Vault's$`, found.has("clock", doctor.Warning, "").Detail)
}

func TestDoctorOfALoginThatFails(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	for name, c := range map[string]struct {
		change func(*rig)
		detail string
		fix    string
	}{
		"wrong secret id": {func(r *rig) { r.env = append(r.env, "VAULT_SECRET_ID=nonsense") }, "invalid role or secret ID", "vault write -f auth/approle/role/ROLE/secret-id"},
		"wrong role id":   {func(r *rig) { r.env = append(r.env, "VAULT_ROLE_ID=nonsense") }, "invalid role or secret ID", "vault read auth/approle/role/ROLE/role-id"},
		"no secret id":    {withoutSecretID, "missing secret_id", "if the role wants a secret id, give it by VAULT_SECRET_ID"},
		"address not allowed": {func(r *rig) {
			r.Role(map[string]any{"secret_id_bound_cidrs": "192.0.2.0/24"})
			r.NewSecretID()
			r.env = append(r.env, "VAULT_SECRET_ID="+r.SecretID)
		}, "CIDR", "secret_id_bound_cidrs"},
		"token that has ended": {func(r *rig) { r.env = append(r.env[:2:2], "VAULT_TOKEN=hvs.nonsense") }, "the token is not valid", "deliver a new one"},
		"no such mount": {func(r *rig) {
			r.write("deaddrop.hcl", "auto_auth {\n  method \"approle\" {\n    mount_path = \"auth/nothing\"\n  }\n}\n"+r.plainDrop("nexa", "nexa.env", ""))
		}, "permission denied", "vault auth list"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, s)
			r.write("deaddrop.hcl", r.plainDrop("nexa", "nexa.env", ""))
			c.change(r)
			found := r.doctor("--config", "deaddrop.hcl")
			assert.Equal(t, exitDenied, found.ExitCode, found.text)
			assert.Contains(t, found.has("login", doctor.Failed, c.detail).Fix, c.fix)
			found.has("secret", doctor.Skipped, "as the login failed")
		})
	}
}

// withoutSecretID takes the secret id out of the environment.
func withoutSecretID(r *rig) {
	r.env = slices.DeleteFunc(slices.Clone(r.env), func(pair string) bool { return strings.HasPrefix(pair, "VAULT_SECRET_ID=") })
}

func TestDoctor_KnowsALoginWithTheRoleIDAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"K": "v"})
	r.Role(map[string]any{"bind_secret_id": false, "token_bound_cidrs": "127.0.0.0/8"})
	withoutSecretID(r)
	r.write("deaddrop.hcl", r.plainDrop("nexa", "nexa.env", ""))
	found := r.doctor("--config", "deaddrop.hcl")
	assert.Equal(t, exitOK, found.ExitCode, found.text)
	found.has("credentials", doctor.OK, "none: the login is with the role id alone")
	found.has("login", doctor.OK, "works, with the role id alone")
}

func TestDoctorLeavesAWrappedSecretIDToTheAgent(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	r := newRig(t, s)
	r.Put("nexa", map[string]any{"K": "v"})
	path := "auth/approle/role/" + r.ID + "/secret-id"
	wrapper, err := s.Client.Clone()
	require.NoError(t, err)
	wrapper.SetToken(s.RootToken)
	wrapper.SetWrappingLookupFunc(func(string, string) string { return "5m" })
	answer, err := wrapper.Logical().Write(path, nil)
	require.NoError(t, err)
	r.write("wrapped", answer.WrapInfo.Token)
	r.write("deaddrop.hcl", `auto_auth {
  method "approle" {
    config = { secret_id_file_path = "wrapped", secret_id_response_wrapping_path = "`+path+`" }
  }
}
`+r.plainDrop("nexa", "nexa.json", ""))
	r.env = r.env[:3]
	found := r.doctor("--config", "deaddrop.hcl")
	assert.Zero(t, found.ExitCode, found.text)
	found.has("login", doctor.Skipped, "that is left to the agent; the wrapping token is valid still")
	found.has("secret", doctor.Skipped, "left to the agent")
	assert.FileExists(t, r.path("wrapped"))

	_, err = s.Client.Logical().Unwrap(answer.WrapInfo.Token)
	require.NoError(t, err, "it was not used up")
	found = r.doctor("--config", "deaddrop.hcl")
	assert.Equal(t, exitDenied, found.ExitCode)
	assert.Contains(t, found.has("login", doctor.Failed, "it was used already, or has expired").Fix, "vault write -wrap-ttl=5m -f "+path)
}

func TestDoctorWarnsOfTokensThatAreUnwise(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	for name, c := range map[string]struct {
		change func(*rig)
		detail string
	}{
		"root":     {func(r *rig) { r.env = append(r.env[:2:2], "VAULT_TOKEN="+s.RootToken) }, "policy root: it may do everything"},
		"short":    {func(r *rig) { r.Role(map[string]any{"token_ttl": "30s"}) }, "it lives for 30s, and secrets are looked at every 15s"},
		"few uses": {func(r *rig) { r.Role(map[string]any{"token_num_uses": 50}) }, "good for 50 requests only"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, s)
			r.Put("nexa", map[string]any{"K": "v"})
			c.change(r)
			found := r.doctor("--secret", r.Path("nexa"), "--out", "nexa.env")
			assert.Zero(t, found.ExitCode, found.text)
			found.has("token", doctor.Warning, c.detail)
			found.has("secret", doctor.OK, "version 1, 1 key")
		})
	}
}

func TestDoctorStopsWhenATokenIsUsedUp(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"K": "v"})
	r.Put("smtp", map[string]any{"K": "v"})
	r.AllowAll()
	r.Role(map[string]any{"token_num_uses": 1})
	r.write("deaddrop.hcl", r.plainDrop("a", "a.env", "")+"drop \"b\" {\n  secret = \""+r.Path("smtp")+"\"\n  destination = \"b.env\"\n}\n")
	found := r.doctor("--config", "deaddrop.hcl")
	assert.Zero(t, found.ExitCode, found.text)
	found.has("secret", doctor.Skipped, "the token was good for 1 request only")
	assert.Empty(t, r.Tokens(), "it has logged in once")
}

func TestDoctorWarnsOfIDsThatAllMayRead(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"K": "v"})
	r.write("deaddrop.hcl", r.Login(r.dir)+r.plainDrop("nexa", "nexa.env", ""))
	require.NoError(t, os.Chmod(r.path("secret_id"), 0o644))
	r.env = r.env[:2]
	found := r.doctor("--config", "deaddrop.hcl")
	assert.Zero(t, found.ExitCode)
	assert.Equal(t, "chmod 0400 "+r.path("secret_id"), found.has("credentials", doctor.Warning, "every user of this machine may read").Fix)

	r.write("deaddrop.hcl", "auto_auth {\n  method \"approle\" {\n    config = { role_id = \""+r.RoleID+"\", secret_id = \""+r.SecretID+"\" }\n  }\n}\n"+r.plainDrop("nexa", "nexa.env", ""))
	require.NoError(t, os.Chmod(r.path("deaddrop.hcl"), 0o644))
	found = r.doctor("--config", "deaddrop.hcl")
	assert.Contains(t, found.has("credentials", doctor.Warning, "it stands in deaddrop.hcl, which every user").Fix, "chmod 0600 deaddrop.hcl")
	assert.NotContains(t, found.text, r.SecretID)

	r.write("deaddrop.hcl", r.plainDrop("nexa", "nexa.env", ""))
	r.env = append(r.env, "VAULT_ROLE_ID=nexa", "VAULT_SECRET_ID=tenant") // which are words of the configuration, too
	found = r.doctor("--config", "deaddrop.hcl")
	found.has("credentials", doctor.OK, "from VAULT_ROLE_ID")
	found.has("credentials", doctor.OK, "from VAULT_SECRET_ID")
}

func TestDoctorLooksAtDestinations(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	memory := inMemory(t)
	open := filepath.Join(memory, "open")
	require.NoError(t, os.Mkdir(open, 0o700))
	require.NoError(t, os.Chmod(open, 0o777))
	real, link := filepath.Join(memory, "real"), filepath.Join(memory, "link")
	require.NoError(t, os.Mkdir(real, 0o700))
	require.NoError(t, os.Symlink(real, link))
	there := filepath.Join(memory, "there.json")
	require.NoError(t, os.WriteFile(there, []byte("{}"), 0o600))
	require.NoError(t, os.Chmod(there, 0o644))
	for name, c := range map[string]struct {
		destination, more string
		status            doctor.Status
		check             string
		detail, fix       string
	}{
		"disk":                       {"nexa.json", "", doctor.Warning, "folder", "on a disk", "type: tmpfs"},
		"disk, required":             {"nexa.json", "require_tmpfs = true\n", doctor.Failed, "folder", "require_tmpfs = true: it is on a disk", "RuntimeDirectory="},
		"open to all":                {open + "/nexa.json", "", doctor.Warning, "folder", "every user of this machine may write", "chmod o-w " + open},
		"open to all, strict":        {open + "/nexa.json", "strict = true\n", doctor.Failed, "folder", "strict = true: it may be written to by every user (mode 0777)", "chmod go-w " + open},
		"parent open to all, strict": {open + "/new/nexa.json", "strict = true\n", doctor.Failed, "folder", "strict = true: " + open + " may be written to by every user (mode 0777)", "chmod go-w " + open},
		"link, strict":               {link + "/nexa.json", "strict = true\n", doctor.Failed, "folder", "strict = true: it is a symbolic link to " + real, "use the path without it: " + real},
		"no folder":                  {memory + "/a/nexa.json", "create_dest_dirs = false\n", doctor.Failed, "folder", "it does not exist", "mkdir -m 0700 -p " + memory + "/a"},
		"file in the way":            {there + "/nexa.json", "", doctor.Failed, "folder", there + " is not a folder", "choose another destination"},
		"other mode":                 {there, "", doctor.Warning, "file", "its mode is 0644, not 0600", "chmod 0600 " + there + "\nOr, if others are to read it: perms = \"0644\""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, s)
			r.Put("nexa", map[string]any{"K": "v"})
			r.write("deaddrop.hcl", r.plainDrop("nexa", c.destination, c.more))
			found := r.doctor("--config", "deaddrop.hcl")
			assert.Contains(t, found.has(c.check, c.status, c.detail).Fix, c.fix)
			code := exitOK
			if c.status == doctor.Failed {
				code = exitFailed
			}
			assert.Equal(t, code, found.ExitCode, found.text)
		})
	}
}

func TestDoctorAsAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"K": "v"})
	for dir := r.dir; dir != "/"; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o001 == 0 {
			require.NoError(t, os.Chmod(dir, info.Mode().Perm()|0o011))
		}
	}
	memory := inMemory(t)
	require.NoError(t, os.Chmod(memory, 0o755))
	require.NoError(t, os.Mkdir(filepath.Join(memory, "own"), 0o700))
	require.NoError(t, os.Chown(filepath.Join(memory, "own"), 65532, 65532))
	config := r.plainDrop("closed", memory+"/nexa.json", "") + r.plainDrop("given", memory+"/own/nexa.json", "user = \"0\"\n") +
		r.plainDrop("grouped", memory+"/own/nexa.env", "group = \"0\"\n") + r.plainDrop("system", "/run/nexa.json", "")
	r.write("deaddrop.hcl", config)
	require.NoError(t, os.Chmod(r.path("deaddrop.hcl"), 0o644))
	cmd := r.command("doctor", "-o", "json", "--config", "deaddrop.hcl")
	binary := filepath.Join(memory, "doctor.test") // That of the tests is in a closed folder.
	installSelf(t, binary)
	cmd.Path = binary
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
	found := r.diagnose(cmd)
	assert.Equal(t, exitFailed, found.ExitCode)
	assert.Contains(t, found.has("folder", doctor.Failed, "user 65532 may not write to "+memory+", which belongs to 0:0 with mode 0755").Fix, "install -d -m 0700 -o 65532 "+memory)
	found.has("folder", doctor.OK, memory+"/own: is writable")
	assert.Contains(t, found.has("file", doctor.Failed, "user 65532 cannot give it to user 0").Fix, "cap_add: [ CHOWN ]")
	assert.Contains(t, found.has("file", doctor.Failed, "group 0, which it is not in").Fix, `group_add: [ "0" ]`)
	system := found.has("folder", doctor.Failed, "may not write to /run")
	assert.Contains(t, system.Fix, "such as /run/deaddrop")
	assert.NotContains(t, system.Fix, "-o 65532 /run ", "nobody is told to give /run away")
}

func TestDoctorLooksAtChecksAndReloads(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"K": "v"})
	r.write("plain", "no program")
	r.write("deaddrop.hcl", r.plainDrop("nexa", inMemory(t)+"/nexa.json", `
  check  { command = ["no-such-check", "{{.Path}}"] }
  reload {
    pid_file = "nobody.pid"
    signal   = "HUP"
  }
  reload { command = ["./plain"] }
  reload {
    container   = "nexa"
    signal      = "HUP"
    docker_host = "unix:///nowhere/docker.sock"
  }
`))
	found := r.doctor("--config", "deaddrop.hcl")
	assert.Equal(t, exitFailed, found.ExitCode)
	assert.Contains(t, found.has("check", doctor.Failed, "there is no program no-such-check").Fix, "install it, or write its full path")
	found.has("reload", doctor.Warning, "pid file nobody.pid does not exist")
	found.has("reload", doctor.Failed, "./plain")
	assert.Contains(t, found.has("reload", doctor.Failed, "there is no Docker socket /nowhere/docker.sock").Fix, "mount it into the agent's container")
}

func TestDoctor_ExplainsAPIDFileOfTheWrongUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can make files of two users")
	}
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"K": "v"})
	r.service()
	require.NoError(t, os.Chown(r.path("service.pid"), 1234, -1))
	r.write("deaddrop.hcl", r.plainDrop("nexa", inMemory(t)+"/nexa.json", reload))
	found := r.doctor("--config", "deaddrop.hcl")
	assert.Contains(t, found.has("reload", doctor.Failed, "pid file service.pid belongs to user 1234, but process").Fix, "set expect_user to the user of the service's process")
	r.write("deaddrop.hcl", r.plainDrop("nexa", inMemory(t)+"/nexa.json", strings.Replace(reload, "\n", "\n    expect_user = \"0\"\n", 1)))
	r.doctor("--config", "deaddrop.hcl").has("reload", doctor.OK, "could be told now")
}

func TestDoctorOfABadConfiguration(t *testing.T) {
	t.Parallel()
	r := &rig{t: t, dir: t.TempDir()}
	r.env = []string{"VAULT_TOKEN=t"}
	r.write("deaddrop.hcl", "drop \"x\" {\n  secrt = \"a/b\"\n  destination = \"x.env\"\n}\n")
	found := r.doctor("--config", "deaddrop.hcl")
	assert.Equal(t, exitUsage, found.ExitCode)
	found.has("config", doctor.Failed, "deaddrop.hcl:2:3")
	found.has("all else", doctor.Skipped, "as the configuration is wrong")

	out, code := r.deaddrop("doctor")
	assert.Equal(t, exitUsage, code)
	assert.Contains(t, out, "--config FILE")
	out, code = r.deaddrop("doctor", "--config", "deaddrop.hcl", "-o", "/run/nexa.env")
	assert.Equal(t, exitUsage, code)
	assert.Contains(t, out, "the file to write is --out")
}

func TestDoctorListsWarningsOfTheConfiguration(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"K": "v"})
	r.write("deaddrop.hcl", "cache {}\n"+r.plainDrop("nexa", "nexa.env", ""))
	found := r.doctor("--config", "deaddrop.hcl")
	assert.Zero(t, found.ExitCode, found.text)
	found.has("config", doctor.Warning, "deaddrop.hcl:1:1: cache")
}

func TestDoctorLooksAtListeners(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = busy.Close() }()
	for name, c := range map[string]struct {
		address string
		status  doctor.Status
		detail  string
	}{
		"free":       {vaulttest.FreeAddress(t), doctor.OK, "is free"},
		"answered":   {busy.Addr().String(), doctor.OK, "answers already"},
		"not ours":   {"192.0.2.1:9102", doctor.Failed, "cannot be listened at"},
		"everywhere": {strings.Replace(vaulttest.FreeAddress(t), "127.0.0.1", "0.0.0.0", 1), doctor.Warning, "whoever reaches this machine"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, s)
			r.Put("nexa", map[string]any{"K": "v"})
			r.write("deaddrop.hcl", "listener \"tcp\" {\n  role = \"status\"\n  address = \""+c.address+"\"\n  tls_disable = true\n}\n"+r.plainDrop("nexa", "nexa.env", ""))
			found := r.doctor("--config", "deaddrop.hcl")
			found.has("listener", c.status, c.detail)
		})
	}
}

func TestDoctorLooksAtSetsAndCommands(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"K": "v"})
	r.write("deaddrop.hcl", `
set "pair" {
  destination = "pair"
  drop "a" {
    secret      = "`+r.Path("nexa")+`"
    destination = "a.json"
  }
  drop "b" {
    secret      = "`+r.Path("nexa")+`"
    destination = "b.json"
  }
  check { command = ["no-such-check"] }
}
env_template "K" { contents = "{{ with secret \"`+r.Path("nexa")+`\" }}{{ .Data.data.K }}{{ end }}" }
env_template "L" { contents = "{{ with secret \"`+r.Path("nexa")+`\" }}{{ .Data.data.L }}{{ end }}" }
exec { command = ["no-such-command"] }
`)
	require.NoError(t, os.Mkdir(r.path("pair"), 0o700))
	require.NoError(t, os.Symlink("..data/a.json", r.path("pair/a.json")))
	require.NoError(t, os.Mkdir(r.path("pair/b.json"), 0o700))
	found := r.doctor("--config", "deaddrop.hcl")
	assert.Equal(t, exitMissing, found.ExitCode)
	found.has("file", doctor.OK, "pair/a.json")
	assert.Contains(t, found.has("file", doctor.Failed, "pair/b.json: is a folder").Fix, "name a file in it")
	found.has("check", doctor.Failed, "no-such-check")
	found.has("exec", doctor.Failed, "no-such-command")
	found.has("content", doctor.OK, "variable K")
	found.has("content", doctor.Failed, "variable L")
}

func TestDoctorTakesNoLongerThanItMay(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	p := s.Proxy(t)
	p.Poison("timeout", `"timeout": 0`)
	r := newRig(t, s)
	r.env = append(r.env, "VAULT_ADDR="+p.Address)
	found := r.doctor("--secret", r.Path("nexa"), "--out", "nexa.env", "--timeout", "1s")
	assert.Equal(t, exitUnreachable, found.ExitCode)
	found.has("vault", doctor.Failed, "no answer from "+p.Address+" in time")
}

func TestDoctorSaysWhatToDoWhereOnlyTheLoginHangs(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	r := newRig(t, s)
	r.env = append(r.env, "VAULT_ADDR="+through(t, s, func(proxy *httputil.ReverseProxy) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if q.URL.Path == "/v1/auth/approle/login" {
				_, _ = io.Copy(io.Discard, q.Body) // Else it would not hear of the end.
				<-q.Context().Done()
				return
			}
			proxy.ServeHTTP(w, q)
		})
	}))
	found := r.doctor("--secret", r.Path("nexa"), "--out", "nexa.env", "--timeout", "5s")
	assert.Equal(t, exitUnreachable, found.ExitCode)
	assert.Contains(t, found.has("login", doctor.Failed, "in time").Fix, "its own log may say why; or give a longer --timeout")
}

func TestDoctorPrintsColoursAndFoldsWhatIsAlike(t *testing.T) {
	t.Parallel()
	report := doctor.Report{Overall: doctor.Failed}
	for i := range 13 {
		report.Checks = append(report.Checks, doctor.Check{Name: "secret", Subject: fmt.Sprint("s", i), Status: doctor.OK, Detail: "may be read"})
	}
	report.Checks = append(report.Checks, doctor.Check{Name: "file", Subject: "f\x1b[2J", Status: doctor.Failed, Detail: "bad", Fix: "do\nthis"})
	var plain, coloured bytes.Buffer
	require.NoError(t, report.Print(&plain, false))
	require.NoError(t, report.Print(&coloured, true))
	assert.Contains(t, plain.String(), "✓ secret      s9: may be read\n✓ secret      … and 3 more alike (-o json shows them)\n✗ file        f\\x1b[2J: bad\n    do\n    this\n")
	assert.NotContains(t, plain.String(), "\x1b")
	assert.Contains(t, coloured.String(), "\x1b[32m✓\x1b[0m secret      s0")
	assert.Contains(t, coloured.String(), "\x1b[31m✗\x1b[0m file")
}
