package render

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/render/secret"
)

const marker = "m4rker-0f-a-secret"

func kv2(path string, version int, pairs map[string]any) *Secret {
	return &Secret{Path: path, Version: version, Data: secret.Of(map[string]any{
		"data":     pairs,
		"metadata": map[string]any{"version": json.Number("3")},
	})}
}

func vault(secrets ...*Secret) func(Request) *Secret {
	return func(r Request) *Secret {
		for _, s := range secrets {
			if s.Path == r.Path || strings.Replace(s.Path, "/data/", "/", 1) == r.Path {
				return s
			}
		}
		return nil
	}
}

var (
	nexa = kv2("secret/data/tenant/demo/nexa", 3, map[string]any{
		"api_key": marker, "my-key": "dashed", "empty": "", "nothing": nil, "count": json.Number("12345678901234567890"),
		"list": []any{"a", "b"}, "db": map[string]any{"password": marker, "<html>": "&"},
	})
	smtp = kv2("secret/data/tenant/demo/smtp", 1, map[string]any{"host": "mail.example", "port": json.Number("587")})
)

func execute(t *testing.T, text string, dot *Secret) (Result, error) {
	t.Helper()
	tmpl, err := Parse("nexa.ctmpl", text, Options{})
	require.NoError(t, err)
	return tmpl.Execute(Input{Secret: vault(nexa, smtp), Env: func(string) (string, bool) { return "from-env", true }, Dot: dot})
}

func TestTemplateRenders(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"the API path as consul-template does":   {`{{ with secret "secret/data/tenant/demo/smtp" }}{{ .Data.data.host }}{{ end }}`, "mail.example"},
		"a logical path":                         {`{{ with secret "secret/tenant/demo/smtp" }}{{ .Data.data.port }}{{ end }}`, "587"},
		"metadata":                               {`{{ with secret "secret/tenant/demo/smtp" }}{{ .Data.metadata.version }}{{ end }}`, "3"},
		"large numbers unharmed":                 {`{{ with secret "secret/tenant/demo/nexa" }}{{ .Data.data.count }}{{ end }}`, "12345678901234567890"},
		"an empty value as nothing":              {`[{{ with secret "secret/tenant/demo/nexa" }}{{ .Data.data.empty }}{{ end }}]`, "[]"},
		"a key with a dash through index":        {`{{ with secret "secret/tenant/demo/nexa" }}{{ index .Data.data "my-key" }}{{ end }}`, "dashed"},
		"a list by index":                        {`{{ with secret "secret/tenant/demo/nexa" }}{{ index .Data.data.list 1 }}{{ end }}`, "b"},
		"pairs by range, sorted":                 {`{{ range $k, $v := (secret "secret/tenant/demo/smtp").Data.data }}{{ $k }}={{ $v }};{{ end }}`, "host=mail.example;port=587;"},
		"JSON with sorted keys and no HTML":      {`{{ with secret "secret/tenant/demo/nexa" }}{{ toJSON .Data.data.db }}{{ end }}`, `{"<html>":"&","password":"` + marker + `"}`},
		"pipelines":                              {`{{ with secret "secret/tenant/demo/smtp" }}{{ .Data.data.host | toUpper | replaceAll "." "_" }}{{ end }}`, "MAIL_EXAMPLE"},
		"base64 there and back":                  {`{{ "a b" | base64Encode }} {{ "YSBi" | base64Decode }}`, "YSBi a b"},
		"split and join":                         {`{{ split "," "a,b" | join "+" }}`, "a+b"},
		"the environment":                        {`{{ env "HOME" }}`, "from-env"},
		"variables and defined templates":        {`{{ define "x" }}<{{ . }}>{{ end }}{{ $s := secret "secret/tenant/demo/smtp" }}{{ template "x" $s.Data.data.host }}`, "<mail.example>"},
		"conditions, which write nothing by nil": {`{{ with secret "secret/tenant/demo/nexa" }}{{ if .Data.data.nothing }}yes{{ else }}no{{ end }}{{ end }}`, "no"},
	} {
		t.Run(name, func(t *testing.T) {
			res, err := execute(t, tc.text, nil)
			require.NoError(t, err)
			assert.Equal(t, tc.want, string(res.Content))
			assert.Empty(t, res.Missing)
		})
	}
}

func TestTemplateOfADropHasThePairsAsItsDot(t *testing.T) {
	res, err := execute(t, `{{ .host }}:{{ .port }}`, smtp)
	require.NoError(t, err)
	assert.Equal(t, "mail.example:587", string(res.Content))
}

func TestTemplate_SeesTheFieldsOfASecret(t *testing.T) {
	s := &Secret{
		Path: "database/creds/app", RequestID: "5a2b", LeaseID: "database/creds/app/1", LeaseDuration: 60, Renewable: true,
		Warnings: []string{"first", "second"}, Data: secret.Of(map[string]any{"username": "app"}),
	}
	tmpl, err := Parse("x", `{{ with secret "database/creds/app" }}{{ .RequestID }} {{ .LeaseID }} {{ .LeaseDuration }} {{ .Renewable }} {{ .Data.username }}{{ range .Warnings }} {{ . }}{{ end }}{{ end }}`, Options{})
	require.NoError(t, err)
	res, err := tmpl.Execute(Input{Secret: vault(s)})
	require.NoError(t, err)
	assert.Equal(t, "5a2b database/creds/app/1 60 true app first second", string(res.Content))
}

func TestUnknownSecretsAreAllAskedForInOneExecution(t *testing.T) {
	res, err := execute(t, `{{ with secret "secret/a" }}{{ .Data.data.x }}{{ end }}{{ with secret "secret/b" }}{{ .Data.x }}{{ end }}{{ with secret "secret/tenant/demo/smtp" }}{{ .Data.data.host }}{{ end }}`, nil)
	require.NoError(t, err)
	assert.Equal(t, []Request{Read("secret/a"), Read("secret/b")}, res.Missing)
	assert.Equal(t, []Request{Read("secret/a"), Read("secret/b"), Read("secret/tenant/demo/smtp")}, res.Uses)
	assert.Nil(t, res.Content)

	res, err = execute(t, `{{ (secret "secret/a").Data.data.x }}`, nil)
	require.NoError(t, err, "a field of a secret that is not there yet is no error")
	assert.Equal(t, []Request{Read("secret/a")}, res.Missing)
}

func TestMissingKeyNamesSecretAndKey(t *testing.T) {
	const with = `{{ with secret "secret/tenant/demo/nexa" }}`
	for name, tc := range map[string]struct {
		text string
		want MissingKeyError
	}{
		"a field":                       {with + "\n  {{ .Data.data.api_kye }}{{ end }}", MissingKeyError{Where: "nexa.ctmpl:2:11", Expr: ".Data.data.api_kye", Key: "api_kye", Secret: "secret/tenant/demo/nexa", Suggestion: "api_key"}},
		"an index":                      {with + `{{ index .Data.data "my-kee" }}{{ end }}`, MissingKeyError{Where: "nexa.ctmpl:1:47", Expr: `index .Data.data "my-kee"`, Key: "my-kee", Secret: "secret/tenant/demo/nexa", Suggestion: "my-key"}},
		"a null":                        {with + `{{ .Data.data.nothing }}{{ end }}`, MissingKeyError{Where: "nexa.ctmpl:1:47", Expr: ".Data.data.nothing", Key: "nothing", Null: true, Secret: "secret/tenant/demo/nexa", Suggestion: "nothing"}},
		"the outer of two secrets":      {with + `{{ $n := . }}{{ with secret "secret/tenant/demo/smtp" }}{{ $n.Data.data.hostname }}{{ end }}{{ end }}`, MissingKeyError{Where: "nexa.ctmpl:1:105", Expr: "$n.Data.data.hostname", Key: "hostname", Secret: "secret/tenant/demo/nexa"}},
		"the inner of two secrets":      {with + `{{ with secret "secret/tenant/demo/smtp" }}{{ .Data.data.prot }}{{ end }}{{ end }}`, MissingKeyError{Where: "nexa.ctmpl:1:95", Expr: ".Data.data.prot", Key: "prot", Secret: "secret/tenant/demo/smtp", Suggestion: "port"}},
		"a chain":                       {`{{ (secret "secret/tenant/demo/smtp").Data.data.hots }}`, MissingKeyError{Where: "nexa.ctmpl:1:12", Key: "hots", Secret: "secret/tenant/demo/smtp", Suggestion: "host"}},
		"a pipeline":                    {with + `{{ .Data.data.api_kye | toUpper }}{{ end }}`, MissingKeyError{Where: "nexa.ctmpl:1:52", Expr: ".Data.data.api_kye", Key: "api_kye", Secret: "secret/tenant/demo/nexa", Suggestion: "api_key"}},
		"a computed path":               {`{{ with secret (printf "secret/%s" "tenant/demo/smtp") }}{{ .Data.data.hots }}{{ end }}`, MissingKeyError{Where: "nexa.ctmpl:1:66", Expr: ".Data.data.hots", Key: "hots", Secret: "secret/tenant/demo/smtp", Suggestion: "host"}},
		"inside a defined template":     {`{{ define "x" }}{{ .Data.data.hots }}{{ end }}{{ template "x" (secret "secret/tenant/demo/smtp") }}`, MissingKeyError{Where: "nexa.ctmpl:1:25", Expr: ".Data.data.hots", Key: "hots", Secret: "secret/tenant/demo/smtp", Suggestion: "host"}},
		"a condition":                   {with + `{{ if .Data.data.api_kye }}x{{ end }}{{ end }}`, MissingKeyError{Where: "nexa.ctmpl:1:55", Expr: ".Data.data.api_kye", Key: "api_kye", Secret: "secret/tenant/demo/nexa", Suggestion: "api_key"}},
		"an else branch of another dot": {`{{ with "" }}x{{ else }}{{ with secret "secret/tenant/demo/smtp" }}{{ .Data.data.hots }}{{ end }}{{ end }}`, MissingKeyError{Where: "nexa.ctmpl:1:76", Expr: ".Data.data.hots", Key: "hots", Secret: "secret/tenant/demo/smtp", Suggestion: "host"}},
	} {
		t.Run(name, func(t *testing.T) {
			res, err := execute(t, tc.text, nil)
			var missing *MissingKeyError
			require.ErrorAs(t, err, &missing)
			assert.Equal(t, tc.want, *missing)
			assert.Nil(t, res.Content)
			assert.NotContains(t, err.Error(), marker)
		})
	}
	_, err := execute(t, "{{ .hots }}", smtp)
	assert.EqualError(t, err, `nexa.ctmpl:1:4: secret "secret/data/tenant/demo/smtp" has no key "hots" (at {{.hots}}); did you mean "host"?`)
}

