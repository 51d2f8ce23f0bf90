package main

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/policies"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// What setup has just written is what the backup has, but for the ids of its role.
func TestABackupIsRestoredToAVaultThatWasJustSetUp(t *testing.T) {
	t.Parallel()
	from, to := vaulttest.Own(t), vaulttest.Own(t)
	dir := t.TempDir()
	for name, s := range map[string]*vaulttest.Server{"from": from, "to": to} {
		_, errs, code := run(t, vaultOf(s), "setup", "--credentials-dir", filepath.Join(dir, name))
		require.Zero(t, code, errs)
	}
	marker := writeSecret(t, from, "other", "nexa")
	require.NoError(t, from.Client.Sys().PutPolicy("more", policies.Read(policies.Tenant)))
	_, errs, code := run(t, vaultOf(from), "credentials", "issue", "other")
	require.Zero(t, code, errs)
	recipient, identity := newAgeKey(t)
	file := filepath.Join(dir, "b")
	_, errs, code = run(t, vaultOf(from), "backup", file, "-r", recipient)
	require.Zero(t, code, errs)

	out, errs, code := run(t, vaultOf(to), "restore", file, "-i", identity, "--yes")
	assert.Equal(t, exitConflict, code, errs)
	assert.Regexp(t, `(?m)^skip +role +nexa-runtime +it has another role id in Vault, which may be in use$`, out)
	assert.Contains(t, errs, "1 skipped")
	assert.NotContains(t, out, "update")
	assert.Equal(t, marker, readSecret(t, to, "other", "nexa"))
	more, err := to.Client.Sys().GetPolicy("more")
	require.NoError(t, err)
	assert.NotEmpty(t, more)
}
