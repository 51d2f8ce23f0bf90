// Package session keeps a logged-in connection to Vault and hands the rest of
// the agent a client that works.
package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/api/auth/approle"

	"github.com/smarteros/deaddrop/agent/config"
)

const (
	// requestTimeout bounds one request, unless VAULT_CLIENT_TIMEOUT does.
	requestTimeout = 15 * time.Second
	// MaxConcurrent is how many requests are worth sending at a time; as many
	// connections are kept open between them.
	MaxConcurrent = 8
	// newToken is how long a token that is denied something is not suspected of
	// having been revoked.
	newToken = 10 * time.Second
)

// Session is a connection to Vault. Reads wait until it is logged in.
type Session struct {
	client *api.Client
	auth   config.Auth
	log    *slog.Logger
	ready  chan struct{} // closed at the first login

	loggingIn sync.Mutex // one login at a time; reads go on with the old token

	mu     sync.Mutex
	logins int
	since  time.Time // of the last login
	due    time.Time // when to log in again; zero for never
	// doubted says that this token was taken in exchange for one that was
	// denied something. If it is denied as well, the token is not the reason.
	doubted bool
}

// New prepares a session, without contacting Vault.
func New(vault config.Vault, auth config.Auth, log *slog.Logger) (*Session, error) {
	client, err := newClient(vault)
	if err != nil {
		return nil, err
	}
	client.ClearToken() // Only what auth says counts.
	return &Session{client: client, auth: auth, log: log, ready: make(chan struct{})}, nil
}

// newClient applies the file to what the client library took from VAULT_*
// variables. Those win, as they do for Vault Agent.
func newClient(vault config.Vault) (*api.Client, error) {
	cfg := api.DefaultConfig()
	if cfg.Error != nil {
		return nil, config.Invalid("in the VAULT_* environment variables: %s", cfg.Error)
	}
	unset := func(name string) bool { return os.Getenv(name) == "" }
	if vault.Address != "" && unset("VAULT_ADDR") {
		cfg.Address = vault.Address
	}
	if unset("VAULT_MAX_RETRIES") {
		cfg.MaxRetries = 0 // Who reads also retries.
	}
	if unset("VAULT_CLIENT_TIMEOUT") {
		cfg.Timeout = requestTimeout
	}
	tls, fromFile := api.TLSConfig{Insecure: vault.TLSSkipVerify}, vault.TLSSkipVerify
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
	if fromFile {
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
	return client, nil
}

// Address is where Vault is, without any password.
func (s *Session) Address() string {
	u, err := url.Parse(s.client.Address())
	if err != nil {
		return ""
	}
	return u.Redacted()
}

// Run logs in, and again in good time before the token ends, until the context
// ends. Failures are retried for ever: the first is logged, and the recovery.
func (s *Session) Run(ctx context.Context) error {
	always := func(error) bool { return true }
	for ctx.Err() == nil {
		err := Retry(ctx, s.log, always, func() error { return s.login(ctx, s.generation(), false) })
		if err != nil {
			return nil // The context has ended.
		}
		for wait := s.wait(); wait > 0; wait = s.wait() {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(wait):
			}
		}
	}
	return nil
}

// wait tells how long the present token is good for.
func (s *Session) wait() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.due.IsZero() {
		return 365 * 24 * time.Hour
	}
	return time.Until(s.due)
}

func (s *Session) generation() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logins
}

// Login logs in once. Errors are of type [*Fault].
func (s *Session) Login(ctx context.Context) error { return s.login(ctx, s.generation(), false) }

// login replaces the token of the given generation; it does nothing where
// someone else has done so meanwhile.
func (s *Session) login(ctx context.Context, generation int, doubted bool) error {
	s.loggingIn.Lock()
	defer s.loggingIn.Unlock()
	if s.generation() != generation {
		return nil
	}
	token, ttl, err := s.authenticate(ctx)
	if err != nil {
		return err
	}
	s.client.SetToken(token)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since, s.due = time.Now(), time.Time{}
	if ttl > 0 {
		s.due = s.since.Add(renewAfter(ttl))
	}
	s.doubted = doubted
	s.logins++
	if s.logins == 1 {
		close(s.ready)
	}
	s.log.Info("logged in to Vault", "address", s.Address(), "ttl", ttl.String())
	return nil
}

// renewAfter is two thirds of a token's life, give or take a tenth, so that
// agents which were started together do not all come back together.
func renewAfter(ttl time.Duration) time.Duration {
	return time.Duration(float64(ttl) * (0.6 + rand.Float64()*0.133))
}

