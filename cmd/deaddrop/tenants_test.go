package main

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// fleet is a folder of tenants for one test, as secret/tenant is on the platform,
// and a login that may read the service nexa of each.
type fleet struct {
	*rig
	s      *vaulttest.Server
	folder string
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	s := vaulttest.Shared(t)
	f := &fleet{rig: newRig(t, s), s: s, folder: "fleet-" + strings.ToLower(rand.Text()[:8])}
	f.Allow("secret/data/" + f.folder + "/+/nexa")
	f.Grant("secret/metadata/"+f.folder+"/", "list")
	return f
}

func (f *fleet) put(tenant, service, value string) {
	f.t.Helper()
	_, err := f.s.Client.Logical().Write("secret/data/"+f.folder+"/"+tenant+"/"+service, map[string]any{"data": map[string]any{"KEY": value}})
	require.NoError(f.t, err)
}

// end takes all of a service of a tenant away.
func (f *fleet) end(tenant, service string) {
	f.t.Helper()
	_, err := f.s.Client.Logical().Delete("secret/metadata/" + f.folder + "/" + tenant + "/" + service)
	require.NoError(f.t, err)
}

// mayList gives the login the right to list the tenants, or takes it away.
func (f *fleet) mayList(may bool) {
	f.t.Helper()
	policy := "path \"secret/data/" + f.folder + "/+/nexa\" { capabilities = [\"read\"] }\n"
	if may {
		policy += "path \"secret/metadata/" + f.folder + "/\" { capabilities = [\"list\"] }\n"
	}
	require.NoError(f.t, f.s.Client.Sys().PutPolicy(f.ID, policy))
}

func (f *fleet) config(lines string) string {
	f.t.Helper()
	return f.write("deaddrop.hcl", f.Login(f.dir)+interval+`
drop "nexa" {
  for_each    = "secret/`+f.folder+`/*"
  secret      = "secret/`+f.folder+`/${each.key}/nexa"
  destination = "out/${each.key}/nexa.env"
`+lines+reload+`}
`)
}

func (f *fleet) has(tenant string) bool {
	_, err := os.Lstat(f.path("out/" + tenant + "/nexa.env"))
	return err == nil
}

func TestDropsFollowTenantsThatComeAndGo(t *testing.T) {
	f := newFleet(t)
	for _, id := range []string{"demo", "rut-76832940-3", "skipped-test"} {
		f.put(id, "nexa", id)
	}
	f.put("other", "shopify", "x") // It has no such service yet.
	f.service()
	p := f.start("run", "--config", f.config("  exclude = [\"*-test\"]\n  removal_grace = \"1s\"\n"))
	f.eventually("the first drops", func() bool {
		return f.read("out/demo/nexa.env") == "KEY=demo\n" && f.read("out/rut-76832940-3/nexa.env") != ""
	})
	assert.Empty(t, f.read("hups"), "no service can have read them before")

	f.put("new-1", "nexa", "1")
	f.eventually("the files of a new tenant", func() bool { return f.has("new-1") })
	f.eventually("the service is told of a new tenant", func() bool { return f.read("hups") == "x" })
	f.put("other", "nexa", "late")
	f.eventually("a service that comes late", func() bool { return f.read("out/other/nexa.env") == "KEY=late\n" })
	f.eventually("the service is told of it", func() bool { return f.read("hups") == "xx" })
	f.put("demo", "nexa", "two")
	f.eventually("a change", func() bool { return f.read("out/demo/nexa.env") == "KEY=two\n" })
	f.eventually("the service is told of it", func() bool { return f.read("hups") == "xxx" })

	assert.NotContains(t, p.log(), "secret is not there", "a tenant without the service is no fault")
	f.end("demo", "nexa")
	f.eventually("the files of a removed tenant go", func() bool { return !f.has("demo") })
	f.eventually("the service is told of it", func() bool { return f.read("hups") == "xxxx" })
	assert.NoDirExists(t, f.path("out/demo"))
	assert.False(t, f.has("skipped-test"))
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGUSR1))
	f.eventually("the state of a for_each", func() bool { return strings.Contains(p.log(), "status of a for_each") })
	p.stop()
	assert.NotContains(t, p.log(), `"level":"ERROR"`)
}

func TestManyNewTenantsAreOneBatch(t *testing.T) {
	f := newFleet(t)
	f.put("demo", "nexa", "1")
	f.service()
	p := f.start("run", "--config", f.config(""))
	f.eventually("the first drop", func() bool { return f.has("demo") })
	// They come between two looks: the agent is stopped meanwhile.
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGSTOP))
	for i := range 20 {
		f.put(fmt.Sprint("new-", i), "nexa", "1")
	}
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGCONT))
	f.eventually("all of them", func() bool {
		files, _ := filepath.Glob(f.path("out/new-*/nexa.env"))
		return len(files) == 20
	})
	f.eventually("the service is told", func() bool { return f.read("hups") != "" })
	p.stop()
	assert.Equal(t, "x", f.read("hups"))
}

