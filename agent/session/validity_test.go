package session

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSession_TellsAValidTokenFromOneThatHasEnded(t *testing.T) {
	t.Parallel()
	server := shared(t)
	for name, settings := range map[string]map[string]any{
		"service token": {"token_no_default_policy": true},
		"batch token":   {"token_no_default_policy": true, "token_type": "batch", "token_ttl": "6s"},
		"few uses":      {"token_no_default_policy": true, "token_num_uses": 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRole(t, server, settings)
			s, _ := r.session(r.auth())
			valid, err := s.TokenIsValid(t.Context())
			require.NoError(t, err)
			assert.False(t, valid, "there is none")
			require.NoError(t, s.Login(t.Context()))
			for range 3 {
				valid, err := s.TokenIsValid(t.Context())
				require.NoError(t, err)
				assert.True(t, valid, "without any right, and without taking a use")
			}
			require.NoError(t, r.read(s))
			if name == "service token" {
				require.NoError(t, server.Client.Auth().Token().RevokeTree(s.current().value))
			}
			eventually(t, func() bool {
				valid, err := s.TokenIsValid(t.Context())
				return err == nil && !valid
			}, "it ends")
		})
	}
}

func TestSession_DoesNotCallATokenInvalidWhenSomethingElseAnswers(t *testing.T) {
	t.Parallel()
	r := newRole(t, shared(t), nil)
	p := newProxy(t, r.server)
	s, _ := newSession(t, p.through(), r.auth(), r.secretID)
	require.NoError(t, s.Login(t.Context()))
	for _, status := range []int{http.StatusForbidden, http.StatusNotFound, http.StatusServiceUnavailable} {
		p.failAt(visibleMounts, status) // Without Vault's JSON.
		_, err := s.TokenIsValid(t.Context())
		assert.Error(t, err, status)
	}
}
