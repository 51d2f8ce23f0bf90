package config

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestConfig_ImportsNoRunningPart(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	const agent = "github.com/smarteros/deaddrop/agent/"
	imported := strings.Fields(string(out))
	require.Contains(t, imported, agent+"config")
	running := []string{"reload", "supervise", "session", "watch", "events", "tenants", "status", "doctor", "journal", "publish", "output", "reconfigure", "command"}
	for _, path := range imported {
		name, isAgents := strings.CutPrefix(path, agent)
		assert.False(t, isAgents && slices.Contains(running, strings.Split(name, "/")[0]), "config imports %s", path)
	}
}
