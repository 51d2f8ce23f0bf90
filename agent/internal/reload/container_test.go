package reload

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/dockertest"
)

// serviceIn starts the example's service in a container FROM scratch. It tells
// how often it was reloaded.
func serviceIn(t *testing.T, image string, args ...string) (id string, reloaded func() int) {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "nexa.env"), []byte("MODEL=m\nAPI_KEY=k\n"), 0o644))
	args = append(args, "-v", dir+":/shared", image, "/shared/nexa.env", "/shared/pid")
	id = dockertest.Run(t, args...)
	said := func(text string) int { return strings.Count(dockertest.Docker(t, "logs", id), text) }
	require.Eventually(t, func() bool { return said("service started") == 1 }, time.Minute, 20*time.Millisecond)
	return id, func() int { return said("service reloaded") }
}

func soon(t *testing.T, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, time.Minute, 20*time.Millisecond, what)
}

func TestContainersGetTheSignalAndNoOthersDo(t *testing.T) {
	dockertest.Engine(t)
	image := dockertest.Image(t, dockertest.Build(t, "github.com/smarteros/deaddrop/examples/service"))
	project, role := dockertest.Name(t), dockertest.Name(t)
	first, firstReloaded := serviceIn(t, image, "--label", "role="+role, "--label", projectLabel+"="+project, "--label", serviceLabel+"=nexa")
	second, secondReloaded := serviceIn(t, image, "--label", "role="+role, "--label", projectLabel+"="+project+"-2", "--label", serviceLabel+"=nexa")
	hup := Container{Signal: syscall.SIGHUP, Timeout: time.Minute}
	for _, tc := range []struct {
		name          string
		to            Container
		first, second int
	}{
		{"by name", Container{Name: dockertest.NameOf(t, first)}, 1, 0},
		{"by id", Container{Name: second[:12]}, 1, 1},
		{"by compose service", Container{Service: "nexa", Project: project}, 2, 1},
		{"by label", Container{Label: "role=" + role}, 3, 2},
	} {
		tc.to.Signal, tc.to.Timeout = hup.Signal, hup.Timeout
		require.NoError(t, tc.to.Check(t.Context()), tc.name)
		require.NoError(t, tc.to.Do(t.Context(), Change{At: time.Now()}), tc.name)
		soon(t, tc.name, func() bool { return firstReloaded() == tc.first && secondReloaded() == tc.second })
	}

	for name, tc := range map[string]struct {
		to   Container
		want string
	}{
		"a name that nobody has":                  {Container{Name: "deaddrop-no-such"}, "there is no container deaddrop-no-such that runs"},
		"a name that begins the id of another":    {Container{Name: first[:8]}, "there is no container " + first[:8]},
		"a label that nobody has":                 {Container{Label: "role=x" + role}, "no running container is of the label role=x" + role},
		"a service of another project":            {Container{Service: "nexa", Project: project + "-3"}, "no running container is of compose service nexa of project"},
		"a service of an agent without a project": {Container{Service: "nexa"}, `write compose_project = "…"`},
	} {
		tc.to.Signal, tc.to.Timeout = hup.Signal, hup.Timeout
		require.ErrorContains(t, tc.to.Check(t.Context()), tc.want, name)
		require.ErrorContains(t, tc.to.Do(t.Context(), Change{At: time.Now()}), tc.want, name)
	}

	var unneeded *Unneeded
	byName := Container{Name: dockertest.NameOf(t, second), Signal: syscall.SIGHUP, Timeout: time.Minute}
	require.ErrorAs(t, byName.Do(t.Context(), Change{At: time.Now().Add(-time.Hour)}), &unneeded)
	assert.Contains(t, unneeded.Why, "was started after the change")
	dockertest.Docker(t, "stop", "-t", "0", second)
	require.ErrorAs(t, byName.Do(t.Context(), Change{At: time.Now()}), &unneeded)
	assert.Contains(t, unneeded.Why, "is not running (exited)")
	dockertest.Docker(t, "rm", second)
	require.ErrorContains(t, byName.Do(t.Context(), Change{At: time.Now()}), "there is no container")
	assert.Equal(t, 3, firstReloaded(), "no signal went to another one")

	started := dockertest.Docker(t, "inspect", "-f", "{{.State.StartedAt}}", first)
	again := Container{Name: first, Timeout: time.Minute}
	require.NoError(t, again.Do(t.Context(), Change{At: time.Now()}))
	assert.NotEqual(t, started, dockertest.Docker(t, "inspect", "-f", "{{.State.StartedAt}}", first))
	assert.Equal(t, "restart of container "+first, again.String())
}

func TestASocketThatCannotBeUsedIsNamedWithWhatToChange(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755)) // for another user
	socket := filepath.Join(dir, "docker.sock")
	check := func() error { return Container{Name: "x", Host: "unix://" + socket}.Check(t.Context()) }
	require.ErrorContains(t, check(), `there is no Docker socket `+socket+`: mount it into the agent's container (volumes: ["`+socket+":"+socket+`"]), or set DOCKER_HOST`)

	listener, err := net.Listen("unix", socket)
	require.NoError(t, err)
	if os.Geteuid() == 0 {
		require.NoError(t, os.Chmod(socket, 0o660))
		require.NoError(t, os.Chown(socket, 0, 998))
		asNobody(t, func() {
			require.ErrorContains(t, check(), `give the agent the group 998 (group_add: ["998"] in the compose file, SupplementaryGroups=998 in a unit)`)
		})
	} else {
		t.Log("not run by root: the socket of another user is not tried")
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, listener.Close())
	require.ErrorContains(t, check(), "nobody answers on the Docker socket")

	require.ErrorContains(t, Container{Name: "x", Host: "ssh://host"}.Check(t.Context()), `the address of Docker has the scheme "ssh"`)
	t.Setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
	require.ErrorContains(t, Container{Name: "x"}.Check(t.Context()), "connection refused")
	t.Setenv("DOCKER_CERT_PATH", dir)
	require.ErrorContains(t, Container{Name: "x"}.Check(t.Context()), "DOCKER_CERT_PATH")
}

// asNobody does something as far as the rights to files go, as an ordinary user.
func asNobody(t *testing.T, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with this goroutine.
		_ = syscall.Setfsgid(65534)
		_ = syscall.Setfsuid(65534)
		do()
	}()
	<-done
}

// An engine that hangs is not at hand: this is one that takes requests and never
// answers.
func TestAnEngineThatHangsDoesNotHoldUpTheAgent(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "docker.sock")
	listener, err := net.Listen("unix", socket)
	require.NoError(t, err)
	stop := make(chan struct{})
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-stop })}
	go func() { _ = server.Serve(listener) }()
	defer func() { close(stop); _ = server.Close() }()
	err = Container{Name: "x", Host: "unix://" + socket, Signal: syscall.SIGHUP, Timeout: 50 * time.Millisecond}.Do(t.Context(), Change{})
	require.EqualError(t, err, "SIGHUP to container x: no answer from Docker within 50ms")
}
