package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// proc reads what Linux tells of the process.
func (p *running) proc(name string) string {
	p.r.t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.cmd.Process.Pid, name))
	require.NoError(p.r.t, err)
	return string(content)
}

func TestTheSecretIDIsNotInTheEnvironmentOfTheAgentOrOfItsPrograms(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("this is not root, who alone may read the environment")
	}
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"KEY": "one"})
	base := interval + r.drop("nexa", "  reload {\n    on_start = true\n    command = [\"sh\", \"-c\", \"env >environment\"]\n  }\n") +
		"template {\n  destination = \"template\"\n  contents = \"{{ envOrDefault \\\"VAULT_SECRET_ID\\\" \\\"none\\\" }} {{ envOrDefault \\\"VAULT_TOKEN\\\" \\\"none\\\" }} {{ env \\\"VAULT_ROLE_ID\\\" }}\"\n}\n"
	r.env = append(r.env, "VAULT_TOKEN=given")
	p := r.start("run", "--config", r.write("x.hcl", base))
	r.eventually("the first", func() bool { return r.read("environment") != "" && r.read("template") != "" })
	assert.Contains(t, p.proc("environ"), "VAULT_ROLE_ID="+r.RoleID)
	for what, text := range map[string]string{"the agent's": p.proc("environ"), "that of programs": r.read("environment")} {
		assert.NotContains(t, text, r.SecretID, what)
		assert.NotContains(t, text, "given", what)
	}
	assert.Equal(t, "none none "+r.RoleID, r.read("template"))

	r.write("x.hcl", "auto_auth {\n  method \"approle\" {\n    mount_path = \"auth/approle/\"\n  }\n}\n"+base+"# changed\n")
	r.eventually("it is read again", func() bool { return strings.Contains(p.log(), "configuration reloaded") })
	r.RevokeTokens()
	r.Put("nexa", map[string]any{"KEY": "two"})
	r.eventually("it still knows the secret id", func() bool { return strings.Contains(r.read("nexa.json"), "two") })
	p.stop()
}

func TestANewLoginAfterAReloadKnowsTheSecretIDStill(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	r := newRig(t, s)
	r.Put("nexa", map[string]any{"KEY": "one"})
	base := interval + r.drop("nexa", "")
	p := r.start("run", "--config", r.write("x.hcl", base))
	r.eventually("the first", func() bool { return r.read("nexa.json") != "" })
	r.write("x.hcl", "vault {\n  namespace = \"\"\n  tls_server_name = \"other\"\n}\n"+base)
	r.eventually("a new session", func() bool { return strings.Count(p.log(), "logged in to Vault") == 2 })
	p.stop()
}

func TestTheUmaskIsClosedButNotForAService(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"KEY": "one"})
	tell := "command = [\"sh\", \"-c\", \"umask >mask; ulimit -S -c >core; ulimit -H -c >>core; test -n \\\"$STAY\\\" && exec sleep 1000; true\"]"
	p := r.start("run", "--config", r.write("x.hcl", r.Login(r.dir)+"pid_file = \"agent.pid\"\n"+r.drop("nexa", "  perms = \"0644\"\n  reload {\n    on_start = true\n    "+tell+"\n  }\n")))
	r.eventually("it has told", func() bool { return strings.Count(r.read("core"), "\n") == 2 })
	assert.Equal(t, "0077\n", r.read("mask"))
	assert.True(t, strings.HasPrefix(r.read("core"), "0\n"), "the soft limit of core files is 0")
	for _, name := range []string{"agent.pid", "nexa.json"} {
		info, err := os.Stat(r.path(name))
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o644), info.Mode(), name)
	}
	p.stop()

	require.NoError(t, os.Remove(r.path("mask")))
	r.env = append(r.env, "STAY=1")
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	own := regexp.MustCompile(`Umask:\t(\d+)`).FindStringSubmatch(string(status))[1]
	p = r.start("run", "--config", r.write("x.hcl", r.Login(r.dir)+r.drop("nexa", "")+"exec {\n  "+tell+"\n}\n"))
	r.eventually("it has told", func() bool { return r.read("mask") != "" })
	assert.Equal(t, own+"\n", r.read("mask"))
	p.stop()
}

// asNobody lets the rig run deaddrop as a user who is not root.
func (r *rig) asNobody(cmd *exec.Cmd) {
	r.t.Helper()
	r.asUser(cmd, nobody)
}

