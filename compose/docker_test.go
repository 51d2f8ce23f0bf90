package compose_test

import (
	"archive/tar"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/smarteros/deaddrop/compose/dockertest"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// image is what an image of Vault or OpenBao looks like from outside: since none can
// be pulled, one is made of devvault and busybox, with the user, folders and entry
// point that the published ones have.
type image struct {
	program, user string
	// home is where the folders are.
	home string
	// root is whether the entry point starts as root, and changes the user itself.
	root bool
	// setcap is whether it lets the program lock memory. Where the container may not,
	// the program then does not start: Vault's image has SKIP_SETCAP for that.
	setcap bool

	once sync.Once
	name string
}

var (
	vaultImage       = &image{program: "vault", user: "vault", home: "vault", root: true, setcap: true}
	vaultWithoutCaps = &image{program: "vault", user: "vault", home: "vault", root: true}
	openbaoImage     = &image{program: "bao", user: "openbao", home: "openbao"}
)

// TestMain removes the images, which tests share.
func TestMain(m *testing.M) {
	code := m.Run()
	for _, i := range []*image{vaultImage, vaultWithoutCaps, openbaoImage} {
		if i.name != "" {
			_ = exec.Command("docker", "rmi", "-f", i.name).Run()
		}
	}
	os.Exit(code)
}

// capIPCLock is the extended attribute by which a program may lock memory, whoever
// runs it: "setcap cap_ipc_lock=+ep".
const capIPCLock = "\x01\x00\x00\x02\x00\x40\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// entryPoint does what those of the published images do with the command "server".
func (i *image) entryPoint() string {
	prefix := "VAULT"
	if i.program == "bao" {
		prefix = "BAO"
	}
	return `#!/bin/sh
set -e
if [ "$1" = server ]; then
	shift
	set -- ` + i.program + ` server -config=/` + i.home + `/config -dev-root-token-id="$` + prefix + `_DEV_ROOT_TOKEN_ID" -dev-listen-address=0.0.0.0:8200 "$@"
fi
if [ "$(id -u)" = 0 ]; then
	set -- su -m -s /bin/sh -c 'exec "$@"' -- ` + i.user + ` sh "$@"
fi
exec "$@"
`
}

// load makes the image where no test has, and returns its name.
func (i *image) load(t *testing.T) string {
	t.Helper()
	i.once.Do(func() {
		name := dockertest.Name(t)
		args := []string{"import", "--change", `ENTRYPOINT ["docker-entrypoint.sh"]`, "--change", "ENV PATH=/bin"}
		if !i.root {
			args = append(args, "--change", "USER "+i.user)
		}
		content, writer := io.Pipe()
		load := exec.Command("docker", append(args, "-", name)...)
		load.Stdin = content
		var g errgroup.Group
		g.Go(func() error { return writer.CloseWithError(i.write(writer)) })
		out, err := load.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.NoError(t, g.Wait())
		i.name = name
	})
	require.NotEmpty(t, i.name, "the image could not be made")
	return i.name
}

// write writes the files of the image.
func (i *image) write(w io.Writer) error {
	const uid, gid = 100, 1000
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	program, err := vaulttest.Binary()
	if err != nil {
		return err
	}
	files := map[string]string{
		"etc/passwd":               "root:x:0:0::/:/bin/sh\n" + i.user + ":x:100:1000::/:/bin/sh\n",
		"etc/group":                "root:x:0:\n" + i.user + ":x:1000:\n",
		"bin/docker-entrypoint.sh": i.entryPoint(),
	}
	for path, source := range map[string]string{"bin/busybox": busybox, "bin/" + i.program: program} {
		content, err := os.ReadFile(source)
		if err != nil {
			return err
		}
		files[path] = string(content)
	}
	archive := tar.NewWriter(w)
	for path, content := range files {
		header := &tar.Header{Name: path, Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg}
		if path == "bin/"+i.program && i.setcap {
			header.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": capIPCLock}
		}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if _, err := io.WriteString(archive, content); err != nil {
			return err
		}
	}
	for _, applet := range []string{"sh", "id", "wget", "su", "stat"} {
		if err := archive.WriteHeader(&tar.Header{Name: "bin/" + applet, Linkname: "busybox", Typeflag: tar.TypeSymlink}); err != nil {
			return err
		}
	}
	for _, dir := range []string{"", "/file", "/logs", "/config"} {
		if err := archive.WriteHeader(&tar.Header{Name: i.home + dir + "/", Mode: 0o755, Uid: uid, Gid: gid, Typeflag: tar.TypeDir}); err != nil {
			return err
		}
	}
	return archive.Close()
}

// stack is a set of compose files that a test has up, under names of its own.
type stack struct {
	t       *testing.T
	name    string
	files   []string
	env     []string
	Address string
}

// up starts the compose files with an image, and ends with the test. Nothing in them is
// changed but how often the health of a container is asked for.
func up(t *testing.T, i *image, files []string, env ...string) *stack {
	t.Helper()
	dockertest.Engine(t)
	for _, program := range []string{"docker-compose", "busybox"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("there is no %s here, which the containers are made with", program)
		}
	}
	health := "testdata/health-each-second.yml"
	if slices.Contains(files, raft) {
		health = "testdata/health-each-second-raft.yml"
	}
	s := &stack{t: t, name: dockertest.Name(t), files: append(slices.Clone(files), health)}
	_, port, _ := strings.Cut(vaulttest.FreeAddress(t), ":")
	s.Address = "http://127.0.0.1:" + port
	s.env = append([]string{
		"COMPOSE_PROJECT_NAME=" + s.name, "VAULT_IMAGE=" + i.load(t), "VAULT_TAG=latest", "VAULT_PORT=" + port,
		"VAULT_CONTAINER_NAME=" + s.name, "VAULT_VOLUMES=" + s.name, "SMARTER_NET=" + s.name, "VAULT_HOST=vault.example.org",
	}, env...)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.compose("logs", "--no-color"))
		}
		s.compose("down", "-v", "-t", "5")
	})
	s.compose("up", "-d")
	return s
}

