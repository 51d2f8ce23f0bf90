package vault

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestConnect_SendsNoTokenToAnotherOrigin(t *testing.T) {
	var requests atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	defer elsewhere.Close()
	redirecting := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		http.Redirect(w, q, elsewhere.URL+q.URL.Path, http.StatusTemporaryRedirect)
	}))
	defer redirecting.Close()
	t.Setenv("VAULT_ADDR", redirecting.URL)
	t.Setenv("VAULT_TOKEN", "hvs.token-of-the-operator")
	client, err := Connect()
	require.NoError(t, err)
	defer client.API().CloneConfig().HttpClient.CloseIdleConnections()
	other, err := client.With("hvs.another-token")
	require.NoError(t, err)
	for _, c := range []*Client{client, other} {
		_, err = c.Read(t.Context(), "secret/data/x", nil)
		require.ErrorContains(t, err, "Vault redirects to "+elsewhere.URL+", which is another origin")
		require.ErrorContains(t, err, "set VAULT_ADDR to the active node of Vault")
		_, err = c.Write(t.Context(), "auth/userpass/login/x", map[string]any{"password": "p"})
		require.Error(t, err)
	}
	assert.Zero(t, requests.Load())
}
