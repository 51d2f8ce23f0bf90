package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/servicetest"
	"github.com/smarteros/deaddrop/compose/dockertest"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// drop is a block that writes the secret of a service as JSON.
func (r *rig) drop(service, body string) string {
	return fmt.Sprintf("drop %q {\n  secret = %q\n  destination = \"%s.json\"\n%s\n}\n", service, r.Path(service), service, body)
}

// note is a reload block whose command adds a word to the file "notes".
func note(word, more string) string {
	return fmt.Sprintf("  reload {\n    command = [\"sh\", \"-c\", \"echo $1 >>notes\", \"sh\", %q]\n%s\n  }\n", word, more)
}

// reloads is the status once it tells of reloads, which come last.
func (p *running) reloads() string {
	status := p.status()
	p.r.eventually("status of a reload", func() bool {
		log := p.log()
		status = log[strings.LastIndex(log, "status of the session"):]
		return strings.Contains(status, "status of a reload") && strings.HasSuffix(status, "\n")
	})
	return status
}

func TestReloadsRunInOrderOncePerBatchAndNotBeforeTheyAreWanted(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Allow("secret/data/tenant/" + r.ID + "/smtp")
	r.Put("nexa", map[string]any{"v": 1})
	r.Put("smtp", map[string]any{"v": 1})
	shared := note("shared", "")
	config := r.write("x.hcl", r.Login(r.dir)+interval+
		r.drop("nexa", note("first", "")+"  exec { command = [\"sh\", \"-c\", \"echo exec >>notes\"] }\n"+note("start", "on_start = true")+shared)+
		r.drop("smtp", shared))
	p := r.start("run", "--config", config)
	r.eventually("what wants to be told of the first time is", func() bool { return r.read("notes") == "exec\nstart\n" })
	assert.Contains(t, p.reloads(), `"state":"not needed yet"`)
	r.Put("nexa", map[string]any{"v": 1})
	r.Put("smtp", map[string]any{"v": 1})
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	r.eventually("it has looked", func() bool { return strings.Contains(p.log(), "reading everything again") })
	r.Put("smtp", map[string]any{"v": 2})
	r.eventually("one file has changed", func() bool { return r.read("notes") == "exec\nstart\nshared\n" })
	p.stop()

	r.Put("nexa", map[string]any{"v": 3})
	r.Put("smtp", map[string]any{"v": 3})
	p = r.start("run", "--config", config)
	all := "exec\nstart\nshared\nfirst\nexec\nstart\nshared\n"
	r.eventually("both files have changed while it was away", func() bool { return r.read("notes") == all })
	p.stop()
	assert.Equal(t, all, r.read("notes"), "what both share ran once")
	out, code := r.deaddrop("render", "--config", config)
	require.Zero(t, code, out)
	assert.Equal(t, all, r.read("notes"), "nothing has changed")
}

func TestNothingIsReloadedAfterAFailedCheck(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"v": 1})
	config := r.write("x.hcl", r.Login(r.dir)+interval+
		r.drop("nexa", note("told", "on_start = true")+"  check { command = [\"grep\", \"-q\", \"1\", \"{{.Path}}\"] }\n"))
	p := r.start("run", "--config", config)
	r.eventually("the first is told", func() bool { return r.read("notes") == "told\n" })
	r.Put("nexa", map[string]any{"v": 2})
	r.eventually("it is refused", func() bool { return strings.Contains(p.log(), "check refused new content") })
	r.Put("nexa", map[string]any{"v": 11})
	r.eventually("the next one is told", func() bool { return r.read("notes") == "told\ntold\n" })
	p.stop()
}

