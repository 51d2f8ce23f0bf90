package watch

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/render"
)

// kv stands in for a Vault with KV engines, in the words of a real one. It counts what
// it is asked.
type kv struct {
	mu        sync.Mutex
	namespace string // of the client
	engines   []*engineAt
	mounted   int
	lookups   int
	denied    map[string]bool // paths that a policy forbids
	hidden    bool            // look-ups of mounts are denied
}

type engineAt struct {
	path, kind, version, accessor string
	secrets                       map[string]map[string]any // by logical name
	versions                      map[string]int
}

func newKV() *kv { return &kv{denied: map[string]bool{}} }

// mount puts an engine at a path, in place of what overlaps it.
func (v *kv) mount(path, version string, names ...string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.engines = slices.DeleteFunc(v.engines, func(e *engineAt) bool {
		return strings.HasPrefix(e.path, path) || strings.HasPrefix(path, e.path)
	})
	v.mounted++
	e := &engineAt{path: path, kind: "kv", version: version, accessor: fmt.Sprint("kv_", v.mounted), secrets: map[string]map[string]any{}, versions: map[string]int{}}
	for _, name := range names {
		e.secrets[name], e.versions[name] = map[string]any{"k": path + name}, 1
	}
	v.engines = append(v.engines, e)
}

func (v *kv) change(f func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f()
}

func (v *kv) at(path string) *engineAt {
	for _, e := range v.engines {
		if strings.HasPrefix(path, e.path) {
			return e
		}
	}
	return nil
}

func answered(data map[string]any, warnings ...string) session.Answer {
	return session.Answer{Secret: &api.Secret{RequestID: "r", Data: data, Warnings: warnings}}
}

func refused(op string, code int, text string) error {
	return session.Explain(op, "http://vault", &api.ResponseError{StatusCode: code, Errors: []string{text}})
}

func (v *kv) Namespace() string { return v.namespace }

func (v *kv) Read(_ context.Context, path string, query url.Values) (session.Answer, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if of, is := strings.CutPrefix(path, "sys/internal/ui/mounts/"); is {
		v.lookups++
		e := v.at(of)
		if e == nil || v.hidden {
			return session.Answer{}, refused("reading "+path, http.StatusForbidden, "preflight capability check returned 403")
		}
		at := e.path
		if v.namespace != "" {
			at = v.namespace + "/" + at
		}
		return answered(map[string]any{"path": at, "type": e.kind, "accessor": e.accessor, "options": map[string]any{"version": e.version}}), nil
	}
	e := v.at(path)
	switch {
	case v.denied[path]:
		return session.Answer{}, refused("reading "+path, http.StatusForbidden, "permission denied")
	case e == nil:
		return session.Answer{}, refused("reading "+path, http.StatusNotFound, "no handler for route")
	case e.kind != "kv":
		return session.Answer{}, refused("reading "+path, http.StatusNotFound, "unsupported path")
	}
	rest := strings.TrimPrefix(path, e.path)
	if e.version == "1" {
		if data, there := e.secrets[rest]; there {
			return answered(data), nil
		}
		return session.Answer{}, nil
	}
	kind, name, _ := strings.Cut(rest, "/")
	version := json.Number(fmt.Sprint(e.versions[name]))
	switch {
	case kind != "data" && kind != "metadata" && kind != "subkeys":
		return answered(nil, "Invalid path for a versioned K/V secrets engine."), nil
	case e.secrets[name] == nil:
	case kind == "metadata":
		return answered(map[string]any{"current_version": version, "custom_metadata": map[string]any{"owner": "nexa"}}), nil
	case kind == "subkeys":
		return answered(map[string]any{"subkeys": map[string]any{"k": nil}, "metadata": map[string]any{"version": version}}), nil
	case query.Get("version") == "" || query.Get("version") == version.String():
		return answered(map[string]any{"data": e.secrets[name], "metadata": map[string]any{"version": version, "created_time": "2026-01-01T00:00:00Z"}}), nil
	}
	return session.Answer{}, nil
}

