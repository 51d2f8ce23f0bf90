package session

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/api/auth/approle"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/render/drop"
	"github.com/smarteros/deaddrop/render/secret"
)

// method is a way to get a token. The client it is given carries none.
type method interface {
	// login returns the answer of a login. Errors that are no [*Fault] are
	// those of the client or of files.
	login(ctx context.Context, client *api.Client) (*api.Secret, error)
	// String says what is being done, for errors.
	String() string
	// advice says what helps against Vault's refusal.
	advice() string
}

func methodOf(auth config.Auth) method {
	at := "auth/" + auth.MountPath
	switch auth.Method {
	case config.MethodToken, config.MethodTokenFile:
		return &given{token: auth.Token, file: auth.File}
	case config.MethodJWT, config.MethodKubernetes:
		return &bearer{at: at, kind: auth.Method, role: auth.Role, file: auth.File, remove: auth.Remove}
	case config.MethodCert:
		return &cert{at: at, name: auth.Role}
	}
	return &appRole{auth: auth}
}

// appRole logs in with a role id, and with a secret id unless the role does without.
type appRole struct {
	auth config.Auth
	// read is what the last login has found in the file of the secret id.
	read secret.Value[string]
	// last is the secret id of a file that was removed, or unwrapped.
	last secret.Value[string]
	// unwrapped is the wrapping token that last came from.
	unwrapped secret.Value[string]
}

func (m *appRole) String() string { return "logging in with AppRole at auth/" + m.auth.MountPath }

func (m *appRole) advice() string {
	if hint := m.tokenHint(); hint != "" {
		return hint
	}
	role := "auth/" + m.auth.MountPath + "/role/ROLE"
	if !m.auth.SecretID.IsSet() {
		return m.roleIDAloneHint()
	}
	return `check role id and secret id: the secret id may have expired, been used up or been revoked; ` +
		`"vault write -f ` + role + `/secret-id" makes a new one, and "vault read ` + role + `/role-id" shows the role id`
}

// roleIDAloneHint says what helps when Vault refuses a role id without a secret id.
func (m *appRole) roleIDAloneHint() string {
	role := "auth/" + m.auth.MountPath + "/role/ROLE"
	return `the login is with the role id alone: if the role wants a secret id, give it by VAULT_SECRET_ID, or by secret_id_file_path in the config of the method ` +
		`("vault write -f ` + role + `/secret-id" makes one); if it does not, check the role id ("vault read ` + role + `/role-id") and bind_secret_id ("vault read ` + role + `")`
}

func (m *appRole) login(ctx context.Context, client *api.Client) (*api.Secret, error) {
	held := hold(m.auth.SecretID.File, m.auth.Remove)
	defer held.close()
	roleID, err := m.auth.RoleID.Read()
	if err != nil {
		return nil, &unreadError{fmt.Errorf("the role id cannot be read: %w", err)}
	}
	if !m.auth.SecretID.IsSet() {
		return client.Logical().WriteWithContext(ctx, "auth/"+m.auth.MountPath+"/login", map[string]any{"role_id": roleID.Reveal()})
	}
	id, err := m.secretID(ctx, client)
	if err != nil {
		return nil, err
	}
	login, err := approle.NewAppRoleAuth(roleID.Reveal(), &approle.SecretID{FromString: id.Reveal()}, approle.WithMountPath(m.auth.MountPath))
	if err != nil {
		return nil, &unreadError{err}
	}
	answer, err := login.Login(ctx, client)
	if err != nil || !m.auth.Remove || !isLogin(answer) {
		return answer, err
	}
	m.last = id
	return answer, held.remove(m.read)
}

// secretID reads the file at every login, since a new id may have been delivered
// meanwhile. One that was removed or unwrapped before is remembered.
func (m *appRole) secretID(ctx context.Context, client *api.Client) (secret.Value[string], error) {
	id, err := m.auth.SecretID.Read()
	m.read = id
	switch {
	case errors.Is(err, fs.ErrNotExist) && m.last.Reveal() != "":
		return m.last, nil
	case errors.Is(err, fs.ErrNotExist) && m.auth.Remove:
		return id, &unreadError{fmt.Errorf("the secret id was removed after an earlier login, as configured; deliver a new one to %s", m.auth.SecretID.File)}
	case err != nil:
		return id, &unreadError{fmt.Errorf("the secret id cannot be read: %w", err)}
	case m.auth.WrappingPath == "":
		return id, nil
	case id.Reveal() == m.unwrapped.Reveal():
		return m.last, nil
	}
	wrapped := id
	if id, err = unwrap(ctx, client, wrapped, m.auth.WrappingPath); err == nil {
		m.last, m.unwrapped = id, wrapped
	}
	return id, err
}

