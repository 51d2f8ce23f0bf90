package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// status asks for the state of all files until it has an answer, and returns
// the lines of the last one.
func (p *running) status() string {
	p.r.t.Helper()
	before := strings.Count(p.log(), "status of a drop")
	require.NoError(p.r.t, p.cmd.Process.Signal(syscall.SIGUSR1))
	p.r.eventually("status", func() bool { return strings.Count(p.log(), "status of a drop") > before })
	log := p.log()
	return log[strings.LastIndex(log, "status of the session"):]
}

// lose takes the last version of a secret away.
func (r *rig) lose(s *vaulttest.Server, how, service string) {
	r.t.Helper()
	path := "tenant/" + r.ID + "/" + service
	var err error
	switch how {
	case "deleted":
		_, err = s.Client.Logical().Delete("secret/data/" + path)
	case "destroyed":
		_, err = s.Client.Logical().Write("secret/destroy/"+path, map[string]any{"versions": []int{1}})
	case "gone with all its versions":
		_, err = s.Client.Logical().Delete("secret/metadata/" + path)
	}
	require.NoError(r.t, err)
}

func TestWhatBecomesOfTheFileOfASecretThatIsGone(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	for _, how := range []string{"deleted", "destroyed", "gone with all its versions"} {
		for _, onMissing := range []string{"", "keep", "remove", "fail"} {
			t.Run(strings.TrimSpace(how+" "+onMissing), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, s)
				r.Put("nexa", map[string]any{"KEY": "one"})
				config := r.Login(r.dir) + interval + "drop \"nexa\" {\n  secret = \"" + r.Path("nexa") + "\"\n  destination = \"nexa.env\"\n" + reload
				if onMissing != "" {
					config += "  on_missing = \"" + onMissing + "\"\n"
				}
				r.service()
				p := r.start("run", "--config", r.write("deaddrop.hcl", config+"}\n"))
				r.eventually("the first drop", func() bool { return r.read("nexa.env") == "KEY=one\n" })
				assert.Contains(t, p.status(), "current")
				r.lose(s, how, "nexa")
				switch onMissing {
				case "fail":
					require.Error(t, p.cmd.Wait())
					assert.Equal(t, 5, p.cmd.ProcessState.ExitCode(), p.log())
					assert.Equal(t, "KEY=one\n", r.read("nexa.env"))
					return
				case "remove":
					r.eventually("the file is gone, too", func() bool { return r.read("nexa.env") == "" })
					r.eventually("the service is told", func() bool { return r.read("hups") == "x" })
					assert.Contains(t, p.status(), "removed")
				default:
					r.eventually("it says so", func() bool { return strings.Contains(p.log(), "there is no such secret") })
					status := p.status()
					assert.Contains(t, status, "stale")
					assert.Contains(t, status, "there is no such secret")
					assert.Equal(t, "KEY=one\n", r.read("nexa.env"))
					assert.Empty(t, r.read("hups"))
				}
				before := r.read("hups")
				r.Put("nexa", map[string]any{"KEY": "two"})
				r.eventually("a new secret comes", func() bool { return r.read("nexa.env") == "KEY=two\n" })
				r.eventually("the service is told", func() bool { return r.read("hups") == before+"x" })
				assert.Contains(t, p.status(), "current")
				p.stop()
			})
		}
	}
}

func TestRenderOnceRemovesWhatIsGoneWhenToldTo(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Allow("secret/data/tenant/" + r.ID + "/never")
	config := r.write("deaddrop.hcl", r.Login(r.dir)+"drop \"x\" {\n  secret = \""+r.Path("never")+"\"\n  destination = \"x.env\"\n  on_missing = \"remove\"\n}\n")
	r.write("x.env", "OLD=1\n")
	out, code := r.deaddrop("render", "--config", config)
	assert.Zero(t, code, out)
	assert.NoFileExists(t, r.path("x.env"))
	out, code = r.deaddrop("render", "--config", config)
	assert.Zero(t, code, out)
}

