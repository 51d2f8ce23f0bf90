package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/policies"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// vaultOf is the environment of somebody who has root.
func vaultOf(s *vaulttest.Server) []string {
	return []string{"VAULT_ADDR=" + s.Address, "VAULT_TOKEN=" + s.RootToken, "VAULT_MAX_RETRIES=0"}
}

// asAdmin is the environment of somebody who has the platform's policy for
// administrators, and no other.
func asAdmin(t *testing.T, s *vaulttest.Server) []string {
	t.Helper()
	require.NoError(t, s.Client.Sys().PutPolicy(policies.Admin, policies.Read(policies.Admin)))
	return withPolicy(t, s, policies.Admin)
}

func withPolicy(t *testing.T, s *vaulttest.Server, policy string) []string {
	t.Helper()
	answer, err := s.Client.Logical().Write("auth/token/create", map[string]any{"policies": []string{policy}, "no_default_policy": true})
	require.NoError(t, err)
	return []string{"VAULT_ADDR=" + s.Address, "VAULT_TOKEN=" + answer.Auth.ClientToken, "VAULT_MAX_RETRIES=0"}
}

// writeSecret writes a version of a service's secret, and returns what is in it.
func writeSecret(t *testing.T, s *vaulttest.Server, id, service string) (marker string) {
	t.Helper()
	marker = vaulttest.Marker()
	_, err := s.Client.Logical().Write("secret/data/tenant/"+id+"/"+service, map[string]any{"data": map[string]any{"key": marker}})
	require.NoError(t, err)
	return marker
}

func readSecret(t *testing.T, s *vaulttest.Server, id, service string) any {
	t.Helper()
	answer, err := s.Client.Logical().Read("secret/data/tenant/" + id + "/" + service)
	require.NoError(t, err)
	if answer == nil || answer.Data["data"] == nil {
		return nil
	}
	return answer.Data["data"].(map[string]any)["key"]
}

// newAgeKey makes a key, and returns the recipient and the file of the identity.
func newAgeKey(t *testing.T) (recipient, identity string) {
	t.Helper()
	key, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	identity = filepath.Join(t.TempDir(), "key.txt")
	require.NoError(t, os.WriteFile(identity, []byte(key.String()+"\n"), 0o600))
	return key.Recipient().String(), identity
}

// names are those of the files in a folder, hidden ones too.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	all := []string{}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestABackupOfOneVaultIsRestoredToAnother(t *testing.T) {
	t.Parallel()
	from, to := vaulttest.Own(t), vaulttest.Own(t)
	var markers []string
	for _, id := range []string{"demo", "other"} {
		for _, service := range []string{"nexa", "nexa", "shopify"} {
			markers = append(markers, writeSecret(t, from, id, service))
		}
	}
	roleID, _, err := from.AppRole("demo-nexa", policies.Read(policies.Tenant))
	require.NoError(t, err)
	recipient, identity := newAgeKey(t)
	file := filepath.Join(t.TempDir(), "tenants.age")

	out, errs, code := run(t, asAdmin(t, from), "backup", file, "--recipient", recipient, "-o", "json")
	require.Zero(t, code, errs)
	assert.Empty(t, errs)
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	var summary map[string]any
	require.NoError(t, json.Unmarshal([]byte(out), &summary))
	sum := sha256.Sum256(content)
	assert.Equal(t, hex.EncodeToString(sum[:]), summary["sha256"])
	for key, want := range map[string]any{
		"file": file, "encryption": "recipients", "secrets": 4.0, "versions": 6.0, "policies": 2.0, "roles": 1.0, "bytes": float64(len(content)), "vault": "1.21.0",
	} {
		assert.Equal(t, want, summary[key], key)
	}
	info, err := os.Stat(file)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode())
	assert.Equal(t, []string{"tenants.age"}, names(t, filepath.Dir(file)))

	env := asAdmin(t, to)
	plan, errs, code := run(t, env, "restore", file, "--identity", identity, "--dry-run")
	require.Zero(t, code, errs)
	assert.Regexp(t, `(?m)^create +secret +secret/tenant/demo/nexa +versions up to 2$`, plan)
	assert.Regexp(t, `(?m)^secret +4 +0 +0 +0 +0 +0$`, plan)
	assert.Nil(t, readSecret(t, to, "demo", "nexa"))
	done, errs, code := run(t, env, "restore", file, "--identity", identity, "--yes")
	require.Zero(t, code, errs)
	assert.Equal(t, markers[1], readSecret(t, to, "demo", "nexa"))
	assert.Equal(t, markers[5], readSecret(t, to, "other", "shopify"))
	id, err := to.Client.Logical().Read("auth/approle/role/demo-nexa/role-id")
	require.NoError(t, err)
	assert.Equal(t, roleID, id.Data["role_id"])
	again, errs, code := run(t, env, "restore", file, "--identity", identity, "-o", "yaml")
	require.Zero(t, code, errs)
	assert.Contains(t, again, "actions: []")

	for _, marker := range append(markers, roleID) {
		assert.NotContains(t, out+plan+done+again, marker)
		assert.NotContains(t, string(content), marker)
	}
}

