package session

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/compose/vaulttest"
	"github.com/smarteros/deaddrop/render/secret"
)

func TestAppRoleLogsInWithValuesAndWithFiles(t *testing.T) {
	r := newRole(t, shared(t), nil)
	for name, auth := range map[string]config.Auth{
		"values":      r.auth(),
		"secret file": r.authFile(r.secretID),
		"both files": {Method: config.MethodAppRole, MountPath: r.name,
			RoleID: config.ID{File: r.file("role_id", r.id)}, SecretID: config.ID{File: r.file("secret_id_2", "  "+r.secretID+"\n")}},
	} {
		t.Run(name, func(t *testing.T) {
			s, log := newSession(t, vaultAt(r.server), auth, r.secretID)
			require.NoError(t, s.Login(t.Context()))
			require.NoError(t, r.read(s))
			assert.Equal(t, 1, log.count("logged in to Vault"))
		})
	}
}

func TestAppRoleLogsInWithWhatTheEnvironmentAndSystemdDeliver(t *testing.T) {
	server := shared(t)
	r := newRole(t, server, nil)
	simple := config.Simple{Secret: "secret/" + r.name, Destination: filepath.Join(t.TempDir(), "x.env")}
	login := func(t *testing.T) {
		t.Helper()
		t.Setenv("VAULT_ADDR", server.Address)
		cfg, err := simple.Build()
		require.NoError(t, err)
		cfg.Auth.MountPath = r.name // Without a file it is always "approle".
		s, _ := newSession(t, cfg.Vault, cfg.Auth, r.secretID)
		require.NoError(t, s.Login(t.Context()))
		require.NoError(t, r.read(s))
	}
	t.Run("environment", func(t *testing.T) {
		t.Setenv("VAULT_ROLE_ID", r.id)
		t.Setenv("VAULT_SECRET_ID", r.secretID)
		login(t)
	})
	t.Run("systemd credential", func(t *testing.T) {
		r.file("role_id", r.id)
		r.file("secret_id", r.secretID)
		t.Setenv("CREDENTIALS_DIRECTORY", r.folder)
		login(t)
	})
	t.Run("token of the environment", func(t *testing.T) {
		t.Setenv("VAULT_TOKEN", token(t, server, map[string]any{"policies": r.name}))
		login(t)
	})
}

func TestAppRole_LogsInWithTheRoleIDAlone(t *testing.T) {
	t.Parallel()
	server := shared(t)
	bare := newRole(t, server, nil)
	write(t, server, bare.at, map[string]any{"bind_secret_id": false, "token_bound_cidrs": "127.0.0.0/8,::1/128"})
	for name, id := range map[string]config.ID{"value": {Value: secret.Of(bare.id)}, "file": {File: bare.file("role_id", bare.id)}} {
		t.Run(name, func(t *testing.T) {
			s, log := bare.session(config.Auth{Method: config.MethodAppRole, MountPath: bare.name, RoleID: id})
			require.NoError(t, s.Login(t.Context()))
			require.NoError(t, bare.read(s))
			assert.Equal(t, 1, log.count("logged in to Vault"))
		})
	}
	t.Run("refused", func(t *testing.T) {
		r := newRole(t, server, nil)
		for id, want := range map[string]string{r.id: "missing secret_id", "no-such-role": "invalid role"} {
			s, _ := r.session(config.Auth{Method: config.MethodAppRole, MountPath: r.name, RoleID: config.ID{Value: secret.Of(id)}})
			f := fault(t, s.Login(t.Context()))
			assert.ErrorIs(t, f, ErrLogin)
			assert.Contains(t, f.Detail, want)
			assert.Contains(t, f.Hint, "if the role wants a secret id, give it by VAULT_SECRET_ID, or by secret_id_file_path")
			assert.Contains(t, f.Hint, "vault write -f auth/"+r.name+"/role/ROLE/secret-id")
		}
	})
}

