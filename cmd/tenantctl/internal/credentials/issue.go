package credentials

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/vault"
)

// The life of a token, where nothing else is said.
const (
	tokenTTL    = time.Hour
	tokenMaxTTL = 24 * time.Hour
)

// Options are those of a secret id, and of the role it is for.
type Options struct {
	// CIDRs are the networks from which the secret id and its tokens can be used;
	// none means any.
	CIDRs []string
	// Uses is how many logins the secret id is good for, and TTL for how long; 0 is
	// without an end.
	Uses int
	TTL  time.Duration
	// TokenTTL and TokenMaxTTL change the role, for all who log in with it. 0 leaves
	// them as they are: an hour and a day, if nobody said otherwise.
	TokenTTL, TokenMaxTTL time.Duration
	// WrapTTL is how long a wrapped secret id can be unwrapped. 0 does not wrap it.
	WrapTTL time.Duration
}

// Issued is a login with a new secret id.
type Issued struct {
	Login
	Role   string `json:"role"`
	Policy string `json:"policy"`
	RoleID string `json:"role_id"`
	// Issue is a random name of this secret id, which is in its metadata and in that
	// of its tokens.
	Issue string `json:"issue"`
	// SecretID and Accessor, or else Wrapped, are there.
	SecretID string   `json:"secret_id,omitempty"`
	Accessor string   `json:"secret_id_accessor,omitempty"`
	Wrapped  *Wrapped `json:"wrapped,omitempty"`
	// Changed is what of role, entity and alias was made or changed.
	Changed []string `json:"changed"`
}

// Wrapped is a secret id in a response that can be unwrapped once.
type Wrapped struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
	// Path is where it was made, by which who unwraps it knows that nobody has put
	// in another.
	Path string `json:"creation_path"`
}

// Issue makes a login, unless it is there, and a new secret id for it. It is a
// [vault.ErrConflict] where the names are taken by another tenant, whose id differs
// in case, and a [vault.ErrMissing] without the policy.
func (s *Store) Issue(ctx context.Context, l Login, o Options) (*Issued, error) {
	if policy, err := s.v.Read(ctx, "sys/policies/acl/"+l.Policy(), nil); err != nil {
		return nil, err
	} else if policy == nil {
		return nil, vault.Errorf(vault.ErrMissing, "the policy %s is not in Vault; \"tenantctl setup\" writes it", l.Policy())
	}
	issued := &Issued{Login: l, Role: l.Role(), Policy: l.Policy(), Issue: strings.ToLower(rand.Text()), Changed: []string{}}
	done := func(what string, did bool) {
		if did {
			issued.Changed = append(issued.Changed, what)
		}
	}
	owner, did, err := s.ensureEntity(ctx, l)
	if err != nil {
		return nil, err
	}
	done("entity", did)
	if did, err = s.ensureRole(ctx, l, o); err != nil {
		return nil, err
	}
	done("role", did)
	if issued.RoleID, err = s.roleID(ctx, l.Role()); err != nil {
		return nil, err
	}
	if did, err = s.ensureAlias(ctx, l, owner, issued.RoleID); err != nil {
		return nil, err
	}
	done("alias", did)
	return issued, s.newSecretID(ctx, issued, o)
}

// ensureEntity makes the login's entity, or gives it its metadata. Other metadata
// stays.
func (s *Store) ensureEntity(ctx context.Context, l Login) (*vault.Entity, bool, error) {
	name := l.Role()
	e, err := s.entity(ctx, name)
	if err != nil {
		return nil, false, err
	}
	metadata := map[string]string{}
	if e != nil {
		if !owns(e, l) {
			return nil, false, taken(l, "the entity "+e.Name, e)
		}
		metadata = maps.Clone(e.Metadata)
		if metadata == nil {
			metadata = map[string]string{}
		}
	}
	metadata[vault.TenantKey] = l.Tenant
	if l.Service != "" {
		metadata[vault.ServiceKey] = l.Service
	}
	if e != nil && maps.Equal(metadata, e.Metadata) {
		return e, false, nil
	}
	if _, err := s.v.Write(ctx, "identity/entity/name/"+name, map[string]any{"metadata": metadata}); err != nil {
		return nil, false, err
	}
	e, err = s.entity(ctx, name)
	if err == nil && e == nil {
		err = fmt.Errorf("reading the entity %s that was just written: %w", name, vault.ErrMissing)
	}
	return e, true, err
}

func taken(l Login, what string, by *vault.Entity) error {
	return vault.Errorf(vault.ErrConflict, "%s, which the login of the %s needs, belongs to tenant %q, service %q; Vault does not tell upper and lower case apart in these names",
		what, l, by.Metadata[vault.TenantKey], by.Metadata[vault.ServiceKey])
}

