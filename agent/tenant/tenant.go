// Package tenant knows how the tenants of a Vault are laid out: KV v2 at
// secret/, with secret/tenant/ID/SERVICE for each service of a tenant.
package tenant

import (
	"fmt"
	"strings"
)

const (
	// Mount is where the KV engine is mounted.
	Mount = "secret"
	// Folder is where the tenants are, below the mount.
	Folder = "tenant"
)

// maxID is the longest id. A file's name may have 255 bytes; Vault encrypts the names
// of secrets, which are nearly twice as long then, and keeps them in files.
const maxID = 100

// Services are those that the platform has for each tenant. A tenant may have
// others, too.
func Services() []string { return []string{"nexa", "shopify", "smtp", "supabase"} }

// Path is the logical path of a service's secret.
func Path(id, service string) string { return Mount + "/" + Folder + "/" + id + "/" + service }

// CheckID tells what is wrong with the id of a tenant or a service, which becomes
// a part of paths and policies: it has letters, digits, -, _ and single dots, so
// that it can neither lead out of a folder nor stand for several.
func CheckID(id string) error {
	switch {
	case id == "":
		return fmt.Errorf("an id is empty: write one such as rut-76832940-3")
	case len(id) > maxID:
		return fmt.Errorf("the id %.20q… has %d characters; %d are the most", id, len(id), maxID)
	case strings.ContainsFunc(id, isForeign) || strings.Contains(id, "..") || strings.HasPrefix(id, ".") || strings.HasSuffix(id, "."):
		return fmt.Errorf("%q is not an id: use letters, digits, -, _ and single dots within, such as rut-76832940-3", id)
	case strings.HasPrefix(id, "-"):
		return fmt.Errorf("%q is not an id: it begins with a hyphen, like a flag", id)
	}
	return nil
}

func isForeign(c rune) bool {
	return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.'
}
