package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/servicetest"
	"github.com/smarteros/deaddrop/compose/leaktest"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// TestMain lets the test binary be deaddrop, and be a service, so that the
// tests below deal with real processes and real signals.
func TestMain(m *testing.M) {
	servicetest.Main()
	switch os.Getenv("TEST_BE") {
	case "deaddrop":
		servicetest.MeasureCoverage("deaddrop")
		main()
	case "service":
		service(os.Getenv("TEST_DIR"))
	default:
		code := m.Run()
		removeSharedImage()
		os.Exit(code)
	}
}

// service writes its pid file, and a byte for every SIGHUP that it gets.
func service(dir string) {
	hup := make(chan os.Signal, 16)
	signal.Notify(hup, syscall.SIGHUP)
	count, err := os.Create(filepath.Join(dir, "hups"))
	if err != nil {
		panic(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "service.pid"), fmt.Appendln(nil, os.Getpid()), 0o600); err != nil {
		panic(err)
	}
	for range hup {
		_, _ = count.WriteString("x")
	}
}

// rig is a tenant with a folder, and runs deaddrop as a process. All secrets that it
// puts are random, and whatever deaddrop says, and keeps for itself, is searched for
// them.
type rig struct {
	*vaulttest.Tenant
	t      *testing.T
	dir    string
	env    []string
	shows  bool              // what it says may hold secrets: it was asked to
	marked map[string]string // values, as they are in Vault
}

func newRig(t *testing.T, s *vaulttest.Server) *rig {
	t.Helper()
	r := &rig{Tenant: s.Tenant(t), t: t, dir: t.TempDir(), marked: map[string]string{}}
	t.Cleanup(func() { leaktest.Leftovers(t, r.dir) })
	r.env = []string{"PATH=" + os.Getenv("PATH"), "VAULT_ADDR=" + s.Address, "VAULT_ROLE_ID=" + r.RoleID, "VAULT_SECRET_ID=" + r.SecretID, "VAULT_CACERT=" + s.CAFile}
	return r
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

// write writes a file. Configurations and templates are replaced: an agent that runs would
// else find half of it.
func (r *rig) write(name, content string) string {
	r.t.Helper()
	path := r.path(name)
	if ext := filepath.Ext(name); ext != ".hcl" && ext != ".ctmpl" {
		require.NoError(r.t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	require.NoError(r.t, os.WriteFile(path+".new", []byte(content), 0o600))
	if before, err := os.Stat(path); err == nil {
		owner := before.Sys().(*syscall.Stat_t)
		require.NoError(r.t, os.Chown(path+".new", int(owner.Uid), int(owner.Gid)))
		require.NoError(r.t, os.Chmod(path+".new", before.Mode()))
	}
	require.NoError(r.t, os.Rename(path+".new", path))
	return path
}

// read returns the content of a file, with values as they were given to Put.
func (r *rig) read(name string) string {
	r.t.Helper()
	content, err := os.ReadFile(r.path(name))
	if !os.IsNotExist(err) {
		require.NoError(r.t, err)
	}
	return marks.ReplaceAllString(string(content), "")
}

// marks are what Put appends to a value.
var marks = regexp.MustCompile(`\.\.m4rker-[A-Z2-7]{26}`)

// Put is that of the tenant, with a marker behind each text. The same text has the
// same one.
func (r *rig) Put(service string, pairs map[string]any) {
	r.t.Helper()
	r.Tenant.Put(service, r.mark(pairs).(map[string]any))
}

func (r *rig) mark(value any) any {
	switch value := value.(type) {
	case map[string]any:
		marked := map[string]any{}
		for key, each := range value {
			marked[key] = r.mark(each)
		}
		return marked
	case string:
		if value == "" || strings.Contains(value, "m4rker-") {
			return value
		}
		if r.marked[value] == "" {
			r.marked[value] = value + ".." + vaulttest.Marker()
		}
		return r.marked[value]
	}
	return value
}

func (r *rig) command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	if !r.shows {
		leaktest.Command(r.t, cmd, r.secretIDs()...)
	}
	// With -race a program else sleeps for a second as it ends.
	cmd.Env = append([]string{"TEST_BE=deaddrop", "GORACE=atexit_sleep_ms=20", "STATE_DIRECTORY=" + r.path("state")}, r.env...)
	cmd.Env = append(cmd.Env, servicetest.CoverageEnv()...)
	cmd.Dir = r.dir
	return cmd
}

// journal returns what the agent keeps of a file for its next start, or "".
func (r *rig) journal(file string) string {
	r.t.Helper()
	all, err := filepath.Glob(r.path("state/" + file + "-*.json"))
	require.NoError(r.t, err)
	if len(all) == 0 {
		return ""
	}
	content, _ := os.ReadFile(all[0]) // It may have been removed meanwhile.
	return string(content)
}

// deaddrop runs to the end and returns what was logged, and the exit code.
func (r *rig) deaddrop(args ...string) (string, int) {
	r.t.Helper()
	var out bytes.Buffer
	cmd := r.command(args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	_ = cmd.Run()
	return out.String(), cmd.ProcessState.ExitCode()
}

// secretIDs are the secrets that Vault has made.
func (r *rig) secretIDs() []string {
	if r.Tenant == nil {
		return nil
	}
	return []string{r.SecretID}
}

// showing is the rig for what is asked to show secrets.
func (r *rig) showing() *rig {
	shows := *r
	shows.shows = true
	return &shows
}

// running is deaddrop in the background.
type running struct {
	r    *rig
	cmd  *exec.Cmd
	mu   sync.Mutex
	logs bytes.Buffer
}

func (p *running) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.logs.Write(b)
}

// String is all that it has said.
func (p *running) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.logs.String()
}

func (p *running) log() string { return p.String() }

func (r *rig) start(args ...string) *running {
	r.t.Helper()
	return r.startFrom(nil, args...)
}

// startFrom starts deaddrop with a standard input.
func (r *rig) startFrom(in io.Reader, args ...string) *running {
	r.t.Helper()
	cmd := r.command(args...)
	cmd.Stdin = in
	return r.startCommand(cmd)
}

// startCommand starts a command of the rig that the test has changed.
func (r *rig) startCommand(cmd *exec.Cmd) *running {
	r.t.Helper()
	p := &running{r: r, cmd: cmd}
	cmd.Stdout, cmd.Stderr = p, p
	require.NoError(r.t, cmd.Start())
	r.t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			leaktest.Process(r.t, p.cmd.Process.Pid, r.secretIDs()...)
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
		if r.t.Failed() {
			r.t.Log(p.log())
		}
	})
	return p
}

