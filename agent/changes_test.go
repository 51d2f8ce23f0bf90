package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/config"
)

func TestDigest_DoesNotWaitForFilesThatBlock(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.WriteFile(path("x.hcl"), []byte("x"), 0o600))
	files := []string{dir, path("x.hcl")}
	before := digest(files)
	assert.Equal(t, before, digest(files))
	require.NoError(t, os.Remove(path("x.hcl")))
	require.NoError(t, syscall.Mkfifo(path("x.hcl"), 0o600))
	assert.NotEqual(t, before, digest(files), "the configuration is read again, and refused")
	require.NoError(t, os.Remove(path("x.hcl")))
	require.NoError(t, os.Symlink("/dev/zero", path("x.hcl")))
	digest(files)
}

func TestIsPiped_FindsAPipeAmongTheFiles(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer func() { _, _ = r.Close(), w.Close() }()
	assert.True(t, isPiped(&config.Config{Files: []string{"x.hcl", fmt.Sprintf("/dev/fd/%d", r.Fd())}}))
	assert.False(t, isPiped(&config.Config{Files: []string{"x.hcl", t.TempDir()}}))
}
