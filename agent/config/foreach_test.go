package config

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/render"
)

const perTenant = `drop "nexa" {
  for_each    = "secret/tenant/*"
  include     = ["rut-*", "demo"]
  exclude     = ["*-test"]
  secret      = "secret/tenant/${each.key}/nexa"
  destination = "/run/deaddrop/${each.key}/nexa.json"
  reload {
    container = "nexa-${each.key}"
    signal    = "HUP"
  }
}
`

func TestForEachStandsForADropPerTenant(t *testing.T) {
	folder(t)
	cfg, err := load(t, login+perTenant)
	require.NoError(t, err)
	assert.Empty(t, cfg.Drops)
	require.Len(t, cfg.Each, 1)
	f := cfg.Each[0]
	assert.Equal(t, "nexa", f.Name)
	assert.Equal(t, "secret/tenant", f.Folder)
	assert.Equal(t, "/run/deaddrop/*/nexa.json", f.Pattern)
	assert.Equal(t, "/run/deaddrop", f.Place)
	assert.True(t, f.RemoveFiles)
	assert.Equal(t, DefaultGrace, f.Grace)
	for key, wanted := range map[string]bool{"rut-76832940-3": true, "demo": true, "rut-1-test": false, "other": false} {
		assert.Equal(t, wanted, f.Wants(key), key)
	}
	drops, err := Expand(f, "demo")
	require.NoError(t, err)
	require.Len(t, drops, 1)
	assert.Equal(t, "nexa[demo]", drops[0].Name)
	assert.Equal(t, "demo", drops[0].Key)
	assert.Equal(t, "secret/tenant/demo/nexa", drops[0].Secret)
	assert.Equal(t, "/run/deaddrop/demo/nexa.json", drops[0].Destination)
	assert.Equal(t, "/run/deaddrop", drops[0].File().Place)
	assert.Equal(t, "nexa-demo", drops[0].Reloads[0].Target.(Container).Name)
	assert.NotContains(t, cfg.String(), "stands-for")
	assert.Contains(t, cfg.String(), `for_each = "secret/tenant/*"`)
	assert.Contains(t, cfg.String(), `secret = "secret/tenant/${each.key}/nexa"`)
}

func TestForEachMayListItsKeysAndStandForTemplatesAndSets(t *testing.T) {
	folder(t)
	cfg, err := load(t, login+`
drop "list" {
  for_each      = ["demo", "rut-76832940-3", "demo", "skipped"]
  exclude       = ["skip*"]
  on_removed    = "keep"
  removal_grace = "1m"
  secret        = "secret/data/tenant/{{tenant_id}}/nexa"
  destination   = "/run/${each.key}.env"
}
template {
  for_each    = "apps/*"
  contents    = "{{ each.key }} ${each.key}"
  destination = "/run/${each.key}.txt"
}
set "tls" {
  for_each    = "secret/tenant/*"
  destination = "/run/tls/${each.key}"
  drop "smtp" {
    secret      = "secret/tenant/${each.key}/smtp"
    destination = "smtp.env"
  }
  template {
    contents    = "x"
    destination = "x.txt"
  }
}`)
	require.NoError(t, err)
	tmpl, list, set := cfg.Each[0], cfg.Each[1], cfg.Each[2]
	assert.Equal(t, []string{"demo", "rut-76832940-3"}, list.Keys)
	assert.False(t, list.RemoveFiles)
	assert.Equal(t, time.Minute, list.Grace)
	drops, err := Expand(list, "rut-76832940-3")
	require.NoError(t, err)
	assert.Equal(t, "secret/data/tenant/rut-76832940-3/nexa", drops[0].Secret)
	assert.Equal(t, "/run/*.txt", tmpl.Name)
	drops, err = Expand(tmpl, "a")
	require.NoError(t, err)
	assert.Equal(t, "/run/a.txt", drops[0].Name)
	drops, err = Expand(set, "a")
	require.NoError(t, err)
	require.Len(t, drops, 2)
	assert.Equal(t, "/run/tls/a/smtp.env", drops[1].Destination)
	assert.Same(t, drops[0].Set, drops[1].Set)
	assert.Equal(t, "tls[a]", drops[0].Set.Name)
	assert.Equal(t, "/run/tls", set.Place)
}

