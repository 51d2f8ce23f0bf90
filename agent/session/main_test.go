package session

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/compose/vaulttest"
	"github.com/smarteros/deaddrop/render/secret"
)

// patience is how long a test waits for what is bound to come; a busy machine
// may take its time.
const patience = 60 * time.Second

// often is how often a test looks meanwhile.
const often = 20 * time.Millisecond

// TestMain keeps the shell's variables out, and finds goroutines that a session
// has left behind.
func TestMain(m *testing.M) {
	maxAnswer = 8 << 20
	for _, pair := range os.Environ() {
		name, _, _ := strings.Cut(pair, "=")
		if os.Getenv(behindAProxy) == "" && (strings.HasPrefix(name, "VAULT_") || name == "CREDENTIALS_DIRECTORY") {
			_ = os.Unsetenv(name)
		}
	}
	code := m.Run()
	hangUps.Range(func(client, _ any) bool {
		closeIdle(client.(*api.Client))
		return true
	})
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// hangUps are the tests' own clients, whose idle connections are no leak.
var hangUps sync.Map

func closeIdle(client *api.Client) { client.CloneConfig().HttpClient.CloseIdleConnections() }

// shared is the Vault of most tests. Each makes mounts of its own in it.
func shared(t *testing.T) *vaulttest.Server {
	t.Helper()
	server := vaulttest.Shared(t)
	hangUps.Store(server.Client, nil)
	return server
}

// own is a Vault for one test.
func own(t *testing.T, flags ...string) *vaulttest.Server {
	t.Helper()
	server := vaulttest.Own(t, flags...)
	t.Cleanup(func() { closeIdle(server.Client) })
	return server
}

// name is a name that no other test uses.
func name() string { return "t-" + strings.ToLower(rand.Text()[:12]) }

func write(t *testing.T, server *vaulttest.Server, path string, data map[string]any) *api.Secret {
	t.Helper()
	answer, err := server.Client.Logical().Write(path, data)
	require.NoError(t, err)
	return answer
}

func enable(t *testing.T, server *vaulttest.Server, path, kind string) {
	t.Helper()
	require.NoError(t, server.Client.Sys().EnableAuthWithOptions(path, &api.EnableAuthOptions{Type: kind}))
}

// policy lets a token read a secret, which holds a marker, and issue
// certificates, which have leases. It is not the default policy: a token with it
// alone can neither be renewed nor revoke itself.
func policy(t *testing.T, server *vaulttest.Server, name string) {
	t.Helper()
	rules := fmt.Sprintf(`path "secret/data/%[1]s" { capabilities = ["read"] }
path "secret/metadata/%[1]s" { capabilities = ["list"] }
path "%[1]s-pki/issue/any" { capabilities = ["update"] }`, name)
	require.NoError(t, server.Client.Sys().PutPolicy(name, rules))
	write(t, server, "secret/data/"+name, map[string]any{"data": map[string]any{"key": "value"}})
}

// role is an AppRole on a mount of its own.
type role struct {
	t        *testing.T
	server   *vaulttest.Server
	name     string // of mount, role, policy and secret
	at       string // the role in the API
	id       string
	secretID string
	folder   string
	secrets  []string // may not be logged
}

// newRole makes a role. Its tokens have the default policy too, unless the
// settings say otherwise.
func newRole(t *testing.T, server *vaulttest.Server, settings map[string]any) *role {
	t.Helper()
	r := &role{t: t, server: server, name: name(), folder: t.TempDir()}
	r.at = "auth/" + r.name + "/role/" + r.name
	policy(t, server, r.name)
	enable(t, server, r.name, "approle")
	all := map[string]any{"token_policies": r.name}
	for key, value := range settings {
		all[key] = value
	}
	write(t, server, r.at, all)
	answer, err := server.Client.Logical().Read(r.at + "/role-id")
	require.NoError(t, err)
	r.id = answer.Data["role_id"].(string)
	r.secretID = r.newSecretID()
	return r
}

func (r *role) newSecretID() string {
	r.t.Helper()
	id := write(r.t, r.server, r.at+"/secret-id", nil).Data["secret_id"].(string)
	r.secrets = append(r.secrets, id)
	return id
}

// tidy makes Vault forget secret ids that have expired. It does so by itself
// once a minute, and takes them until then.
func (r *role) tidy() {
	r.t.Helper()
	write(r.t, r.server, "auth/"+r.name+"/tidy/secret-id", nil)
}

// wrapped is a new secret id in a wrapping token.
func (r *role) wrapped() string {
	r.t.Helper()
	return wrap(r.t, r.server, r.at+"/secret-id", nil)
}

func wrap(t *testing.T, server *vaulttest.Server, path string, data map[string]any) string {
	t.Helper()
	client, err := server.Client.Clone()
	require.NoError(t, err)
	defer closeIdle(client)
	client.SetToken(server.RootToken)
	client.SetWrappingLookupFunc(func(string, string) string { return "5m" })
	answer, err := client.Logical().Write(path, data)
	require.NoError(t, err)
	return answer.WrapInfo.Token
}

// file writes a file of the test's folder.
func (r *role) file(name, content string) string {
	r.t.Helper()
	path := filepath.Join(r.folder, name)
	require.NoError(r.t, os.WriteFile(path, []byte(content+"\n"), 0o600))
	return path
}

// auth logs in with values; a test changes what it is about.
func (r *role) auth() config.Auth {
	return config.Auth{
		Method: config.MethodAppRole, MountPath: r.name,
		RoleID: config.ID{Value: secret.Of(r.id)}, SecretID: config.ID{Value: secret.Of(r.secretID)},
	}
}

// authFile logs in with the secret id, or wrapping token, in a file.
func (r *role) authFile(content string) config.Auth {
	r.t.Helper()
	auth := r.auth()
	auth.SecretID = config.ID{File: r.file("secret_id", content)}
	return auth
}

// pki lets the role issue certificates that have leases.
func (r *role) pki() {
	r.t.Helper()
	at := r.name + "-pki"
	require.NoError(r.t, r.server.Client.Sys().Mount(at, &api.MountInput{Type: "pki"}))
	write(r.t, r.server, at+"/root/generate/internal", map[string]any{"common_name": "test", "key_type": "ec"})
	write(r.t, r.server, at+"/roles/any", map[string]any{
		"allow_any_name": true, "generate_lease": true, "key_type": "ec", "ttl": "10m",
	})
}

// lease issues a certificate.
func (r *role) lease(s *Session) (Answer, error) {
	return s.Write(r.t.Context(), r.name+"-pki/issue/any", map[string]any{"common_name": "x.test"})
}

func (r *role) leaseLives(id string) bool {
	_, err := r.server.Client.Logical().Write("sys/leases/lookup", map[string]any{"lease_id": id})
	return err == nil
}

// read reads the role's secret.
func (r *role) read(s *Session) error {
	answer, err := s.Read(r.t.Context(), "secret/data/"+r.name, nil)
	if err == nil && answer.Secret == nil {
		return fmt.Errorf("nothing was read")
	}
	return err
}

// logged is a log that a test can search.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logged) count(text string) int { return strings.Count(l.String(), text) }

// at are the lines of one level.
func (l *logged) at(level slog.Level) []string {
	lines := strings.Split(l.String(), "\n")
	return slices.DeleteFunc(lines, func(line string) bool { return !strings.Contains(line, "level="+level.String()) })
}

// aToken is what Vault's tokens look like, be they service, batch or wrapping.
var aToken = regexp.MustCompile(`\b(hv[sbr]|[sb])\.[A-Za-z0-9_-]{10,}`)

// guarded checks that a text shows no secret.
func guarded(t *testing.T, text string, secrets ...string) {
	t.Helper()
	assert.NotRegexp(t, aToken, text)
	for _, s := range secrets {
		assert.NotContains(t, text, s)
	}
}

// vaultAt is the configuration of a Vault.
func vaultAt(server *vaulttest.Server) config.Vault {
	return config.Vault{Address: server.Address, CACert: server.CAFile}
}

// newSession makes a session that says all it has to say into a log, and
// searches the log for secrets at the end.
func newSession(t *testing.T, vault config.Vault, auth config.Auth, secrets ...string) (*Session, *logged) {
	t.Helper()
	log := &logged{}
	s, err := New(vault, auth, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		s.Close(ctx, false)
		guarded(t, log.String(), secrets...)
		if t.Failed() {
			t.Log(log.String())
		}
	})
	return s, log
}

