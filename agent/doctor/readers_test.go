package doctor

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/internal/textfile"

	"github.com/smarteros/deaddrop/agent/config"
)

func ptr(id int) *int { return &id }

// openFolder is a folder that everybody can reach, other than t.TempDir.
func openFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "readers")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	return dir
}

// destinationsOf examines drops, and returns the warnings.
func destinationsOf(drops ...config.Drop) []Check {
	e := &exam{cfg: &config.Config{}}
	for _, d := range drops {
		e.drops = append(e.drops, subject{drop: d})
	}
	e.destinations()
	var warnings []Check
	for _, c := range e.Checks {
		if c.Status != OK && !strings.Contains(c.Detail, "on a disk") {
			warnings = append(warnings, c)
		}
	}
	return warnings
}

func TestDestinations_NameTheFolderThatShutsReadersOut(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give folders away")
	}
	const left = "   (deaddrop leaves a folder as it is that is there already)"
	const user, group = 54321, 54322
	for name, tc := range map[string]struct {
		mode     fs.FileMode // of the folder
		uid, gid int
		drop     config.Drop
		who, fix string // no warning where they are empty
	}{
		"the agent's file":             {0o700, 0, 0, config.Drop{Mode: 0o600}, "", ""},
		"root's group":                 {0o700, 0, 0, config.Drop{Mode: 0o440}, "", ""},
		"a group that gets in":         {0o750, 0, group, config.Drop{Mode: 0o440, GID: ptr(group)}, "", ""},
		"others let the group in":      {0o711, 0, 0, config.Drop{Mode: 0o440, GID: ptr(group)}, "", ""},
		"a closed folder":              {0o700, 0, 0, config.Drop{Mode: 0o440, GID: ptr(group)}, "members of group 54322", "chgrp 54322 DIR && chmod g+rx DIR" + left},
		"the group's, but closed":      {0o700, 0, group, config.Drop{Mode: 0o440, GID: ptr(group)}, "members of group 54322", "chmod g+rx DIR" + left},
		"another group's":              {0o750, 0, 7, config.Drop{Mode: 0o440, GID: ptr(group)}, "members of group 54322", "chmod o+x DIR" + left},
		"the group of a setgid folder": {0o700 | fs.ModeSetgid, 0, group, config.Drop{Mode: 0o440}, "members of group 54322", "chmod g+rx DIR" + left},
		"another user's folder":        {0o700, 7, 7, config.Drop{Mode: 0o440, GID: ptr(group)}, "members of group 54322", "chmod o+x DIR"},
		"others":                       {0o750, 0, 0, config.Drop{Mode: 0o444}, "other users", "chmod o+rx DIR" + left},
		"a user":                       {0o700, 0, 0, config.Drop{Mode: 0o400, UID: ptr(user)}, "user 54321", "chown 54321 DIR" + left},
		"the user's folder":            {0o700, user, 0, config.Drop{Mode: 0o400, UID: ptr(user)}, "", ""},
		"the user's, but closed":       {0o600, user, 0, config.Drop{Mode: 0o400, UID: ptr(user)}, "user 54321", "chmod u+rx DIR"},
		"the user is in the group":     {0o750, 0, group, config.Drop{Mode: 0o400, UID: ptr(user), GID: ptr(group)}, "", ""},
		"a user, another's folder":     {0o750, 7, 7, config.Drop{Mode: 0o400, UID: ptr(user)}, "user 54321", "chmod o+x DIR"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, below := range []string{"", "/new/er"} { // Missing folders are made with the right mode.
				if tc.mode&fs.ModeSetgid != 0 && below != "" {
					continue
				}
				dir := filepath.Join(openFolder(t), "folder")
				require.NoError(t, os.Mkdir(dir, 0o700))
				require.NoError(t, os.Chown(dir, tc.uid, tc.gid))
				require.NoError(t, os.Chmod(dir, tc.mode))
				tc.drop.Destination, tc.drop.CreateDirs = dir+below+"/f", true
				found := destinationsOf(tc.drop)
				if tc.who == "" {
					assert.Empty(t, found)
					continue
				}
				require.Len(t, found, 1)
				assert.Equal(t, "folder", found[0].Name)
				assert.Equal(t, Warning, found[0].Status)
				assert.Equal(t, dir, found[0].Subject)
				assert.Equal(t, fmt.Sprintf("%s cannot enter it (mode %04o, owner %d:%d), and so not read %s, which is for them (%04o)",
					tc.who, tc.mode.Perm(), tc.uid, tc.gid, tc.drop.Destination, tc.drop.Mode), found[0].Detail)
				want := strings.ReplaceAll(tc.fix, "DIR", dir)
				if below != "" { // It is on the way only, and given to no user.
					want = strings.NewReplacer("chown 54321", "chmod o+x", "g+rx", "g+x", "o+rx", "o+x", "u+rx", "u+x").Replace(want)
				}
				assert.Equal(t, want, found[0].Fix)
			}
		})
	}
}