func TestAFailedReloadIsRetriedAndSaysWhyWithoutSecrets(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	before, after := vaulttest.Marker(), vaulttest.Marker()
	r.Put("nexa", map[string]any{"key": before})
	reload := "  reload {\n    command = [\"sh\", \"-c\", \"echo was " + `%s; cat $DEADDROP_CHANGED_FILES; test -e ready && touch done` + "\"]\n    show_output = true\n  }\n"
	config := r.write("x.hcl", r.Login(r.dir)+interval+r.drop("nexa", fmt.Sprintf(reload, "$(cat old)")))
	p := r.start("run", "--config", config)
	r.eventually("the file is there", func() bool { return strings.Contains(r.read("nexa.json"), before) })
	r.write("old", before)
	r.Put("nexa", map[string]any{"key": after})
	r.eventually("it has failed", func() bool { return strings.Contains(p.log(), "reload failed, retrying") })
	status := p.reloads()
	assert.Contains(t, status, `"state":"failed"`)
	assert.Regexp(t, `"error":"command sh \([^)]*x.hcl:\d+\): exit status 1"`, status)
	assert.Contains(t, p.log(), `"output":"was [redacted]\n{\n  \"key\": \"[redacted]\"\n}"`)
	assert.Contains(t, status, `"state":"current"`, "the file is what it should be")
	assert.Contains(t, r.read("nexa.json"), after)
	r.write("ready", "")
	r.eventually("it succeeds at last", func() bool { return strings.Contains(p.log(), `"msg":"reloaded"`) })
	assert.FileExists(t, r.path("done"))
	p.stop()
	assert.Equal(t, 1, strings.Count(p.log(), "reload failed"))
	assert.NotContains(t, p.log(), before)
	assert.NotContains(t, p.log(), after)
}

func TestAReloadThatCannotWorkIsNamedAtStartAndMendedByTheConfiguration(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"v": 1})
	head := r.Login(r.dir) + interval
	config := r.write("x.hcl", head+r.drop("nexa", "  reload { command = [\"no-such-program\"] }\n"))
	p := r.start("run", "--config", config)
	r.eventually("it is named", func() bool { return strings.Contains(p.log(), "reload cannot work") })
	assert.Contains(t, p.log(), "there is no program no-such-program")
	r.eventually("the file is there all the same", func() bool { return r.read("nexa.json") != "" })
	assert.Contains(t, p.reloads(), `"state":"not ready"`)
	r.Put("nexa", map[string]any{"v": 2})
	r.eventually("it fails", func() bool { return strings.Contains(p.log(), "reload failed") })
	r.write("x.hcl", head+r.drop("nexa", note("mended", "")))
	r.eventually("the change is told all the same", func() bool { return r.read("notes") == "mended\n" })
	p.stop()
}

func TestWaitGathersChanges(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"v": 1})
	config := r.write("x.hcl", r.Login(r.dir)+interval+r.drop("nexa", note("told", "")+"  wait {\n    min = \"3s\"\n    max = \"1m\"\n  }\n"))
	p := r.start("run", "--config", config)
	r.eventually("the first file does not wait", func() bool { return r.read("nexa.json") != "" })
	for v := 2; v <= 4; v++ {
		r.Put("nexa", map[string]any{"v": v})
		require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
		time.Sleep(500 * time.Millisecond) // Changes that come one after the other in real time.
	}
	r.eventually("the last one is written", func() bool { return strings.Contains(r.read("nexa.json"), "4") })
	r.eventually("and told", func() bool { return r.read("notes") != "" })
	p.stop()
	assert.Equal(t, "told\n", r.read("notes"))
	assert.Equal(t, 1, strings.Count(p.log(), "file changed"))
}

func TestACommandIsStartedOnceItsFilesAreThereAndGetsTheirReloads(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"v": 1})
	config := r.write("x.hcl", r.Login(r.dir)+interval+r.drop("nexa", "  reload {\n    exec   = true\n    signal = \"USR1\"\n  }\n")+`
exec {
  `+command(servicetest.Service{File: "notes", Start: "${file:nexa.json}", On: map[string]string{"USR1": "${file:nexa.json}"}, Exit: map[string]int{"TERM": 7}})+`
}
`)
	p := r.start("run", "--config", config)
	r.eventually("it has read its file", func() bool { return strings.Contains(r.read("notes"), `"v": 1`) })
	r.Put("nexa", map[string]any{"v": 2})
	r.eventually("it was signalled", func() bool { return strings.Contains(r.read("notes"), `"v": 2`) })
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	_ = p.cmd.Wait()
	assert.Equal(t, 7, p.cmd.ProcessState.ExitCode())
}