// ensureRole makes the role, or sets right what a login relies on.
func (s *Store) ensureRole(ctx context.Context, l Login, o Options) (bool, error) {
	path := roles + "/" + l.Role()
	answer, err := s.v.Read(ctx, path, nil)
	if err != nil {
		return false, err
	}
	want := map[string]any{
		"token_policies": []any{l.Policy()}, "token_no_default_policy": true, "bind_secret_id": true,
		"token_type": "default", "token_num_uses": 0,
		"token_period": 0, // A period would lift the bound of token_max_ttl.
	}
	var has map[string]any
	if answer == nil {
		want["token_ttl"], want["token_max_ttl"] = seconds(tokenTTL), seconds(tokenMaxTTL)
	} else {
		has = answer.Data
	}
	if o.TokenTTL > 0 {
		want["token_ttl"] = seconds(o.TokenTTL)
	}
	if o.TokenMaxTTL > 0 {
		want["token_max_ttl"] = seconds(o.TokenMaxTTL)
	}
	same := has != nil
	for key, value := range want {
		same = same && fmt.Sprint(has[key]) == fmt.Sprint(value)
	}
	if same {
		return false, nil
	}
	_, err = s.v.Write(ctx, path, want)
	return true, err
}

func seconds(d time.Duration) int { return int(d / time.Second) }

func (s *Store) roleID(ctx context.Context, role string) (string, error) {
	answer, err := s.v.Read(ctx, roles+"/"+role+"/role-id", nil)
	if err != nil {
		return "", err
	}
	if answer == nil {
		return "", vault.Errorf(vault.ErrMissing, "the role %s was deleted meanwhile", role)
	}
	id, _ := answer.Data["role_id"].(string)
	return id, nil
}

// ensureAlias joins role and entity.
func (s *Store) ensureAlias(ctx context.Context, l Login, owner *vault.Entity, roleID string) (bool, error) {
	answer, err := s.v.Write(ctx, "identity/lookup/entity", map[string]any{"alias_name": roleID, "alias_mount_accessor": s.accessor})
	if err != nil {
		return false, err
	}
	if answer != nil {
		other, err := vault.Decode[vault.Entity](answer.Data)
		switch {
		case err != nil:
			return false, err
		case other.ID == owner.ID:
			return false, nil
		case !owns(other, l):
			return false, taken(l, "the role "+l.Role(), other)
		} // Vault has made it by itself, when somebody logged in without an alias.
	}
	for _, alias := range owner.Aliases { // That of a role that was deleted.
		if alias.Accessor == s.accessor {
			if err := s.v.Delete(ctx, "identity/entity-alias/id/"+alias.ID); err != nil {
				return false, err
			}
		}
	}
	_, err = s.v.Write(ctx, "identity/entity-alias", map[string]any{"name": roleID, "canonical_id": owner.ID, "mount_accessor": s.accessor})
	return true, err
}

// newSecretID makes a secret id and puts it into the answer.
func (s *Store) newSecretID(ctx context.Context, issued *Issued, o Options) error {
	metadata := map[string]string{vault.TenantKey: issued.Tenant, "issue": issued.Issue, "issued_by": s.self(ctx)}
	if issued.Service != "" {
		metadata[vault.ServiceKey] = issued.Service
	}
	text, err := json.Marshal(metadata)
	if err != nil {
		return err
	}
	data := map[string]any{"metadata": string(text)}
	if len(o.CIDRs) > 0 {
		data["cidr_list"], data["token_bound_cidrs"] = o.CIDRs, o.CIDRs
	}
	if o.Uses > 0 {
		data["num_uses"] = o.Uses
	}
	if o.TTL > 0 {
		data["ttl"] = seconds(o.TTL)
	}
	path := roles + "/" + issued.Role + "/secret-id"
	client, err := s.wrapping(o.WrapTTL)
	if err != nil {
		return err
	}
	answer, err := client.Write(ctx, path, data)
	if err != nil {
		return err
	}
	if o.WrapTTL == 0 {
		issued.SecretID, _ = answer.Data["secret_id"].(string)
		issued.Accessor, _ = answer.Data["secret_id_accessor"].(string)
		return nil
	}
	issued.Wrapped = wrapped(answer.WrapInfo)
	return nil
}

// wrapping returns a client whose answers are wrapped, unless ttl is 0.
func (s *Store) wrapping(ttl time.Duration) (*vault.Client, error) {
	client, err := s.v.With(s.v.API().Token())
	if err != nil {
		return nil, err
	}
	client.API().SetWrappingLookupFunc(func(string, string) string {
		if ttl == 0 {
			return ""
		}
		return ttl.String()
	})
	return client, nil
}

func wrapped(info *api.SecretWrapInfo) *Wrapped {
	return &Wrapped{Token: info.Token, Path: info.CreationPath, Expires: info.CreationTime.Add(time.Duration(info.TTL) * time.Second)}
}

// self is the name of who issues, as far as that may be known.
func (s *Store) self(ctx context.Context) string {
	answer, err := s.v.Read(ctx, "auth/token/lookup-self", nil)
	if err != nil || answer == nil {
		return "unknown"
	}
	name, _ := answer.Data["display_name"].(string)
	return name
}

// TakeBack destroys a secret id that could not be handed over.
func (s *Store) TakeBack(ctx context.Context, issued *Issued) error {
	ids, err := s.secretIDs(ctx, issued.Role)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(ids, func(id SecretID) bool { return id.Issue == issued.Issue })
	if i < 0 {
		return nil
	}
	return s.destroy(ctx, issued.Role, ids[i].Accessor)
}
