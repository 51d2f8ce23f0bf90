package status

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/net/netutil"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/textfile"
	"github.com/smarteros/deaddrop/render/drop"
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
	folder *os.Root
	name   string
	file   os.FileInfo
}

// Close removes the file, unless it is another one's by now. It removes it from the
// folder in which the socket was made, whatever the path of that leads to by now.
func (s *socket) Close() error {
	// No other file can have the inode as long as the socket is open.
	if now, err := s.folder.Lstat(s.name); err == nil && os.SameFile(now, s.file) {
		_ = s.folder.Remove(s.name)
	}
	return errors.Join(s.UnixListener.Close(), s.folder.Close())
}

// bindSocket makes a socket in a folder that exists. Somebody else may own the folder and
// rename, replace and link there at any moment: so every step goes through an open
// directory, and mode and owner are set where nobody else can put a link in the way.
func bindSocket(ctx context.Context, at config.Listener) (net.Listener, error) {
	path, name := filepath.Split(at.Address)
	folder, err := drop.OpenFolder(path)
	if err != nil {
		return nil, fmt.Errorf("folder %w", err)
	}
	s := &socket{folder: folder, name: name}
	if err := s.bind(ctx, at); err != nil {
		_ = folder.Close()
		return nil, err
	}
	return s, nil
}

func (s *socket) bind(ctx context.Context, at config.Listener) error {
	old, err := findOld(ctx, s.folder, s.name)
	if err != nil {
		return err
	}
	defer old.release()
	private, err := makePrivate(s.folder)
	if err != nil {
		return fmt.Errorf("the folder %s: %w; let the agent's user write to it, or choose another address", filepath.Dir(at.Address), bare(err))
	}
	defer private.discard()
	var settings net.ListenConfig
	bound, err := settings.Listen(ctx, "unix", private.path())
	if err != nil {
		return fmt.Errorf("making a socket in %s: %w", filepath.Dir(at.Address), bare(err))
	}
	s.UnixListener = bound.(*net.UnixListener)
	s.SetUnlinkOnClose(false)
	s.file, err = private.dress(at)
	if err == nil {
		err = private.move(s.folder, s.name, old)
	}
	if err == nil {
		err = s.isInPlace()
	}
	if err != nil {
		_ = s.UnixListener.Close()
	}
	return err
}

var errReplaced = errors.New("somebody else has replaced it meanwhile")

func (s *socket) isInPlace() error {
	now, err := s.folder.Lstat(s.name)
	if err == nil && !os.SameFile(now, s.file) {
		err = errReplaced
	}
	return bare(err)
}

// privateFolder is a folder that nobody else may enter. A socket is made in it, and gets
// its mode and owner there. Its own name may change meanwhile, but not what is in it.
type privateFolder struct {
	*os.Root
	dir  *os.File // the same folder
	in   *os.Root
	name string
	// ours is set while a socket in it is the agent's to remove.
	ours bool
}

// inPrivate is the name of a socket in its private folder.
const inPrivate = "s"

func makePrivate(in *os.Root) (*privateFolder, error) {
	p := &privateFolder{in: in, name: ".s" + rand.Text()}
	if err := in.Mkdir(p.name, 0o700); err != nil {
		return nil, err
	}
	var err error
	if p.Root, err = in.OpenRoot(p.name + "/."); err != nil { // Without the dot it would wait for a FIFO.
		_ = in.Remove(p.name)
		return nil, err
	}
	if p.dir, err = p.Open("."); err == nil {
		err = isPrivate(p.dir)
	}
	if err != nil {
		p.discard()
		return nil, err
	}
	p.ours = true
	return p, nil
}

// isPrivate makes sure that a folder is the one that was just made, or as good: one that
// somebody else has put in its place is not the agent's, or others may enter it, or there
// is something in it.
func isPrivate(dir *os.File) error {
	info, err := dir.Stat()
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(owner.Uid) != os.Geteuid() || info.Mode().Perm() != 0o700 {
		return errReplaced
	}
	if names, _ := dir.Readdirnames(1); len(names) > 0 {
		return errReplaced
	}
	return nil
}

// discard removes the folder, and the socket where it is still there.
func (p *privateFolder) discard() {
	if p.ours {
		_ = p.Remove(inPrivate)
	}
	_ = p.dir.Close()
	_ = p.Close()
	_ = p.in.Remove(p.name) // Only an empty one goes.
}

// dress gives the socket its mode and owner.
func (p *privateFolder) dress(at config.Listener) (os.FileInfo, error) {
	if err := p.Chmod(inPrivate, at.Mode); err != nil {
		return nil, bare(err)
	}
	uid, gid := -1, -1
	if at.UID != nil {
		uid = *at.UID
	}
	if at.GID != nil {
		gid = *at.GID
	}
	if uid >= 0 || gid >= 0 {
		if err := p.Lchown(inPrivate, uid, gid); err != nil {
			return nil, fmt.Errorf("socket_user and socket_group: %w; only root may give it to others", bare(err))
		}
	}
	file, err := p.Lstat(inPrivate)
	if err == nil && file.Mode().Type() != os.ModeSocket {
		err = errReplaced
	}
	return file, bare(err)
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

// oldSocket is the socket of an agent that has ended, which has the name that a new one
// is to get. It is nil where the name is free.
type oldSocket struct {
	file os.FileInfo
	held io.Closer
}

func (o *oldSocket) release() {
	if o != nil {
		_ = o.held.Close()
	}
}

// findOld refuses to take the place of anything but a socket that nobody answers at.
func findOld(ctx context.Context, folder *os.Root, name string) (old *oldSocket, err error) {
	file, err := hold(folder, name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, bare(err)
	}
	defer func() {
		if old == nil {
			_ = file.Close()
		}
	}()
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, bare(err)
	case info.Mode().Type() != os.ModeSocket:
		return nil, errors.New("there is something else that is no socket; move it away, or choose another address")
	}
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "unix", file.path())
	switch {
	case err == nil:
		_ = conn.Close()
		return nil, errors.New("another process listens there; is another deaddrop running?")
	case errors.Is(err, syscall.ECONNREFUSED):
		return &oldSocket{info, file}, nil // Its owner is gone.
	}
	return nil, fmt.Errorf("there is a socket, and it is not known whether it is used: %w", bare(err))
}
