package backup

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/archive"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/vault"
)

// writer writes one secret over and over, and knows what it wrote: the content
// names the generation and the number. Now and then it deletes or destroys a
// version, or all of them and begins anew.
type writer struct {
	c      *api.Client
	path   string
	writes *atomic.Int64
}

func (w *writer) run(ctx context.Context) error {
	for generation := 0; ctx.Err() == nil; generation++ {
		for n := 1; n <= 40 && ctx.Err() == nil; n++ {
			if _, err := w.c.Logical().Write("secret/data/"+w.path, map[string]any{
				"data": map[string]any{"generation": generation, "number": n}, "options": map[string]any{"cas": n - 1},
			}); err != nil {
				return err
			}
			w.writes.Add(1)
			if err := w.spoil(n); err != nil {
				return err
			}
		}
		if _, err := w.c.Logical().Delete("secret/metadata/" + w.path); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) spoil(n int) error {
	what := map[int]string{3: "delete", 6: "destroy"}[n%7]
	if what == "" {
		return nil
	}
	_, err := w.c.Logical().Write("secret/"+what+"/"+w.path, map[string]any{"versions": []int{n - 1, n}})
	return err
}

func TestEveryVersionIsTheOneThatWasWrittenUnderItsNumber(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.write("secret/config", map[string]any{"max_versions": 4})
	for n := range 50 { // These make the backup take a while.
		p.puts(at("quiet", strconv.Itoa(n)), 1, 2)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var writes atomic.Int64
	var wg sync.WaitGroup
	for n := range 6 {
		w := &writer{p.s.Client, at("busy", strconv.Itoa(n)), &writes}
		wg.Go(func() { assert.NoError(t, w.run(ctx)) })
	}
	seen := 0
	for range 15 {
		before := writes.Load()
		file := p.backup(ReadOptions{})
		assert.Greater(t, writes.Load(), before, "nobody wrote meanwhile")
		secrets := secretsOf(t, file)
		for n := range 50 {
			assert.Len(t, secrets[at("quiet", strconv.Itoa(n))].Versions, 2)
		}
		for n := range 6 {
			if s := secrets[at("busy", strconv.Itoa(n))]; s != nil {
				seen += checkBusy(t, s)
			}
		}
	}
	stop()
	wg.Wait()
	assert.Greater(t, seen, 50, "versions with content")
}

// checkBusy looks whether a secret is what its writer made at one time.
func checkBusy(t *testing.T, s *archive.Secret) (seen int) {
	t.Helper()
	generation := -1
	for _, v := range s.Versions {
		if v.Data == nil {
			assert.True(t, v.Destroyed || v.Deleted != "", "%s: version %d has no content and was not deleted", s.Path, v.Number)
			continue
		}
		var got struct{ Generation, Number int }
		require.NoError(t, json.Unmarshal(v.Data, &got))
		assert.Equal(t, v.Number, got.Number, s.Path)
		if generation >= 0 {
			assert.Equal(t, generation, got.Generation, "%s is of two times", s.Path)
		}
		generation = got.Generation
		seen++
	}
	return seen
}

// What others do between the look at a secret's metadata and that at its versions.
func TestWhatGoesWhileASecretIsReadIsNotTakenForThere(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	for name, test := range map[string]struct {
		do   func(path string)
		want map[int]string // the content, or the state
	}{
		"destroyed": {func(path string) { p.write("secret/destroy/"+path, map[string]any{"versions": []int{2}}) }, map[int]string{1: "1", 2: "destroyed", 3: "3"}},
		"deleted":   {func(path string) { p.write("secret/delete/"+path, map[string]any{"versions": []int{3}}) }, map[int]string{1: "1", 2: "2", 3: "deleted"}},
		"pushed out": {func(path string) {
			p.write("secret/metadata/"+path, map[string]any{"max_versions": 11})
			p.puts(path, 4, 13)
		}, map[int]string{3: "3"}},
		"newer": {func(path string) { p.puts(path, 4, 5) }, map[int]string{1: "1", 2: "2", 3: "3"}},
		"gone":  {func(path string) { p.deleteAll(path) }, nil},
		"made anew": {func(path string) {
			p.deleteAll(path)
			p.puts(path, 1, 1)
			p.put(path, map[string]any{"v": path + "-other"})
		}, map[int]string{1: "1", 2: "other"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := at("demo", name)
			p.puts(path, 1, 3)
			v := p.meddled(&meddle{method: http.MethodGet, suffix: "/metadata/" + path, after: func() { test.do(path) }})
			s, err := (&reader{v: v}).secret(t.Context(), path)
			require.NoError(t, err)
			var got map[int]string
			if s != nil {
				got = map[int]string{}
				for _, v := range s.Versions {
					got[v.Number] = stateOf(t, path, v)
				}
			}
			assert.Equal(t, test.want, got)
		})
	}
}

func stateOf(t *testing.T, path string, v archive.Version) string {
	t.Helper()
	switch {
	case v.Destroyed:
		return "destroyed"
	case v.Data == nil && v.Deleted != "":
		return "deleted"
	}
	var data map[string]string
	require.NoError(t, json.Unmarshal(v.Data, &data))
	return data["v"][len(path)+1:]
}

func (p *place) deleteAll(path string) {
	p.t.Helper()
	_, err := p.s.Client.Logical().Delete("secret/metadata/" + path)
	require.NoError(p.t, err)
}

func TestASecretThatIsMadeAnewEachTimeEndsInAnError(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	path := at("demo", "nexa")
	p.puts(path, 1, 1)
	v := p.meddled(&meddle{method: http.MethodGet, suffix: "/data/" + path, before: func() error {
		p.deleteAll(path)
		p.puts(path, 1, 1)
		return nil
	}})
	_, err := (&reader{v: v}).secret(t.Context(), path)
	require.ErrorIs(t, err, vault.ErrConflict)
}

func TestWhatIsDeniedMakesNoBackup(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.enable("approle", "approle")
	p.tenantLogin("demo", "nexa")
	for n := range 30 {
		p.puts(at("demo", strconv.Itoa(n)), 1, 1)
	}
	for _, path := range []string{
		"secret/metadata/tenant/", "secret/metadata/tenant/demo/", "secret/metadata/tenant/demo/7", "secret/data/tenant/demo/7", "secret/config", "sys/policies/acl", "sys/policies/acl/tenant-policy",
		"sys/auth", "auth/approle/role", "auth/approle/role/demo-nexa", "auth/approle/role/demo-nexa/role-id", "identity/entity/id",
	} {
		t.Run(path, func(t *testing.T) {
			p.write("sys/policies/acl/most", map[string]any{"policy": fmt.Sprintf(`path "*" { capabilities = ["read", "list", "sudo"] }
path %q { capabilities = ["deny"] }`, path)})
			token := must(t)(p.s.Client.Logical().Write("auth/token/create", map[string]any{"policies": []string{"most"}})).Auth.ClientToken
			denied := &place{t, vault.New(p.as(token)), p.s}
			_, err := denied.tryBackup(ReadOptions{})
			require.ErrorIs(t, err, session.ErrDenied)
			assert.ErrorContains(t, err, path[:len(path)-1])
		})
	}
}
