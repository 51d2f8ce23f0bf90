package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/status"
	"github.com/smarteros/deaddrop/compose/leaktest"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// statusListener is at a socket in the rig's folder.
func (r *rig) statusListener() string {
	return "listener \"unix\" {\n  address = \"" + r.path("status.sock") + "\"\n  role    = \"status\"\n}\n"
}

// simple is a configuration of one drop, with a socket.
func (r *rig) simple(more string) string {
	return r.write("deaddrop.hcl", r.Login(r.dir)+interval+r.statusListener()+"drop \"nexa\" {\n  secret      = \""+r.Path("nexa")+"\"\n  destination = \"nexa.env\"\n"+more+"}\n")
}

// output runs deaddrop to the end; what it prints is apart from what it complains of.
func (r *rig) output(args ...string) (stdout, stderr string, code int) {
	r.t.Helper()
	var out, complaints bytes.Buffer
	cmd := r.command(args...)
	cmd.Stdout, cmd.Stderr = &out, &complaints
	_ = cmd.Run()
	return out.String(), complaints.String(), cmd.ProcessState.ExitCode()
}

func (r *rig) report() *status.Report {
	r.t.Helper()
	out, complaints, code := r.output("status", "--config", "deaddrop.hcl", "-o", "json")
	require.Less(r.t, code, 2, complaints)
	var report status.Report
	require.NoError(r.t, json.Unmarshal([]byte(out), &report))
	return &report
}

// get asks at the socket.
func (r *rig) get(path string) (code int, body string) {
	r.t.Helper()
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", r.path("status.sock"))
	}}}
	return ask(r.t, client, "http://agent"+path)
}

func ask(t *testing.T, client *http.Client, url string) (code int, body string) {
	t.Helper()
	answer, err := client.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	leaktest.Output(t, url, string(text))
	return answer.StatusCode, string(text)
}

func (r *rig) becomesReady() {
	r.t.Helper()
	r.eventually("it is ready", func() bool { code, _ := r.get("/readyz"); return code == http.StatusOK })
}

func TestStatusOfAHealthyAgent(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	marker := vaulttest.Marker()
	r.Put("nexa", map[string]any{"API_KEY": marker})
	r.service()
	r.simple(reload)
	p := r.start("run", "--config", "deaddrop.hcl")
	r.becomesReady()

	report := r.report()
	assert.True(t, report.Ready)
	assert.Equal(t, "the drop is current", report.Text)
	assert.Equal(t, p.cmd.Process.Pid, report.PID)
	assert.True(t, report.Session.LoggedIn)
	assert.True(t, report.Session.TokenEnds.After(report.At))
	assert.False(t, report.Session.TokenSince.IsZero())
	assert.Equal(t, []string{"deaddrop.hcl"}, report.Config.Files)
	require.Len(t, report.Secrets, 1)
	secret := report.Secrets[0]
	assert.Equal(t, r.Path("nexa"), secret.Path)
	assert.Equal(t, 1, secret.Version)
	assert.NotEmpty(t, secret.Created)
	assert.False(t, secret.Checked.IsZero())
	assert.True(t, secret.Next.After(secret.Checked))
	require.Len(t, report.Drops, 1)
	assert.Equal(t, status.Current, report.Drops[0].State)
	assert.Equal(t, "nexa.env", report.Drops[0].Destination)
	assert.False(t, report.Drops[0].Written.IsZero())
	require.Len(t, report.Drops[0].Reloads, 1)
	require.Len(t, report.Reloads, 1)
	assert.Equal(t, report.Reloads[0].By, report.Drops[0].Reloads[0])
	assert.Equal(t, status.NotNeeded, report.Reloads[0].State)

	r.Put("nexa", map[string]any{"API_KEY": marker + "2"})
	r.eventually("the service was told", func() bool { return r.report().Reloads[0].State == status.Done })
	assert.Equal(t, 2, r.report().Secrets[0].Version)

	out, complaints, code := r.output("status", "--config", "deaddrop.hcl")
	assert.Zero(t, code, complaints)
	for _, want := range []string{"ready: ", "the drop is current", "logged in, the token ends in", "DROP", "nexa.env", "SECRET", r.Path("nexa"), "RELOAD", "done"} {
		assert.Contains(t, out, want)
	}
	for _, flag := range []string{"--check", "--alive"} {
		out, complaints, code = r.output("status", "--config", "deaddrop.hcl", flag)
		assert.Equal(t, []any{"", "", 0}, []any{out, complaints, code}, flag)
	}
	for _, path := range []string{"/healthz", "/readyz", "/status", "/metrics", "/agent/v1/metrics"} {
		code, body := r.get(path)
		assert.Equal(t, http.StatusOK, code, path)
		assert.NotContains(t, body, marker, path)
		assert.NotContains(t, body, r.SecretID, path)
		assert.NotContains(t, body, r.RoleID, path)
	}
	p.stop()
	assert.NoFileExists(t, r.path("status.sock"), "it goes with the agent")
	_, complaints, code = r.output("status", "--config", "deaddrop.hcl", "--check")
	assert.Equal(t, 3, code)
	assert.Contains(t, complaints, "the agent cannot be reached at unix://")
	assert.Equal(t, 1, strings.Count(complaints, "\n"), "one line for a health check")
}

