// Package config reads deaddrop's configuration language, which is HCL with the
// vocabulary of Vault Agent. Whatever is wrong is found here, before anything
// is contacted, and named with file, line and column.
package config

import (
	"io/fs"
	"time"

	"github.com/smarteros/deaddrop/agent/reload"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/secret"
)

// DefaultInterval is how often a static secret is looked at.
const DefaultInterval = 15 * time.Second

// Config is a whole, valid configuration.
type Config struct {
	Vault Vault
	Auth  Auth
	// Interval is how often a static secret is read, before jitter.
	Interval time.Duration
	Drops    []Drop
	// Files are the configuration and template files that it was read from.
	Files []string
}

// Vault says where Vault is. Empty fields are left to the VAULT_* environment
// variables, which win over the file as they do for Vault Agent.
type Vault struct {
	Address       string
	Namespace     string
	CACert        string
	CAPath        string
	ClientCert    string
	ClientKey     string
	TLSServerName string
	TLSSkipVerify bool
}

// Auth says how to log in: by token where Token is set, else with AppRole.
type Auth struct {
	Token secret.Value[string]
	// MountPath is where AppRole is mounted, without "auth/".
	MountPath string
	RoleID    ID
	SecretID  ID
}

// ID is a role id or secret id: in a file, which is read at every login, or as
// a value.
type ID struct {
	File  string
	Value secret.Value[string]
}

// Drop is one file to keep current.
type Drop struct {
	// Name is the block's label, or the destination where it has none.
	Name string
	// Secret is the path whose pairs are written; "" for a template that asks
	// for its secrets itself.
	Secret string
	Format render.Format
	// Template is set where Format is [render.FormatTemplate].
	Template    *render.Template
	Destination string
	Mode        fs.FileMode
	CreateDirs  bool
	// Reloads are run in order when the file has changed.
	Reloads []reload.Action
}
