package keys

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"filippo.io/age"

	"github.com/smarteros/deaddrop/render/drop"
)

// New is a file that is not there yet. It is made, and has room on the disk, before
// there are keys, so that these are never lost for want of a place.
type New struct {
	path string
	file *os.File
	done bool
}

// Reserve makes an empty file that only its owner may read, with room for a set
// that takes this many bytes. What is there already is not touched.
func Reserve(path string, size int) (*New, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil, fmt.Errorf("%s is there already, and keys are never overwritten: move it away, or name another file", path)
	case err != nil:
		return nil, err
	}
	n := &New{path: path, file: f}
	if err := n.fill(size); err != nil {
		n.Abort()
		return nil, fmt.Errorf("making room for the keys in %s: %w", path, err)
	}
	return n, nil
}

func (n *New) fill(size int) error {
	if err := n.file.Chmod(0o600); err != nil { // whatever the umask
		return err
	}
	if _, err := n.file.Write(bytes.Repeat([]byte("\n"), size)); err != nil {
		return err
	}
	if err := n.file.Sync(); err != nil {
		return err
	}
	return syncDir(n.path)
}

// Write fills the file, encrypted to the recipients if there are some, and does not
// return before it is on the disk.
func (n *New) Write(s *Set, recipients []age.Recipient) error {
	n.done = true // Whatever there is of the keys from now on stays.
	text, err := encode(s, recipients)
	if err != nil {
		return err
	}
	if _, err := n.file.WriteAt(text, 0); err != nil {
		return err
	}
	if err := n.file.Truncate(int64(len(text))); err != nil {
		return err
	}
	if err := n.file.Sync(); err != nil {
		return err
	}
	return n.file.Close()
}

// Abort takes the file away again, unless keys were written into it.
func (n *New) Abort() {
	if n.done {
		return
	}
	_ = n.file.Close()
	_ = os.Remove(n.path)
}

func syncDir(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

func encode(v any, recipients []age.Recipient) ([]byte, error) {
	text, err := json.MarshalIndent(v, "", "  ")
	text = append(text, '\n')
	if err != nil || len(recipients) == 0 {
		return text, err
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, recipients...)
	if err != nil {
		return nil, fmt.Errorf("encrypting the keys: %w", err)
	}
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	err = w.Close()
	return out.Bytes(), err
}

// ErrRecipients, ErrLines and ErrPipe are for files that cannot be written anew.
var (
	ErrRecipients = errors.New("it does not say whom it is encrypted to")
	ErrLines      = errors.New("it is no JSON")
	ErrPipe       = errors.New("it is no regular file")
)

// Replaceable tells whether [File.SetRootToken] has a chance: it returns nil,
// [ErrRecipients], [ErrLines] or [ErrPipe].
func (f *File) Replaceable() error {
	info, err := os.Stat(f.path)
	switch {
	case err != nil || !info.Mode().IsRegular():
		return ErrPipe
	case f.encrypted && len(f.recipients) == 0:
		return ErrRecipients
	case !isJSON(f.text):
		return ErrLines
	}
	return nil
}

// SetRootToken writes the file anew, with another root token, or none. Its readers
// find the one or the other, whole. Whatever else is in it stays.
func (f *File) SetRootToken(token string) error {
	if err := f.Replaceable(); err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	var all map[string]any
	if err := json.Unmarshal(f.text, &all); err != nil {
		return fmt.Errorf("%s: it is no JSON", f.path) // Without the error, which may quote it.
	}
	delete(all, "root_token_pgp_encrypted")
	delete(all, "root_token")
	if token != "" {
		all["root_token"] = token
	}
	text, err := encode(all, f.recipients)
	if err != nil {
		return err
	}
	return WriteFile(f.path, text)
}

// Path is where the file is, "" for standard input.
func (f *File) Path() string { return f.path }

// WriteFile writes a file that only its owner may read, whole or not at all, in a
// folder that is made if it is not there.
func WriteFile(path string, content []byte) error {
	result := drop.Write([]drop.File{{Path: path, Content: content, Mode: 0o600, CreateDirs: true}})[0]
	return cmp.Or(result.Err, result.Unsynced) // It names the file, or its folder.
}
