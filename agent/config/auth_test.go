package config

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/zclconf/go-cty/cty"

	"github.com/smarteros/deaddrop/render/secret"
)

const aDrop = "drop \"n\" {\n  secret = \"s/a\"\n  destination = \"x\"\n}\n"

// methodText is an auto_auth block with one method. Its settings begin at 4:7.
func methodText(method, settings string) string {
	return fmt.Sprintf("auto_auth {\n  method %q {\n    config {\n      %s\n    }\n  }\n}\n", method, settings)
}

// quiet has the files of [folder] and some more, and no variable that matters.
func quiet(t *testing.T) {
	t.Helper()
	folder(t)
	for _, name := range []string{"CREDENTIALS_DIRECTORY", "VAULT_CLIENT_CERT", "VAULT_CLIENT_KEY", "VAULT_CACERT"} {
		t.Setenv(name, "")
	}
	for _, name := range []string{"jwt", "token", "cert.pem", "key.pem", "ca.pem"} {
		require.NoError(t, os.WriteFile(name, []byte(marker+"\n"), 0o600))
	}
}

func TestEveryMethodHasItsSettings(t *testing.T) {
	roleID, secretID := ID{File: "role_id"}, ID{File: "secret_id"}
	const ids = "role_id_file_path = \"role_id\"\n secret_id_file_path = \"secret_id\"\n"
	for name, tc := range map[string]struct {
		method, settings string
		want             Auth
		vault            Vault
	}{
		"approle with files": {method: "approle", settings: ids,
			want: Auth{Method: MethodAppRole, MountPath: "approle", RoleID: roleID, SecretID: secretID}},
		"approle with values": {method: "approle", settings: "role_id = \"r\"\n secret_id = \"s\"\n",
			want: Auth{Method: MethodAppRole, MountPath: "approle", RoleID: ID{Value: secret.Of("r")}, SecretID: ID{Value: secret.Of("s")}}},
		"approle whose file is removed": {method: "approle", settings: ids + "remove_secret_id_file_after_reading = true",
			want: Auth{Method: MethodAppRole, MountPath: "approle", RoleID: roleID, SecretID: secretID, Remove: true}},
		"removal as a text": {method: "approle", settings: ids + "remove_secret_id_file_after_reading = \"true\"",
			want: Auth{Method: MethodAppRole, MountPath: "approle", RoleID: roleID, SecretID: secretID, Remove: true}},
		"a wrapped secret id is removed": {method: "approle", settings: ids + "secret_id_response_wrapping_path = \"/auth/approle/role/r/secret-id/\"",
			want: Auth{Method: MethodAppRole, MountPath: "approle", RoleID: roleID, SecretID: secretID, Remove: true, WrappingPath: "auth/approle/role/r/secret-id"}},
		"unless it says otherwise": {method: "approle", settings: ids + "remove_secret_id_file_after_reading = false\n secret_id_response_wrapping_path = \"auth/approle/role/r/secret-id\"",
			want: Auth{Method: MethodAppRole, MountPath: "approle", RoleID: roleID, SecretID: secretID, WrappingPath: "auth/approle/role/r/secret-id"}},
		"nothing is removed where the id is a value": {method: "approle", settings: "role_id = \"r\"\n secret_id = \"s\"\n remove_secret_id_file_after_reading = true",
			want: Auth{Method: MethodAppRole, MountPath: "approle", RoleID: ID{Value: secret.Of("r")}, SecretID: ID{Value: secret.Of("s")}}},
		"jwt": {method: "jwt", settings: "role = \"r\"\n path = \"jwt\"",
			want: Auth{Method: MethodJWT, MountPath: "jwt", Role: "r", File: "jwt"}},
		"jwt that is removed": {method: "jwt", settings: "role = \"r\"\n path = \"gone\"\n remove_jwt_after_reading = true",
			want: Auth{Method: MethodJWT, MountPath: "jwt", Role: "r", File: "gone", Remove: true}},
		"kubernetes": {method: "kubernetes", settings: "role = \"r\"\n token_path = \"jwt\"",
			want: Auth{Method: MethodKubernetes, MountPath: "kubernetes", Role: "r", File: "jwt"}},
		"token file": {method: "token_file", settings: "token_file_path = \"token\"",
			want: Auth{Method: MethodTokenFile, MountPath: "token_file", File: "token"}},
		"cert": {method: "cert", settings: "name = \"r\"\n ca_cert = \"ca.pem\"\n client_cert = \"cert.pem\"\n client_key = \"key.pem\"",
			want: Auth{Method: MethodCert, MountPath: "cert", Role: "r"}, vault: Vault{CACert: "ca.pem", ClientCert: "cert.pem", ClientKey: "key.pem"}},
	} {
		t.Run(name, func(t *testing.T) {
			quiet(t)
			cfg, err := load(t, methodText(tc.method, tc.settings)+aDrop)
			require.NoError(t, err)
			assert.Equal(t, tc.want, cfg.Auth)
			assert.Equal(t, tc.vault, cfg.Vault)
			assert.NotContains(t, fmt.Sprintf("%+v", cfg), marker)
		})
	}
}

