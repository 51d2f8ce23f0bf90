package config

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// everything has all that Vault Agent 1.21 and 2.x, OpenBao Agent 2.6 and
// consul-template take in a file that this agent runs. A warning is wanted for each line
// that ends in "# warns".
const everything = `
pid_file                      = "agent.pid"
exit_after_auth               = false
log_level                     = "info"
log_format                    = "standard"
log_file                      = "agent.log"
log_rotate_bytes              = 1000                 # warns
log_rotate_duration           = "24h"                # warns
log_rotate_max_files          = 3                    # warns
disable_idle_connections      = ["auto-auth"]        # warns
disable_keep_alives           = ["templating"]       # warns
disable_mlock                 = true                 # warns
default_max_request_duration  = "90s"                # warns
cluster_name                  = "c"                  # warns
administrative_namespace_path = "admin"              # warns
seal "awskms" {                                      # warns
  region = "eu"
}
kms "pkcs11" {                                       # warns
  lib = "x"
}
hsm "x" {}                                           # warns
entropy "seal" {                                     # warns
  mode = "augmentation"
}
cloud { client_id = "x" }                            # warns
user_lockout "all" {                                 # warns
  lockout_duration = "10m"
}
vault {
  address         = "https://vault:8200"
  ca_cert         = "ca.pem"
  ca_path         = "/etc/ssl"
  client_cert     = "c.pem"
  client_key      = "k.pem"
  tls_skip_verify = "false"
  tls_server_name = "vault"
  namespace       = "ns"
  retry { num_retries = 5 }                          # warns
}
auto_auth {
  enable_reauth_on_new_credentials = true            # warns
  method "jwt" {
    mount_path  = "auth/jwt"
    namespace   = "ns"
    wrap_ttl    = 0                                  # warns
    min_backoff = "1s"                               # warns
    max_backoff = 60                                 # warns
    exit_on_err = true                               # warns
    config = {
      path                        = "jwt"
      role                        = "r"
      remove_jwt_after_reading    = false
      remove_jwt_follows_symlinks = true             # warns
      jwt_read_period             = "1m"             # warns
    }
  }
}
cache {                                              # warns
  use_auto_auth_token = true
  enforce_consistency = "always"
  when_inconsistent   = "retry"
  persist "kubernetes" {
    path              = "/vault/agent-cache"
    keep_after_import = true
  }
}
api_proxy {                                          # warns
  use_auto_auth_token = "force"
  enforce_consistency = "always"
}
listener "tcp" {                                     # warns
  address                = "127.0.0.1:8100"
  tls_disable            = true
  require_request_header = true
  agent_api { enable_quit = true }
}
listener "tcp" {
  address = "127.0.0.1:8200"
  role    = "metrics_only"
  tls_disable = true
  # the rest of a listener
  telemetry { unauthenticated_metrics_access = true } # warns
}
telemetry {                                          # warns
  disable_hostname          = true
  prometheus_retention_time = "24h"
  dogstatsd_tags            = ["a"]
}
template_config {
  exit_on_retry_failure         = true               # warns
  static_secret_render_interval = 300
  max_connections_per_host      = 3                  # warns
  lease_renewal_threshold       = 0.8
}
template {
  source               = "good.ctmpl"
  destination          = "x"
  create_dest_dirs     = "true"
  command              = "true"
  command_timeout      = 5
  error_on_missing_key = true
  error_fatal          = true                        # warns
  perms                = 0640
  backup               = true
  left_delimiter       = "<<"
  right_delimiter      = ">>"
  function_denylist    = ["env"]
  function_blacklist   = ["file"]
  sandbox_path         = "/etc"
  uid                  = 0
  gid                  = 0
  wait                 = "2s:5s"
}
template {
  contents    = "y"
  destination = "y"
  user        = "root"
  uid         = 7
  group       = "0"
  gid         = 7
  error_fatal = false
  exec {
    enabled       = true
    command       = ["true"]
    timeout       = "3s"
    kill_signal   = "SIGINT"                         # warns
    kill_timeout  = "1s"                             # warns
    reload_signal = "SIGHUP"                         # warns
    splay         = "1s"                             # warns
    env {
      custom    = ["B=2", "A=1"]
      pristine  = true                               # warns
      allowlist = ["HOME"]                           # warns
      denylist  = ["X"]                              # warns
      whitelist = ["HOME"]                           # warns
      blacklist = ["X"]                              # warns
    }
  }
  wait {
    enabled = true
    min     = "1s"
    max     = "2s"
  }
}
template {
  contents    = "z"
  destination = "z"
  exec {
    enabled = false
    command = ["true"]
  }
  wait {
    enabled = false
    min     = "1s"
  }
}
env_template "A" {
  contents             = "x"
  error_on_missing_key = false
  error_fatal          = true                        # warns
  left_delimiter       = "<<"
  right_delimiter      = ">>"
  function_denylist    = ["env"]
}
exec {
  command                   = ["serve"]
  restart_on_secret_changes = "always"
  restart_stop_signal       = "SIGTERM"
  child_process_stdout      = "/var/log/out"         # warns
  child_process_stderr      = "/var/log/err"         # warns
}
`

