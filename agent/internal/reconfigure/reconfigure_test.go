package reconfigure

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/config"
)

// fakeNotifier reports the events that a test makes up.
type fakeNotifier struct {
	events    chan fsnotify.Event
	errors    chan error
	forbidden error // for every folder

	mu      sync.Mutex
	folders map[string]bool
	closed  bool
}

func newFakeNotifier() *fakeNotifier {
	return &fakeNotifier{events: make(chan fsnotify.Event), errors: make(chan error), folders: map[string]bool{}}
}

func (n *fakeNotifier) Add(folder string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.folders[folder] = true
	return n.forbidden
}

func (n *fakeNotifier) Remove(folder string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.folders, folder)
	return nil
}

func (n *fakeNotifier) Events() <-chan fsnotify.Event { return n.events }
func (n *fakeNotifier) Errors() <-chan error          { return n.errors }

func (n *fakeNotifier) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	return nil
}

func (n *fakeNotifier) watches(folder string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.folders[folder]
}

// rig is an actor in a bubble, with real files and events that the test makes up.
type rig struct {
	*Actor
	t        *testing.T
	dir      string
	notifier *fakeNotifier
	hangups  chan os.Signal
	loads    int
	log      strings.Builder
	stop     func()
}

// main is the name of the file whose configuration the actor watches.
const main = "deaddrop.hcl"

// newRig loads a configuration, and returns an actor that does not run yet.
func newRig(t *testing.T, content string) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), notifier: newFakeNotifier(), hangups: make(chan os.Signal)}
	var err error
	r.dir, err = filepath.EvalSymlinks(r.dir)
	require.NoError(t, err)
	r.write(main, content)
	load := func() (*config.Config, error) {
		r.loads++
		return config.Credentials{}.Load(r.path(main))
	}
	cfg, err := load()
	require.NoError(t, err)
	r.loads = 0
	r.Actor = New(Options{
		Config: cfg, Load: load, Hangups: r.hangups,
		NewNotifier: func() (Notifier, error) { return r.notifier, nil },
		Log:         slog.New(slog.NewTextHandler(&r.log, nil)),
	})
	return r
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

// write writes a file of which the actor is not notified.
func (r *rig) write(name, content string) {
	r.t.Helper()
	require.NoError(r.t, os.WriteFile(r.path(name), []byte(content), 0o600))
}

// edit writes a file, and notifies the actor if it watches the folder.
func (r *rig) edit(name, content string) {
	r.t.Helper()
	r.write(name, content)
	r.notify(name)
}

func (r *rig) notify(name string) {
	if path := r.path(name); r.notifier.watches(filepath.Dir(path)) {
		r.notifier.events <- fsnotify.Event{Name: path, Op: fsnotify.Write}
	}
}

// start runs the actor until the test ends.
func (r *rig) start() {
	ctx, cancel := context.WithCancel(r.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		assert.NoError(r.t, <-ended)
	})
	r.t.Cleanup(r.stop)
	synctest.Wait()
}

// change waits for a change.
func (r *rig) change() Change {
	r.t.Helper()
	select {
	case c := <-r.Changes():
		synctest.Wait()
		return c
	case <-time.After(time.Minute):
		require.FailNow(r.t, "there is no change", &r.log)
		return Change{}
	}
}

// refusal waits for a configuration to be refused, and returns why.
func (r *rig) refusal() string {
	r.t.Helper()
	c := r.change()
	require.Error(r.t, c.Refused)
	assert.Equal(r.t, Change{Refused: c.Refused}, c)
	return c.Refused.Error()
}

func (r *rig) hasNoChange() {
	r.t.Helper()
	select {
	case c := <-r.Changes():
		assert.Fail(r.t, "there is a change", "%+v", c)
	case <-time.After(time.Minute):
	}
	synctest.Wait()
}

const login = "auto_auth {\n  method \"approle\" {\n    config = { role_id = \"r\", secret_id = \"s\" }\n  }\n}\n"

// drop is a block that makes a configuration differ from another one.
func drop(name string) string {
	return "drop \"" + name + "\" {\n  secret = \"secret/a\"\n  destination = \"" + name + "\"\n}\n"
}

func (r *rig) template(name string) string {
	return "template {\n  source = \"" + r.path(name) + "\"\n  destination = \"x\"\n}\n"
}

func inBubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func TestActor_HandsOverAChangedConfiguration(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, login+drop("one"))
		r.start()
		r.edit(main, login+drop("two"))
		changed := time.Now()
		c := r.change()
		assert.Equal(t, settle, time.Since(changed))
		assert.Equal(t, "two", c.Config.Drops[0].Name)
		assert.Equal(t, Change{Config: c.Config}, c)
		r.notify(main)
		r.hasNoChange()
		assert.Equal(t, 1, r.loads, "the same content is no change")
		r.stop()
		assert.True(t, r.notifier.closed)
		assert.Equal(t, 1, strings.Count(r.log.String(), "configuration reloaded"))
	})
}

func TestActor_TakesAMendedTemplateOfARefusedConfiguration(t *testing.T) {
	for name, mend := range map[string]func(r *rig){
		"by its event": func(*rig) {},
		"at SIGHUP":    func(r *rig) { r.hangups <- syscall.SIGHUP },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				r := newRig(t, login+drop("one"))
				r.start()
				r.write("x.ctmpl", "{{ broken")
				r.edit(main, login+r.template("x.ctmpl"))
				assert.Contains(t, r.refusal(), "x.ctmpl")
				r.hasNoChange()
				assert.Equal(t, 1, strings.Count(r.log.String(), "configuration refused, keeping the old one"))
				if name == "at SIGHUP" {
					r.write("x.ctmpl", "mended")
				} else {
					r.edit("x.ctmpl", "mended")
				}
				mend(r)
				assert.Equal(t, r.path("x.ctmpl"), r.change().Config.Drops[0].Source)
			})
		})
	}
}

func TestActor_TakesATemplateThatWasMissing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, login+drop("one"))
		r.start()
		r.edit(main, login+r.template("later/folder/x.ctmpl"))
		assert.Contains(t, r.refusal(), "x.ctmpl cannot be read")
		for _, folder := range []string{"later", "later/folder"} {
			require.NoError(t, os.Mkdir(r.path(folder), 0o700))
			r.notify(folder)
			r.hasNoChange()
		}
		r.edit("later/folder/x.ctmpl", "text")
		assert.Equal(t, r.path("later/folder/x.ctmpl"), r.change().Config.Drops[0].Source)
		assert.NotContains(t, r.log.String(), "polling")
	})
}

func TestActor_ReadsARefusedConfigurationAgainAtEveryHangup(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, login+drop("one"))
		load, missing := r.Load, true
		r.Load = func() (*config.Config, error) {
			cfg, err := load()
			if missing && err == nil {
				return nil, &config.Error{Problems: []config.Problem{{Text: "there is no user nexa"}}, Sources: cfg.Sources}
			}
			return cfg, err
		}
		r.start()
		r.edit(main, login+drop("two"))
		assert.Equal(t, "there is no user nexa", r.refusal())
		r.hangups <- syscall.SIGHUP
		c := r.change()
		assert.Error(t, c.Refused)
		assert.Equal(t, Change{Hangup: true, Refused: c.Refused}, c)
		assert.Equal(t, 1, strings.Count(r.log.String(), "configuration refused"), "the same refusal of the same files is logged once")
		missing = false
		r.hangups <- syscall.SIGHUP
		c = r.change()
		assert.True(t, c.Hangup)
		assert.NoError(t, c.Refused)
		require.NotNil(t, c.Config)
		assert.Equal(t, "two", c.Config.Drops[0].Name)
	})
}

func TestActor_ReadsAgainAtHangupWhateverTheFilesAre(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, login+drop("one"))
		var order []string
		tenant := "" // as the environment has it
		load := r.Load
		r.Load = func() (*config.Config, error) {
			order = append(order, "load")
			cfg, err := load()
			cfg.Tenant = tenant
			return cfg, err
		}
		r.OnHangup = func() { order = append(order, "reloading") }
		r.start()
		r.hangups <- syscall.SIGHUP
		c := r.change()
		assert.True(t, c.Hangup)
		assert.Nil(t, c.Config, "it is the same")
		assert.Equal(t, []string{"reloading", "load"}, order)
		tenant = "demo"
		r.hangups <- syscall.SIGHUP
		c = r.change()
		require.NotNil(t, c.Config)
		assert.Equal(t, "demo", c.Config.Tenant)
		assert.False(t, c.NeedsSession)
		r.hasNoChange()
	})
}

func TestActor_NoticesAnEditBetweenTheLoadAndItsStart(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, login+drop("one"))
		r.write(main, login+drop("two"))
		r.start()
		assert.Equal(t, "two", r.change().Config.Drops[0].Name)
		r.hasNoChange()
	})
}

