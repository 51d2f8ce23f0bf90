// Package tenants manages the secrets of tenants: versions of KV v2 at
// secret/tenant/ID/SERVICE. A tenant is there as long as one of its services is.
package tenants

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/smarteros/deaddrop/agent/tenant"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/vault"
)

// Store is the tenants of a Vault.
type Store struct {
	v *vault.Client
}

// Open returns the tenants of a Vault whose secret/ is KV v2, and an error that is
// a [vault.ErrMissing] where it is something else.
func Open(ctx context.Context, v *vault.Client) (*Store, error) {
	mount, err := v.Read(ctx, "sys/internal/ui/mounts/"+tenant.Mount, nil)
	if err != nil {
		if strings.Contains(err.Error(), "preflight") { // Vault does not tell which of the two it is.
			err = fmt.Errorf("%w; or nothing is mounted at %s/ yet, which \"tenantctl setup\" does", err, tenant.Mount)
		}
		return nil, fmt.Errorf("looking for the KV engine: %w", err)
	}
	var kind, version string
	if mount != nil {
		kind, _ = mount.Data["type"].(string)
		options, _ := mount.Data["options"].(map[string]any)
		version, _ = options["version"].(string)
	}
	switch {
	case kind != "kv":
		return nil, vault.Errorf(vault.ErrMissing, "%s/ is no KV engine but %q; \"tenantctl setup\" mounts one where nothing is", tenant.Mount, kind)
	case version != "2":
		return nil, vault.Errorf(vault.ErrMissing, "%s/ is KV version 1, which keeps no versions and cannot check and set; "+
			"turn it into version 2 with \"vault kv enable-versioning %s/\"", tenant.Mount, tenant.Mount)
	}
	return &Store{v}, nil
}

// at is the path of a secret in a part of the engine, such as "data".
func at(part, id, service string) string {
	return tenant.Mount + "/" + part + "/" + tenant.Folder + "/" + id + "/" + service
}

// label is what messages call a secret.
func label(id, service string) string { return tenant.Path(id, service) }

