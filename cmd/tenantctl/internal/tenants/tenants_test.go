package tenants

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/vault"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// race lets others do something before each of the next writes of data.
type race struct {
	http.RoundTripper
	before []func()
	// lose loses the answers of so many writes, which Vault has done.
	lose int
}

func (r *race) RoundTrip(request *http.Request) (*http.Response, error) {
	isWrite := request.Method == http.MethodPut && strings.HasPrefix(request.URL.Path, "/v1/secret/data/")
	if isWrite && len(r.before) > 0 {
		next := r.before[0]
		r.before = r.before[1:]
		next()
	}
	answer, err := r.RoundTripper.RoundTrip(request)
	if isWrite && err == nil && r.lose > 0 {
		r.lose--
		_ = answer.Body.Close()
		return nil, io.ErrUnexpectedEOF
	}
	return answer, err
}

type bench struct {
	*Store
	t     *testing.T
	s     *vaulttest.Server
	id    string
	other *Store // somebody else
	race  *race
}

func newBench(t *testing.T) *bench {
	t.Helper()
	s := vaulttest.Shared(t)
	b := &bench{t: t, s: s, id: "rut-" + strings.ToLower(rand.Text()[:10]), race: &race{}}
	cfg := s.Client.CloneConfig()
	b.race.RoundTripper = cfg.HttpClient.Transport
	cfg.HttpClient = &http.Client{Transport: b.race}
	client, err := api.NewClient(cfg)
	require.NoError(t, err)
	client.SetToken(s.RootToken)
	b.Store, err = Open(t.Context(), vault.New(client))
	require.NoError(t, err)
	b.other, err = Open(t.Context(), vault.New(s.Client))
	require.NoError(t, err)
	return b
}

// set changes the service nexa.
func (b *bench) set(s *Store, c Change) (*Written, error) {
	return s.Change(b.t.Context(), b.id, "nexa", c)
}

func (b *bench) must(s *Store, c Change) *Written {
	b.t.Helper()
	w, err := b.set(s, c)
	require.NoError(b.t, err)
	return w
}

func (b *bench) now() *Secret {
	b.t.Helper()
	secret, err := b.other.Read(b.t.Context(), b.id, "nexa", 0)
	require.NoError(b.t, err)
	return secret
}

type values = map[string]any

func TestAChangeIsMadeOnTopOfWhatOthersWrote(t *testing.T) {
	b := newBench(t)
	b.must(b.other, Change{Set: values{"A": "1", "B": "1"}, Create: true})
	for i := range 3 {
		b.race.before = append(b.race.before, func() { b.must(b.other, Change{Set: values{"THEIRS": fmt.Sprint(i)}}) })
	}
	w := b.must(b.Store, Change{Set: values{"A": "2"}, Unset: []string{"B"}})
	assert.Equal(t, &Written{b.id, "nexa", 5, []string{}, []string{"A"}, []string{"B"}}, w)
	assert.Equal(t, values{"A": "2", "THEIRS": "2"}, b.now().Data)
}

func TestWhatSomebodyElseChangedMeanwhileIsNotOverwritten(t *testing.T) {
	for what, c := range map[string]struct {
		mine   Change
		theirs func(b *bench)
		says   []string
	}{
		"the same key": {
			Change{Set: values{"A": "mine", "C": "mine"}}, func(b *bench) { b.must(b.other, Change{Set: values{"A": "theirs", "D": "theirs"}}) },
			[]string{"changed A of secret/tenant/", "version 2"}},
		"a key that both add": {
			Change{Set: values{"N": "mine"}}, func(b *bench) { b.must(b.other, Change{Set: values{"N": "theirs"}}) }, []string{"changed N of"}},
		"a key that they removed": {
			Change{Set: values{"A": "mine"}}, func(b *bench) { b.must(b.other, Change{Unset: []string{"A"}}) }, []string{"changed A of"}},
		"a key that I remove": {
			Change{Unset: []string{"A"}}, func(b *bench) { b.must(b.other, Change{Set: values{"A": "theirs"}}) }, []string{"changed A of"}},
		"all keys": {
			Change{Set: values{"A": "mine"}, Replace: true}, func(b *bench) { b.must(b.other, Change{Set: values{"D": "theirs"}}) }, []string{"version 2", "nothing was written"}},
		"a version that I insist on": {
			Change{Set: values{"A": "mine"}, CAS: new(1)}, func(b *bench) { b.must(b.other, Change{Set: values{"D": "theirs"}}) }, []string{"version 2", "nothing was written"}},
		"a secret that is deleted": {
			Change{Set: values{"A": "mine"}}, func(b *bench) {
				b.must(b.other, Change{Set: values{"D": "theirs"}})
				_, err := b.other.Delete(b.t.Context(), b.id, []string{"nexa"}, Pick{})
				require.NoError(b.t, err)
			}, []string{"version 2", "which is deleted"}},
	} {
		t.Run(what, func(t *testing.T) {
			b := newBench(t)
			marker := vaulttest.Marker()
			b.must(b.other, Change{Set: values{"A": marker}, Create: true})
			b.race.before = []func(){func() { c.theirs(b) }}
			_, err := b.set(b.Store, c.mine)
			require.ErrorIs(t, err, vault.ErrConflict)
			for _, say := range c.says {
				assert.ErrorContains(t, err, say)
			}
			assert.NotContains(t, err.Error(), marker)
			assert.NotContains(t, err.Error(), "theirs")
			assert.Equal(t, 2, b.now().Number)
			assert.NotContains(t, fmt.Sprint(b.now().Data), "mine")
		})
	}
}

