// Package devvault runs a real HashiCorp Vault in this process, on loopback,
// for the demo and the tests of deaddrop.
//
// It is Vault's own server code with a short list of engines: kv (v1 and v2),
// pki, database with the PostgreSQL plugin, transit, and the auth methods
// token, approle, userpass, cert and jwt. Vault is licensed under BUSL-1.1; this
// package is for development and tests, and nothing of it is shipped.
package devvault

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-secure-stdlib/reloadutil"
	"github.com/hashicorp/vault/sdk/physical"
	"github.com/hashicorp/vault/vault"
	"github.com/hashicorp/vault/version"
)

// Options say how a server is started. The zero value is an unsealed server in
// memory, on a free port, without TLS.
type Options struct {
	// Listen is HOST:PORT on loopback; port 0 takes a free one. Default 127.0.0.1:0.
	Listen string
	// Anywhere lets Listen be an address that other machines reach: in a container
	// no other is of use.
	Anywhere bool
	// TLS serves HTTPS with a throw-away authority.
	TLS bool
	// TLSDir is where ca.pem and the server's certificate are kept, and found
	// again by the next start; a temporary folder by default.
	TLSDir string
	// RootToken is the root token; by default Vault makes one.
	RootToken string
	// State is a folder that keeps secrets and keys over restarts; by default
	// everything is in memory.
	State string
	// Audit is a file for Vault's audit log; by default there is none.
	Audit string
	// Sealed leaves the server sealed.
	Sealed bool
	// Raft makes the server a node of a cluster; by default it is alone.
	Raft Raft
	// Log gets Vault's own log; by default it goes nowhere.
	Log hclog.Logger
}

// Server is a running Vault.
type Server struct {
	// Address is its URL.
	Address string
	// Keys unseal it and log in as root.
	Keys
	// CAFile holds the authority to trust, where TLS is on.
	CAFile string
	// Version is Vault's.
	Version string

	core    *vault.Core
	http    []*http.Server // one for each listener
	state   *state
	storage physical.Backend
	node    *node // nil outside of a cluster that Options ask for
	tempDir string

	// What a configured server reloads.
	certificates []reloadutil.ReloadFunc
	auditFiles   func() error
}

// Check finds options that Start would refuse.
func (o Options) Check() error {
	if o.Listen != "" && !o.Anywhere {
		if err := CheckListen(o.Listen); err != nil {
			return err
		}
	}
	return o.checkRaft()
}

// Start runs a server, which answers requests when Start returns. The context
// bounds the start only.
func Start(ctx context.Context, o Options) (_ *Server, err error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if o.Log == nil {
		o.Log = hclog.NewNullLogger()
	}
	s := &Server{Version: version.GetVersion().VersionNumber()}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	var config *tls.Config
	if o.TLS {
		if config, err = s.certify(o.TLSDir); err != nil {
			return nil, err
		}
	}
	// The port comes first: when it is taken, nothing has been touched yet. A
	// client that connects early waits until the Vault behind it is ready.
	listener, err := s.listen(o.Listen, config)
	if err != nil {
		return nil, err
	}
	if err := s.open(ctx, o, listener.Addr()); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	s.serve(listener, o.Log)
	return s, nil
}

// Close stops the server. What it kept in memory is gone. Requests under way
// get a moment to end; longer would only be spent on idle HTTP/2 connections.
func (s *Server) Close() error {
	var errs []error
	ctx, cancel := context.WithTimeout(context.Background(), 250*time.Millisecond)
	defer cancel()
	for _, server := range s.http {
		if server.Shutdown(ctx) != nil {
			errs = append(errs, server.Close())
		}
	}
	if s.core != nil {
		errs = append(errs, s.core.Shutdown())
	}
	if storage, ok := s.storage.(io.Closer); ok {
		errs = append(errs, storage.Close())
	}
	if s.state != nil {
		errs = append(errs, s.state.close())
	}
	if s.tempDir != "" {
		errs = append(errs, os.RemoveAll(s.tempDir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("stopping Vault: %w", err)
	}
	return nil
}
