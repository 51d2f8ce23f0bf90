package agent

import (
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/config"
)

func TestSinks_GiveTheFileItsOwner(t *testing.T) {
	uid, gid := os.Geteuid(), os.Getegid()
	if uid == 0 {
		uid, gid = 1234, 1235
	}
	path := filepath.Join(t.TempDir(), "token")
	s := &sinks{files: []config.Sink{{Path: path, Mode: 0o640, UID: &uid, GID: &gid}}, log: slog.New(slog.DiscardHandler)}
	require.NoError(t, s.write("token"))
	info, err := os.Stat(path)
	require.NoError(t, err)
	stat := info.Sys().(*syscall.Stat_t)
	assert.Equal(t, []int{uid, gid, 0o640}, []int{int(stat.Uid), int(stat.Gid), int(info.Mode())})
}
