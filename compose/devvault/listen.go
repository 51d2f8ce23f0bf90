package devvault

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/hashicorp/go-hclog"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/vault"
)

// CheckListen refuses an address that other machines could reach.
func CheckListen(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("listen address %q: %w", address, err)
	}
	if onLoopback(host) {
		return nil
	}
	return fmt.Errorf("listen address %q is not on loopback (127.0.0.1, ::1, localhost): "+
		"this server is for tests, and everything in it is open to whoever has its root token", address)
}

// onLoopback does not look names up: what they stand for may change, localhost's
// may not.
func onLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// listen takes the port, and sets the address under which clients reach it.
func (s *Server) listen(address string, config *tls.Config) (net.Listener, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	s.Address = addressOf(listener, config != nil)
	if config != nil {
		listener = tls.NewListener(listener, config)
	}
	return listener, nil
}

// serve answers requests in the background, with the time-outs of Vault's own
// server.
func (s *Server) serve(listener net.Listener, log hclog.Logger) {
	s.serveHTTP(listener, &http.Server{
		Handler: vaulthttp.Handler.Handler(&vault.HandlerProperties{
			Core: s.core,
			// Vault reads it without looking whether it is there.
			ListenerConfig: &configutil.Listener{Type: "tcp", Address: listener.Addr().String()},
		}),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       5 * time.Minute,
	}, log)
}

// serveHTTP runs a server in the background until it is closed.
func (s *Server) serveHTTP(listener net.Listener, server *http.Server, log hclog.Logger) {
	// What goes wrong with a connection, such as a client that does not trust
	// the certificate, is the client's to tell.
	server.ErrorLog = log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug})
	s.http = append(s.http, server)
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("serving ended", "error", err)
		}
	}()
}
