package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/servicetest"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

func TestASetChangesTogetherOnceItsChecksHavePassed(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.AllowAll()
	marker := vaulttest.Marker()
	put := func(key, value string) { r.Put("nexa", map[string]any{key: marker + value}) }
	put("KEY", "1")
	r.service()
	config := r.write("deaddrop.hcl", r.Login(r.dir)+interval+`
set "nexa" {
  destination = "nexa"
  drop "env" {
    secret      = "`+r.Path("nexa")+`"
    destination = "nexa.env"
    check { command = ["grep", "-q", "^KEY=", "{{.Path}}"] }
  }
  template {
    destination = "nexa.conf"
    contents    = "{{ with secret \"`+r.Path("nexa")+`\" }}{{ range .Data.data }}{{ . }}{{ end }}{{ end }}"
  }
  check { command = "cat {{.Path}}/nexa.env; test $(ls {{.Path}} | wc -l) = 2" }
`+reload+`}
`)
	p := r.start("run", "--config", config)
	r.eventually("the first generation", func() bool { return r.read("nexa/nexa.conf") == marker+"1" })
	assert.Equal(t, "KEY="+marker+"1\n", r.read("nexa/nexa.env"))
	put("KEY", "2")
	r.eventually("the second generation", func() bool { return r.read("nexa/nexa.conf") == marker+"2" })
	assert.Equal(t, "KEY="+marker+"2\n", r.read("nexa/nexa.env"))
	r.eventually("one reload for both", func() bool { return r.read("hups") == "x" })

	put("WRONG", "3")
	r.eventually("the check fails", func() bool { return strings.Contains(p.log(), "check refused new content") })
	assert.Equal(t, "KEY="+marker+"2\n", r.read("nexa/nexa.env"))
	assert.Equal(t, marker+"2", r.read("nexa/nexa.conf"))
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGUSR1))
	r.eventually("the status tells it", func() bool { return strings.Contains(p.log(), `"state":"stale"`) })
	put("KEY", "4")
	r.eventually("the next change is tried", func() bool { return r.read("nexa/nexa.conf") == marker+"4" })
	r.eventually("nobody is left to be told", func() bool { return r.journal("nexa.env")+r.journal("nexa.conf") == "" })
	r.eventually("the service has heard of it", func() bool { return r.read("hups") == "xx" })
	p.stop()
	assert.Equal(t, 1, strings.Count(p.log(), "drop failed"), "it was said once")
	entries, err := os.ReadDir(r.path("nexa"))
	require.NoError(t, err)
	assert.Len(t, entries, 4, "two links, ..data and one generation: %v", entries)
	assert.NotContains(t, p.log(), marker)
}

func TestTheOutputOfACheckIsShownWithoutSecrets(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	marker := vaulttest.Marker()
	r.Put("nexa", map[string]any{"KEY": marker, "PEM": "line " + marker + "\nnext " + marker})
	config := r.write("deaddrop.hcl", r.Login(r.dir)+`
drop "nexa" {
  secret      = "`+r.Path("nexa")+`"
  destination = "nexa.env"
  dialect     = "shell"
  check {
    command     = "echo line 1 of {{.Path}} is bad; cat {{.Path}}; base64 -w0 {{.Path}} >/dev/null; exit 3"
    show_output = true
  }
}
drop "slow" {
  secret      = "`+r.Path("nexa")+`"
  destination = "slow.json"
  check {
    command = ["sleep", "60"]
    timeout = "100ms"
  }
}
`)
	out, code := r.deaddrop("render", "--config", config)
	assert.Equal(t, exitFailed, code)
	assert.Contains(t, out, `"error":"check refused new content: exit status 3","printed":"`)
	assert.Contains(t, out, `"output":"line 1 of {{.Path}} is bad\nKEY=[redacted]`)
	assert.Contains(t, out, `"error":"check refused new content: ended after its timeout of 100ms"}`)
	assert.NotContains(t, out, marker)
	assert.NoFileExists(t, r.path("nexa.env"))
	entries, err := filepath.Glob(r.path(".deaddrop-*"))
	require.NoError(t, err)
	assert.Empty(t, entries)
}

