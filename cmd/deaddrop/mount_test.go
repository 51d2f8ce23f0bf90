package main

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// engine is a KV engine of its own for one test, with the tenants a and b.
type engine struct {
	*rig
	s    *vaulttest.Server
	path string
}

func newEngine(t *testing.T, version string) *engine {
	t.Helper()
	s := vaulttest.Shared(t)
	e := &engine{rig: newRig(t, s), s: s, path: "kv-" + strings.ToLower(rand.Text()[:8])}
	e.Grant(e.path+"/*", "read", "list")
	e.mount(version)
	return e
}

func (e *engine) mount(version string) {
	e.t.Helper()
	require.NoError(e.t, e.s.Client.Sys().Mount(e.path, &api.MountInput{Type: "kv", Options: map[string]string{"version": version}}))
}

func (e *engine) unmount() {
	e.t.Helper()
	require.NoError(e.t, e.s.Client.Sys().Unmount(e.path))
}

// enableVersioning is what "vault kv enable-versioning" does.
func (e *engine) enableVersioning() {
	e.t.Helper()
	require.NoError(e.t, e.s.Client.Sys().TuneMountAllowNil(e.path, api.TuneMountConfigInput{Options: &map[string]string{"version": "2"}}))
}

// put writes a secret, as soon as the engine takes it.
func (e *engine) put(version, name, value string) {
	e.t.Helper()
	path, data := e.path+"/"+name, map[string]any{"KEY": value}
	if version == "2" {
		path, data = e.path+"/data/"+name, map[string]any{"data": data}
	}
	require.Eventually(e.t, func() bool {
		_, err := e.s.Client.Logical().Write(path, data)
		return err == nil
	}, time.Minute, 20*time.Millisecond)
}

func (e *engine) fill(version, value string) {
	e.t.Helper()
	for _, name := range []string{"t/a/nexa", "t/b/nexa", "one"} {
		e.put(version, name, value)
	}
}

// start runs an agent with all ways to lose a file to a secret that is missing.
func (e *engine) start() *running {
	e.t.Helper()
	text := e.Login(e.dir) + interval + fmt.Sprintf(`
drop "nexa" {
  for_each      = "%[1]s/t/*"
  removal_grace = "0s"
  secret        = "%[1]s/t/${each.key}/nexa"
  destination   = "out/${each.key}/nexa.env"
}
`, e.path)
	for _, onMissing := range []string{"keep", "remove", "fail"} {
		text += fmt.Sprintf("drop %q {\n  secret = \"%s/one\"\n  destination = \"%s.env\"\n  on_missing = %q\n}\n", onMissing, e.path, onMissing, onMissing)
	}
	return e.rig.start("run", "--config", e.write("deaddrop.hcl", text))
}

func (e *engine) files() map[string]string {
	all := map[string]string{}
	for _, name := range []string{"out/a/nexa.env", "out/b/nexa.env", "keep.env", "remove.env", "fail.env"} {
		all[name] = e.read(name)
	}
	return all
}

// allHave reports whether every file holds the value. Nothing may be missing meanwhile.
func (e *engine) allHave(value string) func() bool {
	return func() bool {
		has := true
		for name, content := range e.files() {
			has = has && content == "KEY="+value+"\n"
			if value != "1" {
				require.NotEmpty(e.t, content, name)
			}
		}
		return has
	}
}

func TestEngine_KeepsTheFilesOfLivingTenantsWhenItChanges(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		from, to string
		change   func(e *engine)
		refresh  bool
	}{
		"versioning enabled":             {"1", "2", (*engine).enableVersioning, false},
		"versioning enabled, and SIGHUP": {"1", "2", (*engine).enableVersioning, true},
		"mounted anew as v1":             {"2", "1", func(e *engine) { e.unmount(); e.mount("1") }, false},
		"mounted anew as v2":             {"2", "2", func(e *engine) { e.unmount(); e.mount("2") }, false},
		"gone for a while":               {"2", "2", func(e *engine) { e.unmount(); time.Sleep(3 * time.Second); e.mount("2") }, false},
		"another engine for a while": {"1", "2", func(e *engine) {
			e.unmount()
			require.NoError(e.t, e.s.Client.Sys().Mount(e.path, &api.MountInput{Type: "transit"}))
			time.Sleep(3 * time.Second)
			e.unmount()
			e.mount("2")
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEngine(t, tc.from)
			e.fill(tc.from, "1")
			p := e.start()
			e.eventually("the first files", e.allHave("1"))
			tc.change(e)
			if tc.refresh {
				require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
			}
			for begun := time.Now(); time.Since(begun) < 3*time.Second; time.Sleep(20 * time.Millisecond) {
				e.allHave("2")()
			}
			e.fill(tc.to, "2")
			e.eventually("what is there now", e.allHave("2"))
			p.stop()
			assert.NotContains(t, p.log(), "a tenant is gone")
			assert.NotContains(t, p.log(), "secret is not there")
		})
	}
}

