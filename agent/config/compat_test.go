package config

import (
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/dotenv"
)

const oneDrop = "drop \"n\" {\n  secret = \"secret/a\"\n  destination = \"n.env\"\n}\n"

func TestLoadUnderstandsWhatVaultAgentHasBesidesTemplates(t *testing.T) {
	folder(t)
	cfg, err := load(t, `
pid_file        = "agent.pid"
exit_after_auth = true
log_level       = "WARN"
log_format      = "standard"
log_file        = "agent.log"
log_rotate_max_files = 3
disable_idle_connections = ["auto-auth"]
vault {
  address = "https://vault:8200"
  retry { num_retries = 5 }
}
auto_auth {
  enable_reauth_on_new_credentials = true
  method {
    type   = "approle"
    config = { role_id_file_path = "role_id", secret_id_file_path = "secret_id" }
  }
  sink "file" { config = { path = "a", mode = 0600 } }
  sink {
    type = "file"
    config { path = "b" }
  }
}
cache { use_auto_auth_token = true }
api_proxy {}
telemetry { disable_hostname = true }
listener "tcp" { address = "127.0.0.1:8100" }
listener "unix" { address = "/x" }
template_config {
  exit_on_retry_failure    = true
  max_connections_per_host = 3
}
template {
  contents        = "x"
  destination     = "x"
  command         = "echo $HOME"
  command_timeout = "5s"
  wait { min = "1s" }
}
env_template "A" {
  contents             = "{{ with secret \"secret/a\" }}{{ .Data.data.b }}{{ end }}"
  error_on_missing_key = false
}
env_template "B" { source = "good.ctmpl" }
exec {
  command                   = ["serve", "-v"]
  restart_on_secret_changes = "never"
  restart_stop_signal       = "SIGINT"
}
`)
	require.NoError(t, err)
	assert.Equal(t, []any{true, "agent.pid", "warn", "text", "agent.log"}, []any{cfg.Once, cfg.PIDFile, cfg.LogLevel, cfg.LogFormat, cfg.LogFile})
	assert.Equal(t, []Sink{{Path: "a", Mode: 0o600}, {Path: "b", Mode: 0o640}}, cfg.Sinks)
	assert.Equal(t, []Reload{{Command{Args: []string{"sh", "-c", "echo $HOME"}, Timeout: 5 * time.Second}, true}}, unplaced(cfg.Drops[0].Reloads))
	require.NotNil(t, cfg.Supervise)
	assert.Equal(t, []string{"serve", "-v"}, cfg.Supervise.Args)
	assert.Equal(t, syscall.SIGINT, cfg.Supervise.StopSignal)
	assert.False(t, cfg.Supervise.Restart)
	assert.Equal(t, []string{"A", "B"}, []string{cfg.Supervise.Env[0].Name, cfg.Supervise.Env[1].Name})
	var warnings []string
	for _, w := range cfg.Warnings {
		warnings = append(warnings, fmt.Sprint(w.Line))
	}
	assert.ElementsMatch(t, []string{"7", "8", "11", "14", "25", "26", "27", "28", "29", "31", "32", "46"}, warnings, "%v", cfg.Warnings)
	assert.Contains(t, cfg.Files, "good.ctmpl")
}