func TestATenantThatComesBackInTimeKeepsItsFiles(t *testing.T) {
	f := newFleet(t)
	f.put("demo", "nexa", "one")
	p := f.start("run", "--config", f.config("  removal_grace = \"1h\"\n"))
	f.eventually("the first drop", func() bool { return f.has("demo") })
	f.end("demo", "nexa")
	f.eventually("its end is noticed", func() bool { return strings.Contains(p.log(), "a tenant is gone") })
	assert.Equal(t, "KEY=one\n", f.read("out/demo/nexa.env"))
	p.stop()

	// The next agent knows of it, and since when.
	p = f.start("run", "--config", f.config("  removal_grace = \"1h\"\n"))
	f.eventually("the next agent follows", func() bool { return strings.Contains(p.log(), "following tenants") })
	assert.True(t, f.has("demo"))
	f.put("demo", "nexa", "again")
	f.eventually("it is back", func() bool { return f.read("out/demo/nexa.env") == "KEY=again\n" })
	p.stop()
}

func TestTheFilesOfATenantGoThatWasRemovedWhileNoAgentRan(t *testing.T) {
	f := newFleet(t)
	for _, id := range []string{"demo", "gone", "kept"} {
		f.put(id, "nexa", id)
	}
	out, code := f.deaddrop("render", "--config", f.config("  removal_grace = \"0s\"\n"))
	require.Zero(t, code, out)
	require.True(t, f.has("gone"))
	f.write("out/mine.env", "not deaddrop's")
	f.service() // It is told of the file that goes.
	f.end("gone", "nexa")
	out, code = f.deaddrop("render", "--diff", "--config", f.config("  removal_grace = \"0s\"\n"))
	require.Zero(t, code, out)
	assert.Contains(t, out, "out/gone/nexa.env: would be removed")
	assert.True(t, f.has("gone"), "nothing was removed yet")
	out, code = f.deaddrop("render", "--config", f.config("  removal_grace = \"0s\"\n"))
	require.Zero(t, code, out)
	assert.NoDirExists(t, f.path("out/gone"))
	assert.True(t, f.has("demo"))
	assert.FileExists(t, f.path("out/mine.env"))

	f.end("kept", "nexa")
	out, code = f.deaddrop("render", "--config", f.config("  on_removed = \"keep\"\n"))
	require.Zero(t, code, out)
	assert.Equal(t, "KEY=kept\n", f.read("out/kept/nexa.env"))
}

func TestAFileInPlaceOfATenantsCannotMakeItLeaveTheFolder(t *testing.T) {
	f := newFleet(t)
	f.put("demo", "nexa", "one")
	victim := f.write("victim.env", "precious")
	out, code := f.deaddrop("render", "--config", f.config("  removal_grace = \"0s\"\n"))
	require.Zero(t, code, out)
	record, err := filepath.Glob(f.path("out/.*.deaddrop"))
	require.NoError(t, err)
	require.Len(t, record, 1)
	content := `{"pattern":"out/*/nexa.env","present":["../victim","..","demo/../..","","*"]}`
	require.NoError(t, os.WriteFile(record[0], []byte(content), 0o600))
	out, code = f.deaddrop("render", "--config", f.config("  removal_grace = \"0s\"\n"))
	require.Zero(t, code, out)
	assert.FileExists(t, victim)
	assert.True(t, f.has("demo"))
}

func TestNamesThatAreNoTenantsAreLeftOut(t *testing.T) {
	f := newFleet(t)
	for _, id := range []string{"demo", "a b", "..x", "*", "${x}", "-rf", "é", "a%2fb"} {
		_, err := f.s.Client.Logical().Write("secret/data/"+f.folder+"/"+id+"/nexa", map[string]any{"data": map[string]any{"KEY": "x"}})
		require.NoError(t, err)
	}
	out, code := f.deaddrop("render", "--config", f.config(""))
	require.Zero(t, code, out)
	entries, err := os.ReadDir(f.path("out"))
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	assert.Equal(t, []string{".EACH_nexa.env.deaddrop", "demo"}, names)
	assert.Equal(t, 7, strings.Count(out, "is not the id of a tenant"), out)
}

func TestADeniedTenantIsReportedWithoutStoppingOthers(t *testing.T) {
	f := newFleet(t)
	f.put("demo", "nexa", "one")
	f.put("secretive", "nexa", "two")
	f.Grant("secret/data/"+f.folder+"/secretive/nexa", "deny")
	out, code := f.deaddrop("render", "--config", f.config(""))
	assert.Equal(t, exitDenied, code, out)
	assert.Contains(t, out, "secretive")
	assert.Equal(t, "KEY=one\n", f.read("out/demo/nexa.env"))
	assert.False(t, f.has("secretive"))
}

func TestAFolderThatMayNotBeListedSaysWhatThePolicyNeeds(t *testing.T) {
	f := newFleet(t)
	f.put("demo", "nexa", "one")
	f.Grant("secret/metadata/"+f.folder+"/", "deny")
	out, code := f.deaddrop("render", "--config", f.config(""))
	assert.Equal(t, exitDenied, code, out)
	assert.Contains(t, out, "listing the tenants of for_each")
	assert.Contains(t, out, `capabilities = [\"list\"]`)
}

