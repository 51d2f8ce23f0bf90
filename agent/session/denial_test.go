package session

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/render/secret"
)

// server stands in for Vault's logins and denials, where time has to pass by itself. It
// is the method of a session, too.
type server struct {
	mu      sync.Mutex
	openBao bool          // says no more than "permission denied"
	silent  bool          // and does not say whether it knows a token
	lag     time.Duration // how long a token is not known where requests land
	uses    int
	ttl     time.Duration
	fail    error           // of logins
	policy  map[string]bool // what the role allows
	tokens  map[string]*grantedToken
	logins  int // that have succeeded
	tries   int
}

type grantedToken struct {
	since  time.Time
	policy map[string]bool
	used   int
	over   bool
}

func newServer(allowed ...string) *server {
	v := &server{ttl: time.Hour, policy: map[string]bool{}, tokens: map[string]*grantedToken{}}
	for _, path := range allowed {
		v.policy[path] = true
	}
	return v
}

func (v *server) String() string { return "logging in with a stand-in" }
func (v *server) advice() string { return "" }

func (v *server) login(context.Context, *api.Client) (*api.Secret, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.tries++
	if v.fail != nil {
		return nil, v.fail
	}
	v.logins++
	id := fmt.Sprint("hvs.", v.logins)
	if v.openBao {
		id = fmt.Sprint("s.", v.logins)
	}
	policy := map[string]bool{}
	for path := range v.policy {
		policy[path] = true
	}
	v.tokens[id] = &grantedToken{since: time.Now(), policy: policy}
	return &api.Secret{RequestID: "r", Auth: &api.SecretAuth{ClientToken: id, LeaseDuration: int(v.ttl.Seconds())}}, nil
}

func (v *server) denial(text string) error {
	if v.openBao {
		text = "permission denied"
	}
	return &api.ResponseError{StatusCode: http.StatusForbidden, Errors: []string{text}}
}

func (v *server) isInvalid(t *grantedToken) bool {
	return t.over || time.Since(t.since) < v.lag || time.Since(t.since) > v.ttl || v.uses > 0 && t.used > v.uses
}

func (v *server) knows(_ context.Context, t *Token) (bool, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.silent {
		return false, errNotVault
	}
	return !v.isInvalid(v.tokens[t.value]), nil
}

// answer is what the server says to a request with the present token.
func (v *server) answer(s *Session, path string) (*api.Secret, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	t := v.tokens[s.current().value]
	t.used++
	switch {
	case v.isInvalid(t):
		return nil, v.denial("invalid token")
	case !t.policy[path]:
		return nil, v.denial("permission denied")
	}
	return &api.Secret{RequestID: "r"}, nil
}

func (v *server) revokeAll() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, t := range v.tokens {
		t.over = true
	}
}

func (v *server) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.logins
}

// session is one that talks to the server, and is logged in.
func (v *server) session(t *testing.T) *Session {
	t.Helper()
	auth := config.Auth{Method: config.MethodAppRole, RoleID: config.ID{Value: secret.Of("role")}}
	s, err := New(config.Vault{Address: "http://127.0.0.1:1"}, auth, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	s.method = v
	s.knowsToken = v.knows
	require.NoError(t, s.Login(t.Context()))
	s.current().uses = v.uses
	return s
}

func (v *server) read(ctx context.Context, s *Session, path string) error {
	_, err := s.do(ctx, "reading "+path, false, func(*api.Client) (*api.Secret, error) { return v.answer(s, path) })
	return err
}

func TestSession_WaitsForAYoungTokenToBecomeKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newServer("a")
		v.lag = 3 * time.Second
		s := v.session(t)
		require.NoError(t, v.read(t.Context(), s, "a"))
		assert.Equal(t, 1, v.count())
	})
}

func TestSession_SpacesOutLoginsWhileNoTokenIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newServer("a")
		v.lag = 24 * time.Hour
		s := v.session(t)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
		defer cancel()
		first := 0
		time.AfterFunc(10*time.Second, func() { first = v.count() })
		var group sync.WaitGroup
		for range MaxConcurrent {
			group.Go(func() {
				for ctx.Err() == nil {
					err := v.read(ctx, s, "a")
					assert.True(t, IsTransient(err), "%v", err)
					sleep(ctx, max(time.Second, RetryAfter(err)))
				}
			})
		}
		group.Wait()
		assert.LessOrEqual(t, first, 3, "logins in ten seconds")
		assert.LessOrEqual(t, v.count(), 16, "logins in half an hour")
		s.mu.Lock()
		defer s.mu.Unlock()
		assert.Len(t, s.retired, v.count()-1, "every token that was given up is to be revoked")
	})
}