func TestMistakesInAMethodAreNamedWithTheirPlaceAndWhatHelps(t *testing.T) {
	const ids = "role_id = \"r\"\n secret_id_file_path = \"secret_id\"\n"
	for name, tc := range map[string]struct{ method, settings, want string }{
		"misspelled method": {"aprole", "", `deaddrop.hcl:2:10: method "aprole" is not supported; use one of approle, cert, jwt, kubernetes, token_file; did you mean "approle"?`},
		"token":             {"token", "", `deaddrop.hcl:2:10: method "token" is not supported; use one of`},
		"misspelled wrapping path": {"approle", `secret_id_response_wraping_path = "x"`,
			`deaddrop.hcl:4:7: method "approle" has no setting "secret_id_response_wraping_path"; did you mean "secret_id_response_wrapping_path"?`},
		"wrapping path without a file": {"approle", `secret_id_response_wrapping_path = "x"` + "\nrole_id = \"r\"\nsecret_id = \"" + marker + "\"",
			`deaddrop.hcl:4:42: secret_id_response_wrapping_path needs secret_id_file_path, the file that holds the wrapping token`},
		"removal that is no truth": {"approle", `remove_secret_id_file_after_reading = "maybe"` + "\n" + ids,
			`deaddrop.hcl:4:45: remove_secret_id_file_after_reading must be true or false`},
		"a role id is never removed": {"approle", `role_id_file_path = "nope"` + "\nsecret_id = \"x\"\nremove_secret_id_file_after_reading = true",
			`deaddrop.hcl:4:27: role_id_file_path nope cannot be read: no such file or directory`},
		"a removed secret id must not be empty": {"approle", `secret_id_file_path = "empty"` + "\nrole_id = \"x\"\nremove_secret_id_file_after_reading = true",
			`deaddrop.hcl:4:29: secret_id_file_path empty cannot be read: the file is empty`},
		"no role id":                   {"approle", `secret_id = "x"`, `deaddrop.hcl:2:3: method "approle" lacks a role_id: write role_id_file_path into its config, set VAULT_ROLE_ID, or deliver a file role_id as a systemd credential or Docker secret`},
		"a setting that is empty":      {"approle", `role_id = ""`, `deaddrop.hcl:4:17: role_id must be a text that is not empty`},
		"jwt without role":             {"jwt", `path = "jwt"`, `deaddrop.hcl:2:3: method "jwt" lacks a role: write role into its config`},
		"jwt without path":             {"jwt", `role = "r"`, `deaddrop.hcl:2:3: method "jwt" lacks a path: write path into its config`},
		"jwt not there":                {"jwt", `path = "nope"`, `deaddrop.hcl:4:14: path nope cannot be read: no such file or directory`},
		"jwt empty":                    {"jwt", `path = "empty"` + "\nremove_jwt_after_reading = true", `deaddrop.hcl:4:14: path empty cannot be read: the file is empty`},
		"misspelled role":              {"jwt", `rol = "r"`, `deaddrop.hcl:4:7: method "jwt" has no setting "rol"; did you mean "role"?`},
		"removal of a jwt":             {"jwt", `remove_jwt_after_reading = "no!"`, `deaddrop.hcl:4:34: remove_jwt_after_reading must be true or false`},
		"kubernetes without role":      {"kubernetes", `token_path = "jwt"`, `deaddrop.hcl:2:3: method "kubernetes" lacks a role: write role into its config`},
		"kubernetes out of a pod":      {"kubernetes", `role = "r"`, `deaddrop.hcl:2:3: token_path ` + kubernetesToken + ` cannot be read: no such file or directory`},
		"kubernetes token not there":   {"kubernetes", `token_path = "nope"`, `deaddrop.hcl:4:20: token_path nope cannot be read: no such file or directory`},
		"token file without a path":    {"token_file", "", `deaddrop.hcl:2:3: method "token_file" lacks a token_file_path: write token_file_path into its config`},
		"token file not there":         {"token_file", `token_file_path = "nope"`, `deaddrop.hcl:4:25: token_file_path nope cannot be read: no such file or directory`},
		"misspelled token file":        {"token_file", `token_file_pth = "x"`, `deaddrop.hcl:4:7: method "token_file" has no setting "token_file_pth"; did you mean "token_file_path"?`},
		"cert without a certificate":   {"cert", "", `deaddrop.hcl:2:3: method "cert" lacks a certificate: write client_cert and client_key into its config, or set VAULT_CLIENT_CERT and VAULT_CLIENT_KEY`},
		"cert without a key":           {"cert", `client_cert = "cert.pem"`, `deaddrop.hcl:2:3: method "cert" lacks a certificate`},
		"certificate not there":        {"cert", `client_cert = "nope"`, `deaddrop.hcl:4:21: client_cert nope cannot be read: no such file or directory`},
		"authority not there":          {"cert", `ca_cert = "nope"`, `deaddrop.hcl:4:17: ca_cert nope cannot be read: no such file or directory`},
		"misspelled key of the client": {"cert", `client_ky = "x"`, `deaddrop.hcl:4:7: method "cert" has no setting "client_ky"; did you mean "client_key"?`},
	} {
		t.Run(name, func(t *testing.T) {
			quiet(t)
			_, err := load(t, methodText(tc.method, tc.settings)+aDrop)
			require.ErrorContains(t, err, tc.want)
			assert.NotContains(t, err.Error(), marker)
		})
	}
}