// withListener adds every other setting of a listener that is left out.
func withListener() string {
	var lines strings.Builder
	for _, f := range foreignOfListener {
		if !f.refused && f.name != "telemetry" {
			fmt.Fprintf(&lines, "  %s = 1 # warns\n", f.name)
		}
	}
	return strings.Replace(everything, "  # the rest of a listener\n", lines.String(), 1)
}

func TestLoad_TakesEverySettingOfTheIncumbents(t *testing.T) {
	quiet(t)
	text := withListener()
	cfg, err := load(t, text)
	require.NoError(t, err)
	var want []int
	for i, line := range strings.Split(text, "\n") {
		if strings.HasSuffix(line, "# warns") {
			want = append(want, i+1)
		}
	}
	var lines []int
	for _, w := range cfg.Warnings {
		lines = append(lines, w.Line)
		assert.Contains(t, w.Text, "has no effect")
	}
	assert.Equal(t, want, lines, "%v", cfg.Warnings)

	root := 0
	first, second, third := cfg.Drops[0], cfg.Drops[1], cfg.Drops[2]
	assert.Equal(t, TemplateText{Left: "<<", Right: ">>", Denied: []string{"env", "file"}}, first.Text)
	assert.Equal(t, []*int{&root, &root}, []*int{first.UID, first.GID})
	assert.Equal(t, Wait{2 * time.Second, 5 * time.Second}, first.Wait)
	assert.Equal(t, []*int{&root, &root}, []*int{second.UID, second.GID}, "user and group win over uid and gid")
	assert.Equal(t, []Reload{{Command{Args: []string{"true"}, Timeout: 3 * time.Second, Env: []string{"A=1", "B=2"}}, true}}, second.Reloads)
	assert.Equal(t, Wait{time.Second, 2 * time.Second}, second.Wait)
	assert.Empty(t, third.Reloads)
	assert.Equal(t, Wait{}, third.Wait)
	assert.Equal(t, TemplateText{Contents: "x", Left: "<<", Right: ">>", Lenient: true, Denied: []string{"env"}}, cfg.Supervise.Env[0].Text)
	require.NoError(t, os.WriteFile("x.json", []byte(`{"seal": {"awskms": {"region": "eu"}}, "cluster_name": "c", "listener": {"type": "tcp", "address": "127.0.0.1:1", "role": "metrics_only", "profiling": {"a": 1}},
		"auto_auth": {"method": {"type": "token_file", "config": {"token_file_path": "token"}}}, "template": {"contents": "x", "destination": "x", "error_fatal": true}}`), 0o600))
	cfg, err = Load("x.json")
	require.NoError(t, err)
	assert.Len(t, cfg.Warnings, 4, "%v", cfg.Warnings)
}