func TestExec_SaysWhatItsCommandWaitsFor(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.AllowAll()
	r.Put("nexa", map[string]any{"v": 1})
	config := r.write("x.hcl", r.Login(r.dir)+interval+r.drop("nexa", "")+strings.ReplaceAll(r.drop("smtp", ""), "nexa", "smtp")+`
env_template "KEY" {
  contents = "{{ with secret \"`+r.Path("later")+`\" }}{{ .Data.data.KEY }}{{ end }}"
}
exec { command = ["sh", "-c", "echo up >>said; exec sleep 1000"] }
`)
	at := vaulttest.FreeAddress(t)
	p := r.start("run", "--config", config, "--status-address", at)
	r.eventually("it says so", func() bool { return strings.Contains(p.log(), "waiting to start the command") })
	assert.Regexp(t, `"msg":"waiting to start the command","command":"sh","drop":\["smtp","KEY"\],"count":2`, p.log())
	out, _ := r.deaddrop("status", "--address", at)
	assert.Regexp(t, `command: +waiting to start, for smtp, KEY\n`, out)
	r.Put("smtp", map[string]any{"v": 1})
	r.eventually("the file", func() bool { return r.read("smtp.json") != "" })
	assert.Empty(t, r.read("said"))
	r.Put("later", map[string]any{"KEY": "one"})
	r.eventually("the command", func() bool { return r.read("said") != "" })
	r.eventually("the log", func() bool { return strings.Contains(p.log(), "started the command") })
	assert.Equal(t, 1, strings.Count(p.log(), "waiting to start the command"))
	out, _ = r.deaddrop("status", "--address", at)
	assert.Contains(t, out, "ready:")
	assert.NotContains(t, out, "waiting to start")
	p.stop()
}

func TestExec_ItsCommandGoesOnWhenAVariableGrowsTooLarge(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"KEY": strings.Repeat("x", 200_000)})
	config := r.write("x.hcl", r.Login(r.dir)+interval+`
env_template "KEY" {
  contents = "{{ with secret \"`+r.Path("nexa")+`\" }}{{ .Data.data.KEY }}{{ end }}"
}
exec { command = ["sh", "-c", "echo up $(echo $KEY | wc -c) >>said; exec sleep 1000"] }
`)
	p := r.start("run", "--config", config)
	r.eventually("it says so", func() bool { return strings.Contains(p.log(), "variable failed, command not started yet") })
	assert.Contains(t, p.log(), "variable KEY has 200")
	r.Put("nexa", map[string]any{"KEY": "one"})
	r.eventually("the command starts", func() bool { return r.read("said") != "" })
	before := r.read("said")
	r.Put("nexa", map[string]any{"KEY": strings.Repeat("y", 200_000)})
	r.eventually("it says so again", func() bool { return strings.Contains(p.log(), "variable failed, command keeps its environment") })
	assert.Equal(t, before, r.read("said"))
	p.stop()
	assert.NotContains(t, p.log(), "argument list too long")
}

func TestLog_SaysWhetherThereIsAFileToKeep(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"v": nil})
	p := r.start("run", "--config", r.write("x.hcl", r.Login(r.dir)+interval+strings.Replace(r.drop("nexa", ""), "nexa.json", "nexa.toml", 1)+"drop \"no\" {\n  secret = \"secret/denied\"\n  destination = \"no.json\"\n}\n"))
	r.eventually("the drop fails", func() bool { return strings.Contains(p.log(), "drop failed, no file written yet") })
	assert.Contains(t, p.log(), `key \"v\" is null, and TOML has no null`)
	r.Put("nexa", map[string]any{"v": 1})
	r.eventually("the file", func() bool { return r.read("nexa.toml") != "" })
	r.Put("nexa", map[string]any{"v": nil, "w": 1})
	r.eventually("it fails again", func() bool { return strings.Contains(p.log(), "drop failed, keeping last good file") })
	p.stop()
}

