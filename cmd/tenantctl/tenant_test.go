package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/tenants"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// operator runs tenantctl with the rights of root on a tenant of the test's own.
type operator struct {
	t   *testing.T
	s   *vaulttest.Server
	env []string
	id  string
	dir string
	// marked are the values that were given, with a marker behind each.
	marked map[string]string
}

func newOperator(t *testing.T) *operator {
	t.Helper()
	s := vaulttest.Shared(t)
	return operatorOf(t, s)
}

func operatorOf(t *testing.T, s *vaulttest.Server) *operator {
	t.Helper()
	dir := t.TempDir()
	return &operator{t: t, s: s, id: "rut-" + strings.ToLower(rand.Text()[:10]), dir: dir, marked: map[string]string{},
		env: []string{"VAULT_ADDR=" + s.Address, "VAULT_TOKEN=" + s.RootToken, "PWD=" + dir}}
}

// does runs tenantctl, which must succeed, and returns its answer.
func (o *operator) does(args ...string) string {
	o.t.Helper()
	out, errs, code := run(o.t, o.env, o.mark(args)...)
	require.Zero(o.t, code, "%v: %s", args, errs)
	return out
}

// fails runs tenantctl, which must fail with this code, and returns what it said.
func (o *operator) fails(code int, args ...string) string {
	o.t.Helper()
	out, errs, got := run(o.t, o.env, o.mark(args)...)
	require.Equal(o.t, code, got, "%v: %s", args, errs)
	assert.Empty(o.t, out, args)
	return errs
}