// IDs are the tenants that there are, in order.
func (s *Store) IDs(ctx context.Context) ([]string, error) {
	names, err := s.v.List(ctx, tenant.Mount+"/metadata/"+tenant.Folder)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, name := range names {
		if id, isFolder := strings.CutSuffix(name, "/"); isFolder {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// Services are those of a tenant in order, deleted ones too; none where there is no
// such tenant. What is in folders of it has a slash in its name.
func (s *Store) Services(ctx context.Context, id string) ([]string, error) {
	services, err := s.below(ctx, id, "")
	slices.Sort(services)
	return services, err
}

func (s *Store) below(ctx context.Context, id, folder string) ([]string, error) {
	names, err := s.v.List(ctx, at("metadata", id, folder))
	if err != nil {
		return nil, err
	}
	var services []string
	for _, name := range names {
		if !strings.HasSuffix(name, "/") {
			services = append(services, folder+name)
			continue
		}
		inside, err := s.below(ctx, id, folder+name)
		if err != nil {
			return nil, err
		}
		services = append(services, inside...)
	}
	return services, nil
}

// Existing are the services of a tenant, and an [vault.ErrMissing] where it has none.
func (s *Store) Existing(ctx context.Context, id string) ([]string, error) {
	services, err := s.Services(ctx, id)
	if err == nil && len(services) == 0 {
		err = vault.Errorf(vault.ErrMissing, "there is no tenant %s; \"tenantctl tenant list\" shows those that are there, \"tenantctl tenant add %s\" makes it", id, id)
	}
	return services, err
}

// Tenant is one tenant.
type Tenant struct {
	ID       string   `json:"tenant"`
	Services []string `json:"services"`
}

// List returns all tenants in order.
func (s *Store) List(ctx context.Context) ([]Tenant, error) {
	ids, err := s.IDs(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]Tenant, len(ids))
	err = vault.Each(ctx, len(ids), func(ctx context.Context, i int) error {
		services, err := s.Services(ctx, ids[i])
		all[i] = Tenant{ids[i], services}
		return err
	})
	return slices.DeleteFunc(all, func(t Tenant) bool { return len(t.Services) == 0 }), err // gone meanwhile
}

// The states of a version. A secret without versions is Empty: it was added
// without values, or none of its versions is left.
const (
	Live      = "live"
	Deleted   = "deleted"
	Destroyed = "destroyed"
	Empty     = "empty"
)

// Version is one version of a secret. Times are as Vault writes them, in RFC 3339.
type Version struct {
	Number  int    `json:"version"`
	State   string `json:"state"`
	Created string `json:"created,omitempty"`
	Deleted string `json:"deleted,omitempty"`
}

// Secret is a version of a service's secret. It has data where it is [Live].
type Secret struct {
	Tenant  string `json:"tenant"`
	Service string `json:"service"`
	Version
	Data map[string]any `json:"data,omitempty"`
}

// Read returns a version of a secret, which may be gone; 0 is the latest.
func (s *Store) Read(ctx context.Context, id, service string, number int) (*Secret, error) {
	secret, err := s.read(ctx, id, service, number)
	if err != nil || secret.State != Empty {
		return secret, err
	}
	// Vault answers the same to a secret that has no such version.
	versions, err := s.Versions(ctx, id, service)
	if err == nil && number != 0 {
		err = vault.Errorf(vault.ErrMissing, "%s has no version %d; \"tenantctl tenant versions %s %s\" shows those that are there", label(id, service), number, id, service)
	}
	if n := len(versions); err == nil && n > 0 {
		return nil, fmt.Errorf("reading %s: version %d is there but has no data", label(id, service), versions[n-1].Number)
	}
	return secret, err
}

// read returns an empty secret where none is there.
func (s *Store) read(ctx context.Context, id, service string, number int) (*Secret, error) {
	var query url.Values
	if number != 0 {
		query = url.Values{"version": {strconv.Itoa(number)}}
	}
	answer, err := s.v.Read(ctx, at("data", id, service), query)
	secret := &Secret{Tenant: id, Service: service, Version: Version{State: Empty}}
	if err != nil || answer == nil || answer.Data["metadata"] == nil {
		return secret, err
	}
	meta, _ := answer.Data["metadata"].(map[string]any)
	secret.Version = versionOf(wholeNumber(meta["version"]), meta)
	secret.Data, _ = answer.Data["data"].(map[string]any)
	return secret, nil
}

func versionOf(number int, meta map[string]any) Version {
	v := Version{Number: number, State: Live}
	v.Created, _ = meta["created_time"].(string)
	v.Deleted, _ = meta["deletion_time"].(string)
	if destroyed, _ := meta["destroyed"].(bool); destroyed {
		v.State = Destroyed
	} else if past(v.Deleted) {
		v.State = Deleted
	}
	return v
}

func wholeNumber(v any) int {
	number, _ := v.(json.Number)
	n, _ := number.Int64()
	return int(n)
}

// Versions are those of a secret that Vault still knows, the oldest first.
func (s *Store) Versions(ctx context.Context, id, service string) ([]Version, error) {
	answer, err := s.v.Read(ctx, at("metadata", id, service), nil)
	switch {
	case err != nil:
		return nil, err
	case answer == nil:
		return nil, vault.Errorf(vault.ErrMissing, "there is no %s; \"tenantctl tenant show %s\" shows what the tenant has", label(id, service), id)
	}
	found, _ := answer.Data["versions"].(map[string]any)
	versions := make([]Version, 0, len(found))
	for text, meta := range found {
		number, _ := strconv.Atoi(text)
		fields, _ := meta.(map[string]any)
		versions = append(versions, versionOf(number, fields))
	}
	slices.SortFunc(versions, func(a, b Version) int { return a.Number - b.Number })
	return versions, nil
}

// ReadAll reads the latest versions of several services of a tenant.
func (s *Store) ReadAll(ctx context.Context, id string, services []string) ([]Secret, error) {
	all := make([]Secret, len(services))
	err := vault.Each(ctx, len(services), func(ctx context.Context, i int) error {
		secret, err := s.Read(ctx, id, services[i], 0)
		if err == nil {
			all[i] = *secret
		}
		return err
	})
	return all, err
}
