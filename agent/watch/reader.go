package watch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
	"unique"

	"github.com/hashicorp/vault/api"

	"github.com/smarteros/deaddrop/agent/internal/redact"
	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/secret"
)

// The kinds of errors that a read can end in, besides those of the session.
var (
	ErrMissing     = errors.New("there is no such secret")
	ErrUnsupported = errors.New("not supported")
)

// Vault is what this package needs of a session. Answers hold no secret where
// nothing is there.
type Vault interface {
	Read(ctx context.Context, path string, query url.Values) (session.Answer, error)
	Write(ctx context.Context, path string, data map[string]any) (session.Answer, error)
	List(ctx context.Context, path string) (session.Answer, error)
	// Namespace is the one that all paths are in; "" for the root.
	Namespace() string
}

// Secrets reads secrets of all engines. KV is found by logical path
// (secret/tenant/demo/nexa) or API path (secret/data/tenant/demo/nexa).
//
// A secret is called missing ([ErrMissing]) only on Vault's own word: for the path it
// answered that the version was deleted; or that nothing is there, and asked again it
// said that the engine is still the one which the path was made for. Everything else is
// a read that has failed. Files are removed, and the agent ends, for missing secrets
// only.
type Secrets struct {
	vault  Vault
	mounts mounts

	mu     sync.Mutex
	absent map[string]error // what was found out of secrets that are not there
	// resolved has the mount that each path of the API was made for. What is read there
	// of another one says nothing about the secret.
	resolved map[string]unique.Handle[string]
}

// mostAbsent is how many secrets are remembered that are not there, mostResolved how
// many paths.
const (
	mostAbsent   = 20_000
	mostResolved = 200_000
)

// NewSecrets returns a reader that knows no mounts yet.
func NewSecrets(vault Vault) *Secrets {
	return &Secrets{vault: vault, mounts: mounts{vault: vault}, absent: map[string]error{}, resolved: map[string]unique.Handle[string]{}}
}

// Forget has Vault asked again for each mount. What was resolved has to be resolved
// again.
func (ss *Secrets) Forget() {
	ss.mounts.forget()
	ss.mu.Lock()
	clear(ss.absent)
	ss.mu.Unlock()
}

// Resolve returns the request with the API path of the secret. It asks Vault for
// the mount that the path is on, once for each mount.
func (ss *Secrets) Resolve(ctx context.Context, r render.Request) (render.Request, error) {
	path, query, _ := strings.Cut(strings.Trim(r.Path, "/"), "?")
	if r.Lists() {
		return ss.resolveList(ctx, r, path)
	}
	if path == "" {
		return r, fmt.Errorf("secret %q: the path is empty; write one such as secret/tenant/demo/nexa: %w", r.Path, ErrUnsupported)
	}
	m, err := ss.mounts.of(ctx, path)
	if err != nil {
		return r, err
	}
	if part, name := m.split(path); m.isKV2() && part == "" {
		path = m.path + "data/" + name
	}
	if query != "" {
		path += "?" + query
	}
	return ss.resolvedAt(r, path, m), nil
}

// resolvedAt returns the request at its path of the API, and notes the mount.
func (ss *Secrets) resolvedAt(r render.Request, path string, m mount) render.Request {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if len(ss.resolved) >= mostResolved { // Of tenants that came and went.
		clear(ss.resolved)
	}
	at := r.At(path)
	ss.resolved[keyOf(at)] = m.handle()
	return at
}

// isResolved reports whether a request was resolved with a mount.
func (ss *Secrets) isResolved(r render.Request, m mount) bool {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return ss.resolved[keyOf(r)] == m.handle()
}

func keyOf(r render.Request) string {
	if r.Lists() {
		return r.Path + "/"
	}
	return r.Path
}

// resolveList returns the API path of a folder, which of KV v2 lists metadata,
// however the folder is spelled.
func (ss *Secrets) resolveList(ctx context.Context, r render.Request, path string) (render.Request, error) {
	m, err := ss.mounts.of(ctx, path+"/")
	if err != nil {
		return r, err
	}
	if !m.isKV2() {
		return ss.resolvedAt(r, path, m), nil
	}
	folder := strings.TrimPrefix(path+"/", m.path)
	for _, api := range []string{"metadata/", "data/"} {
		if rest, is := strings.CutPrefix(folder, api); is {
			folder = rest
			break
		}
	}
	return ss.resolvedAt(r, strings.Trim(m.path+"metadata/"+folder, "/"), m), nil
}