func (v *kv) Write(context.Context, string, map[string]any) (session.Answer, error) {
	return session.Answer{}, refused("writing", http.StatusBadRequest, "no")
}

func (v *kv) List(_ context.Context, path string) (session.Answer, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	path += "/"
	e := v.at(path)
	if e == nil {
		return session.Answer{}, refused("listing "+path, http.StatusNotFound, "no handler for route")
	}
	rest := strings.TrimPrefix(path, e.path)
	if e.version == "2" {
		name, isMeta := strings.CutPrefix(rest, "metadata/")
		if !isMeta {
			return answered(nil, "Invalid path for a versioned K/V secrets engine."), nil
		}
		rest = name
	}
	keys := []any{}
	for name := range e.secrets {
		if inside, is := strings.CutPrefix(name, rest); is {
			keys = append(keys, inside)
		}
	}
	if len(keys) == 0 {
		return session.Answer{}, nil
	}
	return answered(map[string]any{"keys": keys}), nil
}

func readPath(t *testing.T, ss *Secrets, path string) (*render.Secret, error) {
	t.Helper()
	r := render.Read(path)
	at, err := ss.Resolve(t.Context(), r)
	require.NoError(t, err)
	s, _, err := ss.Read(t.Context(), at)
	return s, err
}

// changes are what may become of the engine at secret/, which has a and tenant/t.
var mountChanges = map[string]struct {
	from string
	then func(v *kv)
	ends map[string]any // what is read of secret/a in the end, or nil where it is missing
}{
	"v1 converted to v2": {"1", func(v *kv) { v.change(func() { v.engines[0].version = "2" }) }, map[string]any{"k": "secret/a"}},
	"v2 remounted as v1": {"2", func(v *kv) { v.mount("secret/", "1", "a", "tenant/t") }, map[string]any{"k": "secret/a"}},
	"v1 remounted as v2": {"1", func(v *kv) { v.mount("secret/", "2", "a", "tenant/t") }, map[string]any{"k": "secret/a"}},
	"remounted, and filled late": {"2", func(v *kv) {
		v.mount("secret/", "2")
		time.AfterFunc(40*time.Second, func() {
			v.change(func() {
				v.engines[0].secrets["a"], v.engines[0].versions["a"] = map[string]any{"k": "secret/a"}, 1
				v.engines[0].secrets["tenant/t"], v.engines[0].versions["tenant/t"] = map[string]any{"k": "x"}, 1
			})
		})
	}, map[string]any{"k": "secret/a"}},
	"unmounted for an hour": {"2", func(v *kv) {
		v.change(func() { v.engines = nil })
		time.AfterFunc(time.Hour, func() { v.mount("secret/", "2", "a", "tenant/t") })
	}, map[string]any{"k": "secret/a"}},
	"another engine in its place for an hour": {"2", func(v *kv) {
		v.change(func() { v.engines[0].kind, v.engines[0].accessor = "transit", "transit_1" })
		time.AfterFunc(time.Hour, func() { v.mount("secret/", "2", "a", "tenant/t") })
	}, map[string]any{"k": "secret/a"}},
	"remounted, and left empty": {"2", func(v *kv) { v.mount("secret/", "2") }, nil},
}

