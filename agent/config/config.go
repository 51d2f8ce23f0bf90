// Package config reads deaddrop's configuration language, which is HCL with the
// vocabulary of Vault Agent. Whatever is wrong is found here, before anything
// is contacted, and named with file, line and column.
package config

import (
	"io/fs"
	"path/filepath"
	"syscall"
	"time"

	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/drop"
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
	// Tenant and Service are what templates get from the functions of that name.
	Tenant, Service string
	Drops           []Drop
	// Each are the blocks that stand for one drop, or set, per tenant.
	Each []*ForEach
	// Supervise is the command that gets secrets in its environment, or nil.
	Supervise *Supervise
	// Wait is for drops that say nothing else, and for the variables of Supervise.
	Wait Wait
	// Splay spreads the reloads of many agents: each batch waits for a random time
	// up to it.
	Splay time.Duration
	// LockMemory keeps the agent's memory out of swap.
	LockMemory bool
	// Listeners are where one may ask how the agent is.
	Listeners []Listener
	// Sinks get every token.
	Sinks []Sink
	// Once ends the agent when all files are current, as Vault Agent's
	// exit_after_auth does.
	Once bool
	// PIDFile, LogLevel, LogFormat and LogFile are Vault Agent's; "" where they
	// are not set. Flags win.
	PIDFile, LogLevel, LogFormat, LogFile string
	// StateDir is an absolute path; "" for the default, see package journal.
	StateDir string
	// Warnings are what the files say that has no effect, or not the expected one.
	Warnings []Problem
	// Sources are Files with the digest of what was read of each.
	Sources Sources
	// Files are the files and folders that it was read from, templates included.
	Files []string
}

// Sink is a file that gets the token.
type Sink struct {
	Path string
	Mode fs.FileMode
	// UID and GID are the owner that the file gets; nil for the agent's own.
	UID, GID *int
}

// DefaultStopGrace is how long a supervised command may take to end after its stop signal.
// 30 s is what Vault Agent gives.
const DefaultStopGrace = 30 * time.Second

// Supervise is a command that the agent runs with secrets in its environment.
type Supervise struct {
	Exec
	Env []EnvTemplate
}

// Exec says how a supervised command is run.
type Exec struct {
	// Args are the program and its arguments; at least one.
	Args []string
	// StopSignal asks the program to end. After Grace it is killed, and its children with
	// it.
	StopSignal syscall.Signal
	Grace      time.Duration
	// Restart starts the program anew when its environment changes.
	Restart bool
	// ReloadSignal is sent when its environment changes, instead of a restart; 0
	// is none. The program keeps the environment that it was started with.
	ReloadSignal syscall.Signal
}

// EnvTemplate is one variable of a supervised command.
type EnvTemplate struct {
	Name     string
	Template *render.Template
	// Source is the template's file, or "" for one that stands in the
	// configuration.
	Source string
	Text   TemplateText
}

// TemplateText is what a configuration says of a template besides its file.
type TemplateText struct {
	// Contents is the template; "" for one in a file, and for the drops of a tenant.
	Contents string
	// Left and Right are its delimiters; "" for the default.
	Left, Right string
	// Lenient writes "<no value>" for a key that is not there.
	Lenient bool
	// Denied are functions that it may not call.
	Denied []string
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
	// AllowRedirectsTo are the hosts, as host:port, to which Vault may redirect a request
	// besides its own address. There is no variable for them.
	AllowRedirectsTo []string
}