func TestLoadUnderstandsSetsKeysOwnersAndChecks(t *testing.T) {
	folder(t)
	t.Setenv("DEADDROP_SERVICE", "nexa")
	cfg, err := load(t, login+`
tenant        = "demo"
service       = "n8n"
strict        = true
require_tmpfs = true
set "nexa" {
  destination = "set/"
  template {
    source      = "builtin:nexa.env"
    destination = "nexa.env"
    dialect     = "compose"
  }
  drop "yaml" {
    secret      = "secret/tenant/demo/nexa"
    destination = "nexa.yaml"
    check { command = ["true", "{{.Path}}"] }
  }
  check {
    command = "ls {{.Path}}"
    timeout = "5s"
  }
  reload {
    signal   = "HUP"
    pid_file = "pid"
  }
}
drop "keys" {
  secret        = "secret/tenant/demo/nexa"
  destination   = "keys.env"
  user          = "root"
  group         = 1234
  write         = "in_place"
  on_exit       = "remove"
  strict        = false
  require_tmpfs = false
  keys {
    only        = ["API_*"]
    except      = ["API_OLD"]
    rename      = { API_KEY = "KEY" }
    prefix      = "N_"
    upper       = true
    map_invalid = true
  }
}
drop "shell" {
  secret      = "secret/tenant/demo/nexa"
  destination = "x.sh"
  format      = "shell"
  backup      = true
}
`)
	require.NoError(t, err)
	assert.Equal(t, []string{"demo", "nexa"}, []string{cfg.Tenant, cfg.Service}, "the environment wins")
	require.Len(t, cfg.Drops, 4)
	byName := map[string]Drop{}
	for _, d := range cfg.Drops {
		byName[d.Name] = d
	}
	set := byName["yaml"].Set
	require.NotNil(t, set)
	assert.Same(t, set, byName["nexa.env"].Set)
	assert.Equal(t, "set", set.Folder)
	assert.Equal(t, &Check{Args: []string{"sh", "-c", "ls {{.Path}}"}, Timeout: 5 * time.Second}, set.Check)
	assert.Len(t, set.Reloads, 1)
	assert.Equal(t, "set/nexa.yaml", byName["yaml"].Destination)
	assert.Equal(t, render.FormatYAML, byName["yaml"].Format)
	assert.True(t, byName["yaml"].Strict && byName["yaml"].RequireTmpfs)
	assert.Equal(t, dotenv.Compose, byName["nexa.env"].Dialect)
	keys := byName["keys"]
	assert.Equal(t, []int{0, 1234}, []int{*keys.UID, *keys.GID})
	assert.Equal(t, render.Keys{Only: []string{"API_*"}, Except: []string{"API_OLD"}, Rename: map[string]string{"API_KEY": "KEY"}, Prefix: "N_", Upper: true, MapInvalid: true}, keys.Keys)
	assert.Equal(t, []bool{true, true, false, false}, []bool{keys.InPlace, keys.RemoveOnExit, keys.Strict, keys.RequireTmpfs})
	assert.True(t, byName["shell"].Backup)
}