// session of a role.
func (r *role) session(auth config.Auth) (*Session, *logged) {
	r.t.Helper()
	return newSession(r.t, vaultAt(r.server), auth, r.secrets...)
}

// run runs a session until the test, or what is returned, ends it.
func run(t *testing.T, s *Session) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		assert.NoError(t, s.Run(ctx))
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(stop)
	return stop
}

// eventually waits for what is bound to come.
func eventually(t *testing.T, condition func() bool, what string, args ...any) {
	t.Helper()
	require.Eventually(t, condition, patience, often, append([]any{what}, args...)...)
}

// loggedIn waits for the first login and returns its token.
func loggedIn(t *testing.T, s *Session) string {
	t.Helper()
	eventually(t, func() bool { return s.current() != nil }, "no login")
	return s.current().value
}

// replaced waits until the token is another one, which it returns.
func replaced(t *testing.T, s *Session, old string) string {
	t.Helper()
	eventually(t, func() bool { return s.current().value != old }, "the token was not replaced")
	return s.current().value
}

// lives tells whether Vault knows a token.
func lives(server *vaulttest.Server, token string) bool {
	_, err := server.Client.Auth().Token().Lookup(token)
	return err == nil
}

// fault checks that an error is a Fault without secrets, and returns it.
func fault(t *testing.T, err error, secrets ...string) *Fault {
	t.Helper()
	var f *Fault
	require.ErrorAs(t, err, &f)
	guarded(t, err.Error(), secrets...)
	return f
}

