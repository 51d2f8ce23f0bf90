package session

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/render/secret"
)

// recorder is a server that notes each request it gets, with header and body.
type recorder struct {
	*httptest.Server
	mu   sync.Mutex
	seen []string
}

func newRecorder(t *testing.T, start func(http.Handler) *httptest.Server) *recorder {
	t.Helper()
	r := &recorder{}
	r.Server = start(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.seen = append(r.seen, fmt.Sprint(q.Method, q.URL, q.Header, string(body)))
		_, _ = fmt.Fprint(w, `{"request_id":"1","auth":{"client_token":"hvs.elsewhere","lease_duration":60,"renewable":true},"data":{"x":"y"}}`)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *recorder) requests() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen
}

// redirector answers like Vault, but redirects the paths that end in a suffix.
type redirector struct {
	*httptest.Server
	mu     sync.Mutex
	suffix string
	status int
	to     string
}

func newRedirector(t *testing.T, start func(http.Handler) *httptest.Server) *redirector {
	t.Helper()
	v := &redirector{}
	v.Server = start(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		v.mu.Lock()
		defer v.mu.Unlock()
		switch {
		case v.suffix != "" && strings.HasSuffix(q.URL.Path, v.suffix):
			w.Header().Set("Location", v.to+q.URL.Path)
			w.WriteHeader(v.status)
		case strings.HasSuffix(q.URL.Path, "revoke-self"):
			w.WriteHeader(http.StatusNoContent)
		default:
			_, _ = fmt.Fprint(w, `{"request_id":"1","auth":{"client_token":"hvs.token-of-the-agent","lease_duration":60,"renewable":true},"data":{"x":"y"}}`)
		}
	}))
	t.Cleanup(v.Close)
	return v
}

func (v *redirector) redirect(suffix string, status int, to string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.suffix, v.status, v.to = suffix, status, to
}

func host(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	require.NoError(t, err)
	return u.Host
}

func appRoleAuth() config.Auth {
	return config.Auth{
		Method: config.MethodAppRole, MountPath: "approle",
		RoleID: config.ID{Value: secret.Of("the-role-id")}, SecretID: config.ID{Value: secret.Of("the-secret-id")},
	}
}

func TestRedirect_SendsNothingToAnotherOrigin(t *testing.T) {
	elsewhere := newRecorder(t, httptest.NewServer)
	vault := newRedirector(t, httptest.NewServer)
	steps := map[string]struct {
		suffix string
		do     func(context.Context, *Session) error
	}{
		"login": {"/login", func(ctx context.Context, s *Session) error { return s.Login(ctx) }},
		"read": {"/secret/data/x", func(ctx context.Context, s *Session) error {
			_, err := s.Read(ctx, "secret/data/x", nil)
			return err
		}},
		"list": {"/secret/metadata/x", func(ctx context.Context, s *Session) error {
			_, err := s.List(ctx, "secret/metadata/x")
			return err
		}},
		"write": {"/pki/issue/x", func(ctx context.Context, s *Session) error {
			_, err := s.Write(ctx, "pki/issue/x", map[string]any{"common_name": "x"})
			return err
		}},
		"renew":  {"/renew-self", func(ctx context.Context, s *Session) error { return s.renew(ctx, s.current()) }},
		"verify": {"/sys/internal/ui/mounts", func(ctx context.Context, s *Session) error { _, err := s.TokenIsValid(ctx); return err }},
		"health of the doctor": {"/sys/health", func(ctx context.Context, s *Session) error {
			_, err := s.Client().Sys().HealthWithContext(ctx)
			return err
		}},
		"raw request": {"/sys/seal-status", func(ctx context.Context, s *Session) error {
			_, err := s.Client().Logical().ReadRawWithContext(ctx, "sys/seal-status")
			return err
		}},
	}
	for name, step := range steps {
		for _, status := range []int{301, 302, 303, 307, 308} {
			t.Run(fmt.Sprint(name, " ", status), func(t *testing.T) {
				vault.redirect("", 0, "")
				s, _, err := Probe(config.Vault{Address: vault.URL}, appRoleAuth(), slog.New(slog.DiscardHandler))
				require.NoError(t, err)
				defer s.conn.hangUp()
				if name != "login" {
					require.NoError(t, s.Login(t.Context()))
				}
				vault.redirect(step.suffix, status, elsewhere.URL)
				err = step.do(t.Context(), s)
				require.ErrorContains(t, err, "Vault redirects to "+elsewhere.URL+", which is another origin")
				assert.Empty(t, elsewhere.requests())
			})
		}
	}
}