func TestAWrappedSecretIDIsUnwrappedOnce(t *testing.T) {
	t.Parallel()
	r := newRole(t, shared(t), nil)
	p := newProxy(t, r.server)
	auth := r.authFile(r.wrapped())
	auth.WrappingPath = r.at + "/secret-id"
	s, _ := newSession(t, p.through(), auth)
	for range 3 {
		require.NoError(t, s.Login(t.Context()))
	}
	require.NoError(t, r.read(s))
	assert.Equal(t, 3, p.count("/login"))
	assert.Equal(t, 1, p.count("sys/wrapping/unwrap"))

	t.Run("and a new one is noticed at the next login", func(t *testing.T) {
		r.file("secret_id", r.wrapped())
		require.NoError(t, s.Login(t.Context()))
		assert.Equal(t, 2, p.count("sys/wrapping/unwrap"))
	})
	t.Run("and remembered when Vault fails between unwrapping and the login", func(t *testing.T) {
		r.file("secret_id", r.wrapped())
		// Vault does not fail at this very moment on demand.
		p.failAt("/login", http.StatusInternalServerError)
		require.True(t, IsTransient(s.Login(t.Context())))
		p.heal()
		require.NoError(t, s.Login(t.Context()))
		assert.Equal(t, 3, p.count("sys/wrapping/unwrap"))
	})
}

func TestAWrappedSecretIDThatWasUsedAlreadyIsReportedAsAPossibleAttack(t *testing.T) {
	t.Parallel()
	r := newRole(t, shared(t), nil)
	wrapped := r.wrapped()
	auth := r.authFile(wrapped)
	auth.WrappingPath = r.at + "/secret-id"
	thief, err := r.server.Client.Clone()
	require.NoError(t, err)
	defer closeIdle(thief)
	_, err = thief.Logical().Unwrap(wrapped)
	require.NoError(t, err)

	s, _ := r.session(auth)
	f := fault(t, s.Login(t.Context()), wrapped)
	assert.ErrorIs(t, f, ErrLogin)
	assert.False(t, f.Transient)
	assert.Contains(t, f.Error(), "Vault answered 400: wrapping token is not valid or does not exist")
	assert.Contains(t, f.Error(), "the wrapped secret id was used already, or has expired; if nobody you know has used it, someone else may have it: revoke the role's secret ids, and deliver a new one")
	assert.FileExists(t, auth.SecretID.File)
}

func TestAWrappingTokenMadeElsewhereIsNotTrusted(t *testing.T) {
	t.Parallel()
	server := shared(t)
	r, other := newRole(t, server, nil), newRole(t, server, nil)
	for name, wrapped := range map[string]string{
		"by another role": other.wrapped(),
		"by sys/wrapping": wrap(t, server, "sys/wrapping/wrap", map[string]any{"secret_id": r.secretID}),
		"by a custom id":  wrap(t, server, r.at+"/custom-secret-id", map[string]any{"secret_id": name()}),
	} {
		t.Run(name, func(t *testing.T) {
			auth := r.authFile(wrapped)
			auth.WrappingPath = r.at + "/secret-id"
			s, _ := r.session(auth)
			f := fault(t, s.Login(t.Context()), wrapped)
			assert.ErrorIs(t, f, ErrLogin)
			assert.Contains(t, f.Detail, `, not at "`+auth.WrappingPath+`"`)
			assert.Contains(t, f.Hint, "it is not trusted: someone may have put it there")
			_, err := server.Client.Logical().Unwrap(wrapped)
			assert.NoError(t, err, "it was looked at, but not used up")
		})
	}
}

func TestASecretIDIsRemovedAfterTheLoginAndRemembered(t *testing.T) {
	t.Parallel()
	server := shared(t)
	for name, wrapping := range map[string]bool{"plain": false, "wrapped": true} {
		t.Run(name, func(t *testing.T) {
			r := newRole(t, server, nil)
			content := r.secretID
			if wrapping {
				content = r.wrapped()
			}
			auth := r.authFile(content)
			auth.Remove = true
			if wrapping {
				auth.WrappingPath = r.at + "/secret-id"
			}
			s, log := r.session(auth)
			for range 2 {
				require.NoError(t, s.Login(t.Context()))
				assert.NoFileExists(t, auth.SecretID.File)
			}

			content = r.newSecretID()
			if wrapping {
				content = r.wrapped()
			}
			r.file("secret_id", content)
			require.NoError(t, s.Login(t.Context()))
			assert.NoFileExists(t, auth.SecretID.File, "a new one is used and removed as well")
			assert.Empty(t, log.at(slog.LevelWarn), "nothing to warn of")

			late, _ := r.session(auth)
			f := fault(t, late.Login(t.Context()))
			assert.Equal(t, "the secret id was removed after an earlier login, as configured; deliver a new one to "+auth.SecretID.File, f.Detail)
		})
	}
}