func TestActor_NoticesAnEditBetweenALoadAndItsReturn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, login+drop("one"))
		load := r.Load
		r.Load = func() (*config.Config, error) {
			cfg, err := load()
			if r.loads == 1 {
				r.edit("templates/x.ctmpl", "new") // Its folder is not watched yet.
			}
			return cfg, err
		}
		require.NoError(t, os.Mkdir(r.path("templates"), 0o700))
		r.start()
		r.write("templates/x.ctmpl", "old")
		r.edit(main, login+r.template("templates/x.ctmpl"))
		r.change()
		r.change()
		r.hasNoChange()
		assert.Equal(t, 2, r.loads)
		assert.Equal(t, config.ReadSources(r.path(main), r.path("templates/x.ctmpl")), r.tried)
	})
}

func TestActor_SumsUpChangesThatNobodyHasTaken(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const other = "vault {\n  address = \"http://other:8200\"\n}\n"
		r := newRig(t, login+drop("one"))
		r.start()
		r.edit(main, login+other+drop("two")) // as while a session closes
		time.Sleep(time.Second)
		r.hangups <- syscall.SIGHUP
		r.edit(main, login+other+drop("three"))
		time.Sleep(time.Second)
		c := r.change()
		assert.Equal(t, "three", c.Config.Drops[0].Name)
		assert.Equal(t, Change{Config: c.Config, NeedsSession: true, Hangup: true}, c)
		r.hasNoChange()

		r.edit(main, login+drop("four"))
		time.Sleep(time.Second)
		r.edit(main, login+other+drop("five"))
		time.Sleep(time.Second)
		c = r.change()
		assert.Equal(t, "five", c.Config.Drops[0].Name)
		assert.False(t, c.NeedsSession, "it has the session of the configuration that was taken before")

		r.edit(main, login+other+drop("six"))
		time.Sleep(time.Second)
		r.edit(main, "dorp {}")
		time.Sleep(time.Second)
		c = r.change()
		assert.Equal(t, "six", c.Config.Drops[0].Name)
		assert.Error(t, c.Refused, "the one that was refused is newer")
		r.edit(main, "dorp {}\n")
		time.Sleep(time.Second)
		r.edit(main, login+other+drop("seven"))
		time.Sleep(time.Second)
		c = r.change()
		assert.Equal(t, "seven", c.Config.Drops[0].Name)
		assert.NoError(t, c.Refused, "it was mended")
	})
}

func TestActor_AsksForASessionWhereVaultLoginOrSinksChange(t *testing.T) {
	for name, content := range map[string]string{
		"Vault": login + "vault {\n  namespace = \"x\"\n}\n",
		"login": strings.Replace(login, `"r"`, `"other"`, 1),
		"sink":  strings.Replace(login, "auto_auth {\n", "auto_auth {\n  sink \"file\" {\n    config = { path = \"token\" }\n  }\n", 1),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				r := newRig(t, login+drop("one"))
				var verified []*config.Config
				r.Verify = func(cfg *config.Config) error { verified = append(verified, cfg); return nil }
				r.start()
				r.edit(main, login+drop("two"))
				assert.False(t, r.change().NeedsSession)
				assert.Empty(t, verified)
				r.edit(main, content+drop("two"))
				c := r.change()
				assert.True(t, c.NeedsSession)
				assert.Equal(t, []*config.Config{c.Config}, verified)
				r.edit(main, content+drop("three"))
				assert.False(t, r.change().NeedsSession)
			})
		})
	}
}

func TestActor_RefusesASessionThatIsNotVerified(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, login+drop("one"))
		r.write("ca.pem", "bad")
		r.Verify = func(cfg *config.Config) error {
			if content, _ := os.ReadFile(cfg.Vault.CACert); string(content) == "bad" {
				return errors.New("ca.pem is no certificate")
			}
			return nil
		}
		r.start()
		r.edit(main, login+"vault {\n  ca_cert = \""+r.path("ca.pem")+"\"\n}\n"+drop("one"))
		assert.Equal(t, "ca.pem is no certificate", r.refusal())
		r.edit("ca.pem", "good")
		assert.True(t, r.change().NeedsSession)
	})
}

func TestActor_RefusesAnotherCommand(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		exec := func(command string) string { return "exec {\n  command = [\"" + command + "\"]\n}\n" }
		r := newRig(t, login+drop("one")+exec("true"))
		r.start()
		for _, content := range []string{exec("false"), ""} {
			r.edit(main, login+drop("two")+content)
			assert.Equal(t, errCommand.Error(), r.refusal())
		}
		assert.Equal(t, 2, strings.Count(r.log.String(), "configuration refused"))
		r.edit(main, login+drop("two")+exec("true"))
		assert.Equal(t, "two", r.change().Config.Drops[0].Name)
	})
}

