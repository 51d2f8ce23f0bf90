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
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/dockertest"
	"github.com/smarteros/deaddrop/compose/leaktest"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// madeImage is an image that "make image" has built.
type madeImage struct {
	name    string
	program string // the program in it, as a file of this machine
}

// makeImage builds an image as "make image" does for all, with its files in a folder.
func makeImage(t *testing.T, dir, arch string) (*madeImage, error) {
	t.Helper()
	stage := filepath.Join(dir, "image")
	i := &madeImage{name: dockertest.Name(t), program: filepath.Join(stage, "root", "deaddrop")}
	build := exec.Command("make", "image", "IMAGE="+i.name, "GOARCH="+arch, "STAGE="+stage, "VERSION=1.2.3", "REVISION=abc")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make image: %w\n%s", err, out)
	}
	return i, nil
}

func (i *madeImage) remove() { _ = exec.Command("docker", "rmi", "-f", i.name).Run() }

// ownImage is the image for this machine, which tests share. TestMain removes it.
var ownImage struct {
	sync.Once
	made *madeImage
	err  error
	dir  string
}

// sharedImage returns the image for this machine, and builds it for the first test.
func sharedImage(t *testing.T) *madeImage {
	t.Helper()
	canMakeImages(t)
	ownImage.Do(func() {
		if ownImage.dir, ownImage.err = os.MkdirTemp("", "image-"); ownImage.err == nil {
			ownImage.made, ownImage.err = makeImage(t, ownImage.dir, runtime.GOARCH)
		}
	})
	require.NoError(t, ownImage.err)
	return ownImage.made
}

func removeSharedImage() {
	if ownImage.made != nil {
		ownImage.made.remove()
	}
	_ = os.RemoveAll(ownImage.dir)
}

func canMakeImages(t *testing.T) {
	t.Helper()
	dockertest.Engine(t)
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip("there is no make here")
	}
}

// eventuallyInDocker is [rig.eventually] for what Docker's client is asked for. Each
// question starts a process, so it is asked less often.
func (r *rig) eventuallyInDocker(what string, ok func() bool) {
	r.t.Helper()
	require.Eventually(r.t, ok, time.Minute, 250*time.Millisecond, what)
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
	r.eventuallyInDocker(health, func() bool { return inspect(r.t, "{{.State.Health.Status}}", id) == health })
}