func TestMistakesInForEachAreNamedBeforeAnythingIsContacted(t *testing.T) {
	folder(t)
	block := func(lines string) string { return login + "drop \"n\" {\n" + lines + "\n}\n" }
	const rest = "\n  secret = \"secret/tenant/${each.key}/nexa\"\n  destination = \"/run/x/${each.key}.env\""
	for name, tc := range map[string]struct{ text, want string }{
		"no folder":               {block(`  for_each = "secret/tenant"` + rest), `deaddrop.hcl:7:14: for_each "secret/tenant" is not a folder; write a folder of Vault and /*`},
		"a glob within":           {block(`  for_each = "secret/*/x/*"` + rest), `for_each "secret/*/x/*" is not a folder`},
		"a way out":               {block(`  for_each = "secret/../*"` + rest), `for_each "secret/../*" is not a folder`},
		"an empty list":           {block(`  for_each = []` + rest), `for_each is neither a text nor a list`},
		"a list with a hole":      {block(`  for_each = ["a", null]` + rest), `for_each: an id is empty`},
		"an id that leads out":    {block(`  for_each = ["../../etc"]` + rest), `for_each: "../../etc" is not an id: use letters`},
		"a number":                {block(`  for_each = 3` + rest), `for_each is neither a text nor a list`},
		"one file for all":        {block("  for_each = \"secret/tenant/*\"\n  secret = \"secret/tenant/${each.key}/nexa\"\n  destination = \"/run/x.env\""), `destination /run/x.env is the same for all keys; write ${each.key} into it`},
		"all the same in the end": {block("  for_each = \"a/*\"\n  secret = \"a/${each.key}\"\n  destination = \"/run/${each.key}/../x.env\""), `is the same for all keys`},
		"no destination":          {block("  for_each = \"a/*\"\n  secret = \"a/${each.key}\"\n  destination = \"\""), `destination is empty`},
		"one that ends all":       {block("  for_each = \"a/*\"\n  on_missing = \"fail\"\n  secret = \"a/${each.key}\"\n  destination = \"/run/${each.key}\""), `one tenant must not stop the others`},
		"a word with the key":     {block("  for_each = \"a/*\"\n  on_missing = each.key\n  secret = \"a/${each.key}\"\n  destination = \"/run/${each.key}\""), `on_missing "${each.key}" is not known`},
		"contents of null":        {login + "template {\n  contents = env(\"HOME\") == \"\" ? \"x\" : null\n  destination = \"/run/x\"\n}", `contents must be a text`},
		"a tenant by a service":   {"service = \"nexa\"\ntenant = \"${service}-1\"\n" + block("  secret = \"secret/x\"\n  destination = \"/run/x.env\""), `no service is set`},
		"a backup of another":     {block("  for_each = [\"demo\", \"demo.bak\"]\n  backup = true\n  secret = \"a/${each.key}\"\n  destination = \"/run/${each.key}\""), `is written already`},
		"no common folder":        {block("  for_each = \"a/*\"\n  secret = \"a/${each.key}\"\n  destination = each.key == \"each.key.1-stands-for-a-tenant\" ? \"/a\" : \"b\""), `have no folder in common`},
		"a folder":                {block("  for_each = \"secret/tenant/*\"\n  secret = \"secret/tenant/${each.key}/nexa\"\n  destination = \"/run/${each.key}/\""), `is a folder; name a file in it`},
		"a typo within":           {block("  for_each = \"secret/tenant/*\"\n  formt = \"json\"" + rest), `deaddrop.hcl:8:3: Unsupported argument`},
		"a template's mistake":    {login + "template {\n  for_each = \"a/*\"\n  contents = \"{{ nope }}\"\n  destination = \"/run/${each.key}\"\n}", `function "nope" not defined`},
		"a word for on_removed":   {block("  for_each = \"secret/tenant/*\"\n  on_removed = \"delete\"" + rest), `on_removed "delete" is not known; use one of remove, keep`},
		"a grace":                 {block("  for_each = \"secret/tenant/*\"\n  removal_grace = \"soon\"" + rest), `"soon" is not a duration`},
		"include without":         {block("  include = [\"a\"]\n  secret = \"secret/x\"\n  destination = \"/run/x.env\""), `include, exclude, on_removed and removal_grace are for blocks with for_each`},
		"each.key without":        {block("  secret = \"secret/x/${each.key}\"\n  destination = \"/run/x.env\""), `deaddrop.hcl:7:24: each.key is for blocks with for_each`},
		"another part of each":    {block("  for_each = \"a/*\"\n  secret = \"secret/x/${each.value}\"\n  destination = \"/run/x.env\""), `deaddrop.hcl:8:28: Unsupported attribute: This object does not have an attribute named "value"`},
		"no tenant":               {block("  secret = \"secret/tenant/${tenant}/nexa\"\n  destination = \"/run/x.env\""), `no tenant is set: write tenant = "…" at the top of the file, or set DEADDROP_TENANT`},
		"no tenant_id":            {block("  secret = \"secret/tenant/{{tenant_id}}/nexa\"\n  destination = \"/run/x.env\""), `no tenant is set`},
		"other braces":            {block("  secret = \"secret/tenant/{{tenant}}/nexa\"\n  destination = \"/run/x.env\""), `only {{tenant_id}} may stand in a path`},
		"a tenant that is none":   {"tenant = \"../x\"\n" + block("  secret = \"secret/${tenant}/x\"\n  destination = \"/run/x.env\""), `tenant: "../x" is not an id`},
		"a variable not set":      {"tenant = env(\"DEADDROP_TEST_UNSET\")\n" + block("  secret = \"secret/x\"\n  destination = \"/run/x.env\""), `the environment variable DEADDROP_TEST_UNSET is not set, or empty; set it, or write env("DEADDROP_TEST_UNSET", "default")`},
		"two of the same":         {login + perTenant + perTenant, `destination /run/deaddrop/*/nexa.json is written already, by the block at deaddrop.hcl:6`},
		"one that is listed":      {block("  for_each = [\"a\"]"+rest) + "drop \"m\" {\n  secret = \"secret/x\"\n  destination = \"/run/x/a.env\"\n}", `destination /run/x/a.env is written already`},
		"in a drop of a set":      {login + "set \"s\" {\n  for_each = \"a/*\"\n  destination = \"/run/${each.key}\"\n  drop \"d\" {\n    for_each = [\"a\"]\n    secret = \"a/b\"\n    destination = \"d\"\n  }\n}", `Unsupported argument`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, tc.text)
			assert.ErrorContains(t, err, tc.want)
		})
	}
}

