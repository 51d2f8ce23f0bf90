package devvault

import (
	"maps"
	"slices"

	jwtauth "github.com/hashicorp/vault-plugin-auth-jwt"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/builtin/credential/cert"
	"github.com/hashicorp/vault/builtin/credential/userpass"
	"github.com/hashicorp/vault/builtin/logical/database"
	"github.com/hashicorp/vault/builtin/logical/pki"
	"github.com/hashicorp/vault/builtin/logical/transit"
	"github.com/hashicorp/vault/plugins/database/postgresql"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// registry is Vault's plugin catalogue cut down to what deaddrop is tried
// with. Vault's own catalogue links the client library of every cloud.
type registry map[consts.PluginType]map[string]func() (any, error)

func builtins() registry {
	return registry{
		consts.PluginTypeSecrets: {
			"kv":       backend(kv.Factory),
			"database": backend(database.Factory),
			"pki":      backend(pki.Factory),
			"transit":  backend(transit.Factory),
		},
		consts.PluginTypeCredential: {
			"approle":  backend(approle.Factory),
			"cert":     backend(cert.Factory),
			"jwt":      backend(jwtauth.Factory),
			"userpass": backend(userpass.Factory),
		},
		consts.PluginTypeDatabase: {
			"postgresql-database-plugin": postgresql.New,
		},
	}
}

func backend(f logical.Factory) func() (any, error) {
	return func() (any, error) { return f, nil }
}

// factories are the backends of one type, as Vault's core wants them.
func (r registry) factories(t consts.PluginType) map[string]logical.Factory {
	all := map[string]logical.Factory{}
	for name, get := range r[t] {
		if f, err := get(); err == nil {
			all[name] = f.(logical.Factory)
		}
	}
	return all
}

// Contains implements plugincatalog.BuiltinRegistry, as do the methods below.
func (r registry) Contains(name string, t consts.PluginType) bool {
	return r[t][name] != nil
}

func (r registry) Get(name string, t consts.PluginType) (func() (any, error), bool) {
	get, ok := r[t][name]
	return get, ok
}

func (r registry) Keys(t consts.PluginType) []string {
	return slices.Sorted(maps.Keys(r[t]))
}

func (r registry) DeprecationStatus(name string, t consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, r.Contains(name, t)
}

func (r registry) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }
