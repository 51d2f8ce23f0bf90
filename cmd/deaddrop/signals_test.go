package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/servicetest"
	"github.com/smarteros/deaddrop/compose/leaktest"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// ends ends it by SIGTERM. It must do so by itself: what only its last resort ends has
// hung. A busy machine is given more time than a user has.
func (p *running) ends(code int) {
	p.r.t.Helper()
	leaktest.Process(p.r.t, p.cmd.Process.Pid, p.r.secretIDs()...)
	require.NoError(p.r.t, p.cmd.Process.Signal(syscall.SIGTERM))
	p.ended(code)
}

// ended waits for the end.
func (p *running) ended(code int) {
	p.r.t.Helper()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = p.cmd.Wait()
	}()
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		_ = p.cmd.Process.Kill()
		<-ended
		require.Fail(p.r.t, "it does not end")
	}
	assert.Equal(p.r.t, code, p.cmd.ProcessState.ExitCode(), "%s", p.cmd.ProcessState)
	assert.NotContains(p.r.t, p.log(), "leaving it behind")
}

// hanging is a command that ends by no signal but KILL. It makes a file first.
func hanging(file string) string {
	return command(servicetest.Service{File: file, Start: "up", Ignore: []string{"TERM", "INT", "HUP"}})
}

// command is the setting of a command that is a service.
func command(s servicetest.Service) string { return "command = [" + quoted(s.Args()...) + "]" }

// quoted is a list of strings in HCL.
func quoted(texts ...string) string {
	var all []string
	for _, text := range texts {
		all = append(all, strings.ReplaceAll(strconv.Quote(text), "${", "$${"))
	}
	return strings.Join(all, ", ")
}

func TestTheTimeToEndIsShorterThanTheLastResortAndThatThanFiveSeconds(t *testing.T) {
	t.Parallel()
	assert.Less(t, lastResort, 5*time.Second)
}

func TestTermEndsWhateverItIsDoing(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	for name, tc := range map[string]struct {
		body  string // of the drop
		env   []string
		state func(r *rig, p *running)
		hangs bool // the network, at the state
	}{
		"idle": {state: func(r *rig, p *running) { r.eventually("the file", func() bool { return r.read("nexa.json") != "" }) }},
		"in a check": {body: "  check { " + hanging("checking") + " }\n",
			state: func(r *rig, p *running) { r.appears("checking") }},
		"in a reload": {body: "  reload {\n    on_start = true\n    " + hanging("reloading") + "\n  }\n",
			state: func(r *rig, p *running) { r.appears("reloading") }},
		"in a reload, and Vault hangs": {body: "  reload {\n    on_start = true\n    " + hanging("reloading") + "\n  }\n", hangs: true,
			state: func(r *rig, p *running) { r.appears("reloading") }},
		"idle, and Vault hangs": {hangs: true,
			state: func(r *rig, p *running) { r.eventually("the file", func() bool { return r.read("nexa.json") != "" }) }},
		"trying to log in": {env: []string{"VAULT_ADDR=http://127.0.0.1:1"},
			state: func(r *rig, p *running) {
				r.eventually("it tries", func() bool { return strings.Contains(p.log(), "trying again") })
			}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, s)
			r.Manage() // There is a token to be revoked at the end.
			r.Put("nexa", map[string]any{"v": 1})
			proxy := s.Proxy(t)
			login := strings.Replace(r.Login(r.dir), s.Address, proxy.Address, 1)
			r.env = append(r.env[:1:1], tc.env...)
			p := r.start("run", "--config", r.write("x.hcl", login+interval+r.drop("nexa", tc.body)))
			tc.state(r, p)
			if tc.hangs {
				proxy.Poison("timeout", `"timeout": 0`)
			}
			p.ends(exitOK)
			r.leftNothing()
		})
	}
}

// appears waits for a file.
func (r *rig) appears(name string) {
	r.t.Helper()
	r.eventually(name, func() bool { _, err := os.Stat(r.path(name)); return err == nil })
}

// leftNothing checks that no temporary file is there.
func (r *rig) leftNothing() {
	r.t.Helper()
	left, err := filepath.Glob(r.path(".deaddrop-*"))
	require.NoError(r.t, err)
	assert.Empty(r.t, left)
}

func TestTermEndsAnAgentThatVaultNeverAnswered(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	for name, args := range map[string][]string{"run": {"run"}, "render": {"render", "--once"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, s)
			proxy := s.Proxy(t)
			proxy.Poison("timeout", `"timeout": 0`)
			r.env = append(r.env, "VAULT_ADDR="+proxy.Address)
			p := r.start(append(args, "--secret", r.Path("nexa"), "--out", "nexa.env")...)
			r.eventually("it waits for an answer", func() bool { return p.isConnected() })
			p.ends(map[string]int{"run": exitOK, "render": 128 + int(syscall.SIGTERM)}[name])
			assert.NotContains(t, p.log(), "cannot be reached", "it was not found out whether it can")
			if name == "render" {
				assert.Contains(t, p.log(), "ended by SIGTERM while waiting for Vault")
			}
			r.leftNothing()
		})
	}
}

// isConnected tells whether it has a connection.
func (p *running) isConnected() bool {
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.cmd.Process.Pid))
	require.NoError(p.r.t, err)
	for _, fd := range fds {
		if to, _ := os.Readlink(fd); strings.HasPrefix(to, "socket:") {
			return true
		}
	}
	return false
}