func TestASecretIDIsKeptUntilALoginHasSucceeded(t *testing.T) {
	t.Parallel()
	r := newRole(t, shared(t), nil)
	p := newProxy(t, r.server)
	auth := r.authFile(r.secretID)
	auth.Remove = true
	s, _ := newSession(t, p.through(), auth, r.secretID)
	p.failAt("/login", http.StatusInternalServerError) // Vault does not fail on demand.
	require.Error(t, s.Login(t.Context()))
	assert.FileExists(t, auth.SecretID.File)
	p.heal()
	require.NoError(t, s.Login(t.Context()))
	assert.NoFileExists(t, auth.SecretID.File)
}

func TestLogin_KeepsTheSecretIDThatVaultHasNotSeen(t *testing.T) {
	t.Parallel()
	r := newRole(t, shared(t), nil)
	p := newProxy(t, r.server)
	for _, body := range []string{"", `{"message":"maintenance"}`, `{"request_id":"x"}`} {
		auth := r.authFile(r.secretID)
		auth.Remove = true
		s, _ := newSession(t, p.through(), auth, r.secretID)
		p.inject(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, body) })
		require.Error(t, s.Login(t.Context()))
		assert.FileExists(t, auth.SecretID.File)
		p.heal()
		require.NoError(t, s.Login(t.Context()))
		assert.NoFileExists(t, auth.SecretID.File)
	}
}

func TestASecretIDThatIsDeliveredDuringTheLoginIsNotRemoved(t *testing.T) {
	t.Parallel()
	r := newRole(t, shared(t), nil)
	p := newProxy(t, r.server)
	auth := r.authFile(r.secretID)
	auth.Remove = true
	s, _ := newSession(t, p.through(), auth, r.secretID)
	next := r.newSecretID()
	p.before("/login", func() { r.file("secret_id", next) })
	require.NoError(t, s.Login(t.Context()))
	content, err := config.ReadCredential(auth.SecretID.File)
	require.NoError(t, err)
	assert.Equal(t, next, content.Reveal())
}

func TestAFileThatCannotBeRemovedIsNoReasonNotToLogIn(t *testing.T) {
	t.Parallel()
	r := newRole(t, shared(t), nil)
	auth := r.authFile(r.secretID)
	f, err := os.Open(auth.SecretID.File)
	require.NoError(t, err)
	defer f.Close()
	// Nobody, not even root, removes files of /proc.
	auth.SecretID.File = fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	auth.Remove = true
	s, log := r.session(auth)
	require.NoError(t, s.Login(t.Context()))
	require.NoError(t, r.read(s))
	assert.Contains(t, log.String(), "logged in, but the file cannot be removed after reading it; mount it writable or take the setting out")
}

func TestANewSecretIDInTheFileIsUsedAtTheNextLogin(t *testing.T) {
	t.Parallel()
	r := newRole(t, shared(t), map[string]any{"token_type": "batch", "token_ttl": "8s"})
	auth := r.authFile(r.secretID)
	next := r.newSecretID()
	s, log := r.session(auth)
	run(t, s)
	first := loggedIn(t, s)
	write(t, r.server, r.at+"/secret-id/destroy", map[string]any{"secret_id": r.secretID})
	r.file("secret_id", next)
	replaced(t, s, first)
	require.NoError(t, r.read(s))
	assert.Empty(t, log.at(slog.LevelWarn), "nobody had to notice")
}

func TestASecretIDThatHasExpiredOrIsUsedUpIsReplacedByANewOne(t *testing.T) {
	t.Parallel()
	server := shared(t)
	for name, settings := range map[string]map[string]any{
		"limited uses": {"secret_id_num_uses": 1},
		"limited time": {"secret_id_ttl": "3s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			settings["token_type"], settings["token_ttl"] = "batch", "5s"
			r := newRole(t, server, settings)
			auth := r.authFile(r.secretID)
			s, log := r.session(auth)
			run(t, s)
			loggedIn(t, s)
			eventually(t, func() bool { r.tidy(); return len(log.at(slog.LevelWarn)) > 0 }, "a later login fails")
			assert.Contains(t, log.String(), "Vault answered 400: invalid role or secret ID")
			last := s.current().value
			r.file("secret_id", r.newSecretID())
			replaced(t, s, last)
			require.NoError(t, r.read(s))
			eventually(t, func() bool { return log.count("msg=recovered") == 1 }, "the recovery is logged")
			assert.Len(t, log.at(slog.LevelWarn), 1, "not every try")
		})
	}
}

