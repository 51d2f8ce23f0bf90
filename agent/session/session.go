// Package session keeps a logged-in connection to Vault and hands the rest of
// the agent a client that works.
package session

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/smarteros/deaddrop/agent/config"
)

const (
	// requestTimeout bounds one request, unless VAULT_CLIENT_TIMEOUT does.
	requestTimeout = 15 * time.Second
	// MaxConcurrent is how many requests are worth sending at a time; as many
	// connections are kept open between them.
	MaxConcurrent = 8
	// maxTokens is how many tokens one request may wear out. More than one is
	// needed only where tokens have few uses and others use them too.
	maxTokens = 10
)

// Session is a connection to Vault. Requests wait until it is logged in.
type Session struct {
	conn   *connection
	method method
	own    bool // tokens are made by logins of ours
	fixed  bool // there is one token, and no way to another
	log    *slog.Logger
	ready  chan struct{} // closed at the first login
	wake   chan struct{}

	changing  sync.Mutex // one login or renewal at a time; requests go on with the old token
	replacing sync.Mutex // one denied request at a time looks for another token
	denials   denials    // what Vault has denied, and when a login may answer that; guarded by mu

	// knowsToken asks whether the server knows a token; it is [Session.knows].
	knowsToken func(context.Context, *Token) (bool, error)

	grant  *Grant             // gets what a login has given; nil where nobody asks
	shared func(token string) // who else gets every token, or nil
	counts *Counts

	mu      sync.Mutex
	token   *Token // nil before the first login
	failed  error  // of the last login; nil when it has succeeded
	retired []*Token
	// noRenewal and noRevocation are set when Vault has denied the one or the
	// other: without the default policy it always does.
	noRenewal, noRevocation bool
}

// Answer is what Vault has answered. Token is set where the answer has a lease:
// the caller has to release it when the lease is not needed any more.
type Answer struct {
	*api.Secret
	Token *Token
	// Foreign says that the answer has not the form of nearly all of Vault's: the
	// secret's data is the whole of it.
	Foreign bool
}

// New prepares a session, without contacting Vault.
func New(vault config.Vault, auth config.Auth, log *slog.Logger) (*Session, error) {
	conn, err := connect(vault)
	if err != nil {
		return nil, err
	}
	if skip, _ := strconv.ParseBool(os.Getenv("VAULT_SKIP_VERIFY")); skip || unset("VAULT_SKIP_VERIFY") && vault.TLSSkipVerify {
		log.Warn("THE CERTIFICATE OF VAULT IS NOT VERIFIED: whoever is between here and Vault can read every secret; set VAULT_CACERT instead of VAULT_SKIP_VERIFY or tls_skip_verify")
	}
	own := auth.Method != config.MethodToken && auth.Method != config.MethodTokenFile
	s := &Session{
		conn: conn, method: methodOf(auth), own: own, fixed: auth.Method == config.MethodToken,
		log: log, ready: make(chan struct{}), wake: make(chan struct{}, 1), counts: &Counts{}, denials: newDenials(),
	}
	s.knowsToken = s.knows
	return s, nil
}

// CountInto has what the session does counted there. It must be called before
// anything else.
func (s *Session) CountInto(counts *Counts) { s.counts = counts }

// Share hands every token to f, from the first login on. Since others use them
// then, none is revoked. It must be called before anything else; f must not wait.
func (s *Session) Share(f func(token string)) {
	s.shared, s.noRevocation = f, true
}

// Address is where Vault is, without any password.
func (s *Session) Address() string { return s.conn.address }

// Namespace is the one that all requests are made in; "" for the root.
func (s *Session) Namespace() string { return s.client().Namespace() }

// client is the present connection, without a token.
func (s *Session) client() *api.Client {
	client, changed, err := s.conn.current()
	switch {
	case err != nil:
		s.log.Error("the changed certificate files cannot be used; the old ones stay in force", "error", err)
	case changed:
		s.log.Info("certificate files have changed and were read again")
	}
	return client
}

// Run logs in, renews the token or replaces it in good time before it ends, and
// revokes those that were replaced, until the context ends. Failures are
// retried for ever: the first is logged, and the recovery.
func (s *Session) Run(ctx context.Context) error {
	always := func(error) bool { return true }
	for ctx.Err() == nil {
		if err := Retry(ctx, s.log, always, func() error { return s.extend(ctx) }); err != nil {
			return nil // The context has ended.
		}
		for wait := s.wait(); wait > 0; wait = s.wait() {
			s.revokeRetired(ctx)
			select {
			case <-ctx.Done():
				return nil
			case <-s.wake:
			case <-time.After(wait):
			}
		}
	}
	return nil
}

