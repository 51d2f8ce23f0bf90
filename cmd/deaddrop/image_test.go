package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/dockertest"
	"github.com/smarteros/deaddrop/compose/leaktest"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// makeImage builds an image as "make image" does for all.
func makeImage(t *testing.T, arch string) (image string) {
	t.Helper()
	dockertest.Engine(t)
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip("there is no make here")
	}
	image = dockertest.Name(t)
	build := exec.Command("make", "image", "IMAGE="+image, "GOARCH="+arch, "STAGE="+filepath.Join(t.TempDir(), "image"), "VERSION=1.2.3", "REVISION=abc")
	build.Dir = filepath.Join("..", "..")
	t.Cleanup(func() { _ = exec.Command("docker", "rmi", "-f", image).Run() })
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return image
}

// volume is a new one. What a container has written to it is searched by nobody: it
// is where secrets belong.
func volume(t *testing.T) string {
	t.Helper()
	name := dockertest.Docker(t, "volume", "create", dockertest.Name(t))
	t.Cleanup(func() { _ = exec.Command("docker", "volume", "rm", "-f", name).Run() })
	return name
}

// locked are the arguments of docker run for a container that may do as little as can
// be. The network is the machine's, for Vault is on loopback.
func (r *rig) locked(image string, more ...string) []string {
	args := []string{"--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "host",
		"-e", "DEADDROP_STATUS_ADDRESS=" + vaulttest.FreeAddress(r.t),
		"--health-interval", "1s", "--health-start-period", "1s"}
	for _, variable := range r.env[1:] {
		args = append(args, "-e", variable)
	}
	return append(append(args, more...), image)
}

// fileIn is a file of a container, with its owner, mode and content.
func fileIn(t *testing.T, id, path string) (*tar.Header, string) {
	t.Helper()
	out, err := exec.Command("docker", "cp", id+":"+path, "-").Output()
	if err != nil {
		return &tar.Header{}, "" // not there yet
	}
	file := tar.NewReader(bytes.NewReader(out))
	header, err := file.Next()
	require.NoError(t, err)
	header.Mode &= 0o777
	content, err := io.ReadAll(file)
	require.NoError(t, err)
	return header, string(content)
}

func inspect(t *testing.T, format, id string) string {
	t.Helper()
	return dockertest.Docker(t, "inspect", "-f", format, id)
}

func (r *rig) becomes(id, health string) {
	r.t.Helper()
	r.eventually(health, func() bool { return inspect(r.t, "{{.State.Health.Status}}", id) == health })
}

func TestTheImage(t *testing.T) {
	image := makeImage(t, runtime.GOARCH)
	for name, test := range map[string]func(*testing.T, string){
		"says what it is and is small":               saysWhatItIs,
		"is asked at its address":                    isAskedAtItsAddress,
		"keeps a volume current without a privilege": keepsAVolumeCurrent,
		"renders once as an init container":          rendersOnce,
		"lets another user of its group read":        letsAnotherUserRead,
	} {
		t.Run(name, func(t *testing.T) { test(t, image) })
	}
}

func saysWhatItIs(t *testing.T, image string) {
	var is []struct {
		Size         int64
		Architecture string
		Config       struct {
			User       string
			Env        []string
			Entrypoint []string
			Labels     map[string]string
		}
	}
	require.NoError(t, json.Unmarshal([]byte(dockertest.Docker(t, "inspect", image)), &is))
	assert.Less(t, is[0].Size, int64(20e6))
	assert.Equal(t, runtime.GOARCH, is[0].Architecture)
	config := is[0].Config
	assert.Equal(t, "65532:65532", config.User)
	assert.Contains(t, config.Env, "DEADDROP_STATUS_ADDRESS=127.0.0.1:9810")
	assert.Equal(t, []string{"/deaddrop"}, config.Entrypoint)
	for label, want := range map[string]string{
		"title":       "deaddrop",
		"description": newRoot().Short,
		"licenses":    "Apache-2.0",
		"source":      "https://github.com/smarteros/deaddrop",
		"version":     "1.2.3",
		"revision":    "abc",
	} {
		assert.Equal(t, want, config.Labels["org.opencontainers.image."+label], label)
	}
	assert.Regexp(t, `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$`, config.Labels["org.opencontainers.image.created"])
}

// isAskedAtItsAddress is about an agent that has a network of its own, as most have.
func isAskedAtItsAddress(t *testing.T, image string) {
	id := dockertest.Run(t, "--network", "none", "-e", "VAULT_TOKEN=x", image, "run", "--secret", "secret/x", "--out", "/run/deaddrop/x")
	require.Eventually(t, func() bool {
		return exec.Command("docker", "exec", id, "/deaddrop", "status", "--alive").Run() == nil
	}, time.Minute, 50*time.Millisecond)
	_, certificates := fileIn(t, id, "/etc/ssl/certs/ca-certificates.crt")
	assert.Contains(t, certificates, "BEGIN CERTIFICATE")
	program, _ := fileIn(t, id, "/deaddrop")
	assert.Equal(t, []int64{0, 0, 0o755}, []int64{int64(program.Uid), int64(program.Gid), program.Mode}, "the agent may not change its own program")
}