func TestALoginThatVaultRefusesNamesItsAnswerAndTheCommandThatHelps(t *testing.T) {
	t.Parallel()
	server := shared(t)
	r := newRole(t, server, map[string]any{"secret_id_ttl": "1s"})
	expired := r.secretID
	write(t, server, r.at, map[string]any{"secret_id_ttl": "0"})
	fresh := r.newSecretID()
	users := name()
	enable(t, server, users, "userpass")
	eventually(t, func() bool {
		r.tidy()
		answer, _ := server.Client.Logical().Write("auth/"+r.name+"/login", map[string]any{"role_id": r.id, "secret_id": expired})
		return answer == nil
	}, "it expires")
	newID := `"vault write -f auth/` + r.name + `/role/ROLE/secret-id" makes a new one`
	for name, tc := range map[string]struct {
		roleID, secretID, mount string
		want                    []string
	}{
		"role id that does not exist": {"nope", fresh, r.name, []string{"Vault answered 400: invalid role or secret ID",
			`"vault read auth/` + r.name + `/role/ROLE/role-id" shows the role id`}},
		"wrong secret id":   {r.id, "nope", r.name, []string{"Vault answered 400: invalid role or secret ID", newID}},
		"expired secret id": {r.id, expired, r.name, []string{"Vault answered 400: invalid role or secret ID", "may have expired", newID}},
		"wrong mount":       {r.id, fresh, "nope", []string{"at auth/nope", "Vault answered 403: permission denied", `"vault auth list" shows what is`}},
		"another method":    {r.id, fresh, users, []string{"at auth/" + users, "Vault answered 403: permission denied", `"vault auth list" shows what is`}},
	} {
		t.Run(name, func(t *testing.T) {
			auth := config.Auth{Method: config.MethodAppRole, MountPath: tc.mount,
				RoleID: config.ID{Value: secret.Of(tc.roleID)}, SecretID: config.ID{Value: secret.Of(tc.secretID)}}
			s, _ := newSession(t, vaultAt(server), auth)
			f := fault(t, s.Login(t.Context()), fresh, expired)
			assert.ErrorIs(t, f, ErrLogin)
			assert.False(t, f.Transient)
			for _, want := range tc.want {
				assert.Contains(t, f.Error(), want)
			}
		})
	}
}

func TestIdsThatCannotBeReadAreNamed(t *testing.T) {
	r := newRole(t, shared(t), nil)
	for name, tc := range map[string]struct {
		auth config.Auth
		want string
	}{
		"role id":   {config.Auth{RoleID: config.ID{File: "/nowhere/r"}}, "the role id cannot be read: open /nowhere/r: no such file or directory"},
		"secret id": {config.Auth{RoleID: config.ID{Value: secret.Of("r")}, SecretID: config.ID{File: "/nowhere/s"}}, "the secret id cannot be read: open /nowhere/s: no such file or directory"},
		"token":     {config.Auth{Method: config.MethodTokenFile, File: "/nowhere/t"}, "the token cannot be read: open /nowhere/t: no such file or directory"},
		"jwt":       {config.Auth{Method: config.MethodJWT, File: "/nowhere/j"}, "the token cannot be read: open /nowhere/j: no such file or directory"},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := r.session(tc.auth)
			f := fault(t, s.Login(t.Context()))
			assert.ErrorIs(t, f, ErrLogin)
			assert.Equal(t, tc.want, f.Detail)
			assert.False(t, f.Transient)
		})
	}
}

// token makes a token of these properties.
func token(t *testing.T, server *vaulttest.Server, settings map[string]any) string {
	t.Helper()
	return write(t, server, "auth/token/create-orphan", settings).Auth.ClientToken
}

