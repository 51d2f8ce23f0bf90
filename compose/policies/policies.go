// Package policies holds the policies of the platform, which tenantctl writes to
// Vault.
package policies

import (
	"embed"
	"strings"
)

//go:embed *.hcl
var files embed.FS

// The names of the policies.
const (
	Tenant        = "tenant-policy"
	TenantService = "tenant-service-policy"
	NexaRuntime   = "nexa-runtime-policy"
	Admin         = "admin-policy"
)

// Names are those of all policies, in order.
func Names() []string { return []string{Admin, NexaRuntime, Tenant, TenantService} }

// Read returns the text of a policy.
func Read(name string) string {
	text, err := files.ReadFile(name + ".hcl")
	if err != nil {
		panic("there is no policy " + name) // It is one of the names above.
	}
	return strings.TrimSpace(string(text)) + "\n"
}
