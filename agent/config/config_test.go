package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/dotenv"
)

const marker = "m4rker-0f-a-secret"

// folder has the files that the configurations below name.
func folder(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"VAULT_ADDR", "VAULT_ROLE_ID", "VAULT_SECRET_ID", "VAULT_TOKEN"} {
		t.Setenv(name, "")
	}
	dir := t.TempDir()
	t.Chdir(dir)
	for name, content := range map[string]string{
		"role_id": "role-1\n", "secret_id": marker + "\n", "empty": "\n", "good.ctmpl": "{{ env \"HOME\" }}\n", "bad.ctmpl": "fine\n  {{ secrt \"x\" }}\n",
	} {
		require.NoError(t, os.WriteFile(name, []byte(content), 0o600))
	}
	require.NoError(t, os.Symlink("role_id", "link.env"))
	require.NoError(t, os.Mkdir("dir", 0o700))
	return dir
}

const login = `auto_auth {
  method "approle" {
    config = { role_id_file_path = "role_id", secret_id_file_path = "secret_id" }
  }
}
`

func load(t *testing.T, text string) (*Config, error) {
	t.Helper()
	require.NoError(t, os.WriteFile("deaddrop.hcl", []byte(text), 0o600))
	return Load("deaddrop.hcl")
}

func TestLoadUnderstandsTheWholeLanguage(t *testing.T) {
	folder(t)
	cfg, err := load(t, `
vault {
  address         = "https://vault:8200"
  namespace       = "ns"
  ca_cert         = "ca.pem"
  tls_skip_verify = true
}
auto_auth {
  method "approle" {
    mount_path = "auth/platform/approle"
    config {
      role_id             = "role-2"
      secret_id_file_path = "secret_id"
    }
  }
}
template_config { static_secret_render_interval = "1m" }
template {
  source      = "good.ctmpl"
  destination = "a.conf"
  perms       = 0440
  exec {
    command = ["nginx", "-s", "reload"]
    timeout = 5
  }
}
template {
  destination      = "b.conf"
  create_dest_dirs = false
  contents         = <<-EOT
    {{ with secret "secret/data/tenant/demo/nexa" }}{{ .Data.data.x }}{{ end }}
  EOT
}
drop "nexa" {
  secret      = "/secret/tenant/demo/nexa/"
  destination = "nexa.env"
  perms       = "0640"
  reload {
    signal   = "hup"
    pid_file = "/run/nexa.pid"
  }
}
drop "json" {
  secret      = "secret/tenant/demo/nexa"
  destination = "nexa.json"
}
`)
	require.NoError(t, err)
	assert.Equal(t, Vault{Address: "https://vault:8200", Namespace: "ns", CACert: "ca.pem", TLSSkipVerify: true}, cfg.Vault)
	assert.Equal(t, "platform/approle", cfg.Auth.MountPath)
	assert.Equal(t, "role-2", cfg.Auth.RoleID.Value.Reveal())
	assert.Equal(t, "secret_id", cfg.Auth.SecretID.File)
	id, err := cfg.Auth.SecretID.Read()
	require.NoError(t, err)
	assert.Equal(t, marker, id.Reveal())
	assert.Equal(t, time.Minute, cfg.Interval)
	assert.Equal(t, []string{"deaddrop.hcl", "good.ctmpl"}, cfg.Files)
	require.Len(t, cfg.Drops, 4)
	for i := range 2 {
		assert.NotNil(t, cfg.Drops[i].Template)
		cfg.Drops[i].Template = nil
	}
	assert.Equal(t, []Drop{
		{Name: "a.conf", Source: "good.ctmpl", Destination: "a.conf", Encoding: render.Encoding{Format: render.FormatTemplate, Dialect: dotenv.Portable}, Mode: 0o440, CreateDirs: true, OnMissing: KeepFile, OnTamper: RestoreFile,
			Reloads: []Reload{{Command{Args: []string{"nginx", "-s", "reload"}, Timeout: 5 * time.Second}, true}}},
		{Name: "b.conf", Destination: "b.conf", Text: TemplateText{Contents: "{{ with secret \"secret/data/tenant/demo/nexa\" }}{{ .Data.data.x }}{{ end }}\n"}, Encoding: render.Encoding{Format: render.FormatTemplate, Dialect: dotenv.Portable}, Mode: 0o600, OnMissing: KeepFile, OnTamper: RestoreFile},
		{Name: "nexa", Secret: "secret/tenant/demo/nexa", Destination: "nexa.env", Encoding: render.Encoding{Format: render.FormatDotenv, Dialect: dotenv.Portable}, Mode: 0o640, CreateDirs: true, OnMissing: KeepFile, OnTamper: RestoreFile,
			Reloads: []Reload{{Target: PIDFile{Path: "/run/nexa.pid", Signal: syscall.SIGHUP}}}},
		{Name: "json", Secret: "secret/tenant/demo/nexa", Destination: "nexa.json", Encoding: render.Encoding{Format: render.FormatJSON, Dialect: dotenv.Portable}, Mode: 0o600, CreateDirs: true, OnMissing: KeepFile, OnTamper: RestoreFile},
	}, cfg.Drops)
	assert.NotContains(t, fmt.Sprintf("%v %+v %#v", cfg, cfg, cfg.Auth), marker)
}