func TestAListThatFailsTakesNothingAway(t *testing.T) {
	f := newFleet(t)
	f.put("demo", "nexa", "one")
	p := f.start("run", "--config", f.config("  removal_grace = \"0s\"\n"))
	f.eventually("the first drop", func() bool { return f.has("demo") })
	f.mayList(false)
	f.eventually("it is said", func() bool { return strings.Contains(p.log(), "cannot be listed; its files stay as they are") })
	f.put("demo", "nexa", "two")
	f.eventually("those that are known go on", func() bool { return f.read("out/demo/nexa.env") == "KEY=two\n" })
	f.put("new", "nexa", "one")
	f.mayList(true)
	f.eventually("a new one, once it may be listed", func() bool { return f.has("new") })
	p.stop()
	assert.Equal(t, 1, strings.Count(p.log(), "cannot be listed"), "it is said once")
	assert.True(t, f.has("demo"))
}

func TestAFixedListOfTenantsFollowsTheConfiguration(t *testing.T) {
	f := newFleet(t)
	for _, id := range []string{"a", "b", "c"} {
		f.put(id, "nexa", id)
	}
	text := func(list string) string {
		return f.Login(f.dir) + interval + `
template {
  for_each      = [` + list + `]
  removal_grace = "0s"
  contents      = "{{ each.key }} {{ tenant }} {{ with secret \"secret/` + f.folder + `/${each.key}/nexa\" }}{{ .Data.data.KEY }}{{ end }}"
  destination   = "out/${each.key}/nexa.env"
}
`
	}
	config := f.write("deaddrop.hcl", text(`"a", "b", "not-there"`))
	p := f.start("run", "--config", config)
	f.eventually("the first drops", func() bool { return f.read("out/a/nexa.env") == "a a a" && f.read("out/b/nexa.env") == "b b b" })
	f.write("deaddrop.hcl", text(`"b", "c"`))
	f.eventually("the list has changed", func() bool { return f.has("c") && !f.has("a") })
	assert.True(t, f.has("b"))
	p.stop()
	out, code := f.deaddrop("render", "--config", config)
	assert.Zero(t, code, out)
}

func TestASetPerTenantChangesAndGoesAsOne(t *testing.T) {
	f := newFleet(t)
	f.AllowAll()
	f.Allow("secret/data/" + f.folder + "/+/smtp")
	for _, service := range []string{"nexa", "smtp"} {
		f.put("demo", service, service)
	}
	f.put("half", "nexa", "x")
	config := f.write("deaddrop.hcl", f.Login(f.dir)+interval+`
set "all" {
  for_each      = "secret/`+f.folder+`/*"
  removal_grace = "0s"
  destination   = "out/${each.key}"
  drop "nexa" {
    secret      = "secret/`+f.folder+`/${each.key}/nexa"
    destination = "nexa.env"
  }
  drop "smtp" {
    secret      = "secret/`+f.folder+`/${each.key}/smtp"
    destination = "smtp.env"
  }
}
`)
	p := f.start("run", "--config", config)
	f.eventually("the set", func() bool { return f.read("out/demo/..data/smtp.env") == "KEY=smtp\n" })
	assert.False(t, f.has("half"), "half a set is none")
	f.put("half", "smtp", "y")
	f.eventually("the other set", func() bool { return f.read("out/half/nexa.env") == "KEY=x\n" })
	f.end("demo", "nexa")
	f.end("demo", "smtp")
	f.eventually("the set goes", func() bool {
		_, err := os.Lstat(f.path("out/demo"))
		return os.IsNotExist(err)
	})
	p.stop()
}

func TestThePlatformsWayToNameAPathIsUnderstood(t *testing.T) {
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"KEY": "one"})
	r.env = append(r.env, "NEXA_VAULT_PATH_TEMPLATE=secret/data/tenant/{{tenant_id}}/nexa")
	for name, tc := range map[string]struct {
		env  string
		args []string
	}{
		"a flag":     {args: []string{"--tenant", r.ID}},
		"a variable": {env: "DEADDROP_TENANT=" + r.ID, args: []string{"--service", "nexa"}},
		"a path":     {env: "DEADDROP_TENANT=" + r.ID, args: []string{"--secret", "secret/data/tenant/{{ tenant_id }}/nexa"}},
	} {
		t.Run(name, func(t *testing.T) {
			other := *r
			other.dir, other.env = t.TempDir(), append(r.env[:len(r.env):len(r.env)], tc.env)
			out, code := other.deaddrop(append([]string{"render", "--out", "nexa.env"}, tc.args...)...)
			require.Zero(t, code, out)
			assert.Equal(t, "KEY=one\n", other.read("nexa.env"))
		})
	}
	out, code := r.deaddrop("render", "--tenant", "../"+r.ID, "--out", "nexa.env")
	assert.Equal(t, exitUsage, code, out)
	assert.Contains(t, out, "is not an id")
	out, code = r.deaddrop("render", "--secret", "secret/{{tenant_id}}/x", "--out", "nexa.env")
	assert.Equal(t, exitUsage, code, out)
	assert.Contains(t, out, "no tenant is set")
}