// nginx is Debian's, with the configuration of a TLS server.
func (r *rig) nginx() (address string) {
	r.t.Helper()
	program, err := exec.LookPath("nginx")
	if err != nil {
		program = "/usr/sbin/nginx"
	}
	if _, err := os.Stat(program); err != nil {
		r.t.Skip("there is no nginx here")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(r.t, err)
	address = listener.Addr().String()
	require.NoError(r.t, listener.Close())
	config := r.write("nginx.conf", fmt.Sprintf(`
pid %[1]s/nginx.pid;
error_log %[1]s/nginx.log;
worker_processes 1;
events {}
http {
  access_log off;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
  server {
    listen %[2]s ssl;
    ssl_certificate %[1]s/tls/cert.pem;
    ssl_certificate_key %[1]s/tls/key.pem;
    return 204;
  }
}
`, r.dir, address))
	server := exec.Command(program, "-c", config, "-e", r.path("nginx.log"), "-g", "daemon off;")
	require.NoError(r.t, server.Start())
	r.t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGQUIT)
		_ = server.Wait()
		if r.t.Failed() {
			r.t.Log(r.read("nginx.log"))
		}
	})
	return address
}

// served is the serial number of the certificate that a server shows.
func served(address string) string {
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true}) // Which one it is, is looked at.
	if err != nil {
		return ""
	}
	defer func() { _ = conn.Close() }()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.Text(16)
}

func TestNginxServesANewCertificateAfterItsSignal(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	r := newRig(t, s)
	mount := s.PKI(t)
	r.Grant(mount+"/issue/web", "update")
	part := func(file, what string) string {
		return "  template {\n    destination = \"" + file + "\"\n    contents = \"{{ with pkiCert \\\"" + mount + "/issue/web\\\" \\\"common_name=a.example\\\" \\\"ttl=9s\\\" }}{{ ." + what + " }}{{ end }}\"\n  }\n"
	}
	config := r.write("x.hcl", r.Login(r.dir)+interval+"set \"tls\" {\n  destination = \""+r.path("tls")+"\"\n"+part("cert.pem", "Cert")+part("key.pem", "Key")+
		"  reload {\n    signal = \"HUP\"\n    pid_file = \""+r.path("nginx.pid")+"\"\n  }\n}\n")
	p := r.start("run", "--config", config)
	r.eventually("the certificate is there", func() bool { return r.read("tls/key.pem") != "" })
	address := r.nginx()
	r.eventually("nginx serves one", func() bool { return served(address) != "" })
	seen := map[string]bool{}
	r.eventually("it serves three, one after the other", func() bool {
		if serial := served(address); serial != "" {
			seen[serial] = true
		}
		return len(seen) == 3
	})
	p.stop()
}

// compose runs docker-compose, which must succeed.
func (r *rig) compose(project string, args ...string) string {
	r.t.Helper()
	out, err := exec.Command("docker-compose", append([]string{"-p", project, "-f", r.path("docker-compose.yml")}, args...)...).CombinedOutput()
	require.NoError(r.t, err, "%s", out)
	return string(out)
}