func TestAGivenTokenIsRenewedAndNeverRevoked(t *testing.T) {
	t.Parallel()
	server := shared(t)
	at := name()
	policy(t, server, at)
	given := token(t, server, map[string]any{"policies": at, "period": "9s"})
	p := newProxy(t, server)
	s, log := newSession(t, p.through(), config.Auth{Method: config.MethodToken, Token: secret.Of(given)})
	stop := run(t, s)
	loggedIn(t, s)
	eventually(t, func() bool { return p.count("auth/token/renew-self") >= 2 }, "renewed")
	ends, loggedIn := s.TokenEnds()
	assert.True(t, loggedIn)
	assert.True(t, ends.After(time.Now()))
	stop()
	s.Close(t.Context(), false)
	assert.True(t, lives(server, given), "it is not ours to revoke")
	assert.Zero(t, p.count("revoke-self"))
	assert.Empty(t, log.at(slog.LevelWarn))
}

func TestAGivenTokenThatHasEndedIsReportedWithWhatHelps(t *testing.T) {
	t.Parallel()
	server := shared(t)
	for name, auth := range map[string]config.Auth{
		"variable": {Method: config.MethodToken, Token: secret.Of("hvs.notatokenthatvaultknows")},
		"file":     {Method: config.MethodTokenFile, File: writeFile(t, "hvs.notatokenthatvaultknows")},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := newSession(t, vaultAt(server), auth)
			f := fault(t, s.Login(t.Context()))
			assert.ErrorIs(t, f, ErrLogin)
			assert.False(t, f.Transient)
			assert.Contains(t, f.Error(), "Vault answered 403: permission denied") // Vault adds "invalid token", OpenBao nothing.
			assert.Contains(t, f.Hint, "the token may have ended or been revoked; deliver a new one")
		})
	}
}

func writeFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, []byte(content+"\n"), 0o600))
	return path
}

func TestATokenWithoutTheDefaultPolicyIsUsedThoughNothingIsKnownOfIt(t *testing.T) {
	t.Parallel()
	server := shared(t)
	at := name()
	policy(t, server, at)
	given := token(t, server, map[string]any{"policies": at, "no_default_policy": true})
	s, _ := newSession(t, vaultAt(server), config.Auth{Method: config.MethodToken, Token: secret.Of(given)})
	require.NoError(t, s.Login(t.Context()))
	_, err := s.Read(t.Context(), "secret/data/"+at, nil)
	require.NoError(t, err)
	ends, loggedIn := s.TokenEnds()
	assert.True(t, loggedIn)
	assert.Zero(t, ends)
}

func TestATokenThatCannotBeRenewedIsWarnedOfOnce(t *testing.T) {
	t.Parallel()
	server := shared(t)
	at := name()
	policy(t, server, at)
	file := writeFile(t, token(t, server, map[string]any{"policies": at, "ttl": "4s", "renewable": false}))
	s, log := newSession(t, vaultAt(server), config.Auth{Method: config.MethodTokenFile, File: file})
	run(t, s)
	first := loggedIn(t, s)
	eventually(t, func() bool { return !lives(server, first) }, "it ends")
	assert.Equal(t, 1, log.count("the token cannot be renewed; deliver another one before it ends"))

	require.NoError(t, os.WriteFile(file, []byte(token(t, server, map[string]any{"policies": at})), 0o600))
	replaced(t, s, first)
	_, err := s.Read(t.Context(), "secret/data/"+at, nil)
	require.NoError(t, err, "another one in the file is used")
}

func TestATokenFileIsReadAgainWhenItsTokenIsRevoked(t *testing.T) {
	t.Parallel()
	server := shared(t)
	at := name()
	policy(t, server, at)
	first, second := token(t, server, map[string]any{"policies": at}), token(t, server, map[string]any{"policies": at})
	file := writeFile(t, first)
	s, _ := newSession(t, vaultAt(server), config.Auth{Method: config.MethodTokenFile, File: file})
	require.NoError(t, s.Login(t.Context()))
	require.NoError(t, os.WriteFile(file, []byte(second), 0o600))
	require.NoError(t, server.Client.Auth().Token().RevokeTree(first))
	_, err := s.Read(t.Context(), "secret/data/"+at, nil)
	require.NoError(t, err)
	assert.Equal(t, second, s.current().value)
	s.Close(t.Context(), false)
	assert.True(t, lives(server, second))
}

// issuer signs JWTs for a role of a jwt mount, which it makes.
type issuer struct {
	t   *testing.T
	key *ecdsa.PrivateKey
	at  string // mount, policy, role and secret
}