func TestWhatIsNewerInVaultStaysAndIsTold(t *testing.T) {
	t.Parallel()
	s := vaulttest.Own(t)
	old := writeSecret(t, s, "demo", "nexa")
	recipient, identity := newAgeKey(t)
	file := filepath.Join(t.TempDir(), "b")
	_, errs, code := run(t, vaultOf(s), "backup", file, "-r", recipient)
	require.Zero(t, code, errs)
	newer := writeSecret(t, s, "demo", "nexa")
	out, errs, code := run(t, vaultOf(s), "restore", file, "-i", identity)
	assert.Equal(t, exitConflict, code)
	assert.Regexp(t, `(?m)^skip +secret +secret/tenant/demo/nexa +Vault has the newer version 2; the backup ends with 1$`, out)
	assert.Contains(t, errs, "1 skipped")
	assert.Equal(t, newer, readSecret(t, s, "demo", "nexa"))
	_, errs, code = run(t, vaultOf(s), "restore", file, "-i", identity, "--overwrite")
	require.Zero(t, code, errs)
	assert.Equal(t, old, readSecret(t, s, "demo", "nexa"))
}

func TestWhatARestoreChangesOfPoliciesIsTold(t *testing.T) {
	t.Parallel()
	s := vaulttest.Own(t)
	writeSecret(t, s, "demo", "nexa")
	require.NoError(t, s.Client.Sys().PutPolicy("p", `path "old" { capabilities = ["read"] }`))
	recipient, identity := newAgeKey(t)
	file := filepath.Join(t.TempDir(), "b")
	_, errs, code := run(t, vaultOf(s), "backup", file, "-r", recipient)
	require.Zero(t, code, errs)
	newer := `path "new" { capabilities = ["read"] }`
	require.NoError(t, s.Client.Sys().PutPolicy("p", newer))
	out, errs, code := run(t, vaultOf(s), "restore", file, "-i", identity)
	assert.Equal(t, exitConflict, code)
	assert.Regexp(t, `(?m)^skip +policy +p +it is another one in Vault$`, out)
	assert.Contains(t, errs, "1 skipped")
	is, err := s.Client.Sys().GetPolicy("p")
	require.NoError(t, err)
	assert.Equal(t, newer, is)
	out, errs, code = run(t, vaultOf(s), "restore", file, "-i", identity, "--overwrite", "--yes")
	require.Zero(t, code, errs)
	assert.Regexp(t, `(?m)^update +policy +p +it is another one in Vault$`, out)
}

func TestABackupGoesThroughPipes(t *testing.T) {
	t.Parallel()
	from, to := vaulttest.Own(t), vaulttest.Own(t)
	marker := writeSecret(t, from, "demo", "nexa")
	recipient, identity := newAgeKey(t)
	stream, errs, code := run(t, vaultOf(from), "backup", "-", "-r", recipient)
	require.Zero(t, code, errs)
	assert.Regexp(t, `(?m)^Secrets +1$`, errs)
	_, errs, code = runWith(t, stream, vaultOf(to), "restore", "-", "-i", identity)
	require.Zero(t, code, errs)
	assert.Equal(t, marker, readSecret(t, to, "demo", "nexa"))
}

