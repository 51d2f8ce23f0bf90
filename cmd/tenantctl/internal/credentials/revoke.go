package credentials

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/vault"
)

// Revocation says what of a tenant's logins is to end.
type Revocation struct {
	Tenant string
	// Service, where it is not "", is the only one whose login is meant.
	Service string
	// Accessor, where it is not "", is that of the only secret id that is meant.
	Accessor string
	// Tokens ends the tokens, too, that the logins have.
	Tokens bool
	// All removes roles, entities and aliases. Tokens end with that.
	All bool
}

// Revoked tells what has ended. A login that is removed has ended with it all.
type Revoked struct {
	Login
	Role      string   `json:"role"`
	SecretIDs []string `json:"secret_id_accessors"`
	Tokens    int      `json:"tokens"`
	Removed   bool     `json:"removed"`
}

// Revoke ends logins. Secret ids go first, so that nobody gets a token meanwhile
// that isn't seen.
func (s *Store) Revoke(ctx context.Context, r Revocation) ([]Revoked, error) {
	found, err := s.meant(ctx, r)
	if err != nil {
		return nil, err
	}
	done := make([]Revoked, len(found))
	for i, role := range found {
		done[i] = Revoked{Login: role.Login, Role: role.Role, SecretIDs: []string{}, Removed: r.All}
		for _, id := range role.SecretIDs {
			if err := s.destroy(ctx, role.Role, id.Accessor); err != nil {
				return nil, err
			}
			done[i].SecretIDs = append(done[i].SecretIDs, id.Accessor)
		}
		if r.All {
			if err := s.v.Delete(ctx, roles+"/"+role.Role); err != nil {
				return nil, err
			}
		}
	}
	if r.Tokens || r.All {
		if err := s.endTokens(ctx, found, done, r.Accessor != ""); err != nil {
			return nil, err
		}
	}
	if r.All {
		for _, role := range found {
			if role.entity == nil {
				continue
			}
			if err := s.v.Delete(ctx, "identity/entity/id/"+role.entity.ID); err != nil {
				return nil, err
			}
		}
	}
	return done, nil
}

// meant are the logins, with those of their secret ids that are to end.
func (s *Store) meant(ctx context.Context, r Revocation) ([]Role, error) {
	found, err := s.List(ctx, r.Tenant)
	if err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(found, func(role Role) bool { return r.Service != "" && role.Service != r.Service })
	if len(found) == 0 {
		what := Login{r.Tenant, r.Service}
		return nil, vault.Errorf(vault.ErrMissing, "there are no credentials of the %s; \"tenantctl credentials list\" shows those that are there", what)
	}
	if r.Accessor == "" {
		return found, nil
	}
	for _, role := range found {
		for _, id := range role.SecretIDs {
			if id.Accessor == r.Accessor {
				role.SecretIDs = []SecretID{id}
				return []Role{role}, nil
			}
		}
	}
	return nil, vault.Errorf(vault.ErrMissing, "the %s has no secret id with the accessor %s; \"tenantctl credentials list %s\" shows those that are there", Login{r.Tenant, r.Service}, r.Accessor, r.Tenant)
}

// destroy destroys a secret id. One that has ended by itself is as good.
func (s *Store) destroy(ctx context.Context, role, accessor string) error {
	_, err := s.v.Write(ctx, roles+"/"+role+"/secret-id-accessor/destroy", map[string]any{"secret_id_accessor": accessor})
	if err == nil {
		return nil
	}
	if _, gone := s.secretID(ctx, role, accessor); errors.Is(gone, vault.ErrMissing) {
		return nil
	}
	return err
}

// endTokens revokes the tokens of the roles, or only those that came of the secret
// ids named there, and counts them.
func (s *Store) endTokens(ctx context.Context, found []Role, done []Revoked, ofSecretIDs bool) error {
	accessors, err := s.v.List(ctx, "auth/token/accessors")
	if err != nil {
		return err
	}
	var mu sync.Mutex
	return vault.Each(ctx, len(accessors), func(ctx context.Context, n int) error {
		token, err := s.token(ctx, accessors[n])
		if err != nil || token == nil {
			return err
		}
		i := slices.IndexFunc(found, func(role Role) bool { return token.of(role, ofSecretIDs) })
		if i < 0 {
			return nil
		}
		_, err = s.v.Write(ctx, "auth/token/revoke-accessor", map[string]any{"accessor": accessors[n]})
		if err != nil && !s.hasEnded(ctx, accessors[n], err) {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		done[i].Tokens++
		return nil
	})
}

// token is what Vault tells of a token by its accessor.
type token struct {
	EntityID string            `json:"entity_id"`
	Path     string            `json:"path"`
	Meta     map[string]string `json:"meta"`
}

// of tells whether the token is one of the role's, or of its secret ids.
func (t *token) of(role Role, ofSecretIDs bool) bool {
	if ofSecretIDs {
		return role.SecretIDs[0].Issue != "" && t.Meta["issue"] == role.SecretIDs[0].Issue
	}
	return role.entity != nil && t.EntityID == role.entity.ID || t.Path == "auth/"+approle+"/login" && t.Meta["role_name"] == role.Role
}

// token returns nil for one that has ended meanwhile.
func (s *Store) token(ctx context.Context, accessor string) (*token, error) {
	answer, err := s.v.Write(ctx, "auth/token/lookup-accessor", map[string]any{"accessor": accessor})
	switch {
	case err != nil && s.hasEnded(ctx, accessor, err), err == nil && answer == nil:
		return nil, nil
	case err != nil:
		return nil, err
	}
	return vault.Decode[token](answer.Data)
}

// hasEnded reports whether a request has failed since the token of an accessor has ended
// meanwhile. OpenBao may deny it then: the token has ended if it is not listed any more.
func (s *Store) hasEnded(ctx context.Context, accessor string, err error) bool {
	if strings.Contains(err.Error(), "invalid accessor") || strings.Contains(err.Error(), "bad token") {
		return true
	}
	if !errors.Is(err, session.ErrDenied) {
		return false
	}
	listed, err := s.v.List(ctx, "auth/token/accessors")
	return err == nil && !slices.Contains(listed, accessor)
}
