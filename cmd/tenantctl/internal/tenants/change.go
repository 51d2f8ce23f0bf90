package tenants

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/smarteros/deaddrop/agent/tenant"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/vault"
)

// Change is what an operator wants of a secret.
type Change struct {
	Set   map[string]any
	Unset []string
	// Replace leaves nothing but what is set.
	Replace bool
	// Create is for a secret that is not there yet, of a tenant that need not be.
	Create bool
	// CAS, where it is not nil, is the number of the version that it is a change of;
	// 0 is that of a secret that is not there.
	CAS *int
}

// Written tells what a change has done. It holds no values.
type Written struct {
	Tenant  string   `json:"tenant"`
	Service string   `json:"service"`
	Version int      `json:"version"`
	Added   []string `json:"added"`
	Changed []string `json:"changed"`
	Removed []string `json:"removed"`
}

// Unchanged tells whether all was as it should be, so that nothing was written.
func (w *Written) Unchanged() bool { return len(w.Added)+len(w.Changed)+len(w.Removed) == 0 }

// longestPause is the longest one before a change is tried again.
const longestPause = 50 * time.Millisecond

// Change changes a secret, on top of what others change meanwhile: where they have
// written a version, it is tried again on top of theirs, unless they have changed
// the same keys; that is a [vault.ErrConflict], as is a version that is not CAS.
func (s *Store) Change(ctx context.Context, id, service string, c Change) (*Written, error) {
	first, err := s.read(ctx, id, service, 0)
	if err != nil {
		return nil, err
	}
	if err := s.allows(ctx, first, c); err != nil {
		return nil, err
	}
	for base := first; ; {
		next := c.apply(base.Data)
		written := compare(base, next)
		if written.Unchanged() && base.State == Live {
			return written, nil
		}
		written.Version, err = s.put(ctx, base, next)
		if !errors.Is(err, vault.ErrConflict) {
			return written, err
		}
		pause(ctx)
		now, err := s.read(ctx, id, service, 0)
		if err != nil {
			return nil, err
		}
		if !c.Create && now.Number == base.Number+1 && reflect.DeepEqual(now.Data, next) {
			written.Version = now.Number // Vault did it, but its first answer got lost.
			return written, nil
		}
		if err := c.conflict(first, base, now); err != nil {
			return nil, err
		}
		base = now
	}
}

// allows tells whether the change can be made of what is there.
func (s *Store) allows(ctx context.Context, now *Secret, c Change) error {
	id, service := now.Tenant, now.Service
	name := label(id, service)
	switch {
	case c.CAS != nil && *c.CAS != now.Number:
		return vault.Errorf(vault.ErrConflict, "%s is at version %d and not at %d, so nothing was written; look at it with \"tenantctl tenant show %s %s\"", name, now.Number, *c.CAS, id, service)
	case c.Create && now.State == Live:
		return vault.Errorf(vault.ErrConflict, "%s is there already, with version %d; change it with \"tenantctl tenant set\"", name, now.Number)
	case (now.State == Deleted || now.State == Destroyed) && !c.Replace:
		return vault.Errorf(goneKind(c), "version %d of %s, its latest, is %s; bring one back with \"tenantctl tenant undelete %s %s\", or write all its keys anew with \"tenantctl tenant set %s %s --replace\"",
			now.Number, name, now.State, id, service, id, service)
	case now.State == Empty && !c.Create:
		if _, err := s.Existing(ctx, id); err != nil { // A slip in the id makes no tenant.
			return err
		}
	}
	for _, key := range c.Unset {
		if _, there := now.Data[key]; !there {
			return vault.Errorf(vault.ErrMissing, "%s has no key %q; it has %s", name, key, list(keysOf(now.Data)))
		}
	}
	return nil
}

// goneKind is that of a secret that is there, but deleted.
func goneKind(c Change) error {
	if c.Create {
		return vault.ErrConflict
	}
	return vault.ErrMissing
}

func (c Change) apply(data map[string]any) map[string]any {
	next := map[string]any{}
	if !c.Replace {
		maps.Copy(next, data)
	}
	maps.Copy(next, c.Set)
	for _, key := range c.Unset {
		delete(next, key)
	}
	return next
}