// nudge lets Run look for tokens to revoke.
func (s *Session) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// wait tells how long the present token is good for.
func (s *Session) wait() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.token == nil:
		return 0
	case s.token.due.IsZero():
		return 365 * 24 * time.Hour
	}
	return time.Until(s.token.due)
}

func (s *Session) current() *Token {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.token
}

// TokenEnds tells when the present token ends, zero for never or not known, and
// whether there is one.
func (s *Session) TokenEnds() (ends time.Time, loggedIn bool) {
	now := s.Status()
	return now.Ends, now.LoggedIn
}

// Login logs in once. Errors are of type [*Fault].
func (s *Session) Login(ctx context.Context) error { return s.login(ctx, s.current()) }

// extend renews the token where it may be, and else logs in anew. Either may
// have been done by someone else meanwhile.
func (s *Session) extend(ctx context.Context) error {
	old := s.current()
	if old == nil || !s.renewable(old) {
		return s.login(ctx, old)
	}
	err := s.clarify(ctx, old, s.renew(ctx, old))
	if err == nil || IsTransient(err) {
		return err
	}
	s.log.Debug("the token cannot be renewed; logging in anew", "error", err)
	s.mu.Lock()
	old.renewable = false
	s.noRenewal = s.noRenewal || errors.Is(err, ErrDenied) && !IsInvalidToken(err) && !isAmbiguous(err)
	s.mu.Unlock()
	return s.login(ctx, old)
}

// renewable tells whether to renew a token. Where that has not worked until its
// life is almost over, what is left is for a login.
func (s *Session) renewable(t *Token) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return t.renewable && !s.noRenewal && time.Now().Before(t.ends.Add(-t.ttl/6))
}

// renew asks for another life. What comes back shorter than the one before is
// near the end of what the token may reach, and is replaced next time.
func (s *Session) renew(ctx context.Context, t *Token) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	asked := time.Now()
	answer, err := s.ask("renewing the token", t, true, func(c *api.Client) (*api.Secret, error) {
		return c.Auth().Token().RenewSelfWithContext(ctx, 0)
	})
	s.counts.Renewals.Note(asked, err)
	if err != nil {
		return err
	}
	if answer == nil || answer.Auth == nil {
		return &Fault{Op: "renewing the token", Kind: ErrRejected, Detail: "Vault answered without a token"}
	}
	ttl := time.Duration(answer.Auth.LeaseDuration) * time.Second
	if ttl <= 0 { // It would count as a token that never ends.
		return &Fault{Op: "renewing the token", Kind: ErrRejected, Detail: "Vault grants it no more time"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = nil
	if ttl < t.ttl {
		t.granted(asked, ttl-roundedUp, false)
	} else {
		t.granted(asked, ttl, answer.Auth.Renewable)
	}
	s.log.Debug("renewed the token", "ttl", ttl.String())
	return nil
}

// login replaces the token old; it does nothing where someone else has done so
// meanwhile. Errors are of type [*Fault].
func (s *Session) login(ctx context.Context, old *Token) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	if s.current() != old {
		return nil
	}
	asked := time.Now()
	err := s.loginOnce(ctx, asked)
	s.counts.Logins.Note(asked, err)
	s.mu.Lock()
	s.failed = err
	s.mu.Unlock()
	return err
}

// loginOnce logs in. Errors are of type [*Fault].
func (s *Session) loginOnce(ctx context.Context, asked time.Time) error {
	var seen inspection
	answer, err := s.method.login(ctx, inspected(s.client(), "", &seen))
	var left errNotRemoved
	if errors.As(err, &left) {
		s.log.Warn("logged in, but the file cannot be removed after reading it; mount it writable or take the setting out", "error", left)
	} else if err != nil {
		return s.loginFault(err, seen.pause)
	}
	if s.own && (answer == nil || !isOfVault(answer)) {
		return s.loginFault(cmp.Or(seen.fault, errNotVault), seen.pause)
	}
	if answer == nil || answer.Auth == nil || answer.Auth.ClientToken == "" {
		return s.badLogin("Vault answered without a token")
	}
	s.counts.contact(nil)
	if a := answer.Auth; s.grant != nil {
		*s.grant = Grant{time.Duration(a.LeaseDuration) * time.Second, a.Renewable, a.Policies, seen.uses}
	}
	s.adopt(answer.Auth, asked, seen.uses)
	return nil
}

