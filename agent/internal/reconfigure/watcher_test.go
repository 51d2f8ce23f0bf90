package reconfigure

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// realDir is a temporary folder, without links in its path.
func realDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	return dir
}

func TestEntries_AreTheLinksOnAPathAndItsFile(t *testing.T) {
	dir := realDir(t)
	path := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(path(name)), 0o700))
		require.NoError(t, os.WriteFile(path(name), nil, 0o600))
	}
	write("mount/..2026/x.hcl")
	require.NoError(t, os.Symlink("..2026", path("mount/..data")))
	require.NoError(t, os.Symlink("..data/x.hcl", path("mount/x.hcl")))
	write("releases/42/y.ctmpl")
	require.NoError(t, os.Symlink(path("releases/42"), path("current")))
	write("conf.d/z.json")
	require.NoError(t, os.Symlink("loop", path("loop")))
	for name, test := range map[string]struct {
		file    string
		folders []string
		names   []string
	}{
		"Kubernetes":      {"mount/x.hcl", []string{"mount", "mount/..2026"}, []string{"x.hcl", "..data", "mount", "..2026"}},
		"link to folder":  {"current/y.ctmpl", []string{"", "releases/42"}, []string{"current", "y.ctmpl", filepath.Base(dir), "42"}},
		"folder":          {"conf.d", []string{"", "conf.d"}, []string{"conf.d", filepath.Base(dir)}},
		"missing file":    {"conf.d/none", []string{"conf.d"}, []string{"none", "conf.d"}},
		"missing folder":  {"none/none/x", []string{""}, []string{"none", filepath.Base(dir)}},
		"parent folder":   {"conf.d/../releases/42/y.ctmpl", []string{"releases/42"}, []string{"y.ctmpl", "42"}},
		"link to itself":  {"loop", []string{""}, []string{"loop", filepath.Base(dir)}},
		"below its file":  {"conf.d/z.json/x", []string{"conf.d/z.json"}, []string{"x", "z.json"}},
		"dangling parent": {"loop/x", []string{""}, []string{"loop", filepath.Base(dir)}},
	} {
		t.Run(name, func(t *testing.T) {
			e := entriesOf([]string{path(test.file)})
			folders, names := map[string]bool{}, map[string]bool{}
			for _, folder := range test.folders {
				folders[path(folder)] = true
			}
			for _, name := range test.names {
				names[name] = true
			}
			assert.Equal(t, folders, e.folders)
			assert.Equal(t, names, e.names)
			assert.Equal(t, name == "folder", e.hasFolder)
		})
	}
}

func TestWatcher_ConcernsNamesThatMayBeOfItsFiles(t *testing.T) {
	w := &watcher{entries: entriesOf([]string{filepath.Join(realDir(t), "x.hcl")})}
	assert.True(t, w.concerns(fsnotify.Event{Name: "./x.hcl"}))
	assert.False(t, w.concerns(fsnotify.Event{Name: "/etc/y.hcl"}))
	w.entries = entriesOf([]string{realDir(t)})
	for name, want := range map[string]bool{"y.hcl": true, "y.json": true, "y.hcl~": false, ".y.hcl.swp": false, "log": false} {
		assert.Equal(t, want, w.concerns(fsnotify.Event{Name: "/etc/" + name}), name)
	}
}

// This is the one test with events of the operating system.
func TestWatcher_IsNotifiedOfReplacedFilesAndLinks(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, dir string){
		"written": func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "mount/1/x.hcl"), []byte("new"), 0o600))
		},
		"replaced": func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "new"), []byte("new"), 0o600))
			require.NoError(t, os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "mount/1/x.hcl")))
		},
		"link": func(t *testing.T, dir string) {
			require.NoError(t, os.Symlink("2", filepath.Join(dir, "mount/..tmp")))
			require.NoError(t, os.Rename(filepath.Join(dir, "mount/..tmp"), filepath.Join(dir, "mount/..data")))
		},
		"folder": func(t *testing.T, dir string) {
			require.NoError(t, os.Rename(filepath.Join(dir, "mount"), filepath.Join(dir, "away")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := realDir(t)
			for _, folder := range []string{"mount/1", "mount/2"} {
				require.NoError(t, os.MkdirAll(filepath.Join(dir, folder), 0o700))
				require.NoError(t, os.WriteFile(filepath.Join(dir, folder, "x.hcl"), nil, 0o600))
			}
			require.NoError(t, os.Symlink("1", filepath.Join(dir, "mount/..data")))
			require.NoError(t, os.Symlink("..data/x.hcl", filepath.Join(dir, "mount/x.hcl")))
			w := newWatcher(newNotifier, slog.New(slog.DiscardHandler))
			defer w.close()
			w.follow([]string{filepath.Join(dir, "mount/x.hcl")})
			require.Nil(t, w.ticks())
			change(t, dir)
			deadline := time.After(time.Minute)
			for {
				select {
				case event := <-w.events():
					if w.concerns(event) {
						return
					}
				case <-deadline:
					require.Fail(t, "there is no event")
				}
			}
		})
	}
}

func TestWatcher_LeavesFoldersThatItsFilesAreNotInAnyMore(t *testing.T) {
	dir, other := realDir(t), realDir(t)
	n := newFakeNotifier()
	w := newWatcher(func() (Notifier, error) { return n, nil }, slog.New(slog.DiscardHandler))
	w.follow([]string{filepath.Join(dir, "x.hcl"), filepath.Join(other, "x.ctmpl")})
	assert.Equal(t, map[string]bool{dir: true, other: true}, n.folders)
	w.follow([]string{filepath.Join(dir, "x.hcl")})
	assert.Equal(t, map[string]bool{dir: true}, n.folders)
}