// Read asks what [Secrets.Resolve] returned.
func (ss *Secrets) Read(ctx context.Context, r render.Request) (*render.Secret, Life, error) {
	if r.Lists() {
		s, err := ss.readList(ctx, r)
		return s, Life{}, err
	}
	path, rawQuery, _ := strings.Cut(r.Path, "?")
	m, err := ss.mounts.of(ctx, path)
	if err != nil {
		return nil, Life{}, err
	}
	if !ss.isResolved(r, m) {
		return nil, Life{}, remounted(path)
	}
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return nil, Life{}, fmt.Errorf("secret %q: what follows the ? is not of the form name=value: %w", path, ErrUnsupported)
	}
	answer, err := ss.ask(ctx, r, path, m, query)
	switch {
	case err != nil:
		return nil, Life{}, ss.failed(ctx, path, m, err, time.Now().Add(-recheck))
	case answer.Foreign && (r.Writes() || !m.hasForeignAnswers()):
		return nil, Life{}, session.NotVault("reading " + path)
	case answer.Secret == nil:
		return nil, Life{}, ss.missing(ctx, r, path, m)
	case answer.Data == nil:
		if answer.Token != nil {
			answer.Token.Release()
		}
		return nil, Life{}, ss.failed(ctx, path, m, fmt.Errorf("reading %s: the answer holds no data%s", path, warnings(answer.Secret)), time.Now())
	case m.denied != nil:
		ss.mounts.readAsWritten(path)
	case m.isKV() && isVersioned(answer.Data) != m.hasEnvelope(path):
		if err := ss.mounts.confirm(ctx, path, m, time.Now()); errors.Is(err, errRemounted) {
			return nil, Life{}, remounted(path)
		}
	}
	ss.found(r.Path)
	if m.hasEnvelope(path) || m.denied != nil && isVersioned(answer.Data) {
		s, err := version2(r, path, m, answer.Secret)
		return s, Life{}, err
	}
	if m.isDeletedSubkeys(path, answer.Data) {
		return nil, Life{}, fmt.Errorf("secret %q: %w: the version was deleted", path, ErrMissing)
	}
	s := &render.Secret{
		Path: r.Path, RequestID: answer.RequestID, Warnings: answer.Warnings, LeaseID: answer.LeaseID, LeaseDuration: answer.LeaseDuration, Renewable: answer.Renewable,
		Data: secret.Of(answer.Data),
	}
	return s, ss.life(r, s, m, answer), nil
}

// failed returns the error of a read that Vault has refused, or that the engine is
// another one by now, so that the path was the wrong one. Vault is asked for that where
// it was not since.
func (ss *Secrets) failed(ctx context.Context, path string, m mount, err error, since time.Time) error {
	var fault *session.Fault
	switch {
	case errors.As(err, &fault) && !IsPolicyDenial(err) && !errors.Is(err, session.ErrRejected):
		return err // Vault has not answered.
	case m.denied != nil:
		return m.denied
	case errors.Is(ss.mounts.confirm(ctx, path, m, since), errRemounted):
		return remounted(path)
	}
	return err
}

func remounted(path string) error {
	return fmt.Errorf("reading %s: %w", path, errRemounted)
}

