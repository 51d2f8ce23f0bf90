package examples_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// skipped is the exit code of a script on a machine that cannot run it.
const skipped = 77

// TestTheExamplesDoWhatTheirReadmesSay runs the script of each: it brings the example up
// with a Vault of its own, changes a secret and asks the service which one it uses. They
// go one after the other, for the sake of small machines.
func TestTheExamplesDoWhatTheirReadmesSay(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes")
	}
	scripts, err := filepath.Glob("*/e2e.sh")
	require.NoError(t, err)
	require.NotEmpty(t, scripts)
	for _, script := range scripts {
		t.Run(filepath.Dir(script), func(t *testing.T) {
			run := exec.Command("timeout", "--kill-after=60", "600", "./"+script)
			run.Env = append(os.Environ(), "WAIT=180") // other tests run beside it
			out, err := run.CombinedOutput()
			var exit *exec.ExitError
			if errors.As(err, &exit) && exit.ExitCode() == skipped {
				lines := strings.Split(strings.TrimSpace(string(out)), "\n")
				t.Skip(lines[len(lines)-1])
			}
			require.NoError(t, err, "%s", out)
		})
	}
}
