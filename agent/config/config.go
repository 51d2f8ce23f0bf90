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

// The defaults of [Config.LeaseShare] and [Config.CertShare], before jitter.
const (
	DefaultLeaseShare = 0.9
	DefaultCertShare  = 2.0 / 3
)

// Config is a whole, valid configuration.
type Config struct {
	Vault Vault
	Auth  Auth
	// Interval is how often a static secret is read, before jitter.
	Interval time.Duration
	// LeaseShare and CertShare are the parts of their lives at which a lease
	// that cannot be renewed, and a certificate, are issued anew.
	LeaseShare, CertShare float64
	Drops                 []Drop
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

// Auth says how to log in.
type Auth struct {
	// Method is one of the Method constants.
	Method string
	// MountPath is where the method is mounted, without "auth/".
	MountPath string
	// Token is for MethodToken.
	Token secret.Value[string]
	// RoleID and SecretID are for MethodAppRole.
	RoleID   ID
	SecretID ID
	// WrappingPath says that the secret id's file holds a wrapping token, and
	// which path of the API must have made it.
	WrappingPath string
	// Role is the role of MethodJWT and MethodKubernetes, and the name of
	// MethodCert, which may be empty.
	Role string
	// File holds the token of MethodTokenFile, and the JWT of MethodJWT and
	// MethodKubernetes. It is read at every login.
	File string
	// Remove deletes the file of the secret id or JWT once a login with it has
	// succeeded.
	Remove bool
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
	// OnMissing is what becomes of the file when Vault says that a secret is
	// not there.
	OnMissing OnMissing
	// Reloads are run in order when the file has changed.
	Reloads []reload.Action
}

// OnMissing says what to do when a secret was deleted, destroyed or never there.
type OnMissing string

// The file is kept as it is; or it is removed; or the agent ends.
const (
	KeepFile   OnMissing = "keep"
	RemoveFile OnMissing = "remove"
	Fail       OnMissing = "fail"
)