func TestLoadNamesPlaceMistakeAndTheNearestName(t *testing.T) {
	const drop = "drop \"n\" {\n  secret = \"secret/a\"\n  destination = \"n.env\"\n"
	for name, tc := range map[string]struct{ text, want string }{
		"unknown block":             {login + "tempalte {}\n", `deaddrop.hcl:6:1: Unsupported block type: Blocks of type "tempalte" are not expected here. Did you mean "template"?`},
		"unknown argument":          {login + drop + "  secert = 1\n}", `deaddrop.hcl:9:3: Unsupported argument: An argument named "secert" is not expected here.`},
		"misspelled argument":       {login + drop + "  prems = \"0600\"\n}", `deaddrop.hcl:9:3: Unsupported argument: An argument named "prems" is not expected here. Did you mean "perms"?`},
		"wrong type":                {login + "drop \"n\" {\n  secret = [1]\n  destination = \"x\"\n}", `deaddrop.hcl:7:12: Unsuitable value type: Unsuitable value: string required`},
		"missing destination":       {login + "drop \"n\" {\n  secret = \"secret/a\"\n}", `deaddrop.hcl:6:10: Missing required argument: The argument "destination" is required`},
		"missing label":             {login + "drop {\n}", `deaddrop.hcl:6:6: Missing name for drop`},
		"syntax":                    {login + "drop \"n\" {\n  secret = \n}", `deaddrop.hcl:7:12: Invalid expression`},
		"two drops to one file":     {login + drop + "}\ndrop \"m\" {\n  secret = \"secret/b\"\n  destination = \"./n.env\"\n}", `deaddrop.hcl:12:17: destination ./n.env is written already, by the block at deaddrop.hcl:8`},
		"template that fails":       {login + "template {\n  source = \"bad.ctmpl\"\n  destination = \"x\"\n}", `bad.ctmpl:2:6: function "secrt" not defined; did you mean "secret"?`},
		"heredoc that fails":        {login + "template {\n  destination = \"x\"\n  contents = <<E\nfine\n  {{ secrt \"x\" }}\nE\n}", `deaddrop.hcl:10:6: function "secrt" not defined; did you mean "secret"?`},
		"string that fails":         {login + "template {\n  destination = \"x\"\n  contents = \"{{ secrt }}\"\n}", `deaddrop.hcl:8:14: line 1 of the template: function "secrt" not defined`},
		"template not there":        {login + "template {\n  source = \"nope\"\n  destination = \"x\"\n}", `deaddrop.hcl:7:12: template nope cannot be read: no such file or directory`},
		"no template":               {login + "template {\n  destination = \"x\"\n}", `deaddrop.hcl:7:17: a template needs a source (a file) or contents (its text)`},
		"two templates":             {login + "template {\n  source = \"good.ctmpl\"\n  contents = \"x\"\n  destination = \"x\"\n}", `deaddrop.hcl:8:14: source and contents exclude each other`},
		"template of a format":      {login + drop + "  format = \"json\"\n  source = \"good.ctmpl\"\n}", `deaddrop.hcl:9:12: format "json" writes the secret as it is`},
		"unknown format":            {login + drop + "  format = \"jsn\"\n}", `deaddrop.hcl:9:12: format "jsn" is not known; use one of dotenv, json, yaml, toml, properties, shell, template; did you mean "json"?`},
		"no secret":                 {login + "drop \"n\" {\n  destination = \"n.env\"\n}", `deaddrop.hcl:6:1: a drop of format "dotenv" needs a secret`},
		"secret id not there":       {strings.Replace(login, `"secret_id"`, `"nope"`, 1) + drop + "}", `deaddrop.hcl:3:69: secret_id_file_path nope cannot be read: no such file or directory`},
		"secret id empty":           {strings.Replace(login, `"secret_id"`, `"empty"`, 1) + drop + "}", `deaddrop.hcl:3:69: secret_id_file_path empty cannot be read: the file is empty`},
		"secret id a folder":        {strings.Replace(login, `"secret_id"`, `"dir"`, 1) + drop + "}", `deaddrop.hcl:3:69: secret_id_file_path dir cannot be read: is a directory`},
		"unknown setting":           {strings.Replace(login, `secret_id_file_path`, `secret_id_file`, 1) + drop + "}", `deaddrop.hcl:3:47: method "approle" has no setting "secret_id_file"`},
		"misspelled setting":        {strings.Replace(login, `role_id_file_path`, `role_id_file_pat`, 1) + drop + "}", `deaddrop.hcl:3:16: method "approle" has no setting "role_id_file_pat"; did you mean "role_id_file_path"?`},
		"setting of a wrong type":   {strings.Replace(login, `"role_id"`, `[]`, 1) + drop + "}", `deaddrop.hcl:3:36: role_id_file_path must be a text`},
		"id twice":                  {strings.Replace(login, `config = { `, `config = { role_id = "x", `, 1) + drop + "}", `deaddrop.hcl:3:26: role_id and role_id_file_path exclude each other`},
		"a lost secret id":          {"auto_auth {\n  method \"approle\" {\n    config = { role_id = \"x\" }\n  }\n}\n" + drop + "}", `deaddrop.hcl:2:3: VAULT_SECRET_ID is set, but empty; set it to the secret id, or unset it to log in with the role id alone`},
		"config of a wrong type":    {"auto_auth {\n  method \"approle\" {\n    config = 1\n  }\n}\n" + drop + "}", `deaddrop.hcl:3:14: config must be an object`},
		"unknown method":            {"auto_auth {\n  method \"aws\" {}\n}\n" + drop + "}", `deaddrop.hcl:2:10: method "aws" is not supported; use one of approle, cert, jwt, kubernetes, token_file`},
		"no login":                  {drop + "}", `deaddrop.hcl: no way to log in: set VAULT_ROLE_ID and VAULT_SECRET_ID`},
		"URL without scheme":        {"vault {\n  address = \"vault:8200\"\n}\n" + login + drop + "}", `deaddrop.hcl:2:13: address "vault:8200" is not a URL; write one such as "https://vault.example:8200"`},
		"URL of a wrong scheme":     {"vault {\n  address = \"ftp://u:" + marker + "@vault\"\n}\n" + login + drop + "}", `deaddrop.hcl:2:13: address "ftp://u:xxxxx@vault" has the scheme "ftp"`},
		"URL that does not parse":   {"vault {\n  address = \"http://u:" + marker + "@va ult:x\"\n}\n" + login + drop + "}", `deaddrop.hcl:2:13: address "[redacted]@va ult:x" is not a URL`},
		"destination ends in /":     {login + "drop \"n\" {\n  secret = \"secret/a\"\n  destination = \"x/\"\n}", `deaddrop.hcl:8:17: destination x/ is a folder; name a file in it`},
		"secret with ..":            {login + "drop \"n\" {\n  secret = \"secret/../a\"\n  destination = \"x\"\n}", `deaddrop.hcl:7:12: secret "secret/../a" is not a path`},
		"secret without path":       {login + "drop \"n\" {\n  secret = \"secret\"\n  destination = \"x\"\n}", `deaddrop.hcl:7:12: secret "secret" names a mount only`},
		"perms":                     {login + drop + "  perms = \"rw\"\n}", `deaddrop.hcl:9:11: perms "rw" is not a file mode; write one such as "0600" or "0440"`},
		"perms too wide":            {login + drop + "  perms = \"4755\"\n}", `deaddrop.hcl:9:11: perms "4755" is not a file mode`},
		"signal":                    {login + drop + "  reload {\n    signal = \"HPU\"\n    pid_file = \"x\"\n  }\n}", `deaddrop.hcl:10:14: there is no signal "HPU"; did you mean "SIGHUP"?`},
		"empty command":             {login + drop + "  exec {\n    command = []\n  }\n}", `deaddrop.hcl:10:15: command is empty; write the program and its arguments`},
		"interval":                  {login + "template_config {\n  static_secret_render_interval = \"soon\"\n}\n" + drop + "}", `deaddrop.hcl:7:35: "soon" is not a duration; write one such as "15s" or "5m"`},
		"interval too short":        {login + "template_config {\n  static_secret_render_interval = \"1ms\"\n}\n" + drop + "}", `deaddrop.hcl:7:35: "1ms" is too short`},
		"nothing to do":             {login, `deaddrop.hcl: there is nothing to write: add a "drop" or a "template" block`},
		"a variable":                {login + "drop \"n\" {\n  secret = \"secret/${x}\"\n  destination = \"x\"\n}", `deaddrop.hcl:7:22: there is no variable "x"`},
		"an unquoted secret id":     {"auto_auth {\n  method \"approle\" {\n    config = { role_id = \"x\", secret_id = " + marker + " }\n  }\n}\n" + drop + "}", `deaddrop.hcl:3:43: there is no variable of this name; if it is a text, put quotes around it`},
		"an inline secret id shown": {"auto_auth {\n  method \"approle\" {\n    config = { role_id = \"x\", secret_id = \"" + marker + "\", secret_id_file_path = \"secret_id\" }\n  }\n}\n" + drop + "}", `deaddrop.hcl:3:43: secret_id and secret_id_file_path exclude each other`},
	} {
		t.Run(name, func(t *testing.T) {
			folder(t)
			_, err := load(t, tc.text)
			var wrong *Error
			require.ErrorAs(t, err, &wrong)
			require.ErrorContains(t, err, tc.want)
			assert.NotContains(t, err.Error(), marker)
		})
	}
}