func TestTemplatesListWriteBesidesAndReadFiles(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.AllowAll()
	r.Grant("secret/metadata/tenant/"+r.ID, "list")
	r.Put("nexa", map[string]any{"KEY": "n"})
	r.Put("smtp", map[string]any{"KEY": "s"})
	require.NoError(t, os.Mkdir(r.path("box"), 0o700))
	r.write("box/extra", "one")
	r.write("other.ctmpl", `({{ . }})`)
	r.write("main.ctmpl", `{{ range secrets "secret/tenant/`+r.ID+`/" }}{{ . }}={{ with secret (print "secret/tenant/`+r.ID+`/" .) }}{{ .Data.data.KEY }}{{ "side" | writeToFile "side.txt" "" "" "0640" }}{{ end }}
{{ end }}{{ file "`+r.path("box/extra")+`" }} {{ template "other.ctmpl" "included" }} {{ tenant }} {{ "a b" | envQuote "systemd" }}`)
	config := r.write("deaddrop.hcl", r.Login(r.dir)+interval+`
tenant = "`+r.ID+`"
template {
  source       = "main.ctmpl"
  destination  = "out.txt"
  sandbox_path = "`+r.path("box")+`"
}
`)
	p := r.start("run", "--config", config)
	rest := "(included) " + r.ID + ` "a b"`
	r.eventually("the first render", func() bool { return r.read("out.txt") == "nexa=n\nsmtp=s\none "+rest })
	assert.Equal(t, "side", r.read("side.txt"))
	r.Put("shopify", map[string]any{"KEY": "y"})
	r.eventually("a new secret in the folder is found", func() bool { return r.read("out.txt") == "nexa=n\nshopify=y\nsmtp=s\none "+rest })
	r.write("box/extra", "two!")
	r.eventually("the file that was read has changed", func() bool { return strings.Contains(r.read("out.txt"), "two!") })
	require.NoError(t, os.Remove(r.path("box/extra")))
	require.NoError(t, os.Symlink(r.path("role_id"), r.path("box/extra")))
	r.eventually("nothing outside of the sandbox is read", func() bool { return strings.Contains(p.log(), "drop failed") })
	assert.Contains(t, r.read("out.txt"), "two!")
	p.stop()
}

func TestBuiltinTemplatesNeedNothingButATenant(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.AllowAll()
	r.Put("smtp", map[string]any{"host": "mail.example", "port": 587, "user": "u", "password": "p w", "from": "x@y.z"})
	r.env = append(r.env, "DEADDROP_TENANT="+r.ID)
	config := r.write("deaddrop.hcl", r.Login(r.dir)+`
drop "smtp" {
  source      = "builtin:smtp.env"
  destination = "smtp.env"
  dialect     = "compose"
}
drop "json" {
  source      = "builtin:smtp.json"
  destination = "smtp.json"
}
`)
	out, code := r.deaddrop("render", "--config", config)
	require.Zero(t, code, out)
	assert.Equal(t, "SMTP_FROM=x@y.z\nSMTP_HOST=mail.example\nSMTP_PASSWORD=\"p w\"\nSMTP_PORT=587\nSMTP_USER=u\n", r.read("smtp.env"))
	var got map[string]any
	require.NoError(t, json.Unmarshal([]byte(r.read("smtp.json")), &got))
	assert.EqualValues(t, 587, got["SMTP_PORT"])
}

// agentFile is a file for Vault Agent, with all that such files have.
const agentFile = `
pid_file        = "agent.pid"
exit_after_auth = true
log_level       = "info"
log_format      = "json"

vault {
  address = "ADDRESS"
  ca_cert = "CACERT"
  retry { num_retries = 5 }
}

cache {}
api_proxy { use_auto_auth_token = true }

listener "tcp" {
  address     = "127.0.0.1:8100"
  tls_disable = true
}

auto_auth {
  method {
    type = "approle"
    config = {
      role_id_file_path                   = "role_id"
      secret_id_file_path                 = "secret_id"
      remove_secret_id_file_after_reading = false
    }
  }
  sink {
    type = "file"
    config = {
      path = "sink/token"
      mode = 0600
    }
  }
}

template_config {
  exit_on_retry_failure         = true
  static_secret_render_interval = "5m"
}

template {
  source               = "nexa.ctmpl"
  destination          = "nexa.conf"
  error_on_missing_key = false
  left_delimiter       = "<<"
  right_delimiter      = ">>"
  command              = "touch executed"
}
`

