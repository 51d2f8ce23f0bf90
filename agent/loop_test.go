package agent

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/reload"
	"github.com/smarteros/deaddrop/agent/internal/tally"
	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/agent/status"
	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/secret"
)

// fakeVault holds secrets by path.
type fakeVault struct {
	mu      sync.Mutex
	secrets map[string]map[string]any
	reads   int
	isAway  bool
}

func (v *fakeVault) put(path string, data map[string]any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.secrets[path] = data
}

func (v *fakeVault) away(isAway bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.isAway = isAway
}

func (v *fakeVault) Resolve(_ context.Context, r render.Request) (render.Request, error) {
	return r, nil
}

func (v *fakeVault) Read(_ context.Context, r render.Request) (*render.Secret, watch.Life, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.reads++
	if v.isAway {
		return nil, watch.Life{}, &session.Fault{Transient: true, Kind: session.ErrUnreachable}
	}
	data, ok := v.secrets[r.Path]
	if !ok {
		return nil, watch.Life{}, watch.ErrMissing
	}
	return &render.Secret{Path: r.Path, Data: secret.Of(data)}, watch.Life{}, nil
}

func (v *fakeVault) Renew(context.Context, *watch.Lease) (time.Duration, bool, error) {
	return 0, false, errors.New("no lease is renewed")
}
func (v *fakeVault) Revoke(context.Context, *watch.Lease) error { return nil }
func (v *fakeVault) Forget()                                    {}

// fakeSession is a session that is logged in.
type fakeSession struct{}

func (fakeSession) Address() string          { return "http://vault" }
func (fakeSession) Status() session.Status   { return session.Status{LoggedIn: true} }
func (fakeSession) CanRefreshPolicies() bool { return false }

// running is a loop in a bubble, with a fake Vault.
type running struct {
	*loop
	t       *testing.T
	dir     string
	vault   *fakeVault
	log     *bytes.Buffer
	updates chan update
	writes  *tally.Tally
}

// runLoop runs a loop with a configuration, in which DIR stands for a new folder, until the
// test ends.
func runLoop(t *testing.T, configuration string, test func(r *running)) {
	t.Setenv("VAULT_TOKEN", "none-is-asked")
	dir := t.TempDir()
	cfg := loadText(t, dir, configuration)
	synctest.Test(t, func(t *testing.T) {
		r := &running{t: t, dir: dir, vault: &fakeVault{secrets: map[string]map[string]any{}}, log: &bytes.Buffer{}, updates: make(chan update), writes: &tally.Tally{}}
		log := slog.New(slog.NewTextHandler(r.log, nil))
		p := newPipeline(log)
		p.publisher.Writes = r.writes
		p.configure(cfg)
		r.loop = &loop{
			pipeline: p, vault: fakeSession{}, watcher: watch.New(r.vault, log), queue: reload.NewQueue(log), board: status.NewBoard(),
			updates: r.updates, started: time.Now(),
		}
		r.vault.put("secret/nexa", map[string]any{"KEY": "one"})
		ctx, cancel := context.WithCancel(t.Context())
		var actors sync.WaitGroup
		for _, actor := range []func(context.Context) error{r.watcher.Run, r.loop.Run, r.queue.Run} {
			actors.Go(func() { assert.NoError(t, actor(ctx)) })
		}
		synctest.Wait()
		test(r)
		cancel()
		actors.Wait()
	})
}

// loadText loads a configuration that keeps its journals in the folder.
func loadText(t *testing.T, dir, text string) *config.Config {
	t.Helper()
	file := filepath.Join(dir, "deaddrop.hcl")
	text = `state_dir = "DIR/state"` + "\n" + text
	require.NoError(t, os.WriteFile(file, []byte(strings.ReplaceAll(text, "DIR", dir)), 0o600))
	cfg, err := config.Load(file)
	require.NoError(t, err)
	return cfg
}

func (r *running) read(name string) string {
	content, err := os.ReadFile(filepath.Join(r.dir, name))
	if err != nil {
		return ""
	}
	return string(content)
}

// after lets time pass until everything is at rest again.
func (r *running) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (r *running) report() *status.Report {
	r.t.Helper()
	report, err := r.board.Ask(r.t.Context())
	require.NoError(r.t, err)
	synctest.Wait()
	return report
}

const oneDrop = `drop "nexa" {
  secret      = "secret/nexa"
  destination = "DIR/out/nexa.env"
}
`

func TestLoop_FollowsASecretFromVaultToItsFile(t *testing.T) {
	runLoop(t, oneDrop, func(r *running) {
		assert.Equal(t, "KEY=one\n", r.read("out/nexa.env"))
		r.vault.put("secret/nexa", map[string]any{"KEY": "two"})
		r.after(20 * time.Second)
		assert.Equal(t, "KEY=two\n", r.read("out/nexa.env"))
		assert.Equal(t, status.Current, r.report().Drops[0].State)
	})
}

func TestLoop_RetriesAFailingWriteWhenItIsDueAndNotForAPingOrAScrape(t *testing.T) {
	runLoop(t, oneDrop, func(r *running) {
		require.NoError(t, os.RemoveAll(filepath.Join(r.dir, "out")))
		require.NoError(t, os.WriteFile(filepath.Join(r.dir, "out"), nil, 0o600)) // No folder can be made there.
		r.vault.put("secret/nexa", map[string]any{"KEY": "two"})
		r.after(17 * time.Second)
		before := r.writes.Sum().Failed
		require.Positive(t, before)
		for range 100 {
			require.NoError(t, r.board.Ping(r.t.Context()))
			r.report()
		}
		assert.Equal(t, before, r.writes.Sum().Failed)
		r.after(10 * time.Second)
		assert.Equal(t, before+2, r.writes.Sum().Failed, "it is tried every 5 s")
		assert.Equal(t, status.Stale, r.report().Drops[0].State)
		require.NoError(t, os.Remove(filepath.Join(r.dir, "out")))
		r.after(5 * time.Second)
		assert.Equal(t, "KEY=two\n", r.read("out/nexa.env"))
		assert.Equal(t, status.Current, r.report().Drops[0].State)
	})
}