func TestStatusOfAnAgentWithoutVault(t *testing.T) {
	t.Parallel()
	s := vaulttest.Own(t)
	r := newRig(t, s)
	r.Put("nexa", map[string]any{"A": "1"})
	r.simple("")
	require.NoError(t, s.Client.Sys().Seal())
	r.start("run", "--config", "deaddrop.hcl")
	r.eventually("it says that it cannot log in", func() bool {
		code, body := r.get("/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(body, "the drop is not current\nnexa: waiting") && strings.Contains(body, "not logged in: ")
	})
	code, body := r.get("/healthz")
	assert.Equal(t, http.StatusOK, code, "an agent that waits is alive: %s", body)
	out, _, code := r.output("status", "--config", "deaddrop.hcl")
	assert.Equal(t, 1, code)
	assert.Contains(t, out, "NOT READY")
	assert.Contains(t, out, "Vault is sealed")
	_, complaints, code := r.output("status", "--config", "deaddrop.hcl", "--check")
	assert.Equal(t, 1, code)
	assert.Contains(t, complaints, "deaddrop: the drop is not current; nexa: waiting; not logged in: ")
	_, metrics := r.get("/metrics")
	assert.Contains(t, metrics, "\ndeaddrop_vault_up 0\n")
	assert.Contains(t, metrics, "\ndeaddrop_ready 0\n")
	assert.Regexp(t, `deaddrop_logins_total\{result="failure"\} [1-9]`, metrics)

	_, err := s.Client.Sys().Unseal(s.UnsealKeys[0])
	require.NoError(t, err)
	r.becomesReady()
	_, metrics = r.get("/metrics")
	assert.Contains(t, metrics, "\ndeaddrop_vault_up 1\n")
	assert.Contains(t, metrics, "\ndeaddrop_logged_in 1\n")
	assert.Contains(t, metrics, "deaddrop_logins_total{result=\"success\"} 1\n")

	s.Stop()
	r.eventually("a secret that cannot be read makes its drop stale", func() bool { return r.report().Drops[0].State == status.Stale })
	report := r.report()
	assert.Contains(t, report.Secrets[0].Error, "Vault cannot be reached")
	assert.False(t, report.Secrets[0].Failing.IsZero())
	assert.True(t, report.Secrets[0].Checked.Before(report.At))
	_, metrics = r.get("/metrics")
	assert.Contains(t, metrics, "\ndeaddrop_vault_up 0\n")
	assert.Contains(t, metrics, "deaddrop_drops_not_current{drop=\"nexa\"} 1\n")
	assert.Contains(t, metrics, "deaddrop_drops{state=\"stale\"} 1\n")
}

func TestACheckThatTakesLongIsNotTakenForDeath(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	marker := vaulttest.Marker()
	r.Put("nexa", map[string]any{"A": marker})
	r.simple("  check {\n    command = [\"sh\", \"-c\", \"touch checking; while test ! -e go; do sleep 0.1; done; cat $0; exit 1\", \"{{.Path}}\"]\n    timeout = \"60s\"\n  }\n")
	r.start("run", "--config", "deaddrop.hcl")
	r.eventually("it checks", func() bool { return r.read("checking") == "" && exists(r.path("checking")) })
	code, body := r.get("/healthz")
	assert.Equal(t, http.StatusOK, code, body)
	code, body = r.get("/status")
	assert.Equal(t, http.StatusServiceUnavailable, code)
	assert.Contains(t, body, "the agent is busy")
	_, complaints, code := r.output("status", "--config", "deaddrop.hcl")
	assert.Equal(t, 1, code, "it is there")
	assert.Contains(t, complaints, "deaddrop: the agent is busy")
	code, body = r.get("/metrics")
	assert.Equal(t, http.StatusOK, code)
	assert.Contains(t, body, "deaddrop_ready 0\n")
	assert.NotContains(t, body, "deaddrop_drops{")

	r.write("go", "")
	r.eventually("the check is over", func() bool { code, _ := r.get("/status"); return code == http.StatusOK })
	code, body = r.get("/readyz")
	assert.Equal(t, http.StatusServiceUnavailable, code)
	assert.Contains(t, body, "nexa: failed: check refused new content: exit status 1\n")
	_, metrics := r.get("/metrics")
	assert.Contains(t, metrics, "deaddrop_checks_total{result=\"failure\"} 1\n")
	_, all := r.get("/status")
	out, complaints, _ := r.output("status", "--config", "deaddrop.hcl")
	assert.NotContains(t, body+metrics+all+out+complaints, marker, "no output of a program")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestStatusTellsOfARefusedConfiguration(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"A": "1"})
	r.simple("")
	good := r.read("deaddrop.hcl")
	r.start("run", "--config", "deaddrop.hcl")
	r.becomesReady()
	loaded := r.report().Config.Loaded
	r.write("deaddrop.hcl", strings.Replace(good, "drop \"nexa\" {", "drop \"nexa\" {\n  pemrs = \"0600\"", 1))
	r.eventually("it is refused", func() bool {
		_, metrics := r.get("/metrics")
		return strings.Contains(metrics, "\ndeaddrop_config_last_reload_successful 0\n")
	})
	out, _, code := r.output("status", "--address", "unix://"+r.path("status.sock"))
	assert.Zero(t, code, "the old one is in force, and its drops are current")
	assert.Contains(t, out, "A NEWER ONE WAS REFUSED")
	assert.Contains(t, out, `Did you mean "perms"?`)
	r.write("deaddrop.hcl", good+"# mended\n")
	r.eventually("it is taken", func() bool { return r.report().Config.Error == "" })
	assert.True(t, r.report().Config.Loaded.After(loaded))
}

