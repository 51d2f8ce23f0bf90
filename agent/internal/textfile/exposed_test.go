package textfile

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const nobody = 65534

// tree makes a folder with a configuration in it, both for their owner alone.
func tree(t *testing.T) (dir, file string) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	dir = filepath.Join(dir, "conf.d")
	require.NoError(t, os.Mkdir(dir, 0o700))
	file = filepath.Join(dir, "x.hcl")
	require.NoError(t, os.WriteFile(file, []byte("x"), 0o600))
	return dir, file
}

func TestExposed_NamesWhoMayChangeAFile(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives files to others")
	}
	for name, tc := range map[string]struct {
		change func(dir, file string) error
		want   string // PATH: DETAIL; HINT
	}{
		"nobody else": {func(string, string) error { return nil }, ""},
		"all may read": {func(dir, file string) error {
			_ = os.Chmod(file, 0o644)
			return os.Chmod(dir, 0o755)
		}, ""},
		"root's group":        {func(_, file string) error { return os.Chmod(file, 0o660) }, ""},
		"every user":          {func(_, file string) error { return os.Chmod(file, 0o666) }, "FILE: every user may write to it; chmod 0644 FILE"},
		"every user, folder":  {func(dir, _ string) error { return os.Chmod(dir, 0o777) }, "DIR: every user may write to it; chmod 0755 DIR"},
		"sticky folder":       {func(dir, _ string) error { return os.Chmod(dir, 0o777|fs.ModeSticky) }, ""},
		"owner":               {func(_, file string) error { return os.Chown(file, nobody, 0) }, "FILE: it belongs to user " + userName(nobody) + "; chown 0 FILE"},
		"owner of the folder": {func(dir, _ string) error { return os.Chown(dir, nobody, 0) }, "DIR: it belongs to user " + userName(nobody) + "; chown 0 DIR"},
		"group": {func(_, file string) error {
			_ = os.Chmod(file, 0o660)
			return os.Chown(file, 0, nobody)
		}, "FILE: group " + groupName(nobody) + " may write to it; chmod 0640 FILE"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, file := tree(t)
			require.NoError(t, tc.change(dir, file))
			link := filepath.Join(t.TempDir(), "link")
			require.NoError(t, os.Symlink(file, link))
			for _, path := range []string{file, link} {
				got := ""
				for _, e := range Exposed([]string{path, path, dir}) {
					got += fmt.Sprintf("%s: %s; %s", e.Path, e.Detail, e.Hint)
				}
				assert.Equal(t, strings.NewReplacer("FILE", file, "DIR", dir).Replace(tc.want), got)
			}
		})
	}
}

func TestExposed_TakesAPrivateGroupForItsUser(t *testing.T) {
	_, file := tree(t)
	require.NoError(t, os.Chmod(file, 0o660))
	const user = 3999999 // Nobody has this id.
	if os.Geteuid() != 0 {
		t.Skip("only root gives files to others")
	}
	require.NoError(t, os.Chown(file, user, user))
	assert.Nil(t, reader{uid: user, gid: user}.exposure(file))
	assert.NotNil(t, reader{uid: user, gid: user + 1}.exposure(file))
	assert.NotNil(t, reader{uid: user + 1, gid: user}.exposure(file))
}