func TestABackupWithAPassphraseNeedsThatPassphrase(t *testing.T) {
	t.Parallel()
	s := vaulttest.Own(t)
	writeSecret(t, s, "demo", "nexa")
	dir := t.TempDir()
	right, wrong, empty, file := filepath.Join(dir, "right"), filepath.Join(dir, "wrong"), filepath.Join(dir, "empty"), filepath.Join(dir, "b")
	passphrase := vaulttest.Marker()
	require.NoError(t, os.WriteFile(right, []byte(passphrase+"\n"), 0o600))
	require.NoError(t, os.WriteFile(wrong, []byte(passphrase+"x\n"), 0o600))
	require.NoError(t, os.WriteFile(empty, []byte("\n"), 0o600))
	out, errs, code := finish(t, plain(t, command(t, vaultOf(s), "backup", file, "--passphrase-file", right)), "")
	require.Zero(t, code, errs)
	assert.Regexp(t, `(?m)^Encryption +passphrase$`, out)
	for args, want := range map[string]struct {
		code int
		say  string
	}{
		"--passphrase-file " + wrong: {exitFailed, "the passphrase is wrong"},
		"--passphrase-file " + empty: {exitUsage, "is empty"},
		"":                           {exitUsage, "give --passphrase-file (there is no terminal to ask for a passphrase)"},
	} {
		_, errs, code := finish(t, plain(t, command(t, nil, append([]string{"restore", file, "--verify"}, strings.Fields(args)...)...)), "")
		assert.Equal(t, want.code, code, args)
		assert.Contains(t, errs, want.say, args)
		assert.NotContains(t, errs, passphrase)
	}
	out, errs, code = finish(t, plain(t, command(t, nil, "restore", file, "--verify", "--passphrase-file", right)), "") // There is no Vault.
	require.Zero(t, code, errs)
	assert.Regexp(t, `(?m)^Secrets +1$`, out)
}

func TestABadBackupCommandContactsNothing(t *testing.T) {
	t.Parallel()
	recipient, identity := newAgeKey(t)
	key, err := os.ReadFile(identity)
	require.NoError(t, err)
	dir := t.TempDir()
	there := filepath.Join(dir, "there")
	require.NoError(t, os.WriteFile(there, []byte("mine"), 0o600))
	fresh := filepath.Join(dir, "fresh")
	for args, say := range map[string]string{
		"backup":                                                    "accepts 1 arg(s), received 0",
		"backup " + fresh:                                           "Give --recipient or --passphrase-file",
		"backup " + fresh + " -r nonsense":                          "--recipient: this is not a recipient",
		"backup " + fresh + " -r " + string(key):                    "this is a secret key: give the public one",
		"backup " + fresh + " -R " + identity:                       "line 1: this is a secret key",
		"backup " + fresh + " -R " + dir + "/none":                  "no such file",
		"backup " + there + " -r " + recipient:                      "is there already",
		"backup " + dir + " -r " + recipient + " --force":           "is no ordinary file",
		"backup /dev/null -r " + recipient + " --force":             "is no ordinary file",
		"backup " + dir + "/none/x -r " + recipient:                 "no such file or directory",
		"backup " + fresh + " --tenant ../x -r " + recipient:        "is not an id",
		"backup " + fresh + " --insecure-plaintext -r " + recipient: "none of the others can be",
		"restore":                                     "accepts 1 arg(s), received 0",
		"restore " + dir + "/none":                    "no such file",
		"restore " + dir:                              "is a folder",
		"restore " + there + " --tenant *":            "is not an id",
		"restore " + there + " --verify --dry-run":    "none of the others can be",
		"restore " + there + " --max-placeholders -1": "a number from 0 on",
	} {
		out, errs, code := run(t, []string{"VAULT_ADDR=http://127.0.0.1:1", "VAULT_TOKEN=x"}, strings.Fields(args)...)
		assert.Equal(t, exitUsage, code, "%s: %s", args, errs)
		assert.Contains(t, errs, say, args)
		assert.NotContains(t, errs, strings.TrimSpace(string(key)), args)
		assert.Empty(t, out, args)
	}
	assert.Equal(t, []string{"there"}, names(t, dir))
}