// stop ends it by SIGTERM, which must work.
func (p *running) stop() {
	p.r.t.Helper()
	leaktest.Process(p.r.t, p.cmd.Process.Pid, p.r.secretIDs()...)
	require.NoError(p.r.t, p.cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(p.r.t, p.cmd.Wait())
}

// eventually waits for what another process does; it says nothing of how fast.
func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	require.Eventually(r.t, ok, time.Minute, 20*time.Millisecond, what)
}

// service starts a service that counts its SIGHUPs.
func (r *rig) service() {
	r.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = []string{"TEST_BE=service", "TEST_DIR=" + r.dir}
	require.NoError(r.t, cmd.Start())
	r.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	r.eventually("the service is up", func() bool { return r.read("service.pid") != "" })
}

const interval = `template_config { static_secret_render_interval = "1s" }
`

const reload = `  reload {
    signal   = "HUP"
    pid_file = "service.pid"
  }
`

func TestRenderOnceNeedsNoConfiguration(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	for name, args := range map[string][]string{
		"logical path":         {"--secret", "PATH"},
		"API path":             {"--secret", "API"},
		"tenant and service":   {"--tenant", "ID", "--service", "nexa"},
		"once, said by itself": {"--once", "--secret", "PATH"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, s)
			r.Put("nexa", map[string]any{"API_KEY": "a b", "N": 1})
			for i, arg := range args {
				args[i] = strings.NewReplacer("PATH", r.Path("nexa"), "API", "secret/data/tenant/"+r.ID+"/nexa", "ID", r.ID).Replace(arg)
			}
			out, code := r.deaddrop(append([]string{"render", "--dialect", "shell", "--out", "nexa.env"}, args...)...)
			require.Zero(t, code, out)
			assert.Equal(t, "API_KEY='a b'\nN=1\n", r.read("nexa.env"))
			info, err := os.Stat(r.path("nexa.env"))
			require.NoError(t, err)
			assert.Equal(t, os.FileMode(0o600), info.Mode())
			out, code = r.deaddrop(append([]string{"render", "--format", "json", "--perms", "0440", "--out", "new/nexa"}, args...)...)
			require.Zero(t, code, out)
			assert.Equal(t, "{\n  \"API_KEY\": \"a b\",\n  \"N\": 1\n}\n", r.read("new/nexa"))
		})
	}
}

