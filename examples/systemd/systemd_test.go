// Package systemd tests the units of this folder: by systemd-analyze, and under a
// real systemd, as process 1 of a container.
package systemd

import (
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/dockertest"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// nexa is a service that notes down with which key it was started.
const nexa = `[Service]
User=nexa
Group=nexa
StateDirectory=nexa
ExecStart=/bin/sh -c 'echo "$API_KEY" >>/var/lib/nexa/keys; exec sleep infinity'
`

// lifted is all that a container cannot do (its kernel may have no user namespaces),
// and a watchdog that the test need not wait for long.
const lifted = `[Service]
PrivateUsers=no
WatchdogSec=3
`

// machine is one that nexa and the files of this folder were brought to, as their
// README begins.
type machine struct {
	*dockertest.Machine
	tenant *vaulttest.Tenant
	t      *testing.T
	vault  *vaulttest.Server
	keys   []string // that nexa has had
}

func boot(t *testing.T) *machine {
	t.Helper()
	dockertest.Engine(t)
	m := &machine{t: t, vault: vaulttest.Own(t)}
	address := outward(t, m.vault.Address)
	m.tenant = m.vault.Tenant(t)
	files := map[string]string{
		"etc/systemd/system/nexa.service":                           nexa,
		"etc/systemd/system/deaddrop@.service.d/lifted.conf":        lifted,
		"etc/systemd/system/deaddrop-render@.service.d/lifted.conf": lifted,
		"src/deaddrop.env": "VAULT_ROLE_ID=" + m.tenant.RoleID + "\nVAULT_SECRET_ID=" + m.tenant.SecretID + "\n",
		"etc/passwd":       read(t, "/etc/passwd") + "nexa:x:5000:5000::/:/usr/sbin/nologin\n",
		"etc/group":        read(t, "/etc/group") + "nexa:x:5000:\n",
	}
	for _, name := range shipped(t) {
		files["src/examples/systemd/"+name] = read(t, name)
	}
	config := strings.NewReplacer("https://vault.example:8200", address, "secret/tenant/demo/nexa", m.tenant.Path("nexa"))
	files["src/examples/systemd/nexa.hcl"] = config.Replace(files["src/examples/systemd/nexa.hcl"]) + "template_config { static_secret_render_interval = \"1s\" }\n"
	program := dockertest.Build(t, "../../cmd/deaddrop")
	require.NoError(t, os.Chmod(filepath.Dir(program), 0o755))
	m.Machine = dockertest.Boot(t, files, nil, "--tmpfs", "/usr/local/bin:exec", "-v", program+":/src/bin/deaddrop:ro")
	return m
}

// outward lets containers reach a server that listens on loopback, as devvault does.
func outward(t *testing.T, address string) string {
	t.Helper()
	bridge, err := net.InterfaceByName("docker0")
	if err != nil {
		t.Skipf("containers have no bridge to this machine: %v", err)
	}
	addresses, err := bridge.Addrs()
	require.NoError(t, err)
	require.NotEmpty(t, addresses)
	l, err := net.Listen("tcp", net.JoinHostPort(addresses[0].(*net.IPNet).IP.String(), "0"))
	require.NoError(t, err)
	target, err := url.Parse(address)
	require.NoError(t, err)
	server := &http.Server{Handler: httputil.NewSingleHostReverseProxy(target), ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return "http://" + l.Addr().String()
}

// shipped are the files of this folder that are for users.
func shipped(t *testing.T) []string {
	t.Helper()
	names := []string{}
	require.NoError(t, filepath.WalkDir(".", func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && filepath.Ext(path) != ".go" {
			names = append(names, path)
		}
		return err
	}))
	return names
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(content)
}

// sh runs a script in the machine, which must succeed.
func (m *machine) sh(script string) string {
	m.t.Helper()
	out, err := m.Run("/bin/sh", "-ec", script)
	require.NoError(m.t, err, "%s\n%s", script, out)
	return out
}

func (m *machine) soon(what string, ok func() bool) {
	m.t.Helper()
	require.Eventually(m.t, ok, time.Minute, 50*time.Millisecond, what)
}

// steps are what the README tells to do, a block each of this kind.
func steps(t *testing.T, kind string) []string {
	t.Helper()
	var steps []string
	for _, block := range regexp.MustCompile("(?s)```"+kind+"\n(.*?)```").FindAllStringSubmatch(read(t, "README.md"), -1) {
		steps = append(steps, block[1])
	}
	require.NotEmpty(t, steps)
	return steps
}

// is reads a property of a unit.
func (m *machine) is(property, unit string) string {
	out, _ := m.Run("systemctl", "show", "--value", "-p", property, unit)
	return out
}

// becomes waits until a property of a unit is so.
func (m *machine) becomes(unit, property, want string) {
	m.t.Helper()
	m.soon(unit+" has "+property+"="+want, func() bool { return m.is(property, unit) == want })
}

// put gives nexa a new key, and returns it.
func (m *machine) put() (key string) {
	key = vaulttest.Marker()
	m.tenant.Put("nexa", map[string]any{"API_KEY": key})
	m.keys = append(m.keys, key)
	return key
}

// starts waits until nexa was last started with a key.
func (m *machine) starts(key string) {
	m.t.Helper()
	m.soon("nexa starts with the key", func() bool {
		out, _ := m.Run("tail", "-n1", "/var/lib/nexa/keys")
		return out == key
	})
}

// configure adds to the configuration as the README has it.
func (m *machine) configure(more string) {
	m.t.Helper()
	m.sh("cat /src/examples/systemd/nexa.hcl - >/etc/deaddrop/nexa.hcl <<'END'\n" + more + "\nEND")
}

const agent = "deaddrop@nexa.service"

func TestUnderARealSystemd(t *testing.T) {
	m := boot(t)
	key := m.put()
	for _, step := range steps(t, "sh") {
		m.sh("cd /src\n" + step)
	}
	for _, part := range []struct {
		name string
		test func()
	}{
		{"the README brings agent and service up, in order", func() {
			m.starts(key)
			assert.Contains(m.t, m.sh("deaddrop status --address unix:///run/deaddrop/nexa/status.sock"), "the drop is current")
			out := m.sh("systemctl status " + agent)
			assert.Contains(m.t, out, `Status: "the drop is current"`)
			assert.Contains(m.t, out, "active (running)")
			ready, started := m.is("ActiveEnterTimestampMonotonic", agent), m.is("ExecMainStartTimestampMonotonic", "nexa")
			assert.Less(m.t, number(m.t, ready), number(m.t, started), "in microseconds")
			assert.Regexp(m.t, `(?s)CapBnd:\s+0000000000000000\n.*NoNewPrivs:\s+1\n`, m.sh("cat /proc/"+m.is("MainPID", agent)+"/status"))
			assert.Equal(m.t, "640 deaddrop-nexa nexa", m.sh("stat -c '%a %U %G' /run/deaddrop/nexa/nexa.env"))
			environ := m.sh("tr '\\0' '\\n' </proc/" + m.is("MainPID", agent) + "/environ")
			assert.Contains(m.t, environ, "CREDENTIALS_DIRECTORY=/run/credentials/deaddrop@nexa.service")
			assert.NotContains(m.t, environ, "VAULT_")
			_, err := exec.Command("docker", "exec", "-u", "nexa", m.ID, "cat", "/run/deaddrop/nexa/nexa.env").Output()
			assert.NoError(m.t, err, "the service may read its file")
			_, err = exec.Command("docker", "exec", "-u", "nobody", m.ID, "cat", "/run/deaddrop/nexa/nexa.env").Output()
			assert.Error(m.t, err, "and others may not")
			assert.Regexp(m.t, `Max core file size +0 +0 `, m.sh("cat /proc/"+m.is("MainPID", agent)+"/limits"))
		}},
		{"systemd-analyze has no complaint about what is installed", func() {
			assert.Empty(m.t, m.sh("systemd-analyze verify "+agent+" deaddrop-render@nexa.service"))
		}},
		{"a rotated secret restarts the service, as polkit allows it", func() {
			m.starts(m.put())
			m.becomes("nexa", "ActiveState", "active")
			assert.Equal(m.t, "640 deaddrop-nexa nexa", m.sh("stat -c '%a %U %G' /run/deaddrop/nexa/nexa.env"))
			assert.NotContains(m.t, m.sh("journalctl -u "+agent), `"level":"WARN"`)
		}},
		{"polkit allows the agent nothing else", func() {
			for _, command := range []string{"stop nexa", "restart dbus", "start nexa"} {
				args := append([]string{"exec", "-u", "deaddrop-nexa", m.ID, "systemctl", "--no-ask-password"}, strings.Fields(command)...)
				out, err := exec.Command("docker", args...).CombinedOutput()
				assert.Error(m.t, err, command)
				assert.Contains(m.t, string(out), "authentication required", command)
			}
		}},
		{"a journal is the agent's alone, and outlives it", func() {
			m.configure(`drop "later" {
  secret      = "` + m.tenant.Path("nexa") + `"
  destination = "/run/deaddrop/nexa/later.json"
  reload {
    command  = ["/bin/sh", "-c", "test -e /run/deaddrop/nexa/ready && touch /run/deaddrop/nexa/reloaded"]
    on_start = true
  }
}`)
			journal := func() string {
				out, _ := m.Run("sh", "-c", "stat -c '%a %U' /var/lib/deaddrop/nexa/later.json-*.json 2>/dev/null")
				return out
			}
			m.sh("systemctl restart " + agent)
			m.soon("the reload is pending", func() bool { return strings.Contains(m.sh("journalctl -u "+agent), "reload failed") })
			assert.Equal(m.t, "600 deaddrop-nexa", journal())
			assert.Equal(m.t, "755 root root\n700 deaddrop-nexa nexa", m.sh("stat -c '%a %U %G' /var/lib/deaddrop /var/lib/deaddrop/nexa"))
			m.sh("systemctl stop " + agent + "; touch /run/deaddrop/nexa/ready; systemctl start " + agent)
			m.soon("the next agent reloads", func() bool { _, err := m.Run("test", "-e", "/run/deaddrop/nexa/reloaded"); return err == nil })
			m.soon("nothing is pending", func() bool { return journal() == "" })
			said := m.sh("journalctl -u " + agent)
			assert.NotContains(m.t, said, "state directory")
			assert.NotContains(m.t, said, "journal ")
			m.sh("rm /run/deaddrop/nexa/later.json")
			m.configure("")
			m.sh("systemctl restart " + agent)
		}},
		{"a file in the RuntimeDirectory= of a unit that restarts is put back", func() {
			m.sh(`cat >/etc/systemd/system/volatile.service <<'END'
[Service]
User=nexa
Group=nexa
RuntimeDirectory=volatile
RuntimeDirectoryMode=0770
ExecStart=/bin/sleep infinity
END
mkdir -p /etc/systemd/system/deaddrop@nexa.service.d
printf '[Service]\nReadWritePaths=/run\n' >/etc/systemd/system/deaddrop@nexa.service.d/volatile.conf
systemctl daemon-reload
systemctl start volatile`)
			m.configure(`drop "volatile" {
  secret      = "` + m.tenant.Path("nexa") + `"
  destination = "/run/volatile/nexa.json"
}`)
			m.sh("systemctl restart " + agent)
			m.becomes(agent, "StatusText", "all 2 drops are current")
			before := m.sh("stat -c %i /run/volatile/nexa.json; sha256sum /run/volatile/nexa.json")
			m.sh("systemctl restart volatile")
			m.soon("it is put back", func() bool { _, err := m.Run("test", "-e", "/run/volatile/nexa.json"); return err == nil })
			assert.NotEqual(m.t, before, m.sh("stat -c %i /run/volatile/nexa.json; sha256sum /run/volatile/nexa.json"), "it is another file")
			m.becomes(agent, "StatusText", "all 2 drops are current")
			assert.Contains(m.t, m.sh("journalctl -u "+agent), "file was changed by another program, restored it")
			m.sh("systemctl stop volatile; rm /etc/systemd/system/volatile.service /etc/systemd/system/deaddrop@nexa.service.d/volatile.conf; systemctl daemon-reload")
			m.configure("")
			m.sh("systemctl restart " + agent)
		}},
		{"a reload takes as long as the new configuration does, and a slow check is no hang", func() {
			m.configure(`drop "slow" {
  secret      = "` + m.tenant.Path("nexa") + `"
  destination = "/run/deaddrop/nexa/slow.json"
  check { command = ["/bin/sh", "-c", "env >/run/deaddrop/nexa/environ; sleep 8"] }
}`)
			m.sh("systemctl reload --no-block " + agent)
			m.becomes(agent, "ActiveState", "reloading")
			m.becomes(agent, "ActiveState", "active")
			m.becomes(agent, "StatusText", "all 2 drops are current")
			assert.Equal(m.t, "0", m.is("NRestarts", agent), "the check took longer than the watchdog waits")
			environ := m.sh("cat /run/deaddrop/nexa/environ")
			assert.Contains(m.t, environ, "INVOCATION_ID=")
			assert.NotRegexp(m.t, "(?m)^(NOTIFY_|WATCHDOG_)", environ, "a check has nothing to say to systemd")
		}},
		{"a bad configuration is refused by a running agent", func() {
			m.configure("nonsense = 1")
			m.sh("systemctl reload " + agent)
			m.soon("the refusal is logged", func() bool {
				out, _ := m.Run("journalctl", "-u", agent)
				return strings.Contains(out, "configuration refused, keeping the old one")
			})
			assert.Equal(m.t, "all 2 drops are current", m.is("StatusText", agent))
		}},
		{"and an agent that is started with it is not started again and again", func() {
			service := m.is("MainPID", "nexa")
			_, err := m.Run("systemctl", "restart", agent)
			assert.Error(m.t, err)
			assert.Equal(m.t, "failed exit-code 2 0", m.is("ActiveState", agent)+" "+m.is("Result", agent)+" "+m.is("ExecMainStatus", agent)+" "+m.is("NRestarts", agent))
			assert.Equal(m.t, service, m.is("MainPID", "nexa"), "the service goes on")
			m.configure("")
			m.sh("systemctl start " + agent)
		}},
		{"an agent that hangs is killed by the watchdog, and comes back", func() {
			before, service := m.is("MainPID", agent), m.is("MainPID", "nexa")
			m.sh("systemctl kill -s STOP --kill-whom=main " + agent)
			m.becomes(agent, "NRestarts", "1")
			m.becomes(agent, "ActiveState", "active")
			assert.NotEqual(m.t, before, m.is("MainPID", agent))
			assert.Equal(m.t, service, m.is("MainPID", "nexa"), "the service goes on")
			m.starts(m.put())
		}},
		{"an agent that crashes is not taken for one with a bad configuration", func() {
			before := m.is("NRestarts", agent)
			m.sh("systemctl kill -s SEGV --kill-whom=main " + agent) // Go takes it like a panic.
			m.soon("it is started again", func() bool { return m.is("NRestarts", agent) != before })
			m.becomes(agent, "ActiveState", "active")
		}},
		{"an agent that someone has ended comes back, too", func() {
			before := m.is("NRestarts", agent)
			m.sh("kill $(systemctl show --value -p MainPID " + agent + ")")
			m.becomes(agent, "NRestarts", strconv.Itoa(number(m.t, before)+1))
			m.becomes(agent, "ActiveState", "active")
			assert.Contains(m.t, m.sh("journalctl -u "+agent), "terminated signal received")
		}},
		{"an agent that may signal does", func() {
			m.sh("mkdir -p /etc/systemd/system/deaddrop@nexa.service.d\ncat >/etc/systemd/system/deaddrop@nexa.service.d/signal.conf <<'END'\n" + steps(m.t, "ini")[0] + "END\n" +
				`sed -i -e 's/unit  .*/process = "sleep"/' -e 's/action .*/signal = "USR1"/' /etc/deaddrop/nexa.hcl
				systemctl daemon-reload
				systemctl restart ` + agent)
			m.starts(m.put()) // The signal ends sleep, and systemd restarts nexa.
			assert.Contains(m.t, m.sh("journalctl -u nexa"), "status=10/USR1")
			m.sh("rm /etc/systemd/system/deaddrop@nexa.service.d/signal.conf; systemctl daemon-reload")
			m.configure("")
			m.sh("systemctl restart " + agent)
		}},
		{"without Vault an agent with files of before is ready after a while", func() {
			m.seal()
			m.sh("systemctl restart " + agent)
			assert.Equal(m.t, "the drop is not current", m.is("StatusText", agent))
			m.sh("systemctl restart nexa")
			m.unseal()
			m.becomes(agent, "StatusText", "the drop is current")
		}},
		{"stopping is done in time, and keeps the files", func() {
			m.sh("systemctl stop nexa " + agent)
			assert.Equal(m.t, "success", m.is("Result", agent))
			m.sh("test -f /run/deaddrop/nexa/nexa.env")
		}},
		{"a service waits for a Vault that is sealed at boot", func() {
			m.sh("rm -r /run/deaddrop/nexa")
			m.seal()
			m.sh("systemctl start --no-block nexa")
			m.becomes(agent, "StatusText", "the drop is not current")
			assert.Equal(m.t, "activating", m.is("ActiveState", agent))
			assert.Equal(m.t, "inactive", m.is("ActiveState", "nexa"))
			m.unseal()
			m.becomes("nexa", "ActiveState", "active")
			m.starts(m.keys[len(m.keys)-1])
		}},
		{"the one-shot comes before the service, too", func() {
			m.sh("systemctl stop nexa; systemctl disable --now " + agent + "; rm -r /run/deaddrop/nexa")
			key := m.put()
			m.sh("systemctl enable deaddrop-render@nexa; systemctl start nexa")
			m.starts(key)
			assert.Equal(m.t, "active exited", m.is("ActiveState", "deaddrop-render@nexa")+" "+m.is("SubState", "deaddrop-render@nexa"))
			assert.Equal(m.t, "inactive", m.is("ActiveState", agent))
		}},
		{"credentials may be encrypted", func() {
			m.sh(steps(m.t, "sh encrypted")[0])
			assert.Equal(m.t, "active", m.is("ActiveState", agent))
			assert.NotContains(m.t, m.sh("cat /etc/deaddrop/*.cred"), m.tenant.SecretID)
			m.starts(m.put())
		}},
		{"no secret is left anywhere but in files", func() {
			said := m.sh("journalctl -a; systemctl show nexa " + agent + " deaddrop-render@nexa; systemctl status --no-pager nexa " + agent + " || true; ps -ef")
			for _, secret := range append(m.keys, m.tenant.SecretID) {
				assert.NotContains(m.t, said, secret)
			}
			assert.Contains(m.t, said, "goroutine", "the watchdog made the agent say where it hung")
			assert.Empty(m.t, m.sh("find / -xdev -name 'core*' -type f -not -path '/proc/*' -not -path '/usr/*'; ls /var/lib/systemd/coredump 2>/dev/null || true"))
		}},
	} {
		if !t.Run(part.name, func(t *testing.T) {
			m.t = t
			part.test()
		}) {
			out, _ := m.Run("sh", "-c", "systemctl status --no-pager nexa "+agent+"; systemctl show "+agent+" | grep ExecMain; journalctl -o short-precise -u nexa -u "+agent+" | grep -v 'goroutine\\|/src/' | tail -n 100")
			t.Fatal(out)
		}
	}
}

func (m *machine) seal() {
	m.t.Helper()
	require.NoError(m.t, m.vault.Client.Sys().Seal())
}

func (m *machine) unseal() {
	m.t.Helper()
	for _, key := range m.vault.UnsealKeys {
		_, err := m.vault.Client.Sys().Unseal(key)
		require.NoError(m.t, err)
	}
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	require.NoError(t, err)
	return n
}

// A machine without Docker can still judge the files.
func TestTheUnitsAreSoundAndHardened(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skipf("there is no systemd-analyze here: %v", err)
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "deaddrop")
	require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755))
	for _, name := range []string{"deaddrop@", "deaddrop-render@"} {
		unit := filepath.Join(dir, name+"nexa.service")
		text := strings.ReplaceAll(read(t, name+".service"), "/usr/local/bin/deaddrop", program)
		require.NoError(t, os.WriteFile(unit, []byte(text), 0o600))
		out, err := exec.Command("systemd-analyze", "verify", "--man=no", unit).CombinedOutput()
		assert.NoError(t, err, "%s", out)
		assert.Empty(t, string(out))
		out, err = exec.Command("systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=12", unit).CombinedOutput()
		assert.NoError(t, err, "%s", out)
	}
}
