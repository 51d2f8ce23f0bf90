package status

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/net/netutil"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/textfile"
)

// mostConnections is how many of a listener are served at a time.
const mostConnections = 64

// listen binds an address. Closing what it returns removes a socket.
func listen(ctx context.Context, at config.Listener) (net.Listener, error) {
	bound, err := bind(ctx, at)
	if err != nil {
		return nil, fmt.Errorf("listening at %s: %w", at, err)
	}
	bound = netutil.LimitListener(bound, mostConnections)
	if at.CertFile == "" {
		return bound, nil
	}
	load := func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		pair, err := textfile.KeyPair(at.CertFile, at.KeyFile)
		return &pair, err
	}
	if _, err := load(nil); err != nil {
		_ = bound.Close()
		return nil, fmt.Errorf("listening at %s: the certificate cannot be used: %w", at, err)
	}
	// It is read again for each connection, so that a renewed one counts at once.
	return tls.NewListener(bound, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: load, NextProtos: []string{"http/1.1"}}), nil
}

func bind(ctx context.Context, at config.Listener) (net.Listener, error) {
	if at.Network == "unix" {
		return bindSocket(ctx, at)
	}
	var settings net.ListenConfig
	return settings.Listen(ctx, "tcp", at.Address)
}

// socket is a listener whose file goes with it.
type socket struct {
	*net.UnixListener
	path string
	file os.FileInfo
}

// Close removes the file, unless it is another one's by now.
func (s *socket) Close() error {
	if now, err := os.Lstat(s.path); err == nil && os.SameFile(now, s.file) {
		_ = os.Remove(s.path)
	}
	return s.UnixListener.Close()
}

// bindSocket makes the socket in a folder of its own beside, which nobody else may
// enter, until mode and owner are right, and then moves it to its place.
func bindSocket(ctx context.Context, at config.Listener) (net.Listener, error) {
	folder := filepath.Dir(at.Address)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	if err := makeWay(ctx, at.Address); err != nil {
		return nil, err
	}
	private, err := os.MkdirTemp(folder, ".s") // Short: see [config.Listener].
	if err != nil {
		return nil, fmt.Errorf("the folder %s: %w; let the agent's user write to it, or choose another address", folder, bare(err))
	}
	defer func() { _ = os.RemoveAll(private) }()
	path := filepath.Join(private, "s")
	var settings net.ListenConfig
	bound, err := settings.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("making a socket in %s: %w", folder, bare(err))
	}
	unix := bound.(*net.UnixListener)
	unix.SetUnlinkOnClose(false)
	file, err := place(path, at)
	if err != nil {
		_ = unix.Close()
		return nil, err
	}
	return &socket{unix, at.Address, file}, nil
}

// place gives a socket its mode and owner, and moves it where it is to be.
func place(path string, at config.Listener) (os.FileInfo, error) {
	uid, gid := -1, -1
	if at.UID != nil {
		uid = *at.UID
	}
	if at.GID != nil {
		gid = *at.GID
	}
	if uid >= 0 || gid >= 0 {
		if err := os.Chown(path, uid, gid); err != nil {
			return nil, fmt.Errorf("socket_user and socket_group: %w; only root may give it to others", bare(err))
		}
	}
	if err := os.Chmod(path, at.Mode); err != nil {
		return nil, bare(err)
	}
	file, err := os.Lstat(path)
	if err != nil {
		return nil, bare(err)
	}
	return file, bare(os.Rename(path, at.Address))
}

// bare is an error without the name of the private folder, which is another one at each
// try: what fails for the same reason again is logged once.
func bare(err error) error {
	var reason syscall.Errno
	if errors.As(err, &reason) {
		return reason
	}
	return err
}

// makeWay refuses to take the place of anything but a socket that nobody answers at.
func makeWay(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&os.ModeSocket == 0:
		return errors.New("there is something else that is no socket; move it away, or choose another address")
	}
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		_ = conn.Close()
		return errors.New("another process listens there; is another deaddrop running?")
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil // Its owner is gone.
	}
	return fmt.Errorf("there is a socket, and it is not known whether it is used: %w", err)
}
