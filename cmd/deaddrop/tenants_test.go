package main

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
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
	t.Parallel()
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
	t.Parallel()
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
	t.Parallel()
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
	t.Parallel()
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
	t.Parallel()
	f := newFleet(t)
	f.put("demo", "nexa", "one")
	victim := f.write("victim.env", "precious")
	out, code := f.deaddrop("render", "--config", f.config("  removal_grace = \"0s\"\n"))
	require.Zero(t, code, out)
	content := `{"pattern":"out/*/nexa.env","present":["../victim","..","demo/../..","","*","x"],"sides":{"x":["victim.env","out/../victim.env"]},"untold":["../victim"]}`
	require.NoError(t, os.WriteFile(f.record(), []byte(content), 0o600))
	out, code = f.deaddrop("render", "--config", f.config("  removal_grace = \"0s\"\n"))
	require.Zero(t, code, out)
	assert.FileExists(t, victim)
	assert.True(t, f.has("demo"))
}

func TestNamesThatAreNoTenantsAreLeftOut(t *testing.T) {
	t.Parallel()
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
	assert.Equal(t, []string{"demo"}, names)
	assert.Equal(t, 7, strings.Count(out, "is not the id of a tenant"), out)
}

func TestADeniedTenantIsReportedWithoutStoppingOthers(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
	f := newFleet(t)
	f.put("demo", "nexa", "one")
	f.Grant("secret/metadata/"+f.folder+"/", "deny")
	out, code := f.deaddrop("render", "--config", f.config(""))
	assert.Equal(t, exitDenied, code, out)
	assert.Contains(t, out, "listing the tenants of for_each")
	assert.Contains(t, out, `capabilities = [\"list\"]`)
}