func TestAnIDThatAnotherDropHasIsRefusedAlone(t *testing.T) {
	folder(t)
	cfg, err := load(t, login+perTenant+"drop \"m\" {\n  secret = \"secret/x\"\n  destination = \"/run/deaddrop/demo/nexa.json\"\n}")
	require.NoError(t, err)
	_, err = Expand(cfg.Each[0], "demo")
	assert.ErrorContains(t, err, "destination /run/deaddrop/demo/nexa.json is written already, by the block at deaddrop.hcl:19")
	_, err = Expand(cfg.Each[0], "rut-1")
	assert.NoError(t, err)
}

func TestTheTenantIsAGlobal(t *testing.T) {
	folder(t)
	t.Setenv("TENANT_ID", "rut-76832940-3")
	t.Setenv("NEXA_VAULT_PATH_TEMPLATE", "secret/data/tenant/{{tenant_id}}/nexa")
	text := `tenant = env("TENANT_ID")
drop "a" {
  secret      = "secret/tenant/${tenant}/nexa"
  destination = "/run/${tenant}/${env("DEADDROP_TEST_UNSET", "nexa")}.env"
}
drop "b" {
  secret      = env("NEXA_VAULT_PATH_TEMPLATE")
  destination = "/run/b.env"
}
`
	cfg, err := load(t, login+text)
	require.NoError(t, err)
	assert.Equal(t, "rut-76832940-3", cfg.Tenant)
	assert.Equal(t, "secret/tenant/rut-76832940-3/nexa", cfg.Drops[0].Secret)
	assert.Equal(t, "/run/rut-76832940-3/nexa.env", cfg.Drops[0].Destination)
	assert.Equal(t, "secret/data/tenant/rut-76832940-3/nexa", cfg.Drops[1].Secret)

	t.Setenv("DEADDROP_TENANT", "demo")
	cfg, err = load(t, login+text)
	require.NoError(t, err)
	assert.Equal(t, "secret/tenant/demo/nexa", cfg.Drops[0].Secret)
}

