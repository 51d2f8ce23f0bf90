package textfile

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/render/safefile"
)

func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func TestRead_TakesTheByteOrderMarkAway(t *testing.T) {
	for content, want := range map[string]string{
		"": "", "text": "text", "\xEF\xBB\xBFtext": "text", "\xEF\xBB\xBF": "", "a\xEF\xBB\xBF": "a\xEF\xBB\xBF", "\xEF\xBB": "\xEF\xBB",
	} {
		got, err := Read(write(t, content))
		require.NoError(t, err)
		assert.Equal(t, want, string(got))
	}
}

func TestRead_RefusesUTF16(t *testing.T) {
	for _, content := range []string{"\xFF\xFEt\x00", "\xFE\xFF\x00t"} {
		_, err := Read(write(t, content))
		require.ErrorIs(t, err, ErrUTF16)
		require.ErrorContains(t, err, "the file is UTF-16; write it anew as UTF-8")
		assert.True(t, HasMark(write(t, content)))
	}
	assert.True(t, HasMark(write(t, "\xEF\xBB\xBFx")))
	assert.False(t, HasMark(write(t, "x")))
	assert.False(t, HasMark(t.TempDir()))
}

func TestRead_NamesAMissingFile(t *testing.T) {
	_, err := Read(filepath.Join(t.TempDir(), "none"))
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// explained is what a user is told of a path.
func explained(t *testing.T, r reader, path string) *AccessError {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	var access *AccessError
	require.ErrorAs(t, r.explain(path, info, fs.ErrPermission), &access)
	require.ErrorIs(t, access, fs.ErrPermission)
	return access
}

func TestAccessError_NamesUserOwnerAndWhatToDo(t *testing.T) {
	path, folder := write(t, ""), t.TempDir()
	require.NoError(t, os.Chmod(folder, 0o700))
	me, mine := os.Geteuid(), os.Getegid()
	owner := userName(me) + ":" + groupName(mine)
	const other = 3999999 // Nobody has this id.

	stranger := reader{uid: other, gid: other}
	assert.Equal(t, "permission denied: user 3999999 may not read a file of "+owner+" with mode 0600", explained(t, stranger, path).Detail)
	assert.Equal(t, "chown 3999999 "+path+", or chgrp 3999999 "+path+" && chmod 0640 "+path, explained(t, stranger, path).Hint)
	assert.Equal(t, "permission denied: user 3999999 may not look into "+folder+", a folder of "+owner+" with mode 0700", explained(t, stranger, folder).Detail)
	assert.Equal(t, "chgrp 3999999 "+folder+" && chmod 0710 "+folder, explained(t, stranger, folder).Hint)

	member := reader{uid: other, gid: other, groups: []int{mine}}
	assert.Equal(t, "chmod 0640 "+path, explained(t, member, path).Hint)

	require.NoError(t, os.Chmod(path, 0o200))
	assert.Equal(t, "chmod 0600 "+path, explained(t, reader{uid: me, gid: other}, path).Hint)
}

func TestRead_RefusesWhatWouldBlockOrNeverEnd(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, syscall.Mkfifo(path("fifo"), 0o600))
	require.NoError(t, os.Symlink("/dev/zero", path("zero")))
	require.NoError(t, os.WriteFile(path("giant"), nil, 0o600))
	require.NoError(t, os.Truncate(path("giant"), 1<<40))
	r, w, err := os.Pipe() // Nobody closes it: a read would wait for ever.
	require.NoError(t, err)
	defer func() { _, _ = r.Close(), w.Close() }()
	require.NoError(t, os.Symlink(fmt.Sprintf("/proc/self/fd/%d", r.Fd()), path("pipe")))
	for name, want := range map[string]error{
		"fifo": safefile.ErrNotRegular, "zero": safefile.ErrNotRegular, "giant": safefile.ErrTooLarge, "pipe": safefile.ErrNotRegular, ".": syscall.EISDIR,
	} {
		_, err := Read(path(name))
		require.ErrorIs(t, err, want, name)
		assert.IsType(t, &fs.PathError{}, err)
		assert.False(t, HasMark(path(name)), name)
		_, err = KeyPair(path(name), path(name))
		require.ErrorIs(t, err, want, name)
	}
}

func TestRead_ReadsAPipeOfTheProcess(t *testing.T) {
	piped := func(content string) (path string) {
		r, w, err := os.Pipe()
		require.NoError(t, err)
		t.Cleanup(func() { _ = r.Close() })
		go func() {
			_, _ = io.WriteString(w, content)
			_ = w.Close()
		}()
		return fmt.Sprintf("/dev/fd/%d", r.Fd())
	}
	path := piped("\uFEFFtext")
	assert.True(t, IsStream(path))
	got, err := Read(path)
	require.NoError(t, err)
	assert.Equal(t, "text", string(got))
	got, err = Read(path)
	require.NoError(t, err)
	assert.Empty(t, got, "it is used up")

	_, err = Read(piped(strings.Repeat("x", MaxSize+1)))
	require.ErrorIs(t, err, safefile.ErrTooLarge)
}

func TestIsStream_GoesByTheNameAndTheKind(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer func() { _, _ = r.Close(), w.Close() }()
	f, err := os.Open(write(t, "x"))
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	fifo := filepath.Join(t.TempDir(), "fifo")
	require.NoError(t, syscall.Mkfifo(fifo, 0o600))
	for path, want := range map[string]bool{
		fmt.Sprintf("/dev/fd/%d", r.Fd()):       true,
		fmt.Sprintf("/proc/self/fd/%d", r.Fd()): true,
		fmt.Sprintf("/dev/fd/%d", f.Fd()):       false,
		"/dev/fd/999":                           false,
		"/dev/fd/":                              false,
		"/dev/null":                             false,
		fifo:                                    false,
		f.Name():                                false,
	} {
		assert.Equal(t, want, IsStream(path), path)
	}
}