func TestAListThatFailsTakesNothingAway(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.put("demo", "nexa", "one")
	p := f.start("run", "--config", f.config("  removal_grace = \"0s\"\n"))
	f.eventually("the first drop", func() bool { return f.has("demo") })
	f.mayList(false)
	f.eventually("it is said", func() bool { return strings.Contains(p.log(), "tenants cannot be listed, keeping last good files") })
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
	t.Parallel()
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
	t.Parallel()
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
	t.Parallel()
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

// record is the file by which the next agent knows of the tenants.
func (f *fleet) record() string {
	f.t.Helper()
	all, err := filepath.Glob(f.path("state/tenants-*.json"))
	require.NoError(f.t, err)
	require.Len(f.t, all, 1)
	return all[0]
}

func TestATenantWhoseGraceIsOverIsLookedForOnceMore(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	for _, id := range []string{"back", "gone", "stays"} {
		f.put(id, "nexa", "1")
	}
	f.service()
	config := f.config("  removal_grace = \"1h\"\n")
	out, code := f.deaddrop("render", "--config", config)
	require.Zero(t, code, out)
	for _, id := range []string{"back", "gone"} {
		f.end(id, "nexa")
	}
	out, code = f.deaddrop("render", "--config", config) // It notes since when they are gone.
	require.Zero(t, code, out)
	content, err := os.ReadFile(f.record())
	require.NoError(t, err)
	long := regexp.MustCompile(`"(back|gone)":"[^"]+"`).ReplaceAllString(string(content), `"$1":"2020-01-01T00:00:00Z"`)
	require.NoError(t, os.WriteFile(f.record(), []byte(long), 0o600))

	f.mayList(false)
	out, code = f.deaddrop("render", "--config", config)
	assert.Equal(t, exitDenied, code, out)
	assert.True(t, f.has("back") && f.has("gone"), "nobody knows which tenants there are")
	f.mayList(true)
	f.put("back", "nexa", "2")
	out, code = f.deaddrop("render", "--config", config)
	require.Zero(t, code, out)
	assert.Equal(t, "KEY=2\n", f.read("out/back/nexa.env"))
	assert.False(t, f.has("gone"))
	assert.True(t, f.has("stays"))
}

func TestFilesThatAreToStayDoSoEvenInTheGrace(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.put("demo", "nexa", "1")
	f.put("other", "nexa", "1")
	p := f.start("run", "--config", f.config("  removal_grace = \"1h\"\n"))
	f.eventually("the first drops", func() bool { return f.has("demo") && f.has("other") })
	f.end("demo", "nexa")
	f.eventually("it is gone", func() bool { return strings.Contains(p.log(), "a tenant is gone; its files go, too") })
	f.config("  removal_grace = \"2h\"\n") // A configuration that is read in the grace changes nothing.
	f.eventually("the configuration is read", func() bool { return strings.Contains(p.log(), "configuration reloaded") })
	f.config("  removal_grace = \"0s\"\n  on_removed = \"keep\"\n")
	f.eventually("it is read again", func() bool { return strings.Count(p.log(), "configuration reloaded") == 2 })
	f.put("other", "nexa", "2")
	f.eventually("the rest goes on", func() bool { return f.read("out/other/nexa.env") == "KEY=2\n" })
	p.stop()
	assert.True(t, f.has("demo"))
	assert.NotContains(t, p.log(), "is written already")
}

func TestAnEngineThatIsGoneIsNotOneWithoutTenants(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	mount := strings.ToLower(rand.Text()[:8])
	require.NoError(t, f.s.Client.Sys().Mount(mount, &api.MountInput{Type: "kv", Options: map[string]string{"version": "2"}}))
	f.Grant(mount+"/*", "read", "list")
	require.Eventually(t, func() bool { // It is upgraded first.
		_, err := f.s.Client.Logical().Write(mount+"/data/x/demo/nexa", map[string]any{"data": map[string]any{"KEY": "1"}})
		return err == nil
	}, time.Minute, 50*time.Millisecond)
	config := f.write("deaddrop.hcl", strings.NewReplacer("secret/"+f.folder, mount+"/x").Replace(f.Login(f.dir)+interval+`
drop "nexa" {
  for_each      = "secret/`+f.folder+`/*"
  removal_grace = "0s"
  secret        = "secret/`+f.folder+`/${each.key}/nexa"
  destination   = "out/${each.key}.env"
}
`))
	p := f.start("run", "--config", config)
	f.eventually("the first drop", func() bool { return f.read("out/demo.env") == "KEY=1\n" })
	require.NoError(t, f.s.Client.Sys().Unmount(mount))
	f.eventually("it is said", func() bool { return strings.Contains(p.log(), "tenants cannot be listed, keeping last good files") })
	p.stop()
	assert.Equal(t, "KEY=1\n", f.read("out/demo.env"))
}

func TestWhatATemplateWroteBesidesGoesWithItsTenantUnlessOthersWriteIt(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.put("a", "nexa", "1")
	f.put("b", "nexa", "1")
	config := f.write("deaddrop.hcl", f.Login(f.dir)+interval+`
template {
  for_each      = "secret/`+f.folder+`/*"
  removal_grace = "0s"
  destination   = "out/${each.key}/main.txt"
  contents      = <<E
{{ with secret "secret/`+f.folder+`/${each.key}/nexa" }}{{ .Data.data.KEY | writeToFile "out/${each.key}/side.txt" "" "" "0600" }}{{ "ca" | writeToFile "out/ca.pem" "" "" "0600" }}{{ .Data.data.KEY }}{{ end }}
E
}
`)
	out, code := f.deaddrop("render", "--config", config)
	require.Zero(t, code, out)
	require.Equal(t, "1", f.read("out/a/side.txt"))
	f.end("a", "nexa")
	out, code = f.deaddrop("render", "--config", config)
	require.Zero(t, code, out)
	assert.NoDirExists(t, f.path("out/a"))
	assert.Equal(t, "1", f.read("out/b/side.txt"))
	assert.Equal(t, "ca", f.read("out/ca.pem"))
}

func TestASetThatIsThereFailsWhereOneOfItIsMissing(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.Allow("secret/data/" + f.folder + "/+/smtp")
	f.put("demo", "nexa", "1")
	set := func(more string) string {
		return f.write("deaddrop.hcl", f.Login(f.dir)+`
set "all" {
  for_each    = "secret/`+f.folder+`/*"
  destination = "out/${each.key}"
  drop "nexa" {
    secret      = "secret/`+f.folder+`/${each.key}/nexa"
    destination = "nexa.env"
  }
`+more+"}\n")
	}
	out, code := f.deaddrop("render", "--config", set(""))
	require.Zero(t, code, out)
	out, code = f.deaddrop("render", "--config", set("  drop \"smtp\" {\n    secret = \"secret/"+f.folder+"/${each.key}/smtp\"\n    destination = \"smtp.env\"\n  }\n"))
	assert.Equal(t, exitMissing, code, out)
	assert.Equal(t, "KEY=1\n", f.read("out/demo/nexa.env"))
}

func TestADeniedTenantDoesNotKeepACommandFromStarting(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.put("demo", "nexa", "one")
	f.put("secretive", "nexa", "two")
	f.Grant("secret/data/"+f.folder+"/secretive/nexa", "deny")
	config := f.config("")
	content, err := os.ReadFile(config)
	require.NoError(t, err)
	f.write("deaddrop.hcl", strings.Replace(string(content), reload, "", 1)+"exec {\n  command = [\"sh\", \"-c\", \"cat out/demo/nexa.env >started\"]\n}\n")
	out, code := f.deaddrop("run", "--config", config)
	assert.Zero(t, code, out)
	assert.Equal(t, "KEY=one\n", f.read("started"))
}

func TestATemplateOfOneTenantMayComeLaterAndChange(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.put("demo", "nexa", "one")
	f.put("late", "nexa", "two")
	tmpl := func(text string) string {
		return text + " {{ with secret (print \"secret/" + f.folder + "/\" each.key \"/nexa\") }}{{ .Data.data.KEY }}{{ end }}"
	}
	f.write("demo.ctmpl", tmpl("first"))
	config := f.write("deaddrop.hcl", f.Login(f.dir)+interval+`
template {
  for_each    = "secret/`+f.folder+`/*"
  source      = "${each.key}.ctmpl"
  destination = "out/${each.key}.txt"
}
`)
	p := f.start("run", "--config", config)
	f.eventually("the first", func() bool { return f.read("out/demo.txt") == "first one" })
	f.write("late.ctmpl", tmpl("late"))
	f.eventually("the late one", func() bool { return f.read("out/late.txt") == "late two" })
	f.write("demo.ctmpl", tmpl("second time"))
	f.eventually("the change", func() bool { return f.read("out/demo.txt") == "second time one" })
	f.write("demo.ctmpl", "{{ broken")
	f.eventually("the mistake is said", func() bool { return strings.Contains(p.log(), "demo.ctmpl:1") })
	f.put("demo", "nexa", "three")
	f.eventually("the last good template goes on", func() bool { return f.read("out/demo.txt") == "second time three" })
	p.stop()
	assert.Equal(t, 1, strings.Count(p.log(), "late.ctmpl cannot be read"), "it is said once")
}

func TestTheNewsOfATenantThatIsGoneIsToldByTheNextAgent(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.put("demo", "nexa", "1")
	f.put("stays", "nexa", "1")
	config := f.config("  removal_grace = \"0s\"\n")
	p := f.start("run", "--config", config) // There is no service to tell yet.
	f.eventually("the first drops", func() bool { return f.has("demo") && f.has("stays") })
	f.end("demo", "nexa")
	f.eventually("it is gone", func() bool { return !f.has("demo") })
	f.eventually("nobody can be told", func() bool { return strings.Contains(p.log(), "reload failed, retrying") })
	p.stop()
	f.service()
	p = f.start("run", "--config", config)
	f.eventually("the service is told", func() bool { return f.read("hups") == "x" })
	f.eventually("that is noted", func() bool {
		content, _ := os.ReadFile(f.record())
		return !strings.Contains(string(content), "untold")
	})
	p.stop()
}

func TestAPathThatNoTenantHasIsSaidToPerhapsBeWrong(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.put("demo", "nexxa", "1")
	f.service()
	out, code := f.deaddrop("render", "--config", f.config(""))
	assert.Zero(t, code, out)
	assert.Equal(t, 1, strings.Count(out, "no tenant has the secret of a for_each; is its path right?"), out)
}