func TestTheTenantMayStandInAnotherFileAndInJSON(t *testing.T) {
	folder(t)
	require.NoError(t, os.WriteFile("b.json", []byte(`{"tenant": "demo", "drop": {"j": {"for_each": ["x"], "secret": "secret/${tenant}/${each.key}", "destination": "/run/${each.key}.json"}}}`), 0o600))
	require.NoError(t, os.WriteFile("a.hcl", []byte(login+"drop \"n\" {\n  secret = \"secret/tenant/${tenant}/nexa\"\n  destination = \"/run/n.env\"\n}\n"), 0o600))
	cfg, err := Load("a.hcl", "b.json")
	require.NoError(t, err)
	assert.Equal(t, "secret/tenant/demo/nexa", cfg.Drops[0].Secret)
	drops, err := Expand(cfg.Each[0], "x")
	require.NoError(t, err)
	assert.Equal(t, "secret/x/x", drops[0].Secret, "in a for_each the tenant is the key")
}

func TestJSONOfVaultAgentHasNoExpressions(t *testing.T) {
	folder(t)
	require.NoError(t, os.WriteFile("a.json", []byte(`{"auto_auth": {"method": {"type": "approle", "config": {"role_id_file_path": "role_id", "secret_id_file_path": "secret_id"}}},
"template": {"contents": "${HOME} $${HOME} %{x} 100%{{ env \"PWD\" }} ${ tenant }", "destination": "/run/x"}, "tenant": "demo"}`), 0o600))
	cfg, err := Load("a.json")
	require.NoError(t, err)
	result, err := cfg.Drops[0].Template.Execute(render.Input{Env: func(string) (string, bool) { return "here", true }})
	require.NoError(t, err)
	assert.Equal(t, "${HOME} $${HOME} %{x} 100%here demo", string(result.Content))
}

func TestTheEnvironmentsTenantWinsOverOneThatCannotBeHad(t *testing.T) {
	folder(t)
	t.Setenv("DEADDROP_TENANT", "demo")
	cfg, err := load(t, login+"tenant = env(\"DEADDROP_TEST_UNSET\")\ndrop \"n\" {\n  secret = \"secret/${tenant}\"\n  destination = \"/run/x.env\"\n}")
	require.NoError(t, err)
	assert.Equal(t, "secret/demo", cfg.Drops[0].Secret)
	t.Setenv("DEADDROP_TENANT", "../x")
	_, err = load(t, login+"drop \"n\" {\n  secret = \"secret/x\"\n  destination = \"/run/x.env\"\n}")
	assert.ErrorContains(t, err, `DEADDROP_TENANT: "../x" is not an id`)
}

func TestATenantMayBeCalledAnythingThatIsAnID(t *testing.T) {
	folder(t)
	cfg, err := load(t, login+"template {\n  for_each = \"a/*\"\n  source = \"${each.key}.ctmpl\"\n  destination = \"/run/${each.key}\"\n}\n")
	require.NoError(t, err)
	for _, key := range []string{someKey, otherKey, "EACH"} {
		_, err = Expand(cfg.Each[0], key)
		assert.ErrorContains(t, err, "cannot be read", "it is tried as it is")
	}
}

func TestTemplatesOfForEachAreWatchedAndShared(t *testing.T) {
	folder(t)
	cfg, err := load(t, login+"template {\n  for_each = \"a/*\"\n  source = \"good.ctmpl\"\n  destination = \"/run/${each.key}\"\n}\n")
	require.NoError(t, err)
	assert.Equal(t, []string{"deaddrop.hcl", "good.ctmpl"}, cfg.Files)
	one, err := Expand(cfg.Each[0], "one")
	require.NoError(t, err)
	two, err := Expand(cfg.Each[0], "two")
	require.NoError(t, err)
	assert.Same(t, one[0].Template, two[0].Template)
	assert.Equal(t, []string{"deaddrop.hcl", "good.ctmpl"}, cfg.Files)

	cfg, err = load(t, login+"template {\n  for_each = \"a/*\"\n  source = \"${each.key}.ctmpl\"\n  destination = \"/run/${each.key}\"\n}\n")
	require.NoError(t, err)
	assert.Contains(t, cfg.String(), `source = "${each.key}.ctmpl"`)
	_, err = Expand(cfg.Each[0], "good")
	assert.NoError(t, err)
	_, err = Expand(cfg.Each[0], "missing")
	assert.ErrorContains(t, err, "template missing.ctmpl cannot be read")
}

