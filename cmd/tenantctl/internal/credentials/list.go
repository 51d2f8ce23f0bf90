package credentials

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/vault"
)

// SecretID is what Vault tells of a secret id: all but itself.
type SecretID struct {
	Accessor string    `json:"accessor"`
	Created  time.Time `json:"created"`
	// Expires is nil where it has no end, UsesLeft where it has any number.
	Expires  *time.Time `json:"expires"`
	UsesLeft *int       `json:"uses_left"`
	CIDRs    []string   `json:"cidrs"`
	IssuedBy string     `json:"issued_by,omitempty"`
	Issue    string     `json:"issue,omitempty"`
}

// Role is a login that is there.
type Role struct {
	Login
	Role      string     `json:"role"`
	SecretIDs []SecretID `json:"secret_ids"`

	entity *vault.Entity
}

// List returns the logins of a tenant, or of all where id is "".
func (s *Store) List(ctx context.Context, id string) ([]Role, error) {
	names, err := s.v.List(ctx, roles)
	if err != nil {
		return nil, err
	}
	var found []Role
	for _, name := range names {
		l, ok := loginOf(name)
		if ok && (id == "" || strings.EqualFold(l.Tenant, id)) {
			found = append(found, Role{Login: l, Role: name})
		}
	}
	if err := vault.Each(ctx, len(found), func(ctx context.Context, i int) error { return s.fill(ctx, &found[i]) }); err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(found, func(r Role) bool { return id != "" && r.Tenant != id })
	slices.SortFunc(found, func(a, b Role) int {
		return cmp.Or(strings.Compare(a.Tenant, b.Tenant), strings.Compare(a.Service, b.Service))
	})
	return found, nil
}

// fill reads what is known of a role. Vault has its name in lower case; the entity
// knows better.
func (s *Store) fill(ctx context.Context, r *Role) error {
	var err error
	if r.entity, err = s.entity(ctx, r.Role); err != nil {
		return err
	}
	if r.entity != nil {
		l := Login{r.entity.Metadata[vault.TenantKey], r.entity.Metadata[vault.ServiceKey]}
		if strings.EqualFold(l.Role(), r.Role) {
			r.Login = l
		}
	}
	r.SecretIDs, err = s.secretIDs(ctx, r.Role)
	return err
}

// secretIDs are those of a role, the oldest first.
func (s *Store) secretIDs(ctx context.Context, role string) ([]SecretID, error) {
	accessors, err := s.v.List(ctx, roles+"/"+role+"/secret-id")
	if err != nil {
		return nil, err
	}
	ids := make([]SecretID, len(accessors))
	err = vault.Each(ctx, len(accessors), func(ctx context.Context, i int) error {
		id, err := s.secretID(ctx, role, accessors[i])
		if errors.Is(err, vault.ErrMissing) {
			return nil // It has ended meanwhile.
		}
		if err == nil {
			ids[i] = *id
		}
		return err
	})
	ids = slices.DeleteFunc(ids, func(id SecretID) bool { return id.Accessor == "" })
	slices.SortFunc(ids, func(a, b SecretID) int {
		return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.Accessor, b.Accessor))
	})
	return ids, err
}

func (s *Store) secretID(ctx context.Context, role, accessor string) (*SecretID, error) {
	path := roles + "/" + role + "/secret-id-accessor/lookup"
	answer, err := s.v.Write(ctx, path, map[string]any{"secret_id_accessor": accessor})
	if err != nil {
		return nil, err
	}
	if answer == nil {
		return nil, vault.Errorf(vault.ErrMissing, "the role %s has no secret id with the accessor %s", role, accessor)
	}
	data, err := vault.Decode[struct {
		Accessor string            `json:"secret_id_accessor"`
		Created  time.Time         `json:"creation_time"`
		Expires  time.Time         `json:"expiration_time"`
		Uses     int               `json:"secret_id_num_uses"`
		CIDRs    []string          `json:"cidr_list"`
		Metadata map[string]string `json:"metadata"`
	}](answer.Data)
	if err != nil {
		return nil, err
	}
	id := &SecretID{Accessor: data.Accessor, Created: data.Created, CIDRs: data.CIDRs, IssuedBy: data.Metadata["issued_by"], Issue: data.Metadata["issue"]}
	if !data.Expires.IsZero() {
		id.Expires = &data.Expires
	}
	if data.Uses > 0 {
		id.UsesLeft = &data.Uses
	}
	return id, nil
}