func TestTheImage(t *testing.T) {
	t.Parallel()
	image := sharedImage(t).name
	for name, test := range map[string]func(*testing.T, string){
		"says what it is and is small":               saysWhatItIs,
		"is asked at its address":                    isAskedAtItsAddress,
		"keeps a volume current without a privilege": keepsAVolumeCurrent,
		"renders once as an init container":          rendersOnce,
		"lets another user of its group read":        letsAnotherUserRead,
		"keeps journals where only its user writes":  keepsJournals,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, image)
		})
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
	}, time.Minute, 250*time.Millisecond)
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
	r.eventuallyInDocker("the new value is there", func() bool {
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

// keepsJournals has agents leave a pending reload, which they write down.
func keepsJournals(t *testing.T, image string) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a folder to the user of a container")
	}
	folder := func(owner int, mode os.FileMode) string {
		dir := t.TempDir()
		require.NoError(t, os.Chmod(dir, mode))
		require.NoError(t, os.Chown(dir, owner, owner))
		return dir
	}
	emptyDir := folder(0, 0o777) // as a kubelet makes it
	const own = 65532
	for name, tc := range map[string]struct {
		args   []string
		out    string // the folder of the file
		folder string // the folder of the journal; "" if there is none
		user   int
	}{
		"in a new volume":               {[]string{"-v", volume(t) + ":/run/deaddrop", "-v", volume(t) + ":/var/lib/deaddrop"}, "/run/deaddrop", "/var/lib/deaddrop", own},
		"beside the file without one":   {[]string{"-v", volume(t) + ":/run/deaddrop"}, "/run/deaddrop", "/run/deaddrop", own},
		"beside the file of a user":     {[]string{"-u", "1000:1000", "-v", folder(1000, 0o750) + ":/run/deaddrop"}, "/run/deaddrop", "/run/deaddrop", 1000},
		"beside the file of root":       {[]string{"-u", "0:0", "-v", folder(0, 0o755) + ":/run/deaddrop"}, "/run/deaddrop", "/run/deaddrop", 0},
		"in the subPath of an emptyDir": {[]string{"-v", filepath.Join(emptyDir, "nexa") + ":/run/deaddrop/nexa"}, "/run/deaddrop/nexa", "/run/deaddrop/nexa", own},
		"nowhere in a whole emptyDir":   {[]string{"-v", folder(0, 0o777) + ":/run/deaddrop"}, "/run/deaddrop/nexa", "", own},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, vaulttest.Shared(t))
			r.Put("nexa", map[string]any{"KEY": "v"})
			r.write("deaddrop.hcl", `drop "nexa" {
  secret      = "`+r.Path("nexa")+`"
  destination = "`+tc.out+`/nexa.env"
  reload {
    url      = "http://127.0.0.1:1/"
    on_start = true
  }
}`)
			require.NoError(t, os.Chmod(r.path("deaddrop.hcl"), 0o644))
			if strings.Contains(name, "subPath") {
				init := dockertest.Run(t, append(r.locked(image, "-v", emptyDir+":/run/deaddrop"), "render", "--once", "--secret", r.Path("nexa"), "--out", tc.out+"/nexa.env")...)
				require.Equal(t, "0", dockertest.Docker(t, "wait", init))
				assert.Equal(t, "0700 65532:65532", modeAndOwner(t, filepath.Join(emptyDir, "nexa")))
				require.NoError(t, os.Remove(filepath.Join(emptyDir, "nexa/nexa.env")), "so that there is something to do")
			}
			args := append(tc.args, "-v", r.path("deaddrop.hcl")+":/etc/deaddrop.hcl:ro")
			id := dockertest.Run(t, append(r.locked(image, args...), "run", "--config", "/etc/deaddrop.hcl")...)
			log := ""
			r.eventuallyInDocker("the reload fails", func() bool {
				log = dockertest.Docker(t, "logs", id)
				return strings.Contains(log, "reload failed")
			})
			journals := map[string]*tar.Header{}
			for _, dir := range []string{"/run/deaddrop", "/run/deaddrop/nexa", "/var/lib/deaddrop"} {
				for path, file := range filesIn(t, id, dir) {
					if strings.HasPrefix(filepath.Base(path), ".nexa.env") || strings.HasSuffix(path, ".json") {
						journals[path] = file
					}
				}
			}
			if tc.folder == "" {
				assert.Empty(t, journals)
				return // A pending reload alone is worth no warning.
			}
			assert.NotContains(t, log, "state directory")
			assert.NotContains(t, log, "journal")
			require.Len(t, journals, 1)
			for path, file := range journals {
				assert.Equal(t, tc.folder, filepath.Dir(path))
				assert.Equal(t, []int64{int64(tc.user), int64(tc.user), 0o600}, []int64{int64(file.Uid), int64(file.Gid), file.Mode})
			}
			if tc.folder == "/var/lib/deaddrop" {
				state, _ := fileIn(t, id, tc.folder)
				assert.Equal(t, []int64{own, own, 0o700}, []int64{int64(state.Uid), int64(state.Gid), state.Mode})
			}
		})
	}
	// Another user than the image's does not trust a folder below one of the image's user.
	id := dockertest.Run(t, image, "version")
	for _, dir := range []string{"/run", "/var", "/var/lib"} {
		file, _ := fileIn(t, id, dir)
		assert.Equal(t, []int64{0, 0, 0o755}, []int64{int64(file.Uid), int64(file.Gid), file.Mode}, dir)
	}
}

// filesIn are the files in a folder of a container, without those in folders of it.
func filesIn(t *testing.T, id, dir string) map[string]*tar.Header {
	t.Helper()
	out, err := exec.Command("docker", "cp", id+":"+dir, "-").Output()
	if err != nil {
		return nil
	}
	files := map[string]*tar.Header{}
	for archive := tar.NewReader(bytes.NewReader(out)); ; {
		file, err := archive.Next()
		if err == io.EOF {
			return files
		}
		require.NoError(t, err)
		file.Mode &= 0o777
		// Names begin with the name of the folder.
		if _, name, _ := strings.Cut(file.Name, "/"); name != "" && !strings.Contains(name, "/") {
			files[filepath.Join(dir, name)] = file
		}
	}
}

func TestTheImageForArm64RunsThere(t *testing.T) {
	t.Parallel()
	canMakeImages(t)
	made, err := makeImage(t, t.TempDir(), "arm64")
	require.NoError(t, err)
	t.Cleanup(made.remove)
	image := made.name
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
