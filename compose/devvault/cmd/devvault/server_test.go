package main

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// alone is a configuration in memory, on a free port.
const alone = `
storage "inmem" {}
listener "tcp" {
  address     = "127.0.0.1:0"
  tls_disable = true
}
disable_mlock = true
`

func write(t *testing.T, text string) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "vault.hcl")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

// fails runs devvault, which must end with exit code 1, and returns what it says.
func fails(t *testing.T, env []string, args ...string) string {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(append(os.Environ(), "DEVVAULT_TEST_AS_COMMAND=yes"), env...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	require.True(t, errors.As(err, &exit), "%v: %s", err, out)
	assert.Equal(t, exitFailure, exit.ExitCode(), "%s", out)
	return string(out)
}

func TestHelpOfServerExplainsEveryFlag(t *testing.T) {
	var help bytes.Buffer
	_, err := parseServer([]string{"-h"}, &help)
	require.ErrorIs(t, err, flag.ErrHelp)
	for _, name := range []string{"config", "check", "dev", "dev-root-token-id", "dev-listen-address", "json", "exit-with-stdin", "log-level"} {
		assert.Contains(t, help.String(), "  -"+name)
	}
}

func TestBadUsageOfServerIsRefused(t *testing.T) {
	for _, args := range [][]string{{}, {"-config", "x", "stray"}, {"-config", "x", "-log-level", "loud"}, {"-unknown"}} {
		_, err := parseServer(args, io.Discard)
		assert.Error(t, err, "%v", args)
	}
}

func TestAConfiguredServerIsAsNewAndAsSealedAsVaults(t *testing.T) {
	p := launch(t, "server", "-config="+write(t, alone), "-config", write(t, `default_lease_ttl = "2h"`))
	assert.Empty(t, p.RootToken)
	client := p.client(t)
	initialised, err := client.Sys().InitStatus()
	require.NoError(t, err)
	assert.False(t, initialised)
	keys, err := client.Sys().Init(&api.InitRequest{SecretShares: 1, SecretThreshold: 1})
	require.NoError(t, err)
	_, err = client.Sys().Unseal(keys.KeysB64[0])
	require.NoError(t, err)
	client.SetToken(keys.RootToken)
	mounts, err := client.Sys().ListMounts()
	require.NoError(t, err)
	assert.NotContains(t, mounts, "secret/", "nothing is mounted unasked")
	token, err := client.Auth().Token().Create(&api.TokenCreateRequest{Policies: []string{"default"}})
	require.NoError(t, err)
	assert.Equal(t, 7200, token.Auth.LeaseDuration, "of the second configuration")
}

func TestAFolderOfConfigurationsIsReadWhole(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a.hcl": alone, "b.json": `{"cluster_name": "from json"}`, "not-this.txt": "storage {",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	p := launch(t, "server", "-config", dir)
	client := p.client(t)
	keys, err := client.Sys().Init(&api.InitRequest{SecretShares: 1, SecretThreshold: 1})
	require.NoError(t, err)
	status, err := client.Sys().Unseal(keys.KeysB64[0])
	require.NoError(t, err)
	assert.Equal(t, "from json", status.ClusterName)
}

func TestMetricsNeedATokenUnlessTheListenerSaysOtherwise(t *testing.T) {
	p := launch(t, "server", "-config", write(t, `
		storage "inmem" {}
		listener "tcp" {
			address     = "127.0.0.1:0"
			tls_disable = true
			telemetry { unauthenticated_metrics_access = true }
		}
		telemetry { prometheus_retention_time = "1h" }
		disable_mlock = true
	`))
	client := p.client(t)
	keys, err := client.Sys().Init(&api.InitRequest{SecretShares: 1, SecretThreshold: 1})
	require.NoError(t, err)
	_, err = client.Sys().Unseal(keys.KeysB64[0])
	require.NoError(t, err)
	response, err := http.Get(p.Address + "/v1/sys/metrics?format=prometheus")
	require.NoError(t, err)
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	assert.Equal(t, http.StatusOK, response.StatusCode)
	assert.Contains(t, string(content), "# TYPE vault_core_unsealed gauge")
}

func TestAServerForDevelopmentIsReady(t *testing.T) {
	p := launch(t, "server", "-config", write(t, `log_level = "warn"`), "-dev", "-dev-root-token-id=chosen", "-dev-listen-address=127.0.0.1:0")
	assert.Equal(t, "chosen", p.RootToken)
	require.NoError(t, p.put(t, "x"))
	assert.Equal(t, "x", p.get(t))
}

func TestWhatDevvaultCannotDoIsAnError(t *testing.T) {
	listener := "listener \"tcp\" {\n address = \"127.0.0.1:0\"\n tls_disable = true\n}\ndisable_mlock = true\n"
	for name, c := range map[string]struct {
		text, says string
		args       []string
	}{
		"no storage":           {listener, "names no storage", nil},
		"no listener":          {"storage \"inmem\" {}\ndisable_mlock = true\n", "has no listener", nil},
		"consul":               {listener + `storage "consul" {}`, `storage "consul" is not built into devvault`, nil},
		"s3":                   {listener + "storage \"s3\" {\n bucket = \"b\"\n}\n", `storage "s3" is not built into devvault`, nil},
		"a seal":               {alone + "seal \"awskms\" {}\n", `seal "awskms" is not built into devvault`, nil},
		"service registration": {alone + "service_registration \"consul\" {}\n", "service_registration", nil},
		"raft without address": {listener + "storage \"raft\" {\n path = \"x\"\n}\n", "needs cluster_addr", nil},
		"raft and memory":      {"cluster_addr = \"https://127.0.0.1:1\"\nstorage \"raft\" {\n path = \"x\"\n}\n", "needs disable_mlock", nil},
		"not HCL":              {"storage {", "vault.hcl", nil},
		"log level":            {alone + "log_level = \"loud\"\n", "log_level", nil},
		"unknown key":          {alone + "iu = true\n", "unknown or unsupported field iu", []string{"-check"}},
		"dev":                  {alone, "-dev brings storage and listener of its own", []string{"-dev"}},
	} {
		t.Run(name, func(t *testing.T) {
			said := fails(t, nil, append([]string{"server", "-config", write(t, c.text)}, c.args...)...)
			assert.Contains(t, said, c.says)
		})
	}
	assert.Contains(t, fails(t, nil, "server", "-config", "no-such-file"), "no-such-file")
	assert.Contains(t, fails(t, []string{"VAULT_DISABLE_MLOCK=perhaps"}, "server", "-config", write(t, alone)), "$VAULT_DISABLE_MLOCK")
}
