package watch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

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

// Vault is what this package needs of a session: read a path of the API. The
// answer is nil where nothing is there.
type Vault interface {
	Read(ctx context.Context, path string) (*api.Secret, error)
}

// KV reads secrets of KV engines, of either version, by logical path
// (secret/tenant/demo/nexa) or API path (secret/data/tenant/demo/nexa).
type KV struct {
	vault Vault

	mu     sync.Mutex
	mounts []mount
}

// mount is an engine that is mounted at path, which ends in a slash.
type mount struct {
	path    string
	version string // of KV
}

// NewKV returns a reader that knows no mounts yet.
func NewKV(vault Vault) *KV { return &KV{vault: vault} }

// Resolve returns the API path of a secret. It asks Vault for the mount that
// the path is on, once for each mount.
func (kv *KV) Resolve(ctx context.Context, path string) (string, error) {
	m, err := kv.mountOf(ctx, path)
	if err != nil {
		return "", err
	}
	rest := strings.TrimPrefix(path, m.path)
	switch {
	case m.version != "2" || strings.HasPrefix(rest, "data/"):
		return path, nil
	case strings.HasPrefix(rest, "metadata/"):
		return "", fmt.Errorf("secret %q: reading metadata: %w; name the secret itself, %s", path, ErrUnsupported, m.path+strings.TrimPrefix(rest, "metadata/"))
	}
	return m.path + "data/" + rest, nil
}

// Read reads the secret at an API path that [KV.Resolve] returned.
func (kv *KV) Read(ctx context.Context, path string) (*render.Secret, error) {
	m, err := kv.mountOf(ctx, path)
	if err != nil {
		return nil, err
	}
	answer, err := kv.vault.Read(ctx, path)
	switch {
	case err != nil:
		return nil, withPolicy(err, "the login's policies need: path %q { capabilities = [\"read\"] }", path)
	case answer == nil || answer.Data == nil:
		return nil, fmt.Errorf("secret %q: %w; write one with \"vault kv put %s\"", path, ErrMissing, m.logical(path))
	case m.version != "2":
		return &render.Secret{Path: path, Data: secret.Of(answer.Data)}, nil
	}
	return version2(path, m, answer)
}

// version2 reads the envelope of KV v2. A deleted version comes as an answer
// without pairs.
func version2(path string, m mount, answer *api.Secret) (*render.Secret, error) {
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
	return &render.Secret{Path: path, Version: int(version), Created: created, Data: secret.Of(answer.Data)}, nil
}

func (m mount) logical(path string) string {
	if m.version != "2" {
		return path
	}
	return m.path + strings.TrimPrefix(strings.TrimPrefix(path, m.path), "data/")
}

// mountOf holds the lock while it asks Vault, so that a thousand secrets which
// start together ask once. Mounts never lie within each other.
func (kv *KV) mountOf(ctx context.Context, path string) (mount, error) {
	kv.mu.Lock()
	defer kv.mu.Unlock()
	for _, m := range kv.mounts {
		if strings.HasPrefix(path, m.path) {
			return m, nil
		}
	}
	answer, err := kv.vault.Read(ctx, "sys/internal/ui/mounts/"+path)
	if err != nil {
		return mount{}, withPolicy(err, "nothing is mounted at %q, or no policy of this login covers anything there", path)
	}
	m, err := parseMount(path, answer)
	if err == nil {
		kv.mounts = append(kv.mounts, m)
	}
	return m, err
}

func parseMount(path string, answer *api.Secret) (mount, error) {
	if answer == nil {
		return mount{}, fmt.Errorf("secret %q: %w: nothing is mounted there", path, ErrMissing)
	}
	at, _ := answer.Data["path"].(string)
	kind, _ := answer.Data["type"].(string)
	options, _ := answer.Data["options"].(map[string]any)
	version, _ := options["version"].(string)
	switch {
	case at == "" || !strings.HasPrefix(path, at):
		return mount{}, fmt.Errorf("secret %q: Vault does not tell what is mounted there", path)
	case kind != "kv" && kind != "generic":
		return mount{}, fmt.Errorf("secret %q is on %s, a %q engine: %w; only kv is read so far", path, at, kind, ErrUnsupported)
	}
	return mount{path: at, version: version}, nil
}

// denied adds to a denial what a policy would have to say.
type denied struct {
	err  error
	hint string
}

func (e *denied) Error() string { return e.err.Error() + "; " + e.hint }
func (e *denied) Unwrap() error { return e.err }

func withPolicy(err error, format string, args ...any) error {
	if errors.Is(err, session.ErrDenied) {
		return &denied{err, fmt.Sprintf(format, args...)}
	}
	return err
}