// readList lists a folder. One that is not there is like an empty one to Vault; one
// whose engine is another by now is not, nor is a list that may still grow: drops that
// follow tenants would lose the files of those that it lacks.
func (ss *Secrets) readList(ctx context.Context, r render.Request) (*render.Secret, error) {
	path := r.Path + "/"
	m, err := ss.mounts.of(ctx, path)
	if err != nil {
		return nil, err
	}
	if !ss.isResolved(r, m) {
		return nil, remounted(r.Path)
	}
	answer, err := ss.vault.List(ctx, Unescaped(r.Path))
	if err != nil {
		err = withPolicy(err, "the login's policies need: path %q { capabilities = [\"list\"] }", path)
		return nil, ss.failed(ctx, path, m, err, time.Now().Add(-recheck))
	}
	keys := []any{}
	if answer.Foreign {
		return nil, session.NotVault("listing " + r.Path)
	}
	if answer.Secret != nil {
		var isList bool
		if keys, isList = answer.Data["keys"].([]any); !isList {
			return nil, ss.failed(ctx, path, m, fmt.Errorf("listing %s: the answer holds no list%s", r.Path, warnings(answer.Secret)), time.Now())
		}
		if m.denied != nil {
			ss.mounts.readAsWritten(path)
		}
		if err := ss.mounts.checkSettled(path); err != nil {
			return nil, fmt.Errorf("listing %s: %w", r.Path, err)
		}
	} else if err := ss.mounts.confirm(ctx, path, m, time.Now()); errors.Is(err, errRemounted) {
		return nil, remounted(r.Path)
	} else if err != nil {
		return nil, fmt.Errorf("listing %s: it is empty, and what it was on may be gone: %w", r.Path, err)
	}
	return &render.Secret{Path: r.Path, Data: secret.Of(map[string]any{"keys": keys})}, nil
}

// warnings are those of an answer, to be put behind what is wrong with it.
func warnings(answer *api.Secret) string {
	if len(answer.Warnings) == 0 {
		return ""
	}
	return ": " + strings.Join(answer.Warnings, " ")
}

// Unescaped is a path as Vault gets it: %3F stands for a question mark in the name of a
// secret, since what follows a plain one are parameters.
func Unescaped(path string) string {
	return strings.NewReplacer("%3F", "?", "%3f", "?").Replace(path)
}

func (ss *Secrets) ask(ctx context.Context, r render.Request, path string, m mount, query url.Values) (session.Answer, error) {
	path = Unescaped(path)
	if !r.Writes() {
		hint := "the login's policies need: path %q { capabilities = [\"read\"] }"
		if m.isKV() {
			hint += ", unless it is a folder: then name a secret in it"
		}
		answer, err := ss.vault.Read(ctx, path, query)
		return answer, withPolicy(err, hint, path)
	}
	params := r.Params()
	answer, err := ss.vault.Write(ctx, path, params)
	var values []string
	for _, value := range params {
		values = append(values, fmt.Sprint(value))
	}
	err = redact.Error(err, values) // Vault quotes parameters, which may be secret.
	return answer, withPolicy(err, "the login's policies need: path %q { capabilities = [\"create\", \"update\"] }", path)
}

// life tells how long an answer is good for. The certificate of a lease lives
// until it ends by itself: revoking it would be news to everyone who has it.
func (ss *Secrets) life(r render.Request, s *render.Secret, m mount, answer session.Answer) Life {
	life := Life{Look: time.Duration(s.LeaseDuration) * time.Second}
	if !m.isKV() {
		life = lifeOf(r, s, time.Now().Round(0))
	}
	switch {
	case answer.Token == nil:
	case !life.NotAfter.IsZero():
		answer.Token.Release()
	default:
		life = Life{Lease: &Lease{ID: s.LeaseID, TTL: time.Duration(s.LeaseDuration) * time.Second, Renewable: s.Renewable, Token: answer.Token}}
	}
	return life
}

// Renew asks Vault for another life of the lease, and returns what it has granted.
func (ss *Secrets) Renew(ctx context.Context, l *Lease) (time.Duration, bool, error) {
	const path = "sys/leases/renew"
	answer, err := ss.vault.Write(ctx, path, map[string]any{"lease_id": l.ID})
	if err != nil {
		return 0, false, withPolicy(err, "the login's policies need: path %q { capabilities = [\"update\"] }", path)
	}
	if answer.Token != nil {
		answer.Token.Release() // The lease stays with the token it was issued to.
	}
	if answer.Secret == nil {
		return 0, false, fmt.Errorf("renewing the lease %s: Vault answered nothing", l.ID)
	}
	return time.Duration(answer.LeaseDuration) * time.Second, answer.Renewable, nil
}

// Revoke ends a lease.
func (ss *Secrets) Revoke(ctx context.Context, l *Lease) error {
	const path = "sys/leases/revoke"
	_, err := ss.vault.Write(ctx, path, map[string]any{"lease_id": l.ID})
	return withPolicy(err, "the login's policies need: path %q { capabilities = [\"update\"] }; until then leases end by themselves", path)
}

