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

	"github.com/smarteros/deaddrop/compose/leaktest"
)

// Engine skips the test where no Docker engine can be used, or where -short asks for the
// fast tests alone.
func Engine(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("this test needs Docker, and -short was asked for")
	}
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
// is removed at the end of the test, when what it has said is searched for secrets.
func Run(t testing.TB, args ...string) (id string) {
	t.Helper()
	name := Name(t)
	t.Cleanup(func() {
		logs, _ := exec.Command("docker", "logs", name).CombinedOutput()
		leaktest.Output(t, "the log of a container", string(logs))
		if t.Failed() {
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