func TestAVaultAgentFileRunsUnchanged(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	r := newRig(t, s)
	r.AllowAll()
	r.Put("nexa", map[string]any{"KEY": "v"})
	r.Login(r.dir) // writes the ids
	r.env = r.env[:1]
	r.write("nexa.ctmpl", `<< with secret "secret/data/tenant/`+r.ID+`/nexa" >><< .Data.data.KEY >> << .Data.data.NONE >><< end >>`)
	config := r.write("vault-agent.hcl", strings.NewReplacer("ADDRESS", s.Address, "CACERT", s.CAFile).Replace(agentFile))
	out, code := r.deaddrop("run", "--config", config)
	require.Zero(t, code, out)
	assert.Equal(t, "v <no value>", r.read("nexa.conf"))
	assert.FileExists(t, r.path("executed"))
	assert.NoFileExists(t, r.path("agent.pid"), "it is gone with the process")
	for _, block := range []string{"cache", "api_proxy", "listener"} {
		assert.Equal(t, 1, strings.Count(out, block+" is not supported and has no effect"), block)
	}
	token := r.read("sink/token")
	require.NotEmpty(t, token)
	assert.NotContains(t, out, token)
	client, err := s.Client.Clone()
	require.NoError(t, err)
	client.SetToken(token)
	_, err = client.Logical().Read("secret/data/tenant/" + r.ID + "/nexa")
	require.NoError(t, err, "the token in the sink is good after the end")
	info, err := os.Stat(r.path("sink/token"))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode())
}

func TestACommandIsSupervisedWithSecretsInItsEnvironment(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.AllowAll()
	marker := vaulttest.Marker()
	r.Put("nexa", map[string]any{"KEY": marker, "MODEL": "one"})
	config := r.write("agent.hcl", r.Login(r.dir)+interval+`
env_template "API_KEY" {
  contents             = "{{ with secret \"`+r.Path("nexa")+`\" }}{{ .Data.data.KEY }}{{ end }}"
  error_on_missing_key = true
}
env_template "MODEL" {
  contents = "{{ with secret \"`+r.Path("nexa")+`\" }}{{ .Data.data.MODEL }}{{ end }}"
}
exec {
  `+command(servicetest.Service{File: "said", Start: "started $MODEL $API_KEY", On: map[string]string{"USR2": "stopped $MODEL"}, Exit: map[string]int{"USR2": 0}, Until: "leave", UntilCode: 9})+`
  restart_on_secret_changes = "always"
  restart_stop_signal       = "SIGUSR2"
}
`)
	p := r.start("run", "--config", config)
	r.eventually("the command starts", func() bool { return r.read("said") == "started one "+marker+"\n" })
	r.Put("nexa", map[string]any{"KEY": marker, "MODEL": "two"})
	r.eventually("it starts anew", func() bool { return r.read("said") == "started one "+marker+"\nstopped one\nstarted two "+marker+"\n" })
	r.Put("nexa", map[string]any{"MODEL": "three"})
	r.eventually("a variable fails", func() bool { return strings.Contains(p.log(), "variable failed") })
	assert.Equal(t, "started one "+marker+"\nstopped one\nstarted two "+marker+"\n", r.read("said"), "the command goes on")
	p.stop()
	assert.Equal(t, "started one "+marker+"\nstopped one\nstarted two "+marker+"\nstopped two\n", r.read("said"))
	assert.NotContains(t, p.log(), marker)

	r.Put("nexa", map[string]any{"KEY": marker, "MODEL": "four"})
	r.write("leave", "")
	out, code := r.deaddrop("run", "--config", config)
	assert.Equal(t, 9, code, "its exit code is passed on: %s", out)
	out, code = r.deaddrop("render", "--config", config)
	assert.Equal(t, exitUsage, code)
	assert.Contains(t, out, "there is no file to render")
}

func TestADryRunShowsKeysAndWritesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	marker := vaulttest.Marker()
	r.Put("nexa", map[string]any{"KEY": marker, "OLD": "1", "SAME": "s"})
	config := r.write("deaddrop.hcl", r.Login(r.dir)+`
drop "env" {
  secret      = "`+r.Path("nexa")+`"
  destination = "nexa.env"
  exec { command = ["touch", "executed"] }
}
template {
  destination = "text"
  contents    = <<E
-----BEGIN
{{ with secret "`+r.Path("nexa")+`" }}{{ .Data.data.KEY }}{{ end }}
-----END
E
}
drop "missing" {
  secret      = "`+r.Path("nothing")+`"
  destination = "missing.json"
}
`)
	out, code := r.deaddrop("render", "--config", config, "--dry-run")
	assert.NotEqual(t, exitOK, code, "one of them fails")
	assert.Contains(t, out, "nexa.env: would be created with mode 0600\n  KEY=******\n  OLD=******\n  SAME=******\ntext: would be created with mode 0600\n  3 lines, whose values cannot be masked one by one\n")
	assert.NotContains(t, out, marker)
	assert.NoFileExists(t, r.path("nexa.env"))
	assert.NoFileExists(t, r.path("executed"))
	out, _ = r.showing().deaddrop("render", "--config", config, "--dry-run", "--show-secrets")
	assert.Contains(t, out, "  KEY="+marker+"\n")

	_, _ = r.deaddrop("render", "--config", config)
	require.FileExists(t, r.path("nexa.env"))
	out, _ = r.deaddrop("render", "--config", config, "--diff")
	assert.Contains(t, out, "nexa.env: unchanged\ntext: unchanged\n")
	for _, name := range []string{"nexa.env", "text"} {
		require.NoError(t, os.Chmod(r.path(name), 0o644))
	}
	out, _ = r.deaddrop("render", "--config", config, "--diff")
	assert.Contains(t, out, "nexa.env: unchanged; mode 0644 becomes 0600\ntext: unchanged; mode 0644 becomes 0600\n")
	r.Put("nexa", map[string]any{"KEY": marker + "2", "NEW": "1", "SAME": "s"})
	out, _ = r.deaddrop("render", "--config", config, "--diff")
	assert.Contains(t, out, "nexa.env: would be changed; mode 0644 becomes 0600\n  ~ KEY=****** -> ******\n  + NEW=******\n  - OLD=******\ntext: would be changed; mode 0644 becomes 0600\n  1 line in place of 1, without keys to show\n")
	assert.NotContains(t, out, marker)
	out, _ = r.showing().deaddrop("render", "--config", config, "--diff", "--show-secrets")
	assert.Contains(t, out, "  ~ KEY="+marker+" -> "+marker+"2\n")
	assert.Contains(t, out, "  - "+marker+"\n  + "+marker+"2\n")
	assert.Contains(t, r.read("nexa.env"), "OLD=1", "it is as it was")

	for _, told := range []int{2, 0} { // of the two files
		out, _ = r.deaddrop("render", "--config", config)
		assert.Equal(t, told, strings.Count(out, `its mode was 0644, and is 0600 now: write perms = \"0644\" to keep it`), out)
	}
}

func TestValidatePrintsWhatTheFilesComeTo(t *testing.T) {
	t.Parallel()
	r := &rig{t: t, dir: t.TempDir(), env: []string{"VAULT_ADDR=https://vault.example:8200", "DEADDROP_TENANT=demo"}}
	marker := vaulttest.Marker()
	require.NoError(t, os.Mkdir(r.path("conf.d"), 0o700))
	r.write("conf.d/10-login.hcl", "auto_auth {\n  method \"approle\" {\n    config = { role_id = \"r\", secret_id = \""+marker+"\" }\n  }\n}\nlistener \"tcp\" {}\n")
	r.write("conf.d/20-drops.json", `{"drop": {"nexa": {"secret": "secret/tenant/demo/nexa", "destination": "nexa.env", "keys": {"only": ["API_*"], "upper": true}}}}`)
	r.write("more.hcl", "set \"s\" {\n  destination = \"/run/s\"\n  drop \"x\" {\n    secret = \"secret/x\"\n    destination = \"x.json\"\n    on_exit = \"remove\"\n  }\n}\n")
	out, code := r.deaddrop("validate", "--print", "conf.d", "more.hcl")
	require.Zero(t, code, out)
	for _, want := range []string{
		"warning: conf.d/10-login.hcl:6:1: listener is not supported", `address = "https://vault.example:8200"`, `secret_id = "[redacted]"`,
		`tenant = "demo"`, `drop "nexa" {`, `only = ["API_*"]`, "set \"s\" {\n  destination = \"/run/s\"\n  create_dest_dirs = true\n  drop \"x\" {\n    secret = \"secret/x\"\n    destination = \"x.json\"\n    format = \"json\"", `on_exit = "remove"`,
		`static_secret_render_interval = "15s"`,
	} {
		assert.Contains(t, out, want)
	}
	assert.NotContains(t, out, marker)
	// What is printed is a configuration itself.
	_, printed, _ := strings.Cut(out, "vault {")
	r.write("printed.hcl", "vault {"+printed)
	again, code := r.deaddrop("validate", "--print", "printed.hcl")
	require.Zero(t, code, again)
	assert.Equal(t, "vault {"+printed, again)
}

