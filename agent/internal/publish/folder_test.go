package publish

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/output"
	"github.com/smarteros/deaddrop/render/drop"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOnDisk_NamesTheFileSystem(t *testing.T) {
	assert.Equal(t, "on a disk", OnDisk(drop.Folder{OnDisk: true}))
	assert.Equal(t, "on a disk (ext4, mounted at /)", OnDisk(drop.Folder{OnDisk: true, FileSystem: "ext4", Mount: "/"}))
	hint := inMemory("/run/deaddrop")
	assert.Contains(t, hint, "mount one at /run/deaddrop")
	if is, err := drop.Inspect("/run"); err == nil && is.OnDisk {
		assert.NotContains(t, hint, "/run is one", "it is not in memory here")
	}
}

func TestRefusal_WantsAFolderOfTheAgentAloneIfADropIsStrict(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	folder := filepath.Join(dir, "parent/folder")
	require.NoError(t, os.MkdirAll(folder, 0o700))
	may := func(strict bool, file string) error {
		d := &config.Drop{Destination: filepath.Join(folder, file), Strict: strict}
		_, err := refusal(output.Rendered{Files: []output.RenderedFile{{Drop: d}}}, map[policy]error{})
		return err
	}
	require.NoError(t, may(true, "x.env"))
	require.NoError(t, may(true, "new/x.env"))
	for path, mode := range map[string]fs.FileMode{folder: 0o770, filepath.Dir(folder): 0o777} {
		require.NoError(t, os.Chmod(path, mode))
		for _, file := range []string{"x.env", "new/x.env"} {
			require.NoError(t, may(false, file))
			err := may(true, file)
			require.ErrorContains(t, err, "strict: folder "+path+" may be written to by")
			require.ErrorContains(t, err, "; chmod go-w "+path)
		}
		require.NoError(t, os.Chmod(path, 0o700))
	}
	require.NoError(t, os.Remove(folder))
	require.NoError(t, os.Symlink("elsewhere", folder))
	require.ErrorContains(t, may(true, "x.env"), "strict: folder "+folder+" is a symbolic link")
}
