package main

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// database is a PostgreSQL with a role whose credentials a tenant may read.
type database struct {
	*rig
	pg    *vaulttest.Postgres
	mount string
}

func newDatabase(t *testing.T, s *vaulttest.Server, ttl, maxTTL time.Duration) *database {
	t.Helper()
	d := &database{rig: newRig(t, s), pg: vaulttest.NewPostgres(t)}
	d.mount = s.Database(t, d.pg, ttl, maxTTL)
	d.Allow(d.mount + "/creds/app")
	d.service()
	d.rig.write("deaddrop.hcl", d.Login(d.dir)+interval+`
drop "db" {
  secret      = "`+d.mount+`/creds/app"
  destination = "db.env"
`+reload+`}
template {
  destination = "db.url"
  contents    = "{{ with secret \"`+d.mount+`/creds/app\" }}{{ .Data.username }}:{{ .Data.password }}{{ end }}"
}
`)
	return d
}

// credentials are those in the files, which must belong together.
func (d *database) credentials() (user, password string) {
	user, password, _ = strings.Cut(d.rig.read("db.url"), ":")
	return user, password
}

// users are how many users Vault has made that are still there.
func (d *database) users() string {
	return d.pg.Query("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'")
}

// TestLeasesOfFiveSecondsShowNoGap goes on until leases were issued anew five times, and
// their users have logged in a hundred times. So each lease and each token comes to the
// end of its longest time more than once.
func TestLeasesOfFiveSecondsShowNoGap(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(*database){
		"a role that may do nothing but read": func(*database) {},
		"a role that may renew and revoke":    (*database).manage,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := vaulttest.Own(t)
			d := newDatabase(t, s, 5*time.Second, 8*time.Second)
			prepare(d)
			d.Role(map[string]any{"token_ttl": "5s", "token_max_ttl": "12s"})
			p := d.start("run", "--config", "deaddrop.hcl")
			d.eventually("the first drop", func() bool { return d.rig.read("db.url") != "" })
			seen := map[string]bool{}
			tries := 0
			for begun := time.Now(); len(seen) <= 5 || tries <= 100; tries++ {
				require.Less(t, time.Since(begun), 5*time.Minute, "they are not issued anew:\n%s", p.log())
				user, password := d.credentials()
				seen[user] = true
				if !d.pg.CanLogin(user, password) {
					// On a busy machine the file may have changed while the client was starting.
					now, _ := d.credentials()
					require.NotEqual(t, user, now, "the credentials in the file have ended:\n%s", p.log())
				}
				time.Sleep(100 * time.Millisecond) // Others use the machine, too.
			}
			p.stop()
			assert.NotContains(t, p.log(), "cannot be read")
			for user := range seen {
				assert.NotContains(t, p.log(), user)
			}
			d.eventually("all leases but the last have ended", func() bool { return d.users() == "1" || d.users() == "0" })
		})
	}
}

func (d *database) manage() { d.Manage() }

func TestRestartsLeakNoLeases(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, vaulttest.Own(t), time.Hour, 2*time.Hour)
	d.Manage()
	p := d.start("run", "--config", "deaddrop.hcl")
	d.eventually("the first drop", func() bool { return d.rig.read("db.url") != "" })
	for _, name := range []string{"stopped", "killed", "stopped"} {
		user, password := d.credentials()
		if name == "killed" {
			require.NoError(t, p.cmd.Process.Kill())
			_ = p.cmd.Wait()
		} else {
			p.stop()
		}
		assert.True(t, d.pg.CanLogin(user, password), "the service goes on while the agent is "+name)
		p = d.start("run", "--config", "deaddrop.hcl")
		d.eventually("the next drop", func() bool { next, _ := d.credentials(); return next != user })
		user, password = d.credentials()
		d.eventually("the old lease is revoked", func() bool { return d.users() == "1" })
		assert.True(t, d.pg.CanLogin(user, password))
	}
	p.stop()
}

