package vault

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// The keys of an entity's metadata that the policies of the platform look at.
const (
	TenantKey  = "tenant_id"
	ServiceKey = "service"
)

// Entity is one of Vault's.
type Entity struct {
	ID       string            `json:"id"`
	Name     string            `json:"name"`
	Metadata map[string]string `json:"metadata"`
	Policies []string          `json:"policies"`
	Disabled bool              `json:"disabled"`
	Aliases  []Alias           `json:"aliases"`
}

// Alias joins an entity and a login.
type Alias struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	// Accessor is that of the login's mount.
	Accessor string            `json:"mount_accessor"`
	Custom   map[string]string `json:"custom_metadata"`
}

// Entity reads an entity by "id/ID" or "name/NAME"; nil if it is not there.
func (c *Client) Entity(ctx context.Context, by string) (*Entity, error) {
	path := "identity/entity/" + by
	answer, err := c.Read(ctx, path, nil)
	if err != nil || answer == nil {
		return nil, err
	}
	e, err := Decode[Entity](answer.Data)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return e, nil
}

// Decode makes a struct of an answer, by the json tags.
func Decode[T any](data map[string]any) (*T, error) {
	text, err := json.Marshal(data)
	if err != nil {
		return nil, err
	}
	var into T
	if err := json.Unmarshal(text, &into); err != nil {
		return nil, fmt.Errorf("the answer is not understood: %w", err)
	}
	return &into, nil
}

// IsCAS tells whether Vault has refused a version of a secret because it is not the
// one after the newest.
func IsCAS(err error) bool {
	return err != nil && strings.Contains(err.Error(), "check-and-set parameter did not match the current version")
}