func TestWatcher_FindsSecretsAgainWhenTheirEngineChanges(t *testing.T) {
	for name, tc := range mountChanges {
		t.Run(name, func(t *testing.T) {
			v := newKV()
			v.mount("secret/", tc.from, "a", "tenant/t")
			// Both spellings are one secret on v2, and two paths on v1.
			paths := []string{"secret/a"}
			if tc.from == "2" {
				paths = append(paths, "secret/data/a")
			}
			watching(t, NewSecrets(v), func(t *testing.T, w *Watcher) {
				wanted := wanted(10*time.Second, paths...)
				list := render.List("secret/tenant")
				wanted.Requests = append(wanted.Requests, list)
				w.Want(t.Context(), wanted)
				known := next(t, w)
				require.Len(t, known, len(paths)+1)
				tc.then(v)
				changed := time.Now()
				for end := time.After(2 * time.Hour); ; {
					var batch Batch
					select {
					case <-end:
						last := known[render.Read("secret/a")]
						if tc.ends == nil {
							assert.ErrorIs(t, last.Err, ErrMissing)
							return
						}
						require.NoError(t, last.Err)
						data := last.Secret.Data.Reveal()
						if last.Secret.Version > 0 {
							data = data["data"].(map[string]any)
						}
						assert.Equal(t, tc.ends, data)
						assert.NoError(t, known[list].Err)
						assert.Len(t, known[list].Secret.Data.Reveal()["keys"], 1)
						return
					case batch = <-w.Batches():
					}
					for request, r := range batch {
						known[request] = r
						if request == render.Read("secret/data/a") {
							continue // Of a key "data/a" nobody knows on v1.
						}
						if time.Since(changed) < filling || tc.ends != nil {
							assert.NotErrorIs(t, r.Err, ErrMissing, "%v after %v", request, time.Since(changed))
							if keys, isList := r.Secret.Data.Reveal()["keys"]; isList && r.Err == nil {
								assert.Len(t, keys, 1, "after %v", time.Since(changed))
							}
						}
						assert.NotNil(t, r.Secret, "what was known stays")
					}
				}
			})
		})
	}
}

func TestWatcher_AsksForMountsAgainWhenRefreshed(t *testing.T) {
	v := newKV()
	v.mount("secret/", "1", "a")
	v.change(func() { v.engines[0].secrets["data/a"] = map[string]any{"k": "of v1"} })
	watching(t, NewSecrets(v), func(t *testing.T, w *Watcher) {
		w.Want(t.Context(), wanted(time.Hour, "secret/a"))
		next(t, w)
		v.mount("secret/", "2", "a")
		begun := time.Now()
		w.Refresh()
		batch := next(t, w)
		assert.Equal(t, 1, batch[render.Read("secret/a")].Secret.Version)
		assert.Less(t, time.Since(begun), 5*time.Second)
	})
}

func TestSecrets_TakesNoEnvelopeForASecretOfV1(t *testing.T) {
	v := newKV()
	v.mount("secret/", "1", "data/a", "a")
	ss := NewSecrets(v)
	s, err := readPath(t, ss, "secret/data/a")
	require.NoError(t, err)
	assert.Equal(t, []string{"k"}, s.Keys())
	v.mount("secret/", "2", "a")
	_, _, err = ss.Read(t.Context(), render.Read("secret/data/a"))
	require.ErrorIs(t, err, errRemounted, "its pairs would be data and metadata")
}

func TestSecrets_AsksForAMountBeforeItCallsASecretMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newKV()
		v.mount("secret/", "2", "a")
		ss := NewSecrets(v)
		_, err := readPath(t, ss, "secret/b")
		require.ErrorIs(t, err, ErrMissing)
		assert.Equal(t, 2, v.lookups, "once to find it, once to make sure")
		for range 50 {
			_, err := readPath(t, ss, "secret/b")
			require.ErrorIs(t, err, ErrMissing)
		}
		assert.Equal(t, 2, v.lookups, "that is known")
		time.Sleep(recheck + time.Second)
		_, err = readPath(t, ss, "secret/b")
		require.ErrorIs(t, err, ErrMissing)
		assert.Equal(t, 3, v.lookups, "but not for ever")

		v.change(func() { v.hidden = true })
		_, err = readPath(t, ss, "secret/c")
		require.Error(t, err)
		assert.NotErrorIs(t, err, ErrMissing, "Vault does not say that the engine is the same")
	})
}