func TestTermEndsAnAgentOfASealedVault(t *testing.T) {
	t.Parallel()
	s := vaulttest.Own(t)
	r := newRig(t, s)
	r.Manage()
	r.Put("nexa", map[string]any{"KEY": "one"})
	p := r.start("run", "--secret", r.Path("nexa"), "--out", "nexa.env", "--interval", "1s")
	r.eventually("the file", func() bool { return r.read("nexa.env") != "" })
	require.NoError(t, s.Client.Sys().Seal())
	r.eventually("it says so", func() bool { return strings.Contains(p.log(), "Vault is sealed") })
	p.ends(exitOK)
	assert.Contains(t, p.log(), "terminated signal received")
	r.leftNothing()
}

func TestTermFinishesTheFilesThatAreBeingWritten(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	config := r.Login(r.dir) + interval
	const many = 100
	for i := range many {
		config += fmt.Sprintf("drop \"%d\" {\n  secret = %q\n  destination = \"out/%d.json\"\n}\n", i, r.Path("nexa"), i)
	}
	r.write("x.hcl", config)
	before := ""
	for round := range 5 {
		value := fmt.Sprintf("value%d", round)
		r.Put("nexa", map[string]any{"KEY": value, "FILLING": strings.Repeat("x", 10000)})
		p := r.start("run", "--config", "x.hcl")
		// The first is the first that is put in place, or the first that is created.
		r.eventually("it writes", func() bool {
			all, _ := filepath.Glob(r.path("out/.deaddrop-*"))
			return len(all) > 0 || strings.Contains(r.read("out/99.json"), value)
		})
		p.ends(exitOK)
		for i := range many {
			content := r.read(fmt.Sprintf("out/%d.json", i))
			isWhole := strings.HasSuffix(content, "\n}\n") && (strings.Contains(content, value) || before != "" && strings.Contains(content, before))
			assert.True(t, isWhole, "file %d", i)
		}
		left, err := filepath.Glob(r.path("out/.deaddrop-*"))
		require.NoError(t, err)
		assert.Empty(t, left)
		before = value
	}
}

func TestABadConfigurationIsRefusedAtHangupAndTheOldOneGoesOn(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"KEY": "one"})
	good := r.Login(r.dir) + "template_config { static_secret_render_interval = \"1h\" }\n" + r.drop("nexa", "")
	p := r.start("run", "--config", r.write("x.hcl", good))
	r.eventually("the file", func() bool { return strings.Contains(r.read("nexa.json"), "one") })
	r.write("x.hcl", good+"dorp {}\n")
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	r.eventually("it is refused", func() bool { return strings.Contains(p.log(), "configuration refused, keeping the old one") })
	assert.Contains(t, p.log(), `Did you mean \"drop\"?`)
	r.Put("nexa", map[string]any{"KEY": "two"})
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	r.eventually("the old one goes on", func() bool { return strings.Contains(r.read("nexa.json"), "two") })
	r.write("x.hcl", good+strings.Replace(r.drop("nexa", ""), "nexa.json", "more.json", 1))
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	r.eventually("a good one counts", func() bool { return strings.Contains(r.read("more.json"), "two") })
	p.ends(exitOK)
	assert.Equal(t, 1, strings.Count(p.log(), "configuration refused"))
}

func TestAClosedLogDoesNotEndIt(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"KEY": "one"})
	p := &running{r: r, cmd: r.command("run", "--secret", r.Path("nexa"), "--out", "nexa.env", "--interval", "1s", "--log-level", "debug")}
	log, end, err := os.Pipe()
	require.NoError(t, err)
	p.cmd.Stdout, p.cmd.Stderr = end, end
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	require.NoError(t, end.Close())
	require.NoError(t, log.Close())
	for _, value := range []string{"two", "three"} {
		r.Put("nexa", map[string]any{"KEY": value})
		r.eventually("it goes on", func() bool { return strings.Contains(r.read("nexa.env"), value) })
	}
	p.ends(exitOK)
}

func TestACommandThatDoesNotEndIsKilledAfterItsTime(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"KEY": "one"})
	p := r.start("run", "--config", r.write("x.hcl", r.Login(r.dir)+r.drop("nexa", "")+"exec {\n  "+hanging("started")+"\n  kill_timeout = \"1s\"\n}\n"))
	r.appears("started")
	p.ends(exitOK)
	assert.Contains(t, p.log(), "the command has not ended; killing it")
}

// The command is stopped already, for the sake of new secrets, and has its time once.
func TestTermEndsACommandThatIsBeingStartedAnew(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"KEY": "one"})
	p := r.start("run", "--config", r.write("x.hcl", r.Login(r.dir)+interval+"env_template \"KEY\" {\n  contents = <<E\n{{ with secret \""+r.Path("nexa")+"\" }}{{ .Data.data.KEY }}{{ end }}\nE\n}\n"+
		"exec {\n  "+hanging("started")+"\n  kill_timeout = \"6s\"\n}\n"))
	r.appears("started")
	r.Put("nexa", map[string]any{"KEY": "two"})
	r.eventually("it is stopped", func() bool { return strings.Contains(p.log(), "starting it anew") })
	p.ends(exitOK)
	assert.Equal(t, 1, strings.Count(p.log(), "the command has not ended; killing it"))
	assert.Equal(t, 1, strings.Count(p.log(), "started the command"), "it is not started again, only to be stopped")
	assert.NotContains(t, p.log(), "\"reloaded\"", "nor is that claimed")
}