func TestLoad_RefusesWhatIsNotSafeToLeaveOut(t *testing.T) {
	sink := func(more, config string) string {
		return "auto_auth {\n  method \"approle\" {\n" + more + "    config = { role_id_file_path = \"role_id\", secret_id_file_path = \"secret_id\" }\n  }\n  sink \"file\" {\n    config = { path = \"t\"" + config + " }\n  }\n}\n" + oneDrop
	}
	for name, tc := range map[string]struct{ text, want string }{
		"a wrapping method":          {sink("    wrap_ttl = \"5m\"\n", ""), `deaddrop.hcl:3:16: wrap_ttl of a method is not supported with a sink: who reads the sink would get a plain token instead`},
		"two owners":                 {sink("", ", owner = 0, uid = 0"), `owner and uid exclude each other`},
		"an unknown owner":           {sink("", ", uid = \"no-such-user\""), `there is no user "no-such-user"`},
		"a certificate by TPM":       {login + oneDrop + "tpm_cert \"machine\" {\n  mount_path = \"auth/tpm\"\n}\n", `deaddrop.hcl:10:1: tpm_cert is not supported: this agent does not make its certificates`},
		"a certificate by ACME":      {login + oneDrop + "pki_external_ca \"x\" {}\n", `deaddrop.hcl:10:1: pki_external_ca is not supported: `},
		"the method of a TPM":        {"auto_auth {\n  method \"tpm\" {}\n}\n" + oneDrop, `method "tpm" is not supported; use one of approle, cert, jwt, kubernetes, token_file, or let Vault Agent log in, and name the file of its sink with method "token_file"`},
		"a listener with ACME":       {login + oneDrop + "listener \"tcp\" {\n  role = \"status\"\n  address = \"127.0.0.1:1\"\n  tls_acme_domains = [\"a\"]\n}\n", `tls_acme_domains is not supported: a listener gets no certificate by ACME`},
		"a function that is denied":  {login + "template {\n  contents = <<E\n\n{{ env \"HOME\" }}\nE\n  destination = \"x\"\n  function_denylist = [\"env\"]\n}\n", `deaddrop.hcl:9:4: function "env" is denied by function_denylist`},
		"a builtin that is denied":   {login + "template {\n  contents = \"{{ printf \\\"x\\\" }}\"\n  destination = \"x\"\n  function_blacklist = [\"printf\"]\n}\n", `function "printf" is denied by function_denylist`},
		"a variable that is denied":  {login + "env_template \"A\" {\n  contents = \"{{ env \\\"HOME\\\" }}\"\n  function_denylist = [\"env\"]\n}\nexec {\n  command = [\"x\"]\n}\n", `function "env" is denied by function_denylist`},
		"a wait that is none":        {login + "template {\n  contents = \"x\"\n  destination = \"x\"\n  wait = \"soon\"\n}\n", `deaddrop.hcl:9:10: "soon" is not a duration`},
		"a wait that is upside down": {login + "template {\n  contents = \"x\"\n  destination = \"x\"\n  wait = \"5s:2s\"\n}\n", `max is shorter than min`},
		"a variable of no form":      {login + "template {\n  contents = \"x\"\n  destination = \"x\"\n  exec {\n    command = [\"x\"]\n    env {\n      custom = [\"a-b=c\"]\n    }\n  }\n}\n", `custom is not a list of variables; write ["NAME=value"]`},
		"an error_fatal of no form":  {login + "template {\n  contents = \"x\"\n  destination = \"x\"\n  error_fatal = \"maybe\"\n}\n", `deaddrop.hcl:9:17: error_fatal must be true or false`},
	} {
		t.Run(name, func(t *testing.T) {
			folder(t)
			_, err := load(t, tc.text)
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestLoad_WarnsOncePerBlockForEachTenant(t *testing.T) {
	folder(t)
	cfg, err := load(t, login+"template {\n  for_each = [\"a\", \"b\"]\n  contents = \"x\"\n  destination = \"${each.key}.txt\"\n  error_fatal = true\n}\n")
	require.NoError(t, err)
	require.Len(t, cfg.Warnings, 1)
	assert.Equal(t, 10, cfg.Warnings[0].Line)
}

func TestSink_TakesOwnerAndGroup(t *testing.T) {
	folder(t)
	for config, want := range map[string][]int{"owner = 0, group = 1": {0, 1}, "uid = 2, gid = 3": {2, 3}, "uid = -1, gid = -1": nil, "owner = \"root\"": {0}} {
		cfg, err := load(t, "auto_auth {\n  method \"approle\" {\n    config = { role_id_file_path = \"role_id\", secret_id_file_path = \"secret_id\" }\n  }\n  sink \"file\" {\n    config = { path = \"t\", "+config+" }\n  }\n}\n")
		require.NoError(t, err, config)
		var got []int
		for _, id := range []*int{cfg.Sinks[0].UID, cfg.Sinks[0].GID} {
			if id != nil {
				got = append(got, *id)
			}
		}
		assert.Equal(t, want, got, config)
	}
}