func TestSecrets_ReadsAPathAsWrittenWhereTheLookUpIsDenied(t *testing.T) {
	v := newKV()
	v.namespace, v.hidden = "org", true
	v.mount("team/secret/", "2", "a")
	ss := NewSecrets(v)
	for range 3 {
		s, err := readPath(t, ss, "team/secret/data/a")
		require.NoError(t, err)
		assert.Equal(t, 1, s.Version)
		assert.Equal(t, []string{"k"}, s.Keys())
	}
	assert.Equal(t, 1, v.lookups)
	_, err := readPath(t, ss, "team/secret/data/b")
	require.ErrorIs(t, err, session.ErrDenied)
	assert.NotErrorIs(t, err, ErrMissing)
	assert.ErrorContains(t, err, "nothing is mounted at")

	v.change(func() { v.hidden = false })
	_, err = readPath(t, ss, "team/secret/a")
	require.NoError(t, err, "once a policy allows it, it is looked up")
}

func TestSecrets_ResolvesAgainWhatWasReadAsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newKV()
		v.hidden = true
		v.mount("secret/", "2", "a")
		ss := NewSecrets(v)
		at, err := ss.Resolve(t.Context(), render.Read("secret/a"))
		require.NoError(t, err)
		_, _, err = ss.Read(t.Context(), at)
		require.ErrorIs(t, err, session.ErrDenied)
		v.change(func() { v.hidden = false })
		time.Sleep(recheck + time.Second)
		_, _, err = ss.Read(t.Context(), at)
		require.ErrorIs(t, err, errRemounted, "it is not the path of the API")
	})
}

func TestWatcher_FindsSecretsInTheMountsThatTakeThePlaceOfOne(t *testing.T) {
	v := newKV()
	v.mount("kvx/", "2", "a/one", "b/one")
	watching(t, NewSecrets(v), func(t *testing.T, w *Watcher) {
		w.Want(t.Context(), wanted(10*time.Second, "kvx/a/one", "kvx/b/one"))
		known := next(t, w)
		v.change(func() { v.engines = nil })
		v.mount("kvx/a/", "2", "one")
		v.mount("kvx/b/", "2") // It is filled later.
		changed := time.Now()
		for end := time.After(45 * time.Second); ; {
			select {
			case batch := <-w.Batches():
				for request, r := range batch {
					known[request] = r
					assert.NotErrorIs(t, r.Err, ErrMissing, "after %v", time.Since(changed))
				}
				continue
			case <-end:
			}
			break
		}
		a := known[render.Read("kvx/a/one")]
		require.NoError(t, a.Err)
		assert.Equal(t, "kvx/a/data/one", a.Secret.Path)
	})
}

func TestWatcher_FindsTheChangeThatAnotherLookUpFoundOut(t *testing.T) {
	v := newKV()
	v.mount("team/a/", "2", "x")
	watching(t, NewSecrets(v), func(t *testing.T, w *Watcher) {
		w.Want(t.Context(), wanted(10*time.Second, "team/a/x"))
		next(t, w)
		v.mount("team/", "1", "a/x", "b/y")
		w.Want(t.Context(), wanted(10*time.Second, "team/a/x", "team/b/y"))
		known := Batch{}
		for end := time.After(10 * time.Minute); ; {
			select {
			case batch := <-w.Batches():
				for request, r := range batch {
					known[request] = r
					assert.NotErrorIs(t, r.Err, ErrMissing, "%v", request)
				}
				continue
			case <-end:
			}
			break
		}
		require.NoError(t, known[render.Read("team/a/x")].Err)
		assert.Equal(t, "team/a/x", known[render.Read("team/a/x")].Secret.Path)
		require.NoError(t, known[render.Read("team/b/y")].Err)
	})
}

func TestWatcher_CallsNothingMissingInALongSweep(t *testing.T) {
	v := newKV()
	var names, paths []string
	for i := range 400 {
		names = append(names, fmt.Sprint("s", i))
		paths = append(paths, fmt.Sprint("secret/s", i))
	}
	v.mount("secret/", "2", names...)
	slow := &slowReads{kv: v}
	watching(t, NewSecrets(slow), func(t *testing.T, w *Watcher) {
		w.Want(t.Context(), wanted(10*time.Second, paths...))
		next(t, w)
		slow.pause.Store(int64(5 * time.Second)) // A sweep takes four minutes.
		time.Sleep(time.Minute)
		v.mount("secret/", "1", names...)
		for end := time.After(time.Hour); ; {
			select {
			case batch := <-w.Batches():
				for request, r := range batch {
					require.NotErrorIs(t, r.Err, ErrMissing, "%v", request)
				}
				continue
			case <-end:
			}
			break
		}
	})
}