func TestRenderOnceWritesEveryKindOfDrop(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.env = r.env[:1] // all is in the file
	r.Put("nexa", map[string]any{"API_KEY": "k", "BIG": 9007199254740991})
	r.write("nexa.ctmpl", "key: {{ with secret \""+r.Path("nexa")+"\" }}{{ .Data.data.API_KEY }}{{ end }}\n")
	config := r.write("deaddrop.hcl", r.Login(r.dir)+`
template {
  source      = "nexa.ctmpl"
  destination = "out/nexa.yml"
  perms       = "0640"
  exec { command = ["touch", "executed"] }
}
drop "env" {
  secret      = "`+r.Path("nexa")+`"
  destination = "out/nexa.env"
}
drop "json" {
  secret      = "`+r.Path("nexa")+`"
  destination = "out/nexa.json"
}
drop "own" {
  secret      = "`+r.Path("nexa")+`"
  destination = "out/own"
  contents    = "{{ .API_KEY }}!"
}
`)
	out, code := r.deaddrop("render", "--once", "--config", config)
	require.Zero(t, code, out)
	assert.Equal(t, "key: k\n", r.read("out/nexa.yml"))
	assert.Equal(t, "API_KEY=k\nBIG=9007199254740991\n", r.read("out/nexa.env"))
	assert.Equal(t, "{\n  \"API_KEY\": \"k\",\n  \"BIG\": 9007199254740991\n}\n", r.read("out/nexa.json"))
	assert.Equal(t, "k!", r.read("out/own"))
	assert.FileExists(t, r.path("executed"))

	require.NoError(t, os.Remove(r.path("executed")))
	out, code = r.deaddrop("render", "--config", config)
	require.Zero(t, code, out)
	assert.NoFileExists(t, r.path("executed"), "nothing has changed, so nothing is reloaded")
}