func TestABackupThatFailsLeavesNothing(t *testing.T) {
	t.Parallel()
	s := vaulttest.Own(t)
	marker := writeSecret(t, s, "demo", "nexa")
	writeSecret(t, s, "demo", "shopify")
	require.NoError(t, s.Client.Sys().PutPolicy("most", `path "*" { capabilities = ["read", "list"] }
path "secret/data/tenant/demo/shopify" { capabilities = ["deny"] }`))
	recipient, _ := newAgeKey(t)
	for name, test := range map[string]struct {
		env  []string
		args []string
		code int
		say  string
	}{
		"denied":      {withPolicy(t, s, "most"), nil, exitDenied, "there is no backup: reading secret/data/tenant/demo/shopify: permission denied"},
		"unreachable": {[]string{"VAULT_ADDR=http://127.0.0.1:1", "VAULT_TOKEN=x", "VAULT_MAX_RETRIES=0"}, nil, exitUnreachable, "there is no backup: "},
		"no tenant":   {vaultOf(s), []string{"--tenant", "nobody"}, exitMissing, "the tenant nobody has no secrets in Vault"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			old := filepath.Join(dir, "old")
			require.NoError(t, os.WriteFile(old, []byte("the backup of yesterday"), 0o600))
			for _, file := range []string{filepath.Join(dir, "new"), old} {
				out, errs, code := run(t, test.env, append([]string{"backup", file, "--force", "-r", recipient}, test.args...)...)
				assert.Equal(t, test.code, code, errs)
				assert.Contains(t, errs, test.say)
				assert.NotContains(t, out+errs, marker)
			}
			content, err := os.ReadFile(old)
			require.NoError(t, err)
			assert.Equal(t, "the backup of yesterday", string(content))
			assert.Equal(t, []string{"old"}, names(t, dir))
		})
	}
}

func TestADamagedBackupRestoresNothing(t *testing.T) {
	t.Parallel()
	s, to := vaulttest.Own(t), vaulttest.Own(t)
	for n := range 50 {
		writeSecret(t, s, "demo", "s"+strconv.Itoa(n))
	}
	recipient, identity := newAgeKey(t)
	_, other := newAgeKey(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "whole")
	_, errs, code := run(t, vaultOf(s), "backup", file, "-r", recipient)
	require.Zero(t, code, errs)
	whole, err := os.ReadFile(file)
	require.NoError(t, err)
	altered := bytes.Clone(whole)
	altered[len(altered)/2] ^= 1
	for name, test := range map[string]struct {
		content  []byte
		identity string
		say      string
	}{
		"cut": {whole[:len(whole)-20], identity, "the backup is damaged"}, "altered": {altered, identity, "the backup is damaged"},
		"other": {whole, other, "the backup cannot be decrypted: it is for other recipients than these identities"}, "none": {[]byte("hello"), identity, "this is not a backup of tenantctl"},
		"empty": {nil, identity, "this is not a backup of tenantctl"},
	} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, test.content, 0o600))
		_, errs, code := run(t, vaultOf(to), "restore", path, "-i", test.identity)
		assert.Equal(t, exitFailed, code, name)
		assert.Contains(t, errs, path+": "+test.say, name)
	}
	list, err := to.Client.Logical().List("secret/metadata/tenant")
	require.NoError(t, err)
	assert.Nil(t, list)
	_, errs, code = run(t, vaultOf(to), "restore", file, "-i", identity, "--tenant", "nobody")
	assert.Equal(t, exitMissing, code)
	assert.Contains(t, errs, "the tenant nobody is not in the backup")
	_, errs, code = run(t, vaultOf(to), "restore", file)
	assert.Equal(t, exitUsage, code)
	assert.Contains(t, errs, "give --identity")
}