func TestOneDeniedSecretDoesNotStopTheOthers(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"KEY": "one"})
	r.Put("smtp", map[string]any{"KEY": "mail"})
	config := r.Login(r.dir) + interval
	for _, service := range []string{"smtp", "nexa"} {
		config += fmt.Sprintf("drop %q {\n  secret = %q\n  destination = %q\n}\n", service, r.Path(service), service+".env")
	}
	p := r.start("run", "--config", r.write("deaddrop.hcl", config))
	r.eventually("the allowed one", func() bool { return r.read("nexa.env") == "KEY=one\n" })
	r.Put("nexa", map[string]any{"KEY": "two"})
	r.eventually("and its changes", func() bool { return r.read("nexa.env") == "KEY=two\n" })
	assert.Contains(t, p.status(), "permission denied")
	r.Allow("secret/data/tenant/" + r.ID + "/smtp")
	r.eventually("once it is allowed, the other", func() bool { return r.read("smtp.env") == "KEY=mail\n" })
	p.stop()
	assert.Equal(t, 1, strings.Count(p.log(), "secret cannot be read"), "said once")
}

func TestAVersionCanBePinned(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	for _, value := range []string{"one", "two", "three"} {
		r.Put("nexa", map[string]any{"KEY": value})
	}
	for path, want := range map[string]string{
		r.Path("nexa") + "?version=2":                    "KEY=two\n",
		"secret/data/tenant/" + r.ID + "/nexa?version=1": "KEY=one\n",
		r.Path("nexa"): "KEY=three\n",
	} {
		out, code := r.deaddrop("render", "--secret", path, "--out", "nexa.env")
		require.Zero(t, code, out)
		assert.Equal(t, want, r.read("nexa.env"), path)
	}
	out, code := r.deaddrop("render", "--secret", r.Path("nexa")+"?version=9", "--out", "other.env")
	assert.Equal(t, 5, code, out)
}

func TestAFolderIsSaidToBeOne(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"KEY": "one"})
	r.Allow("secret/data/tenant/" + r.ID)
	out, code := r.deaddrop("render", "--secret", "secret/tenant/"+r.ID, "--out", "x.env")
	assert.Equal(t, 5, code)
	assert.Contains(t, out, "there is no such secret; write one with", "it may not be listed")
	r.Grant("secret/metadata/tenant/"+r.ID, "list")
	out, code = r.deaddrop("render", "--secret", "secret/tenant/"+r.ID, "--out", "x.env")
	assert.Equal(t, 5, code)
	assert.Contains(t, out, "it is a folder; name a secret in it, such as secret/tenant/"+r.ID+"/nexa")
}

func TestVersionOneIsLookedAtSoonerWhenItsTTLSaysSo(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	r := newRig(t, s)
	mount := "kv1-ttl-" + r.ID
	require.NoError(t, s.Client.Sys().Mount(mount, &api.MountInput{Type: "kv", Options: map[string]string{"version": "1"}}))
	r.Allow(mount + "/nexa")
	put := func(value string) {
		_, err := s.Client.Logical().Write(mount+"/nexa", map[string]any{"KEY": value, "ttl": "1s"})
		require.NoError(t, err)
	}
	put("one")
	p := r.start("run", "--secret", mount+"/nexa", "--out", "nexa.env", "--interval", "1h")
	r.eventually("the first drop", func() bool { return strings.Contains(r.read("nexa.env"), "KEY=one") })
	put("two")
	r.eventually("the change arrives", func() bool { return strings.Contains(r.read("nexa.env"), "KEY=two") })
	p.stop()
}

func TestOtherEnginesAreRead(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	r := newRig(t, s)
	require.NoError(t, s.Client.Sys().Mount("transit-"+r.ID, &api.MountInput{Type: "transit"}))
	_, err := s.Client.Logical().Write("transit-"+r.ID+"/keys/k", nil)
	require.NoError(t, err)
	r.Grant("transit-"+r.ID+"/encrypt/k", "update")
	marker := vaulttest.Marker()
	config := r.write("deaddrop.hcl", r.Login(r.dir)+interval+`
template {
  destination = "cipher"
  contents    = "{{ with secret \"transit-`+r.ID+`/encrypt/k\" (printf \"plaintext=%s\" (base64Encode \"`+marker+`\")) }}{{ .Data.ciphertext }}{{ end }}"
}
`)
	p := r.start("run", "--config", config, "--log-level", "debug")
	r.eventually("the first drop", func() bool { return strings.HasPrefix(r.read("cipher"), "vault:v1:") })
	first := r.read("cipher")
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	r.eventually("the refresh", func() bool { return strings.Contains(p.log(), "reading everything again") })
	p.status()
	assert.Equal(t, first, r.read("cipher"), "a write is not made again")
	p.stop()
	assert.NotContains(t, p.log(), marker)
}
