package config

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/render/drop"
)

func TestDirPerms_IsReadAndPrinted(t *testing.T) {
	folder(t)
	cfg, err := load(t, login+`
drop "a" {
  secret      = "secret/a"
  destination = "out/a/a.json"
  dir_perms   = "0711"
}
template {
  source      = "good.ctmpl"
  destination = "out/b/b.conf"
  dir_perms   = "0750"
}
set "s" {
  destination = "out/s"
  dir_perms   = "0755"
  drop "c" {
    secret      = "secret/c"
    destination = "c.json"
  }
}
drop "each" {
  for_each    = "secret/tenant/*"
  secret      = "secret/tenant/${each.key}/d"
  destination = "out/each/${each.key}/d.json"
  dir_perms   = "0751"
}
drop "derived" {
  secret      = "secret/e"
  destination = "out/e/e.json"
}
`)
	require.NoError(t, err)
	again, err := load(t, cfg.String())
	require.NoError(t, err, cfg.String())
	for _, c := range []*Config{cfg, again} {
		var modes []fs.FileMode
		for _, d := range c.Drops {
			modes = append(modes, d.DirMode)
		}
		each, err := Expand(c.Each[0], "demo")
		require.NoError(t, err)
		assert.Equal(t, []fs.FileMode{0o750, 0o711, 0, 0o755, 0o751}, append(modes, each[0].DirMode))
	}
}

func TestDirPerms_IsRefusedWithWhatWasMeant(t *testing.T) {
	folder(t)
	for value, want := range map[string]string{
		`"rwx"`:  `dir_perms "rwx" is not a file mode; write one such as "0700" or "0750"`,
		`"1755"`: `dir_perms "1755" is not a file mode`,
		`"0777"`: `dir_perms "0777" lets every user of this machine put other files in place of these; write "0775"`,
		`"0703"`: `dir_perms "0703" lets every user of this machine put other files in place of these; write "0701"`,
		`"0055"`: `dir_perms "0055" shuts out the folder's owner; write "0755"`,
		`"0600"`: `dir_perms "0600" shuts out the folder's owner; write "0700"`,
		`"0"`:    `dir_perms "0" shuts out the folder's owner; write "0700"`,
	} {
		for _, block := range []string{
			"drop \"n\" {\n  secret = \"secret/a\"\n  destination = \"n\"\n  dir_perms = " + value + "\n}",
			"set \"n\" {\n  destination = \"n\"\n  dir_perms = " + value + "\n  drop \"m\" {\n    secret = \"secret/a\"\n    destination = \"m\"\n  }\n}",
		} {
			_, err := load(t, login+block)
			require.ErrorContains(t, err, want)
		}
	}
	_, err := load(t, login+"set \"n\" {\n  destination = \"n\"\n  drop \"m\" {\n    secret = \"secret/a\"\n    destination = \"m\"\n    dir_perms = \"0750\"\n  }\n}")
	require.ErrorContains(t, err, "deaddrop.hcl:11:17: dir_perms cannot be in a set, whose folder is for all its files: write it into the set block")
}

func TestStrict_RefusesDirPermsThatLetTheGroupWrite(t *testing.T) {
	folder(t)
	const problem = `dir_perms 0770 lets others write to the folder, which strict = true refuses; write dir_perms = "0750"`
	const drop = "drop \"n\" {\n  secret = \"secret/a\"\n  destination = \"n\"\n"
	_, err := load(t, login+drop+"  dir_perms = \"0770\"\n  strict = true\n}")
	require.ErrorContains(t, err, "deaddrop.hcl:9:15: "+problem)
	_, err = load(t, login+"strict = true\n"+drop+"  dir_perms = \"0770\"\n}")
	require.ErrorContains(t, err, problem)
	_, err = load(t, login+"set \"s\" {\n  destination = \"s\"\n  dir_perms = \"0770\"\n"+drop+"  strict = true\n}\n}")
	require.ErrorContains(t, err, problem)
	cfg, err := load(t, login+"strict = true\n"+drop+"  dir_perms = \"0770\"\n  strict = false\n}")
	require.NoError(t, err)
	assert.False(t, cfg.Drops[0].File().Strict)
	cfg, err = load(t, login+drop+"  dir_perms = \"0750\"\n  strict = true\n}")
	require.NoError(t, err)
	assert.True(t, cfg.Drops[0].File().Strict)
}