// slowReads is a Vault whose secrets take a while, but no look-ups: nobody can wait for a
// lock in a bubble.
type slowReads struct {
	*kv
	pause atomic.Int64
}

func (s *slowReads) Read(ctx context.Context, path string, query url.Values) (session.Answer, error) {
	if !strings.HasPrefix(path, "sys/") {
		time.Sleep(time.Duration(s.pause.Load()))
	}
	return s.kv.Read(ctx, path, query)
}

func TestWatcher_FindsAListAgainByItself(t *testing.T) {
	v := newKV()
	v.mount("secret/", "1", "tenant/t")
	watching(t, NewSecrets(v), func(t *testing.T, w *Watcher) {
		list := render.List("secret/tenant")
		w.Want(t.Context(), Wanted{Requests: []render.Request{list}, Interval: 10 * time.Second, Shares: Shares{Lease: 0.9, Cert: 0.6}})
		next(t, w)
		v.change(func() { v.engines[0].version = "2" })
		v.change(func() { v.engines[0].secrets["tenant/u"] = map[string]any{"k": "v"} })
		batch := next(t, w)
		require.NoError(t, batch[list].Err)
		assert.Len(t, batch[list].Secret.Data.Reveal()["keys"], 2)
	})
}

func TestWatcher_IssuesNothingAnewWhenALookUpFails(t *testing.T) {
	e := &engine{life: leased(24*time.Hour, false, nil)}
	failing := &failingResolve{engine: e}
	watching(t, failing, func(t *testing.T, w *Watcher) {
		w.Want(t.Context(), wanted(10*time.Second, "db/creds/app"))
		next(t, w)
		failing.fails.Store(true)
		w.Refresh()
		time.Sleep(time.Minute)
		failing.fails.Store(false)
		time.Sleep(time.Minute)
		issued, _, _ := e.stats()
		assert.Equal(t, 1, issued)
	})
}

// failingResolve is an engine whose mount cannot be looked up for a while.
type failingResolve struct {
	*engine
	fails atomic.Bool
}

func (f *failingResolve) Resolve(ctx context.Context, r render.Request) (render.Request, error) {
	if f.fails.Load() {
		return r, session.NotVault("looking up")
	}
	return f.engine.Resolve(ctx, r)
}

func TestSecrets_TakesNoGatewaysMessageForWhatVaultIssued(t *testing.T) {
	v := newKV()
	v.mount("pki/", "", "x")
	v.engines[0].kind = "pki"
	ss := NewSecrets(&gateway{v})
	for _, r := range []render.Request{write(t, "pki/issue/x"), render.Read("pki/cert/ca")} {
		at, err := ss.Resolve(t.Context(), r)
		require.NoError(t, err)
		_, _, err = ss.Read(t.Context(), at)
		assert.ErrorIs(t, err, session.ErrUnreachable)
	}
}

// gateway answers instead of Vault, but for look-ups.
type gateway struct{ *kv }

func (g *gateway) Write(context.Context, string, map[string]any) (session.Answer, error) {
	return session.Answer{Secret: &api.Secret{Data: map[string]any{"message": "maintenance"}}, Foreign: true}, nil
}

func (g *gateway) Read(ctx context.Context, path string, query url.Values) (session.Answer, error) {
	if strings.HasPrefix(path, "sys/") {
		return g.kv.Read(ctx, path, query)
	}
	return g.Write(ctx, path, nil)
}

func TestWatcher_GoesOnWhileALookUpHangs(t *testing.T) {
	v := newKV()
	v.mount("secret/", "2", "a")
	slow := &hangingLookups{kv: v}
	watching(t, NewSecrets(slow), func(t *testing.T, w *Watcher) {
		w.Want(t.Context(), wanted(time.Second, "secret/a"))
		next(t, w)
		slow.hangs.Store(true)
		for range 3 {
			w.Refresh()
			time.Sleep(time.Second)
			begun := time.Now()
			assert.NotNil(t, w.States(t.Context()))
			assert.Zero(t, time.Since(begun))
		}
		slow.hangs.Store(false)
	})
}

