package archive

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPinned_ReadsWhatWasThere(t *testing.T) {
	for _, size := range []int{0, 1, pinnedChunk - 1, pinnedChunk, pinnedChunk + 1, 3*pinnedChunk + 7} {
		content := bytes.Repeat([]byte("0123456789a"), size/11+1)[:size]
		p, err := Pin(bytes.NewReader(content))
		require.NoError(t, err)
		sum := sha256.Sum256(content)
		assert.Equal(t, hex.EncodeToString(sum[:]), p.SHA256())
		for range 2 {
			_, err = p.Seek(0, io.SeekStart)
			require.NoError(t, err)
			got, err := io.ReadAll(p)
			require.NoError(t, err)
			assert.True(t, bytes.Equal(content, got), size)
		}
	}
}

func TestPinned_FailsBeforeItGivesOtherContent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	content := make([]byte, 2*pinnedChunk+10)
	for name, change := range map[string]func(f *os.File) error{
		"changed":  func(f *os.File) error { _, err := f.WriteAt([]byte("x"), pinnedChunk+5); return err },
		"cut":      func(f *os.File) error { return f.Truncate(pinnedChunk + 5) },
		"replaced": func(f *os.File) error { _, err := f.WriteAt(bytes.Repeat([]byte("x"), len(content)), 0); return err },
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, os.WriteFile(path, content, 0o600))
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			require.NoError(t, err)
			defer func() { _ = f.Close() }()
			p, err := Pin(f)
			require.NoError(t, err)
			require.NoError(t, change(f))
			got, err := io.ReadAll(p)
			require.ErrorIs(t, err, ErrReplaced)
			assert.NotContains(t, string(got), "x")
		})
	}
}

// What is added to a file later is not part of it.
func TestPinned_EndsWhereTheFileEnded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, []byte("content"), 0o600))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	p, err := Pin(f)
	require.NoError(t, err)
	_, err = f.WriteString(" and more")
	require.NoError(t, err)
	got, err := io.ReadAll(p)
	require.NoError(t, err)
	assert.Equal(t, "content", string(got))
}

// Whoever made the backup knows its key, and can put another one in its place while the
// first is being looked at.
func TestPinned_RestoresNoOtherBackupThanTheVerifiedOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	write := func(policy string) {
		var content bytes.Buffer
		w, err := NewWriter(&content, Header{})
		require.NoError(t, err)
		require.NoError(t, w.Write(Record{Policy: &Policy{Name: "p", Text: policy}}))
		require.NoError(t, w.Close())
		require.NoError(t, os.WriteFile(path, content.Bytes(), 0o600)) // The same file: it is not renamed.
	}
	write("harmless")
	f, err := os.Open(path)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	p, err := Pin(f)
	require.NoError(t, err)
	source, err := NewSource(p)
	require.NoError(t, err)
	_, _, err = source.Verify(nil)
	require.NoError(t, err)
	write("all rights")
	p.chunk, p.first = nil, 0 // As with a file that is larger than what is kept of it.
	_, _, err = source.Verify(func(r Record) { t.Errorf("read %s", r.Policy.Text) })
	require.ErrorIs(t, err, ErrReplaced)
}
