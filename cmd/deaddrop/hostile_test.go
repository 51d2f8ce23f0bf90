package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/vaulttest"
	"github.com/smarteros/deaddrop/render"
)

// In these tests the agent is root, and the folder "out" belongs to an attacker: the user
// of the service that reads the files.

// attacked returns a rig with a folder of the attacker.
func attacked(t *testing.T, r *rig) *rig {
	t.Helper()
	r.folderOfNobody("out")
	return r
}

// folderOfNobody makes a folder of the rig that another user owns and can reach.
func (r *rig) folderOfNobody(name string) string {
	r.t.Helper()
	if os.Geteuid() != 0 {
		r.t.Skip("only root can write for another user, and be attacked by one")
	}
	dir := r.path(name)
	require.NoError(r.t, os.Mkdir(dir, 0o755))
	require.NoError(r.t, os.Chown(dir, nobody, nobody))
	for _, folder := range []string{filepath.Dir(r.dir), r.dir, dir} {
		require.NoError(r.t, os.Chmod(folder, 0o755))
	}
	return dir
}

// attack runs a shell script as the attacker, in the folder of the attacker.
func (r *rig) attack(script string, args ...any) {
	r.t.Helper()
	runAsNobody(r.t, r.path("out"), fmt.Sprintf(script, args...))
}

// runAsNobody runs a shell script as the other user.
func runAsNobody(t *testing.T, dir, script string) {
	t.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// plant writes a file of the attacker.
func (r *rig) plant(name, content string) {
	r.t.Helper()
	path := r.path("out/" + name)
	require.NoError(r.t, os.WriteFile(path, []byte(content), 0o600))
	require.NoError(r.t, os.Chown(path, nobody, nobody))
}

// once renders once, which must succeed unless want says otherwise.
func (r *rig) once(config string, want ...int) string {
	r.t.Helper()
	out, code := r.deaddrop("render", "--config", config, "--timeout", "20s")
	assert.Contains(r.t, append(want, 0), code, out)
	return out
}

func pemText(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// forgery is a certificate of the attacker's own authority over somebody's key.
func forgery(t *testing.T, over *ecdsa.PrivateKey) (cert, ca string) {
	t.Helper()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "attacker"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, authority, authority, caKey.Public(), caKey)
	require.NoError(t, err)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(0xa1), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, leaf, authority, over.Public(), caKey)
	require.NoError(t, err)
	return pemText("CERTIFICATE", der), pemText("CERTIFICATE", caDER)
}

func TestHostileFolder_NeverGetsAPrivateKeyOfRoot(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	r := attacked(t, newRig(t, s))
	mount := s.PKI(t)
	r.Grant(mount+"/issue/web", "update")
	victim, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	victimDER, err := x509.MarshalECPrivateKey(victim)
	require.NoError(t, err)
	key := pemText("EC PRIVATE KEY", victimDER)
	r.write("root.key", key)
	one := func(destination, what string) string {
		return `template {
  destination = "` + destination + `"
  contents    = "{{ with pkiCert \"` + mount + `/issue/web\" \"common_name=a.example\" \"ttl=2h\" }}{{ .` + what + ` }}{{ end }}"
}
`
	}
	config := r.write("web.hcl", r.Login(r.dir)+one("out/web.Cert", "Cert")+one("out/web.Key", "Key")+one("out/web.CA", "CA")+
		one("safe/web.Cert", "Cert")+one("safe/web.Key", "Key")+one("safe/web.CA", "CA"))
	request, err := render.ParseRequest(mount+"/issue/web", "common_name=a.example", "ttl=2h")
	require.NoError(t, err)
	sum := sha256.Sum256([]byte(request.Fingerprint()))
	forged := func(leaf, content string) string {
		of := sha256.Sum256([]byte(content))
		return `{"certificates": [{"request": "` + hex.EncodeToString(sum[:]) + `", "serial": "a1", "issued": "` + time.Now().UTC().Format(time.RFC3339) + `"}], "contents": ["` + hex.EncodeToString(of[:]) + `"]}`
	}

	cert, ca := forgery(t, victim)
	r.plant("web.Cert", cert+ca)
	r.plant(".web.Cert.deaddrop", forged(cert, cert+ca))
	r.plant(".web.CA.deaddrop", forged(cert, key))
	r.attack("ln -s %s web.CA", r.path("root.key"))
	out := r.once(config, exitFailed)
	assert.Contains(t, out, "out/web.CA is a symbolic link")
	assert.FileExists(t, r.path("safe/web.Key"), "the attacker stops nobody else's files")
	for _, folder := range []string{"out", "safe"} {
		require.NoError(t, filepath.WalkDir(r.path(folder), func(path string, d os.DirEntry, err error) error {
			require.NoError(t, err)
			if d.Type().IsRegular() {
				content, err := os.ReadFile(path)
				require.NoError(t, err)
				assert.NotContains(t, string(content), strings.Split(key, "\n")[1], path)
				assert.NotContains(t, string(content), strings.Split(ca, "\n")[2], "the attacker's authority")
			}
			return nil
		}))
	}

	// With a key of the attacker's own the files of root alone must stay true, too.
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	ownDER, err := x509.MarshalECPrivateKey(own)
	require.NoError(t, err)
	cert, ca = forgery(t, own)
	all := cert + ca + pemText("EC PRIVATE KEY", ownDER)
	r.attack("rm -f web.CA web.Cert web.Key")
	for _, name := range []string{"web.Cert", "web.Key", "web.CA"} {
		r.plant(name, all)
		r.plant("."+name+".deaddrop", forged(cert, all))
	}
	require.NoError(t, os.RemoveAll(r.path("safe")))
	r.once(config)
	assert.NotContains(t, r.read("safe/web.CA"), strings.Split(ca, "\n")[2])
	assert.NotEmpty(t, r.read("safe/web.CA"))
	assert.NotContains(t, r.read("safe/web.Key"), strings.Split(all, "\n")[1])
}