func TestABackupThatIsStoppedLeavesNothing(t *testing.T) {
	t.Parallel()
	s := vaulttest.Own(t)
	for n := range 200 { // So much that something is written before the end.
		_, err := s.Client.Logical().Write("secret/data/tenant/demo/s"+strconv.Itoa(n), map[string]any{
			"data": map[string]any{"key": strings.Repeat(vaulttest.Marker(), 10) + random(t, 20_000)},
		})
		require.NoError(t, err)
	}
	recipient, _ := newAgeKey(t)
	for name, signal := range map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "KILL": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "tenants.age")
			// So that it can be stopped in the middle, it may ask 40 times a second.
			cmd := command(t, append(vaultOf(s), "VAULT_RATE_LIMIT=40:40"), "backup", file, "-r", recipient)
			var errs bytes.Buffer
			cmd.Stderr = &errs
			require.NoError(t, cmd.Start())
			require.Eventually(t, func() bool { return sizeOfAll(t, dir) > 0 }, time.Minute, 10*time.Millisecond)
			require.NoError(t, cmd.Process.Signal(signal))
			require.Error(t, cmd.Wait())
			assert.NoFileExists(t, file)
			if signal == syscall.SIGKILL { // Nobody can clean up then; what is left is hidden, and encrypted.
				require.Len(t, names(t, dir), 1)
				assert.Regexp(t, `^\.tenants\.age\..*\.partial$`, names(t, dir)[0])
				return
			}
			assert.Equal(t, exitFailed, cmd.ProcessState.ExitCode(), errs.String())
			assert.Empty(t, names(t, dir))
			assert.Contains(t, errs.String(), "there is no backup: it was stopped")
		})
	}
}

// random is text that does not get smaller when it is packed.
func random(t *testing.T, n int) string {
	t.Helper()
	b := make([]byte, n/2)
	_, err := rand.Read(b)
	require.NoError(t, err)
	return hex.EncodeToString(b)
}

func sizeOfAll(t *testing.T, dir string) (size int64) {
	t.Helper()
	for _, name := range names(t, dir) {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil { // It may have got its name meanwhile.
			size += info.Size()
		}
	}
	return size
}

func TestARestoreThatIsStoppedGoesOnTheNextTime(t *testing.T) {
	t.Parallel()
	from, to := vaulttest.Own(t), vaulttest.Own(t)
	markers := map[int]string{}
	for n := range 60 {
		markers[n] = writeSecret(t, from, "demo", "s"+strconv.Itoa(n))
	}
	recipient, identity := newAgeKey(t)
	file := filepath.Join(t.TempDir(), "b")
	_, errs, code := run(t, vaultOf(from), "backup", file, "-r", recipient)
	require.Zero(t, code, errs)
	cmd := command(t, append(vaultOf(to), "VAULT_RATE_LIMIT=30:30"), "restore", file, "-i", identity)
	var said bytes.Buffer
	cmd.Stderr = &said
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool { return readSecret(t, to, "demo", "s0") != nil }, time.Minute, 10*time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.Error(t, cmd.Wait())
	assert.Equal(t, exitFailed, cmd.ProcessState.ExitCode())
	assert.Contains(t, said.String(), "the restore stopped: it was stopped; what was restored until then stays")
	_, errs, code = run(t, vaultOf(to), "restore", file, "-i", identity)
	require.Zero(t, code, errs)
	for n, marker := range markers {
		assert.Equal(t, marker, readSecret(t, to, "demo", "s"+strconv.Itoa(n)))
	}
}