func TestLoadReportsAllMistakesInTheOrderOfTheFile(t *testing.T) {
	folder(t)
	_, err := load(t, "vault {\n  address = \"x\"\n}\n"+login+"drop \"n\" {\n  secret = \"s/a\"\n  destination = \"x\"\n  perms = \"9\"\n  fromat = \"x\"\n}")
	var wrong *Error
	require.ErrorAs(t, err, &wrong)
	require.Len(t, wrong.Problems, 3)
	assert.Equal(t, []int{2, 12, 13}, []int{wrong.Problems[0].Line, wrong.Problems[1].Line, wrong.Problems[2].Line})
}

func TestLoadOfAFileThatIsNotThere(t *testing.T) {
	_, err := Load("/nowhere/deaddrop.hcl")
	require.EqualError(t, err, "/nowhere/deaddrop.hcl: cannot be read: no such file or directory")
}

func TestVaultAddrWinsOverTheFile(t *testing.T) {
	folder(t)
	t.Setenv("VAULT_ADDR", "vault")
	_, err := load(t, "vault {\n  address = \"https://fine\"\n}\n"+login+"drop \"n\" {\n  secret = \"s/a\"\n  destination = \"x\"\n}")
	require.EqualError(t, err, `VAULT_ADDR "vault" is not a URL; write one such as "https://vault.example:8200"`)
}