func TestSession_UsesAllItsTimeWhereATokenIsNotKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newServer("a")
		v.lag = 20 * time.Second
		s := v.session(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		s.denials.login.longest = time.Second // Else each token is younger than the lag.
		err := Retry(ctx, s.log, IsTransient, func() error { return v.read(ctx, s, "a") })
		require.Error(t, err)
		assert.ErrorIs(t, err, ErrDenied)
		assert.Error(t, ctx.Err(), "it was tried until the end")
	})
}

func TestSession_ReplacesATokenThatEndsInOpenBaosWords(t *testing.T) {
	for name, end := range map[string]func(*server){
		"revoked":             func(v *server) { v.revokeAll() },
		"expired":             func(*server) { time.Sleep(2 * time.Hour) },
		"revoked, and silent": func(v *server) { v.silent = true; v.revokeAll() },
		"expired, and silent": func(v *server) { v.silent = true; time.Sleep(2 * time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := newServer("a", "b")
				v.openBao = true
				s := v.session(t)
				require.NoError(t, v.read(t.Context(), s, "a"))
				end(v)
				require.NoError(t, v.read(t.Context(), s, "a"))
				require.NoError(t, v.read(t.Context(), s, "b"))
				assert.Equal(t, 2, v.count())
			})
		})
	}
}

func TestSession_UsesNoTokensUpForWhatAPolicyForbids(t *testing.T) {
	for _, uses := range []int{1, 2, 3} {
		synctest.Test(t, func(t *testing.T) {
			v := newServer("a")
			v.uses = uses
			s := v.session(t)
			for range 20 {
				s.current().uses = v.uses
				assert.ErrorIs(t, v.read(t.Context(), s, "b"), ErrDenied)
				time.Sleep(2 * time.Second)
			}
			assert.LessOrEqual(t, v.count(), 20)
		})
	}
}

func TestSession_LeavesATokenWithLeasesInPlaceForAPolicysDenial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newServer("a")
		s := v.session(t)
		s.current().renewable = true
		s.hold().answered() // It has a lease.
		time.Sleep(time.Minute)
		for begun := time.Now(); time.Since(begun) < 30*time.Minute; time.Sleep(15 * time.Second) {
			assert.ErrorIs(t, v.read(t.Context(), s, "b"), ErrDenied)
			_, err := s.do(t.Context(), "writing to sys/leases/revoke", true, func(*api.Client) (*api.Secret, error) { return v.answer(s, "c") })
			assert.ErrorIs(t, err, ErrDenied)
		}
		assert.Equal(t, 1, v.count())
		require.NoError(t, s.RefreshPolicies(t.Context()))
		assert.Equal(t, 2, v.count(), "a user asks for it by SIGHUP")
	})
}

func TestSession_RefreshesPoliciesAgainAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newServer("a")
		s := v.session(t)
		require.ErrorIs(t, v.read(t.Context(), s, "b"), ErrDenied)
		v.fail = errNotVault
		require.Error(t, s.RefreshPolicies(t.Context()))
		v.fail = nil
		require.NoError(t, s.RefreshPolicies(t.Context()))
		assert.Equal(t, 2, v.count())
	})
}

func TestBoundedBody_GivesBackWhatItHasCounted(t *testing.T) {
	for name, read := range map[string]func(b *boundedBody){
		"read to the end": func(b *boundedBody) { _, _ = io.Copy(io.Discard, b) },
		"closed":          func(b *boundedBody) { _, _ = io.CopyN(io.Discard, b, 2*small); _ = b.Close(); _ = b.Close() },
	} {
		for _, size := range []int{small / 2, 3 * small, int(maxAnswer) + 2*small} {
			before := beingRead.Load()
			read(&boundedBody{ReadCloser: io.NopCloser(strings.NewReader(strings.Repeat("x", size)))})
			assert.Equal(t, before, beingRead.Load(), "%s, %d", name, size)
		}
	}
}

func TestSession_ReplacesAUsedUpTokenWithoutAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newServer("a")
		v.openBao, v.uses = true, 2
		s := v.session(t)
		for range 20 {
			s.current().uses = v.uses
			require.NoError(t, v.read(t.Context(), s, "a"))
		}
		assert.Equal(t, 10, v.count())
	})
}