func TestRenderOnceExitCodes(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	r := newRig(t, s)
	marker := vaulttest.Marker()
	r.Put("nexa", map[string]any{"API_KEY": marker, "QUOTE": marker + "'"})
	r.Allow("secret/data/tenant/" + r.ID + "/gone")
	r.Put("gone", map[string]any{"x": marker})
	_, err := s.Client.Logical().Delete("secret/data/tenant/" + r.ID + "/gone")
	require.NoError(t, err)
	r.Allow("secret/data/tenant/" + r.ID + "/never")
	r.write("missing.hcl", r.Login(r.dir)+"template {\n  destination = \"out\"\n  contents = <<E\n"+`{{ with secret "`+r.Path("nexa")+`" }}{{ .Data.data.API_KYE }}{{ end }}`+"\nE\n}\n")
	r.write("bad.hcl", "dorp \"x\" {\n}\n")
	r.write("reload.hcl", r.Login(r.dir)+"drop \"r\" {\n  secret = \""+r.Path("nexa")+"\"\n  destination = \"r.json\"\n  exec {\n    command = [\"false\"]\n  }\n}\n")
	good := []string{"--secret", r.Path("nexa"), "--out", "out.json"}

	for name, tc := range map[string]struct {
		env  []string
		args []string
		code int
		say  string
	}{
		"a value that .env cannot carry": {args: []string{"--secret", r.Path("nexa"), "--out", "out.env"}, code: 1, say: `key \"QUOTE\" holds a character that has to be quoted`},
		"a file that cannot be written":  {args: []string{"--secret", r.Path("nexa"), "--out", "/proc/nowhere/x.json"}, code: 1, say: "creating folder /proc/nowhere"},
		"a reload that fails":            {args: []string{"--config", "reload.hcl"}, code: 1, say: "exit status 1"},
		"bad configuration":              {args: []string{"--config", "bad.hcl"}, code: 2, say: `bad.hcl:1:1: Unsupported block type: Blocks of type "dorp" are not expected here. Did you mean "drop"?`},
		"bad flag":                       {args: []string{"--sceret", "x"}, code: 2, say: "unknown flag: --sceret"},
		"nothing to do":                  {code: 2, say: "nothing to render: give --config FILE, or --secret PATH --out FILE"},
		"no out":                         {args: []string{"--secret", "secret/x"}, code: 2, say: "--secret also needs --out FILE"},
		"two kinds of jobs":              {args: []string{"--config", "x", "--secret", "y"}, code: 2, say: "[config secret]"},
		"tenant that escapes":            {args: []string{"--tenant", "..", "--service", "nexa"}, code: 2, say: `--tenant "..`},
		"bad log level":                  {args: append([]string{"--log-level", "loud"}, good...), code: 2, say: `--log-level "loud" is not known`},
		"no login":                       {env: []string{"VAULT_ROLE_ID=", "VAULT_SECRET_ID="}, args: good, code: 2, say: "no way to log in"},
		"bad CA":                         {env: []string{"VAULT_CACERT=/nowhere.pem"}, args: good, code: 2, say: "/nowhere.pem"},
		"bad address":                    {env: []string{"VAULT_ADDR=vault"}, args: good, code: 2, say: `VAULT_ADDR "vault" is not a URL`},
		"no time at all":                 {args: append([]string{"--timeout", "0s"}, good...), code: 2, say: `invalid argument "0s" for "--timeout" flag: it has to be a duration of more than 0, such as 30s or 5m`},
		"nobody there":                   {env: []string{"VAULT_ADDR=http://127.0.0.1:1"}, args: append([]string{"--timeout", "1s"}, good...), code: 3, say: "is Vault running at http://127.0.0.1:1?"},
		"no such host":                   {env: []string{"VAULT_ADDR=http://vault.invalid"}, args: append([]string{"--timeout", "1s"}, good...), code: 3, say: "is the address http://vault.invalid right?"},
		"TLS where there is none":        {env: []string{"VAULT_ADDR=" + strings.Replace(s.Address, "http://", "https://", 1)}, args: good, code: 3, say: "does not speak TLS"},
		"wrong secret id":                {env: []string{"VAULT_SECRET_ID=wrong"}, args: good, code: 4, say: "check role id and secret id"},
		"wrong token":                    {env: []string{"VAULT_ROLE_ID=", "VAULT_SECRET_ID=", "VAULT_TOKEN=hvs.wrong"}, args: good, code: 4, say: "permission denied"},
		"a path that no policy allows":   {args: []string{"--secret", r.Path("shopify"), "--out", "out"}, code: 4, say: `path \"secret/data/tenant/` + r.ID + `/shopify\" { capabilities = [\"read\"] }`},
		"another tenant":                 {args: []string{"--tenant", "other", "--service", "nexa", "--out", "out"}, code: 4, say: "permission denied"},
		"no such mount":                  {args: []string{"--secret", "nowhere/x", "--out", "out"}, code: 4, say: "nothing is mounted at"},
		"a secret that was never there":  {args: []string{"--secret", r.Path("never"), "--out", "out"}, code: 5, say: "there is no such secret; write one with"},
		"a secret that was deleted":      {args: []string{"--secret", r.Path("gone"), "--out", "out"}, code: 5, say: "version 1 was deleted"},
		"a key that is not there":        {args: []string{"--config", "missing.hcl"}, code: 5, say: `has no key \"API_KYE\"`},
	} {
		t.Run(name, func(t *testing.T) {
			r := *r
			r.t, r.env = t, append(r.env[:len(r.env):len(r.env)], tc.env...)
			out, code := r.deaddrop(append([]string{"render"}, tc.args...)...)
			assert.Equal(t, tc.code, code, out)
			assert.Contains(t, out, tc.say)
			assert.NotContains(t, out, marker)
			assert.NotContains(t, out, r.SecretID)
			assert.NoFileExists(t, r.path("out"))
		})
	}
	for name := range map[string]bool{"out": true, "out.env": true, "out.json": true} {
		assert.NoFileExists(t, r.path(name))
	}
}

