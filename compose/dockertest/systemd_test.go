package dockertest

import (
	"archive/tar"
	"bytes"
	"io"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// "make e2e" has the umask 077.
func TestWhatAMachineIsMadeOfIsForAllItsUsersWhateverTheUmask(t *testing.T) {
	Engine(t)
	defer syscall.Umask(syscall.Umask(0o077))
	image := machineImage(t, map[string]string{"etc/deeper/file": "x"}, nil)
	id := Docker(t, "create", image, "/none")
	t.Cleanup(func() { _ = exec.Command("docker", "rm", id).Run() })
	content, err := exec.Command("docker", "cp", id+":/etc", "-").Output()
	require.NoError(t, err)
	modes := map[string]int64{}
	for files := tar.NewReader(bytes.NewReader(content)); ; {
		file, err := files.Next()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		modes[file.Name] = file.Mode & 0o777
	}
	for name, mode := range map[string]int64{"etc/": 0o755, "etc/passwd": 0o644, "etc/deeper/": 0o755, "etc/deeper/file": 0o644} {
		assert.Equal(t, mode, modes[name], name)
	}
}
