package tenants

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/vault"
)

// past tells whether a time of Vault's has come.
func past(text string) bool {
	at, err := time.Parse(time.RFC3339Nano, text)
	return err == nil && !at.After(time.Now())
}

// Picked are versions of a secret.
type Picked struct {
	Tenant   string `json:"tenant"`
	Service  string `json:"service"`
	Versions []int  `json:"versions"`
}

// Pick says which versions are meant: these numbers, all, or else the latest.
type Pick struct {
	Numbers []int
	All     bool
}

// Delete deletes versions of services, which can be taken back. What is deleted
// already stays as it is. The answer has what was deleted now.
//
// They are deleted by their numbers: a version that somebody writes meanwhile stays.
func (s *Store) Delete(ctx context.Context, id string, services []string, pick Pick) ([]Picked, error) {
	return s.act(ctx, "delete", id, services, pick, func(v Version) (bool, error) { return v.State == Live, nil })
}

// Undelete brings deleted versions back. Destroyed ones cannot be had again.
func (s *Store) Undelete(ctx context.Context, id string, services []string, pick Pick) ([]Picked, error) {
	return s.act(ctx, "undelete", id, services, pick, func(v Version) (bool, error) {
		if v.State == Destroyed && !pick.All {
			return false, vault.Errorf(vault.ErrMissing, "version %d is destroyed, which nobody can take back", v.Number)
		}
		return v.State == Deleted, nil
	})
}

// Destroy removes versions for good.
func (s *Store) Destroy(ctx context.Context, id string, services []string, pick Pick) ([]Picked, error) {
	return s.act(ctx, "destroy", id, services, pick, func(v Version) (bool, error) { return v.State != Destroyed, nil })
}

// act does something with versions, where they want it.
func (s *Store) act(ctx context.Context, verb, id string, services []string, pick Pick, wants func(Version) (bool, error)) ([]Picked, error) {
	done := make([]Picked, len(services))
	err := vault.Each(ctx, len(services), func(ctx context.Context, i int) error {
		versions, err := s.Versions(ctx, id, services[i])
		if err != nil {
			return err
		}
		chosen, err := pick.of(versions)
		if err != nil {
			return fmt.Errorf("%s: %w", label(id, services[i]), err)
		}
		numbers := []int{}
		for _, v := range chosen {
			ok, err := wants(v)
			if err != nil {
				return fmt.Errorf("%s: %w", label(id, services[i]), err)
			}
			if ok {
				numbers = append(numbers, v.Number)
			}
		}
		done[i] = Picked{id, services[i], numbers}
		if len(numbers) == 0 {
			return nil
		}
		_, err = s.v.Write(ctx, at(verb, id, services[i]), map[string]any{"versions": numbers})
		return err
	})
	return done, err
}

// of are the versions that are meant. A secret without any has none.
func (p Pick) of(versions []Version) ([]Version, error) {
	switch {
	case p.All || len(versions) == 0 && len(p.Numbers) == 0:
		return versions, nil
	case len(p.Numbers) == 0:
		return versions[len(versions)-1:], nil
	}
	var chosen []Version
	for _, number := range p.Numbers {
		i := slices.IndexFunc(versions, func(v Version) bool { return v.Number == number })
		if i < 0 {
			return nil, vault.Errorf(vault.ErrMissing, "there is no version %d", number)
		}
		chosen = append(chosen, versions[i])
	}
	return chosen, nil
}

// Remove removes services for good, with all versions and metadata.
func (s *Store) Remove(ctx context.Context, id string, services []string) error {
	return vault.Each(ctx, len(services), func(ctx context.Context, i int) error {
		return s.v.Delete(ctx, at("metadata", id, services[i]))
	})
}
