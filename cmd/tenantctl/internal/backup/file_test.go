package backup

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fileOf writes a file up to the point where it gets its name.
func fileOf(t *testing.T, path string, force bool) *File {
	t.Helper()
	f, err := NewFile(path, force)
	require.NoError(t, err)
	t.Cleanup(f.Abort)
	_, err = f.Write([]byte("content"))
	require.NoError(t, err)
	return f
}

func TestAFileHasItsNameOnlyWhenItIsComplete(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "b")
	f := fileOf(t, path, false)
	assert.NoFileExists(t, path)
	require.NoError(t, f.Close())
	f.Abort()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "content", string(content))
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode())
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	assert.Len(t, entries, 1)
}

func TestAFileThatIsGivenUpIsGone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "b")
	fileOf(t, path, false).Abort()
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	assert.Empty(t, entries)
}

func TestAFileThatCameMeanwhileIsReplacedOnlyByForce(t *testing.T) {
	t.Parallel()
	for _, force := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "b")
		f := fileOf(t, path, force)
		require.NoError(t, os.WriteFile(path, []byte("by somebody else"), 0o600))
		err := f.Close()
		f.Abort()
		content, readErr := os.ReadFile(path)
		require.NoError(t, readErr)
		if force {
			require.NoError(t, err)
			assert.Equal(t, "content", string(content))
		} else {
			require.ErrorContains(t, err, "is there already")
			assert.Equal(t, "by somebody else", string(content))
		}
		entries, err := os.ReadDir(filepath.Dir(path))
		require.NoError(t, err)
		assert.Len(t, entries, 1)
	}
}
