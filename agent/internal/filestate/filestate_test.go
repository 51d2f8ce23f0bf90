package filestate

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAFileThatWasReplacedOrWrittenToIsAnotherOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	at := time.Unix(1, 0)
	write := func(path, text string, at time.Time) {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		require.NoError(t, os.Chtimes(path, at, at))
	}
	state := func() string {
		s, info, err := Of(path)
		require.NoError(t, err)
		assert.Equal(t, "file", info.Name())
		return s
	}
	_, _, err := Of(path)
	require.ErrorIs(t, err, fs.ErrNotExist)

	write(path, "old", at)
	before := state()
	assert.Equal(t, before, state())

	write(path+".new", "new", at) // as long, and within the same tick
	require.NoError(t, os.Rename(path+".new", path))
	replaced := state()
	assert.NotEqual(t, before, replaced)

	write(path, "longer", at)
	longer := state()
	assert.NotEqual(t, replaced, longer)

	write(path, "LONGER", at.Add(time.Millisecond))
	assert.NotEqual(t, longer, state())
}