func TestASidecarUnderDockerComposeReloadsItsService(t *testing.T) {
	t.Parallel()
	dockertest.Engine(t)
	if _, err := exec.LookPath("docker-compose"); err != nil {
		t.Skip("there is no docker-compose here")
	}
	s := vaulttest.Shared(t)
	r := newRig(t, s)
	image := dockertest.Image(t, sharedImage(t).program)
	service := dockertest.Image(t, dockertest.Build(t, "github.com/smarteros/deaddrop/examples/service"))
	r.Put("nexa", map[string]any{"MODEL": "one", "API_KEY": "key"})
	r.write("x.hcl", r.Login(r.dir)+interval+`
drop "shared namespace" {
  secret      = "`+r.Path("nexa")+`"
  destination = "/shared/nexa.env"
  reload {
    process = "service"
    signal  = "HUP"
  }
}
drop "engine" {
  secret      = "`+r.Path("nexa")+`"
  destination = "/shared/nexa.json"
  reload {
    compose_service = "nexa"
    signal          = "HUP"
  }
}
drop "no such container" {
  secret      = "`+r.Path("nexa")+`"
  destination = "/shared/other.json"
  reload {
    container = "deaddrop-no-such"
    signal    = "HUP"
  }
}
`)
	r.write("docker-compose.yml", fmt.Sprintf(`
services:
  init:
    image: %[1]s
    network_mode: host
    command: render --once --config %[3]s/x.hcl
    volumes: [ "%[3]s:%[3]s:ro", "shared:/shared" ]
  nexa:
    image: %[2]s
    command: /shared/nexa.env /shared/pid
    volumes: [ "shared:/shared" ]
    depends_on: { init: { condition: service_completed_successfully } }
  secrets:
    image: %[1]s
    network_mode: host
    pid: "service:nexa"
    command: run --config %[3]s/x.hcl
    volumes: [ "%[3]s:%[3]s:ro", "shared:/shared", "/var/run/docker.sock:/var/run/docker.sock" ]
  alone:
    image: %[1]s
    network_mode: host
    command: run --config %[3]s/x.hcl
    volumes: [ "%[3]s:%[3]s:ro" ]
volumes:
  shared: {}
`, image, service, r.dir))
	project := dockertest.Name(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(r.compose(project, "logs", "--no-color"))
		}
		r.compose(project, "down", "-v", "-t", "1")
	})
	r.compose(project, "up", "-d")
	ids := map[string]string{}
	for _, service := range []string{"nexa", "secrets", "alone"} {
		ids[service] = strings.TrimSpace(r.compose(project, "ps", "-q", service))
	}
	said := func(service, text string) int {
		return strings.Count(dockertest.Docker(t, "logs", ids[service]), text)
	}
	r.eventuallyInDocker("the service is up", func() bool { return said("nexa", "service started: MODEL=one") == 1 })
	r.eventuallyInDocker("the sidecar is up", func() bool { return said("secrets", "there is no container deaddrop-no-such") == 1 })
	r.Put("nexa", map[string]any{"MODEL": "two", "API_KEY": "key"})
	r.eventuallyInDocker("the service was told, by either way", func() bool { return said("nexa", "service reloaded: MODEL=two") == 2 })
	assert.Zero(t, said("nexa", "reloaded: MODEL=one"))
	r.eventuallyInDocker("a sidecar without the service's namespace and the socket says what to change", func() bool {
		return said("alone", `share the service's: pid:`) >= 1 && said("alone", `there is no Docker socket /var/run/docker.sock: mount it into the agent's container`) >= 1
	})
}

// This deaddrop is process 1 of a container, and so gets the orphans of its
// command.
func TestAsProcessOneItReapsOrphansHandsOnSignalsAndEndsWithTheCode(t *testing.T) {
	t.Parallel()
	dockertest.Engine(t)
	s := vaulttest.Shared(t)
	r := newRig(t, s)
	r.Put("nexa", map[string]any{"v": "first"})
	image := dockertest.Image(t, sharedImage(t).program)
	// The shell and its programs are this machine's.
	for _, dir := range []string{"bin", "lib", "lib64"} {
		if target, err := os.Readlink("/" + dir); err != nil || target != "usr/"+dir {
			t.Skipf("/%s is not a link into /usr, whose shell the container is to use", dir)
		}
	}
	service := servicetest.Service{File: "/dev/stdout", Start: "up $VALUE", On: map[string]string{"USR2": "usr2", "TERM": "stopped"}, Exit: map[string]int{"TERM": 9}}.Args()
	// A shell makes orphans, and then becomes the service.
	orphans := append([]string{"/usr/bin/sh", "-c", `export VALUE="${VALUE%%.*}"; i=0; while [ $i -lt 20 ]; do (/usr/bin/sleep 0.1 &); i=$((i+1)); done; exec "$0" "$@"`, "/service"}, service[1:]...)
	config := r.write("x.hcl", r.Login(r.dir)+interval+`
env_template "VALUE" { contents = "{{ with secret \"`+r.Path("nexa")+`\" }}{{ .Data.data.v }}{{ end }}" }
exec {
  command                   = [`+quoted(orphans...)+`]
  restart_on_secret_changes = "always"
}
`)
	id := dockertest.Run(t, "--network", "host", "-v", service[0]+":/service:ro", "-v", "/usr:/usr:ro", "-v", "/usr/lib:/lib:ro", "-v", "/usr/lib64:/lib64:ro", "-v", r.dir+":"+r.dir+":ro", image, "run", "--config", config)
	said := func(text string) bool { return strings.Contains(dockertest.Docker(t, "logs", id), text) }
	r.eventuallyInDocker("the command is up", func() bool { return said("up first") })
	processes := func() string {
		return dockertest.Docker(t, "exec", id, "/usr/bin/sh", "-c", "for p in /proc/[0-9]*; do read -r line <$p/stat && echo \"$line\"; done; true")
	}
	r.eventuallyInDocker("no orphan is left", func() bool {
		return !strings.Contains(processes(), ") Z ") && strings.Contains(processes(), "(service) ")
	})
	dockertest.Docker(t, "kill", "-s", "USR2", id)
	r.eventuallyInDocker("the signal was handed on", func() bool { return said("usr2") })
	r.Put("nexa", map[string]any{"v": "second"})
	r.eventuallyInDocker("it was started anew", func() bool { return said("up second") })
	dockertest.Docker(t, "stop", id)
	assert.Equal(t, "9", dockertest.Docker(t, "inspect", "-f", "{{.State.ExitCode}}", id))
	assert.Equal(t, 2, strings.Count(dockertest.Docker(t, "logs", id), "stopped"))
}

