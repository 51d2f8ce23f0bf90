package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/values"
	"github.com/smarteros/deaddrop/compose/policies"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

func TestTheLongestIDsFitIntoNamesOfFiles(t *testing.T) {
	t.Parallel()
	o := operatorOf(t, vaulttest.Own(t, "-state", t.TempDir()))
	_, _, err := o.s.AppRole("enables-approle", "# nothing")
	require.NoError(t, err)
	require.NoError(t, o.s.Client.Sys().PutPolicy(policies.TenantService, policies.Read(policies.TenantService)))
	o.id = strings.Repeat("t", 100)
	service := strings.Repeat("s", 100)
	o.does("tenant", "add", o.id, service, "A=1")
	assert.Equal(t, map[string]any{"A": "1"}, o.reads(service))
	issued := o.issued("--service", service, "--no-wrap")
	assert.True(t, canRead(t, o.mustLogin(issued.RoleID, issued.SecretID), o.id, service))
	assert.Contains(t, o.fails(exitUsage, "tenant", "add", o.id+"t"), "100 are the most")
}

// Raft has the smallest limit of the storages that compose/ has.
func TestTheLargestSecretFitsAndALargerOneIsRefused(t *testing.T) {
	t.Parallel()
	o := operatorOf(t, vaulttest.Own(t, "-state", t.TempDir(), "-raft", "one"))
	fits := strings.Repeat("x", values.Max-len(`{"A":""}`))
	o.file("fits", fits)
	o.file("larger", fits+"x")
	o.file("much", strings.Repeat("x", 3_000_000))
	o.file("much.json", `{"A":"`+strings.Repeat("x", 3_000_000)+`"}`)
	o.does("tenant", "add", o.id, "nexa", "A=@fits")
	assert.Equal(t, map[string]any{"A": fits}, o.reads("nexa"))
	nobody := *o
	nobody.env = []string{"VAULT_ADDR=http://127.0.0.1:1", "VAULT_TOKEN=x", "PWD=" + o.dir}
	for _, value := range []string{"A=@larger", "A=@much", "--from=much.json"} {
		said := nobody.fails(exitUsage, "tenant", "set", o.id, "nexa", value)
		assert.Regexp(t, "are the most that Vault keeps of a secret|too large for a secret", said)
	}
	said := o.fails(exitFailed, "tenant", "set", o.id, "nexa", "B=@fits") // Together they are too large.
	assert.Contains(t, said, "Vault rejected the request")
	assert.Contains(t, said, "its storage takes nothing that large")
	assert.Equal(t, map[string]any{"A": fits}, o.reads("nexa"))
}

func TestWhatHasNoEndIsNotReadToTheEnd(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"A=@/dev/zero"}, {"--from", "/dev/zero"}, {"--from", "-"}, {"A=-"}} {
		cmd := command(t, []string{"VAULT_ADDR=http://127.0.0.1:1", "VAULT_TOKEN=x"}, append([]string{"tenant", "set", "demo", "nexa"}, args...)...)
		zero, err := os.Open("/dev/zero")
		require.NoError(t, err)
		cmd.Stdin = zero
		said, err := cmd.CombinedOutput()
		require.NoError(t, zero.Close())
		require.Error(t, err)
		assert.Equal(t, exitUsage, cmd.ProcessState.ExitCode(), "%v: %s", args, said)
		assert.Contains(t, string(said), "too large for a secret", args)
	}
}

func TestASecretIDThatCannotBeShownIsTakenBack(t *testing.T) {
	t.Parallel()
	o, _ := newIssuer(t)
	for _, args := range [][]string{{"--no-wrap"}, {}} {
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		require.NoError(t, err)
		cmd := command(t, o.env, append([]string{"credentials", "issue", o.id}, args...)...)
		var said strings.Builder
		cmd.Stdout, cmd.Stderr = full, &said
		require.Error(t, cmd.Run())
		require.NoError(t, full.Close())
		assert.Equal(t, exitFailed, cmd.ProcessState.ExitCode(), said.String())
		assert.Contains(t, said.String(), "no space left on device")
		ids, err := o.s.Client.Logical().List("auth/approle/role/tenant-" + o.id + "/secret-id")
		require.NoError(t, err)
		assert.Nil(t, ids, args)
	}
	// What is in files is handed over, whether or not it is told.
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	require.NoError(t, err)
	defer full.Close()
	cmd := command(t, o.env, "credentials", "issue", o.id, "--out-dir", "ids")
	cmd.Stdout = full
	require.Error(t, cmd.Run())
	o.mustLogin(o.readFile("ids/role_id"), o.readFile("ids/secret_id"))
}

func TestIssuingMendsWhatLetsTokensLiveOn(t *testing.T) {
	t.Parallel()
	o, _ := newIssuer(t)
	o.issued("--no-wrap")
	role := "auth/approle/role/tenant-" + o.id
	for key, spoiled := range map[string]any{"token_period": 86400, "token_type": "batch", "token_num_uses": 3} {
		_, err := o.s.Client.Logical().Write(role, map[string]any{key: spoiled})
		require.NoError(t, err)
		assert.Equal(t, []string{"role"}, o.issued("--no-wrap").Changed, key)
		assert.Empty(t, o.issued("--no-wrap").Changed, key)
	}
	answer, err := o.s.Client.Logical().Read(role)
	require.NoError(t, err)
	for key, want := range map[string]any{"token_period": json.Number("0"), "token_type": "default", "token_num_uses": json.Number("0")} {
		assert.Equal(t, want, answer.Data[key], key)
	}
}

func TestTheVersionComesInEachFormat(t *testing.T) {
	t.Parallel()
	out, errs, code := run(t, nil, "version", "-o", "json")
	require.Zero(t, code, errs)
	var v map[string]string
	require.NoError(t, json.Unmarshal([]byte(out), &v), out)
	for _, key := range []string{"version", "go", "os", "arch"} {
		assert.Contains(t, v, key)
	}
	plain, _, _ := run(t, nil, "version")
	assert.Equal(t, "tenantctl "+v["version"]+" "+v["go"]+" "+v["os"]+"/"+v["arch"]+"\n", plain)
	out, _, _ = run(t, nil, "version", "-o", "yaml")
	assert.Contains(t, out, `os: "`+v["os"]+`"`)
}