func TestActor_NamesSettingsThatNeedARestart(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, login+drop("one"))
		r.start()
		for _, content := range []string{"mlock = true\n", "mlock = true\n" + drop("two"), "mlock = false\n", "mlock = true\nexit_after_auth = true\n"} {
			r.edit(main, login+drop("one")+content)
			r.change()
		}
		log := r.log.String()
		assert.Equal(t, 2, strings.Count(log, "configuration change needs a restart"), log)
		assert.Contains(t, log, "settings=[mlock]")
		assert.Contains(t, log, `settings="[mlock exit_after_auth]"`)
	})
}

func TestActor_ReadsFilesThatAreNeverLeftAloneWithinASecond(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, login+drop("one"))
		r.start()
		r.edit(main, login+drop("two"))
		changed := time.Now()
		for done := false; !done; {
			select {
			case c := <-r.Changes():
				assert.Equal(t, "two", c.Config.Drops[0].Name)
				assert.LessOrEqual(t, time.Since(changed), settleMax)
				done = true
			case <-time.After(90 * time.Millisecond):
				require.Less(t, time.Since(changed), time.Minute, "it is not read")
				r.notify(main)
			}
		}
	})
}

func TestActor_IgnoresOtherFilesOfTheFolder(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, login+drop("one"))
		r.start()
		r.write(main, login+drop("two"))
		for range 100 {
			r.edit("neighbour.log", "line")
			time.Sleep(90 * time.Millisecond)
		}
		synctest.Wait()
		assert.Zero(t, r.loads)
		r.notify(main)
		r.change()
	})
}

func TestActor_ReadsAgainAfterLostEvents(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, login+drop("one"))
		r.start()
		r.write(main, login+drop("two"))
		r.notifier.errors <- errors.New("something else")
		r.hasNoChange()
		r.notifier.errors <- fsnotify.ErrEventOverflow
		r.change()
	})
}

func TestActor_PollsFilesThatCannotBeWatched(t *testing.T) {
	for name, forbid := range map[string]func(r *rig){
		"no notifier": func(r *rig) {
			r.NewNotifier = func() (Notifier, error) { return nil, os.NewSyscallError("inotify_init1", syscall.EMFILE) }
		},
		"no watch": func(r *rig) { r.notifier.forbidden = syscall.ENOSPC },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				r := newRig(t, login+drop("one"))
				forbid(r)
				r.start()
				time.Sleep(time.Minute)
				for _, name := range []string{"two", "three"} {
					r.write(main, login+drop(name))
					changed := time.Now()
					assert.Equal(t, name, r.change().Config.Drops[0].Name)
					assert.LessOrEqual(t, time.Since(changed), pollInterval+settle)
				}
				require.NoError(t, os.Chtimes(r.path(main), time.Time{}, time.Now().Add(time.Hour)))
				r.hasNoChange()
				assert.Equal(t, 2, r.loads, "the same content is no change")
				assert.Equal(t, 1, strings.Count(r.log.String(), "cannot watch configuration files, polling them"), &r.log)
				hint := map[string]string{"no notifier": "fs.inotify.max_user_instances", "no watch": "fs.inotify.max_user_watches"}[name]
				assert.Contains(t, r.log.String(), hint)
			})
		})
	}
}

func TestActor_NeedsNoNotifierWithoutFiles(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, login+drop("one"))
		r.Load = nil
		r.NewNotifier = func() (Notifier, error) { return nil, errors.New("it must not be asked for") }
		r.start()
		r.hangups <- syscall.SIGHUP
		assert.Equal(t, Change{Hangup: true}, r.change())
		r.hasNoChange()
		assert.NotContains(t, r.log.String(), "asked for")
	})
}

func TestActor_LoadsOnceMoreAtMostWhereDigestsDisagree(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, login+drop("one"))
		load := r.Load
		r.Load = func() (*config.Config, error) {
			cfg, err := load()
			cfg.Sources[r.path(main)] = config.Digest{2}
			return cfg, err
		}
		r.start()
		r.edit(main, login+drop("two"))
		for range 2 {
			select {
			case <-r.Changes():
			case <-time.After(time.Minute):
			}
		}
		r.hasNoChange()
		assert.LessOrEqual(t, r.loads, 2)
	})
}

func TestIsPiped_FindsAPipeAmongTheFiles(t *testing.T) {
	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	defer func() { _, _ = reader.Close(), writer.Close() }()
	pipe := fmt.Sprintf("/dev/fd/%d", reader.Fd())
	assert.True(t, IsPiped(&config.Config{Files: []string{"x.hcl", pipe}}))
	assert.False(t, IsPiped(&config.Config{Files: []string{"x.hcl", t.TempDir()}}))
}