func TestDestinations_JudgeAMissingFolderByWhatIsMade(t *testing.T) {
	dir := openFolder(t)
	file := config.Drop{Destination: dir + "/new/f", Mode: 0o444, CreateDirs: true}
	assert.Empty(t, destinationsOf(file))
	file.DirMode = 0o700
	found := destinationsOf(file)
	require.Len(t, found, 1)
	assert.Equal(t, dir+"/new", found[0].Subject)
	assert.Contains(t, found[0].Detail, "as it will be made, other users cannot enter it (mode 0700")
	assert.Equal(t, `take dir_perms out, or write dir_perms = "0755"`, found[0].Fix)

	file.DirMode, file.CreateDirs = 0, false
	found = destinationsOf(file)
	assert.Contains(t, found[0].Fix, "mkdir -m 0755 -p "+dir+"/new")
}

func TestDestinations_FollowLinksAndTellOfEachFolderOnce(t *testing.T) {
	base := openFolder(t)
	require.NoError(t, os.MkdirAll(base+"/closed/real", 0o700))
	require.NoError(t, os.Chmod(base+"/closed/real", 0o755))
	require.NoError(t, os.Symlink("closed/real", base+"/link"))
	found := destinationsOf(
		config.Drop{Destination: base + "/link/f", Mode: 0o444},
		config.Drop{Destination: base + "/closed/real/g", Mode: 0o444},
	)
	require.Len(t, found, 1, "%+v", found)
	assert.Equal(t, base+"/closed", found[0].Subject)
}

func TestDestinations_GiveNobodyAFolderOfTheSystem(t *testing.T) {
	if info, err := os.Stat("/root"); err != nil || info.Mode().Perm()&0o001 != 0 || os.Geteuid() != 0 {
		t.Skip("there is no closed /root here that could be looked into")
	}
	found := destinationsOf(config.Drop{Destination: "/root/deaddrop-test/f", Mode: 0o444, CreateDirs: true})
	require.Len(t, found, 1)
	assert.Equal(t, "write to another folder, such as /run/deaddrop", found[0].Fix)
}

func TestCredentials_WarnOfFilesThatAllMayReadAndReach(t *testing.T) {
	dir := openFolder(t)
	file := filepath.Join(dir, "secret_id")
	require.NoError(t, os.WriteFile(file, []byte("id"), 0o600))
	for _, c := range []struct {
		file, folder fs.FileMode
		want         bool
	}{{0o444, 0o755, true}, {0o444, 0o700, false}, {0o444, 0o750, false}, {0o440, 0o755, false}} {
		require.NoError(t, os.Chmod(file, c.file))
		require.NoError(t, os.Chmod(dir, c.folder))
		assert.Equal(t, c.want, othersMayRead(file), "%04o in %04o", c.file, c.folder)
	}
	denied := &textfile.AccessError{Hint: "chown 1 " + file}
	assert.Contains(t, letRead("/run/secrets/secret_id", denied), "chmod 0444")
	assert.Equal(t, denied.Hint, letRead(file, denied))
}
