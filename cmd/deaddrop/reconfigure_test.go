package main

import (
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/vaulttest"
)

func TestReconfigure_AppliesLogAndPIDFileAndNamesWhatNeedsARestart(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"KEY": "one"})
	base := r.Login(r.dir) + interval + r.drop("nexa", "")
	config := r.write("x.hcl", base+"log_file = \"one.log\"\nlog_level = \"warn\"\npid_file = \"one.pid\"\n")
	p := r.start("run", "--config", config)
	r.eventually("the file", func() bool { return strings.Contains(r.read("nexa.json"), "one") })
	pid := strconv.Itoa(p.cmd.Process.Pid) + "\n"
	assert.Equal(t, pid, r.read("one.pid"))

	r.write("x.hcl", base+"log_file = \"two.log\"\nlog_level = \"info\"\nlog_format = \"text\"\npid_file = \"two.pid\"\nmlock = true\n")
	r.eventually("the pid file is moved", func() bool { return r.read("two.pid") == pid && r.read("one.pid") == "" })
	r.Put("nexa", map[string]any{"KEY": "two"})
	r.eventually("the change arrives", func() bool { return strings.Contains(r.read("nexa.json"), "two") })
	r.eventually("it is logged", func() bool { return strings.Contains(r.read("two.log"), "level=INFO") })
	assert.Contains(t, r.read("one.log"), `"level":"WARN","msg":"configuration change needs a restart","settings":["mlock"]`)
	assert.NotContains(t, r.read("one.log"), "INFO")
	p.stop()
	assert.Contains(t, r.read("two.log"), "ending, as it was asked to")
	assert.NoFileExists(t, r.path("two.pid"))
	assert.Empty(t, p.log())
}

func TestReconfigure_AFlagForTheLogLevelGoesBeforeAChangedConfiguration(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"KEY": "one"})
	base := r.Login(r.dir) + interval
	p := r.start("run", "--log-level", "error", "--config", r.write("x.hcl", base+r.drop("nexa", "")))
	r.eventually("the file", func() bool { return strings.Contains(r.read("nexa.json"), "one") })
	r.write("x.hcl", base+"log_level = \"debug\"\n"+r.drop("nexa", "  perms = \"0640\"\n"))
	r.eventually("the change counts", func() bool {
		info, err := os.Stat(r.path("nexa.json"))
		return err == nil && info.Mode() == 0o640
	})
	p.stop()
	assert.Empty(t, p.log())
}

func TestHangup_OpensTheLogFileAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"KEY": "one"})
	p := r.start("run", "--config", r.write("x.hcl", r.Login(r.dir)+interval+"log_file = \"agent.log\"\n"+r.drop("nexa", "")))
	r.eventually("the file", func() bool { return strings.Contains(r.read("nexa.json"), "one") })
	r.eventually("it is logged", func() bool { return strings.Contains(r.read("agent.log"), "nexa.json") })

	require.NoError(t, os.Rename(r.path("agent.log"), r.path("agent.log.1")))
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	r.eventually("a new file", func() bool { return strings.Contains(r.read("agent.log"), "reading everything again") })
	before := r.read("agent.log.1")
	assert.Contains(t, before, "logged in")

	require.NoError(t, os.Rename(r.path("agent.log"), r.path("agent.log.2")))
	require.NoError(t, os.Symlink("elsewhere", r.path("agent.log")))
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	r.eventually("a link is refused", func() bool {
		return strings.Contains(r.read("agent.log.2"), "cannot open log file, keeping the old one")
	})
	r.Put("nexa", map[string]any{"KEY": "two"})
	r.eventually("it goes on", func() bool { return strings.Contains(r.read("nexa.json"), "two") })
	p.stop()
	assert.Contains(t, r.read("agent.log.2"), "ending, as it was asked to")
	assert.Equal(t, before, r.read("agent.log.1"))
	assert.NoFileExists(t, r.path("elsewhere"))
}

func TestReconfigure_AMendedTemplateIsTakenAfterARefusal(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"KEY": "v"})
	base := r.Login(r.dir) + interval + r.drop("nexa", "")
	p := r.start("run", "--config", r.write("x.hcl", base))
	r.eventually("the file", func() bool { return strings.Contains(r.read("nexa.json"), "v") })
	require.NoError(t, os.Mkdir(r.path("templates"), 0o700))
	r.write("templates/x.ctmpl", "{{ broken")
	r.write("x.hcl", base+"template {\n  source = \"templates/x.ctmpl\"\n  destination = \"out\"\n}\n")
	r.eventually("it is refused", func() bool { return strings.Contains(p.log(), "configuration refused, keeping the old one") })
	r.write("templates/x.ctmpl", "mended")
	r.eventually("it is taken", func() bool { return r.read("out") == "mended" })
	p.stop()
}

func TestHangup_TellsSystemdBeforeAndAfter(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"KEY": "one"})
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: r.path("notify"), Net: "unixgram"})
	require.NoError(t, err)
	defer func() { _ = socket.Close() }()
	require.NoError(t, socket.SetReadDeadline(time.Now().Add(time.Minute)))
	says := func(line string) {
		t.Helper()
		for buffer := make([]byte, 4096); ; {
			n, err := socket.Read(buffer)
			require.NoError(t, err, line)
			if strings.HasPrefix(string(buffer[:n]), line) {
				return
			}
		}
	}
	r.env = append(r.env, "NOTIFY_SOCKET="+r.path("notify"))
	base := r.Login(r.dir) + "template_config { static_secret_render_interval = \"1h\" }\n" + r.drop("nexa", "")
	p := r.start("run", "--config", r.write("x.hcl", base))
	says("READY=1")
	r.Put("nexa", map[string]any{"KEY": "two"})
	r.write("x.hcl", base+strings.Replace(r.drop("nexa", ""), "nexa.json", "more.json", 1))
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	says("RELOADING=1\n")
	says("READY=1")
	assert.NotEmpty(t, r.read("more.json"), "the new configuration counts by then")
	r.eventually("all secrets are read", func() bool { return strings.Contains(r.read("nexa.json"), "two") })
	p.stop()
}
