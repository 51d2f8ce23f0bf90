package publish

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/output"
	"github.com/smarteros/deaddrop/render/drop"
)

// recorder keeps what was recorded, and looks at the files at that time.
type recorder struct {
	changes []bool
	before  func()
}

func (r *recorder) Record(all []Staged) {
	if r.before != nil {
		r.before()
	}
	for _, staged := range all {
		r.changes = append(r.changes, staged.IsChange)
	}
}

// fixture is a publisher of files in a folder.
type fixture struct {
	*Publisher
	recorder *recorder
	dir      string
	log      *bytes.Buffer
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{recorder: &recorder{}, dir: t.TempDir(), log: &bytes.Buffer{}}
	f.Publisher = New(f.recorder, slog.New(slog.NewTextHandler(f.log, nil)))
	return f
}

func (f *fixture) path(name string) string { return filepath.Join(f.dir, name) }

// file is new content of one drop.
func (f *fixture) file(name, content string) output.RenderedFile {
	d := &config.Drop{Name: name, Destination: f.path(name), Mode: 0o600, OnTamper: config.RestoreFile}
	return output.RenderedFile{Drop: d, Content: []byte(content)}
}

func one(files ...output.RenderedFile) output.Rendered { return output.Rendered{Files: files} }

func (f *fixture) publish(t *testing.T, rendered ...output.Rendered) []Published {
	t.Helper()
	return f.Publish(t.Context(), rendered)
}

func (f *fixture) read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(f.path(name))
	require.NoError(t, err)
	return string(content)
}

func TestPublisher_WritesFilesInOneBatch(t *testing.T) {
	f := newFixture(t)
	a, b := one(f.file("a", "one")), one(f.file("b", "one"))
	published := f.publish(t, a, b)
	for i, p := range published {
		require.NoError(t, p.Err)
		assert.Equal(t, []drop.Outcome{drop.Created}, p.Outcomes)
		assert.Equal(t, "\x00\x00\x00", string([]output.Rendered{a, b}[i].Files[0].Content), "no content stays in memory")
	}
	published = f.publish(t, one(f.file("a", "one")), one(f.file("b", "two")))
	assert.Equal(t, []drop.Outcome{drop.Unchanged}, published[0].Outcomes)
	assert.Equal(t, []drop.Outcome{drop.Changed}, published[1].Outcomes)
	assert.Equal(t, []bool{true, true, false, true}, f.recorder.changes)
	assert.EqualValues(t, 3, f.Writes.Sum().Succeeded)
}

func TestPublisher_RecordsAChangeBeforeItIsMade(t *testing.T) {
	f := newFixture(t)
	f.publish(t, one(f.file("a", "one")))
	f.recorder.before = func() { assert.Equal(t, "one", f.read(t, "a")) }
	ran := f.path("ran")
	changed := f.file("a", "two")
	changed.Drop.Check = &config.Check{Args: []string{"touch", ran}, Timeout: time.Minute}
	f.recorder.before = func() {
		assert.Equal(t, "one", f.read(t, "a"))
		assert.NoFileExists(t, ran, "a check may use what was issued")
	}
	require.NoError(t, f.publish(t, one(changed))[0].Err)
	assert.FileExists(t, ran)
}

func TestPublisher_KeepsTheOldFileWhenACheckRefuses(t *testing.T) {
	f := newFixture(t)
	f.publish(t, one(f.file("a", "one")))
	bad := f.file("a", "two")
	bad.Drop.Check = &config.Check{Args: []string{"sh", "-c", "echo m4rker; grep -q one {{.Path}}"}, Timeout: time.Minute}
	published := f.publish(t, one(bad), one(f.file("b", "other")))
	require.ErrorContains(t, published[0].Err, "check refused new content: ")
	assert.NotContains(t, published[0].Err.Error(), "m4rker")
	assert.True(t, published[0].IsRefused())
	assert.Equal(t, "one", f.read(t, "a"))
	require.NoError(t, published[1].Err)
	assert.Equal(t, "other", f.read(t, "b"))
	assert.EqualValues(t, 1, f.Checks.Sum().Failed)
	assert.Zero(t, f.Writes.Sum().Failed, "nothing was tried to be written")
}

func TestPublisher_NamesTheFileWhoseCheckHasRefused(t *testing.T) {
	f := newFixture(t)
	a, b := f.file("set/a", "one"), f.file("set/b", "two")
	b.Drop.Check = &config.Check{Args: []string{"false"}, Timeout: time.Minute}
	set := &config.Set{Name: "s", Folder: f.path("set"), CreateDirs: true}
	a.Drop.Set, b.Drop.Set, a.Drop.CreateDirs, b.Drop.CreateDirs = set, set, true, true
	published := f.publish(t, output.Rendered{Set: set, Files: []output.RenderedFile{a, b}})
	require.Error(t, published[0].Err)
	assert.Equal(t, 1, published[0].Failed)
	assert.NoFileExists(t, f.path("set/a"))
}

