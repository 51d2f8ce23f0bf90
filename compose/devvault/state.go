package devvault

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/physical"
	"github.com/hashicorp/vault/sdk/physical/file"
	"github.com/hashicorp/vault/sdk/physical/inmem"
)

// Keys are what it takes to unseal a server and to log in to it as root.
type Keys struct {
	RootToken string `json:"root_token"`
	// UnsealKeys are base64.
	UnsealKeys []string `json:"unseal_keys"`
}

// state is the folder that outlives a server. Without a dir there is none, and
// everything is in memory.
type state struct {
	dir  string
	lock *os.File
}

// openState makes the folder and locks it: two servers would spoil each other's
// storage.
func openState(dir string) (*state, error) {
	if dir == "" {
		return &state{}, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the state folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the state folder: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("the state folder %s is in use by another server: %w", dir, err)
	}
	return &state{dir: dir, lock: lock}, nil
}

// close lets another server have the folder.
func (s *state) close() error {
	if s.lock == nil {
		return nil
	}
	return s.lock.Close()
}

// storage is what Vault writes to, and the name of its type.
func (s *state) storage(n *node, log hclog.Logger) (physical.Backend, string, error) {
	switch {
	case s.dir == "":
		storage, err := inmem.NewInmem(nil, log)
		return storage, "inmem", err
	case n != nil:
		storage, err := s.raftStorage(n, log)
		return storage, "raft", err
	}
	storage, err := file.NewFileBackend(map[string]string{"path": filepath.Join(s.dir, "storage")}, log)
	return storage, "file", err
}

func (s *state) keysFile() string { return filepath.Join(s.dir, "keys.json") }

// load returns nil where there are no keys yet.
func (s *state) load() (*Keys, error) {
	if s.dir == "" {
		return nil, nil
	}
	keys, err := loadKeys(s.keysFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return keys, err
}

func loadKeys(file string) (*Keys, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading the keys: %w", err)
	}
	var keys Keys
	if err := json.Unmarshal(content, &keys); err != nil {
		return nil, fmt.Errorf("reading the keys in %s: %w", file, err)
	}
	return &keys, nil
}

func (s *state) save(keys Keys) error {
	if s.dir == "" {
		return nil
	}
	content, err := json.Marshal(keys)
	if err != nil {
		return fmt.Errorf("saving the keys: %w", err)
	}
	if err := os.WriteFile(s.keysFile(), append(content, '\n'), 0o600); err != nil {
		return fmt.Errorf("saving the keys: %w", err)
	}
	return nil
}
