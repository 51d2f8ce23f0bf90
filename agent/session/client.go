package session

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/smarteros/deaddrop/agent/config"
)

// newClient applies the file to what the client library took from VAULT_*
// variables. Those win, as they do for Vault Agent. It carries no token: only
// what the login gives counts.
func newClient(vault config.Vault) (*api.Client, error) {
	cfg := api.DefaultConfig()
	if cfg.Error != nil {
		return nil, config.Invalid("in the VAULT_* environment variables: %s", cfg.Error)
	}
	if vault.Address != "" && unset("VAULT_ADDR") {
		cfg.Address = vault.Address
	}
	if unset("VAULT_MAX_RETRIES") {
		cfg.MaxRetries = 0 // Who reads also retries.
	}
	if unset("VAULT_CLIENT_TIMEOUT") {
		cfg.Timeout = requestTimeout
	}
	if tls, fromFile := tlsOf(vault); fromFile {
		if err := cfg.ConfigureTLS(&tls); err != nil {
			return nil, config.Invalid("in the \"vault\" block: %s", err)
		}
	}
	cfg.HttpClient.Transport.(*http.Transport).MaxIdleConnsPerHost = MaxConcurrent
	client, err := api.NewClient(cfg)
	if err != nil {
		return nil, config.Invalid("setting up the Vault client: %s", err)
	}
	if vault.Namespace != "" && unset("VAULT_NAMESPACE") {
		client.SetNamespace(vault.Namespace)
	}
	client.ClearToken()
	return client, nil
}

func unset(name string) bool { return os.Getenv(name) == "" }

// tlsOf returns what the file says of TLS and no variable overrules.
func tlsOf(vault config.Vault) (tls api.TLSConfig, fromFile bool) {
	tls, fromFile = api.TLSConfig{Insecure: vault.TLSSkipVerify}, vault.TLSSkipVerify
	for name, pair := range map[string]struct{ from, to *string }{
		"VAULT_CACERT":          {&vault.CACert, &tls.CACert},
		"VAULT_CAPATH":          {&vault.CAPath, &tls.CAPath},
		"VAULT_CLIENT_CERT":     {&vault.ClientCert, &tls.ClientCert},
		"VAULT_CLIENT_KEY":      {&vault.ClientKey, &tls.ClientKey},
		"VAULT_TLS_SERVER_NAME": {&vault.TLSServerName, &tls.TLSServerName},
	} {
		if unset(name) && *pair.from != "" {
			*pair.to, fromFile = *pair.from, true
		}
	}
	return tls, fromFile
}

// lookAgain is how often, at most, the files of TLS are looked at.
const lookAgain = time.Second

// connection is a client whose certificates are those that the files hold now.
type connection struct {
	vault config.Vault
	files []string

	mu     sync.Mutex
	client *api.Client
	seen   string // the state of the files
	looked time.Time
}

func connect(vault config.Vault) (*connection, error) {
	c := &connection{vault: vault, files: tlsFiles(vault)}
	c.seen, c.looked = signature(c.files), time.Now()
	client, err := newClient(vault)
	c.client = client
	return c, err
}

func tlsFiles(vault config.Vault) []string {
	var files []string
	for name, file := range map[string]string{
		"VAULT_CACERT": vault.CACert, "VAULT_CAPATH": vault.CAPath,
		"VAULT_CLIENT_CERT": vault.ClientCert, "VAULT_CLIENT_KEY": vault.ClientKey,
	} {
		if !unset(name) {
			file = os.Getenv(name)
		}
		if file != "" {
			files = append(files, file)
		}
	}
	return files
}

// signature tells whether files, or the files in folders, were replaced or
// written to.
func signature(files []string) string {
	var text string
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			text += err.Error() + "\n"
			continue
		}
		text += fmt.Sprintln(file, info.Size(), info.ModTime().UnixNano())
		if info.IsDir() {
			inside, _ := filepath.Glob(filepath.Join(file, "*"))
			text += signature(inside)
		}
	}
	return text
}

// current returns the client. Where the files have changed it is a new one; an
// error says why a new one cannot be had, once, and the old one is returned.
func (c *connection) current() (client *api.Client, changed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.files) == 0 || time.Since(c.looked) < lookAgain {
		return c.client, false, nil
	}
	c.looked = time.Now()
	now := signature(c.files)
	if now == c.seen {
		return c.client, false, nil
	}
	c.seen = now
	next, err := newClient(c.vault)
	if err != nil {
		return c.client, false, err
	}
	c.closeIdle()
	c.client = next
	return next, true, nil
}

// hangUp closes the connections that nobody uses. After a time-out one of them
// may be dead without either end knowing.
func (c *connection) hangUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeIdle()
}

func (c *connection) closeIdle() { c.client.CloneConfig().HttpClient.CloseIdleConnections() }
