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

	"github.com/hashicorp/vault/api"

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
}

// Secrets reads secrets of all engines. KV is found by logical path
// (secret/tenant/demo/nexa) or API path (secret/data/tenant/demo/nexa).
type Secrets struct {
	vault Vault

	mu     sync.Mutex
	mounts []mount
	absent map[string]error // what was found out of secrets that are not there
}

// mostAbsent is how many secrets are remembered that are not there.
const mostAbsent = 20_000

// mount is an engine that is mounted at path, which ends in a slash.
type mount struct {
	path    string
	kind    string // of the engine
	version string // of KV
}

func (m mount) isKV() bool { return m.kind == "kv" || m.kind == "generic" }

func (m mount) isKV2() bool { return m.kind == "kv" && m.version == "2" }

// NewSecrets returns a reader that knows no mounts yet.
func NewSecrets(vault Vault) *Secrets {
	return &Secrets{vault: vault, absent: map[string]error{}}
}

// Resolve returns the request with the API path of the secret. It asks Vault for
// the mount that the path is on, once for each mount.
func (ss *Secrets) Resolve(ctx context.Context, r render.Request) (render.Request, error) {
	path, query, _ := strings.Cut(strings.Trim(r.Path, "/"), "?")
	if r.Lists() {
		return ss.resolveList(ctx, r, path)
	}
	m, err := ss.mountOf(ctx, path)
	if err != nil {
		return r, err
	}
	rest := strings.TrimPrefix(path, m.path)
	switch {
	case m.isKV2() && strings.HasPrefix(rest, "metadata/"):
		return r, fmt.Errorf("secret %q: reading metadata: %w; name the secret itself, %s", path, ErrUnsupported, m.path+strings.TrimPrefix(rest, "metadata/"))
	case m.isKV2() && !strings.HasPrefix(rest, "data/"):
		path = m.path + "data/" + rest
	}
	if query != "" {
		path += "?" + query
	}
	return r.At(path), nil
}

// resolveList returns the API path of a folder, which of KV v2 lists metadata,
// however the folder is spelled.
func (ss *Secrets) resolveList(ctx context.Context, r render.Request, path string) (render.Request, error) {
	m, err := ss.mountOf(ctx, path+"/")
	if err != nil || !m.isKV2() {
		return r.At(path), err
	}
	folder := strings.TrimPrefix(path+"/", m.path)
	for _, api := range []string{"metadata/", "data/"} {
		if rest, is := strings.CutPrefix(folder, api); is {
			folder = rest
			break
		}
	}
	return r.At(strings.Trim(m.path+"metadata/"+folder, "/")), nil
}

// Read asks what [Secrets.Resolve] returned.
func (ss *Secrets) Read(ctx context.Context, r render.Request) (*render.Secret, Life, error) {
	if r.Lists() {
		s, err := ss.readList(ctx, r)
		return s, Life{}, err
	}
	path, rawQuery, _ := strings.Cut(r.Path, "?")
	m, err := ss.mountOf(ctx, path)
	if err != nil {
		return nil, Life{}, err
	}
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return nil, Life{}, fmt.Errorf("secret %q: what follows the ? is not of the form name=value: %w", path, ErrUnsupported)
	}
	answer, err := ss.ask(ctx, r, path, m, query)
	switch {
	case err != nil:
		return nil, Life{}, err
	case m.isKV2():
		s, err := ss.version2(ctx, r, path, m, answer.Secret)
		return s, Life{}, err
	case answer.Secret == nil || answer.Data == nil:
		return nil, Life{}, ss.missing(ctx, path, m)
	}
	s := &render.Secret{
		Path: r.Path, LeaseID: answer.LeaseID, LeaseDuration: answer.LeaseDuration, Renewable: answer.Renewable,
		Data: secret.Of(answer.Data),
	}
	return s, ss.life(r, s, m, answer), nil
}

// readList lists a folder. One that is not there is like an empty one to Vault; one
// whose engine is gone is not: drops that follow tenants would lose their files.
func (ss *Secrets) readList(ctx context.Context, r render.Request) (*render.Secret, error) {
	answer, err := ss.vault.List(ctx, r.Path)
	if err != nil {
		return nil, withPolicy(err, "the login's policies need: path %q { capabilities = [\"list\"] }", r.Path+"/")
	}
	data := map[string]any{"keys": []any{}}
	if answer.Secret != nil && answer.Data["keys"] != nil {
		data["keys"] = answer.Data["keys"]
	} else if err := ss.stillMounted(ctx, r.Path); err != nil {
		return nil, err
	}
	return &render.Secret{Path: r.Path, Data: secret.Of(data)}, nil
}

// stillMounted asks anew for the engine that a path is on.
func (ss *Secrets) stillMounted(ctx context.Context, path string) error {
	if _, err := ss.askMount(ctx, path+"/"); err != nil {
		return fmt.Errorf("listing %s: it is empty, and what it was on may be gone: %w", path, err)
	}
	return nil
}