// proxy is a reverse proxy in front of the real Vault. It notes the requests,
// and can put a fault in the way that the real thing does not produce on demand.
type proxy struct {
	*httptest.Server
	vault http.Handler
	fail  atomic.Pointer[http.HandlerFunc] // answers instead of Vault

	mu     sync.Mutex
	seen   []*http.Request
	denial []string // the paths of what Vault has denied
}

func newProxy(t *testing.T, server *vaulttest.Server) *proxy {
	t.Helper()
	p := &proxy{}
	p.Server = httptest.NewServer(p.handler(t, server))
	t.Cleanup(p.Close)
	return p
}

// handler is the proxy without a listener.
func (p *proxy) handler(t *testing.T, server *vaulttest.Server) http.Handler {
	t.Helper()
	target, err := url.Parse(server.Address)
	require.NoError(t, err)
	reverse := httputil.NewSingleHostReverseProxy(target)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	reverse.Transport = transport
	reverse.ModifyResponse = func(answer *http.Response) error {
		if answer.StatusCode == http.StatusForbidden {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.denial = append(p.denial, answer.Request.URL.Path)
		}
		return nil
	}
	p.vault = reverse
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.seen = append(p.seen, r.Clone(context.Background()))
		p.mu.Unlock()
		if fail := p.fail.Load(); fail != nil {
			(*fail)(w, r)
			return
		}
		p.vault.ServeHTTP(w, r)
	})
}

// inject answers every request instead of Vault, until heal is called.
func (p *proxy) inject(f http.HandlerFunc) { p.fail.Store(&f) }

// failAt answers with a status where a path ends so.
func (p *proxy) failAt(ending string, status int) {
	p.onlyAt(ending, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
}

// before calls f when the first request to such a path comes by, which then
// goes on to Vault.
func (p *proxy) before(ending string, f func()) {
	p.onlyAt(ending, func(w http.ResponseWriter, r *http.Request) {
		p.heal()
		f()
		p.vault.ServeHTTP(w, r)
	})
}

func (p *proxy) onlyAt(ending string, f http.HandlerFunc) {
	p.inject(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ending) {
			f(w, r)
			return
		}
		p.vault.ServeHTTP(w, r)
	})
}

func (p *proxy) heal() { p.fail.Store(nil) }

// count is how many requests went to paths with this ending.
func (p *proxy) count(ending string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, r := range p.seen {
		if strings.HasSuffix(r.URL.Path, ending) {
			n++
		}
	}
	return n
}

// denied is how many requests to paths with this ending Vault has denied.
func (p *proxy) denied(ending string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, path := range p.denial {
		if strings.HasSuffix(path, ending) {
			n++
		}
	}
	return n
}

// headers are the values of a header in all requests so far.
func (p *proxy) headers(name string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for _, r := range p.seen {
		all = append(all, r.Header.Get(name))
	}
	return slices.Compact(all)
}

// through is the configuration to reach the Vault by the proxy.
func (p *proxy) through() config.Vault { return config.Vault{Address: p.URL} }
