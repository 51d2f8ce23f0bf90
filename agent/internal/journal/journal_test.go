package journal

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const another = 65534 // a user id

// open returns a store in the state directory, or beside the outputs if that is "".
func open(t *testing.T, state string) (*Store, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	return Open(state, ErrNoDirectory, slog.New(slog.NewTextHandler(&log, nil))), &log
}

func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can make files of others")
	}
}

func journals(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		require.NoError(t, err)
	}
	var paths []string
	for _, e := range entries {
		paths = append(paths, filepath.Join(dir, e.Name()))
	}
	return paths
}

func TestStore_KeepsOutputsInTheStateDirectory(t *testing.T) {
	dir := t.TempDir()
	state, destination := filepath.Join(dir, "state"), filepath.Join(dir, "out/db.env")
	s, log := open(t, state)
	o := Output{
		Destination: destination, Leases: []string{"database/creds/app/1"}, Contents: []string{Sum([]byte("x"))}, PendingReload: true,
		Certificates: []Certificate{{Request: "00", Serial: "a1", Issued: time.Unix(1, 0).UTC()}},
	}
	assert.Equal(t, Output{Destination: destination}, s.Output(destination))
	s.SaveOutputs(o)
	assert.Equal(t, o, s.Output(destination))

	all := journals(t, state)
	require.Len(t, all, 1)
	assert.Regexp(t, `/db\.env-[0-9a-f]{24}\.json$`, all[0])
	for path, mode := range map[string]fs.FileMode{all[0]: 0o600, state: 0o700} {
		info, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, mode, info.Mode().Perm(), path)
	}

	s.SaveOutputs(Output{Destination: destination})
	assert.Empty(t, journals(t, state), "an empty journal is none")
	s.SaveOutputs(Output{Destination: destination})
	assert.Empty(t, log.String())
}

func TestStore_TellsOutputsOfTheSameNameApart(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, filepath.Join(dir, "state"))
	a := Output{Destination: "/a/db.env", PendingReload: true}
	b := Output{Destination: "/b/db.env", Leases: []string{"x/1"}}
	s.SaveOutputs(a, b)
	assert.Equal(t, a, s.Output("/a/db.env"))
	assert.Equal(t, b, s.Output("/b/db.env"))
	s.RemoveOutput("/a/db.env")
	assert.True(t, s.Output("/a/db.env").IsEmpty())
	assert.Equal(t, b, s.Output("/b/db.env"))

	long := "/" + strings.Repeat("é", 120) + ".env"
	s.SaveOutputs(Output{Destination: long, PendingReload: true})
	assert.True(t, s.Output(long).PendingReload)
}

func TestStore_KeepsTenants(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, filepath.Join(dir, "state"))
	tenants := Tenants{
		Pattern: "/out/*.env", Present: []string{"a"}, Departed: map[string]time.Time{"b": time.Unix(1, 0).UTC()},
		SideFiles: map[string][]string{"a": {"/out/a.key"}}, PendingReloads: []string{"c"},
	}
	_, ok := s.Tenants(tenants.Pattern, "/out")
	assert.False(t, ok)
	s.SaveTenants("/out", tenants)
	kept, ok := s.Tenants(tenants.Pattern, "/out")
	assert.True(t, ok)
	assert.Equal(t, tenants, kept)
	_, ok = s.Tenants("/out/*.json", "/out")
	assert.False(t, ok)
}

func TestOutput_UnionJoinsWithoutDuplicates(t *testing.T) {
	o := Output{Leases: []string{"a/1"}, Contents: []string{"x"}, Certificates: []Certificate{{Serial: "a1"}}}
	joined := o.Union(Output{Leases: []string{"a/2", "a/1"}, Contents: []string{"y", "x"}, Certificates: o.Certificates, PendingReload: true})
	assert.Equal(t, Output{Leases: []string{"a/1", "a/2"}, Contents: []string{"x", "y"}, Certificates: o.Certificates, PendingReload: true}, joined)
}

func TestStore_KeepsAJournalBesideItsFileOnlyInADirectoryOfTheAgent(t *testing.T) {
	dir := t.TempDir()
	destination := filepath.Join(dir, "db.env")
	o := Output{Destination: destination, Leases: []string{"database/creds/app/1"}}
	s, log := open(t, "")
	s.SaveOutputs(o)
	assert.FileExists(t, filepath.Join(dir, ".db.env.deaddrop"))
	assert.Equal(t, o, s.Output(destination))
	assert.Empty(t, log.String())

	for name, open0 := range map[string]func(folder string) error{
		"others may write":               func(folder string) error { return os.Chmod(folder, 0o777) },
		"a group may write":              func(folder string) error { return os.Chmod(folder, 0o770) },
		"of another user":                func(folder string) error { return os.Chown(folder, another, -1) },
		"in a directory of another user": func(folder string) error { return os.Chown(filepath.Dir(folder), another, -1) },
	} {
		t.Run(name, func(t *testing.T) {
			asRoot(t)
			folder := filepath.Join(t.TempDir(), "of/service")
			require.NoError(t, os.MkdirAll(folder, 0o700))
			require.NoError(t, open0(folder))
			destination := filepath.Join(folder, "db.env")
			s, log := open(t, "")
			s.SaveOutputs(Output{Destination: destination, Leases: o.Leases})
			s.SaveOutputs(Output{Destination: destination, Leases: o.Leases})
			assert.Empty(t, journals(t, folder))
			assert.True(t, s.Output(destination).IsEmpty())
			assert.Equal(t, 1, strings.Count(log.String(), "nothing is kept for the next start"), "it is said once")
			assert.Contains(t, log.String(), "set state_dir")
		})
	}
}