func TestHostileFolder_RevokesNoLeaseOfOthers(t *testing.T) {
	t.Parallel()
	s := vaulttest.Own(t)
	r := attacked(t, newRig(t, s))
	r.Manage()
	r.Put("nexa", map[string]any{"KEY": "x"})
	victim := newRig(t, s)
	login, err := s.Client.Logical().Write("auth/approle/login", map[string]any{"role_id": victim.RoleID, "secret_id": victim.SecretID})
	require.NoError(t, err)
	leases, err := s.Client.Logical().List("sys/leases/lookup/auth/approle/login")
	require.NoError(t, err)
	require.NotEmpty(t, leases.Data["keys"])

	config := r.write("x.hcl", r.Login(r.dir)+r.plainDrop("nexa", "out/nexa.env", ""))
	r.once(config)
	var ids []string
	for _, id := range leases.Data["keys"].([]any) {
		ids = append(ids, `"auth/approle/login/`+id.(string)+`"`)
	}
	r.plant(".nexa.env.deaddrop", `{"leases": [`+strings.Join(ids, ", ")+`]}`)
	out := r.once(config)
	assert.Contains(t, out, "journal ignored")
	_, err = s.Client.Auth().Token().LookupAccessor(login.Auth.Accessor)
	require.NoError(t, err, "the token of another tenant was revoked")
}

func TestHostileFolder_RunsNoReload(t *testing.T) {
	t.Parallel()
	r := attacked(t, newRig(t, vaulttest.Shared(t)))
	r.Put("nexa", map[string]any{"KEY": "x"})
	config := r.write("x.hcl", r.Login(r.dir)+r.plainDrop("nexa", "out/nexa.env", "  reload { command = [\"sh\", \"-c\", \"echo reloaded >>notes\"] }\n"))
	r.once(config)
	for range 2 {
		r.plant(".nexa.env.deaddrop", `{"untold": true, "pending_reload": true}`)
		r.once(config)
	}
	assert.Empty(t, r.read("notes"))
}

func TestHostileFolder_RemovesNothingElsewhere(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	attacked(t, f.rig)
	for _, id := range []string{"gone", "stays", "set"} {
		f.put(id, "nexa", "1")
	}
	f.service()
	precious := func(name string) string {
		require.NoError(t, os.MkdirAll(f.path(name), 0o700))
		for _, file := range []string{"nexa.env", "side.key"} {
			f.write(name+"/"+file, "precious")
		}
		return f.path(name)
	}
	config := f.config("  removal_grace = \"0s\"\n")
	f.once(config)

	// A forged journal, and a folder that is a link.
	pattern := "out/*/nexa.env"
	sum := sha256.Sum256([]byte(pattern))
	f.plant(".each+"+hex.EncodeToString(sum[:6])+".deaddrop", `{"pattern": "`+pattern+`", "present": ["ghost"], "sides": {"ghost": ["out/ghost/side.key"]}}`)
	f.attack("ln -s %s ghost", precious("one"))
	f.once(config)
	// A folder that has become a link, of a tenant that departs.
	f.attack("mv gone away; ln -s %s gone", precious("two"))
	// A link to the folder of another tenant.
	f.attack("mv set away-2; ln -s stays set")
	f.end("gone", "nexa")
	f.end("set", "nexa")
	for range 2 {
		f.once(config, exitFailed)
	}
	for _, path := range []string{"one/nexa.env", "one/side.key", "two/nexa.env", "two/side.key"} {
		assert.Equal(t, "precious", f.read(path), path)
	}
	assert.Equal(t, "KEY=1\n", f.read("out/stays/nexa.env"))
}