func TestVaultAddress_IsThatOfTheServer(t *testing.T) {
	folder(t)
	for address, want := range map[string]string{
		"https://vault:8200/v1":                        `write "https://vault:8200"`,
		"https://vault:8200/v1/":                       `write "https://vault:8200"`,
		"https://vault:8200/ui":                        `write "https://vault:8200"`,
		"https://vault:8200/ui/":                       `write "https://vault:8200"`,
		"https://vault:8200/ui/vault/secrets?a=b#c":    `write "https://vault:8200"`,
		"https://gate/vault/v1":                        `write "https://gate/vault"`,
		"https://u:" + marker + "@vault/ui/vault/auth": `write "https://u:xxxxx@vault"`,
		"https://vault:8200":                           "",
		"https://vault:8200/":                          "",
		"https://gate/v1/vault":                        "",
		"https://gate/vault":                           "",
		"unix:///run/v1":                               "",
	} {
		for _, isFile := range []bool{true, false} {
			text, source := login+oneDrop, "VAULT_ADDR "
			t.Setenv("VAULT_ADDR", address)
			if isFile {
				text, source = "vault {\n  address = \""+address+"\"\n}\n"+text, "deaddrop.hcl:2:13: address "
				t.Setenv("VAULT_ADDR", "")
			}
			_, err := load(t, text)
			if want == "" {
				require.NoError(t, err, address)
				continue
			}
			require.ErrorContains(t, err, source)
			require.ErrorContains(t, err, want)
			assert.NotContains(t, err.Error(), marker)
		}
	}
}

