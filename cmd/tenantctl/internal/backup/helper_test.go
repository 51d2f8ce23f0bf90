package backup

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/tenant"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/archive"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/vault"
	"github.com/smarteros/deaddrop/compose/policies"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// place is a Vault of a test's own, and what it can do with it.
type place struct {
	t testing.TB
	v *vault.Client
	s *vaulttest.Server
}

func newPlace(t testing.TB) *place {
	t.Helper()
	s := vaulttest.Own(t)
	return &place{t, vault.New(s.Client), s}
}

func (p *place) write(path string, data map[string]any) map[string]any {
	p.t.Helper()
	answer, err := p.s.Client.Logical().Write(path, data)
	require.NoError(p.t, err, path)
	if answer == nil {
		return nil
	}
	return answer.Data
}

// put writes a version of a secret, whose path is below secret/.
func (p *place) put(path string, data map[string]any) {
	p.t.Helper()
	p.write("secret/data/"+path, map[string]any{"data": data})
}

// puts writes versions with the content {"v": "PATH-NUMBER"}.
func (p *place) puts(path string, from, to int) {
	p.t.Helper()
	for n := from; n <= to; n++ {
		p.put(path, map[string]any{"v": content(path, n)})
	}
}

func content(path string, n int) string { return path + "-" + strconv.Itoa(n) }

// get reads a version, 0 for the newest; nil if it is not there.
func (p *place) get(path string, version int) map[string]any {
	p.t.Helper()
	answer, err := p.s.Client.Logical().ReadWithData("secret/data/"+path, map[string][]string{"version": {strconv.Itoa(version)}})
	require.NoError(p.t, err)
	if answer == nil {
		return nil
	}
	data, _ := answer.Data["data"].(map[string]any)
	return data
}

func (p *place) meta(path string) *metadata {
	p.t.Helper()
	m, err := readMetadata(context.Background(), p.v, path)
	require.NoError(p.t, err)
	return m
}

// live are the numbers of the versions that can be read, with their content.
func (p *place) live(path string) map[int]any {
	p.t.Helper()
	all := map[int]any{}
	if m := p.meta(path); m != nil {
		for _, n := range m.numbers() {
			if data := p.get(path, n); data != nil {
				all[n] = data["v"]
			}
		}
	}
	return all
}

func (p *place) enable(path, kind string) {
	p.t.Helper()
	p.write("sys/auth/"+path, map[string]any{"type": kind})
}

// accessor is that of a login.
func (p *place) accessor(path string) string {
	p.t.Helper()
	m, err := readMounts(context.Background(), p.v)
	require.NoError(p.t, err)
	return m.byPath[path].Accessor
}

// tenantLogin makes a role for a tenant, with an entity and an alias, as the
// platform has them, and returns the role id.
func (p *place) tenantLogin(id, service string) string {
	p.t.Helper()
	p.write("sys/policies/acl/"+policies.Tenant, map[string]any{"policy": policies.Read(policies.Tenant)})
	name := id + "-" + service
	role := "auth/approle/role/" + name
	p.write(role, map[string]any{"token_policies": policies.Tenant, "token_ttl": "1h", "token_max_ttl": "24h", "token_no_default_policy": true})
	answer, err := p.s.Client.Logical().Read(role + "/role-id")
	require.NoError(p.t, err)
	roleID := answer.Data["role_id"].(string)
	entity := p.write("identity/entity", map[string]any{"name": name, "metadata": map[string]string{vault.TenantKey: id}})
	p.write("identity/entity-alias", map[string]any{
		"name": roleID, "canonical_id": entity["id"], "mount_accessor": p.accessor("approle"), "custom_metadata": map[string]string{"service": service},
	})
	return roleID
}

// backup reads everything into a plain archive.
func (p *place) backup(o ReadOptions) []byte {
	p.t.Helper()
	file, err := p.tryBackup(o)
	require.NoError(p.t, err)
	return file
}

func (p *place) tryBackup(o ReadOptions) ([]byte, error) {
	ctx := context.Background()
	head, err := Head(ctx, p.v, o)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w, err := archive.NewWriter(&out, head)
	if err != nil {
		return nil, err
	}
	if err := Read(ctx, p.v, o, w.Write); err != nil {
		return nil, err
	}
	err = w.Close()
	return out.Bytes(), err
}