func TestRenderOnceRevokesItsTokenUnlessALeaseNeedsIt(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, vaulttest.Own(t), time.Hour, 2*time.Hour)
	d.Manage()
	d.Put("nexa", map[string]any{"A": "1"})
	once := func(args ...string) {
		out, code := d.deaddrop(append([]string{"render"}, args...)...)
		require.Zero(t, code, out)
	}
	static := []string{"--secret", d.Path("nexa"), "--out", "nexa.env"}
	once(static...)
	assert.Empty(t, d.Tokens())
	once(append(static, "--keep-token")...)
	assert.Len(t, d.Tokens(), 1)
	d.RevokeTokens()

	once("--config", "deaddrop.hcl")
	user, password := d.credentials()
	assert.True(t, d.pg.CanLogin(user, password), "what was dropped is good still")
	assert.Len(t, d.Tokens(), 1)
	once("--config", "deaddrop.hcl")
	assert.False(t, d.pg.CanLogin(user, password), "the next run has let go of it")
	user, password = d.credentials()
	assert.True(t, d.pg.CanLogin(user, password))
	assert.Equal(t, "1", d.users())
}

func TestALeaseThatReachesNoFileIsRevoked(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, vaulttest.Own(t), time.Hour, 2*time.Hour)
	d.Manage()
	require.NoError(t, os.Mkdir(d.path("db.url"), 0o700))
	require.NoError(t, os.Mkdir(d.path("db.env"), 0o700))
	config := strings.NewReplacer(`"db.url"`, `"sub/db.url"`, `"db.env"`, `"sub/db.env"`).Replace(d.rig.read("deaddrop.hcl"))
	d.rig.write("sub", "in the way")
	d.rig.write("deaddrop.hcl", config)
	out, code := d.deaddrop("render", "--config", "deaddrop.hcl")
	assert.Equal(t, 1, code, out)
	assert.Equal(t, "0", d.users())
	assert.Empty(t, d.Tokens())
}

func TestStaticRolesFollowTheirRotation(t *testing.T) {
	t.Parallel()
	s := vaulttest.Own(t)
	r, pg := newRig(t, s), vaulttest.NewPostgres(t)
	role := s.StaticRole(t, pg, s.Database(t, pg, time.Hour, time.Hour), "fixed", 6*time.Second)
	r.Allow(role)
	p := r.start("run", "--secret", role, "--out", "db.env", "--interval", "1h")
	password := func() string {
		for line := range strings.Lines(r.read("db.env")) {
			if value, ok := strings.CutPrefix(line, "password="); ok {
				return strings.Trim(strings.TrimSpace(value), "'")
			}
		}
		return ""
	}
	seen := map[string]bool{}
	r.eventually("three passwords, each of which works", func() bool {
		if now := password(); now != "" && pg.CanLogin("fixed", now) {
			seen[now] = true
		}
		return len(seen) >= 3
	})
	p.stop()
}

// webConfig issues one certificate into three files.
func (r *rig) webConfig(mount, ttl string) string {
	one := func(what string) string {
		return `template {
  destination = "web.` + what + `"
  contents    = "{{ with pkiCert \"` + mount + `/issue/web\" \"common_name=a.example\" \"ttl=` + ttl + `\" }}{{ .` + what + ` }}{{ end }}"
` + reload + `}
`
	}
	return r.write("web.hcl", r.Login(r.dir)+interval+one("Cert")+one("Key")+one("CA"))
}

// certificate reads the set, which must fit together.
func (r *rig) certificate() *x509.Certificate {
	pair, err := tls.X509KeyPair([]byte(r.read("web.Cert")), []byte(r.read("web.Key")))
	if err != nil {
		return nil // In between two renames.
	}
	roots := x509.NewCertPool()
	require.True(r.t, roots.AppendCertsFromPEM([]byte(r.read("web.CA"))))
	_, err = pair.Leaf.Verify(x509.VerifyOptions{DNSName: "a.example", Roots: roots})
	require.NoError(r.t, err, "the certificate in the files is not valid")
	return pair.Leaf
}

func TestAValidCertificateIsFoundAgainAfterARestart(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	r := newRig(t, s)
	mount := s.PKI(t)
	r.Grant(mount+"/issue/web", "update")
	config := r.webConfig(mount, "2h")
	r.service()
	p := r.start("run", "--config", config)
	r.eventually("the set is there", func() bool { return r.certificate() != nil })
	first := r.certificate()
	p.stop()
	for _, args := range [][]string{{"run"}, {"render"}} {
		args = append(args, "--config", config)
		if args[0] == "render" {
			out, code := r.deaddrop(args...)
			require.Zero(t, code, out)
		} else {
			p = r.start(args...)
			r.eventually("it is up", func() bool { return p.log() != "" })
			r.eventually("all three are current", func() bool {
				_ = p.cmd.Process.Signal(syscall.SIGUSR1)
				return strings.Count(p.log(), `state=current`)+strings.Count(p.log(), `"state":"current"`) >= 3
			})
			p.stop()
		}
		assert.Equal(t, first.SerialNumber, r.certificate().SerialNumber)
	}
	issued, err := s.Client.Logical().List(mount + "/certs")
	require.NoError(t, err)
	assert.Len(t, issued.Data["keys"], 2, "the authority's own and the one")
	assert.Empty(t, r.read("hups"))

	t.Run("but not for another question", func(t *testing.T) {
		r.t = t
		out, code := r.deaddrop("render", "--config", r.webConfig(mount, "3h"))
		require.Zero(t, code, out)
		assert.NotEqual(t, first.SerialNumber, r.certificate().SerialNumber)
	})
	t.Run("and not without its key", func(t *testing.T) {
		r.t = t
		before := r.certificate()
		require.NoError(t, os.Remove(r.path("web.Key")))
		out, code := r.deaddrop("render", "--config", "web.hcl")
		require.Zero(t, code, out)
		assert.NotEqual(t, before.SerialNumber, r.certificate().SerialNumber)
	})
}

func TestCertificatesAreIssuedAnewLongBeforeTheyEnd(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	r := newRig(t, s)
	mount := s.PKI(t)
	r.Grant(mount+"/issue/web", "update")
	r.service()
	p := r.start("run", "--config", r.webConfig(mount, "9s"))
	serials := map[string]bool{}
	r.eventually("four certificates, and never one that has ended", func() bool {
		if r.read("web.Cert") == "" || r.read("web.Key") == "" || r.read("web.CA") == "" {
			return false
		}
		if cert := r.certificate(); cert != nil {
			serials[cert.SerialNumber.String()] = true
		}
		return len(serials) >= 4
	})
	r.eventually("one signal for each set", func() bool { return len(r.read("hups")) >= 3 })
	p.stop()
	assert.LessOrEqual(t, len(r.read("hups")), len(serials))
	assert.NotContains(t, p.log(), "PRIVATE KEY")
}

func TestALeaseIsRevokedWhenNoDropUsesItAnyMore(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, vaulttest.Own(t), time.Hour, 2*time.Hour)
	d.Manage()
	d.Put("nexa", map[string]any{"A": "1"})
	p := d.start("run", "--config", "deaddrop.hcl")
	d.eventually("the first drop", func() bool { return d.rig.read("db.url") != "" })
	user, password := d.credentials()
	static := `template {
  destination = "db.url"
  contents    = "{{ with secret \"` + d.Path("nexa") + `\" }}{{ .Data.data.A }}{{ end }}"
}
`
	d.rig.write("deaddrop.hcl", d.Login(d.dir)+interval+static)
	d.eventually("the template has changed", func() bool { return d.rig.read("db.url") == "1" })
	d.eventually("the lease is revoked", func() bool { return !d.pg.CanLogin(user, password) })
	assert.Empty(t, d.journal("db.url"))
	p.stop()
	assert.Empty(t, d.Tokens())
}