func TestTwoWhoMakeTheSameSecretAreTwo(t *testing.T) {
	b := newBench(t)
	b.race.before = []func(){func() { b.must(b.other, Change{Set: values{"A": "x"}, Create: true}) }}
	_, err := b.set(b.Store, Change{Set: values{"A": "x"}, Create: true})
	assert.ErrorIs(t, err, vault.ErrConflict)
}

func TestTwoWhoSetTheSameValueAgree(t *testing.T) {
	b := newBench(t)
	b.must(b.other, Change{Set: values{"A": "1"}, Create: true})
	b.race.before = []func(){func() { b.must(b.other, Change{Set: values{"A": "2"}}) }}
	b.must(b.Store, Change{Set: values{"A": "2"}})
	assert.Equal(t, 2, b.now().Number)
}

func TestAWriteWhoseAnswerIsLostIsNoConflict(t *testing.T) {
	for what, c := range map[string]Change{
		"a key": {Set: values{"A": "2"}}, "all keys": {Set: values{"B": "2"}, Replace: true}, "a version": {Set: values{"A": "2"}, CAS: new(1)},
	} {
		t.Run(what, func(t *testing.T) {
			b := newBench(t)
			b.must(b.other, Change{Set: values{"A": "1"}, Create: true})
			b.race.lose = 1
			w := b.must(b.Store, c)
			assert.Equal(t, 2, w.Version)
			assert.Equal(t, 2, b.now().Number)
		})
	}
}

func TestACheckedVersionMustBeTheLatest(t *testing.T) {
	b := newBench(t)
	b.must(b.Store, Change{Set: values{"A": "1"}, Create: true, CAS: new(0)})
	for _, cas := range []int{0, 2} {
		_, err := b.set(b.Store, Change{Set: values{"A": "2"}, CAS: &cas})
		assert.ErrorIs(t, err, vault.ErrConflict)
		assert.ErrorContains(t, err, "is at version 1 and not at")
	}
	b.must(b.Store, Change{Set: values{"A": "2"}, CAS: new(1)})
}

func TestJSONKeepsItsTypesThroughVault(t *testing.T) {
	b := newBench(t)
	set := values{"N": json.Number("42"), "T": true, "X": nil, "L": []any{json.Number("1"), "2"}, "O": values{"P": json.Number("1.5")}, "S": "42"}
	b.must(b.Store, Change{Set: set, Create: true})
	b.must(b.Store, Change{Set: values{"MORE": "x"}})
	set["MORE"] = "x"
	assert.Equal(t, set, b.now().Data)
	assert.True(t, b.must(b.Store, Change{Set: set}).Unchanged())
}

func TestCustomMetadataStays(t *testing.T) {
	b := newBench(t)
	b.must(b.Store, Change{Set: values{"A": "1"}, Create: true})
	path := at("metadata", b.id, "nexa")
	_, err := b.s.Client.Logical().Write(path, values{"custom_metadata": values{"owner": "me"}, "max_versions": 7})
	require.NoError(t, err)
	b.must(b.Store, Change{Set: values{"A": "2"}})
	_, err = b.Delete(t.Context(), b.id, []string{"nexa"}, Pick{All: true})
	require.NoError(t, err)
	_, err = b.Undelete(t.Context(), b.id, []string{"nexa"}, Pick{All: true})
	require.NoError(t, err)
	_, err = b.Destroy(t.Context(), b.id, []string{"nexa"}, Pick{Numbers: []int{1}})
	require.NoError(t, err)
	meta, err := b.s.Client.Logical().Read(path)
	require.NoError(t, err)
	assert.Equal(t, values{"owner": "me"}, meta.Data["custom_metadata"])
	assert.Equal(t, json.Number("7"), meta.Data["max_versions"])
}