func TestFilesLiveAndDieAsTheirDropsSay(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"KEY": "one"})
	config := r.write("deaddrop.hcl", r.Login(r.dir)+interval+`
drop "brief" {
  secret      = "`+r.Path("nexa")+`"
  destination = "brief.env"
  on_exit     = "remove"
}
drop "kept" {
  secret      = "`+r.Path("nexa")+`"
  destination = "kept.env"
  backup      = true
}
drop "strict" {
  secret      = "`+r.Path("nexa")+`"
  destination = "open/strict.env"
  strict      = true
}
`)
	require.NoError(t, os.Mkdir(r.path("open"), 0o700))
	require.NoError(t, os.Chmod(r.path("open"), 0o777))
	r.write(".deaddrop-ABCDEFGHIJKLMNOPQRSTUVWXYZ-kept.env", "KEY=left by an agent that was killed")
	p := r.start("run", "--config", config)
	r.eventually("the first drops", func() bool { return r.read("brief.env") != "" && r.read("kept.env") != "" })
	assert.NoFileExists(t, r.path(".deaddrop-ABCDEFGHIJKLMNOPQRSTUVWXYZ-kept.env"))
	r.eventually("strict fails", func() bool {
		return strings.Contains(p.log(), "strict: folder "+r.path("open")+" may be written to by every user (mode 0777); chmod go-w "+r.path("open"))
	})
	assert.Equal(t, 1, strings.Count(p.log(), "strict: folder "+r.path("open")), "it is said once")
	require.NoError(t, os.Chmod(r.path("open"), 0o755))
	r.eventually("the folder is mended", func() bool { return r.read("open/strict.env") == "KEY=one\n" })
	r.Put("nexa", map[string]any{"KEY": "two"})
	r.eventually("the change", func() bool { return r.read("kept.env") == "KEY=two\n" })
	assert.Equal(t, "KEY=one\n", r.read("kept.env.bak"))
	p.stop()
	assert.NoFileExists(t, r.path("brief.env"))
	assert.FileExists(t, r.path("kept.env"))
}

func TestAChangedFolderOfConfigurationIsPickedUp(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"KEY": "one"})
	require.NoError(t, os.Mkdir(r.path("conf.d"), 0o700))
	drop := func(name string) string {
		return "drop \"" + name + "\" {\n  secret = \"" + r.Path("nexa") + "\"\n  destination = \"" + name + ".env\"\n}\n"
	}
	login := r.write("login.hcl", r.Login(r.dir)+interval)
	r.write("conf.d/a.hcl", drop("a"))
	p := r.start("run", "--config", login, "--config", "conf.d")
	r.eventually("the first drop", func() bool { return r.read("a.env") != "" })
	r.write("conf.d/b.hcl", drop("b"))
	r.eventually("a new file is found", func() bool { return r.read("b.env") != "" })
	p.stop()
}

func TestASinkFollowsTheToken(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Role(map[string]any{"token_ttl": "3s", "token_max_ttl": "3s"})
	r.Manage()
	login := strings.Replace(r.Login(r.dir), "auto_auth {", "auto_auth {\n  sink \"file\" { config = { path = \"sink/folder/token\" } }\n", 1)
	p := r.start("run", "--config", r.write("deaddrop.hcl", login))
	var tokens []string
	r.eventually("three tokens, one after the other", func() bool {
		if token := r.read("sink/folder/token"); token != "" && (len(tokens) == 0 || token != tokens[len(tokens)-1]) {
			tokens = append(tokens, token)
		}
		return len(tokens) == 3
	})
	p.stop()
	for _, token := range tokens {
		assert.NotContains(t, p.log(), token)
	}
}