func TestRenderOnceOfASealedVault(t *testing.T) {
	t.Parallel()
	s := vaulttest.Own(t)
	r := newRig(t, s)
	r.Put("nexa", map[string]any{"A": "1"})
	require.NoError(t, s.Client.Sys().Seal())
	out, code := r.deaddrop("render", "--secret", r.Path("nexa"), "--out", "nexa.env", "--timeout", "1s")
	assert.Equal(t, 3, code, out)
	assert.Contains(t, out, "Vault is sealed; unseal it")

	p := r.start("render", "--secret", r.Path("nexa"), "--out", "nexa.env")
	r.eventually("it waits", func() bool { return strings.Contains(p.log(), "trying again") })
	_, err := s.Client.Sys().Unseal(s.UnsealKeys[0])
	require.NoError(t, err)
	require.NoError(t, p.cmd.Wait(), "once Vault is unsealed, it succeeds")
	assert.Equal(t, "A=1\n", r.read("nexa.env"))
	assert.Equal(t, 1, strings.Count(p.log(), "Vault is sealed"), "said once, not at every try")
}

func TestNothingIsContactedWhenTheConfigurationIsBad(t *testing.T) {
	t.Parallel()
	audit := filepath.Join(t.TempDir(), "audit.log")
	r := newRig(t, vaulttest.Own(t, "-audit", audit))
	before, err := os.ReadFile(audit)
	require.NoError(t, err)
	config := r.write("deaddrop.hcl", r.Login(r.dir)+"template {\n  destination = \"x\"\n  contents = \"{{ nope }}\"\n}\n")
	_, code := r.deaddrop("render", "--config", config)
	assert.Equal(t, 2, code)
	after, err := os.ReadFile(audit)
	require.NoError(t, err)
	assert.Equal(t, string(before), string(after))
}

func TestRenderOnceOverTLS(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Own(t, "-tls"))
	r.Put("nexa", map[string]any{"A": "1"})
	args := []string{"render", "--secret", r.Path("nexa"), "--out", "nexa.env"}
	out, code := r.deaddrop(args...)
	require.Zero(t, code, out)
	assert.Equal(t, "A=1\n", r.read("nexa.env"))

	r.env = append(r.env, "VAULT_CACERT=")
	out, code = r.deaddrop(args...)
	assert.Equal(t, 3, code)
	assert.Contains(t, out, "set VAULT_CACERT")
}

func TestRunKeepsFilesCurrentAndReloadsOncePerBatch(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"KEY": "one"})
	config := r.write("deaddrop.hcl", r.Login(r.dir)+interval+`
drop "env" {
  secret      = "`+r.Path("nexa")+`"
  destination = "nexa.env"
`+reload+`}
drop "json" {
  secret      = "secret/data/tenant/`+r.ID+`/nexa"
  destination = "nexa.json"
`+reload+`}
`)
	r.service()
	p := r.start("run", "--config", config)
	r.eventually("the first drop", func() bool { return r.read("nexa.env") == "KEY=one\n" && r.read("nexa.json") != "" })
	first, err := os.Stat(r.path("nexa.env"))
	require.NoError(t, err)

	r.Put("nexa", map[string]any{"KEY": "two"})
	r.eventually("the change arrives", func() bool {
		return r.read("nexa.env") == "KEY=two\n" && strings.Contains(r.read("nexa.json"), "two")
	})
	r.eventually("the service is told", func() bool { return r.read("hups") != "" })
	second, err := os.Stat(r.path("nexa.env"))
	require.NoError(t, err)
	assert.False(t, os.SameFile(first, second))

	// A new version with the same content changes nothing.
	r.Put("nexa", map[string]any{"KEY": "two"})
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	r.Put("nexa", map[string]any{"KEY": "three"})
	r.eventually("the next change arrives", func() bool { return r.read("nexa.env") == "KEY=three\n" })
	r.eventually("the service is told again", func() bool { return len(r.read("hups")) >= 2 })
	p.stop()
	assert.Equal(t, "xx", r.read("hups"), "one signal for two files, none for the first drop or for the same content")
	entries, err := os.ReadDir(r.dir)
	require.NoError(t, err)
	assert.Len(t, entries, 8, "config, ids, two files, pid file, count, state directory; nothing else: %v", entries)
}