func TestAVersionThatIsWrittenMeanwhileIsNotDeleted(t *testing.T) {
	b := newBench(t)
	b.must(b.Store, Change{Set: values{"A": "1"}, Create: true})
	_, err := b.act(t.Context(), "delete", b.id, []string{"nexa"}, Pick{}, func(v Version) (bool, error) {
		b.must(b.other, Change{Set: values{"A": "2"}}) // between the look and the deed
		return true, nil
	})
	require.NoError(t, err)
	assert.Equal(t, Live, b.now().State)
	assert.Equal(t, values{"A": "2"}, b.now().Data)
}

func TestASecretThatIsGoneIsWrittenOnlyAsAWhole(t *testing.T) {
	for _, destroy := range []bool{false, true} {
		b := newBench(t)
		b.must(b.Store, Change{Set: values{"A": "1"}, Create: true})
		end := b.Delete
		if destroy {
			end = b.Destroy
		}
		_, err := end(t.Context(), b.id, []string{"nexa"}, Pick{})
		require.NoError(t, err)
		_, err = b.set(b.Store, Change{Set: values{"B": "1"}})
		assert.ErrorIs(t, err, vault.ErrMissing)
		_, err = b.set(b.Store, Change{Set: values{"B": "1"}, Create: true})
		assert.ErrorIs(t, err, vault.ErrConflict)
		assert.Equal(t, 2, b.must(b.Store, Change{Set: values{"B": "1"}, Replace: true}).Version)
	}
}

func TestASlipInATenantMakesNone(t *testing.T) {
	b := newBench(t)
	_, err := b.set(b.Store, Change{Set: values{"A": "1"}})
	assert.ErrorIs(t, err, vault.ErrMissing)
	assert.ErrorContains(t, err, "there is no tenant "+b.id)
	services, err := b.Services(t.Context(), b.id)
	require.NoError(t, err)
	assert.Empty(t, services)
	b.must(b.Store, Change{Set: values{"A": "1"}, Create: true})
	_, err = b.Change(t.Context(), b.id, "smtp", Change{Set: values{"A": "1"}})
	assert.NoError(t, err, "a service of a tenant that is there is made")
}

func TestSecretsInFoldersOfATenantAreItsToo(t *testing.T) {
	b := newBench(t)
	b.must(b.Store, Change{Set: values{"A": "1"}, Create: true})
	for _, name := range []string{"deep/er/x", "deep/y"} {
		_, err := b.s.Client.KVv2("secret").Put(t.Context(), "tenant/"+b.id+"/"+name, values{"A": "1"})
		require.NoError(t, err)
	}
	services, err := b.Services(t.Context(), b.id)
	require.NoError(t, err)
	assert.Equal(t, []string{"deep/er/x", "deep/y", "nexa"}, services)
	require.NoError(t, b.Remove(t.Context(), b.id, services))
	ids, err := b.IDs(t.Context())
	require.NoError(t, err)
	assert.NotContains(t, ids, b.id)
}

func TestAThousandTenantsAreListed(t *testing.T) {
	s := vaulttest.Own(t)
	b, err := Open(t.Context(), vault.New(s.Client))
	require.NoError(t, err)
	require.NoError(t, vault.Each(t.Context(), 1000, func(ctx context.Context, i int) error {
		_, err := b.Add(ctx, fmt.Sprintf("t-%04d", i))
		return err
	}))
	all, err := b.List(t.Context())
	require.NoError(t, err)
	require.Len(t, all, 1000)
	for i, tn := range all {
		assert.Equal(t, Tenant{fmt.Sprintf("t-%04d", i), []string{"nexa", "shopify", "smtp", "supabase"}}, tn)
	}
}

func TestWhatIsNotVersionTwoIsRefused(t *testing.T) {
	s := vaulttest.Own(t)
	require.NoError(t, s.Client.Sys().Unmount("secret"))
	_, err := Open(t.Context(), vault.New(s.Client))
	require.Error(t, err)
	require.NoError(t, s.Client.Sys().Mount("secret", &api.MountInput{Type: "kv"}))
	_, err = Open(t.Context(), vault.New(s.Client))
	assert.ErrorIs(t, err, vault.ErrMissing)
	assert.ErrorContains(t, err, "vault kv enable-versioning secret/")
	require.NoError(t, s.Client.Sys().Unmount("secret"))
	require.NoError(t, s.Client.Sys().Mount("secret", &api.MountInput{Type: "transit"}))
	_, err = Open(t.Context(), vault.New(s.Client))
	assert.ErrorContains(t, err, `is no KV engine but "transit"`)
}