func TestLoop_PutsBackAFileThatIsGoneWithinAnInterval(t *testing.T) {
	for name, whileVaultIsAway := range map[string]bool{"with Vault": false, "without Vault": true} {
		t.Run(name, func(t *testing.T) {
			runLoop(t, oneDrop, func(r *running) {
				r.vault.away(whileVaultIsAway)
				require.NoError(t, os.RemoveAll(filepath.Join(r.dir, "out")))
				r.after(16 * time.Second)
				assert.Equal(t, "KEY=one\n", r.read("out/nexa.env"))
				assert.Equal(t, 1, strings.Count(r.log.String(), "file was changed by another program, restored it"), r.log.String())
			})
		})
	}
}

func TestLoop_ComparesContentsAtSIGHUP(t *testing.T) {
	runLoop(t, oneDrop, func(r *running) {
		path := filepath.Join(r.dir, "out/nexa.env")
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path, []byte("KEY=bad\n"), 0o600))
		require.NoError(t, os.Chtimes(path, info.ModTime(), info.ModTime()))
		r.after(time.Minute)
		require.Equal(t, "KEY=bad\n", r.read("out/nexa.env"), "nothing but its content shows it")
		r.updates <- update{isHangup: true}
		synctest.Wait()
		assert.Equal(t, "KEY=one\n", r.read("out/nexa.env"))
	})
}

func TestLoop_CallsAFileStaleThatIsEditedOnPurpose(t *testing.T) {
	runLoop(t, strings.Replace(oneDrop, "secret  ", "on_tamper = \"warn\"\n  secret  ", 1), func(r *running) {
		path := filepath.Join(r.dir, "out/nexa.env")
		require.NoError(t, os.WriteFile(path, []byte("KEY=edited\n"), 0o600))
		r.after(time.Minute)
		assert.Equal(t, "KEY=edited\n", r.read("out/nexa.env"))
		drop := r.report().Drops[0]
		assert.Equal(t, status.Stale, drop.State)
		assert.Contains(t, drop.Error, "another program has changed the file")
		assert.Equal(t, 1, strings.Count(r.log.String(), "file was changed by another program, leaving it"), r.log.String())
		r.updates <- update{isHangup: true, config: r.cfg}
		synctest.Wait()
		assert.Equal(t, "KEY=edited\n", r.read("out/nexa.env"), "nor at SIGHUP")
		r.vault.put("secret/nexa", map[string]any{"KEY": "two"})
		r.after(20 * time.Second)
		assert.Equal(t, "KEY=two\n", r.read("out/nexa.env"))
		assert.Equal(t, status.Current, r.report().Drops[0].State)
	})
}

func TestLoop_TakesOverAnotherConfiguration(t *testing.T) {
	runLoop(t, oneDrop, func(r *running) {
		r.vault.put("secret/smtp", map[string]any{"KEY": "smtp"})
		cfg := loadText(t, r.dir, oneDrop+strings.NewReplacer("nexa", "smtp").Replace(oneDrop))
		reads := r.vault.reads
		r.updates <- update{config: cfg}
		synctest.Wait()
		assert.Equal(t, "KEY=smtp\n", r.read("out/smtp.env"))
		assert.Equal(t, reads+1, r.vault.reads, "what is known is not read again")
		r.updates <- update{config: loadText(t, r.dir, oneDrop)}
		synctest.Wait()
		assert.Len(t, r.report().Drops, 1)
		assert.Equal(t, "KEY=smtp\n", r.read("out/smtp.env"), "its file stays")
	})
}

func TestLoop_EndsForASecretThatMustNotBeMissing(t *testing.T) {
	t.Setenv("VAULT_TOKEN", "none-is-asked")
	cfg := loadText(t, t.TempDir(), strings.Replace(oneDrop, "secret  ", "on_missing = \"fail\"\n  secret  ", 1))
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		p := newPipeline(log)
		p.configure(cfg)
		l := &loop{pipeline: p, vault: fakeSession{}, watcher: watch.New(&fakeVault{}, log), queue: reload.NewQueue(log), board: status.NewBoard(), started: time.Now()}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = l.watcher.Run(ctx) }()
		err := l.Run(ctx)
		require.ErrorIs(t, err, watch.ErrMissing)
		assert.ErrorContains(t, err, `drop "nexa"`)
	})
}

func TestLoop_RetriesARestoreThatFailsWhenItIsDue(t *testing.T) {
	runLoop(t, "template_config { static_secret_render_interval = \"1s\" }\n"+oneDrop, func(r *running) {
		file := filepath.Join(r.dir, "out/nexa.env")
		require.NoError(t, os.Remove(file))
		require.NoError(t, os.MkdirAll(filepath.Join(file, "folder"), 0o700))
		r.after(16 * time.Second)
		assert.InDelta(t, 3, r.writes.Sum().Failed, 1, "it is tried every 5 s")
		require.NoError(t, os.RemoveAll(file))
		r.after(6 * time.Second)
		assert.Equal(t, "KEY=one\n", r.read("out/nexa.env"))
	})
}