// pair is an argument KEY=VALUE.
var pair = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]*=)([^@].*)$`)

// marks are what is put behind values.
var marks = regexp.MustCompile(`\.\.m4rker-[A-Z2-7]{26}`)

// mark makes the values of a tenant's secrets random: a marker stands behind each.
func (o *operator) mark(args []string) []string {
	marked := slices.Clone(args)
	for i, arg := range args {
		if parts := pair.FindStringSubmatch(arg); parts != nil && args[0] == "tenant" && !strings.Contains(arg, "m4rker-") {
			if o.marked[arg] == "" {
				o.marked[arg] = arg + ".." + vaulttest.Marker()
			}
			marked[i] = o.marked[arg]
		}
	}
	return marked
}

// reads returns what a service has now, with values as they were given.
func (o *operator) reads(service string) map[string]any {
	o.t.Helper()
	var secret tenants.Secret
	o.json(&secret, "tenant", "show", o.id, service, "--reveal")
	for key, value := range secret.Data {
		if text, isText := value.(string); isText {
			secret.Data[key] = marks.ReplaceAllString(text, "")
		}
	}
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

func TestValuesComeFromWhereTheyAreSafe(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	o.file("key.pem", "-----BEGIN\nkey\n")
	o.file("nexa.json", `{"N": 42, "T": true, "S": "x"}`)
	o.file("nexa.env", "A='a b'\n# comment\nexport B=\"c\\nd\"\n")
	o.does("tenant", "add", o.id, "nexa", "--from", "nexa.json")
	out, errs, code := runWith(t, "from a pipe\n", o.env, "tenant", "set", o.id, "nexa", "PIPE=-", "KEY=@key.pem", "--from", "nexa.env")
	require.Zero(t, code, errs)
	assert.Contains(t, out, "added A, B, KEY, PIPE")
	assert.Empty(t, errs, "there is no person to give a hint to")
	assert.Equal(t, map[string]any{"N": 42.0, "T": true, "S": "x", "A": "a b", "B": "c\nd", "PIPE": "from a pipe", "KEY": "-----BEGIN\nkey\n"}, o.reads("nexa"))
	out, errs, code = runWith(t, `{"ONLY": "x"}`, o.env, "tenant", "set", o.id, "nexa", "--replace", "--from", "-")
	require.Zero(t, code, errs)
	assert.Contains(t, out, "added ONLY; removed A, B, KEY, N, PIPE, S, T")
	assert.Equal(t, map[string]any{"ONLY": "x"}, o.reads("nexa"))
}

func TestNothingThatIsNotAskedForHoldsAValue(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	marker := vaulttest.Marker()
	o.file("nexa.json", fmt.Sprintf(`{"A": %q, "L": [%q], "O": {"P": %q}, "E": ""}`, marker, marker, marker))
	o.file("bad.json", fmt.Sprintf(`{"A": %q, %s`, marker, marker))
	o.file("bad.env", "A="+marker+"\n"+marker+"\n")
	said := o.does("tenant", "add", o.id, "nexa", "--from", "nexa.json")
	said += o.fails(exitConflict, "tenant", "add", o.id, "nexa", "--from", "nexa.json")
	said += o.fails(exitUsage, "tenant", "set", o.id, "nexa", "--from", "bad.json")
	said += o.fails(exitUsage, "tenant", "set", o.id, "nexa", "--from", "bad.env")
	said += o.fails(exitUsage, "tenant", "set", o.id, "nexa", marker)
	said += o.fails(exitConflict, "tenant", "set", o.id, "nexa", "A="+marker, "--cas", "9")
	for _, format := range []string{"table", "json", "yaml"} {
		for _, args := range [][]string{{"show", o.id}, {"show", o.id, "nexa"}, {"show", o.id, "nexa", "--version", "1"}, {"versions", o.id, "nexa"}, {"list"},
			{"set", o.id, "nexa", "A=" + marker}, {"set", o.id, "nexa", "A=" + marker + "2"}, {"set", o.id, "nexa", "A=" + marker}} {
			said += o.does(append(append([]string{"tenant"}, args...), "-o", format)...)
		}
	}
	said += o.does("tenant", "unset", o.id, "nexa", "O")
	said += o.fails(exitMissing, "tenant", "unset", o.id, "nexa", "O")
	said += o.does("tenant", "delete", o.id) + o.does("tenant", "show", o.id) + o.does("tenant", "undelete", o.id)
	said += o.fails(exitMissing, "tenant", "show", o.id, "nexa", "--version", "99")
	_, errs, _ := run(t, append(o.env, "VAULT_TOKEN=wrong"), "tenant", "set", o.id, "nexa", "A="+marker)
	said += errs
	assert.NotContains(t, said, marker)
	assert.Contains(t, said, mask)

	for _, format := range []string{"table", "json", "yaml"} {
		assert.Contains(t, o.does("tenant", "show", o.id, "nexa", "--reveal", "-o", format), marker)
	}
	var secret tenants.Secret
	o.json(&secret, "tenant", "show", o.id, "nexa")
	assert.Equal(t, map[string]any{"A": mask, "L": mask, "E": ""}, secret.Data)
}

func TestShownValuesStayOnTheirLine(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	o.file("x.json", `{"A": "a\nb\u001b[2J", "N": 1.5, "O": {"P": "<q>"}}`)
	o.does("tenant", "add", o.id, "nexa", "--from", "x.json")
	assert.Regexp(t, `nexa +1 +A +"a\\nb\\u001b\[2J"\nnexa +1 +N +1\.5\nnexa +1 +O +\{"P":"<q>"\}\n`, o.does("tenant", "show", o.id, "--reveal"))
}

// refused returns what is wrong with a command line. Processes of their own would
// take minutes for all of them. What has contacted Vault, or tried to, is a failure
// of the work.
func refused(t *testing.T, args ...string) string {
	t.Helper()
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(io.Discard)
	root.SetErr(io.Discard)
	root.SetIn(strings.NewReader(""))
	err := root.ExecuteContext(t.Context())
	require.Error(t, err, args)
	var failed *runError
	require.NotErrorAs(t, err, &failed, args)
	return err.Error()
}

func TestATenantCommandLineThatIsWrongContactsNothing(t *testing.T) {
	t.Parallel()
	for args, say := range map[string]string{
		"":                                "needs a command",
		"nothing":                         "unknown command",
		"show":                            "the id of a tenant is missing",
		"show +":                          `"+" is not an id`,
		"show *":                          `"*" is not an id`,
		"show a/b":                        `"a/b" is not an id`,
		"show .. nexa":                    `".." is not an id`,
		"show demo ne/xa":                 `"ne/xa" is not an id`,
		"show demo nexa more":             "there are 3 arguments; 2 are the most",
		"show demo --version 1":           "--version needs a service",
		"show demo nexa --version 0":      "--version counts from 1",
		"add demo --from x":               "the service that the values are for is missing",
		"add demo nexa":                   "there are no values",
		"set demo":                        "the service, such as nexa, is missing",
		"set demo nexa":                   "there are no values",
		"set demo nexa A":                 `argument 1 has no "="`,
		"set demo nexa A=1 --cas -1":      "--cas",
		"set demo nexa --from /no/such":   "no such file",
		"set demo nexa A=1 A=2":           "is given twice",
		"unset demo nexa":                 "a key is missing",
		"delete demo --versions 1":        "needs a service",
		"delete demo nexa --versions x":   "--versions",
		"delete demo nexa --versions 0":   "--versions",
		"destroy demo":                    "at least one of the flags",
		"destroy demo --all":              "add --yes",
		"destroy demo --all --versions 1": "none of the others can be",
		"versions demo":                   "the service, such as nexa, is missing",
		"list demo":                       "unknown command",
	} {
		assert.Contains(t, refused(t, append([]string{"tenant"}, strings.Fields(args)...)...), say, args)
	}
	env := []string{"VAULT_ADDR=http://127.0.0.1:1", "VAULT_TOKEN=x"}
	out, errs, code := run(t, env, "tenant", "show", "+")
	assert.Equal(t, exitUsage, code)
	assert.Contains(t, errs, `"+" is not an id`)
	assert.Empty(t, out)
	_, errs, code = run(t, env, "tenant", "list")
	assert.Equal(t, exitUnreachable, code)
	assert.Contains(t, errs, "is Vault running at http://127.0.0.1:1?")
}

func TestATenantWhoseNameIsAPatternIsTold(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	_, err := o.s.Client.Logical().Write("secret/data/tenant/+/nexa", map[string]any{"data": map[string]any{"A": "1"}})
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = o.s.Client.Logical().Delete("secret/metadata/tenant/+/nexa") })
	out, errs, code := run(t, o.env, "tenant", "list")
	assert.Zero(t, code)
	assert.Regexp(t, `(?m)^\+ +1 +nexa$`, out)
	assert.Contains(t, errs, `the name "+" is no id of a tenant`)
}

func TestTheShellCompletesFromVault(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	o.does("tenant", "add", o.id)
	assert.Contains(t, o.does("__complete", "tenant", "show", ""), o.id+"\n")
	assert.Contains(t, o.does("__complete", "tenant", "set", o.id, ""), "nexa\nshopify\nsmtp\nsupabase\n")
	assert.Contains(t, o.does("__complete", "credentials", "issue", o.id, "--service", ""), "nexa\n")
	assert.Contains(t, o.does("__complete", "credentials", "revoke", ""), o.id+"\n")
	out, _, code := run(t, []string{"VAULT_ADDR=http://127.0.0.1:1"}, "__complete", "tenant", "show", "")
	assert.Zero(t, code)
	assert.Equal(t, ":4\n", out, "there is nothing to offer, and nothing to say")
}

func TestAnswersAreNotWrappedByTheEnvironment(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	o.env = append(o.env, "VAULT_WRAP_TTL=5m")
	o.does("tenant", "add", o.id, "nexa", "A=1")
	assert.Equal(t, map[string]any{"A": "1"}, o.reads("nexa"))
}

func TestEveryCommandOfTenantsHasAnExample(t *testing.T) {
	t.Parallel()
	for _, cmd := range append(newTenant(&cli{}).Commands(), newCredentials(&cli{}).Commands()...) {
		assert.NotEmpty(t, cmd.Example, cmd.Name())
		assert.NotEmpty(t, cmd.Long+cmd.Short, cmd.Name())
	}
}