func TestHostileFolder_CannotHoldTheAgentUp(t *testing.T) {
	t.Parallel()
	r := attacked(t, newRig(t, vaulttest.Shared(t)))
	r.Put("nexa", map[string]any{"KEY": "x"})
	config := r.write("x.hcl", r.Login(r.dir)+r.plainDrop("nexa", "out/nexa.env", ""))
	for name, plant := range map[string]string{
		"a FIFO":              "mkfifo .nexa.env.deaddrop",
		"a device":            "ln -s /dev/zero .nexa.env.deaddrop",
		"a giant":             "truncate -s 1T .nexa.env.deaddrop",
		"a giant as old file": "truncate -s 1T nexa.env",
	} {
		r.attack("rm -f .nexa.env.deaddrop nexa.env; %s", plant)
		r.once(config)
		assert.NotEmpty(t, r.read("out/nexa.env"), name)
	}
	r.attack("rm -f .nexa.env.deaddrop")
}

// A check runs as root, and may obey what it reads.
func TestHostileFolder_ShowsACheckNothingOfTheAttacker(t *testing.T) {
	t.Parallel()
	r := attacked(t, newRig(t, vaulttest.Shared(t)))
	check := func(path string) string {
		return `  check { command = ["sh", "-c", "sleep 0.05; ls -l ` + path + ` >>seen; if grep -q evil ` + path + `; then touch owned; fi; grep -q KEY ` + path + `"] }
`
	}
	config := r.write("x.hcl", r.Login(r.dir)+r.plainDrop("nexa", "out/nexa.env", check("{{.Path}}"))+
		"set \"both\" {\n  destination = \"out/set\"\n"+check("{{.Path}}/nexa.env")+"  drop \"in\" {\n    secret = \""+r.Path("nexa")+"\"\n    destination = \"nexa.env\"\n  }\n}\n"+
		r.plainDrop("given", "own/nexa.env", "  user = \"65534\"\n"+check("{{.Path}}")))
	require.NoError(t, os.MkdirAll(r.path("own"), 0o755))
	swap := exec.Command("sh", "-c", "while :; do for f in .deaddrop-* set/..gen-*/nexa.env ../own/.deaddrop-*; do if [ -e \"$f\" ]; then echo evil >new; mv -f new \"$f\" || echo evil >\"$f\"; fi; done; done 2>/dev/null")
	swap.Dir = r.path("out")
	swap.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	require.NoError(t, os.Mkdir(r.path("out/set"), 0o755))
	require.NoError(t, os.Chown(r.path("out/set"), nobody, nobody))
	require.NoError(t, swap.Start())
	t.Cleanup(func() { _ = swap.Process.Kill(); _ = swap.Wait() })
	for i := range 5 {
		r.Put("nexa", map[string]any{"KEY": fmt.Sprint(i)})
		r.once(config, exitFailed)
	}
	assert.NoFileExists(t, r.path("owned"))
	seen := r.read("seen")
	assert.Contains(t, seen, "/proc/self/fd/3")
	assert.NotContains(t, seen, r.path("out"))
	assert.NotContains(t, seen, "own/")
	left, err := filepath.Glob("/dev/shm/deaddrop-check-*")
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestHostileFolder_LeadsWritesAndSignalsNowhereElse(t *testing.T) {
	t.Parallel()
	r := attacked(t, newRig(t, vaulttest.Shared(t)))
	r.Put("nexa", map[string]any{"KEY": "x"})
	r.service()
	config := r.write("x.hcl", r.Login(r.dir)+r.plainDrop("nexa", "out/conf/nexa.conf", "  format = \"dotenv\"\n  user = \"65534\"\n")+
		r.plainDrop("other", "own/nexa.env", "  reload {\n    pid_file = \"out/run/service.pid\"\n    signal = \"HUP\"\n    on_start = true\n  }\n"))
	require.NoError(t, os.MkdirAll(r.path("etc"), 0o700))
	r.write("etc/nexa.conf", "root's")
	r.attack("mkdir conf; mv conf old; ln -s %s conf; ln -s %s run", r.path("etc"), r.dir)
	out, code := r.deaddrop("render", "--config", config, "--timeout", "3s")
	assert.Equal(t, exitFailed, code, out)
	assert.Contains(t, out, "symbolic link that others may have made")
	assert.Equal(t, "root's", r.read("etc/nexa.conf"))
	info, err := os.Stat(r.path("etc/nexa.conf"))
	require.NoError(t, err)
	assert.Zero(t, info.Sys().(*syscall.Stat_t).Uid)
	assert.Equal(t, "KEY=x\n", r.read("own/nexa.env"))
	assert.Empty(t, r.read("hups"))
}
