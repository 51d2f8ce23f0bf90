package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/cmd/tenantctl/tenants"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// operator runs tenantctl with the rights of root on a tenant of the test's own.
type operator struct {
	t   *testing.T
	s   *vaulttest.Server
	env []string
	id  string
	dir string
}

func newOperator(t *testing.T) *operator {
	t.Helper()
	s := vaulttest.Shared(t)
	return operatorOf(t, s)
}

func operatorOf(t *testing.T, s *vaulttest.Server) *operator {
	t.Helper()
	dir := t.TempDir()
	return &operator{t: t, s: s, id: "rut-" + strings.ToLower(rand.Text()[:10]), dir: dir,
		env: []string{"VAULT_ADDR=" + s.Address, "VAULT_TOKEN=" + s.RootToken, "PWD=" + dir}}
}

// does runs tenantctl, which must succeed, and returns its answer.
func (o *operator) does(args ...string) string {
	o.t.Helper()
	out, errs, code := run(o.t, o.env, args...)
	require.Zero(o.t, code, "%v: %s", args, errs)
	return out
}

// fails runs tenantctl, which must fail with this code, and returns what it said.
func (o *operator) fails(code int, args ...string) string {
	o.t.Helper()
	out, errs, got := run(o.t, o.env, args...)
	require.Equal(o.t, code, got, "%v: %s", args, errs)
	assert.Empty(o.t, out, args)
	return errs
}

// reads returns what a service has now.
func (o *operator) reads(service string) map[string]any {
	o.t.Helper()
	var secret tenants.Secret
	o.json(&secret, "tenant", "show", o.id, service, "--reveal")
	return secret.Data
}

func (o *operator) json(into any, args ...string) {
	o.t.Helper()
	require.NoError(o.t, json.Unmarshal([]byte(o.does(append(args, "-o", "json")...)), into), args)
}

func (o *operator) file(name, content string) string {
	o.t.Helper()
	path := filepath.Join(o.dir, name)
	require.NoError(o.t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func TestATenantFromItsBeginningToItsEnd(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	out := o.does("tenant", "add", o.id)
	assert.Contains(t, out, "nexa, shopify, smtp, supabase")
	assert.Regexp(t, o.id+` +4 +nexa, shopify, smtp, supabase\n`, o.does("tenant", "list"))
	assert.Contains(t, o.fails(exitConflict, "tenant", "add", o.id), "is there already")
	assert.Regexp(t, `nexa +0 +- +\(empty\)`, o.does("tenant", "show", o.id))

	assert.Regexp(t, o.id+` +nexa +1 +added API_KEY, URL\n`, o.does("tenant", "set", o.id, "nexa", "API_KEY=a=b", "URL="))
	assert.Regexp(t, `nexa +2 +added MORE; changed URL\n`, o.does("tenant", "set", o.id, "nexa", "URL=http://x", "MORE=1"))
	assert.Regexp(t, `nexa +2 +unchanged\n`, o.does("tenant", "set", o.id, "nexa", "MORE=1"))
	assert.Regexp(t, `nexa +3 +removed MORE\n`, o.does("tenant", "unset", o.id, "nexa", "MORE"))
	assert.Equal(t, map[string]any{"API_KEY": "a=b", "URL": "http://x"}, o.reads("nexa"))
	assert.Contains(t, o.fails(exitMissing, "tenant", "unset", o.id, "nexa", "MORE"), `has no key "MORE"; it has API_KEY, URL`)
	assert.Regexp(t, `nexa +4 +added ONLY; removed API_KEY, URL\n`, o.does("tenant", "set", o.id, "nexa", "--replace", "ONLY=1"))

	assert.Regexp(t, o.id+` +nexa +4\n`, o.does("tenant", "delete", o.id, "nexa"))
	assert.Regexp(t, o.id+` +nexa +none\n`, o.does("tenant", "delete", o.id, "nexa"), "it is deleted already")
	assert.Regexp(t, `nexa +4 +- +\(deleted\)`, o.does("tenant", "show", o.id, "nexa"))
	assert.Contains(t, o.fails(exitMissing, "tenant", "set", o.id, "nexa", "A=1"), "tenantctl tenant undelete "+o.id+" nexa")
	assert.Regexp(t, o.id+` +nexa +4\n`, o.does("tenant", "undelete", o.id, "nexa"))
	assert.Equal(t, map[string]any{"ONLY": "1"}, o.reads("nexa"))

	assert.Regexp(t, `nexa +1, 2\n`, o.does("tenant", "destroy", o.id, "nexa", "--versions", "1,2", "--yes"))
	versions := o.does("tenant", "versions", o.id, "nexa")
	assert.Regexp(t, `(?s)1 +destroyed +\d{4}-\S+ \S+ +-\n2 +destroyed .*3 +live .*4 +live `, versions)
	assert.Contains(t, o.fails(exitMissing, "tenant", "undelete", o.id, "nexa", "--versions", "1"), "version 1 is destroyed")
	assert.Contains(t, o.fails(exitMissing, "tenant", "show", o.id, "nexa", "--version", "9"), "has no version 9")
	assert.Contains(t, o.does("tenant", "show", o.id, "nexa", "--version", "3"), "API_KEY")

	o.does("tenant", "destroy", o.id, "--all", "--yes")
	assert.NotContains(t, o.does("tenant", "list"), o.id)
	assert.Contains(t, o.fails(exitMissing, "tenant", "show", o.id), "there is no tenant")
	assert.Contains(t, o.fails(exitMissing, "tenant", "show", o.id, "nexa"), "there is no secret/tenant/"+o.id+"/nexa")
}

func TestTwentyOperatorsAtOnceLoseNothing(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	o.does("tenant", "add", o.id, "nexa", "FIRST=1")
	want := map[string]any{"FIRST": "1"}
	var all sync.WaitGroup
	for i := range 20 {
		key := fmt.Sprintf("KEY_%d", i)
		want[key] = "v"
		cmd := command(t, o.env, "tenant", "set", o.id, "nexa", key+"=v")
		all.Go(func() {
			said, err := cmd.CombinedOutput()
			assert.NoError(t, err, "%s", said)
		})
	}
	all.Wait()
	assert.Equal(t, want, o.reads("nexa"))
	var versions []tenants.Version
	o.json(&versions, "tenant", "versions", o.id, "nexa")
	assert.Equal(t, 21, versions[len(versions)-1].Number, "each wrote once")
}

func TestOfTwentyOperatorsThatSetTheSameKeyNoneIsOverwritten(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	o.does("tenant", "add", o.id, "nexa", "KEY=0")
	var all sync.WaitGroup
	var mu sync.Mutex
	done := 0
	for i := range 20 {
		cmd := command(t, o.env, "tenant", "set", o.id, "nexa", "--cas", "1", fmt.Sprintf("KEY=by %d", i))
		all.Go(func() {
			said, err := cmd.CombinedOutput()
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				done++
				return
			}
			assert.Equal(t, exitConflict, cmd.ProcessState.ExitCode(), "%s", said)
			assert.Contains(t, string(said), "nothing was written")
		})
	}
	all.Wait()
	assert.Equal(t, 1, done)
}
