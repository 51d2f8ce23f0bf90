package drop

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// stranger is a user who is neither root nor the agent.
const stranger = 65534

// asRoot skips a test that gives files to another user.
func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can give a folder to another user")
	}
}

// realTempDir is a temporary folder that others may pass, and whose path has no symbolic
// link.
func realTempDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755))
	return dir
}

func untrusted(t *testing.T, dir string) *TrustError {
	t.Helper()
	var err *TrustError
	require.ErrorAs(t, CheckTrusted(dir), &err)
	return err
}

func TestCheckTrusted_AcceptsFoldersOfTheAgentOrRoot(t *testing.T) {
	dir := realTempDir(t) // Below /tmp, which has the sticky bit.
	require.NoError(t, CheckTrusted(dir))
	require.NoError(t, CheckTrusted("/"))
	sticky := filepath.Join(dir, "sticky")
	require.NoError(t, os.MkdirAll(filepath.Join(sticky, "own"), 0o755))
	require.NoError(t, os.Chmod(sticky, 0o777|fs.ModeSticky))
	require.NoError(t, CheckTrusted(filepath.Join(sticky, "own")))
	t.Chdir(dir)
	require.NoError(t, CheckTrusted("sticky/own"))
	require.NoError(t, CheckTrusted("."))
}

func TestCheckTrusted_NamesTheFolderThatOthersMayWriteTo(t *testing.T) {
	dir := realTempDir(t)
	parent, child := filepath.Join(dir, "parent"), filepath.Join(dir, "parent/child")
	require.NoError(t, os.MkdirAll(child, 0o700))
	for _, mode := range []fs.FileMode{0o777, 0o722, 0o702, 0o720, 0o770} {
		for _, wrong := range []string{parent, child} {
			require.NoError(t, os.Chmod(wrong, mode))
			err := untrusted(t, child)
			assert.Equal(t, TrustError{Folder: child, Path: wrong, Detail: err.Detail, Hint: "chmod go-w " + wrong}, *err)
			assert.Contains(t, err.Detail, "may be written to by")
			require.NoError(t, os.Chmod(wrong, 0o700))
			require.NoError(t, CheckTrusted(child))
		}
	}
	require.NoError(t, os.Chmod(child, 0o777|fs.ModeSticky))
	err := untrusted(t, child)
	assert.Equal(t, "is for everyone to write to (mode 1777)", err.Detail)
	assert.Equal(t, "use a folder in it: "+child+"/deaddrop", err.Hint)
}

func TestCheckTrusted_NamesTheFolderOfAnotherUser(t *testing.T) {
	asRoot(t)
	dir := realTempDir(t)
	parent, child := filepath.Join(dir, "parent"), filepath.Join(dir, "parent/child")
	require.NoError(t, os.MkdirAll(child, 0o700))
	for wrong, hint := range map[string]string{
		parent: "use a folder that is not in it, or: chown root " + parent,
		child:  "chown root " + child + " && chmod o+x " + child,
	} {
		require.NoError(t, os.Chown(wrong, stranger, 0))
		assert.Equal(t, TrustError{Folder: child, Path: wrong, Detail: "belongs to user 65534, not to root", Hint: hint}, *untrusted(t, child))
		require.NoError(t, os.Chown(wrong, 0, stranger)) // A group that may not write does no harm.
		require.NoError(t, CheckTrusted(child))
	}
	require.NoError(t, os.Chown(child, stranger, 0))
	require.NoError(t, os.Chmod(child, 0o777))
	assert.Equal(t, "chown root "+child+" && chmod go-w "+child, untrusted(t, child).Hint)
	require.NoError(t, os.Chmod(child, 0o755))
	assert.Equal(t, "chown root "+child, untrusted(t, child).Hint)
	require.NoError(t, os.Chmod(parent, 0o777|fs.ModeSticky))
	require.NoError(t, os.Chown(child, stranger, 0))
	assert.Equal(t, child, untrusted(t, child).Path, "anybody may have made it")
}

func TestCheckTrusted_NamesASymbolicLinkAndWhereItLeads(t *testing.T) {
	dir := realTempDir(t)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "real/deeper"), 0o700))
	require.NoError(t, os.Symlink("real", filepath.Join(dir, "link")))
	err := untrusted(t, filepath.Join(dir, "link/deeper"))
	assert.Equal(t, filepath.Join(dir, "link"), err.Path)
	assert.Equal(t, "is a symbolic link to "+dir+"/real", err.Detail)
	assert.Equal(t, "use the path without it: "+dir+"/real/deeper", err.Hint)
	assert.Equal(t, "is a symbolic link to "+dir+"/real", untrusted(t, filepath.Join(dir, "link")).Detail)

	require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "dangling")))
	assert.Equal(t, "is a symbolic link that leads nowhere", untrusted(t, filepath.Join(dir, "dangling/x")).Detail)

	require.NoError(t, os.Mkdir(filepath.Join(dir, "\x1b[2J"), 0o700))
	require.NoError(t, os.Symlink("\x1b[2J", filepath.Join(dir, "terminal")))
	assert.NotContains(t, untrusted(t, filepath.Join(dir, "terminal")).Error(), "\x1b")
}

func TestCheckTrustedOrNew_JudgesByTheNearestParent(t *testing.T) {
	dir := realTempDir(t)
	require.ErrorIs(t, CheckTrusted(filepath.Join(dir, "none")), fs.ErrNotExist)
	require.NoError(t, CheckTrustedOrNew(filepath.Join(dir, "none/at/all")))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	require.ErrorContains(t, CheckTrustedOrNew(filepath.Join(dir, "file")), "is not a folder")

	sticky := filepath.Join(dir, "sticky")
	require.NoError(t, os.Mkdir(sticky, 0o700))
	require.NoError(t, os.Chmod(sticky, 0o777|fs.ModeSticky))
	require.NoError(t, CheckTrustedOrNew(filepath.Join(sticky, "new")))
	require.Error(t, CheckTrustedOrNew(sticky))

	require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "dangling")))
	var err *TrustError
	require.ErrorAs(t, CheckTrustedOrNew(filepath.Join(dir, "dangling/x")), &err)
	require.NoError(t, os.Chmod(dir, 0o777))
	require.ErrorAs(t, CheckTrustedOrNew(filepath.Join(dir, "none/at/all")), &err)
	assert.Equal(t, dir, err.Path)
	assert.False(t, errors.Is(err, fs.ErrNotExist))
}