func (ss *Secrets) ask(ctx context.Context, r render.Request, path string, m mount, query url.Values) (session.Answer, error) {
	if !r.Writes() {
		hint := "the login's policies need: path %q { capabilities = [\"read\"] }"
		if m.isKV() {
			hint += ", unless it is a folder: then name a secret in it"
		}
		answer, err := ss.vault.Read(ctx, path, query)
		return answer, withPolicy(err, hint, path)
	}
	answer, err := ss.vault.Write(ctx, path, r.Params())
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
func (ss *Secrets) version2(ctx context.Context, r render.Request, path string, m mount, answer *api.Secret) (*render.Secret, error) {
	if answer == nil || answer.Data == nil {
		return nil, ss.missing(ctx, path, m)
	}
	meta, _ := answer.Data["metadata"].(map[string]any)
	number, _ := meta["version"].(json.Number)
	version, err := number.Int64()
	if err != nil || version < 1 {
		return nil, fmt.Errorf("secret %q: the answer holds no version; is it a secret?", path)
	}
	if _, there := answer.Data["data"].(map[string]any); !there {
		how, undo := "deleted", fmt.Sprintf("; \"vault kv undelete -versions=%d %s\" brings it back", version, m.logical(path))
		if destroyed, _ := meta["destroyed"].(bool); destroyed {
			how, undo = "destroyed", ""
		}
		return nil, fmt.Errorf("secret %q: %w: version %d was %s%s", path, ErrMissing, version, how, undo)
	}
	created, _ := meta["created_time"].(string)
	return &render.Secret{Path: r.Path, Version: int(version), Created: created, Data: secret.Of(answer.Data)}, nil
}

// missing says that nothing is at a path, or what is below it, where the login
// may list that. It looks once: many tenants lack many secrets for long.
func (ss *Secrets) missing(ctx context.Context, path string, m mount) error {
	ss.mu.Lock()
	err := ss.absent[path]
	ss.mu.Unlock()
	if err == nil {
		err = ss.explainMissing(ctx, path, m)
		ss.mu.Lock()
		if len(ss.absent) >= mostAbsent { // Of tenants that came and went.
			clear(ss.absent)
		}
		if ctx.Err() == nil {
			ss.absent[path] = err
		}
		ss.mu.Unlock()
	}
	return err
}

func (ss *Secrets) explainMissing(ctx context.Context, path string, m mount) error {
	if !m.isKV() {
		return fmt.Errorf("%q: %w; the %s engine has answered nothing", path, ErrMissing, m.kind)
	}
	logical := m.logical(path)
	if inside := ss.list(ctx, path, m); len(inside) > 0 {
		return fmt.Errorf("secret %q: %w: it is a folder; name a secret in it, such as %s", path, ErrMissing, logical+"/"+inside[0])
	}
	return fmt.Errorf("secret %q: %w; write one with \"vault kv put %s\"", path, ErrMissing, logical)
}

func (ss *Secrets) list(ctx context.Context, path string, m mount) []string {
	if m.isKV2() {
		path = m.path + "metadata/" + strings.TrimPrefix(m.logical(path), m.path)
	}
	answer, err := ss.vault.List(ctx, path)
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

func (m mount) logical(path string) string {
	if !m.isKV2() {
		return path
	}
	return m.path + strings.TrimPrefix(strings.TrimPrefix(path, m.path), "data/")
}

// mountOf holds the lock while it asks Vault, so that a thousand secrets which
// start together ask once. Mounts never lie within each other.
func (ss *Secrets) mountOf(ctx context.Context, path string) (mount, error) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for _, m := range ss.mounts {
		if strings.HasPrefix(path, m.path) {
			return m, nil
		}
	}
	m, err := ss.askMount(ctx, path)
	if err == nil {
		ss.mounts = append(ss.mounts, m)
	}
	return m, err
}

// askMount asks Vault for the engine that a path is on.
func (ss *Secrets) askMount(ctx context.Context, path string) (mount, error) {
	answer, err := ss.vault.Read(ctx, "sys/internal/ui/mounts/"+path, nil)
	if err != nil {
		return mount{}, withPolicy(err, "nothing is mounted at %q, or no policy of this login covers anything there", path)
	}
	return parseMount(path, answer.Secret)
}

func parseMount(path string, answer *api.Secret) (mount, error) {
	if answer == nil {
		return mount{}, fmt.Errorf("secret %q: %w: nothing is mounted there", path, ErrMissing)
	}
	at, _ := answer.Data["path"].(string)
	kind, _ := answer.Data["type"].(string)
	options, _ := answer.Data["options"].(map[string]any)
	version, _ := options["version"].(string)
	if at == "" || !strings.HasPrefix(path, at) {
		return mount{}, fmt.Errorf("secret %q: Vault does not tell what is mounted there", path)
	}
	return mount{path: at, kind: kind, version: version}, nil
}

// denied adds to a denial what a policy would have to say.
type denied struct {
	err  error
	hint string
}

func (e *denied) Error() string { return e.err.Error() + "; " + e.hint }
func (e *denied) Unwrap() error { return e.err }

func withPolicy(err error, format string, args ...any) error {
	if errors.Is(err, session.ErrDenied) && !session.IsInvalidToken(err) {
		return &denied{err, fmt.Sprintf(format, args...)}
	}
	return err
}