func TestPublisher_TriesAnInterruptedCheckAgain(t *testing.T) {
	f := newFixture(t)
	file := f.file("a", "one")
	file.Drop.Check = &config.Check{Args: []string{"sleep", "60"}, Timeout: time.Minute}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	published := f.Publish(ctx, []output.Rendered{one(file)})
	require.ErrorContains(t, published[0].Err, "the check was interrupted")
	assert.False(t, published[0].IsRefused())
	assert.NoFileExists(t, f.path("a"))
}

// A change of the file itself is not lost when a side file fails: once that can be written,
// the file is unchanged, but services have not been told of it.
func TestPublisher_ReportsAChangeOfAnAttemptThatHasFailed(t *testing.T) {
	f := newFixture(t)
	f.publish(t, one(f.file("a", "one")))
	require.NoError(t, os.Mkdir(f.path("side"), 0o700)) // No file can be written there.
	file := f.file("a", "two")
	file.SideFiles = []drop.File{{Path: f.path("side"), Content: []byte("two"), Mode: 0o600}}
	published := f.publish(t, one(file))
	require.ErrorContains(t, published[0].Err, "side is a folder")
	assert.Equal(t, []drop.Outcome{drop.Changed}, published[0].Outcomes)
	assert.Equal(t, "two", f.read(t, "a"))
	assert.EqualValues(t, 1, f.Writes.Sum().Failed)
}

func TestPublisher_CountsAChangedSideFileAsAChange(t *testing.T) {
	f := newFixture(t)
	for _, side := range []string{"one", "two"} {
		file := f.file("a", "one")
		file.SideFiles = []drop.File{{Path: f.path("side"), Content: []byte(side), Mode: 0o600}}
		published := f.publish(t, one(file))
		require.NoError(t, published[0].Err)
		assert.NotEqual(t, drop.Unchanged, published[0].Outcomes[0])
	}
	assert.Equal(t, []bool{true, true}, f.recorder.changes)
}

func TestPublisher_RefusesAFolderThatADropDoesNotTrust(t *testing.T) {
	f := newFixture(t)
	require.NoError(t, os.Chmod(f.dir, 0o777))
	file := f.file("a", "one")
	file.Drop.Strict = true
	published := f.publish(t, one(file), one(f.file("b", "one")))
	require.ErrorContains(t, published[0].Err, "strict: folder "+f.dir)
	assert.NoFileExists(t, f.path("a"))
	require.NoError(t, published[1].Err)
	assert.Empty(t, f.recorder.changes[1:], "nothing is recorded of what is not written")
}

func TestPublisher_RestoresAFileThatAnotherProgramHasChanged(t *testing.T) {
	for name, tc := range map[string]struct {
		tamper     func(path string) error
		difference string
	}{
		"removed":     {os.Remove, "removed"},
		"permissions": {func(path string) error { return os.Chmod(path, 0o666) }, "permissions"},
		"content":     {func(path string) error { return os.WriteFile(path, []byte("bad"), 0o600) }, "content"},
		"replaced": {func(path string) error {
			return os.Rename(path, path+".old")
		}, "removed"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.publish(t, one(f.file("a", "one")))
			assert.Empty(t, f.FindChanged(false))
			require.NoError(t, tc.tamper(f.path("a")))
			assert.Equal(t, []string{f.path("a")}, f.FindChanged(false))
			published := f.publish(t, one(f.file("a", "one")))
			require.NoError(t, published[0].Err)
			assert.NotEqual(t, drop.Unchanged, published[0].Outcomes[0], "services are reloaded")
			assert.Equal(t, "one", f.read(t, "a"))
			info, err := os.Stat(f.path("a"))
			require.NoError(t, err)
			assert.Equal(t, os.FileMode(0o600), info.Mode())
			assert.Contains(t, f.log.String(), "file was changed by another program, restored it")
			assert.Contains(t, f.log.String(), "difference="+tc.difference)
			assert.EqualValues(t, 1, f.Restored.Sum().Succeeded)
			assert.Empty(t, f.FindChanged(false))
		})
	}
}