// compose runs docker-compose on the files, which must succeed.
func (s *stack) compose(args ...string) string {
	s.t.Helper()
	out, err := dockerCompose(s.files, s.env, args...)
	require.NoError(s.t, err, "%s", out)
	return out
}

// health waits for a container to be healthy or unhealthy.
func (s *stack) health(container, want string) {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		return dockertest.Docker(s.t, "inspect", "-f", "{{.State.Health.Status}}", container) == want
	}, soon, tick, "%s: %s", want, &lazy{func() string { return dockertest.Docker(s.t, "inspect", "-f", "{{json .State.Health}}", container) }})
}

// lazy is text that is only made when a test fails.
type lazy struct{ text func() string }

func (l *lazy) String() string { return l.text() }

// inspect is one field of the container.
func (s *stack) inspect(format string) string {
	s.t.Helper()
	return dockertest.Docker(s.t, "inspect", "-f", format, s.name)
}

func TestVaultInAContainerKeepsItsSecretsOverRestartsAndDownAndUp(t *testing.T) {
	t.Parallel()
	s := up(t, vaultImage, []string{base})
	s.health(s.name, "healthy") // although nobody has initialised it
	client := vaultClient(t, s.Address, "")
	assert.Equal(t, http.StatusNotImplemented, status(t, http.DefaultClient, s.Address+"/v1/sys/health"))
	key := initialise(t, client)
	unseal(t, client, key)
	require.NoError(t, client.Sys().EnableAuditWithOptions("file", &api.EnableAuditOptions{
		Type: "file", Options: map[string]string{"file_path": "/vault/logs/audit.log"},
	}))
	require.NoError(t, client.Sys().Mount("secret", &api.MountInput{Type: "kv"}))
	marker := vaulttest.Marker()
	_, err := client.Logical().Write("secret/app", map[string]any{"value": marker})
	require.NoError(t, err)
	kept := func() {
		t.Helper()
		s.health(s.name, "healthy")
		require.Equal(t, http.StatusServiceUnavailable, status(t, http.DefaultClient, s.Address+"/v1/sys/health"), "healthy and sealed")
		unseal(t, client, key)
		secret, err := client.Logical().Read("secret/app")
		require.NoError(t, err)
		assert.Equal(t, marker, secret.Data["value"])
	}

	assert.Equal(t, "[IPC_LOCK]", strings.ReplaceAll(s.inspect("{{.HostConfig.CapAdd}}"), "CAP_", ""))
	assert.Equal(t, "unless-stopped", s.inspect("{{.HostConfig.RestartPolicy.Name}}"))
	assert.Equal(t, "vault.example.org", s.inspect(`{{index .Config.Labels "caddy"}}`))
	assert.Equal(t, "Host(`vault.example.org`)", s.inspect(`{{index .Config.Labels "traefik.http.routers.vault.rule"}}`))
	assert.Equal(t, s.name, s.inspect("{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}"))
	assert.Equal(t, "127.0.0.1", s.inspect(`{{(index (index .HostConfig.PortBindings "8200/tcp") 0).HostIp}}`))
	volumes := strings.Fields(dockertest.Docker(t, "volume", "ls", "-q", "--filter", "name="+s.name))
	assert.Equal(t, []string{s.name + "-config", s.name + "-data", s.name + "-logs"}, sorted(volumes))
	assert.Equal(t, "100", dockertest.Docker(t, "exec", s.name, "stat", "-c", "%u", "/vault/file/core"), "Vault does not run as root")
	assert.Contains(t, dockertest.Docker(t, "exec", s.name, "busybox", "cat", "/vault/logs/audit.log"), "secret/app")
	assert.NotContains(t, dockertest.Docker(t, "exec", s.name, "busybox", "grep", "-r", "", "/vault/logs"), marker)

	s.compose("restart", "-t", "5")
	kept()
	s.compose("down", "-t", "5")
	s.compose("up", "-d")
	kept()
	assert.NotContains(t, s.compose("logs", "--no-color"), marker)
}