func TestTheCertificateOfAMethodMayComeFromTheEnvironment(t *testing.T) {
	quiet(t)
	t.Setenv("VAULT_CLIENT_CERT", "cert.pem")
	_, err := load(t, methodText("cert", `client_key = "key.pem"`)+aDrop)
	require.ErrorContains(t, err, `method "cert" lacks a certificate`, "a pair is a pair")

	t.Setenv("VAULT_CLIENT_KEY", "key.pem")
	_, err = load(t, methodText("cert", "")+aDrop)
	require.NoError(t, err)
}

func TestAMountPathMayBeWrittenInManyWays(t *testing.T) {
	for path, want := range map[string]string{
		"": "approle", "approle": "approle", "auth/approle": "approle", "/auth/team/approle/": "team/approle",
	} {
		assert.Equal(t, want, mountPath(path, "approle"), path)
	}
}

func TestASecretIDThatWasRemovedIsAcceptedWhenTheConfigurationIsReadAgain(t *testing.T) {
	for name, setting := range map[string]string{
		"secret id":         "remove_secret_id_file_after_reading = true",
		"wrapped secret id": "secret_id_response_wrapping_path = \"auth/approle/role/r/secret-id\"",
	} {
		t.Run(name, func(t *testing.T) {
			quiet(t)
			text := methodText("approle", "role_id = \"r\"\n secret_id_file_path = \"secret_id\"\n"+setting) + aDrop
			first, err := load(t, text)
			require.NoError(t, err)
			require.NoError(t, os.Remove("secret_id"))
			second, err := load(t, text)
			require.NoError(t, err)
			assert.Equal(t, first.Auth, second.Auth, "so that the session goes on")
		})
	}
}