func TestAReloadThatIsStillToBeDoneIsDoneByTheNextAgent(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	for name, end := range map[string]func(*running){
		"stopped": (*running).stop,
		"killed": func(p *running) {
			require.NoError(t, p.cmd.Process.Kill())
			_ = p.cmd.Wait()
		},
	} {
		for _, left := range []string{"nexa.json", "notes", "ready"} {
			_ = os.Remove(r.path(left))
		}
		r.Put("nexa", map[string]any{"v": 1})
		config := r.write("x.hcl", r.Login(r.dir)+interval+r.drop("nexa", "  reload { command = [\"sh\", \"-c\", \"test -e ready && echo told >>notes\"] }\n"))
		p := r.start("run", "--config", config)
		r.eventually("the file is there", func() bool { return r.read("nexa.json") != "" })
		assert.Empty(t, r.journal("nexa.json"), name)
		r.Put("nexa", map[string]any{"v": 2})
		r.eventually("the reload has failed", func() bool { return strings.Contains(p.log(), "reload failed") })
		end(p)
		assert.JSONEq(t, `{"destination":"`+r.path("nexa.json")+`","pending_reload":true}`, r.journal("nexa.json"), name)
		r.write("ready", "")
		p = r.start("run", "--config", config)
		r.eventually("it is done", func() bool { return r.read("notes") == "told\n" })
		r.eventually("and taken note of", func() bool { return r.journal("nexa.json") == "" })
		p.stop()
		out, code := r.deaddrop("render", "--config", config)
		require.Zero(t, code, out)
		assert.Equal(t, "told\n", r.read("notes"), "it was done once")
	}
}

func TestFlagsOfReloadsAreCheckedBeforeAnythingIsContacted(t *testing.T) {
	t.Parallel()
	r := &rig{t: t, dir: t.TempDir(), env: []string{"VAULT_ADDR=http://127.0.0.1:1", "VAULT_ROLE_ID=a", "VAULT_SECRET_ID=b"}}
	for flags, want := range map[string]string{
		"--signal HUP":                  "--signal also needs --pid-file FILE, --process NAME or --container NAME",
		"--process nexa":                "--process also needs --signal, such as --signal HUP",
		"--signal HPU --container nexa": `there is no signal "HPU"; did you mean "SIGHUP"?`,
		"--unit a/b":                    `unit "a/b" is not the name of a unit`,
		"--unit x --signal HUP":         "none of the others can be",
		"--process x --pid-file y":      "none of the others can be",
		"--config x.hcl --unit x":       "none of the others can be",
	} {
		args := append([]string{"run"}, strings.Fields(flags)...)
		if !strings.Contains(flags, "--config") {
			args = append(args, "--secret", "secret/a/b", "--out", "x.env")
		}
		out, code := r.deaddrop(args...)
		assert.Equal(t, 2, code, flags)
		assert.Contains(t, out, want, flags)
	}
}
