package drop

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func opens(t *testing.T, path, want string) {
	t.Helper()
	root, err := OpenFolder(path)
	require.NoError(t, err, path)
	defer func() { _ = root.Close() }()
	got, err := root.Stat(".")
	require.NoError(t, err)
	expected, err := os.Stat(want)
	require.NoError(t, err)
	assert.True(t, os.SameFile(expected, got), path)
}

func refuses(t *testing.T, path, link string) {
	t.Helper()
	_, err := OpenFolder(path)
	require.ErrorIs(t, err, ErrRefused, path)
	require.EqualError(t, err, link+" is a symbolic link that others may have made: refused; write the path that it leads to")
}

func TestOpenFolder_FollowsLinksOfTheAgentInFoldersOfTheAgent(t *testing.T) {
	dir := realTempDir(t)
	real := filepath.Join(dir, "real/deeper")
	require.NoError(t, os.MkdirAll(real, 0o755))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "sticky"), 0o755))
	require.NoError(t, os.Chmod(filepath.Join(dir, "sticky"), 0o777|fs.ModeSticky))
	links := map[string]string{
		"relative":        "real",
		"absolute":        filepath.Join(dir, "real"),
		"chain":           "./relative",
		"real/up":         "../real/../chain",
		"sticky/absolute": filepath.Join(dir, "real/up"),
	}
	for name, target := range links {
		require.NoError(t, os.Symlink(target, filepath.Join(dir, name)))
	}
	for name := range links {
		opens(t, filepath.Join(dir, name), filepath.Dir(real))
		opens(t, filepath.Join(dir, name, "deeper"), real)
	}
	t.Chdir(dir)
	opens(t, "chain/deeper", real)
	opens(t, ".", dir)
	opens(t, "/", "/")
	f := File{Path: filepath.Join(dir, "chain/new/x.env"), Content: []byte("A=1\n"), Mode: 0o600, CreateDirs: true}
	assert.Equal(t, Created, write(t, f).Outcome)
	assert.FileExists(t, filepath.Join(dir, "real/new/x.env"))
	removed, err := Remove(f.Path)
	require.NoError(t, err)
	assert.True(t, removed)

	require.NoError(t, os.Symlink("loop", filepath.Join(dir, "loop")))
	_, err = OpenFolder(filepath.Join(dir, "loop/x"))
	require.ErrorIs(t, err, syscall.ELOOP)
	require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "dangling")))
	_, err = OpenFolder(filepath.Join(dir, "dangling/x"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	_, err = OpenFolder(filepath.Join(dir, "file"))
	require.EqualError(t, err, filepath.Join(dir, "file")+": not a directory")
}

func TestOpenFolder_RefusesLinksThatOthersMayHaveMade(t *testing.T) {
	asRoot(t)
	dir := realTempDir(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, mode := range map[string]fs.FileMode{
		"victim": 0o755, "theirs": 0o755, "theirs/real": 0o755, "group": 0o775, "all": 0o777, "sticky": 0o777 | fs.ModeSticky, "own": 0o755, "all/own": 0o755, "sticky/theirs": 0o755,
	} {
		require.NoError(t, os.MkdirAll(at(name), 0o755))
		require.NoError(t, os.Chmod(at(name), mode))
	}
	for _, name := range []string{"theirs", "sticky/theirs"} {
		require.NoError(t, os.Chown(at(name), stranger, stranger))
	}
	for _, name := range []string{"theirs/link", "theirs/real/link", "group/link", "all/link", "all/own/link", "own/link", "sticky/link", "sticky/theirs/link"} {
		require.NoError(t, os.Symlink(at("victim"), at(name)))
		if name == "own/link" || name == "sticky/link" {
			require.NoError(t, os.Lchown(at(name), stranger, stranger))
		}
		refuses(t, at(name), at(name))
		refuses(t, at(name)+"/more", at(name))
	}
	for _, name := range []string{"theirs/real", "group", "all/own", "sticky/theirs"} {
		opens(t, at(name), at(name))
	}

	require.NoError(t, os.Symlink("theirs/link", at("leads there")))
	refuses(t, at("leads there"), at("theirs/link"))
	require.NoError(t, os.Symlink("theirs/real", at("leads to a real one")))
	opens(t, at("leads to a real one"), at("theirs/real"))
	require.NoError(t, os.Symlink("theirs/real/../../victim", at("and back")))
	_, err := OpenFolder(at("and back"))
	require.ErrorIs(t, err, ErrRefused)
}

func TestWrite_FollowsNoLinkOfOthersWithoutAPlace(t *testing.T) {
	eachAttack(t, func(t *testing.T, p platform, victim string) {
		left := filepath.Join(victim, tempName("x.env"))
		require.NoError(t, os.WriteFile(left, []byte("half"), 0o600))
		age(t, left)
		stage(t, setOf(victim, "s.env", "A=1"))

		f := File{Path: filepath.Join(p.conf, "x.env"), Content: []byte("A=evil\n"), Mode: 0o600, UID: ptr(stranger), CreateDirs: true}
		require.Error(t, Write([]File{f})[0].Err)
		f.InPlace = true
		require.Error(t, Write([]File{f})[0].Err)
		f.Path = filepath.Join(p.conf, "more/x.env")
		require.Error(t, Write([]File{f})[0].Err)
		require.Error(t, new(Plan).Make(filepath.Join(p.conf, "more")))
		require.Error(t, errOf(Stage([]Unit{setOf(p.conf, "s.env", "A=evil")}).Commit()))
		_, err := Remove(filepath.Join(p.conf, "x.env"))
		require.Error(t, err)
		require.Error(t, RemoveSet(p.conf))
		_, err = Clean(p.conf, time.Now())
		require.Error(t, err)

		content, err := os.ReadFile(filepath.Join(victim, "x.env"))
		require.NoError(t, err)
		assert.Equal(t, "A=1\n", string(content))
		content, err = os.ReadFile(filepath.Join(victim, "s.env"))
		require.NoError(t, err)
		assert.Equal(t, "A=1", string(content))
		info, err := os.Stat(filepath.Join(victim, "x.env"))
		require.NoError(t, err)
		uid, _ := OwnerOf(info)
		assert.Equal(t, 0, uid)
		assert.FileExists(t, left)
		assert.NoDirExists(t, filepath.Join(victim, "more"))
	})
}

// The stranger exchanges a folder and a link all the time, so that the agent sees a folder
// and then opens a link sooner or later.
func TestOpenFolder_LeadsNowhereElseWhereAFolderIsReplacedMeanwhile(t *testing.T) {
	p := newPlatform(t)
	other := p.conf + ".link"
	asStranger(t, func() error { return os.Symlink(p.outside, other) })
	stop := exchangeAsStranger(t, p.conf, other)
	defer stop()
	outside, err := os.Stat(p.outside)
	require.NoError(t, err)
	for range 10000 {
		root, err := OpenFolder(p.conf)
		if err != nil {
			continue
		}
		got, err := root.Stat(".")
		require.NoError(t, err)
		require.False(t, os.SameFile(outside, got))
		_ = root.Close()
	}
}