func TestSet_MakesNoFolderWhereCreateDestDirsIsFalse(t *testing.T) {
	folder(t)
	cfg, err := load(t, login+"set \"n\" {\n  destination = \"n\"\n  create_dest_dirs = false\n  drop \"m\" {\n    secret = \"secret/a\"\n    destination = \"m\"\n  }\n}")
	require.NoError(t, err)
	assert.False(t, cfg.Drops[0].CreateDirs)
	again, err := load(t, cfg.String())
	require.NoError(t, err)
	assert.False(t, again.Drops[0].Set.CreateDirs)
}

func TestFolders_LetInTheReadersOfAllFiles(t *testing.T) {
	folder(t)
	for name, tc := range map[string]struct {
		text string
		want map[string]fs.FileMode
	}{
		"several drops": {
			"drop \"a\" {\n  secret = \"s/a\"\n  destination = \"out/a\"\n}\ndrop \"b\" {\n  secret = \"s/a\"\n  destination = \"out/b/b\"\n  perms = \"0440\"\n}",
			map[string]fs.FileMode{"out": 0o750, "out/b": 0o750, "out/c": 0o700},
		},
		"a set": {
			"set \"s\" {\n  destination = \"out/s\"\n  drop \"a\" {\n    secret = \"s/a\"\n    destination = \"a\"\n    perms = \"0444\"\n  }\n  drop \"b\" {\n    secret = \"s/a\"\n    destination = \"b\"\n  }\n}",
			map[string]fs.FileMode{"out": 0o755, "out/s": 0o755},
		},
		"tenants of a folder": {
			"drop \"a\" {\n  for_each = \"secret/tenant/*\"\n  secret = \"s/${each.key}\"\n  destination = \"out/${each.key}/a\"\n  perms = \"0440\"\n}",
			map[string]fs.FileMode{"out": 0o750},
		},
		"tenants with groups of their own": {
			"drop \"a\" {\n  for_each = \"secret/tenant/*\"\n  secret = \"s/${each.key}\"\n  destination = \"out/${each.key}/a\"\n  perms = \"0440\"\n  group = each.key\n}",
			map[string]fs.FileMode{"out": 0o751},
		},
		"listed tenants with groups of their own": {
			"drop \"a\" {\n  for_each = [\"7\", \"8\"]\n  secret = \"s/${each.key}\"\n  destination = \"out/${each.key}/a\"\n  perms = \"0440\"\n  group = each.key\n}",
			map[string]fs.FileMode{"out": 0o751, "out/7": 0o750},
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := load(t, login+tc.text)
			require.NoError(t, err)
			for path, want := range tc.want {
				assert.Equal(t, want, cfg.Folders().Folder(path).Mode, path)
			}
		})
	}
}

func TestFolders_LetInTheReadersOfTokensSocketsAndTheProcessID(t *testing.T) {
	cfg := &Config{
		Sinks:     []Sink{{Path: "/out/token/t", Mode: 0o640}},
		Listeners: []Listener{{Network: "unix", Address: "/out/socket/s", Mode: 0o660}, {Network: "tcp", Address: "127.0.0.1:1"}},
		PIDFile:   "/out/pid/p",
	}
	for path, want := range map[string]fs.FileMode{"/out/token": 0o750, "/out/socket": 0o750, "/out/pid": 0o755, "/out": 0o755} {
		assert.Equal(t, want, cfg.Folders().Folder(path).Mode, path)
	}
}

func TestFolders_AreMadeOfTheFileOfTheDrop(t *testing.T) {
	folder(t)
	cfg, err := load(t, login+"drop \"a\" {\n  secret = \"s/a\"\n  destination = \"out/a\"\n  perms = \"0440\"\n  group = \"8\"\n  dir_perms = \"0710\"\n}")
	require.NoError(t, err)
	gid := 8
	file := cfg.Drops[0].File()
	assert.Equal(t, drop.File{Path: "out/a", Mode: 0o440, GID: &gid, CreateDirs: true, DirMode: 0o710}, file)
	if os.Geteuid() != 0 {
		t.Skip("only root can give folders away")
	}
	require.NoError(t, cfg.Folders().Write([]drop.File{file})[0].Err)
	info, err := os.Stat(filepath.Dir(file.Path))
	require.NoError(t, err)
	_, group := drop.OwnerOf(info)
	assert.Equal(t, fs.FileMode(0o710), info.Mode().Perm())
	assert.Equal(t, 8, group)
}
