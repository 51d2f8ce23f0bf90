// Package vault is how tenantctl talks to Vault: the client that the VAULT_*
// variables describe, with errors that say what was being done and what helps.
package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/vault/api"

	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/input"
	"github.com/smarteros/deaddrop/render/safefile"
)

// ErrMissing is for what is not there, ErrConflict for what somebody else has
// changed meanwhile.
var (
	ErrMissing  = errors.New("not there")
	ErrConflict = errors.New("changed by someone else meanwhile")
)

// maxToken is the size of the largest file with a token, in bytes.
const maxToken = 64 << 10

// maxCertificates is the size of the largest file of certificates, in bytes.
const maxCertificates = 16 << 20

// TokenFile is where "vault login" and "tenantctl login" keep the token.
func TokenFile() (string, error) {
	home, err := os.UserHomeDir()
	return filepath.Join(home, ".vault-token"), err
}

// SavedToken returns the token of [TokenFile], and its path. The token is "" where there is
// no file that can be read.
func SavedToken() (token, path string) {
	path, err := TokenFile()
	if err != nil {
		return "", ""
	}
	content, _ := safefile.Read(path, maxToken) // Most often it is not there.
	return strings.TrimSpace(string(content)), path
}

// Client asks Vault. Its methods may be called concurrently.
type Client struct {
	api *api.Client
}

// Connect returns a client for the Vault of VAULT_ADDR and the other variables of
// Vault's own client, with the token of VAULT_TOKEN or else of ~/.vault-token. It
// contacts nothing.
func Connect() (*Client, error) {
	for _, name := range []string{api.EnvVaultCACert, api.EnvVaultClientCert, api.EnvVaultClientKey} {
		if err := input.Check(os.Getenv(name), maxCertificates); err != nil { // Vault's client reads whatever is there.
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	cfg := api.DefaultConfig()
	if cfg.Error != nil {
		return nil, cfg.Error
	}
	if t, ok := cfg.HttpClient.Transport.(*http.Transport); ok {
		t.MaxIdleConnsPerHost = 32 // Else most of the requests that are made at the same time dial.
	}
	client, err := api.NewClient(cfg)
	if err != nil {
		return nil, err
	}
	if err := checkAddress(client.Address()); err != nil {
		return nil, err
	}
	// A guarded client of a socket cannot be cloned. Its redirects end at the socket, too.
	if !strings.HasPrefix(cfg.Address, "unix://") {
		session.Guard(cfg, nil)
	}
	// VAULT_WRAP_TTL would have every answer wrapped, which nobody here unwraps.
	client.SetWrappingLookupFunc(func(string, string) string { return "" })
	if client.Token() == "" {
		token, _ := SavedToken()
		client.SetToken(token)
	}
	return &Client{client}, nil
}

// New makes a client of one that is configured already.
func New(client *api.Client) *Client { return &Client{client} }

// API is the client underneath, for what has methods of its own there. Wrap its
// errors with [Client.Explain].
func (c *Client) API() *api.Client { return c.api }

// Address is that of Vault.
func (c *Client) Address() string { return c.api.Address() }

// With returns a client with another token.
func (c *Client) With(token string) (*Client, error) {
	other, err := c.api.CloneWithHeaders() // The namespace is one.
	if err != nil {
		return nil, err
	}
	other.SetToken(token)
	return &Client{other}, nil
}

// Explain makes an error that says what was being done (op, such as "reading
// secret/data/x"), of which kind the fault is (the sentinels of package session,
// [ErrMissing] for a 404) and what helps. nil stays nil.
func (c *Client) Explain(op string, err error) error {
	if err == nil {
		return nil
	}
	explained := hint(session.Explain(op, c.Address(), err), err)
	var answer *api.ResponseError
	if !errors.As(err, &answer) {
		return explained
	}
	var fault *session.Fault
	switch {
	case answer.StatusCode == http.StatusNotFound:
		return &kindError{explained, ErrMissing}
	case tooLarge(answer) && errors.As(explained, &fault):
		fault.Kind, fault.Transient = session.ErrRejected, false
		fault.Hint = "its storage takes nothing that large, nor names that long"
	}
	return explained
}

// tooLarge tells whether Vault's storage has refused something, which Vault takes for
// a failure of its own that may pass.
func tooLarge(answer *api.ResponseError) bool {
	text := strings.Join(answer.Errors, " ")
	for _, said := range []string{"value being too large", "key being too large", "file name too long"} {
		if strings.Contains(text, said) {
			return true
		}
	}
	return false
}

// kindError adds a kind to an error.
type kindError struct {
	err  error
	kind error
}

func (e *kindError) Error() string   { return e.err.Error() }
func (e *kindError) Unwrap() []error { return []error{e.err, e.kind} }

// Errorf makes an error of a kind, such as [ErrConflict], whose text says it all.
func Errorf(kind error, format string, args ...any) error {
	return &kindError{fmt.Errorf(format, args...), kind}
}

// Read returns nil where nothing is there.
func (c *Client) Read(ctx context.Context, path string, query url.Values) (*api.Secret, error) {
	s, err := c.api.Logical().ReadWithDataWithContext(ctx, path, query)
	return s, c.Explain("reading "+path, err)
}

// Write may return nil: not every write is answered.
func (c *Client) Write(ctx context.Context, path string, data map[string]any) (*api.Secret, error) {
	s, err := c.api.Logical().WriteWithContext(ctx, path, data)
	return s, c.Explain("writing "+path, err)
}

// Delete deletes what is at a path.
func (c *Client) Delete(ctx context.Context, path string) error {
	_, err := c.api.Logical().DeleteWithContext(ctx, path)
	return c.Explain("deleting "+path, err)
}

// List returns the names below a path, none where nothing is there. Those of
// folders end in a slash.
func (c *Client) List(ctx context.Context, path string) ([]string, error) {
	s, err := c.api.Logical().ListWithContext(ctx, path)
	if err != nil || s == nil {
		return nil, c.Explain("listing "+path, err)
	}
	keys, _ := s.Data["keys"].([]any)
	var names []string
	for _, key := range keys {
		if name, ok := key.(string); ok {
			names = append(names, name)
		}
	}
	return names, nil
}