func keepsAVolumeCurrent(t *testing.T, image string) {
	s := vaulttest.Shared(t)
	r := newRig(t, s)
	first, second := vaulttest.Marker(), vaulttest.Marker()
	r.Put("nexa", map[string]any{"KEY": first})
	id := dockertest.Run(t, append(r.locked(image, "-v", volume(t)+":/run/deaddrop"),
		"run", "--secret", r.Path("nexa"), "--out", "/run/deaddrop/nexa.env", "--interval", "1s")...)
	r.becomes(id, "healthy")
	header, content := fileIn(t, id, "/run/deaddrop/nexa.env")
	assert.Equal(t, "KEY="+first+"\n", content)
	assert.Equal(t, []int64{65532, 65532, 0o600}, []int64{int64(header.Uid), int64(header.Gid), header.Mode})
	folder, _ := fileIn(t, id, "/run/deaddrop")
	assert.Equal(t, []int64{65532, 65532, 0o750}, []int64{int64(folder.Uid), int64(folder.Gid), folder.Mode})
	r.hasNoPrivilege(id)

	r.Put("nexa", map[string]any{"KEY": second})
	r.eventually("the new value is there", func() bool {
		_, content := fileIn(t, id, "/run/deaddrop/nexa.env")
		return content == "KEY="+second+"\n"
	})
	_, err := s.Client.Logical().Delete("secret/data/tenant/" + r.ID + "/nexa")
	require.NoError(t, err)
	r.becomes(id, "unhealthy")
	assert.Contains(t, inspect(t, "{{json .State.Health.Log}}", id), "nexa.env", "the health check says why")
	r.Put("nexa", map[string]any{"KEY": first})
	r.becomes(id, "healthy")

	dockertest.Docker(t, "stop", "-t", "60", id)
	assert.Equal(t, "0", inspect(t, "{{.State.ExitCode}}", id), "stopped by SIGTERM")
	leaktest.Output(t, "docker inspect", dockertest.Docker(t, "inspect", id))
	leaktest.Output(t, "docker logs", dockertest.Docker(t, "logs", id), r.SecretID)
}

// hasNoPrivilege looks at the container's process from outside.
func (r *rig) hasNoPrivilege(id string) {
	r.t.Helper()
	status, err := os.ReadFile("/proc/" + inspect(r.t, "{{.State.Pid}}", id) + "/status")
	if err != nil {
		r.t.Logf("the processes of the engine are not to be seen here: %v", err)
		return
	}
	none := "\t0000000000000000\n"
	for _, want := range []string{
		"CapInh:" + none, "CapPrm:" + none, "CapEff:" + none, "CapBnd:" + none, "CapAmb:" + none,
		"NoNewPrivs:\t1\n", "Uid:\t65532\t65532\t65532\t65532\n", "Gid:\t65532\t65532\t65532\t65532\n",
	} {
		assert.Contains(r.t, string(status), want)
	}
}

func rendersOnce(t *testing.T, image string) {
	r := newRig(t, vaulttest.Shared(t))
	marker := vaulttest.Marker()
	r.Put("nexa", map[string]any{"KEY": marker})
	for where, mount := range map[string][]string{
		"a volume": {"-v", volume(t) + ":/run/deaddrop"},
		"a tmpfs":  {"--tmpfs", "/run/deaddrop:mode=0750,uid=65532,gid=65532"},
	} {
		id := dockertest.Run(t, append(r.locked(image, mount...), "render", "--once", "--secret", r.Path("nexa"), "--out", "/run/deaddrop/nexa.env", "--perms", "0440")...)
		assert.Equal(t, "0", dockertest.Docker(t, "wait", id), where)
		leaktest.Output(t, "docker logs", dockertest.Docker(t, "logs", id), r.SecretID)
		if where == "a volume" {
			header, content := fileIn(t, id, "/run/deaddrop/nexa.env")
			assert.Equal(t, "KEY="+marker+"\n", content)
			assert.Equal(t, int64(0o440), header.Mode)
		}
	}
	r.env[1] = "VAULT_ADDR=http://127.0.0.1:1"
	id := dockertest.Run(t, append(r.locked(image), "render", "--once", "--timeout", "5s", "--secret", r.Path("nexa"), "--out", "/run/deaddrop/nexa.env")...)
	assert.Equal(t, "3", dockertest.Docker(t, "wait", id), "its own exit code, whatever the health checks found meanwhile")
}

func TestTheImageForArm64RunsThere(t *testing.T) {
	image := makeImage(t, "arm64")
	assert.Equal(t, "arm64", inspect(t, "{{.Architecture}}", image))
	r := newRig(t, vaulttest.Shared(t))
	id := dockertest.Docker(t, "create", "--platform", "linux/arm64", image)
	t.Cleanup(func() { _ = exec.Command("docker", "rm", "-f", id).Run() })
	dockertest.Docker(t, "cp", id+":/deaddrop", r.path("deaddrop"))
	run := []string{r.path("deaddrop")}
	if runtime.GOARCH != "arm64" {
		emulator, err := exec.LookPath("qemu-aarch64-static")
		if err != nil {
			t.Skipf("the image is one for arm64, but its program cannot be run here: %v", err)
		}
		run = append([]string{emulator}, run...)
	}
	r.Put("nexa", map[string]any{"KEY": vaulttest.Marker()})
	for _, args := range []string{"version", "render --once --out nexa.env --secret " + r.Path("nexa")} {
		cmd := exec.Command(run[0], append(run[1:], strings.Fields(args)...)...)
		cmd.Env, cmd.Dir = r.env, r.dir
		out, err := cmd.Output() // The emulator's /proc is not quite right, which deaddrop complains of.
		require.NoError(t, err, "%s: %s", args, out)
		if args == "version" {
			assert.Equal(t, fmt.Sprintf("deaddrop 1.2.3 %s linux/arm64\n", runtime.Version()), string(out))
		}
	}
	assert.Regexp(t, "^KEY=m4rker-", r.read("nexa.env"))
}