// version2 reads the envelope of KV v2. A deleted version comes as an answer
// without pairs.
func version2(r render.Request, path string, m mount, answer *api.Secret) (*render.Secret, error) {
	meta, _ := answer.Data["metadata"].(map[string]any)
	number, _ := meta["version"].(json.Number)
	version, err := number.Int64()
	if err != nil || version < 1 {
		return nil, fmt.Errorf("secret %q: the answer holds no version; is it a secret?", path)
	}
	if _, there := answer.Data["data"].(map[string]any); !there {
		how, undo := "deleted", fmt.Sprintf("; \"vault kv undelete -versions=%d %s\" brings it back", version, Unescaped(m.logical(path)))
		if destroyed, _ := meta["destroyed"].(bool); destroyed {
			how, undo = "destroyed", ""
		}
		return nil, fmt.Errorf("secret %q: %w: version %d was %s%s", path, ErrMissing, version, how, undo)
	}
	created, _ := meta["created_time"].(string)
	return &render.Secret{
		Path: r.Path, RequestID: answer.RequestID, Warnings: answer.Warnings,
		Version: int(version), Created: created, Data: secret.Of(answer.Data),
	}, nil
}

// missing says that nothing is at a path, or what is below it, where the login
// may list that, once Vault has said that the engine is the one that the path was made
// for. Of a secret that is known to be missing it asks for the engine now and then
// only: many tenants lack many secrets for long.
func (ss *Secrets) missing(ctx context.Context, r render.Request, path string, m mount) error {
	ss.mu.Lock()
	known := ss.absent[r.Path]
	ss.mu.Unlock()
	since := time.Now()
	if known != nil {
		since = since.Add(-recheck)
	}
	switch err := ss.mounts.confirm(ctx, path, m, since); {
	case errors.Is(err, errRemounted):
		return remounted(path)
	case err != nil:
		return fmt.Errorf("reading %s: nothing is there, but what it was on may be gone: %w", path, err)
	case known != nil:
		return known
	}
	err := ss.explainMissing(ctx, r, path, m)
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if len(ss.absent) >= mostAbsent { // Of tenants that came and went.
		clear(ss.absent)
	}
	if ctx.Err() == nil {
		ss.absent[r.Path] = err
	}
	return err
}

// found forgets that a secret was missing.
func (ss *Secrets) found(path string) {
	ss.mu.Lock()
	delete(ss.absent, path)
	ss.mu.Unlock()
}

func (ss *Secrets) explainMissing(ctx context.Context, r render.Request, path string, m mount) error {
	if !m.isKV() {
		return fmt.Errorf("%q: %w; the %s engine has answered nothing", path, ErrMissing, m.kind)
	}
	logical := Unescaped(m.logical(path))
	if newest := ss.newest(ctx, r, path, m); newest > 0 {
		return fmt.Errorf("secret %q: %w: the newest version is %d; \"vault kv metadata get %s\" lists them", r.Path, ErrMissing, newest, logical)
	}
	if inside := ss.list(ctx, path, m); len(inside) > 0 {
		return fmt.Errorf("secret %q: %w: it is a folder; name a secret in it, such as %s", path, ErrMissing, logical+"/"+inside[0])
	}
	return fmt.Errorf("secret %q: %w; write one with \"vault kv put %s\"", path, ErrMissing, logical)
}

// newest is the newest version of a secret of which another one was asked for, or 0.
func (ss *Secrets) newest(ctx context.Context, r render.Request, path string, m mount) int64 {
	if !m.hasEnvelope(path) || path == r.Path {
		return 0
	}
	answer, err := ss.vault.Read(ctx, Unescaped(path), nil)
	if err != nil || answer.Secret == nil || !isVersioned(answer.Data) {
		return 0
	}
	newest, _ := answer.Data["metadata"].(map[string]any)["version"].(json.Number).Int64()
	return newest
}

func (ss *Secrets) list(ctx context.Context, path string, m mount) []string {
	if m.isKV2() {
		path = m.path + "metadata/" + strings.TrimPrefix(m.logical(path), m.path)
	}
	answer, err := ss.vault.List(ctx, Unescaped(path))
	if err != nil || answer.Secret == nil {
		return nil
	}
	keys, _ := answer.Data["keys"].([]any)
	var names []string
	for _, key := range keys {
		if name, ok := key.(string); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