func TestAVaultThatDoesNotAnswerIsUnhealthyAndASealedOneIfThatIsAskedFor(t *testing.T) {
	t.Parallel()
	s := up(t, vaultImage, []string{base}, "VAULT_HEALTH=standbyok=true")
	s.health(s.name, "unhealthy") // not initialised
	client := vaultClient(t, s.Address, "")
	unseal(t, client, initialise(t, client))
	s.health(s.name, "healthy")
	dockertest.Docker(t, "kill", "--signal", "STOP", s.name)
	s.health(s.name, "unhealthy")
	dockertest.Docker(t, "kill", "--signal", "CONT", s.name)
	s.health(s.name, "healthy")
}

func TestVaultInAContainerSpeaksTLS(t *testing.T) {
	t.Parallel()
	certs, ca := t.TempDir(), &authority{}
	ca.sign(t, certs, 1)
	readable(t, certs)
	s := up(t, vaultImage, []string{base, withTLS, "testdata/old-tls-client.yml"}, "VAULT_TLS_DIR="+certs)
	s.health(s.name, "healthy")
	address := "https" + strings.TrimPrefix(s.Address, "http")
	client := vaultClient(t, address, certs)
	unseal(t, client, initialise(t, client))
	assert.Equal(t, http.StatusOK, status(t, ca.client(0), address+"/v1/sys/health"))
	assert.Equal(t, http.StatusBadRequest, status(t, http.DefaultClient, s.Address+"/v1/sys/health"), "in the clear")
}

// readable lets the user of a container read the files of a folder that are root's.
func readable(t *testing.T, dir string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, f := range files {
		require.NoError(t, os.Chmod(filepath.Join(dir, f.Name()), 0o644))
	}
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		require.NoError(t, os.Chmod(d, 0o755))
	}
}

func TestVaultForDevelopmentIsReadyAtOnceAndForgetsEverything(t *testing.T) {
	t.Parallel()
	for _, files := range [][]string{{base, dev}, {base, openbao, dev}} {
		i := vaultImage
		if len(files) == 3 {
			i = openbaoImage
		}
		t.Run(i.program, func(t *testing.T) {
			t.Parallel()
			s := up(t, i, files, devToken)
			s.health(s.name, "healthy")
			client := vaultClient(t, s.Address, "")
			client.SetToken("for-a-test")
			_, err := client.KVv2("secret").Put(t.Context(), "app", map[string]any{"value": "x"})
			require.NoError(t, err)
			s.compose("restart", "-t", "5")
			s.health(s.name, "healthy")
			_, err = client.KVv2("secret").Get(t.Context(), "app")
			assert.ErrorIs(t, err, api.ErrSecretNotFound)
		})
	}
}

// It is devvault that runs here, in an image that is like OpenBao's: what is shown is
// that its user finds folders to write to, and the configuration.
func TestTheImageOfOpenBaoFindsItsFoldersAndConfiguration(t *testing.T) {
	t.Parallel()
	// Other than OpenBao, a Vault wants to be told with Raft.
	s := up(t, openbaoImage, []string{base, openbao}, withoutMlock)
	s.health(s.name, "healthy")
	client := vaultClient(t, s.Address, "")
	key := initialise(t, client)
	unseal(t, client, key)
	seal, err := client.Sys().SealStatus()
	require.NoError(t, err)
	assert.Equal(t, "raft", seal.StorageType)
	for _, dir := range []string{"/openbao/file", "/openbao/logs", "/openbao/config"} {
		dockertest.Docker(t, "exec", s.name, "sh", "-c", "echo >"+dir+"/written && busybox rm "+dir+"/written")
	}
	s.compose("down", "-t", "5")
	s.compose("up", "-d")
	s.health(s.name, "healthy")
	unseal(t, client, key)
}

func TestThreeContainersAreACluster(t *testing.T) {
	t.Parallel()
	ports := []string{}
	for range 2 {
		_, port, _ := strings.Cut(vaulttest.FreeAddress(t), ":")
		ports = append(ports, port)
	}
	s := up(t, vaultWithoutCaps, []string{raft}, "VAULT_PORT_2="+ports[0], "VAULT_PORT_3="+ports[1])
	clients := []*api.Client{
		vaultClient(t, s.Address, ""), vaultClient(t, "http://127.0.0.1:"+ports[0], ""), vaultClient(t, "http://127.0.0.1:"+ports[1], ""),
	}
	for i := range clients {
		s.health(s.name+"-"+strconv.Itoa(i+1), "healthy")
	}
	key := initialise(t, clients[0])
	for _, c := range clients {
		join(t, c, key)
		c.SetToken(clients[0].Token())
	}
	require.Eventually(t, func() bool { return len(voters(clients[0])) == 3 }, soon, tick)
	dockertest.Docker(t, "kill", s.name+"-1")
	require.Eventually(t, func() bool {
		health, err := clients[1].Sys().Leader()
		return err == nil && health.LeaderAddress != "" && health.LeaderAddress != "http://vault-1:8200"
	}, soon, tick)
	require.Eventually(t, func() bool { return len(voters(clients[2])) == 3 }, soon, tick, "who stands by asks the leader")
}