func TestPublisher_FindsAContentThatOnlyAReadShows(t *testing.T) {
	f := newFixture(t)
	f.publish(t, one(f.file("a", "one")))
	before, err := os.Stat(f.path("a"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(f.path("a"), []byte("bad"), 0o600))
	require.NoError(t, os.Chtimes(f.path("a"), before.ModTime(), before.ModTime()))
	assert.Empty(t, f.FindChanged(false))
	assert.Equal(t, []string{f.path("a")}, f.FindChanged(true))
	f.publish(t, one(f.file("a", "one")))
	assert.Equal(t, "one", f.read(t, "a"))
	assert.Contains(t, f.log.String(), "difference=content")
	assert.Empty(t, f.FindChanged(true))
}

func TestPublisher_TakesATouchedFileForUnchanged(t *testing.T) {
	f := newFixture(t)
	f.publish(t, one(f.file("a", "one")))
	later := time.Now().Add(time.Hour)
	require.NoError(t, os.Chtimes(f.path("a"), later, later))
	assert.Len(t, f.FindChanged(false), 1)
	assert.Equal(t, []drop.Outcome{drop.Unchanged}, f.publish(t, one(f.file("a", "one")))[0].Outcomes)
	assert.Zero(t, f.Restored.Sum())
	assert.Empty(t, f.FindChanged(false))
}

func TestPublisher_RestoresASetAndSideFiles(t *testing.T) {
	f := newFixture(t)
	set := &config.Set{Name: "s", Folder: f.path("set"), CreateDirs: true}
	publish := func() Published {
		a := f.file("set/a", "one")
		a.Drop.Set, a.Drop.CreateDirs = set, true
		a.SideFiles = []drop.File{{Path: f.path("side"), Content: []byte("one"), Mode: 0o600}}
		return f.publish(t, output.Rendered{Set: set, Files: []output.RenderedFile{a}})[0]
	}
	require.NoError(t, publish().Err)
	for _, name := range []string{"set/..data", "set/a", "side"} {
		require.NoError(t, os.Remove(f.path(name)))
		assert.Equal(t, []string{f.path("set/a")}, f.FindChanged(false), name)
		published := publish()
		require.NoError(t, published.Err)
		assert.NotEqual(t, drop.Unchanged, published.Outcomes[0], name)
		assert.Equal(t, "oneone", f.read(t, "set/a")+f.read(t, "side"))
		assert.Empty(t, f.FindChanged(false))
	}
}

func TestPublisher_LeavesAFileThatIsEditedOnPurpose(t *testing.T) {
	f := newFixture(t)
	file := func(content string) output.RenderedFile {
		file := f.file("a", content)
		file.Drop.OnTamper = config.WarnOnly
		return file
	}
	f.publish(t, one(file("one")))
	require.NoError(t, os.WriteFile(f.path("a"), []byte("edited"), 0o600))
	assert.Len(t, f.FindChanged(false), 1)
	published := f.publish(t, one(file("one")))
	var tampered *output.TamperError
	require.ErrorAs(t, published[0].Err, &tampered)
	assert.Equal(t, "content", tampered.Difference)
	assert.Equal(t, "edited", f.read(t, "a"))
	assert.Empty(t, f.FindChanged(false), "it is said once")
	require.Error(t, f.publish(t, one(file("one")))[0].Err, "at SIGHUP, too")
	assert.Equal(t, "edited", f.read(t, "a"))

	require.NoError(t, f.publish(t, one(file("two")))[0].Err, "a new secret wins")
	assert.Equal(t, "two", f.read(t, "a"))
	assert.Zero(t, f.Restored.Sum())
}

func TestPublisher_DoesNotTakeAChangedConfigurationForTampering(t *testing.T) {
	f := newFixture(t)
	f.publish(t, one(f.file("a", "one")))
	file := f.file("a", "one")
	file.Drop.Mode = 0o640
	require.NoError(t, f.publish(t, one(file))[0].Err)
	assert.Zero(t, f.Restored.Sum())
	assert.NotContains(t, f.log.String(), "restored")
}

func TestPublisher_LogsManyRestoredFilesAsANumber(t *testing.T) {
	f := newFixture(t)
	all := func() (rendered []output.Rendered) {
		for i := range 2 * few {
			rendered = append(rendered, one(f.file(fmt.Sprint(i), "one")))
		}
		return rendered
	}
	f.publish(t, all()...)
	require.NoError(t, os.Remove(f.path("3")))
	f.publish(t, all()...)
	assert.Equal(t, 1, strings.Count(f.log.String(), "file was changed by another program, restored it"), "it is one among many that are unchanged")
	f.log.Reset()
	for i := range 2 * few {
		require.NoError(t, os.Remove(f.path(fmt.Sprint(i))))
	}
	f.publish(t, all()...)
	assert.NotContains(t, f.log.String(), "file was changed by another program")
	assert.Contains(t, f.log.String(), `msg="files were changed by another program, restored them" count=20`)
	assert.EqualValues(t, 2*few+1, f.Restored.Sum().Succeeded)
}

func TestPublisher_LooksAwayFromAChangedFileWhoseNewContentIsRefused(t *testing.T) {
	f := newFixture(t)
	f.publish(t, one(f.file("a", "one")))
	require.NoError(t, os.Remove(f.path("a")))
	require.Equal(t, []string{f.path("a")}, f.FindChanged(false))
	bad := f.file("a", "two")
	bad.Drop.Check = &config.Check{Args: []string{"false"}, Timeout: time.Minute}
	require.True(t, f.publish(t, one(bad))[0].IsRefused())
	assert.Empty(t, f.FindChanged(false), "the check would refuse it each time")
	require.NoError(t, f.publish(t, one(f.file("a", "one")))[0].Err)
	assert.Equal(t, "one", f.read(t, "a"))
	assert.EqualValues(t, 1, f.Restored.Sum().Succeeded)
}
