package session

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/filestate"
	"github.com/smarteros/deaddrop/agent/internal/textfile"
	"github.com/smarteros/deaddrop/render/safefile"
)

// newClient applies the file to what the client library took from VAULT_*
// variables. Those win, as they do for Vault Agent. It carries no token: only
// what the login gives counts.
func newClient(vault config.Vault) (*api.Client, error) {
	if err := checkFiles("VAULT_CACERT", "VAULT_CAPATH", "VAULT_CLIENT_CERT", "VAULT_CLIENT_KEY"); err != nil {
		return nil, err
	}
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
	if from, set := tlsOf(vault); set {
		if err := configureTLS(cfg, from); err != nil {
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
	// VAULT_WRAP_TTL would have every answer wrapped, which nobody here unwraps.
	client.SetWrappingLookupFunc(func(string, string) string { return "" })
	Guard(cfg, vault.AllowRedirectsTo)
	return client, nil
}

// unset tells whether none of these variables is set.
func unset(names ...string) bool {
	return !slices.ContainsFunc(names, func(name string) bool { return os.Getenv(name) != "" })
}

// tlsOf returns what the file says of TLS and no variable overrules. What
// belongs together is overruled together: a variable's authority does not go
// with another one of the file, nor its certificate with the file's key.
func tlsOf(vault config.Vault) (tls api.TLSConfig, fromFile bool) {
	if unset("VAULT_SKIP_VERIFY") {
		tls.Insecure = vault.TLSSkipVerify
	}
	if unset("VAULT_CACERT", "VAULT_CACERT_BYTES", "VAULT_CAPATH") {
		tls.CACert, tls.CAPath = vault.CACert, vault.CAPath
	}
	if unset("VAULT_CLIENT_CERT", "VAULT_CLIENT_KEY") {
		tls.ClientCert, tls.ClientKey = vault.ClientCert, vault.ClientKey
	}
	if unset("VAULT_TLS_SERVER_NAME") {
		tls.TLSServerName = vault.TLSServerName
	}
	return tls, tls.Insecure || cmp.Or(tls.CACert, tls.CAPath, tls.ClientCert, tls.ClientKey, tls.TLSServerName) != ""
}

// configureTLS reads the files itself: the library would wait for a FIFO, take all memory
// for a file without an end, and stumble over a byte order mark.
func configureTLS(cfg *api.Config, from api.TLSConfig) error {
	settings := cfg.HttpClient.Transport.(*http.Transport).TLSClientConfig
	if (from.ClientCert == "") != (from.ClientKey == "") {
		return errors.New("both client cert and client key must be provided")
	}
	if from.ClientCert != "" {
		pair, err := textfile.KeyPair(from.ClientCert, from.ClientKey)
		if err != nil {
			return err
		}
		// Whatever authorities the server prefers, as in the library.
		settings.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	if from.CACert != "" || from.CAPath != "" {
		pool, err := authorities(cmp.Or(from.CACert, from.CAPath))
		if err != nil {
			return err
		}
		settings.RootCAs = pool
	}
	return cfg.ConfigureTLS(&api.TLSConfig{Insecure: from.Insecure, TLSServerName: from.TLSServerName})
}

// authorities reads the certificates in a file, or in all files of a folder.
func authorities(path string) (*x509.CertPool, error) {
	files, err := filesIn(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, file := range files {
		content, err := textfile.Read(file)
		if err != nil {
			return nil, err
		}
		if !pool.AppendCertsFromPEM(content) {
			return nil, fmt.Errorf("there is no PEM certificate in %s", file)
		}
	}
	return pool, nil
}

// filesIn returns a file, or the files of a folder and of the folders in it; none for "".
// It does not follow links to folders.
func filesIn(path string) (files []string, err error) {
	if path == "" {
		return nil, nil
	}
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		return []string{path}, nil // It may be a link.
	}
	err = filepath.WalkDir(path, func(file string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, file)
		}
		return err
	})
	return files, err
}

// checkFiles refuses files that variables name, and that the library, which reads them
// itself, would wait for or stumble over. It leaves to the library to name those that are
// not there.
func checkFiles(variables ...string) error {
	for _, name := range variables {
		files, err := filesIn(os.Getenv(name))
		if err != nil {
			continue
		}
		for _, file := range files {
			_, err := textfile.Read(file)
			switch {
			case errors.Is(err, safefile.ErrNotRegular), errors.Is(err, safefile.ErrTooLarge):
				return config.Invalid("%s: %s", name, err)
			case textfile.HasMark(file):
				return config.Invalid("%s: %s begins with a byte order mark; save it without one (sed -i '1s/^\\xEF\\xBB\\xBF//' %s), or name it in the \"vault\" block", name, file, file)
			}
		}
	}
	return nil
}

// lookAgain is how often, at most, the files of TLS, and a token that was given
// and is about to end, are looked at.
const lookAgain = time.Second

// connection is a client whose certificates are those that the files hold now.
type connection struct {
	vault   config.Vault
	files   []string
	address string // without any password

	mu     sync.Mutex
	client *api.Client
	seen   string // the state of the files
	looked time.Time
}

func connect(vault config.Vault) (*connection, error) {
	c := &connection{vault: vault, files: tlsFiles(vault)}
	c.seen, c.looked = signature(c.files), time.Now()
	client, err := newClient(vault)
	if err != nil {
		return nil, err
	}
	c.client, c.address = client, addressOf(client)
	return c, nil
}

// addressOf is what the user calls the address: the client turns that of a unix
// socket into http://localhost.
func addressOf(client *api.Client) string {
	address := client.Address()
	if given := client.CloneConfig().Address; strings.HasPrefix(given, "unix://") {
		address = given
	}
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Redacted()
}

// tlsFiles are the files and folders that a client reads.
func tlsFiles(vault config.Vault) []string {
	file, _ := tlsOf(vault)
	files := []string{
		file.CACert, file.CAPath, file.ClientCert, file.ClientKey,
		os.Getenv("VAULT_CACERT"), os.Getenv("VAULT_CAPATH"), os.Getenv("VAULT_CLIENT_CERT"), os.Getenv("VAULT_CLIENT_KEY"),
	}
	return slices.DeleteFunc(files, func(name string) bool { return name == "" })
}

// signature is another text once files, or files in folders, were replaced or written to.
func signature(paths []string) string {
	var text strings.Builder
	for _, path := range paths {
		files, err := filesIn(path)
		if err != nil {
			fmt.Fprintln(&text, err)
		}
		for _, file := range files {
			state, _, err := filestate.Of(file)
			fmt.Fprintln(&text, file, state, err)
		}
	}
	return text.String()
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
