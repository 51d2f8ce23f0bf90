package devvault_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/devvault"
)

func enable(t *testing.T, client *api.Client, method string) {
	t.Helper()
	require.NoError(t, client.Sys().EnableAuthWithOptionsWithContext(t.Context(), method, &api.EnableAuthOptions{Type: method}))
}

func policy(t *testing.T, client *api.Client, name, rules string) {
	t.Helper()
	write(t, client, "sys/policies/acl/"+name, map[string]any{"policy": rules})
}

func TestAppRoleTokenWithoutDefaultPolicyMayNotLookUpOrRenewItself(t *testing.T) {
	server, client := root(t)
	policy(t, client, "app", `path "secret/data/app" { capabilities = ["read"] }`)
	_, err := client.KVv2("secret").Put(t.Context(), "app", map[string]any{"a": "b"})
	require.NoError(t, err)
	enable(t, client, "approle")
	write(t, client, "auth/approle/role/app", map[string]any{"token_policies": "app", "token_no_default_policy": true})
	role, err := client.Logical().ReadWithContext(t.Context(), "auth/approle/role/app/role-id")
	require.NoError(t, err)
	secretID := write(t, client, "auth/approle/role/app/secret-id", nil)
	login := write(t, client, "auth/approle/login", map[string]any{
		"role_id": role.Data["role_id"], "secret_id": secretID.Data["secret_id"],
	})
	assert.Equal(t, []string{"app"}, login.Auth.Policies)

	app := clientOf(t, server, login.Auth.ClientToken)
	secret, err := app.KVv2("secret").Get(t.Context(), "app")
	require.NoError(t, err)
	assert.Equal(t, "b", secret.Data["a"])
	_, err = app.Auth().Token().LookupSelfWithContext(t.Context())
	assert.ErrorContains(t, err, "permission denied")
	_, err = app.Auth().Token().RenewSelfWithContext(t.Context(), 60)
	assert.ErrorContains(t, err, "permission denied")
}

func TestUserpassLogsIn(t *testing.T) {
	_, client := root(t)
	enable(t, client, "userpass")
	write(t, client, "auth/userpass/users/ada", map[string]any{"password": "lovelace"})
	login := write(t, client, "auth/userpass/login/ada", map[string]any{"password": "lovelace"})
	assert.Equal(t, "ada", login.Auth.Metadata["username"])
	_, err := client.Logical().WriteWithContext(t.Context(), "auth/userpass/login/ada", map[string]any{"password": "byron"})
	assert.ErrorContains(t, err, "invalid username or password")
}

func TestTemplatedPolicyRestrictsAnEntityToItsOwnPaths(t *testing.T) {
	server, client := root(t)
	policy(t, client, "team", `path "secret/data/{{identity.entity.metadata.team}}/*" { capabilities = ["read"] }`)
	enable(t, client, "userpass")
	write(t, client, "auth/userpass/users/ada", map[string]any{"password": "lovelace", "token_policies": "team"})
	auths, err := client.Sys().ListAuthWithContext(t.Context())
	require.NoError(t, err)
	entity := write(t, client, "identity/entity", map[string]any{"name": "ada", "metadata": map[string]string{"team": "blue"}})
	write(t, client, "identity/entity-alias", map[string]any{
		"name": "ada", "canonical_id": entity.Data["id"], "mount_accessor": auths["userpass/"].Accessor,
	})
	for _, team := range []string{"blue", "red"} {
		_, err := client.KVv2("secret").Put(t.Context(), team+"/app", map[string]any{"team": team})
		require.NoError(t, err)
	}

	login := write(t, client, "auth/userpass/login/ada", map[string]any{"password": "lovelace"})
	ada := clientOf(t, server, login.Auth.ClientToken)
	secret, err := ada.KVv2("secret").Get(t.Context(), "blue/app")
	require.NoError(t, err)
	assert.Equal(t, "blue", secret.Data["team"])
	_, err = ada.KVv2("secret").Get(t.Context(), "red/app")
	assert.ErrorContains(t, err, "permission denied")
}

func TestJWTMethodTakesAPublicKey(t *testing.T) {
	_, client := root(t)
	enable(t, client, "jwt")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	require.NoError(t, err)
	write(t, client, "auth/jwt/config", map[string]any{
		"jwt_validation_pubkeys": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
	})
	_, err = client.Logical().WriteWithContext(t.Context(), "auth/jwt/login", map[string]any{"role": "none", "jwt": "x"})
	assert.ErrorContains(t, err, `role "none" could not be found`)
}

func TestCertMethodLogsInWithAClientCertificate(t *testing.T) {
	server := start(t, devvault.Options{TLS: true})
	client := clientOf(t, server, server.RootToken)
	pair := selfSigned(t)
	enable(t, client, "cert")
	write(t, client, "auth/cert/certs/agent", map[string]any{
		"certificate": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})),
	})

	config := configOf(t, server)
	config.HttpClient.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{pair}
	agent, err := api.NewClient(config)
	require.NoError(t, err)
	login := write(t, agent, "auth/cert/login", nil)
	assert.Equal(t, "agent", login.Auth.Metadata["cert_name"])
}

// selfSigned makes a client's certificate.
func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "agent"},
		NotBefore:    time.Now().Add(-time.Minute),
		NotAfter:     time.Now().Add(time.Hour),
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