func TestExecutionErrorsShowTheTemplateAndNoValue(t *testing.T) {
	const with = `{{ with secret "secret/tenant/demo/nexa" }}`
	for name, tc := range map[string]struct{ text, want string }{
		"not base64":           {with + `{{ base64Decode .Data.data.api_key }}{{ end }}`, `nexa.ctmpl:1:47: error calling base64Decode: the value is not base64 (at {{base64Decode .Data.data.api_key}})`},
		"a secret as a key":    {with + `{{ index .Data.data .Data.data.api_key }}{{ end }}`, `nexa.ctmpl:1:47: secret "secret/tenant/demo/nexa" has no key`},
		"a field of a string":  {with + `{{ .Data.data.api_key.x }}{{ end }}`, `the value has no field "x"`},
		"join of a string":     {with + `{{ join "," .Data.data.api_key }}{{ end }}`, `join wants a list, not text`},
		"index of a string":    {with + `{{ index .Data.data.api_key 9999 }}{{ end }}`, `outside of the list`},
		"a list out of bounds": {with + `{{ index .Data.data.list 2 }}{{ end }}`, `the index is outside of the list`},
		"a call of a value":    {with + `{{ call .Data.data.api_key }}{{ end }}`, `nexa.ctmpl:1:47`},
		"a wrong type":         {with + `{{ toUpper .Data.data.list }}{{ end }}`, `wrong type`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := execute(t, tc.text, nil)
			require.ErrorContains(t, err, tc.want)
			assert.NotContains(t, err.Error(), marker)
		})
	}
}

func TestParseErrorsPointAtTheMistake(t *testing.T) {
	for text, want := range map[string]string{
		"a\n  {{ secrt \"x\" }}":       `nexa.ctmpl:2:6: function "secrt" not defined; did you mean "secret"?`,
		"{{ whatisthisfunction }}":     `nexa.ctmpl:1:4: function "whatisthisfunction" not defined`,
		"ok\nok\n{{ if }}x{{ end }}":   `nexa.ctmpl:3:1: missing value for if`,
		"ok\n x {{ with . }}":          `nexa.ctmpl:2:4: unexpected EOF`,
		"{{ end }}":                    `nexa.ctmpl:1:1: unexpected {{end}}`,
		`{{ "unterminated }}`:          `nexa.ctmpl:1:1: unterminated quoted string`,
		"a {{ .x }} b {{ $undefined}}": `nexa.ctmpl:1:17: undefined variable "$undefined"`,
	} {
		_, err := Parse("nexa.ctmpl", text, Options{})
		var at *ParseError
		require.ErrorAs(t, err, &at, text)
		assert.Equal(t, want, err.Error(), text)
	}
}

func FuzzTemplatesNeverWriteNoValue(f *testing.F) {
	for _, seed := range []string{`{{ .Data }}`, `{{ with secret "secret/tenant/demo/nexa" }}{{ .Data.data.nothing }}{{ index .Data.data "x" }}{{ end }}`, `{{ $x := .y }}{{ $x }}`, `{{ define "a" }}{{ . }}{{ end }}{{ template "a" }}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		tmpl, err := Parse("fuzz", text, Options{})
		if err != nil {
			var at *ParseError
			require.ErrorAs(t, err, &at)
			return
		}
		if strings.Contains(text, "no value") || strings.Contains(text, "print") || strings.Contains(text, "html") || strings.Contains(text, "range") {
			return // text of its own, printers of lists, and loops without end
		}
		res, err := tmpl.Execute(Input{Secret: vault(nexa), Env: func(string) (string, bool) { return "", false }})
		if err == nil {
			assert.NotContains(t, string(res.Content), "<no value>")
		}
	})
}