func TestWarnings_ComeInTheOrderOfTheFiles(t *testing.T) {
	folder(t)
	text := "log_rotate_bytes = 1\nlog_rotate_duration = \"1h\"\nlog_rotate_max_files = 1\ncache {}\ntelemetry {}\napi_proxy {}\ndisable_mlock = true\n" +
		strings.Replace(login, "    config", "    max_backoff = 1\n    min_backoff = 1\n    exit_on_err = true\n    config", 1) + oneDrop
	for range 20 {
		require.NoError(t, os.WriteFile("a.hcl", []byte("telemetry {}\napi_proxy {}\ncache {}\n"), 0o600))
		require.NoError(t, os.WriteFile("deaddrop.hcl", []byte(text), 0o600))
		cfg, err := Load("deaddrop.hcl", "a.hcl")
		require.NoError(t, err)
		var places []string
		for _, w := range cfg.Warnings {
			places = append(places, fmt.Sprint(w.File, ":", w.Line))
		}
		assert.Equal(t, []string{"a.hcl:1", "a.hcl:2", "a.hcl:3", "deaddrop.hcl:1", "deaddrop.hcl:2", "deaddrop.hcl:3", "deaddrop.hcl:4", "deaddrop.hcl:5",
			"deaddrop.hcl:6", "deaddrop.hcl:7", "deaddrop.hcl:10", "deaddrop.hcl:11", "deaddrop.hcl:12"}, places)
	}
}

// Whoever owns the folder of one destination must not keep the agent from starting.
func TestLoad_WarnsOfADestinationThatCannotBeReplaced(t *testing.T) {
	folder(t)
	for destination, want := range map[string]string{"link.env": "is a symbolic link: refused; name the file that it points to", "dir": "is a folder: refused; name a file in it"} {
		cfg, err := load(t, login+"drop \"n\" {\n  secret = \"secret/a\"\n  destination = \""+destination+"\"\n}")
		require.NoError(t, err)
		require.Len(t, cfg.Warnings, 1)
		assert.Equal(t, "deaddrop.hcl:8:17: destination "+destination+" "+want, cfg.Warnings[0].String())
	}
}

func TestIdsFromTheEnvironmentFillWhatTheFileLeavesOut(t *testing.T) {
	folder(t)
	t.Setenv("VAULT_ROLE_ID", "role-3")
	t.Setenv("VAULT_SECRET_ID", marker)
	cfg, err := load(t, "auto_auth {\n  method \"approle\" {}\n}\ndrop \"n\" {\n  secret = \"s/a\"\n  destination = \"x\"\n}")
	require.NoError(t, err)
	assert.Equal(t, "role-3", cfg.Auth.RoleID.Value.Reveal())
	assert.Equal(t, marker, cfg.Auth.SecretID.Value.Reveal())
}

