package session

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/render/secret"
)

func TestLooksLikeToken(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"hvs." + strings.Repeat("CAESI", 18):   true, // of Vault, with the state of the server in it
		"hvs.cO0JNuSupe63XAuTtonUE5Y0":         true,
		"hvb.AAAAAQ" + strings.Repeat("x", 99): true,
		"s.cO0JNuSupe63XAuTtonUE5Y0":           true,
		"s.cO0JNuSupe63XAuTtonUE5Y0.aB3dE":     true, // of a namespace
		"b.AAAAAQ" + strings.Repeat("x", 99):   true,
		"0f0e3ff2-2e3c-4d8b-8a0b-0a4a2f3f6a1c": false,
		"s.short":                              false,
		"s.cO0JNuSupe63XAuTtonUE5Y0 and more":  false,
		"hvs.":                                 false,
		"":                                     false,
	} {
		assert.Equal(t, want, LooksLikeToken(secret.Of(text)), text)
	}
}

func TestAppRole_HintsAtATokenGivenAsSecretID(t *testing.T) {
	t.Parallel()
	r := newRole(t, shared(t), nil)
	wrapped := r.wrapped()
	fromFile, fromVariable := r.authFile(wrapped), r.auth()
	fromVariable.SecretID = config.ID{Value: secret.Of(wrapped)}
	for name, tc := range map[string]struct {
		auth config.Auth
		want string
	}{
		"file":     {fromFile, "the secret id in " + fromFile.SecretID.File + ` looks like a token; if it is a wrapping token, set secret_id_response_wrapping_path = "auth/` + r.name + `/role/ROLE/secret-id"`},
		"variable": {fromVariable, `the secret id looks like a token; if it is a wrapping token, unwrap it first ("VAULT_TOKEN=… vault unwrap -field=secret_id")`},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := r.session(tc.auth)
			f := fault(t, s.Login(t.Context()), wrapped)
			assert.ErrorIs(t, f, ErrLogin)
			assert.Contains(t, f.Hint, tc.want)
		})
	}
}