// around finds the login of a method without settings, or of no auto_auth block
// at all, with a folder in the place of Docker's.
func around(t *testing.T, method, dockerSecrets string) (Auth, error) {
	t.Helper()
	l := newLoader()
	l.dockerSecrets = dockerSecrets
	var block *autoAuthBlock
	if method != "" {
		noConfig := hcl.StaticExpr(cty.NullVal(cty.DynamicPseudoType), hcl.Range{})
		block = &autoAuthBlock{Methods: []methodBlock{{Type: method, ConfigMap: noConfig}}}
	}
	l.auth(block, "deaddrop.hcl")
	return l.cfg.Auth, l.err()
}

// deliver writes credentials into a folder of its own.
func deliver(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(marker+"\n"), 0o400))
	}
	return dir
}

func TestIdsComeFromTheEnvironmentThenSystemdThenDocker(t *testing.T) {
	quiet(t)
	systemd, docker := deliver(t, "role_id", "secret_id"), deliver(t, "role_id", "secret_id")
	file := func(dir, name string) ID { return ID{File: filepath.Join(dir, name)} }
	for name, tc := range map[string]struct {
		systemd, docker, variable string
		roleID, secretID          ID
	}{
		"docker":                           {docker: docker, roleID: file(docker, "role_id"), secretID: file(docker, "secret_id")},
		"systemd":                          {systemd: systemd, roleID: file(systemd, "role_id"), secretID: file(systemd, "secret_id")},
		"systemd before docker":            {systemd: systemd, docker: docker, roleID: file(systemd, "role_id"), secretID: file(systemd, "secret_id")},
		"the environment before both":      {systemd: systemd, docker: docker, variable: "r", roleID: ID{Value: secret.Of("r")}, secretID: file(systemd, "secret_id")},
		"one from each":                    {systemd: deliver(t, "role_id"), docker: docker, roleID: ID{}, secretID: file(docker, "secret_id")},
		"folders that hold something else": {systemd: deliver(t, "other"), docker: docker, roleID: file(docker, "role_id"), secretID: file(docker, "secret_id")},
	} {
		for _, method := range []string{"", MethodAppRole} {
			t.Run(name+" "+method, func(t *testing.T) {
				t.Setenv("CREDENTIALS_DIRECTORY", tc.systemd)
				t.Setenv("VAULT_ROLE_ID", tc.variable)
				t.Setenv("VAULT_TOKEN", "a token of the shell does not matter then")
				auth, err := around(t, method, tc.docker)
				require.NoError(t, err)
				if !tc.roleID.IsSet() {
					tc.roleID = file(tc.systemd, "role_id")
				}
				assert.Equal(t, Auth{Method: MethodAppRole, MountPath: "approle", RoleID: tc.roleID, SecretID: tc.secretID}, auth)
			})
		}
	}
}

func TestADeliveredIDThatCannotBeReadIsFoundBeforeVaultIsContacted(t *testing.T) {
	quiet(t)
	dir := deliver(t, "role_id")
	empty := filepath.Join(dir, "secret_id")
	require.NoError(t, os.WriteFile(empty, []byte(" \n"), 0o400))
	for _, method := range []string{"", MethodAppRole} {
		_, err := around(t, method, dir)
		require.EqualError(t, err, empty+" cannot be read: the file is empty")
	}
}

func TestIdsInTheFileWinOverThoseAround(t *testing.T) {
	quiet(t)
	t.Setenv("CREDENTIALS_DIRECTORY", deliver(t, "role_id", "secret_id"))
	t.Setenv("VAULT_SECRET_ID", "around")
	cfg, err := load(t, login+aDrop)
	require.NoError(t, err)
	assert.Equal(t, ID{File: "role_id"}, cfg.Auth.RoleID)
	assert.Equal(t, ID{File: "secret_id"}, cfg.Auth.SecretID)
}

