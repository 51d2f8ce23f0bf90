package templates

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/dotenv"
	"github.com/smarteros/deaddrop/render/secret"
)

// secrets are what the templates are rendered with. The API of Vault is not asked
// here: package main does that for one of them.
var secrets = map[string]map[string]any{
	"nexa":     {"api-key": "sk-1", "model": "large", "limits": map[string]any{"rpm": json.Number("60")}},
	"n8n":      {"encryption_key": "e1", "webhook_url": "https://n8n.example/"},
	"smtp":     {"host": "mail.example", "port": json.Number("587"), "user": "demo", "password": "it's $5", "from": "demo@mail.example"},
	"supabase": {"url": "https://x.supabase.co", "anon_key": "a1", "service_role_key": "s1"},
	"shopify":  {"shop": "demo.myshopify.com", "api_key": "k1", "api_secret": "s1", "webhook_secret": "w1"},
}

func input() render.Input {
	return render.Input{
		Tenant: "rut-76832940-3", Service: "app", Dialect: dotenv.Compose,
		Env: func(string) (string, bool) { return "", false },
		Secret: func(r render.Request) *render.Secret {
			if r.Path == "database/creds/app" {
				return &render.Secret{Path: r.Path, Data: secret.Of(map[string]any{"username": "v-app-1", "password": "p/w"})}
			}
			pairs := secrets[filepath.Base(r.Path)]
			if r.Path != "secret/tenant/rut-76832940-3/"+filepath.Base(r.Path) || pairs == nil {
				return nil
			}
			return &render.Secret{Path: r.Path, Version: 1, Data: secret.Of(map[string]any{"data": pairs})}
		},
	}
}

func TestTemplatesRenderAsInTheGoldenFiles(t *testing.T) {
	require.Len(t, Names(), 12)
	for _, name := range Names() {
		text, ok := Read(name)
		require.True(t, ok)
		tmpl, err := render.Parse("builtin:"+name, text, render.Options{})
		require.NoError(t, err)
		result, err := tmpl.Execute(input())
		require.NoError(t, err, name)
		require.Empty(t, result.Missing, name)
		golden := filepath.Join("testdata", name+".golden")
		if os.Getenv("UPDATE_GOLDEN") != "" {
			require.NoError(t, os.MkdirAll("testdata", 0o755))
			require.NoError(t, os.WriteFile(golden, result.Content, 0o644))
		}
		want, err := os.ReadFile(golden)
		require.NoError(t, err)
		assert.Equal(t, string(want), string(result.Content), name)
		_, ok = render.Entries(render.FormatOf(name), result.Content)
		assert.True(t, ok, "%s is of its format", name)
	}
}

func TestTemplatesSayWhatTheyMiss(t *testing.T) {
	in := input()
	in.Tenant = ""
	delete(secrets["smtp"], "password")
	text, _ := Read("smtp.env")
	tmpl, err := render.Parse("builtin:smtp.env", text, render.Options{})
	require.NoError(t, err)
	_, err = tmpl.Execute(in)
	require.ErrorContains(t, err, "no tenant is set: write tenant =")
	in.Tenant = "rut-76832940-3"
	_, err = tmpl.Execute(in)
	require.ErrorContains(t, err, `has no key "password"`)
	secrets["smtp"]["password"] = "it's $5"
}

func TestEveryTemplateHasATitle(t *testing.T) {
	for _, name := range Names() {
		assert.NotEmpty(t, Title(name), name)
		assert.NotContains(t, Title(name), "{", name)
	}
	_, ok := Read("nothing.env")
	assert.False(t, ok)
}