// conflict tells what somebody else has done since the secret was first read that
// the change would undo. base is what was last tried.
func (c Change) conflict(first, base, now *Secret) error {
	name := label(now.Tenant, now.Service)
	var keys []string
	for key := range c.keys() {
		was, wasThere := first.Data[key]
		is, isThere := now.Data[key]
		wanted, wantedThere := c.Set[key]
		if !same(was, wasThere, is, isThere) && !same(is, isThere, wanted, wantedThere) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	switch {
	case now.Number == base.Number:
		return vault.Errorf(vault.ErrConflict, "writing %s: Vault says that version %d is not its latest, but has no other", name, now.Number)
	case c.Replace, c.CAS != nil, c.Create:
		return vault.Errorf(vault.ErrConflict, "somebody else has written version %d of %s meanwhile, so nothing was written; look at it with \"tenantctl tenant show %s %s\"",
			now.Number, name, now.Tenant, now.Service)
	case now.State != Live:
		return vault.Errorf(vault.ErrConflict, "somebody else has made version %d of %s meanwhile, which is %s, so nothing was written", now.Number, name, now.State)
	case len(keys) > 0:
		return vault.Errorf(vault.ErrConflict, "somebody else has changed %s of %s meanwhile, in version %d or before, so nothing was written; look at it with \"tenantctl tenant show %s %s\"",
			list(keys), name, now.Number, now.Tenant, now.Service)
	}
	return nil
}

// keys are those that the operator changes.
func (c Change) keys() map[string]bool {
	keys := map[string]bool{}
	for key := range c.Set {
		keys[key] = true
	}
	for _, key := range c.Unset {
		keys[key] = true
	}
	return keys
}

func same(a any, aThere bool, b any, bThere bool) bool {
	return aThere == bThere && reflect.DeepEqual(a, b)
}

func compare(base *Secret, next map[string]any) *Written {
	w := &Written{Tenant: base.Tenant, Service: base.Service, Version: base.Number, Added: []string{}, Changed: []string{}, Removed: []string{}}
	for _, key := range keysOf(next) {
		if was, there := base.Data[key]; !there {
			w.Added = append(w.Added, key)
		} else if !reflect.DeepEqual(was, next[key]) {
			w.Changed = append(w.Changed, key)
		}
	}
	for _, key := range keysOf(base.Data) {
		if _, there := next[key]; !there {
			w.Removed = append(w.Removed, key)
		}
	}
	return w
}

func keysOf(data map[string]any) []string { return slices.Sorted(maps.Keys(data)) }

func list(keys []string) string {
	if len(keys) == 0 {
		return "none"
	}
	return strings.Join(keys, ", ")
}

// put writes the version after base, and returns its number. It is a
// [vault.ErrConflict] if base is not the latest.
func (s *Store) put(ctx context.Context, base *Secret, data map[string]any) (int, error) {
	path := at("data", base.Tenant, base.Service)
	answer, err := s.v.Write(ctx, path, map[string]any{"data": data, "options": map[string]any{"cas": base.Number}})
	if vault.IsCAS(err) {
		return 0, vault.Errorf(vault.ErrConflict, "%w", err)
	}
	if err != nil || answer == nil {
		return 0, err
	}
	return wholeNumber(answer.Data["version"]), nil
}

// pause lets the others go on, who would otherwise be met again at once.
func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(rand.N(longestPause)):
	}
}

// declare makes a service that has no values yet.
func (s *Store) declare(ctx context.Context, id, service string) error {
	// Vault does nothing unless it is told something; 0 is what it does by itself.
	_, err := s.v.Write(ctx, at("metadata", id, service), map[string]any{"max_versions": 0})
	return err
}

// Add makes a tenant that has the platform's services, without values.
func (s *Store) Add(ctx context.Context, id string) (*Tenant, error) {
	there, err := s.Services(ctx, id)
	switch {
	case err != nil:
		return nil, err
	case len(there) > 0:
		return nil, vault.Errorf(vault.ErrConflict, "the tenant %s is there already, with %s", id, list(there))
	}
	services := tenant.Services()
	err = vault.Each(ctx, len(services), func(ctx context.Context, i int) error { return s.declare(ctx, id, services[i]) })
	return &Tenant{id, services}, err
}
