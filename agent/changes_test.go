package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/status"
)

// changesOf follows a file for which the system notifies of nothing: it fails with err.
func changesOf(file string, err error) (c *changes, plans chan *config.Config, log *bytes.Buffer) {
	log = &bytes.Buffer{}
	plans = make(chan *config.Config)
	cfg := &config.Config{Files: []string{file}}
	return &changes{
		cfg: cfg, load: func() (*config.Config, error) { return &config.Config{Files: []string{file}}, nil },
		plans: plans, board: status.NewBoard(), log: slog.New(slog.NewTextHandler(log, nil)),
		newNotifier: func() (*fsnotify.Watcher, error) { return nil, err },
	}, plans, log
}

func TestChanges_PollFilesWhereNoneCanBeWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "deaddrop.hcl")
		require.NoError(t, os.WriteFile(file, []byte("one"), 0o600))
		c, plans, log := changesOf(file, os.NewSyscallError("inotify_init1", syscall.EMFILE))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.Run(ctx) }()

		time.Sleep(time.Minute)
		synctest.Wait()
		for _, content := range []string{"two", "three"} {
			require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
			changed := time.Now()
			<-plans
			assert.LessOrEqual(t, time.Since(changed), pollFiles+settle)
		}
		require.NoError(t, os.Chtimes(file, time.Time{}, time.Now().Add(time.Hour)))
		time.Sleep(time.Minute)
		synctest.Wait() // The same content is no change; one would wait for a reader of plans.
		cancel()
		require.NoError(t, <-ended)
		assert.Equal(t, 1, strings.Count(log.String(), "polling"), log)
		assert.Contains(t, log.String(), "fs.inotify.max_user_instances")
	})
}

func TestChanges_PollFilesOfAFolderThatCannotBeWatched(t *testing.T) {
	c, _, log := changesOf(filepath.Join(t.TempDir(), "gone", "deaddrop.hcl"), nil)
	c.newNotifier = nil
	c.startNotifier()
	defer c.stopNotifier()
	require.NotNil(t, c.notifier)
	assert.NotNil(t, c.poll)
	c.watchFolders()
	assert.Equal(t, 1, strings.Count(log.String(), "polling"), log)
}

func TestChanges_NeedNoNotifierWithoutFiles(t *testing.T) {
	c, _, log := changesOf("", errors.New("it must not be asked for"))
	c.load = nil
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, c.Run(ctx))
	assert.Empty(t, log.String())
}

func TestDigest_DoesNotWaitForFilesThatBlock(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.WriteFile(path("x.hcl"), []byte("x"), 0o600))
	files := []string{dir, path("x.hcl")}
	before := digest(files)
	assert.Equal(t, before, digest(files))
	require.NoError(t, os.Remove(path("x.hcl")))
	require.NoError(t, syscall.Mkfifo(path("x.hcl"), 0o600))
	assert.NotEqual(t, before, digest(files), "the configuration is read again, and refused")
	require.NoError(t, os.Remove(path("x.hcl")))
	require.NoError(t, os.Symlink("/dev/zero", path("x.hcl")))
	digest(files)
}

func TestIsPiped_FindsAPipeAmongTheFiles(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer func() { _, _ = r.Close(), w.Close() }()
	assert.True(t, isPiped(&config.Config{Files: []string{"x.hcl", fmt.Sprintf("/dev/fd/%d", r.Fd())}}))
	assert.False(t, isPiped(&config.Config{Files: []string{"x.hcl", t.TempDir()}}))
}
