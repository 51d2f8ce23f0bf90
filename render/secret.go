// Package render turns secrets and a template into bytes. It is pure: it does
// no network, looks at no clock and touches no file, so the same inputs give
// the same bytes. Secrets that it needs are asked for by path and handed in.
package render

import (
	"maps"
	"slices"

	"github.com/smarteros/deaddrop/render/secret"
)

// Secret is one version of one secret as Vault answered it.
type Secret struct {
	// Path is the API path that was read, such as secret/data/tenant/demo/nexa.
	Path string
	// Version is the KV v2 version, counting from 1; 0 for engines without versions.
	Version int
	// Created is when Vault made this version, as Vault writes it (RFC 3339).
	// With Version it tells two lives of a path apart: deleting the metadata
	// of a KV v2 secret starts its versions at 1 again.
	Created string
	// LeaseID, LeaseDuration in seconds and Renewable are those of the answer;
	// zero for what has no lease.
	LeaseID       string
	LeaseDuration int
	Renewable     bool
	// RequestID is Vault's id of the request that this was read by, as its audit log has
	// it. It differs each time, so it says nothing of whether the secret has changed.
	RequestID string
	// Warnings are Vault's own, such as of a path that is not for this version of KV.
	Warnings []string
	// Data is the "data" object of the answer: the pairs for KV v1, and an
	// object with "data" and "metadata" for KV v2. Numbers are json.Number.
	Data secret.Value[map[string]any]
}

// pairs returns the key-value pairs that the owner of the secret wrote.
func (s *Secret) pairs() map[string]any {
	data := s.Data.Reveal()
	if s.Version == 0 {
		return data
	}
	pairs, _ := data["data"].(map[string]any)
	return pairs
}

// copied is the data for a template, which may change what it gets: the functions
// of sprig do.
func (s *Secret) copied() map[string]any { return copyOf(s.Data.Reveal()) }

func copyOf(data map[string]any) map[string]any {
	return convertMap(data, func(v any) any { return v })
}

// Keys returns the names of the pairs, sorted; none for a nil Secret.
func (s *Secret) Keys() []string {
	if s == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(s.pairs()))
}