// unwrap trades a wrapping token for the secret id in it, if the token was made
// where it should have been.
func unwrap(ctx context.Context, client *api.Client, wrapped secret.Value[string], path string) (secret.Value[string], error) {
	var none secret.Value[string]
	info, err := client.Logical().WriteWithContext(ctx, "sys/wrapping/lookup", map[string]any{"token": wrapped.Reveal()})
	if err != nil {
		return none, wrappingFault(err)
	}
	if info == nil {
		return none, errNotVault
	}
	made, _ := info.Data["creation_path"].(string)
	if made != path {
		return none, &Fault{Op: "unwrapping the secret id", Kind: ErrLogin,
			Detail: fmt.Sprintf("the wrapping token was made at %q, not at %q", made, path),
			Hint:   "it is not trusted: someone may have put it there in exchange for the real one"}
	}
	withToken := client.WithRequestCallbacks(func(r *api.Request) { r.ClientToken = wrapped.Reveal() })
	answer, err := withToken.Logical().WriteWithContext(ctx, "sys/wrapping/unwrap", nil)
	if err != nil {
		return none, wrappingFault(err)
	}
	if answer != nil {
		if id, _ := answer.Data["secret_id"].(string); id != "" {
			return secret.Of(id), nil
		}
	}
	return none, &Fault{Op: "unwrapping the secret id", Kind: ErrLogin, Detail: "what was wrapped holds no secret_id"}
}

// wrappingFault speaks up where a wrapping token is not valid any more.
func wrappingFault(err error) error {
	var answer *api.ResponseError
	if !errors.As(err, &answer) || answer.StatusCode != 400 {
		return err
	}
	return &Fault{Op: "unwrapping the secret id", Kind: ErrLogin, Detail: "Vault answered 400: " + oneLine(answer),
		Hint: "the wrapped secret id was used already, or has expired; if nobody you know has used it, someone else may have it: " +
			"revoke the role's secret ids, and deliver a new one"}
}

// given takes a token that someone else has made, from a file at every login or
// from the environment.
type given struct {
	token secret.Value[string]
	file  string
}

func (m *given) String() string {
	if m.file != "" {
		return "using the token in " + m.file
	}
	return "using VAULT_TOKEN"
}

func (m *given) advice() string { return "the token may have ended or been revoked; deliver a new one" }

// login looks the token up, which tells its life. A token without the default
// policy may not even do that; then nothing is known of it.
func (m *given) login(ctx context.Context, client *api.Client) (*api.Secret, error) {
	token := m.token
	if m.file != "" {
		var err error
		if token, err = config.ReadCredential(m.file); err != nil {
			return nil, &unreadError{fmt.Errorf("the token cannot be read: %w", err)}
		}
	}
	own := client.WithRequestCallbacks(func(r *api.Request) { r.ClientToken = token.Reveal() })
	answer := &api.Secret{Auth: &api.SecretAuth{ClientToken: token.Reveal()}}
	info, err := own.Auth().Token().LookupSelfWithContext(ctx)
	switch {
	case isPlainDenial(err):
		if valid, unknown := TokenIsValid(ctx, own); unknown == nil && !valid {
			return nil, err // OpenBao denies an invalid token so, too.
		}
		return answer, nil
	case err != nil:
		return nil, err
	case info == nil:
		return nil, errNotVault
	}
	ttl, _ := info.TokenTTL()
	if ttl < time.Second && info.Data["expire_time"] != nil {
		ttl = time.Second // Its last; no time at all is for tokens that never end.
	}
	answer.Auth.LeaseDuration = int(ttl.Seconds())
	answer.Auth.Renewable, _ = info.TokenIsRenewable()
	return answer, nil
}