func TestRunNoticesNewTemplatesAndConfigurations(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"KEY": "v"})
	template := func(text string) {
		// As most editors do: a new file, renamed over the old one.
		require.NoError(t, os.Rename(r.write("new", text+`{{ with secret "`+r.Path("nexa")+`" }}{{ .Data.data.KEY }}{{ end }}`), r.path("nexa.ctmpl")))
	}
	template("one ")
	base := r.Login(r.dir) + "template {\n  source = \"nexa.ctmpl\"\n  destination = \"out\"\n}\n"
	config := r.write("deaddrop.hcl", base)
	p := r.start("run", "--config", config)
	r.eventually("the first drop", func() bool { return r.read("out") == "one v" })

	template("two ")
	r.eventually("the new template counts", func() bool { return r.read("out") == "two v" })

	template("{{ broken")
	r.eventually("a bad template is refused", func() bool { return strings.Contains(p.log(), "configuration refused, keeping the old one") })
	assert.Equal(t, "two v", r.read("out"))
	template("three ")
	r.eventually("a good one counts again", func() bool { return r.read("out") == "three v" })

	r.write("deaddrop.hcl", base+"drop \"more\" {\n  secret = \""+r.Path("nexa")+"\"\n  destination = \"more.env\"\n}\n")
	r.eventually("the new drop appears", func() bool { return r.read("more.env") == "KEY=v\n" })
	assert.Equal(t, 1, strings.Count(p.log(), "logged in"), "the session is kept")

	r.NewSecretID()
	r.Login(r.dir)
	r.write("deaddrop.hcl", strings.Replace(base, `"approle" {`, `"approle" {`+"\n    mount_path = \"auth/approle/\"\n", 1)+"drop \"last\" {\n  secret = \""+r.Path("nexa")+"\"\n  destination = \"last.json\"\n}\n")
	r.eventually("another drop appears", func() bool { return r.read("last.json") != "" })
	p.stop()
}

func TestRunRefreshesAtOnceOnHangup(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"KEY": "one"})
	p := r.start("run", "--secret", r.Path("nexa"), "--out", "nexa.env", "--interval", "1h")
	r.eventually("the first drop", func() bool { return r.read("nexa.env") == "KEY=one\n" })
	r.Put("nexa", map[string]any{"KEY": "two"})
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	r.eventually("the change arrives", func() bool { return r.read("nexa.env") == "KEY=two\n" })
	p.stop()
}

func TestRunReadsEachSecretOncePerInterval(t *testing.T) {
	t.Parallel()
	audit := filepath.Join(t.TempDir(), "audit.log")
	r := newRig(t, vaulttest.Own(t, "-audit", audit))
	r.Put("nexa", map[string]any{"KEY": "one"})
	path := "secret/data/tenant/" + r.ID + "/nexa"
	text := r.Login(r.dir) + interval
	for i, spelling := range []string{r.Path("nexa"), path, r.Path("nexa"), path} {
		text += fmt.Sprintf("drop \"%d\" {\n  secret = %q\n  destination = \"%d.env\"\n}\n", i, spelling, i)
	}
	p := r.start("run", "--config", r.write("deaddrop.hcl", text))
	start := time.Now()
	reads := func() int {
		content, err := os.ReadFile(audit)
		require.NoError(t, err)
		n := 0
		for line := range strings.SplitSeq(string(content), "\n") {
			if strings.Contains(line, `"type":"request"`) && strings.Contains(line, `"operation":"read"`) && strings.Contains(line, path) && !strings.Contains(line, "sys/internal") {
				n++
			}
		}
		return n
	}
	r.eventually("five reads", func() bool { return reads() >= 5 })
	seconds := time.Since(start).Seconds()
	p.stop()
	assert.LessOrEqual(t, float64(reads()), seconds/0.9+2, "four drops of one secret cost one read a second")
}