func TestSession_TakesAFreshTokensDenialForThePolicys(t *testing.T) {
	for _, openBao := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			v := newServer("a")
			v.openBao = openBao
			s := v.session(t)
			denied := func() {
				t.Helper()
				require.NoError(t, v.read(t.Context(), s, "a"))
				err := v.read(t.Context(), s, "b")
				assert.ErrorIs(t, err, ErrDenied)
				assert.False(t, IsTransient(err))
			}
			for begun := time.Now(); time.Since(begun) < 4*time.Minute; time.Sleep(15 * time.Second) {
				denied()
			}
			assert.Equal(t, 1, v.count(), "nothing speaks for another login")
			for begun := time.Now(); time.Since(begun) < 3*time.Hour; time.Sleep(15 * time.Second) {
				denied()
			}
			// Of these some replace a token at its end.
			assert.LessOrEqual(t, v.count(), 11)
			assert.GreaterOrEqual(t, v.count(), 4)
		})
	}
}

func TestSession_LogsInOnceForWhatAnOldTokenIsDenied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newServer("a")
		s := v.session(t)
		time.Sleep(time.Minute)
		for _, path := range []string{"b", "c", "b", "c"} {
			assert.ErrorIs(t, v.read(t.Context(), s, path), ErrDenied)
		}
		assert.Equal(t, 2, v.count())
	})
}

func TestSession_FindsAPolicyThatWasAttachedToTheRole(t *testing.T) {
	for name, tc := range map[string]struct {
		refresh func(*testing.T, *Session)
		within  time.Duration
	}{
		"by itself":      {func(*testing.T, *Session) {}, 6 * time.Minute},
		"when refreshed": {func(t *testing.T, s *Session) { require.NoError(t, s.RefreshPolicies(t.Context())) }, 15 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := newServer("a")
				s := v.session(t)
				require.ErrorIs(t, v.read(t.Context(), s, "b"), ErrDenied)
				time.Sleep(20 * time.Second)
				v.mu.Lock()
				v.policy["b"] = true
				v.mu.Unlock()
				require.ErrorIs(t, v.read(t.Context(), s, "b"), ErrDenied, "a token keeps the policies of its login")
				begun := time.Now()
				tc.refresh(t, s)
				for v.read(t.Context(), s, "b") != nil && time.Since(begun) < time.Hour {
					time.Sleep(15 * time.Second)
				}
				assert.LessOrEqual(t, time.Since(begun), tc.within)
				assert.Equal(t, 2, v.count())
			})
		})
	}
}

func TestSession_RefreshesNoPoliciesWhereNothingIsDenied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newServer("a")
		s := v.session(t)
		require.NoError(t, v.read(t.Context(), s, "a"))
		require.NoError(t, s.RefreshPolicies(t.Context()))
		assert.Equal(t, 1, v.count())
	})
}

func TestSession_SpacesOutLoginsThatFail(t *testing.T) {
	for _, openBao := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			v := newServer("a")
			v.openBao = openBao
			s := v.session(t)
			require.NoError(t, v.read(t.Context(), s, "a"))
			time.Sleep(2 * v.ttl)
			v.fail = &api.ResponseError{StatusCode: http.StatusBadRequest, Errors: []string{"invalid role or secret ID"}}
			var group sync.WaitGroup
			for range 1000 {
				group.Go(func() { assert.Error(t, v.read(t.Context(), s, "a")) })
			}
			group.Wait()
			assert.LessOrEqual(t, v.tries, 3)
			v.fail = nil
			time.Sleep(time.Minute)
			require.NoError(t, v.read(t.Context(), s, "a"))
		})
	}
}

func TestSession_KeepsOnUsingATokenWhoseReplacementFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newServer("a")
		s := v.session(t)
		time.Sleep(time.Minute)
		v.fail = &api.ResponseError{StatusCode: http.StatusBadRequest, Errors: []string{"invalid role or secret ID"}}
		assert.ErrorIs(t, v.read(t.Context(), s, "b"), ErrDenied)
		require.NoError(t, v.read(t.Context(), s, "a"))
		assert.True(t, s.Status().LoggedIn)
		assert.ErrorIs(t, s.Status().Err, ErrLogin, "and says why")
	})
}

// standby denies the requests of tokens that are younger than lag, as a standby does
// that the active node has not told of them yet.
func (p *proxy) standby(lag time.Duration) {
	known := sync.Map{}
	p.inject(func(w http.ResponseWriter, r *http.Request) {
		first, _ := known.LoadOrStore(r.Header.Get("X-Vault-Token"), time.Now())
		if !strings.HasSuffix(r.URL.Path, "/login") && time.Since(first.(time.Time)) < lag {
			w.WriteHeader(http.StatusForbidden)
			_, _ = fmt.Fprint(w, `{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}`)
			return
		}
		p.vault.ServeHTTP(w, r)
	})
}