func TestStore_BelievesOnlyWhatTheAgentAloneCanHaveWritten(t *testing.T) {
	forged := []byte(`{"leases": ["auth/approle/login/victim"], "pending_reload": true}`)
	for name, plant := range map[string]func(t *testing.T, path string){
		"of another user": func(t *testing.T, path string) {
			asRoot(t)
			require.NoError(t, os.WriteFile(path, forged, 0o600))
			require.NoError(t, os.Chown(path, another, -1))
		},
		"writable by others": func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path, forged, 0o600))
			require.NoError(t, os.Chmod(path, 0o602))
		},
		"writable by its group": func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path, forged, 0o600))
			require.NoError(t, os.Chmod(path, 0o620))
		},
		"a link": func(t *testing.T, path string) {
			target := filepath.Join(filepath.Dir(path), "target")
			require.NoError(t, os.WriteFile(target, forged, 0o600))
			require.NoError(t, os.Symlink("target", path))
		},
		"a FIFO":   func(t *testing.T, path string) { require.NoError(t, syscall.Mkfifo(path, 0o600)) },
		"a device": func(t *testing.T, path string) { require.NoError(t, os.Symlink("/dev/zero", path)) },
		"a giant": func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path, nil, 0o600))
			require.NoError(t, os.Truncate(path, 1<<40))
		},
		"broken": func(t *testing.T, path string) { require.NoError(t, os.WriteFile(path, forged[:20], 0o600)) },
		"of another output": func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path, []byte(`{"destination": "/other", "leases": ["a/1"]}`), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			destination := filepath.Join(dir, "out/db.env")
			s, log := open(t, filepath.Join(dir, "state"))
			s.SaveOutputs(Output{Destination: destination, PendingReload: true})
			path := journals(t, filepath.Join(dir, "state"))[0]
			require.NoError(t, os.Remove(path))
			plant(t, path)
			assert.True(t, s.Output(destination).IsEmpty())
			if name != "of another output" {
				assert.Contains(t, log.String(), "journal ignored")
			}
		})
	}
}

func TestStore_DoesNotBelieveAnOldJournalInAFolderOfOthers(t *testing.T) {
	asRoot(t)
	for name, tc := range map[string]struct {
		mode     fs.FileMode
		owner    int
		believed bool
	}{
		"the folder is the agent's": {0o755, 0, true},
		"others may write":          {0o777, 0, false},
		"of the service":            {0o700, another, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			folder := filepath.Join(dir, "out")
			require.NoError(t, os.Mkdir(folder, 0o700))
			old := filepath.Join(folder, ".db.env.deaddrop")
			require.NoError(t, os.WriteFile(old, []byte(`{"leases": ["database/creds/app/1"], "untold": true}`), 0o600))
			oldTenants := filepath.Join(folder, ".each+"+Sum([]byte(folder + "/*.env"))[:12]+".deaddrop")
			require.NoError(t, os.WriteFile(oldTenants, []byte(`{"pattern": "`+folder+`/*.env", "present": ["a"], "gone": {"b": "2020-01-01T00:00:00Z"}, "sides": {"a": ["/x"]}, "untold": ["c"]}`), 0o600))
			require.NoError(t, os.Chown(folder, tc.owner, -1))
			require.NoError(t, os.Chmod(folder, tc.mode))

			s, log := open(t, filepath.Join(dir, "state"))
			destination := filepath.Join(folder, "db.env")
			o := s.Output(destination)
			tenants, ok := s.Tenants(folder+"/*.env", folder)
			assert.Equal(t, tc.believed, ok)
			if !tc.believed {
				assert.True(t, o.IsEmpty())
				assert.Contains(t, log.String(), "somebody else may have written it")
				assert.NoFileExists(t, old, "it is not looked at again")
				return
			}
			assert.Equal(t, Output{Destination: destination, Leases: []string{"database/creds/app/1"}, PendingReload: true}, o)
			assert.Equal(t, Tenants{
				Pattern: folder + "/*.env", Present: []string{"a"}, Departed: map[string]time.Time{"b": time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)},
				SideFiles: map[string][]string{"a": {"/x"}}, PendingReloads: []string{"c"},
			}, tenants)
			s.SaveOutputs(o)
			s.SaveTenants(folder, tenants)
			assert.NoFileExists(t, old, "it is in the state directory now")
			assert.NoFileExists(t, oldTenants)
			assert.Equal(t, o, s.Output(destination))
		})
	}
}

