package watch

import "context"

// Engine is a secrets engine.
type Engine struct {
	// Path is where it is mounted; it ends in a slash.
	Path string
	// Kind is Vault's word for it, such as "kv", "database" or "pki".
	Kind string
	// KV is the version of a KV engine, 0 for another one.
	KV int
}

// Engine asks Vault which engine a path of the API is on, once for each engine.
func (ss *Secrets) Engine(ctx context.Context, path string) (Engine, error) {
	m, err := ss.mounts.of(ctx, path)
	if err == nil {
		err = m.denied
	}
	if err != nil {
		return Engine{}, err
	}
	e := Engine{Path: m.path, Kind: m.kind}
	switch {
	case m.isKV2():
		e.KV = 2
	case m.isKV():
		e.KV = 1
	}
	return e, nil
}