func TestExpand_ReadsTheTemplateOfATenantAgain(t *testing.T) {
	folder(t)
	cfg, err := load(t, login+"template {\n  for_each = \"a/*\"\n  source = \"${each.key}.ctmpl\"\n  destination = \"/run/${each.key}\"\n}\n")
	require.NoError(t, err)
	content := func(text string) string {
		require.NoError(t, os.WriteFile("demo.ctmpl", []byte(text), 0o600))
		drops, err := Expand(cfg.Each[0], "demo")
		require.NoError(t, err)
		require.Len(t, drops, 1)
		assert.Equal(t, []string{"demo.ctmpl"}, drops[0].Files)
		result, err := drops[0].Template.Execute(render.Input{})
		require.NoError(t, err)
		return string(result.Content)
	}
	assert.Equal(t, "first", content("first"))
	assert.Equal(t, "second", content("second"))
	assert.Equal(t, []string{"deaddrop.hcl"}, cfg.Files, "it is no file of the configuration")
}

func TestExpand_EvaluatesAListedTenantOnce(t *testing.T) {
	folder(t)
	cfg, err := load(t, login+"template {\n  for_each = [\"good\"]\n  source = \"${each.key}.ctmpl\"\n  destination = \"/run/${each.key}\"\n}\n")
	require.NoError(t, err)
	require.NoError(t, os.Remove("good.ctmpl"))
	one, err := Expand(cfg.Each[0], "good")
	require.NoError(t, err)
	two, err := Expand(cfg.Each[0], "good")
	require.NoError(t, err)
	assert.Same(t, &one[0], &two[0])
	assert.Empty(t, one[0].Files)
	assert.Equal(t, []string{"deaddrop.hcl", "good.ctmpl"}, cfg.Files)
	_, err = Expand(cfg.Each[0], "another")
	assert.ErrorContains(t, err, "template another.ctmpl cannot be read")
}

func TestExpand_TakesTheSettingsAroundTheBlock(t *testing.T) {
	folder(t)
	cfg, err := load(t, login+`
strict  = true
tenant  = "platform"
service = "nexa"
wait {
  min = "2s"
}
exec {
  command = ["serve"]
}
set "s" {
  for_each    = "apps/*"
  destination = "/run/${each.key}"
  drop "d" {
    secret      = "secret/${tenant}/${service}"
    destination = "d.env"
  }
  reload {
    exec   = true
    action = "restart"
  }
}
`)
	require.NoError(t, err)
	drops, err := Expand(cfg.Each[0], "demo")
	require.NoError(t, err)
	require.Len(t, drops, 1)
	assert.True(t, drops[0].Strict)
	assert.Equal(t, "secret/demo/nexa", drops[0].Secret)
	assert.Equal(t, Wait{2 * time.Second, 8 * time.Second}, drops[0].Wait)
	assert.Equal(t, []Reload{{Target: Child{}}}, drops[0].Set.Reloads)
}

func TestExpand_MayRunSeveralTimesAtOnce(t *testing.T) {
	folder(t)
	cfg, err := load(t, login+"template {\n  for_each = \"a/*\"\n  contents = \"x\"\n  destination = \"/run/${each.key}\"\n}\n")
	require.NoError(t, err)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			drops, err := Expand(cfg.Each[0], fmt.Sprint("tenant-", i))
			assert.NoError(t, err)
			assert.Len(t, drops, 1)
		})
	}
	all.Wait()
}

func TestForEach_ShowsNoSecretsOfTheFileInLogs(t *testing.T) {
	folder(t)
	cfg, err := load(t, strings.Replace(login, `secret_id_file_path = "secret_id"`, `secret_id = "`+marker+`"`, 1)+perTenant)
	require.NoError(t, err)
	assert.Equal(t, "nexa", fmt.Sprintf("%+v", cfg.Each[0]))
}