// isPlainDenial tells a policy's refusal from that of a token that has ended.
func isPlainDenial(err error) bool {
	var answer *api.ResponseError
	return errors.As(err, &answer) && answer.StatusCode == 403 && !strings.Contains(oneLine(answer), invalidToken)
}

// bearer logs in with a signed token in a file: a JWT, or the service account
// token of Kubernetes.
type bearer struct {
	at, kind, role, file string
	remove               bool
	last                 secret.Value[string]
}

func (m *bearer) String() string { return "logging in with " + m.kind + " at " + m.at }

func (m *bearer) advice() string {
	return "check the role, and the audience, issuer and expiry of the token in " + m.file
}

func (m *bearer) login(ctx context.Context, client *api.Client) (*api.Secret, error) {
	held := hold(m.file, m.remove)
	defer held.close()
	token, err := config.ReadCredential(m.file)
	switch {
	case errors.Is(err, fs.ErrNotExist) && m.last.Reveal() != "":
		token = m.last
	case err != nil:
		return nil, &unreadError{fmt.Errorf("the token cannot be read: %w", err)}
	}
	answer, err := client.Logical().WriteWithContext(ctx, m.at+"/login", map[string]any{"role": m.role, "jwt": token.Reveal()})
	if err != nil || !m.remove || !isLogin(answer) {
		return answer, err
	}
	m.last = token
	return answer, held.remove(token)
}

// cert logs in with the client certificate of the connection.
type cert struct{ at, name string }

func (m *cert) String() string { return "logging in with a certificate at " + m.at }

func (m *cert) advice() string {
	return "check that the client certificate is valid and that a role at " + m.at + " trusts who signed it"
}

func (m *cert) login(ctx context.Context, client *api.Client) (*api.Secret, error) {
	var data map[string]any
	if m.name != "" {
		data = map[string]any{"name": m.name}
	}
	return client.Logical().WriteWithContext(ctx, m.at+"/login", data)
}

// isLogin reports whether Vault has answered with a token.
func isLogin(answer *api.Secret) bool {
	return answer != nil && isOfVault(answer) && answer.Auth != nil && answer.Auth.ClientToken != ""
}

// unreadError is a login that was not tried, for want of what it is made with.
type unreadError struct{ error }

func (e *unreadError) Unwrap() error { return e.error }

// errNotRemoved is a login that has succeeded, but left its file behind.
type errNotRemoved struct{ error }

func (e errNotRemoved) Unwrap() error { return e.error }

// heldFile is a file that is to be removed once a login has used its content, as it was
// before it was read. Its folder is held open: where somebody puts another folder in its
// place meanwhile, nothing in there is removed.
type heldFile struct {
	path   string
	folder *os.Root
	info   fs.FileInfo // of the file, or of the link
	err    error
}

// hold looks at a file before it is read. It does nothing for one that is not to be
// removed.
func hold(path string, remove bool) *heldFile {
	h := &heldFile{path: path}
	if !remove || path == "" {
		return h
	}
	if h.folder, h.err = drop.OpenFolder(filepath.Dir(path)); h.err == nil {
		h.info, h.err = h.folder.Lstat(filepath.Base(path))
	}
	return h
}

func (h *heldFile) close() {
	if h.folder != nil {
		_ = h.folder.Close()
	}
}

// remove removes the file, or the link rather than what it points to, if it still holds
// what was read. Anything else was delivered meanwhile, and is for the next login.
func (h *heldFile) remove(read secret.Value[string]) error {
	if errors.Is(h.err, fs.ErrNotExist) {
		return nil
	}
	if h.err != nil {
		return errNotRemoved{h.err}
	}
	if now, err := config.ReadCredential(h.path); err == nil && now.Reveal() != read.Reveal() {
		return nil
	}
	name := filepath.Base(h.path)
	now, err := h.folder.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !h.isSame(now) {
		return nil
	}
	if err == nil {
		err = h.folder.Remove(name)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errNotRemoved{err}
	}
	return nil
}

// isSame compares more than the inode, whose number a new file may get again.
func (h *heldFile) isSame(now fs.FileInfo) bool {
	return os.SameFile(h.info, now) && h.info.Mode().Type() == now.Mode().Type() && h.info.ModTime().Equal(now.ModTime())
}