func newIssuer(t *testing.T, server *vaulttest.Server) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	require.NoError(t, err)
	i := &issuer{t, key, name()}
	policy(t, server, i.at)
	enable(t, server, i.at, "jwt")
	write(t, server, "auth/"+i.at+"/config", map[string]any{
		"jwt_validation_pubkeys": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
	})
	write(t, server, "auth/"+i.at+"/role/"+i.at, map[string]any{
		"role_type": "jwt", "user_claim": "sub", "bound_audiences": "vault", "token_policies": i.at,
	})
	return i
}

// sign makes a JWT that ends after a while, or has ended.
func (i *issuer) sign(life time.Duration) string {
	i.t.Helper()
	claims, err := json.Marshal(map[string]any{
		"sub": "agent", "aud": "vault", "iat": time.Now().Add(-2 * time.Hour).Unix(), "exp": time.Now().Add(life).Unix(),
	})
	require.NoError(i.t, err)
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(`{"alg":"ES256","typ":"JWT"}`)) + "." + encode(claims)
	sum := sha256.Sum256([]byte(text))
	a, b, err := ecdsa.Sign(rand.Reader, i.key, sum[:])
	require.NoError(i.t, err)
	return text + "." + encode(append(a.FillBytes(make([]byte, 32)), b.FillBytes(make([]byte, 32))...))
}

// devvault has no kubernetes method, which needs a cluster. Its login takes the
// same two fields as that of the jwt method, which stands in for it.
func TestJWTAndKubernetesLogInWithTheTokenInAFile(t *testing.T) {
	t.Parallel()
	server := shared(t)
	i := newIssuer(t, server)
	for _, method := range []string{config.MethodJWT, config.MethodKubernetes} {
		t.Run(method, func(t *testing.T) {
			signed := i.sign(time.Hour)
			auth := config.Auth{Method: method, MountPath: i.at, Role: i.at, File: writeFile(t, signed)}
			s, _ := newSession(t, vaultAt(server), auth, signed)
			require.NoError(t, s.Login(t.Context()))
			_, err := s.Read(t.Context(), "secret/data/"+i.at, nil)
			require.NoError(t, err)

			late := i.sign(-time.Hour)
			require.NoError(t, os.WriteFile(auth.File, []byte(late), 0o600))
			f := fault(t, s.Login(t.Context()), late)
			assert.ErrorIs(t, f, ErrLogin, "the file is read at every login")
			assert.Contains(t, f.Error(), "logging in with "+method+" at auth/"+i.at)
			assert.Contains(t, f.Error(), "Vault answered 400: error validating token")
			assert.Contains(t, f.Hint, "check the role, and the audience, issuer and expiry of the token in "+auth.File)
			_, err = s.Read(t.Context(), "secret/data/"+i.at, nil)
			require.NoError(t, err, "the old token still works")
		})
	}
}

func TestAJWTIsRemovedAfterTheLoginAndRemembered(t *testing.T) {
	t.Parallel()
	server := shared(t)
	i := newIssuer(t, server)
	signed := i.sign(time.Hour)
	auth := config.Auth{Method: config.MethodJWT, MountPath: i.at, Role: i.at, File: writeFile(t, signed), Remove: true}
	s, _ := newSession(t, vaultAt(server), auth, signed)
	for range 2 {
		require.NoError(t, s.Login(t.Context()))
		assert.NoFileExists(t, auth.File)
	}
}

func TestAJWTOfARoleThatDoesNotExistIsReported(t *testing.T) {
	t.Parallel()
	server := shared(t)
	i := newIssuer(t, server)
	signed := i.sign(time.Hour)
	s, _ := newSession(t, vaultAt(server), config.Auth{Method: config.MethodJWT, MountPath: i.at, Role: "nope", File: writeFile(t, signed)})
	f := fault(t, s.Login(t.Context()), signed)
	assert.Contains(t, f.Error(), `Vault answered 400: role "nope" could not be found`)
	assert.Contains(t, f.Hint, "check the role")
}