func TestABarIsShownOnATerminalOnly(t *testing.T) {
	t.Parallel()
	s := vaulttest.Own(t)
	for n := range 6 {
		writeSecret(t, s, "demo", "s"+strconv.Itoa(n))
	}
	recipient, _ := newAgeKey(t)
	file := filepath.Join(t.TempDir(), "b")
	slow := append(vaultOf(s), "VAULT_RATE_LIMIT=8:1")
	shown, code := atTerminal(t, slow, []string{"backup", file, "-r", recipient})
	require.Zero(t, code, shown)
	assert.Regexp(t, `% \|.*[0-6]/6`, shown) // How far it comes before it is done is up to the machine.
	assert.Regexp(t, `Secrets +6`, shown)
	_, errs, code := run(t, slow, "backup", file, "--force", "-r", recipient)
	require.Zero(t, code)
	assert.Empty(t, errs)
}

func TestPlainTextIsWrittenOnlyWhenTold(t *testing.T) {
	t.Parallel()
	from, to := vaulttest.Own(t), vaulttest.Own(t)
	marker := writeSecret(t, from, "demo", "nexa")
	file := filepath.Join(t.TempDir(), "plain")
	out, errs, code := run(t, vaultOf(from), "backup", file, "--insecure-plaintext")
	require.Zero(t, code, errs)
	assert.Regexp(t, `(?m)^Encryption +none$`, out)
	text, err := exec.Command("gzip", "-dc", "-S", "plain", file).Output()
	require.NoError(t, err)
	assert.Contains(t, string(text), marker)
	_, errs, code = run(t, vaultOf(to), "restore", file)
	require.Zero(t, code, errs)
	assert.Equal(t, marker, readSecret(t, to, "demo", "nexa"))
}

func TestThePassphraseIsAskedForTwiceAndDoesNotShow(t *testing.T) {
	t.Parallel()
	s := vaulttest.Own(t)
	writeSecret(t, s, "demo", "nexa")
	file := filepath.Join(t.TempDir(), "b")
	passphrase := vaulttest.Marker()
	shown, code := typedAtTerminal(t, plain(t, command(t, vaultOf(s), "backup", file)), passphrase, passphrase+"x")
	assert.Equal(t, exitUsage, code)
	assert.Contains(t, shown, "the two passphrases differ")
	assert.NoFileExists(t, file)
	shown, code = typedAtTerminal(t, plain(t, command(t, vaultOf(s), "backup", file)), passphrase, passphrase)
	require.Zero(t, code, shown)
	assert.Contains(t, shown, "Passphrase for the backup: ")
	assert.Contains(t, shown, "The same again: ")
	assert.NotContains(t, shown, passphrase)
	shown, code = typedAtTerminal(t, plain(t, command(t, nil, "restore", file, "--verify")), passphrase)
	require.Zero(t, code, shown)
	assert.NotContains(t, shown, passphrase)
	recipient, _ := newAgeKey(t)
	shown, code = typedAtTerminal(t, plain(t, command(t, vaultOf(s), "backup", "-", "-r", recipient)))
	assert.Equal(t, exitUsage, code)
	assert.Contains(t, shown, "is not written to a terminal")
}

// atTerminal runs tenantctl on a terminal of its own, on which each line is typed
// when it has asked for one, and returns what is to be seen there.
func atTerminal(t *testing.T, env, args []string, lines ...string) (shown string, code int) {
	t.Helper()
	return typedAtTerminal(t, command(t, env, args...), lines...)
}

// typedAtTerminal is [atTerminal] for a command.
func typedAtTerminal(t *testing.T, cmd *exec.Cmd, lines ...string) (shown string, code int) {
	t.Helper()
	master, slave := newTerminal(t)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	require.NoError(t, cmd.Start())
	require.NoError(t, slave.Close())
	var seen strings.Builder
	buffer := make([]byte, 4096)
	for asked := 0; ; {
		n, err := master.Read(buffer) // It fails when the last one has closed the terminal.
		seen.Write(buffer[:n])
		if err != nil {
			break
		}
		if prompts := strings.Count(seen.String(), ": ") - strings.Count(seen.String(), "tenantctl: "); asked < len(lines) && prompts > asked {
			_, err := fmt.Fprintln(master, lines[asked])
			require.NoError(t, err)
			asked++
		}
	}
	_ = cmd.Wait()
	return seen.String(), cmd.ProcessState.ExitCode()
}
