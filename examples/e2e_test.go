package examples_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// skipped is the exit code of a script on a machine that cannot run it.
const skipped = 77

// TestTheExamplesDoWhatTheirReadmesSay runs the script of each, as "make e2e" does: it
// brings the example up with a Vault of its own, changes a secret and asks the service
// which one it uses. Mostly they wait, so several run side by side.
func TestTheExamplesDoWhatTheirReadmesSay(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes")
	}
	scripts, err := filepath.Glob("*/e2e.sh")
	require.NoError(t, err)
	var names []string
	for _, script := range scripts {
		names = append(names, filepath.Dir(script))
	}
	require.Contains(t, names, "systemd")
	// That one's script does nothing but to run the tests beside it.
	names = slices.DeleteFunc(names, func(name string) bool { return name == "systemd" })
	require.NotEmpty(t, names)

	run := exec.Command("e2e/run.sh", names...)
	run.Env = append(os.Environ(), "JOBS=4", "WAIT=180") // Other tests run beside it.
	out, err := run.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == skipped {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		t.Skip(lines[len(lines)-1])
	}
	assert.NoError(t, err, "%s", out)
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			verdict := regexp.MustCompile(`(?m)^` + name + `: (ok|skipped|FAILED)\b.*`).FindStringSubmatch(string(out))
			require.NotNil(t, verdict, "no verdict on %s in:\n%s", name, out)
			if verdict[1] == "skipped" {
				t.Skip(verdict[0])
			}
			assert.Equal(t, "ok", verdict[1])
			t.Log(verdict[0])
		})
	}
}
