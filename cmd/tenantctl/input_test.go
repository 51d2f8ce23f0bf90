package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// Each of these files could be in a folder of somebody else, who replaces it by a FIFO.
func TestFiles_AreRefusedWhereAFIFOIsInTheirPlace(t *testing.T) {
	t.Parallel()
	recipient, identity := newAgeKey(t)
	dir := t.TempDir()
	fifo, home, file := filepath.Join(dir, "fifo"), filepath.Join(dir, "home"), filepath.Join(dir, "b")
	require.NoError(t, syscall.Mkfifo(fifo, 0o600))
	require.NoError(t, os.Mkdir(home, 0o700))
	require.NoError(t, os.WriteFile(file, []byte("age-encryption.org/v1\n"), 0o600))
	env := []string{"VAULT_ADDR=http://127.0.0.1:1", "VAULT_TOKEN=x", "VAULT_MAX_RETRIES=0"}
	for _, args := range []string{
		"tenant set demo nexa KEY=@" + fifo,
		"tenant set demo nexa --from " + fifo,
		"backup " + file + "2 -R " + fifo,
		"backup " + file + "2 --passphrase-file " + fifo,
		"backup " + file + "2 -r " + recipient + " --sign-key " + fifo,
		"restore " + fifo + " -i " + identity,
		"restore " + file + " --verify-key " + fifo,
		"login --password-file " + fifo,
		"rotate-root --print --keys-file " + fifo,
		"setup --init --keys-file " + file + "2 --shares 1 --threshold 1 --pgp-key " + fifo,
	} {
		_, errs, code := run(t, env, strings.Fields(args)...)
		assert.Equal(t, exitUsage, code, "%s: %s", args, errs)
		assert.Contains(t, errs, fifo+": not a regular file", args)
	}
	for _, name := range []string{"VAULT_CACERT", "VAULT_CLIENT_CERT", "VAULT_CLIENT_KEY"} {
		_, errs, code := run(t, append(env, name+"="+fifo), "status")
		assert.Equal(t, exitUsage, code, name)
		assert.Contains(t, errs, name+": open "+fifo+": not a regular file")
	}
	require.NoError(t, os.Rename(fifo, filepath.Join(home, ".vault-token")))
	_, _, code := run(t, []string{"VAULT_ADDR=http://127.0.0.1:1", "VAULT_MAX_RETRIES=0", "HOME=" + home}, "tenant", "list")
	assert.Equal(t, exitUnreachable, code)
}

func TestFiles_CanBeDescriptorsOfTheProcess(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	stdin, piped := vaulttest.Marker(), vaulttest.Marker()
	cmd := command(t, o.env, "tenant", "add", o.id, "nexa", "A=@/dev/stdin", "B=@/dev/fd/3")
	r, w, err := os.Pipe() // As the shell's <(command) has it.
	require.NoError(t, err)
	_, err = fmt.Fprintln(w, piped)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	cmd.Stdin, cmd.ExtraFiles = strings.NewReader(stdin), []*os.File{r}
	said, err := cmd.CombinedOutput()
	require.NoError(t, r.Close())
	require.NoError(t, err, "%s", said)
	assert.Equal(t, map[string]any{"A": stdin, "B": piped}, o.reads("nexa"))
}