func (s *Session) authenticate(ctx context.Context) (token string, ttl time.Duration, err error) {
	if token := s.auth.Token.Reveal(); token != "" {
		return token, 0, nil
	}
	roleID, err := s.auth.RoleID.Read()
	if err != nil {
		return "", 0, s.badLogin(fmt.Sprintf("the role id cannot be read: %v", err))
	}
	secretID, err := s.auth.SecretID.Read()
	if err != nil {
		return "", 0, s.badLogin(fmt.Sprintf("the secret id cannot be read: %v", err))
	}
	method, err := approle.NewAppRoleAuth(roleID.Reveal(), &approle.SecretID{FromString: secretID.Reveal()}, approle.WithMountPath(s.auth.MountPath))
	if err != nil {
		return "", 0, s.badLogin(err.Error())
	}
	answer, err := method.Login(ctx, s.anonymous())
	if err != nil {
		return "", 0, s.loginFault(err)
	}
	if answer == nil || answer.Auth == nil || answer.Auth.ClientToken == "" {
		return "", 0, s.badLogin("Vault answered without a token")
	}
	return answer.Auth.ClientToken, time.Duration(answer.Auth.LeaseDuration) * time.Second, nil
}

// anonymous is the same connection without the old token: Vault would check it
// first, and refuse the login when it has ended.
func (s *Session) anonymous() *api.Client {
	return s.client.WithRequestCallbacks(func(r *api.Request) { r.ClientToken = "" })
}

func (s *Session) loginOp() string { return "logging in with AppRole at auth/" + s.auth.MountPath }

func (s *Session) badLogin(detail string) *Fault {
	return &Fault{Op: s.loginOp(), Kind: ErrLogin, Detail: detail}
}

func (s *Session) loginFault(err error) *Fault {
	f := classify(s.loginOp(), s.Address(), err)
	switch {
	case errors.Is(f, ErrRejected):
		f.Kind = ErrLogin
		f.Hint = "check role id and secret id: the secret id may have expired, been used up or been revoked"
	case errors.Is(f, ErrDenied):
		f.Kind = ErrLogin
		f.Hint = "is AppRole enabled there? set mount_path where it is mounted elsewhere"
	}
	return f
}

// Read reads a path of the API. It waits for the first login; a token that has
// become invalid is replaced, and the read tried again. The answer is nil where
// nothing is there. Errors are of type [*Fault].
func (s *Session) Read(ctx context.Context, path string) (*api.Secret, error) {
	select {
	case <-s.ready:
	case <-ctx.Done():
		return nil, &Fault{Op: "reading " + path, Kind: ErrUnreachable, Detail: "not logged in yet", Transient: true}
	}
	generation := s.generation()
	answer, err := s.read(ctx, path)
	if err == nil || !s.mayBeTheToken(err) {
		return answer, err
	}
	if s.login(ctx, generation, true) != nil {
		return nil, err
	}
	return s.read(ctx, path)
}

func (s *Session) read(ctx context.Context, path string) (*api.Secret, error) {
	answer, err := s.client.Logical().ReadWithContext(ctx, path)
	if err != nil {
		return nil, classify("reading "+path, s.Address(), err)
	}
	return answer, nil
}

// mayBeTheToken tells whether a new login could help. Vault says so when a
// token is invalid, but other servers only say that permission is denied: then
// a token is doubted once, not at every read that a policy forbids, and not
// when it is new.
func (s *Session) mayBeTheToken(err error) bool {
	var f *Fault
	if s.auth.Token.Reveal() != "" || !errors.As(err, &f) || !errors.Is(f, ErrDenied) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return f.invalidToken || !s.doubted && time.Since(s.since) > newToken
}

// Retry calls f until it succeeds, the context ends or an error is not worth
// another try, with exponential backoff and jitter. The first failure and the
// recovery are logged, not every try. The last error is returned.
func Retry(ctx context.Context, log *slog.Logger, worth func(error) bool, f func() error) error {
	pause := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(200*time.Millisecond), backoff.WithMultiplier(2), backoff.WithMaxInterval(15*time.Second), backoff.WithMaxElapsedTime(0))
	start := time.Now()
	for try := 1; ; try++ {
		err := f()
		switch {
		case err == nil && try > 1:
			log.Info("recovered", "after", time.Since(start).Round(time.Millisecond).String(), "tries", try)
			return nil
		case err == nil:
			return nil
		case ctx.Err() != nil || !worth(err):
			return err
		case try == 1:
			log.Warn("trying again until it works", "error", err)
		default:
			log.Debug("still failing", "error", err, "try", try)
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause.NextBackOff()):
		}
	}
}