// adopt makes a token the present one. uses is how many requests it is good for; 0 for
// any number, or where that is not known.
func (s *Session) adopt(auth *api.SecretAuth, asked time.Time, uses int) {
	ttl := time.Duration(auth.LeaseDuration) * time.Second
	t := &Token{s: s, value: auth.ClientToken, own: s.own, since: time.Now(), uses: uses, allowed: map[uint64]struct{}{}}
	s.mu.Lock()
	defer s.mu.Unlock()
	t.granted(asked, ttl, auth.Renewable)
	if s.shared != nil {
		s.shared(t.value)
	}
	old := s.token
	s.token = t
	switch {
	case old == nil:
		close(s.ready)
	case old.value == t.value: // A token that was given, looked up anew.
		old.granted(asked, ttl, auth.Renewable)
		if soon := asked.Add(lookAgain); old.due.Before(soon) && !old.due.IsZero() {
			old.due = soon // Nothing better has been delivered yet.
		}
		old.since = t.since
		s.token = old
		return
	default:
		s.retire(old)
	}
	s.log.Info("logged in to Vault", "address", s.Address(), "ttl", ttl.String())
	if !s.own && ttl > 0 && !auth.Renewable {
		s.log.Warn("the token cannot be renewed; deliver another one before it ends", "ends", t.ends.UTC().Format(time.RFC3339))
	}
}

func (s *Session) retire(t *Token) {
	t.retired = true
	if t.own {
		s.retired = append(s.retired, t)
	}
	s.nudge()
}

// revokeRetired revokes the tokens that were replaced and that nothing depends
// on any more. One try each: they end by themselves, too. A token that was given up
// because it was not known where requests landed is tried again later: it may be known
// by then.
func (s *Session) revokeRetired(ctx context.Context) {
	now := time.Now()
	s.mu.Lock()
	var idle []*Token
	s.retired = slices.DeleteFunc(s.retired, func(t *Token) bool {
		if t.holds > 0 || t.revokeAt.After(now) {
			return false
		}
		idle = append(idle, t)
		return true
	})
	s.mu.Unlock()
	for _, t := range idle {
		if s.revoke(ctx, t) || len(t.revokeLater) == 0 {
			continue
		}
		s.mu.Lock()
		pause := t.revokeLater[0]
		t.revokeAt, t.revokeLater = time.Now().Add(pause), t.revokeLater[1:]
		s.retired = append(s.retired, t)
		s.mu.Unlock()
		time.AfterFunc(pause, s.nudge)
	}
}

// revoke reports whether there is nothing left to do about the token.
func (s *Session) revoke(ctx context.Context, t *Token) (done bool) {
	s.mu.Lock()
	pointless := s.noRevocation || isBatch(t.value) || // Vault revokes no batch tokens.
		!t.ends.IsZero() && time.Now().After(t.ends) && !t.givenUp
	givenUp := t.givenUp
	s.mu.Unlock()
	if pointless {
		return true
	}
	_, err := s.ask("revoking a token", t, true, func(c *api.Client) (*api.Secret, error) {
		return nil, c.Auth().Token().RevokeSelfWithContext(ctx, "")
	})
	if err == nil {
		s.log.Debug("revoked a token that is not needed any more")
		return true
	}
	err = s.clarify(ctx, t, err)
	s.log.Debug("a token that is not needed any more was not revoked; it ends by itself", "error", err)
	if errors.Is(err, ErrDenied) && !IsInvalidToken(err) && !isAmbiguous(err) && !givenUp {
		s.mu.Lock()
		s.noRevocation = true
		s.mu.Unlock()
	}
	return false
}

// isBatch reports whether a token is a batch token, of Vault or of OpenBao.
func isBatch(token string) bool {
	return strings.HasPrefix(token, "hvb.") || strings.HasPrefix(token, "b.")
}

// Close revokes what tokens it may, unless keep is set. Those under which a
// lease is in use are left to end by themselves. No request may be under way.
func (s *Session) Close(ctx context.Context, keep bool) {
	s.mu.Lock()
	t := s.token
	s.token = nil
	if t != nil {
		s.retire(t)
	}
	for _, t := range s.retired {
		t.revokeAt, t.revokeLater = time.Time{}, nil // This is the last chance.
	}
	s.mu.Unlock()
	if !keep {
		s.revokeRetired(ctx)
	}
	s.conn.hangUp()
}

func (s *Session) badLogin(detail string) *Fault {
	return &Fault{Op: s.method.String(), Kind: ErrLogin, Detail: detail}
}

// wrongMount is what helps where Vault denies a login, or knows no such path:
// that is its answer when nothing, or another method, is mounted there.
const wrongMount = `is the method mounted there? "vault auth list" shows what is; set mount_path, or enable it with "vault auth enable"`

func (s *Session) loginFault(err error, pause time.Duration) *Fault {
	var known *Fault
	var answer *api.ResponseError
	if errors.As(err, &known) {
		return known
	}
	var unread *unreadError
	if errors.As(err, &unread) {
		return s.badLogin(err.Error())
	}
	f := classify(s.method.String(), s.Address(), err)
	f.RetryAfter = pause
	s.counts.contact(f)
	s.lostContact(f)
	switch {
	case errors.Is(f, ErrRejected) && errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound:
		f.Kind, f.Hint = ErrLogin, wrongMount
	case errors.Is(f, ErrRejected):
		f.Kind, f.Hint = ErrLogin, s.method.advice()
	case errors.Is(f, ErrDenied):
		f.Kind = ErrLogin
		f.Hint = wrongMount
		if !s.own || f.invalidToken {
			f.Hint = s.method.advice()
		}
	}
	return f
}

