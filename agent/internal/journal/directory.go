package journal

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/smarteros/deaddrop/render/drop"
)

// SystemDirectory is the state directory of an agent that runs as root, and that of an
// image or a package which has made it for the agent's user.
const SystemDirectory = "/var/lib/deaddrop"

// Directory returns the state directory of an agent: the configured one, that of systemd
// ($STATE_DIRECTORY), [SystemDirectory], or that of the user ($XDG_STATE_HOME/deaddrop,
// or ~/.local/state/deaddrop). It need not exist yet.
//
// A directory counts only if the agent's user alone can write to it and to its parents.
// One that the configuration or systemd names is not replaced by another: the error says
// why it cannot be used. If nobody names one and none can be used, the error says so,
// and wraps [ErrNoDirectory].
func Directory(configured string) (string, error) {
	if configured != "" {
		return named(configured, "state_dir")
	}
	// systemd separates several by a colon.
	if first, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":"); first != "" {
		return named(first, "$STATE_DIRECTORY")
	}
	var reasons []string
	for _, path := range defaults() {
		err := check(path)
		if err == nil {
			return path, nil
		}
		reasons = append(reasons, err.Error())
	}
	return "", fmt.Errorf("%w (%s)", ErrNoDirectory, strings.Join(reasons, "; "))
}

// ErrNoDirectory is the error if no default state directory can be used.
var ErrNoDirectory = errors.New("no state directory")

func named(path, by string) (string, error) {
	if err := check(path); err != nil {
		return "", fmt.Errorf("%s: %w", by, err)
	}
	return path, nil
}

func defaults() []string {
	paths := []string{SystemDirectory}
	if home := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(home) {
		return append(paths, filepath.Join(home, "deaddrop"))
	}
	// The default of the XDG Base Directory Specification.
	if home := os.Getenv("HOME"); filepath.IsAbs(home) {
		return append(paths, filepath.Join(home, ".local/state/deaddrop"))
	}
	return paths
}

// check reports whether the agent alone can write to a directory, or can make it.
func check(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%s: not an absolute path", path)
	}
	if err := drop.CheckOwn(path); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	there := drop.Nearest(path)
	if err := unix.Faccessat(unix.AT_FDCWD, there, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return fmt.Errorf("%s: %s is not writable: %w", path, there, err)
	}
	return nil
}

// makeDirectory makes a state directory that does not exist yet.
func makeDirectory(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	if err := check(path); err != nil {
		return err
	}
	mode := os.FileMode(0o700)
	if path == SystemDirectory {
		mode = 0o711 // Agents of other users have their directories in it. Journals are 0600.
	}
	if err := os.MkdirAll(path, mode); err != nil {
		return err
	}
	if err := os.Chmod(path, mode); err != nil { // Whatever the umask is.
		return err
	}
	return check(path) // Somebody else may have been faster.
}

// OpenDirectory returns the store in the state directory that a configuration names, or in
// the default one. A directory that cannot be used is logged.
func OpenDirectory(configured string, log *slog.Logger) *Store {
	dir, err := Directory(configured)
	if err != nil && !errors.Is(err, ErrNoDirectory) {
		log.Warn("state directory cannot be used", "error", err, "hint", Hint)
	}
	return Open(dir, err, log)
}