func TestATokenOfTheEnvironmentIsTheLastResort(t *testing.T) {
	quiet(t)
	t.Setenv("VAULT_TOKEN", marker)
	auth, err := around(t, "", deliver(t, "role_id"))
	require.NoError(t, err, "half of an AppRole is none")
	assert.Equal(t, Auth{Method: MethodToken, Token: secret.Of(marker)}, auth)
	assert.NotContains(t, fmt.Sprintf("%v %+v %#v", auth, auth, auth), marker)

	t.Setenv("VAULT_SECRET_ID", marker)
	_, err = around(t, "", "")
	require.EqualError(t, err, "VAULT_SECRET_ID is set, but VAULT_ROLE_ID is not")

	t.Setenv("VAULT_SECRET_ID", "")
	t.Setenv("VAULT_TOKEN", "")
	_, err = around(t, "", "")
	require.ErrorContains(t, err, "deaddrop.hcl: no way to log in: set VAULT_ROLE_ID and VAULT_SECRET_ID, or VAULT_TOKEN")
}

func TestOnMissingSaysWhatBecomesOfAFile(t *testing.T) {
	quiet(t)
	with := func(value string) string {
		return login + "drop \"n\" {\n  secret = \"s/a\"\n  destination = \"x\"\n  on_missing = \"" + value + "\"\n}\n"
	}
	for _, want := range []OnMissing{KeepFile, RemoveFile, Fail} {
		cfg, err := load(t, with(string(want)))
		require.NoError(t, err)
		assert.Equal(t, want, cfg.Drops[0].OnMissing)
	}
	_, err := load(t, with("remov"))
	require.EqualError(t, err, `deaddrop.hcl:9:16: on_missing "remov" is not known; use one of keep, remove, fail; did you mean "remove"?`)
}