func TestListenersComeAndGoWithTheConfiguration(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"A": "1"})
	r.simple("")
	plain := r.read("deaddrop.hcl")
	p := r.start("run", "--config", "deaddrop.hcl")
	r.becomesReady()
	before, err := os.Lstat(r.path("status.sock"))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600)|os.ModeSocket, before.Mode())

	address := vaulttest.FreeAddress(t)
	r.write("deaddrop.hcl", plain+"listener \"tcp\" {\n  address = \""+address+"\"\n  role    = \"metrics_only\"\n}\n")
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r.eventually("the new one answers", func() bool { code, _ := ask(t, client, "http://"+address+"/metrics"); return code == http.StatusOK })
	for path, want := range map[string]int{"/metrics": 200, "/agent/v1/metrics": 200, "/status": 404, "/readyz": 404, "/healthz": 404} {
		code, _ := ask(t, client, "http://"+address+path)
		assert.Equal(t, want, code, path)
	}
	after, err := os.Lstat(r.path("status.sock"))
	require.NoError(t, err)
	assert.True(t, os.SameFile(before, after), "the other one is the same as before")

	r.write("deaddrop.hcl", strings.Replace(plain, r.statusListener(), "", 1))
	r.eventually("both are gone", func() bool {
		code, _ := ask(t, client, "http://"+address+"/metrics")
		return code == 0 && !exists(r.path("status.sock"))
	})
	p.stop()
}

func TestAListenerThatCannotBeHadStopsNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"A": "1"})
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = taken.Close() }()
	p := r.start("run", "--secret", r.Path("nexa"), "--out", "nexa.env", "--status-address", taken.Addr().String())
	r.eventually("the file is there", func() bool { return r.read("nexa.env") == "A=1\n" })
	r.eventually("it was said", func() bool { return strings.Contains(p.log(), "listening at "+taken.Addr().String()) })
	require.NoError(t, taken.Close())
	r.eventually("it is had in the end", func() bool {
		_, _, code := r.output("status", "--address", taken.Addr().String())
		return code == 0
	})
	assert.Equal(t, 1, strings.Count(p.log(), "listening at "), "said once")
	p.stop()
}

func TestTheEnvironmentAddsAListener(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"A": "1"})
	r.env = append(r.env, "DEADDROP_STATUS_ADDRESS=127.0.0.1:0")
	p := r.start("run", "--secret", r.Path("nexa"), "--out", "nexa.env")
	said := regexp.MustCompile(`"tells how the agent is","address":"(127\.0\.0\.1:[0-9]+)"`)
	r.eventually("it listens", func() bool { return said.MatchString(p.log()) })
	address := said.FindStringSubmatch(p.log())[1]
	r.env = append(r.env, "DEADDROP_STATUS_ADDRESS="+address)
	r.eventually("it is ready", func() bool { _, _, code := r.output("status", "--check"); return code == 0 })

	request, err := http.NewRequest(http.MethodGet, "http://"+address+"/status", nil)
	require.NoError(t, err)
	for host, want := range map[string]int{"evil.example": 403, "evil.example:9810": 403, "localhost:1": 200, "127.0.0.1": 200, "[::1]:9810": 200} {
		request.Host = host
		answer, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		_ = answer.Body.Close()
		assert.Equal(t, want, answer.StatusCode, "a page of another name must not read it: %s", host)
	}
	answer, err := http.Post("http://"+address+"/status", "text/plain", strings.NewReader("x"))
	require.NoError(t, err)
	_ = answer.Body.Close()
	assert.Equal(t, http.StatusMethodNotAllowed, answer.StatusCode)
	answer, err = http.Head("http://" + address + "/healthz")
	require.NoError(t, err)
	_ = answer.Body.Close()
	assert.Equal(t, http.StatusOK, answer.StatusCode)
}

