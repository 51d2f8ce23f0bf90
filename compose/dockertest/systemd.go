package dockertest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Machine is a container whose process 1 is this machine's systemd, with a system
// bus.
type Machine struct {
	ID string
	// Bus is the address of the bus, for processes outside.
	Bus string
}

// Run runs a command in the container and returns what it has written.
func (m *Machine) Run(args ...string) (string, error) {
	out, err := exec.Command("docker", append([]string{"exec", m.ID}, args...)...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// Boot starts a machine with the given files, by their paths below /, without the
// units that are masked, and with further arguments of docker run. /usr is this
// machine's, read-only. The test skips where systemd cannot be started.
func Boot(t testing.TB, files map[string]string, masked []string, args ...string) *Machine {
	t.Helper()
	Engine(t)
	for _, program := range []string{"/usr/lib/systemd/systemd", "/usr/bin/dbus-daemon"} {
		if _, err := os.Stat(program); err != nil {
			t.Skipf("systemd cannot be started here: %v", err)
		}
	}
	image, shared := machineImage(t, files, masked), t.TempDir()
	require.NoError(t, os.Chmod(shared, 0o755))
	require.NoError(t, os.Chmod(filepath.Dir(shared), 0o755)) // for a bus that other users may ask, too
	// Not --privileged: an engine may itself lack some of what that gives. systemd gets
	// control groups of its own to write to (of version 1, or else 2), since it
	// remounts what it finds there: the machine's would be changed for all. Mounts are
	// shared among its processes, as on a machine that has booted: credentials are some.
	m := &Machine{Bus: "unix:path=" + filepath.Join(shared, "system_bus_socket")}
	m.ID = Run(t, append(append([]string{"--cap-add", "SYS_ADMIN", "--cgroupns", "private",
		"--tmpfs", "/run:exec", "--tmpfs", "/tmp:exec", "-v", "/usr:/usr:ro", "-v", shared + ":/run/dbus", "-e", "container=docker"}, args...),
		image, "/bin/sh", "-c", "mount -o remount,bind,rw /sys/fs/cgroup/systemd 2>/dev/null || mount -o remount,rw /sys/fs/cgroup; "+
			"mount --make-rshared / && exec /usr/lib/systemd/systemd --unit=test.target")...)
	state := ""
	if !waitFor(func() bool {
		state, _ = m.Run("systemctl", "is-system-running")
		return state == "running" || state == "degraded"
	}) {
		t.Skipf("systemd does not come up in a container here: %s", m.ails(t, state))
	}
	return m
}

// ails is what a machine that does not come up waits for and says, in a line. Its
// container's log alone would be empty: systemd writes to its journal.
func (m *Machine) ails(t testing.TB, state string) string {
	jobs, _ := m.Run("systemctl", "list-jobs", "--no-legend")
	journal, _ := m.Run("journalctl", "-q", "-n", "10", "-o", "cat")
	said := strings.Join([]string{"it is " + state, "jobs: " + jobs, "journal: " + journal, "log: " + Docker(t, "logs", m.ID)}, "; ")
	return strings.Join(strings.Fields(said), " ")
}

// machineImage is an image of a system that has little besides /usr.
func machineImage(t testing.TB, files map[string]string, masked []string) (name string) {
	t.Helper()
	root := t.TempDir()
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
	for _, unit := range masked {
		require.NoError(t, os.Symlink("/dev/null", filepath.Join(root, "etc/systemd/system", unit)))
	}
	target := "[Unit]\nRequires=dbus.service\nAfter=dbus.service\n"
	require.NoError(t, os.WriteFile(filepath.Join(root, "etc/systemd/system/test.target"), []byte(target), 0o644))
	for path, text := range files {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(root, path), []byte(text), 0o644))
	}
	name = Name(t)
	// Services of other users read it, too, whatever the umask of the tests: under 077
	// the bus would never start, and systemd never come up.
	out, err := exec.Command("sh", "-c", `tar -C "$1" --mode=a+rX -c . | docker import - "$2"`, "sh", root, name).CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Cleanup(func() { _ = exec.Command("docker", "rmi", "-f", name).Run() })
	return name
}
