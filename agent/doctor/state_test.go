package doctor

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/journal"
)

func TestState_SaysWhereTheAgentKeepsItsState(t *testing.T) {
	own := t.TempDir()
	open := filepath.Join(t.TempDir(), "open")
	require.NoError(t, os.Mkdir(open, 0o700))
	require.NoError(t, os.Chmod(open, 0o777))
	look := func(stateDir string) Check {
		e := &exam{cfg: &config.Config{StateDir: stateDir}}
		e.state([]place{{path: own}, {path: open}})
		require.Len(t, e.Checks, 1)
		return e.Checks[0]
	}

	found := look(filepath.Join(own, "new"))
	assert.Equal(t, OK, found.Status, found.Detail)
	assert.NoDirExists(t, filepath.Join(own, "new"), "doctor changes nothing")

	found = look(open)
	assert.Equal(t, Warning, found.Status)
	assert.Contains(t, found.Detail, open+" may be written to by every user (mode 0777)")
	assert.Equal(t, "chmod go-w "+open+"\nOr "+journal.Hint, found.Fix)
}
