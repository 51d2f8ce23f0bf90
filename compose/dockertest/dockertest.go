// Package dockertest gives tests containers on a real Docker engine. Images are
// built from nothing, since a test machine may not be able to pull any.
package dockertest

import (
	"encoding/hex"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Engine skips the test where no Docker engine can be used.
func Engine(t testing.TB) {
	t.Helper()
	if out, err := exec.Command("docker", "version", "--format", "{{.Server.Version}}").CombinedOutput(); err != nil {
		t.Skipf("there is no Docker engine here: %v: %s", err, strings.TrimSpace(string(out)))
	}
}

// Name is one that nothing else has.
func Name(t testing.TB) string {
	t.Helper()
	random := make([]byte, 6)
	for i := range random {
		random[i] = byte(rand.IntN(256))
	}
	return "deaddrop-test-" + hex.EncodeToString(random)
}

// Docker runs a command of Docker's client, which must succeed, and returns what
// it has written.
func Docker(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command("docker", args...).CombinedOutput()
	require.NoError(t, err, "docker %s: %s", strings.Join(args, " "), out)
	return strings.TrimSpace(string(out))
}

// Build makes a static program of a package of this module, or of a file.
func Build(t testing.TB, pkg string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), filepath.Base(pkg))
	build := exec.Command("go", "build", "-o", program, pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return program
}

// Image builds an image FROM scratch that holds programs in its root, and starts
// the first of them. It is removed at the end of the test.
func Image(t testing.TB, programs ...string) string {
	t.Helper()
	dir := t.TempDir()
	dockerfile := "FROM scratch\n"
	for _, program := range programs {
		content, err := os.ReadFile(program)
		require.NoError(t, err)
		base := filepath.Base(program)
		require.NoError(t, os.WriteFile(filepath.Join(dir, base), content, 0o755))
		dockerfile += "COPY " + base + " /" + base + "\n"
	}
	dockerfile += `ENTRYPOINT ["/` + filepath.Base(programs[0]) + `"]` + "\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o600))
	name := Name(t)
	Docker(t, "build", "-q", "-t", name, dir)
	t.Cleanup(func() { _ = exec.Command("docker", "rmi", "-f", name).Run() })
	return name
}

// Run starts a container in the background, by the arguments of docker run. It
// is removed at the end of the test.
func Run(t testing.TB, args ...string) (id string) {
	t.Helper()
	name := Name(t)
	t.Cleanup(func() {
		if t.Failed() {
			logs, _ := exec.Command("docker", "logs", name).CombinedOutput()
			t.Logf("the container said: %s", logs)
		}
		_ = exec.Command("docker", "rm", "-f", "-v", name).Run()
	})
	return Docker(t, append([]string{"run", "-d", "--name", name}, args...)...)
}

// NameOf is the name of a container.
func NameOf(t testing.TB, id string) string {
	t.Helper()
	return strings.TrimPrefix(Docker(t, "inspect", "-f", "{{.Name}}", id), "/")
}

// Systemd starts a container whose process 1 is this machine's systemd, with a
// system bus and the given units, by file name. It returns the address of the bus
// and runs commands in the container. The test skips where there is no systemd.
func Systemd(t testing.TB, units map[string]string) (bus string, run func(args ...string) (string, error)) {
	t.Helper()
	Engine(t)
	for _, program := range []string{"/usr/lib/systemd/systemd", "/usr/bin/dbus-daemon"} {
		if _, err := os.Stat(program); err != nil {
			t.Skipf("systemd cannot be started here: %v", err)
		}
	}
	root, shared := t.TempDir(), t.TempDir()
	for _, dir := range []string{"usr", "etc/systemd/system", "proc", "sys", "dev", "run", "tmp", "var/lib", "var/log", "root"} {
		require.NoError(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	for _, link := range []string{"bin", "sbin", "lib", "lib64"} {
		require.NoError(t, os.Symlink("usr/"+link, filepath.Join(root, link)))
	}
	require.NoError(t, os.Symlink("/run", filepath.Join(root, "var/run")))
	for _, file := range []string{"/etc/passwd", "/etc/group", "/etc/ld.so.cache"} {
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(root, file), content, 0o644))
	}
	require.NoError(t, os.WriteFile(filepath.Join(root, "etc/machine-id"), nil, 0o644))
	// Without polkit a request of another user is refused at once.
	require.NoError(t, os.Symlink("/dev/null", filepath.Join(root, "etc/systemd/system/polkit.service")))
	target := "[Unit]\nRequires=dbus.service\nAfter=dbus.service\n"
	for name, text := range units {
		require.NoError(t, os.WriteFile(filepath.Join(root, "etc/systemd/system", name), []byte(text), 0o644))
	}
	require.NoError(t, os.WriteFile(filepath.Join(root, "etc/systemd/system/test.target"), []byte(target), 0o644))
	image := Name(t)
	out, err := exec.Command("sh", "-c", `tar -C "$1" -c . | docker import - "$2"`, "sh", root, image).CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Cleanup(func() { _ = exec.Command("docker", "rmi", "-f", image).Run() })
	require.NoError(t, os.Chmod(shared, 0o755))
	require.NoError(t, os.Chmod(filepath.Dir(shared), 0o755)) // for a bus that other users may ask, too
	// Not --privileged: an engine may itself lack some of what that gives. systemd gets
	// control groups of its own to write to (of version 1, or else 2), since it
	// remounts what it finds there: the machine's would be changed for all.
	id := Run(t, "--cap-add", "SYS_ADMIN", "--cgroupns", "private", "--network", "none",
		"--tmpfs", "/run:exec", "--tmpfs", "/tmp:exec", "-v", "/usr:/usr:ro", "-v", shared+":/run/dbus", "-e", "container=docker",
		image, "/bin/sh", "-c", "mount -o remount,bind,rw /sys/fs/cgroup/systemd 2>/dev/null || mount -o remount,rw /sys/fs/cgroup; "+
			"exec /usr/lib/systemd/systemd --unit=test.target")
	run = func(args ...string) (string, error) {
		out, err := exec.Command("docker", append([]string{"exec", id}, args...)...).CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	if !waitFor(func() bool {
		state, _ := run("systemctl", "is-system-running")
		return state == "running" || state == "degraded"
	}) {
		t.Skipf("systemd does not come up in a container here: %s", Docker(t, "logs", id))
	}
	return "unix:path=" + filepath.Join(shared, "system_bus_socket"), run
}
