package output

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/safefile"
)

func TestReadFile_RefusesWhatAnotherUserCanPutInTheSandbox(t *testing.T) {
	outside := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("s"), 0o600))
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, syscall.Mkfifo(in("fifo"), 0o666))
	require.NoError(t, os.Symlink("/dev/zero", in("zero")))
	require.NoError(t, os.Symlink(filepath.Join(outside, "secret"), in("out")))
	require.NoError(t, os.Mkdir(in("folder"), 0o700))
	require.NoError(t, os.WriteFile(in("large"), nil, 0o600))
	require.NoError(t, os.Truncate(in("large"), 1<<40))
	require.NoError(t, os.WriteFile(in("fits"), make([]byte, 1<<20), 0o600))
	for _, sandbox := range []string{dir, ""} {
		for name, want := range map[string]error{
			"fifo": safefile.ErrNotRegular, "folder": safefile.ErrNotRegular, "large": safefile.ErrTooLarge, "none": os.ErrNotExist,
		} {
			_, err := ReadFile(sandbox, in(name))
			assert.ErrorIs(t, err, want, "%s in %q", name, sandbox)
		}
		content, err := ReadFile(sandbox, in("fits"))
		require.NoError(t, err)
		assert.Len(t, content, 1<<20)
	}
	for _, path := range []string{in("zero"), in("out"), filepath.Join(outside, "secret"), in("../x"), in("folder/../../x"), "relative"} {
		_, err := ReadFile(dir, path)
		assert.ErrorIs(t, err, render.ErrOutsideSandbox, path)
	}
	_, err := ReadFile("", in("zero"))
	require.ErrorIs(t, err, safefile.ErrNotRegular)
}

func TestSideFiles_ErrorsShowNoArgument(t *testing.T) {
	for _, f := range []render.SideFile{{Path: "/marked", User: "marked-user"}, {Path: "/marked", Group: "marked-group"}} {
		_, err := sideFiles([]render.SideFile{{Path: "/x"}, f})
		require.ErrorContains(t, err, "of file 2 of the template is not known on this machine")
		assert.NotContains(t, err.Error(), "marked")
	}
}