// asUser lets the rig run deaddrop as another user, to whom everything in its folder goes.
func (r *rig) asUser(cmd *exec.Cmd, uid int) {
	r.t.Helper()
	if os.Geteuid() != 0 {
		r.t.Skip("this is not root, who can start processes of another user")
	}
	require.NoError(r.t, os.Chmod(filepath.Dir(r.dir), 0o755))
	require.NoError(r.t, filepath.WalkDir(r.dir, func(path string, _ os.DirEntry, err error) error {
		require.NoError(r.t, err)
		return os.Chown(path, uid, uid)
	}))
	installSelf(r.t, r.path("program"))
	cmd.Path = r.path("program")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
}

// installSelf makes a program of the tests that every user may run. Another program writes
// it: a process that a test forks meanwhile would have it open, and it could not be run.
func installSelf(t *testing.T, path string) {
	t.Helper()
	require.NoError(t, exec.Command("install", "-m", "755", os.Args[0], path).Run())
}

// Much of /proc/self belongs to root then.
func TestAHardenedAgentWorksWithoutRoot(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"KEY": "one"})
	require.NoError(t, os.MkdirAll(r.path("fixed"), 0o755))
	require.NoError(t, os.Chmod(r.path("fixed"), 0o755))
	r.write("fixed/nexa.json", "{}")
	config := r.write("x.hcl", interval+"log_file = \"/dev/stderr\"\n"+r.drop("nexa", "  reload {\n    signal = \"HUP\"\n    process = \"program\"\n    command_line = \"a service\"\n  }\n")+
		strings.Replace(r.drop("nexa", "  write = \"in_place\"\n  check { command = [\"grep\", \"-q\", \"KEY\", \"{{.Path}}\"] }\n"), "nexa.json", "fixed/nexa.json", 1))
	p := &running{r: r, cmd: r.command("run", "--config", config)}
	service := exec.Command(os.Args[0], "a service")
	service.Env = []string{"TEST_BE=service", "TEST_DIR=" + r.dir}
	r.asNobody(service)
	r.asNobody(p.cmd)
	// No file can be made in this folder: what is checked is in memory.
	require.NoError(t, os.Chown(r.path("fixed"), 0, 0))
	require.NoError(t, service.Start())
	t.Cleanup(func() { _ = service.Process.Kill(); _ = service.Wait() })
	r.eventually("the service is up", func() bool { return r.read("service.pid") != "" })
	log, err := os.Create(r.path("output.log")) // Such files are searched for secrets.
	require.NoError(t, err)
	require.NoError(t, log.Chown(65534, 65534))
	p.cmd.Stdout, p.cmd.Stderr = log, log
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() { _ = p.cmd.Process.Kill(); _ = p.cmd.Wait() })
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(r.read("output.log"))
		}
	})
	r.eventually("the files", func() bool {
		return strings.Contains(r.read("nexa.json"), "one") && strings.Contains(r.read("fixed/nexa.json"), "one")
	})
	assert.NotContains(t, p.proc("environ"), r.SecretID)
	for _, name := range []string{"environ", "maps", "fd"} {
		look := exec.Command("ls", fmt.Sprintf("/proc/%d/%s/", p.cmd.Process.Pid, name))
		if name != "fd" {
			look = exec.Command("cat", fmt.Sprintf("/proc/%d/%s", p.cmd.Process.Pid, name))
		}
		look.SysProcAttr = p.cmd.SysProcAttr
		out, err := look.CombinedOutput()
		require.Error(t, err, name)
		assert.Contains(t, string(out), "Permission denied", name)
	}
	r.Put("nexa", map[string]any{"KEY": "two"})
	r.eventually("the service is told", func() bool { return r.read("hups") == "x" })
	assert.Contains(t, r.read("output.log"), "logged in to Vault")
	p.stop()
}

func TestMemoryIsLockedWhereAskedForOrItSaysWhatThatNeeds(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"KEY": "one"})
	config := r.write("x.hcl", "mlock = true\n"+interval+r.drop("nexa", ""))
	p := &running{r: r, cmd: r.command("run", "--config", config)}
	r.asNobody(p.cmd)
	p.cmd.Stderr = p
	require.Error(t, p.cmd.Run())
	assert.Equal(t, exitUsage, p.cmd.ProcessState.ExitCode())
	assert.Contains(t, p.log(), "mlock = true: locking memory needs no limit for it, or the capability IPC_LOCK: LimitMEMLOCK=infinity")

	out, code := r.deaddrop("render", "--config", config)
	if strings.Contains(out, "locking memory needs") {
		t.Skip("root may not lock memory here")
	}
	require.Zero(t, code, out)
	require.NoError(t, os.Remove(r.path("nexa.json")))
	p = r.start("run", "--config", config)
	r.eventually("the file", func() bool { return r.read("nexa.json") != "" })
	assert.Regexp(t, `VmLck:\s+[1-9]`, p.proc("status"))
	p.stop()
}