func TestLoadSaysWhatToWriteInstead(t *testing.T) {
	set := func(body string) string { return login + "set \"s\" {\n  destination = \"s\"\n" + body + "}\n" }
	env := func(name string) string { return login + "env_template \"" + name + "\" {\n  contents = \"x\"\n}\n" }
	with := func(argument string) string {
		return login + "drop \"n\" {\n  secret = \"secret/a\"\n  destination = \"n.env\"\n" + argument + "\n}\n"
	}
	const exec = "exec {\n  command = [\"x\"]\n}\n"
	for name, tc := range map[string]struct{ text, want string }{
		"an HCL 1 dollar":            {login + "template {\n  destination = \"x\"\n  contents = \"${HOME}\"\n}", `deaddrop.hcl:8:17: there is no variable "HOME"; write $${ for the text ${`},
		"a dollar in a heredoc":      {login + "template {\n  destination = \"x\"\n  contents = <<E\na ${x} b\nE\n}", `write $${ for the text ${`},
		"a block of two on a line":   {login + "listener \"unix\" { address = \"/s\" role = \"status\" }", `deaddrop.hcl:6:34: Invalid single-argument block definition: A single-line block definition must end with a closing brace immediately after its single argument definition. Write each argument on a line of its own.`},
		"an HCL 1 percent":           {login + "template {\n  destination = \"x\"\n  contents = \"%{x}\"\n}", `write %%{ for the text %{`},
		"a lone backslash":           {login + "template {\n  destination = \"x\"\n  contents = \"\\d\"\n}", `write \\ for a backslash`},
		"nothing but a proxy":        {login + "listener \"tcp\" {}\n", `there is nothing to write: add a "drop" or a "template" block; listener, api_proxy and cache are not supported here`},
		"a sink of another type":     {"auto_auth {\n  method \"approle\" {\n    config = { role_id_file_path = \"role_id\", secret_id_file_path = \"secret_id\" }\n  }\n  sink \"x\" {}\n}\n" + oneDrop, `deaddrop.hcl:5:8: sink "x" is not supported; use "file"`},
		"a wrapped sink":             {"auto_auth {\n  method \"approle\" {\n    config = { role_id_file_path = \"role_id\", secret_id_file_path = \"secret_id\" }\n  }\n  sink \"file\" {\n    wrap_ttl = \"5m\"\n    config = { path = \"x\" }\n  }\n}\n" + oneDrop, `wrap_ttl is not supported: who reads the sink would get a plain token`},
		"a sink without path":        {"auto_auth {\n  method \"approle\" {\n    config = { role_id_file_path = \"role_id\", secret_id_file_path = \"secret_id\" }\n  }\n  sink \"file\" {}\n}\n" + oneDrop, `sink "file" lacks a path`},
		"env_template without exec":  {env("A"), `env_template needs an exec block`},
		"exec without env_template":  {login + exec, `exec needs an env_template or a file`},
		"a variable of a bad name":   {env("a-b") + exec, `"a-b" is not a variable name`},
		"a variable twice":           {env("A") + "env_template \"A\" {\n  contents = \"y\"\n}\n" + exec, `the variable A is there already`},
		"an unknown restart":         {env("A") + "exec {\n  command = [\"x\"]\n  restart_on_secret_changes = \"maybe\"\n}\n", `use "always" or "never"`},
		"a log level":                {"log_level = \"loud\"\n" + login + oneDrop, `deaddrop.hcl:1:13: log_level "loud" is not known`},
		"a log format":               {"log_format = \"xml\"\n" + login + oneDrop, `log_format "xml" is not known`},
		"an empty set":               {set(""), `set "s" has no drops`},
		"a path in a set":            {set("  drop \"x\" {\n    secret = \"secret/a\"\n    destination = \"a/b\"\n  }\n"), `destination "a/b" is in set "s": write the plain name of a file`},
		"a name of ours in a set":    {set("  drop \"x\" {\n    secret = \"secret/a\"\n    destination = \"..data\"\n  }\n"), `write the plain name of a file`},
		"in place in a set":          {set("  drop \"x\" {\n    secret = \"secret/a\"\n    destination = \"b\"\n    write = \"in_place\"\n  }\n"), `write = "in_place" cannot be in a set`},
		"a backup in a set":          {set("  drop \"x\" {\n    secret = \"secret/a\"\n    destination = \"b\"\n    backup = true\n  }\n"), `backup cannot be in a set`},
		"removal in a set":           {set("  drop \"x\" {\n    secret = \"secret/a\"\n    destination = \"b\"\n    on_missing = \"remove\"\n  }\n"), `on_missing = "remove" cannot be in a set`},
		"two ends in a set":          {set("  drop \"x\" {\n    secret = \"secret/a\"\n    destination = \"b\"\n    on_exit = \"remove\"\n  }\n  drop \"y\" {\n    secret = \"secret/a\"\n    destination = \"c\"\n  }\n"), `on_exit must be the same for all drops of set "s"`},
		"one path twice in a set":    {set("  drop \"x\" {\n    secret = \"secret/a\"\n    destination = \"b\"\n  }\n  drop \"y\" {\n    secret = \"secret/a\"\n    destination = \"b\"\n  }\n"), `is written already`},
		"a backup in place":          {with("  write = \"in_place\"\n  backup = true"), `cannot keep a backup`},
		"an unknown way to write":    {with("  write = \"inplace\""), `write "inplace" is not known; use one of replace, in_place; did you mean "in_place"?`},
		"an unknown end":             {with("  on_exit = \"delete\""), `on_exit "delete" is not known; use one of keep, remove`},
		"an unknown dialect":         {with("  dialect = \"compos\""), `did you mean "compose"?`},
		"a dialect for JSON":         {with("  dialect = \"compose\"\n  format = \"json\""), `dialect is for format "dotenv" and for templates; format is "json"`},
		"an unknown user":            {with("  user = \"no-such-user\""), `there is no user "no-such-user" on this machine; write its number`},
		"an unknown group":           {with("  group = \"no-such-group\""), `there is no group "no-such-group" on this machine`},
		"keys of a template":         {login + "template {\n  destination = \"x\"\n  contents = \"x\"\n  keys { upper = true }\n}", `keys has no effect on a template`},
		"an unknown builtin":         {login + "template {\n  destination = \"x\"\n  source = \"builtin:nexus.env\"\n}", `there is no ready-made template "nexus.env"; "deaddrop templates list" shows them; did you mean "nexa.env"?`},
		"a function of Consul":       {login + "template {\n  destination = \"x\"\n  contents = <<E\n\n{{ key \"a/b\" }}\nE\n}", `deaddrop.hcl:10:4: function "key" reads Consul, which is not supported here; only Vault is`},
		"a function of Nomad":        {login + "template {\n  destination = \"x\"\n  contents = \"{{ nomadVar \\\"a\\\" }}\"\n}", `function "nomadVar" reads Nomad`},
		"two ways to run a command":  {login + "template {\n  destination = \"x\"\n  contents = \"x\"\n  command = \"x\"\n  exec { command = [\"x\"] }\n}", `command and exec exclude each other`},
		"an include that is not one": {login + "template {\n  destination = \"x\"\n  contents = \"{{ template \\\"no\\\" }}\"\n}", `deaddrop.hcl:8:14: line 1 of the template: there is no template "no"; one of the same folder is included by the name of its file`},
	} {
		t.Run(name, func(t *testing.T) {
			folder(t)
			_, err := load(t, tc.text)
			var wrong *Error
			require.ErrorAs(t, err, &wrong)
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestSeveralFilesAndFoldersMerge(t *testing.T) {
	folder(t)
	require.NoError(t, os.Mkdir("conf.d", 0o700))
	for name, content := range map[string]string{
		"first.hcl":      login + "log_level = \"info\"\n",
		"conf.d/b.json":  `{"drop": {"b": {"secret": "secret/b", "destination": "b.env"}}, "log_level": "debug"}`,
		"conf.d/a.hcl":   "drop \"a\" {\n  secret = \"secret/a\"\n  destination = \"a.env\"\n}\n",
		"conf.d/c.txt":   "this is no configuration",
		"conf.d/.a.swp":  "nor is this",
		"again.hcl":      login,
		"same.hcl":       "drop \"x\" {\n  secret = \"secret/a\"\n  destination = \"a.env\"\n}\n",
		"bad/x.txt":      "",
		"wrong/bad.json": `{"drop": [}`,
	} {
		_ = os.MkdirAll("bad", 0o700)
		_ = os.MkdirAll("wrong", 0o700)
		require.NoError(t, os.WriteFile(name, []byte(content), 0o600))
	}
	cfg, err := Load("first.hcl", "conf.d")
	require.NoError(t, err)
	assert.Equal(t, []string{"a", "b"}, []string{cfg.Drops[0].Name, cfg.Drops[1].Name})
	assert.Equal(t, "debug", cfg.LogLevel, "a later file wins")
	assert.Equal(t, []string{"first.hcl", "conf.d", "conf.d/a.hcl", "conf.d/b.json"}, cfg.Files)

	for want, paths := range map[string][]string{
		"again.hcl:1:1: auto_auth is there already, at first.hcl:1":                           {"first.hcl", "again.hcl", "conf.d"},
		"same.hcl:3:17: destination a.env is written already, by the block at conf.d/a.hcl:3": {"first.hcl", "conf.d", "same.hcl"},
		"bad: there is no file *.hcl or *.json in this folder":                                {"first.hcl", "bad"},
		"wrong/bad.json:1:11: ":                           {"first.hcl", "wrong"},
		"nope: cannot be read: no such file or directory": {"first.hcl", "nope"},
	} {
		_, err := Load(paths...)
		require.ErrorContains(t, err, want)
	}
}