func TestARequestWaitsForTheFirstLogin(t *testing.T) {
	t.Parallel()
	r := newRole(t, shared(t), nil)
	s, _ := r.session(r.auth())
	done := make(chan error)
	go func() { done <- r.read(s) }()
	require.NoError(t, s.Login(t.Context()))
	require.NoError(t, <-done)

	list, err := s.List(t.Context(), "secret/metadata/"+r.name)
	require.NoError(t, err)
	assert.Nil(t, list.Secret, "nothing is below it")
	answer, err := s.Read(t.Context(), "secret/data/"+r.name, url.Values{"version": {"1"}})
	require.NoError(t, err)
	assert.Equal(t, map[string]any{"key": "value"}, answer.Data["data"])
	assert.Nil(t, answer.Token, "it has no lease")
}

// selfSigned makes a client certificate, and writes it and its key into files.
func selfSigned(t *testing.T, certFile, keyFile string) (certificate string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "agent"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	require.NoError(t, os.WriteFile(certFile, cert, 0o600))
	require.NoError(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	return string(cert)
}

func TestCertLogsInWithTheClientCertificate(t *testing.T) {
	server := own(t, "-tls")
	policy(t, server, "agent")
	enable(t, server, "cert", "cert")
	dir := t.TempDir()
	vault := vaultAt(server)
	vault.ClientCert, vault.ClientKey = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for _, name := range []string{"first", "second"} {
		write(t, server, "auth/cert/certs/"+name, map[string]any{
			"certificate":  selfSigned(t, filepath.Join(dir, name+".pem"), filepath.Join(dir, name+"-key.pem")),
			"display_name": name, "token_policies": "agent",
		})
	}
	use := func(name string) {
		t.Helper()
		for from, to := range map[string]string{name + "-key.pem": vault.ClientKey, name + ".pem": vault.ClientCert} {
			content, err := os.ReadFile(filepath.Join(dir, from))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(to, content, 0o600))
		}
	}
	who := func(s *Session) string {
		answer, err := server.Client.Auth().Token().Lookup(s.current().value)
		require.NoError(t, err)
		return answer.Data["display_name"].(string)
	}
	use("first")
	auth := config.Auth{Method: config.MethodCert, MountPath: "cert"}

	t.Run("of any role that trusts it", func(t *testing.T) {
		s, _ := newSession(t, vault, auth)
		require.NoError(t, s.Login(t.Context()))
		assert.Equal(t, "cert-first", who(s))
		_, err := s.Read(t.Context(), "secret/data/agent", nil)
		require.NoError(t, err)
	})
	t.Run("of one role only", func(t *testing.T) {
		auth.Role = "second"
		s, _ := newSession(t, vault, auth)
		f := fault(t, s.Login(t.Context()))
		assert.ErrorIs(t, f, ErrLogin)
		assert.Contains(t, f.Error(), "logging in with a certificate at auth/cert: the login failed (Vault answered 400: ")
		assert.Contains(t, f.Hint, "check that the client certificate is valid and that a role at auth/cert trusts who signed it")
		auth.Role = "first"
		s, _ = newSession(t, vault, auth)
		require.NoError(t, s.Login(t.Context()))
		auth.Role = ""
	})
	t.Run("and with another one when its files change", func(t *testing.T) {
		s, log := newSession(t, vault, auth)
		require.NoError(t, s.Login(t.Context()))
		require.NoError(t, os.WriteFile(vault.ClientCert, []byte("half of it"), 0o600))
		eventually(t, func() bool { _ = s.client(); return len(log.at(slog.LevelError)) > 0 }, "the bad file is noticed")
		require.NoError(t, s.Login(t.Context()), "the old certificate stays in force")
		assert.Equal(t, "cert-first", who(s))
		assert.Contains(t, log.String(), "the changed certificate files cannot be used; the old ones stay in force")

		use("second")
		eventually(t, func() bool { require.NoError(t, s.Login(t.Context())); return who(s) == "cert-second" }, "the new certificate is used")
		assert.Contains(t, log.String(), "certificate files have changed and were read again")
	})
	t.Run("with the variables' pair before the file's", func(t *testing.T) {
		t.Setenv("VAULT_CLIENT_CERT", filepath.Join(dir, "second.pem"))
		t.Setenv("VAULT_CLIENT_KEY", filepath.Join(dir, "second-key.pem"))
		use("first")
		s, _ := newSession(t, vault, auth)
		require.NoError(t, s.Login(t.Context()))
		assert.Equal(t, "cert-second", who(s))
	})
}
