package leaktest

import (
	"encoding/base64"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/vaulttest"
)

func TestSecretsAreFoundHoweverTheyAreWritten(t *testing.T) {
	secret := vaulttest.Marker()
	for name, text := range map[string]string{
		"as it is":              "error: " + secret + " is wrong",
		"in hexadecimal":        hex.EncodeToString([]byte("x" + secret)),
		"in base64":             base64.StdEncoding.EncodeToString([]byte(secret)),
		"in base64, one behind": base64.URLEncoding.EncodeToString([]byte("\"" + secret + "\"")),
		"in base64, two behind": base64.StdEncoding.EncodeToString([]byte("a:" + secret)),
	} {
		assert.NotEmpty(t, Find(text), name)
	}
	assert.Empty(t, Find("the prefix m4rker- alone is in every test program"))
}

// seen takes down failures instead of failing.
type seen struct {
	testing.TB
	failed bool
}

func (s *seen) Errorf(string, ...any) { s.failed = true }

func TestProcessesAndLeftoversAreSearched(t *testing.T) {
	for name, cmd := range map[string]*exec.Cmd{
		"an argument": exec.Command("sh", "-c", "read x", vaulttest.Marker()),
		"a variable":  {Path: "/bin/sh", Args: []string{"sh", "-c", "read x"}, Env: []string{"A=" + vaulttest.Marker()}},
	} {
		in, err := cmd.StdinPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		s := &seen{TB: t}
		found := func() bool { // A process that has just begun shows nothing yet.
			Process(s, cmd.Process.Pid)
			return s.failed
		}
		assert.Eventually(t, found, time.Minute, time.Millisecond, name)
		_ = in.Close()
		_ = cmd.Wait()
	}
	for name, own := range map[string]bool{".deaddrop-1": true, ".nexa.env.deaddrop": true, "nexa.env-0123456789abcdef01234567.json": true, "nexa.json": false, "agent.log": true, "nexa.env": false} {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(vaulttest.Marker()), 0o600))
		s := &seen{TB: t}
		Leftovers(s, dir)
		assert.Equal(t, own, s.failed, name)
	}
}

func TestWhatProgramsSayIsSearched(t *testing.T) {
	for name, leaks := range map[string]bool{"echo m": true, "echo m >&2": true, "true m": false} {
		var out, errs strings.Builder
		s := &seen{TB: t}
		t.Run(name, func(t *testing.T) {
			s.TB = t
			cmd := exec.Command("sh", "-c", strings.Replace(name, "m", vaulttest.Marker(), 1))
			cmd.Stdout, cmd.Stderr = &out, &errs
			Command(s, cmd)
			require.NoError(t, cmd.Run())
		})
		assert.Equal(t, leaks, s.failed, name)
	}
	Command(t, exec.Command("sh", vaulttest.Marker())) // It is never started.
}