func TestRunOutlivesFaults(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	s := vaulttest.Own(t, "-state", state)
	r := newRig(t, s)
	r.Put("nexa", map[string]any{"KEY": "one"})
	address := strings.TrimPrefix(s.Address, "http://")
	s.Stop()

	config := r.write("deaddrop.hcl", r.Login(r.dir)+interval+"drop \"env\" {\n  secret = \""+r.Path("nexa")+"\"\n  destination = \"nexa.env\"\n}\n")
	p := r.start("run", "--config", config)
	r.eventually("it says that Vault is not there", func() bool { return strings.Contains(p.log(), "connection refused") })

	again := vaulttest.Own(t, "-state", state, "-listen", address)
	r.eventually("the first drop", func() bool { return r.read("nexa.env") == "KEY=one\n" })

	require.NoError(t, again.Client.Sys().Seal())
	r.eventually("it says that Vault is sealed", func() bool { return strings.Contains(p.log(), "sealed") })
	assert.Equal(t, "KEY=one\n", r.read("nexa.env"))
	_, err := again.Client.Sys().Unseal(again.UnsealKeys[0])
	require.NoError(t, err)
	r.eventually("it can read again", func() bool { return strings.Contains(p.log(), "secret can be read again") })

	_, err = again.Client.Logical().Write("sys/leases/revoke-prefix/auth/approle/login", nil)
	require.NoError(t, err, "the agent's token is revoked")
	_, err = again.Client.Logical().Write("secret/data/tenant/"+r.ID+"/nexa", map[string]any{"data": map[string]any{"KEY": "two"}})
	require.NoError(t, err)
	r.eventually("a new token is fetched", func() bool { return r.read("nexa.env") == "KEY=two\n" })
	p.stop()
}

func TestRunTellsTheServiceAsSoonAsItIsThere(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"KEY": "one"})
	p := r.start("run", "--secret", r.Path("nexa"), "--out", "nexa.env", "--interval", "1s", "--signal", "HUP", "--pid-file", "service.pid")
	r.eventually("the first drop", func() bool { return r.read("nexa.env") == "KEY=one\n" })
	r.Put("nexa", map[string]any{"KEY": "two"})
	r.eventually("the reload fails", func() bool { return strings.Contains(p.log(), "pid file service.pid does not exist") })
	r.service()
	r.eventually("the reload is tried again", func() bool { return r.read("hups") == "x" })
	p.stop()
}

func TestASecretLeavesNoTraceButItsFile(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	marker := vaulttest.Marker()
	r.Put("nexa", map[string]any{"KEY": marker, "NESTED": map[string]any{"x": marker + " $"}})
	config := r.write("deaddrop.hcl", r.Login(r.dir)+interval+`
drop "json" {
  secret      = "`+r.Path("nexa")+`"
  destination = "nexa.json"
`+reload+`}
drop "env" {
  secret      = "`+r.Path("nexa")+`"
  destination = "nexa.env"
}
template {
  destination = "out"
  contents    = <<E
{{ with secret "`+r.Path("nexa")+`" }}{{ .Data.data.KEY | base64Decode }}{{ end }}
E
}
`)
	p := r.start("run", "--config", config, "--log-level", "debug")
	r.eventually("the first drop", func() bool { return strings.Contains(r.read("nexa.json"), marker) })
	r.eventually("the failures are logged", func() bool { return strings.Count(p.log(), "drop failed") == 2 })
	proc := fmt.Sprintf("/proc/%d/", p.cmd.Process.Pid)
	for _, name := range []string{"cmdline", "environ"} {
		content, err := os.ReadFile(proc + name)
		if os.Geteuid() != 0 && errors.Is(err, os.ErrPermission) {
			continue // It is kept from the agent's own user, too.
		}
		require.NoError(t, err)
		assert.NotContains(t, string(content), marker)
		assert.NotContains(t, string(content), r.SecretID)
	}
	p.stop()
	assert.NotContains(t, p.log(), marker)
	assert.NotContains(t, p.log(), r.SecretID)
	entries, err := os.ReadDir(r.dir)
	require.NoError(t, err)
	for _, e := range entries {
		if e.Name() != "nexa.json" {
			assert.NotContains(t, r.read(e.Name()), marker, e.Name())
		}
	}
	assert.Len(t, entries, 4, "config, ids and the one file that could be written: %v", entries)
}