func TestRedirect_SendsNoTokenToRevokeToAnotherOrigin(t *testing.T) {
	elsewhere := newRecorder(t, httptest.NewServer)
	vault := newRedirector(t, httptest.NewServer)
	s, err := New(config.Vault{Address: vault.URL}, appRoleAuth(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.NoError(t, s.Login(t.Context()))
	vault.redirect("/revoke-self", http.StatusTemporaryRedirect, elsewhere.URL)
	s.Close(t.Context(), false)
	assert.Empty(t, elsewhere.requests())
}

func TestRedirect_IsATransientFaultWithAHint(t *testing.T) {
	vault := newRedirector(t, httptest.NewServer)
	vault.redirect("/login", http.StatusTemporaryRedirect, "https://user:password@vault-2.example:8200")
	s, _ := newSession(t, config.Vault{Address: vault.URL}, appRoleAuth(), "the-secret-id")
	f := fault(t, s.Login(t.Context()))
	require.ErrorIs(t, f, ErrUnreachable)
	assert.True(t, f.Transient)
	assert.Equal(t, "Vault redirects to https://vault-2.example:8200, which is another origin: nothing was sent there", f.Detail)
	assert.Contains(t, f.Hint, `allow_redirects_to = ["vault-2.example:8200"]`)
}

func TestRedirect_IsFollowedToItsOwnAndToNamedHosts(t *testing.T) {
	node := newRecorder(t, httptest.NewServer)
	vault := newRedirector(t, httptest.NewServer)
	s, _ := newSession(t, config.Vault{Address: vault.URL, AllowRedirectsTo: []string{"other.example:8200", host(t, node.URL)}}, appRoleAuth())
	vault.redirect("/login", http.StatusTemporaryRedirect, node.URL)
	require.NoError(t, s.Login(t.Context()))
	require.Len(t, node.requests(), 1)
	assert.Contains(t, node.requests()[0], "the-secret-id")

	vault.redirect("/secret/data/x", http.StatusTemporaryRedirect, vault.URL+"/at-the-same-host")
	_, err := s.Read(t.Context(), "secret/data/x", nil)
	assert.NotContains(t, fmt.Sprint(err), "another origin")
}

func TestRedirect_IsNeverFollowedFromTLSToNone(t *testing.T) {
	elsewhere := newRecorder(t, httptest.NewServer)
	vault := newRedirector(t, httptest.NewTLSServer)
	vault.redirect("/login", http.StatusTemporaryRedirect, elsewhere.URL)
	s, _ := newSession(t, config.Vault{Address: vault.URL, TLSSkipVerify: true, AllowRedirectsTo: []string{host(t, elsewhere.URL)}}, appRoleAuth())
	f := fault(t, s.Login(t.Context()))
	assert.Equal(t, "Vault redirects to "+elsewhere.URL+", which has no TLS: nothing was sent there", f.Detail)
	assert.Empty(t, elsewhere.requests())
}

func TestRedirect_IsNotFollowedWhereAVariableForbidsIt(t *testing.T) {
	t.Setenv("VAULT_DISABLE_REDIRECTS", "true")
	vault := newRedirector(t, httptest.NewServer)
	vault.redirect("/login", http.StatusTemporaryRedirect, vault.URL+"/x")
	s, _ := newSession(t, config.Vault{Address: vault.URL}, appRoleAuth())
	assert.Contains(t, fault(t, s.Login(t.Context())).Detail, "and VAULT_DISABLE_REDIRECTS is set")
}

func TestRedirects_CompareSchemeHostAndPort(t *testing.T) {
	allowed := redirects{allowed: []string{"vault-2.example:8200", "[fd00::2]:443"}}
	for location, followed := range map[string]bool{
		"/v1/other":                            true,
		"https://vault.example/v1/x":           true,
		"https://VAULT.example:443/v1/x":       true,
		"//vault.example/v1/x":                 true,
		"https://vault.example:8200/v1/x":      false,
		"https://vault.example.evil/v1/x":      false,
		"https://vault.example@evil/v1/x":      false,
		"//evil/v1/x":                          false,
		"http://vault.example:443/v1/x":        false,
		"https://vault-2.example:8200/v1":      true,
		"https://Vault-2.Example:8200/v1":      true,
		"https://vault-2.example/v1":           false,
		"http://vault-2.example:8200/v1":       false,
		"https://[fd00::2]/v1":                 true,
		"ftp://vault-2.example:8200":           false,
		"https:///v1/x":                        false,
		"https://" + strings.Repeat("x", 5000): false,
	} {
		answer := &http.Response{StatusCode: http.StatusTemporaryRedirect, Header: http.Header{"Location": {location}}}
		from, err := url.Parse("https://vault.example/v1/secret/data/x")
		require.NoError(t, err)
		err = allowed.check(from, answer)
		if followed {
			assert.NoError(t, err, location)
			continue
		}
		var redirect *RedirectError
		require.ErrorAs(t, err, &redirect, location)
		assert.Less(t, len(redirect.Error()), 500)
	}
}

// The proxy of a client may answer itself.
func TestRedirect_OfAProxyIsNotFollowed(t *testing.T) {
	elsewhere := newRecorder(t, httptest.NewServer)
	proxy := newRedirector(t, httptest.NewServer)
	proxy.redirect("/login", http.StatusTemporaryRedirect, elsewhere.URL)
	t.Setenv("VAULT_PROXY_ADDR", proxy.URL)
	s, _ := newSession(t, config.Vault{Address: "http://vault.invalid:8200"}, appRoleAuth())
	assert.Contains(t, fault(t, s.Login(t.Context())).Detail, "which is another origin")
	assert.Empty(t, elsewhere.requests())
}

func TestGuard_DoesNotRetryARefusedRedirect(t *testing.T) {
	vault := newRecorder(t, func(h http.Handler) *httptest.Server {
		return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			h.ServeHTTP(httptest.NewRecorder(), q)
			http.Redirect(w, q, "http://vault.invalid/", http.StatusTemporaryRedirect)
		}))
	})
	cfg := api.DefaultConfig()
	cfg.Address, cfg.MaxRetries = vault.URL, 5
	client, err := api.NewClient(cfg)
	require.NoError(t, err)
	Guard(cfg, nil)
	defer closeIdle(client)
	_, err = client.Logical().ReadWithContext(t.Context(), "secret/data/x")
	var redirect *RedirectError
	require.ErrorAs(t, err, &redirect)
	assert.Len(t, vault.requests(), 1)
	assert.IsType(t, &tls.Config{}, Transport(client).TLSClientConfig)
}