func TestStore_ThatIsReadOnlyRemovesNothing(t *testing.T) {
	asRoot(t)
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o777))
	old := filepath.Join(dir, ".db.env.deaddrop")
	require.NoError(t, os.WriteFile(old, []byte(`{"leases": ["a/1"]}`), 0o600))
	s, _ := open(t, "")
	s.ReadOnly = true
	assert.True(t, s.Output(filepath.Join(dir, "db.env")).IsEmpty())
	assert.FileExists(t, old)
}

func TestDirectory_IsTheFirstThatTheAgentAloneCanWriteTo(t *testing.T) {
	home := t.TempDir()
	t.Setenv("STATE_DIRECTORY", "/run/one:/run/two")
	got, err := Directory("/run/mine")
	require.NoError(t, err)
	assert.Equal(t, "/run/mine", got)
	got, err = Directory("")
	require.NoError(t, err)
	assert.Equal(t, "/run/one", got)

	t.Setenv("STATE_DIRECTORY", "")
	t.Setenv("XDG_STATE_HOME", home)
	got, err = Directory("")
	require.NoError(t, err)
	assert.Contains(t, []string{SystemDirectory, filepath.Join(home, "deaddrop")}, got)
	assert.Equal(t, []string{SystemDirectory, filepath.Join(home, "deaddrop")}, defaults())
	t.Setenv("XDG_STATE_HOME", "relative")
	t.Setenv("HOME", home)
	assert.Equal(t, []string{SystemDirectory, filepath.Join(home, ".local/state/deaddrop")}, defaults())
	assert.NoDirExists(t, filepath.Join(home, ".local"), "it is made when there is something to keep")
}

func TestDirectory_IsRefusedIfSomebodyElseCouldWriteThere(t *testing.T) {
	asRoot(t)
	dir := t.TempDir()
	open := filepath.Join(dir, "open")
	require.NoError(t, os.Mkdir(open, 0o700))
	require.NoError(t, os.Chmod(open, 0o777))
	others := filepath.Join(dir, "others")
	require.NoError(t, os.Mkdir(others, 0o700))
	require.NoError(t, os.Chown(others, another, -1))
	for _, path := range []string{open, filepath.Join(open, "below/it"), others, filepath.Join(others, "new"), "relative", "/dev/null/none"} {
		_, err := Directory(path)
		require.ErrorContains(t, err, "state_dir: "+path, path)
		require.NotErrorIs(t, err, ErrNoDirectory)
	}

	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink("others", link))
	_, err := Directory(link)
	require.Error(t, err, "it leads to a directory of somebody else")
	require.NoError(t, os.Mkdir(filepath.Join(dir, "own"), 0o700))
	require.NoError(t, os.Remove(link))
	require.NoError(t, os.Symlink("own", link))
	_, err = Directory(link)
	require.NoError(t, err, "as for DynamicUser= of systemd")
}

func TestStore_SaysWhyAStateDirectoryCannotBeWritten(t *testing.T) {
	s, log := open(t, "/proc/none")
	s.SaveOutputs(Output{Destination: "/x/db.env", PendingReload: true})
	s.SaveOutputs(Output{Destination: "/x/db.env", PendingReload: true})
	assert.Equal(t, 1, strings.Count(log.String(), "journal cannot be written"))
}

func TestStore_ReportsWhatIsWorthAnotherTry(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	require.NoError(t, os.WriteFile(state, nil, 0o600))
	s, log := open(t, state)
	o := Output{Destination: "/x/db.env", Leases: []string{"a/1"}}
	tenants := Tenants{Pattern: "/x/*.env", Present: []string{"a"}}
	for range 2 {
		assert.False(t, s.SaveOutputs(o))
		assert.False(t, s.SaveTenants("/x", tenants))
	}
	assert.Equal(t, 2, strings.Count(log.String(), "journal cannot be written"), "once for each journal")
	require.NoError(t, os.Remove(state))
	assert.True(t, s.SaveOutputs(o))
	assert.True(t, s.SaveTenants("/x", tenants))
	assert.Equal(t, o, s.Output("/x/db.env"))
}

func TestStore_KeysTenantsByTheAbsolutePattern(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	s, _ := open(t, state)
	one, two := t.TempDir(), t.TempDir()
	t.Chdir(one)
	require.True(t, s.SaveTenants("out", Tenants{Pattern: "out/*.env", Present: []string{"a"}}))
	kept, ok := s.Tenants("out/*.env", "out")
	assert.True(t, ok)
	assert.Equal(t, Tenants{Pattern: "out/*.env", Present: []string{"a"}}, kept)
	t.Chdir(two)
	_, ok = s.Tenants("out/*.env", "out")
	assert.False(t, ok, "it is that of another agent")
}