func TestLogsAreTextOrJSON(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"A": "1"})
	args := []string{"render", "--secret", r.Path("nexa"), "--out", "nexa.env"}
	out, _ := r.deaddrop(args...)
	assert.True(t, strings.HasPrefix(out, `{"time":`), "JSON where no terminal is: %s", out)
	out, _ = r.deaddrop(append(args, "--log-format", "text")...)
	assert.Contains(t, out, `msg="logged in to Vault"`)
	out, _ = r.deaddrop(append(args, "--log-level", "error")...)
	assert.Empty(t, out)
}

func TestHelpAndSmallCommands(t *testing.T) {
	t.Parallel()
	r := &rig{t: t, dir: t.TempDir(), env: []string{"VAULT_TOKEN=x"}}
	r.write("x.hcl", "drop \"x\" {\n  secret = \"secret/x\"\n  destination = \"x\"\n}\n")
	for args, want := range map[string]struct {
		code int
		say  string
	}{
		"--help":                  {0, "deaddrop render --once --tenant demo --service nexa"},
		"render --help":           {0, "3  Vault cannot be reached, or is sealed"},
		"version":                 {0, "linux/"},
		"completion bash":         {0, "__deaddrop"},
		"rendr":                   {2, "Did you mean this?"},
		"validate":                {2, "requires at least 1 arg(s)"},
		"templates list":          {0, "nexa.env       All of nexa in capitals"},
		"templates show smtp.env": {0, "{{- dotenv (scratch.Get \"env\") }}"},
		"templates show smtp":     {2, "there are n8n.env, n8n.json"},
		"validate nope.hcl":       {2, "nope.hcl: cannot be read"},
		"validate x.hcl":          {0, "x.hcl is valid: 1 drop"},
		"run --config no.hcl":     {2, "no.hcl: cannot be read"},
	} {
		out, code := r.deaddrop(strings.Fields(args)...)
		assert.Equal(t, want.code, code, args)
		assert.Contains(t, out, want.say, args)
	}
}

func TestExecuteStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	t.Setenv("VAULT_TOKEN", "x")
	defer syscall.Umask(syscall.Umask(0o022)) // Here it is that of all tests.
	assert.Zero(t, execute(ctx, []string{"run", "--secret", "secret/x", "--out", filepath.Join(t.TempDir(), "x")}))
}

func TestRunReadsVersionOneByContent(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	r := newRig(t, s)
	mount := "kv1-" + r.ID
	require.NoError(t, s.Client.Sys().Mount(mount, &api.MountInput{Type: "kv", Options: map[string]string{"version": "1"}}))
	r.Allow(mount + "/nexa")
	put := func(value string) {
		_, err := s.Client.Logical().Write(mount+"/nexa", map[string]any{"KEY": value})
		require.NoError(t, err)
	}
	put("one")
	p := r.start("run", "--secret", mount+"/nexa", "--out", "nexa.env", "--interval", "1s")
	r.eventually("the first drop", func() bool { return r.read("nexa.env") == "KEY=one\n" })
	put("two")
	r.eventually("the change arrives", func() bool { return r.read("nexa.env") == "KEY=two\n" })
	p.stop()
}

func TestRunLogsInAgainBeforeTheTokenEnds(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	r := newRig(t, s)
	r.Role(map[string]any{"token_ttl": "8s", "token_max_ttl": "8s"})
	r.Put("nexa", map[string]any{"KEY": "one"})
	p := r.start("run", "--secret", r.Path("nexa"), "--out", "nexa.env", "--interval", "1s")
	r.eventually("the third login", func() bool { return strings.Count(p.log(), "logged in to Vault") >= 3 })
	r.Put("nexa", map[string]any{"KEY": "two"})
	r.eventually("the change arrives", func() bool { return r.read("nexa.env") == "KEY=two\n" })
	p.stop()
	assert.NotContains(t, p.log(), "cannot be read", "there was no gap between the tokens")
}
