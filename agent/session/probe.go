package session

import (
	"log/slog"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/smarteros/deaddrop/agent/config"
)

// This file is for those who look at a connection rather than use it.

// Grant is what a login has given, as far as Vault has told.
type Grant struct {
	// TTL is the life of the token; 0 for one without an end, or not known.
	TTL       time.Duration
	Renewable bool
	// Policies are empty where they are not known: of a token that was given.
	Policies []string
	// Uses is how many requests the token is good for; 0 for any number.
	Uses int
}

// Probe prepares a session that logs in once: a request that is denied is not made
// again with another token, which would use up a secret id. It removes no file after
// reading it. What the login gives is in grant then.
func Probe(vault config.Vault, auth config.Auth, log *slog.Logger) (s *Session, grant *Grant, err error) {
	auth.Remove = false
	if s, err = New(vault, auth, log); err != nil {
		return nil, nil, err
	}
	s.fixed, s.grant = true, &Grant{}
	return s, s.grant, nil
}

// OwnsToken tells whether the token was made by a login of the session, so that it
// is the session's to revoke.
func (s *Session) OwnsToken() bool { return s.own }

// Client returns a client without a token that connects as the session does.
func (s *Session) Client() *api.Client { return s.client() }