func TestSimpleNeedsNoFile(t *testing.T) {
	folder(t)
	s := Simple{Secret: "secret/tenant/demo/nexa", Destination: "nexa.json"}
	_, err := s.Build()
	require.ErrorContains(t, err, "no way to log in")

	t.Setenv("VAULT_TOKEN", marker)
	cfg, err := s.Build()
	require.NoError(t, err)
	assert.Equal(t, marker, cfg.Auth.Token.Reveal())
	assert.Equal(t, render.FormatJSON, cfg.Drops[0].Format)

	t.Setenv("VAULT_ROLE_ID", "role")
	_, err = s.Build()
	require.ErrorContains(t, err, "VAULT_SECRET_ID is set, but empty; set it to the secret id")
	t.Setenv("VAULT_SECRET_ID", marker)
	cfg, err = s.Build()
	require.NoError(t, err)
	assert.Empty(t, cfg.Auth.Token.Reveal(), "AppRole wins over a token")

	s.Perms, s.Format = "x", "yml"
	_, err = s.Build()
	require.ErrorContains(t, err, `perms "x" is not a file mode`)
	require.ErrorContains(t, err, `format "yml" is not known`)
}

func FuzzLoadNeverPanics(f *testing.F) {
	f.Add(login + "drop \"n\" {\n  secret = \"s/a\"\n  destination = \"x\"\n}")
	f.Add("template {\n  contents = <<E\n{{\nE\n  destination = 1\n}")
	f.Add("auto_auth {\n  method \"approle\" {\n    config = { (x) = 1, \"a\" = null }\n  }\n}")
	f.Add(login + perTenant)
	f.Add("tenant = env(\"HOME\", \"x\")\ndrop \"n\" {\n  for_each = [\"a\", tenant]\n  secret = \"s/{{tenant_id}}\"\n  destination = \"${each.key}\"\n}")
	f.Add("set \"s\" {\n  for_each = \"a/*\"\n  destination = \"${each}\"\n  template {\n    contents = \"${each.key\"\n  }\n}")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		file := filepath.Join(dir, "fuzz.hcl")
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		if _, err := Load(file); err != nil {
			var wrong *Error
			require.ErrorAs(t, err, &wrong)
			require.NotEmpty(t, wrong.Problems)
		}
	})
}

func TestVault_TakesHostsThatItMayRedirectTo(t *testing.T) {
	const vault = "vault {\n  allow_redirects_to = [%q]\n}\n"
	const drop = "drop \"n\" {\n  secret = \"secret/a\"\n  destination = \"n.env\"\n}\n"
	folder(t)
	for _, to := range []string{"vault-2.example:8200", "[::1]:8200", "10.0.0.1:443"} {
		cfg, err := load(t, fmt.Sprintf(vault, to)+login+drop)
		require.NoError(t, err)
		assert.Equal(t, []string{to}, cfg.Vault.AllowRedirectsTo)
	}
	for to, example := range map[string]string{
		"vault-2": "vault-2.example:8200", "": "vault-2.example:8200", ":8200": "vault-2.example:8200", "vault:0": "vault-2.example:8200",
		"vault:http": "vault-2.example:8200", "*.example:8200": "vault-2.example:8200", "u:" + marker + "@vault:8200": "vault-2.example:8200",
		"https://vault-2:8200": "vault-2:8200", "https://vault-2/": "vault-2:443",
	} {
		_, err := load(t, fmt.Sprintf(vault, to)+login+drop)
		require.ErrorContains(t, err, "deaddrop.hcl:2:24: allow_redirects_to: ", to)
		require.ErrorContains(t, err, " is not a host and its port; write one such as \""+example+"\"", to)
		assert.NotContains(t, err.Error(), marker)
	}
}
