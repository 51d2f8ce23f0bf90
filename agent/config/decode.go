package config

import (
	"github.com/hashicorp/hcl/v2"
)

// The types in this file are the grammar: gohcl fills them, and finds unknown
// blocks and arguments, missing arguments and wrong types on the way.

type fileBlock struct {
	Vault          *vaultBlock          `hcl:"vault,block"`
	AutoAuth       *autoAuthBlock       `hcl:"auto_auth,block"`
	TemplateConfig *templateConfigBlock `hcl:"template_config,block"`
	Templates      []templateBlock      `hcl:"template,block"`
	Drops          []dropBlock          `hcl:"drop,block"`
}

type vaultBlock struct {
	Address       string    `hcl:"address,optional"`
	AddressRange  hcl.Range `hcl:"address,attr_value_range"`
	Namespace     string    `hcl:"namespace,optional"`
	CACert        string    `hcl:"ca_cert,optional"`
	CAPath        string    `hcl:"ca_path,optional"`
	ClientCert    string    `hcl:"client_cert,optional"`
	ClientKey     string    `hcl:"client_key,optional"`
	TLSServerName string    `hcl:"tls_server_name,optional"`
	TLSSkipVerify bool      `hcl:"tls_skip_verify,optional"`
}

type autoAuthBlock struct {
	Method methodBlock `hcl:"method,block"`
}

type methodBlock struct {
	Type      string    `hcl:"type,label"`
	TypeRange hcl.Range `hcl:"type,label_range"`
	DefRange  hcl.Range `hcl:",def_range"`
	MountPath string    `hcl:"mount_path,optional"`
	// Vault Agent files say both "config = {" and "config {".
	ConfigMap   hcl.Expression `hcl:"config,optional"`
	ConfigBlock *configBlock   `hcl:"config,block"`
}

type configBlock struct {
	Body hcl.Body `hcl:",remain"`
}

type templateConfigBlock struct {
	Interval      string    `hcl:"static_secret_render_interval,optional"`
	IntervalRange hcl.Range `hcl:"static_secret_render_interval,attr_value_range"`
	// The first is Vault Agent's.
	LeaseShare      *float64  `hcl:"lease_renewal_threshold,optional"`
	LeaseShareRange hcl.Range `hcl:"lease_renewal_threshold,attr_value_range"`
	CertShare       *float64  `hcl:"certificate_renewal_threshold,optional"`
	CertShareRange  hcl.Range `hcl:"certificate_renewal_threshold,attr_value_range"`
}

type templateBlock struct {
	DefRange hcl.Range `hcl:",def_range"`
	Body     hcl.Body  `hcl:",remain"`
}

type dropBlock struct {
	Name     string    `hcl:"name,label"`
	DefRange hcl.Range `hcl:",def_range"`
	Body     hcl.Body  `hcl:",remain"`
}

// dropBody is what stands in a drop and in a template block alike.
type dropBody struct {
	Secret           string         `hcl:"secret,optional"`
	SecretRange      hcl.Range      `hcl:"secret,attr_value_range"`
	Source           string         `hcl:"source,optional"`
	SourceRange      hcl.Range      `hcl:"source,attr_value_range"`
	Contents         hcl.Expression `hcl:"contents,optional"`
	Destination      string         `hcl:"destination"`
	DestinationRange hcl.Range      `hcl:"destination,attr_value_range"`
	Format           string         `hcl:"format,optional"`
	FormatRange      hcl.Range      `hcl:"format,attr_value_range"`
	Perms            string         `hcl:"perms,optional"`
	PermsRange       hcl.Range      `hcl:"perms,attr_value_range"`
	CreateDirs       *bool          `hcl:"create_dest_dirs,optional"`
	OnMissing        string         `hcl:"on_missing,optional"`
	OnMissingRange   hcl.Range      `hcl:"on_missing,attr_value_range"`
	Reload           *reloadBlock   `hcl:"reload,block"`
	Exec             *execBlock     `hcl:"exec,block"`

	// broken says that gohcl found fault with the block, so that what is
	// missing from it may be there, but wrong.
	broken bool
}

type reloadBlock struct {
	Signal      string    `hcl:"signal"`
	SignalRange hcl.Range `hcl:"signal,attr_value_range"`
	PIDFile     string    `hcl:"pid_file"`
	PIDRange    hcl.Range `hcl:"pid_file,attr_value_range"`
}

type execBlock struct {
	Command      []string  `hcl:"command"`
	CommandRange hcl.Range `hcl:"command,attr_value_range"`
	Timeout      string    `hcl:"timeout,optional"`
	TimeoutRange hcl.Range `hcl:"timeout,attr_value_range"`
}
