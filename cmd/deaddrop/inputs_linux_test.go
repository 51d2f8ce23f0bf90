package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/doctor"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// unreachable is a configuration that reads a secret id of a folder, and a Vault that is
// not there.
func (r *rig) unreachable(folder string) string {
	return fmt.Sprintf(`vault { address = "http://127.0.0.1:1" }
auto_auth {
  method "approle" {
    config = { role_id = "r", secret_id_file_path = "%s/secret_id" }
  }
}
drop "x" {
  secret      = "secret/x"
  destination = "x.env"
}
`, folder)
}

func TestRender_DoesNotWaitForASecretIDThatIsNoFile(t *testing.T) {
	t.Parallel()
	r := &rig{t: t, dir: t.TempDir()}
	folder := r.folderOfNobody("drop")
	config := r.write("x.hcl", r.unreachable(folder))
	for command, want := range map[string]string{
		"mkfifo secret_id":                  "not a regular file",
		"ln -s /dev/zero secret_id":         "not a regular file",
		"ln -s /proc/self/fd/0 secret_id":   "not a regular file",
		"truncate -s 1T secret_id":          "file too large",
		"ln -s /dev/stdin secret_id":        "not a regular file",
		"mkfifo pipe; ln -s pipe secret_id": "not a regular file",
	} {
		runAsNobody(t, folder, "rm -f secret_id pipe; "+command)
		cmd := r.command("render", "--once", "--timeout", "2s", "--config", config)
		_, err := cmd.StdinPipe() // Nobody writes to it, or closes it.
		require.NoError(t, err)
		out, _ := cmd.CombinedOutput()
		assert.Equal(t, exitUsage, cmd.ProcessState.ExitCode(), command)
		assert.Contains(t, string(out), "secret_id_file_path "+folder+"/secret_id", command)
		assert.Contains(t, string(out), want, command)
	}
}

func TestRun_EndsWhileASecretIDIsAFIFO(t *testing.T) {
	t.Parallel()
	r := &rig{t: t, dir: t.TempDir()}
	folder := r.folderOfNobody("drop")
	runAsNobody(t, folder, "echo s > secret_id")
	p := r.start("run", "--config", r.write("x.hcl", r.unreachable(folder)))
	r.eventually("it tries to log in", func() bool { return strings.Contains(p.log(), "trying again until it works") })
	runAsNobody(t, folder, "rm secret_id; mkfifo secret_id")
	r.eventually("it says so", func() bool {
		return strings.Contains(p.log(), "the secret id cannot be read: open "+folder+"/secret_id: not a regular file")
	})
	p.ends(exitOK)
}

func TestConfiguration_MayComeFromAPipe(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"KEY": "one"})
	config := r.Login(r.dir) + interval + r.drop("nexa", "")
	for _, args := range [][]string{{"validate", "/dev/stdin"}, {"render", "--once", "--config", "/dev/stdin"}} {
		cmd := r.command(args...)
		cmd.Stdin = strings.NewReader(config)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	assert.Contains(t, r.read("nexa.json"), "one")

	p := r.startFrom(strings.NewReader(config), "run", "--config", "/dev/stdin", "--config", r.write("more.hcl", "splay = \"1ms\"\n"))
	r.Put("nexa", map[string]any{"KEY": "two"})
	r.eventually("it is current", func() bool { return strings.Contains(r.read("nexa.json"), "two") })
	assert.Contains(t, p.log(), "configuration was read from a pipe, ignoring changed files")
	r.write("more.hcl", "splay = \"2ms\"\n")
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	r.Put("nexa", map[string]any{"KEY": "three"})
	r.eventually("it keeps the configuration", func() bool { return strings.Contains(r.read("nexa.json"), "three") })
	p.ends(exitOK)
	assert.NotContains(t, p.log(), "refused")
	assert.NotContains(t, p.log(), "configuration reloaded")
}

func TestValidate_EndsWhileItReadsAPipe(t *testing.T) {
	t.Parallel()
	r := &rig{t: t, dir: t.TempDir()}
	p, _ := r.queued("validate", "/dev/stdin")
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	_ = p.cmd.Wait()
	status, _ := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	assert.Equal(t, syscall.SIGTERM, status.Signal(), "%s", p.cmd.ProcessState)
}

func TestDoctor_WarnsOfAConfigurationThatOthersMayChange(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"KEY": "one"})
	folder := r.folderOfNobody("etc")
	runAsNobody(t, folder, "echo x > x.ctmpl")
	config := r.write("x.hcl", r.Login(r.dir)+r.plainDrop("nexa", "nexa.env", "")+"template {\n  source = \""+folder+"/x.ctmpl\"\n  destination = \"x\"\n}\n")
	found := r.doctor("--config", config)
	assert.Equal(t, "chown 0 "+folder+"/x.ctmpl", found.has("config", doctor.Warning, folder+"/x.ctmpl: it belongs to user ").Fix)
	found.has("config", doctor.Warning, folder+": it belongs to user ")

	out, code := r.deaddrop("render", "--once", "--config", config)
	assert.Equal(t, exitOK, code, out)
	assert.Equal(t, 1, strings.Count(out, "other users may change the configuration"), out)
}

func TestDoctor_NamesARedirectToAnotherOrigin(t *testing.T) {
	t.Parallel()
	var requests atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	defer elsewhere.Close()
	standby := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		http.Redirect(w, q, elsewhere.URL+q.URL.Path, http.StatusTemporaryRedirect)
	}))
	defer standby.Close()
	r := &rig{t: t, dir: t.TempDir(), env: []string{"VAULT_ADDR=" + standby.URL, "VAULT_ROLE_ID=r", "VAULT_SECRET_ID=s"}}
	found := r.doctor("--secret", "secret/x", "--out", "x.env")
	assert.Equal(t, exitUnreachable, found.ExitCode)
	assert.Contains(t, found.has("vault", doctor.Failed, "redirects to "+elsewhere.URL+", which is another origin").Fix, "allow_redirects_to")
	out, code := r.deaddrop("render", "--once", "--timeout", "2s", "--secret", "secret/x", "--out", "x.env")
	assert.Equal(t, exitUnreachable, code)
	assert.Contains(t, out, "which is another origin: nothing was sent there")
	assert.Zero(t, requests.Load())
}