// Read reads a path of the API, with the parameters of its query. It waits for
// the first login; a token that has become invalid is replaced, and the read
// tried again. The answer's Secret is nil where nothing is there. Errors are of
// type [*Fault].
func (s *Session) Read(ctx context.Context, path string, query url.Values) (Answer, error) {
	return s.do(ctx, "reading "+path, false, func(c *api.Client) (*api.Secret, error) {
		return c.Logical().ReadWithDataWithContext(ctx, path, query)
	})
}

// List lists a path of the API; for the rest it is like [Session.Read].
func (s *Session) List(ctx context.Context, path string) (Answer, error) {
	return s.do(ctx, "listing "+path, false, func(c *api.Client) (*api.Secret, error) {
		return c.Logical().ListWithContext(ctx, path)
	})
}

// Write writes to a path of the API; for the rest it is like [Session.Read].
func (s *Session) Write(ctx context.Context, path string, data map[string]any) (Answer, error) {
	return s.do(ctx, "writing to "+path, true, func(c *api.Client) (*api.Secret, error) {
		return c.Logical().WriteWithContext(ctx, path, data)
	})
}

func (s *Session) do(ctx context.Context, op string, writes bool, f func(*api.Client) (*api.Secret, error)) (Answer, error) {
	select {
	case <-s.ready:
	case <-ctx.Done():
		return Answer{}, &Fault{Op: op, Kind: ErrUnreachable, Detail: "not logged in yet", Transient: true}
	}
	pause := Backoff(200*time.Millisecond, 2*time.Second)
	for tokens := 1; ; {
		t := s.hold()
		if t == nil {
			return Answer{}, &Fault{Op: op, Kind: ErrUnreachable, Detail: "the session is closed"}
		}
		answer, err := s.ask(op, t, writes, f)
		t.answered()
		if err == nil && answer != nil && answer.LeaseID != "" {
			s.allow(t, op)
			return Answer{Secret: answer, Token: t}, nil
		}
		t.Release()
		if err == nil {
			s.allow(t, op)
			return Answer{Secret: answer, Foreign: answer != nil && !isOfVault(answer)}, nil
		}
		err = s.clarify(ctx, t, err)
		switch v := s.judge(t, op, err); {
		case v == notTheToken:
			return Answer{}, err
		case tokens == maxTokens && errors.Is(err, ErrDenied): // Others use them up, too.
			return Answer{}, later(err, 0)
		case tokens == maxTokens:
			return Answer{}, err
		case v == tokenNotKnownYet:
			if !sleep(ctx, pause.NextBackOff()+50*time.Millisecond) {
				return Answer{}, later(err, 0)
			}
		default:
			if err := s.replace(ctx, t, op, v, err); err != nil {
				return Answer{}, err
			}
			tokens++
		}
	}
}

// hold returns the present token for a request, which ends with [Token.answered]; the
// token is kept until [Token.Release].
func (s *Session) hold() *Token {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token != nil {
		s.token.holds++
		s.token.asking++
	}
	return s.token
}

// ask makes one request with a token. Errors are of type [*Fault].
func (s *Session) ask(op string, t *Token, writes bool, f func(*api.Client) (*api.Secret, error)) (*api.Secret, error) {
	var seen inspection
	begun := time.Now()
	s.mu.Lock()
	if !strings.HasPrefix(op, "reading "+visibleMounts) { // Those take no use.
		t.used++
	}
	s.mu.Unlock()
	answer, err := f(inspected(s.client(), t.value, &seen))
	if err == nil {
		err = seen.check(answer, writes)
	}
	s.counts.Requests.Note(begun, err)
	if err == nil {
		s.counts.contact(nil)
		return answer, nil
	}
	fault := classify(op, s.Address(), err)
	fault.RetryAfter = seen.pause
	s.counts.contact(fault)
	s.lostContact(fault)
	if fault.invalidToken && !s.own {
		fault.Hint = s.method.advice()
	}
	return nil, fault
}

// lostContact gives up idle connections when the network has failed: a cut one
// would else be taken again, and wait for its time-out again.
func (s *Session) lostContact(f *Fault) {
	if f.Kind == ErrUnreachable {
		s.conn.hangUp()
	}
}

// IsInvalidToken tells whether Vault said that the token itself is not valid.
func IsInvalidToken(err error) bool {
	var f *Fault
	return errors.As(err, &f) && f.invalidToken
}