// restore puts a plain archive back, and returns what was done with what, by
// "kind name", without what was unchanged.
func (p *place) restore(file []byte, o RestoreOptions, tenants ...string) map[string]string {
	p.t.Helper()
	did, err := p.tryRestore(file, o, tenants...)
	require.NoError(p.t, err)
	return did
}

func (p *place) tryRestore(file []byte, o RestoreOptions, tenants ...string) (map[string]string, error) {
	source, err := archive.NewSource(bytes.NewReader(file))
	if err != nil {
		return nil, err
	}
	o.Part = NewPart(tenants)
	if _, _, err := source.Verify(o.Part.See); err != nil {
		return nil, err
	}
	r, err := source.Open()
	if err != nil {
		return nil, err
	}
	if o.MaxPlaceholders == 0 {
		o.MaxPlaceholders = 1000
	}
	did := map[string]string{}
	err = Restore(context.Background(), p.v, r, o, func(a Action) {
		if a.Do != Unchanged {
			did[a.Kind+" "+a.Name] = a.Do + ": " + a.Why
		}
	})
	return did, err
}

// secretsOf are the secrets of a plain archive by their paths.
func secretsOf(t testing.TB, file []byte) map[string]*archive.Secret {
	t.Helper()
	all := map[string]*archive.Secret{}
	for _, r := range recordsOf(t, file) {
		if r.Secret != nil {
			all[r.Secret.Path] = r.Secret
		}
	}
	return all
}

func recordsOf(t testing.TB, file []byte) []archive.Record {
	t.Helper()
	source, err := archive.NewSource(bytes.NewReader(file))
	require.NoError(t, err)
	var all []archive.Record
	_, _, err = source.Verify(func(r archive.Record) { all = append(all, r) })
	require.NoError(t, err)
	return all
}

func at(id, service string) string { return fmt.Sprintf("%s/%s/%s", tenant.Folder, id, service) }

// login logs in with a role id and a new secret id.
func (p *place) login(roleID, role string) *api.Client {
	p.t.Helper()
	secret := p.write("auth/approle/role/"+role+"/secret-id", nil)
	answer := must(p.t)(p.s.Client.Logical().Write("auth/approle/login", map[string]any{"role_id": roleID, "secret_id": secret["secret_id"]}))
	return p.as(answer.Auth.ClientToken)
}

// as is a client with another token.
func (p *place) as(token string) *api.Client {
	p.t.Helper()
	c, err := p.s.Client.Clone()
	require.NoError(p.t, err)
	c.SetToken(token)
	return c
}

func must(t testing.TB) func(*api.Secret, error) *api.Secret {
	return func(s *api.Secret, err error) *api.Secret {
		t.Helper()
		require.NoError(t, err)
		return s
	}
}

// meddled is a client of the same Vault that lets a test do something right after
// the first answer to (after), or before the first request for (before), what it
// asks for.
func (p *place) meddled(meddle *meddle) *vault.Client {
	p.t.Helper()
	cfg := api.DefaultConfig()
	cfg.Address = p.s.Address
	cfg.MaxRetries = 0
	meddle.next = cfg.HttpClient.Transport
	cfg.HttpClient.Transport = meddle
	c, err := api.NewClient(cfg)
	require.NoError(p.t, err)
	require.NoError(p.t, c.SetAddress(p.s.Address))
	c.SetToken(p.s.RootToken)
	return vault.New(c)
}

type meddle struct {
	method string
	suffix string // of the path
	before func() error
	after  func()

	next http.RoundTripper
	once sync.Once
}

func (m *meddle) RoundTrip(r *http.Request) (answer *http.Response, err error) {
	if r.Method != m.method || !strings.HasSuffix(r.URL.Path, m.suffix) {
		return m.next.RoundTrip(r)
	}
	if m.before != nil {
		if err := m.before(); err != nil {
			return nil, err
		}
	}
	answer, err = m.next.RoundTrip(r)
	if m.after != nil {
		m.once.Do(m.after)
	}
	return answer, err
}