func TestRenewalThresholdsAreSharesOfALife(t *testing.T) {
	quiet(t)
	cfg, err := load(t, login+aDrop)
	require.NoError(t, err)
	assert.Equal(t, []float64{DefaultLeaseShare, DefaultCertShare}, []float64{cfg.LeaseShare, cfg.CertShare})

	const block = "template_config {\n  lease_renewal_threshold = %s\n  certificate_renewal_threshold = %s\n}\n"
	cfg, err = load(t, fmt.Sprintf(block, "0.1", "0.95")+login+aDrop)
	require.NoError(t, err)
	assert.Equal(t, []float64{0.1, 0.95}, []float64{cfg.LeaseShare, cfg.CertShare})

	for name, tc := range map[string]struct{ lease, cert, want string }{
		"too little":         {"0.05", "0.5", "deaddrop.hcl:2:29: 0.05 is not a share of a lifetime between 0.1 and 0.95"},
		"nothing":            {"0", "0.5", "deaddrop.hcl:2:29: 0 is not a share of a lifetime"},
		"too much":           {"0.5", "1", "deaddrop.hcl:3:35: 1 is not a share of a lifetime between 0.1 and 0.95"},
		"a percentage":       {"0.5", "66", "deaddrop.hcl:3:35: 66 is not a share of a lifetime"},
		"something else":     {`"soon"`, "0.5", "deaddrop.hcl:2:30: Unsuitable value type"},
		"less than nothing":  {"-1", "0.5", "deaddrop.hcl:2:29: -1 is not a share of a lifetime"},
		"a text of a number": {"0.5", `"2"`, "deaddrop.hcl:3:35: 2 is not a share of a lifetime"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, fmt.Sprintf(block, tc.lease, tc.cert)+login+aDrop)
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestMisspelledThresholdIsCorrected(t *testing.T) {
	quiet(t)
	_, err := load(t, "template_config {\n  lease_renewal_treshold = 0.5\n}\n"+login+aDrop)
	require.ErrorContains(t, err, `deaddrop.hcl:2:3: Unsupported argument: An argument named "lease_renewal_treshold" is not expected here. Did you mean "lease_renewal_threshold"?`)
}

// noSecretID is an environment without a secret id.
func noSecretID(t *testing.T) {
	t.Helper()
	quiet(t)
	require.NoError(t, os.Unsetenv("VAULT_SECRET_ID")) // quiet brings it back.
}

func TestAppRole_DoesWithoutASecretID(t *testing.T) {
	noSecretID(t)
	alone := Auth{Method: MethodAppRole, MountPath: "approle", RoleID: ID{File: "role_id"}}
	cfg, err := load(t, methodText("approle", "role_id_file_path = \"role_id\"")+aDrop)
	require.NoError(t, err)
	assert.Equal(t, alone, cfg.Auth)
	assert.Empty(t, cfg.Warnings)
	assert.NotContains(t, cfg.String(), "secret_id =")

	cfg, err = load(t, methodText("approle", "role_id_file_path = \"role_id\"\nremove_secret_id_file_after_reading = true")+aDrop)
	require.NoError(t, err)
	assert.Equal(t, alone, cfg.Auth)
	require.Len(t, cfg.Warnings, 1)
	assert.Contains(t, cfg.Warnings[0].String(), "remove_secret_id_file_after_reading has no effect without secret_id_file_path")

	t.Setenv("VAULT_ROLE_ID", "r")
	fromEnvironment := Auth{Method: MethodAppRole, MountPath: "approle", RoleID: ID{Value: secret.Of("r")}}
	for _, method := range []string{"", MethodAppRole} {
		auth, err := around(t, method, "")
		require.NoError(t, err)
		assert.Equal(t, fromEnvironment, auth)
	}
	t.Setenv("VAULT_ROLE_ID", "")
	delivered := deliver(t, "role_id")
	auth, err := around(t, "", delivered)
	require.NoError(t, err)
	assert.Equal(t, Auth{Method: MethodAppRole, MountPath: "approle", RoleID: ID{File: filepath.Join(delivered, "role_id")}}, auth)
}

func TestAppRole_NoticesALostSecretID(t *testing.T) {
	noSecretID(t)
	for settings, want := range map[string]string{
		"role_id = \"r\"\nsecret_id_file_path = \"nope\"":             "secret_id_file_path nope cannot be read: no such file or directory",
		"role_id = \"r\"\nsecret_id_response_wrapping_path = \"a/b\"": "secret_id_response_wrapping_path needs secret_id_file_path",
		"role_id = \"r\"\nsecret_id = \"\"":                           "secret_id must be a text that is not empty",
		"secret_id = \"" + marker + "\"":                              "method \"approle\" lacks a role_id",
	} {
		_, err := load(t, methodText("approle", settings)+aDrop)
		require.ErrorContains(t, err, want)
	}
	t.Setenv("VAULT_SECRET_ID", "")
	t.Setenv("VAULT_ROLE_ID", "r")
	for _, method := range []string{"", MethodAppRole} {
		_, err := around(t, method, "")
		require.ErrorContains(t, err, "VAULT_SECRET_ID is set, but empty; set it to the secret id, or unset it")
	}
}

func TestOnTamper_IsRestoreUnlessSaidOtherwise(t *testing.T) {
	quiet(t)
	for setting, want := range map[string]OnTamper{"": RestoreFile, `on_tamper = "restore"`: RestoreFile, `on_tamper = "warn"`: WarnOnly} {
		cfg, err := load(t, login+"drop \"n\" {\n  secret = \"s/a\"\n  destination = \"x\"\n  "+setting+"\n}\n")
		require.NoError(t, err)
		assert.Equal(t, want, cfg.Drops[0].OnTamper)
	}
	_, err := load(t, login+"drop \"n\" {\n  secret = \"s/a\"\n  destination = \"x\"\n  on_tamper = \"ignore\"\n}\n")
	require.EqualError(t, err, `deaddrop.hcl:9:15: on_tamper "ignore" is not known; use one of restore, warn`)
}