// Auth says how to log in.
type Auth struct {
	// Method is one of the Method constants.
	Method string
	// MountPath is where the method is mounted, without "auth/".
	MountPath string
	// Token is for MethodToken.
	Token secret.Value[string]
	// RoleID and SecretID are for MethodAppRole. Without a secret id the login is with
	// the role id alone.
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
	// Key is the tenant that a block with for_each has made the drop for, or "".
	Key string
	// Secret is the path whose pairs are written; "" for a template that asks
	// for its secrets itself.
	Secret string
	render.Encoding
	// Template is set where Format is [render.FormatTemplate].
	Template *render.Template
	// Source is the template's file, "builtin:NAME", or "" for one that stands in
	// the configuration.
	Source string
	Text   TemplateText
	// Sandbox is the folder that the template's function "file" is bound to, or "".
	Sandbox string
	// Destination is the file. In a set it is in the set's folder.
	Destination string
	Mode        fs.FileMode
	// UID and GID are the owner that the file gets; nil for the agent's own, or
	// that of the file that is there.
	UID, GID *int
	// CreateDirs makes missing folders, with DirMode if that is not 0: see [drop.Plan].
	CreateDirs bool
	DirMode    fs.FileMode
	// InPlace writes into the file that is there instead of replacing it.
	InPlace bool
	// Backup keeps the content before.
	Backup bool
	// Place is that of the block with for_each, or "": see [drop.File].
	Place string
	// Strict refuses a folder that is not the agent's alone, see [drop.CheckTrusted],
	// RequireTmpfs one that is on a disk. Without them there is a warning of a folder
	// that every user may write to, or that is on a disk.
	Strict, RequireTmpfs bool
	// Set is what the drop belongs to, or nil.
	Set *Set
	// Check runs before new content is put in place, or is nil.
	Check *Check
	// OnMissing is what becomes of the file when Vault says that a secret is
	// not there.
	OnMissing OnMissing
	// OnTamper is what becomes of a file that another program has changed or removed.
	OnTamper OnTamper
	// RemoveOnExit takes the file away when the agent stops.
	RemoveOnExit bool
	// Wait gathers changes of the file. In a set it is the set's.
	Wait Wait
	// Reloads are run in order when the file has changed.
	Reloads []Reload
	// userOfKey and groupOfKey name the owner where that depends on the key, and the key
	// stands for any.
	userOfKey, groupOfKey string
	// Files are those that it was made of besides the files of the configuration: the
	// templates of a tenant.
	Files []string
}

// File is the file that the drop writes, without its content.
func (d *Drop) File() drop.File {
	return drop.File{
		Path: d.Destination, Mode: d.Mode, UID: d.UID, GID: d.GID,
		CreateDirs: d.CreateDirs, DirMode: d.DirMode, InPlace: d.InPlace, Backup: d.Backup,
		Place: d.Place, Strict: d.Strict,
	}
}

// Paths are the files that the drop writes, but for those that its template writes
// besides.
func (d *Drop) Paths() []string {
	path := filepath.Clean(d.Destination)
	if d.Backup {
		return []string{path, path + ".bak"}
	}
	return []string{path}
}

// Set is a folder whose drops change together.
type Set struct {
	Name       string
	Folder     string
	CreateDirs bool
	DirMode    fs.FileMode // as that of a drop
	// Check runs before a new generation is put in place, or is nil.
	Check *Check
	// Wait gathers changes.
	Wait Wait
	// Reloads are run in order when a file of the set has changed.
	Reloads []Reload
}

// Check is a command that new content has to pass. In its arguments {{.Path}}
// stands for the file that holds it, or the folder of a set.
type Check struct {
	Args    []string
	Timeout time.Duration
	// ShowOutput logs what it prints when it refuses, without values of secrets.
	ShowOutput bool
}

// OnTamper says what to do when another program has changed or removed a file.
type OnTamper string

// The file is written again; or it stays as it is, and its status is stale.
const (
	RestoreFile OnTamper = "restore"
	WarnOnly    OnTamper = "warn"
)

// OnMissing says what to do when a secret was deleted, destroyed or never there.
type OnMissing string

// The file is kept as it is; or it is removed; or the agent ends.
const (
	KeepFile   OnMissing = "keep"
	RemoveFile OnMissing = "remove"
	Fail       OnMissing = "fail"
)