func TestASocketOfAKilledAgentIsReplacedAndNothingElseIs(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"A": "1"})
	r.simple("")
	first := r.start("run", "--config", "deaddrop.hcl")
	r.becomesReady()
	second := r.start("run", "--config", "deaddrop.hcl")
	r.eventually("a second agent says so", func() bool { return strings.Contains(second.log(), "another process listens there") })
	second.stop()
	assert.FileExists(t, r.path("status.sock"), "it is not the second one's")
	require.NoError(t, first.cmd.Process.Kill())
	_ = first.cmd.Wait()
	assert.True(t, exists(r.path("status.sock")), "it was killed")
	third := r.start("run", "--config", "deaddrop.hcl")
	r.becomesReady()
	third.stop()

	r.write("status.sock", "a file")
	fourth := r.start("run", "--config", "deaddrop.hcl")
	r.eventually("it says so", func() bool { return strings.Contains(fourth.log(), "something else that is no socket") })
	assert.Equal(t, "a file", r.read("status.sock"))
	fourth.stop()
	assert.Equal(t, "a file", r.read("status.sock"))
	left, err := filepath.Glob(r.path(".s*"))
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestStatusOverTLS(t *testing.T) {
	t.Parallel()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not there, which makes a certificate for this test")
	}
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"A": "1"})
	certificate := func(name string) {
		out, err := exec.Command(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj", "/CN=agent", "-keyout", r.path(name+".key"), "-out", r.path(name+".pem")).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	certificate("a")
	certificate("b")
	address := vaulttest.FreeAddress(t)
	listener := func(name string) string {
		return fmt.Sprintf("listener \"tcp\" {\n  address       = %q\n  role          = \"status\"\n  tls_cert_file = \"%s.pem\"\n  tls_key_file  = \"%s.key\"\n}\n", address, r.path(name), r.path(name))
	}
	r.write("deaddrop.hcl", r.Login(r.dir)+interval+listener("a")+"drop \"nexa\" {\n  secret      = \""+r.Path("nexa")+"\"\n  destination = \"nexa.env\"\n}\n")
	r.write("other.hcl", listener("b"))
	r.start("run", "--config", "deaddrop.hcl")
	r.eventually("it is ready", func() bool {
		_, _, code := r.output("status", "--config", "deaddrop.hcl")
		return code == 0
	})
	_, complaints, code := r.output("status", "--config", "other.hcl")
	assert.Equal(t, 3, code)
	assert.Contains(t, complaints, "it has another certificate than the one in")
}

func TestStatusHasToBeToldWhichAgent(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.write("none.hcl", "listener \"tcp\" {\n  address = \"127.0.0.1:1\"\n  role = \"metrics_only\"\n}\n")
	for name, tc := range map[string]struct {
		args []string
		code int
		say  string
	}{
		"no address":        {nil, 2, "which agent? Give --address"},
		"no listener":       {[]string{"--config", "none.hcl"}, 2, `none.hcl has no listener with role = "status"; give --address`},
		"no file":           {[]string{"--config", "nowhere.hcl"}, 2, "nowhere.hcl: cannot be read"},
		"a bad address":     {[]string{"--address", "agent"}, 2, `--address "agent" is no address`},
		"nobody there":      {[]string{"--address", "127.0.0.1:1"}, 3, "the agent cannot be reached at 127.0.0.1:1: "},
		"an unknown output": {[]string{"--address", "127.0.0.1:1", "-o", "xml"}, 2, `--output "xml" is not known`},
		"two questions":     {[]string{"--check", "--alive"}, 2, "[alive check]"},
		"not an agent":      {[]string{"--address", strings.TrimPrefix(r.env[1], "VAULT_ADDR=http://")}, 3, "it is no deaddrop"},
	} {
		t.Run(name, func(t *testing.T) {
			_, complaints, code := r.output(append([]string{"status"}, tc.args...)...)
			assert.Equal(t, tc.code, code, complaints)
			assert.Contains(t, complaints, tc.say)
		})
	}
}
