package render

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/render/secret"
)

func parsed(t *testing.T, path string, params ...string) Request {
	t.Helper()
	r, err := ParseRequest(path, params...)
	require.NoError(t, err)
	return r
}

func TestRequestsThatAskTheSameAreEqual(t *testing.T) {
	same := parsed(t, "pki/issue/web", "common_name=a.example", "ttl=1h")
	assert.Equal(t, same, parsed(t, "pki/issue/web", "ttl=1h", " common_name = a.example"))
	assert.Equal(t, same, parsed(t, "pki/issue/web", "ttl=9h", "ttl=1h", "common_name=a.example"))
	assert.NotEqual(t, same, parsed(t, "pki/issue/web", "ttl=1h", "common_name=b.example"))
	assert.NotEqual(t, parsed(t, "x/y", "a=b=c"), parsed(t, "x/y", "a=b", "c="))
	assert.Equal(t, Read("x/y"), parsed(t, "x/y"))
	assert.Equal(t, map[string]any{"ttl": "1h", "common_name": "a.example"}, same.Params())
	assert.Nil(t, Read("x/y").Params())
	assert.Equal(t, "other", same.At("other").Path)
	assert.Equal(t, same.Params(), same.At("other").Params())
}

func TestARequestPrintsAsItsPathAlone(t *testing.T) {
	r := parsed(t, "transit/encrypt/x", "plaintext="+marker)
	asJSON, err := json.Marshal(map[Request]Request{r: r})
	require.NoError(t, err)
	for _, text := range []string{fmt.Sprintf("%v %+v %#v %s %q %d", r, r, r, r, r, r), fmt.Sprint([]any{r, &r}, struct{ r Request }{}), string(asJSON), r.LogValue().String()} {
		assert.NotContains(t, text, marker)
		assert.NotContains(t, text, "plaintext")
	}
	_, err = ParseRequest("transit/encrypt/x", "fine=1", marker)
	require.EqualError(t, err, `parameter 2 is not of the form "name=value"`)
}

func TestTemplateWritesAndIssues(t *testing.T) {
	answer := &Secret{Path: "pki/issue/web", LeaseID: "pki/issue/web/abc", LeaseDuration: 3600, Renewable: true, Data: secret.Of(map[string]any{
		"certificate": "CERT", "private_key": "KEY\n", "issuing_ca": "CA", "ca_chain": []any{"CA", "ROOT"},
	})}
	asked := map[Request]int{}
	in := Input{Secret: func(r Request) *Secret { asked[r]++; return answer }}
	for name, tc := range map[string]struct{ text, want string }{
		"a certificate as one set":        {`{{ with pkiCert "pki/issue/web" "common_name=a.example" }}{{ .Key }}{{ .Cert }}{{ .CA }}{{ range .CAChain }}[{{ . }}]{{ end }}{{ end }}`, "KEY\nCERT\nCA\n[CA\n][ROOT\n]"},
		"a certificate as Vault Agent":    {`{{ with pkiCert "pki/issue/web" "common_name=a.example" }}{{ .Data.Key }}{{ .Data.Cert }}{{ .Data.CA }}{{ end }}`, "KEY\nCERT\nCA\n"},
		"the write form of secret":        {`{{ with secret "pki/issue/web" "common_name=a.example" }}{{ .Data.certificate }}{{ end }}`, "CERT"},
		"parameters that are computed":    {`{{ $name := printf "common_name=%s.example" "a" }}{{ with secret "pki/issue/web" $name }}{{ .Data.issuing_ca }}{{ end }}`, "CA"},
		"what belongs to a lease":         {`{{ with secret "pki/issue/web" "common_name=a.example" }}{{ .LeaseID }} {{ .LeaseDuration }} {{ .Renewable }}{{ end }}`, "pki/issue/web/abc 3600 true"},
		"the same question in both forms": {`{{ (pkiCert "pki/issue/web" "common_name=a.example").Cert }}{{ (secret "pki/issue/web" "common_name=a.example").Data.certificate }}`, "CERT\nCERT"},
	} {
		t.Run(name, func(t *testing.T) {
			clear(asked)
			tmpl, err := Parse("x", tc.text, Options{})
			require.NoError(t, err)
			res, err := tmpl.Execute(in)
			require.NoError(t, err)
			assert.Equal(t, tc.want, string(res.Content))
			assert.Equal(t, []Request{parsed(t, "pki/issue/web", "common_name=a.example")}, res.Uses)
		})
	}
	for text, want := range map[string]string{
		`{{ secret "x/y" "nonsense" }}`: `parameter 1 is not of the form "name=value"`,
		`{{ pkiCert "x/y" "a=b" }}`:     `the answer of Vault holds no certificate`,
		`{{ with secret "pki/issue/web" "common_name=a" }}{{ .Data.certifcate }}{{ end }}`: `secret "pki/issue/web" has no key "certifcate"`,
	} {
		tmpl, err := Parse("x", text, Options{})
		require.NoError(t, err)
		_, err = tmpl.Execute(Input{Secret: func(Request) *Secret { return smtp }})
		require.ErrorContains(t, err, want, text)
	}
}