// hangingLookups is a Vault whose look-ups of mounts take a minute.
type hangingLookups struct {
	*kv
	hangs atomic.Bool
}

func (h *hangingLookups) Read(ctx context.Context, path string, query url.Values) (session.Answer, error) {
	if h.hangs.Load() && strings.HasPrefix(path, "sys/internal/") {
		select {
		case <-time.After(time.Minute):
		case <-ctx.Done():
			return session.Answer{}, ctx.Err()
		}
	}
	return h.kv.Read(ctx, path, query)
}

func TestSecrets_TakesTheClientsNamespaceOffTheMount(t *testing.T) {
	for _, namespace := range []string{"org", "org/"} {
		v := newKV()
		v.namespace = namespace
		v.namespace = strings.TrimSuffix(v.namespace, "/")
		v.mount("team/secret/", "2", "a")
		ss := NewSecrets(v)
		s, err := readPath(t, ss, "team/secret/a")
		require.NoError(t, err)
		assert.Equal(t, "team/secret/data/a", s.Path)
		_, err = readPath(t, ss, "team/secret/b")
		require.ErrorIs(t, err, ErrMissing)
	}
}

func TestSecrets_ReadsEveryPathOfKV(t *testing.T) {
	v := newKV()
	v.mount("secret/", "2", "a", "what?now", "data", "metadata")
	ss := NewSecrets(v)
	for path, keys := range map[string][]string{
		"secret/a":                {"k"},
		"secret/data/a":           {"k"},
		"secret/metadata/a":       {"current_version", "custom_metadata"},
		"secret/subkeys/a":        {"metadata", "subkeys"},
		"secret/what%3Fnow":       {"k"},
		"secret/data/a?version=1": {"k"},
		"secret/data":             {"k"}, // A secret of this name.
	} {
		s, err := readPath(t, ss, path)
		require.NoError(t, err, path)
		assert.Equal(t, keys, s.Keys(), path)
		assert.Equal(t, "r", s.RequestID, path)
	}
	for path, want := range map[string]string{
		"secret/a?version=9": `the newest version is 1; "vault kv metadata get secret/a" lists them`,
		"secret/metadata/b":  `write one with "vault kv put secret/b"`,
		"secret/subkeys/b":   `write one with "vault kv put secret/b"`,
		"secret/not%3Fhere":  `write one with "vault kv put secret/not?here"`,
	} {
		_, err := readPath(t, ss, path)
		require.ErrorIs(t, err, ErrMissing, path)
		assert.ErrorContains(t, err, want)
	}
}

func TestFetch_ResolvesAgainWhenTheEngineChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newKV()
		v.mount("secret/", "1", "a")
		ss := NewSecrets(v)
		_, err := readPath(t, ss, "secret/a")
		require.NoError(t, err)
		v.mount("secret/", "2", "a")
		batch := fetchAll(t.Context(), ss, []render.Request{render.Read("secret/a")}, slog.New(slog.DiscardHandler))
		require.NoError(t, batch[render.Read("secret/a")].Err)
	})
}

func TestSecrets_LooksUpAMountOnceForManyMissingSecrets(t *testing.T) {
	v := newKV()
	v.mount("secret/", "2", "a")
	ss := NewSecrets(v)
	_, err := readPath(t, ss, "secret/a")
	require.NoError(t, err)
	for i := range 1000 {
		_, err := readPath(t, ss, fmt.Sprint("secret/", i))
		require.ErrorIs(t, err, ErrMissing)
	}
	before := v.lookups
	for i := range 1000 {
		_, err := readPath(t, ss, fmt.Sprint("secret/", i))
		require.ErrorIs(t, err, ErrMissing)
	}
	assert.LessOrEqual(t, v.lookups-before, 1)
}
