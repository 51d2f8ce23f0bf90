package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/render/drop"
)

func TestDiskFolder_IsOnADiskOrNone(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	folder, err := diskFolder("")
	require.NoError(t, err)
	if folder == "" {
		t.Skip("no folder here is on a disk")
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	is, err := drop.Inspect(folder)
	require.NoError(t, err)
	assert.True(t, is.OnDisk)
	assert.True(t, filepath.IsAbs(folder))
}

func TestDiskFolder_RefusesMemory(t *testing.T) {
	if is, err := drop.Inspect("/dev/shm"); err != nil || is.OnDisk {
		t.Skip("there is no memory at /dev/shm here")
	}
	_, err := diskFolder("/dev/shm")
	require.EqualError(t, err, "folder /dev/shm is not on a disk")
}

func TestWriters_WriteTheSameFiles(t *testing.T) {
	batch, oneByOne := t.TempDir(), t.TempDir()
	require.NoError(t, writeBatch(batch, 20))
	require.NoError(t, writeOneByOne(oneByOne, 20))
	for _, dir := range []string{batch, oneByOne} {
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Len(t, entries, 20)
		got, err := os.ReadFile(filepath.Join(dir, "19"))
		require.NoError(t, err)
		assert.Equal(t, content(19), got)
	}
}