func TestEngine_StillLosesWhatWasDeletedAfterItHasChanged(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(e *engine){
		"converted":    (*engine).enableVersioning,
		"mounted anew": func(e *engine) { e.unmount(); e.mount("2") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEngine(t, "1")
			e.fill("1", "1")
			p := e.start()
			e.eventually("the first files", e.allHave("1"))
			change(e)
			e.fill("2", "2")
			e.eventually("what is there now", e.allHave("2"))
			_, err := e.s.Client.Logical().Delete(e.path + "/metadata/t/a/nexa")
			require.NoError(t, err)
			if name == "mounted anew" {
				time.Sleep(3 * time.Second)
				assert.NotEmpty(t, e.read("out/a/nexa.env"), "it may not be filled yet")
			} else {
				e.eventually("the files of a tenant that is gone", func() bool { return e.read("out/a/nexa.env") == "" })
			}
			_, err = e.s.Client.Logical().Delete(e.path + "/data/one")
			require.NoError(t, err)
			require.Error(t, p.cmd.Wait(), "that a version was deleted is Vault's own word")
			assert.Equal(t, exitMissing, p.cmd.ProcessState.ExitCode(), p.log())
			assert.Empty(t, e.read("remove.env"))
			assert.NotEmpty(t, e.read("keep.env"))
		})
	}
}

func TestRun_KeepsItsFilesWhenSomethingElseAnswers(t *testing.T) {
	t.Parallel()
	says := func(code int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			_, _ = fmt.Fprint(w, body)
		}
	}
	for name, answer := range map[string]http.HandlerFunc{
		"nothing with 200": says(200, ""),
		"nothing with 204": says(204, ""),
		"nothing with 404": says(404, ""),
		"page with 404":    says(404, "<html>"),
		"page with 403":    says(403, "<html>"),
		"page with 200":    says(200, "<html>"),
		"object with 404":  says(404, `{"message":"not found"}`),
		"object with 200":  says(200, `{"message":"welcome"}`),
		"empty object":     says(200, `{}`),
		"null":             says(200, `null`),
		"no handler":       says(404, `{"errors":["no handler for route"]}`),
		"no data":          says(200, `{"request_id":"x","data":null}`),
		"no list":          says(200, `{"request_id":"x","data":{"keys":null}}`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEngine(t, "2")
			e.fill("2", "1")
			var instead atomic.Pointer[http.HandlerFunc] // answers requests for secrets
			e.env = append(e.env, "VAULT_ADDR="+through(t, e.s, func(vault *httputil.ReverseProxy) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if answer := instead.Load(); answer != nil && !strings.HasPrefix(r.URL.Path, "/v1/sys/") && !strings.HasPrefix(r.URL.Path, "/v1/auth/") {
						(*answer)(w, r)
						return
					}
					vault.ServeHTTP(w, r)
				})
			}))
			p := e.start()
			e.eventually("the first files", e.allHave("1"))
			instead.Store(&answer)
			for begun := time.Now(); time.Since(begun) < 4*time.Second; time.Sleep(50 * time.Millisecond) {
				for file, content := range e.files() {
					require.Equal(t, "KEY=1\n", content, file)
				}
			}
			instead.Store(nil)
			e.fill("2", "2")
			e.eventually("what is there now", e.allHave("2"))
			p.stop()
			assert.NotContains(t, p.log(), "a tenant is gone")
			assert.NotContains(t, p.log(), "secret is not there")
			assert.Equal(t, 1, strings.Count(p.log(), "logged in to Vault"))
		})
	}
}

func TestPolicies_CountAfterSIGHUP(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	r := newRig(t, s)
	r.Put("nexa", map[string]any{"KEY": "one"})
	r.Put("smtp", map[string]any{"KEY": "mail"})
	socket := r.path("s.sock")
	text := r.Login(r.dir) + interval + "listener \"unix\" {\n  address = \"" + socket + "\"\n  role = \"status\"\n}\n"
	for _, service := range []string{"smtp", "nexa"} {
		text += fmt.Sprintf("drop %q {\n  secret = %q\n  destination = %q\n}\n", service, r.Path(service), service+".env")
	}
	p := r.start("run", "--config", r.write("deaddrop.hcl", text))
	r.eventually("the allowed one", func() bool { return r.read("nexa.env") == "KEY=one\n" })
	r.eventually("the denial", func() bool { return strings.Contains(p.log(), "permission denied") })
	assert.Contains(t, p.log(), "counts from the next login on: SIGHUP makes one now")

	// A second policy is as natural as a line more in the first.
	require.NoError(t, s.Client.Sys().PutPolicy(r.ID+"-smtp", "path \"secret/data/tenant/"+r.ID+"/smtp\" { capabilities = [\"read\"] }"))
	t.Cleanup(func() { _ = s.Client.Sys().DeletePolicy(r.ID + "-smtp") })
	r.Role(map[string]any{"token_policies": []string{r.ID, r.ID + "-smtp"}})
	out, code := r.deaddrop("doctor", "--config", "deaddrop.hcl")
	assert.Zero(t, code, out)
	assert.Contains(t, out, "the running agent is denied this", "doctor has a new login")
	assert.Contains(t, out, "SIGHUP")

	out, _ = r.deaddrop("status", "--config", "deaddrop.hcl")
	assert.Contains(t, out, "TRIED")
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	r.eventually("the other one", func() bool { return r.read("smtp.env") == "KEY=mail\n" })
	assert.Equal(t, 2, strings.Count(p.log(), "logged in to Vault"))
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	time.Sleep(time.Second)
	assert.Equal(t, 2, strings.Count(p.log(), "logged in to Vault"), "where nothing is denied there is no login")
	out, code = r.deaddrop("doctor", "--config", "deaddrop.hcl")
	assert.Zero(t, code, out)
	assert.NotContains(t, out, "the running agent is denied this")
	p.stop()
}