func TestSession_ReadsThroughAStandbyThatLearnsOfTokensLate(t *testing.T) {
	t.Parallel()
	r := newRole(t, shared(t), map[string]any{"secret_id_num_uses": 5})
	p := newProxy(t, r.server)
	p.standby(time.Second)
	s, log := newSession(t, p.through(), r.auth(), r.secretID)
	require.NoError(t, s.Login(t.Context()))
	var group sync.WaitGroup
	for range MaxConcurrent {
		group.Go(func() { assert.NoError(t, r.read(s)) })
	}
	group.Wait()
	assert.Equal(t, 1, log.count("logged in to Vault"))
}

func TestSession_RevokesATokenThatItGaveUp(t *testing.T) {
	t.Parallel()
	r := newRole(t, shared(t), nil)
	p := newProxy(t, r.server)
	s, _ := newSession(t, p.through(), r.auth(), r.secretID)
	run(t, s)
	first := loggedIn(t, s)
	s.mu.Lock()
	s.token.since = time.Now().Add(-time.Minute)
	s.mu.Unlock()
	p.inject(func(w http.ResponseWriter, q *http.Request) { // The node has lost the first token.
		if q.Header.Get("X-Vault-Token") == first {
			w.WriteHeader(http.StatusForbidden)
			_, _ = fmt.Fprint(w, `{"errors":["permission denied","invalid token"]}`)
			return
		}
		p.vault.ServeHTTP(w, q)
	})
	require.NoError(t, r.read(s))
	eventually(t, func() bool { return p.count("auth/token/revoke-self") >= 1 }, "tried")
	assert.True(t, lives(r.server, first))
	p.heal()
	eventually(t, func() bool { return !lives(r.server, first) }, "revoked at a later try")
}

func TestSession_SaysThatWhatAnswersIsNotVault(t *testing.T) {
	t.Parallel()
	server := shared(t)
	for name, answer := range map[string]http.HandlerFunc{
		"page":           func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "<html>welcome</html>") },
		"JSON of others": func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, `[1, 2]`) },
		"half an answer": func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, `{"auth": {`) },
		"page with 404":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404); _, _ = fmt.Fprint(w, "<html>") },
		"JSON with 404": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(404)
			_, _ = fmt.Fprint(w, `{"message":"no"}`)
		},
		"nothing with 404":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) },
		"an endless answer": endless,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRole(t, server, nil)
			p := newProxy(t, server)
			s, _ := newSession(t, p.through(), r.auth(), r.secretID)
			require.NoError(t, s.Login(t.Context()))
			p.inject(answer)
			errs := map[string]error{"read": r.read(s)}
			if !strings.HasSuffix(name, "404") { // Of logins that says that there is no such method.
				errs["login"] = s.Login(t.Context())
			}
			for what, err := range errs {
				f := fault(t, err, r.secretID)
				assert.ErrorIs(t, f, ErrUnreachable, what)
				assert.True(t, f.Transient, what)
				if name != "nowhere with 302" {
					assert.Contains(t, f.Detail, "is not Vault", what)
				}
			}
			p.heal()
			require.NoError(t, r.read(s))
		})
	}
}

// endless answers as long as somebody listens.
func endless(w http.ResponseWriter, _ *http.Request) {
	chunk := []byte(strings.Repeat("x", 1<<20))
	_, _ = fmt.Fprint(w, `{"data":{"a":"`)
	for range 1 << 10 {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

func TestSession_GivesUpOnAnEndlessAnswer(t *testing.T) {
	t.Parallel()
	r := newRole(t, shared(t), nil)
	p := newProxy(t, r.server)
	s, _ := newSession(t, p.through(), r.auth(), r.secretID)
	require.NoError(t, s.Login(t.Context()))
	var written atomic.Int64
	p.inject(func(w http.ResponseWriter, q *http.Request) { endless(counted{w, &written}, q) })
	require.Error(t, r.read(s))
	assert.Less(t, written.Load(), maxAnswer+64<<20, "bytes, of which the kernel may hold tens of MiB")
}

// counted counts the bytes of an answer.
type counted struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n.Add(int64(n))
	return n, err
}

func TestSession_SaysWhereNothingIsMounted(t *testing.T) {
	t.Parallel()
	server := shared(t)
	s, _ := newSession(t, vaultAt(server), asRoot(server))
	require.NoError(t, s.Login(t.Context()))
	_, err := s.Read(t.Context(), "nowhere/at/all", nil)
	f := fault(t, err)
	assert.ErrorIs(t, f, ErrRejected)
	assert.Contains(t, f.Detail, "no handler for route")
	answer, err := s.Read(t.Context(), "secret/data/not-there", nil)
	require.NoError(t, err)
	assert.Nil(t, answer.Secret)
}
