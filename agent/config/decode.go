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
	Sets           []dropBlock          `hcl:"set,block"`
	EnvTemplates   []envTemplateBlock   `hcl:"env_template,block"`
	Listener       []listenerBlock      `hcl:"listener,block"`
	Exec           *superviseBlock      `hcl:"exec,block"`

	Strict       *bool `hcl:"strict,optional"`
	RequireTmpfs *bool `hcl:"require_tmpfs,optional"`
	Mlock        *bool `hcl:"mlock,optional"`

	Wait       *waitBlock `hcl:"wait,block"`
	Splay      *string    `hcl:"splay,optional"`
	SplayRange hcl.Range  `hcl:"splay,attr_value_range"`

	ExitAfterAuth  *bool     `hcl:"exit_after_auth,optional"`
	PIDFile        *string   `hcl:"pid_file,optional"`
	LogLevel       *string   `hcl:"log_level,optional"`
	LogLevelRange  hcl.Range `hcl:"log_level,attr_value_range"`
	LogFormat      *string   `hcl:"log_format,optional"`
	LogFormatRange hcl.Range `hcl:"log_format,attr_value_range"`
	LogFile        *string   `hcl:"log_file,optional"`
	StateDir       *string   `hcl:"state_dir,optional"`
	StateDirRange  hcl.Range `hcl:"state_dir,attr_value_range"`

	// What Vault Agent has and this agent does not.
	Cache                  []ignoredBlock `hcl:"cache,block"`
	APIProxy               []ignoredBlock `hcl:"api_proxy,block"`
	Telemetry              []ignoredBlock `hcl:"telemetry,block"`
	DisableIdleConnections hcl.Expression `hcl:"disable_idle_connections,optional"`
	DisableKeepAlives      hcl.Expression `hcl:"disable_keep_alives,optional"`
	DisableMlock           hcl.Expression `hcl:"disable_mlock,optional"`
	LogRotateBytes         hcl.Expression `hcl:"log_rotate_bytes,optional"`
	LogRotateDuration      hcl.Expression `hcl:"log_rotate_duration,optional"`
	LogRotateMaxFiles      hcl.Expression `hcl:"log_rotate_max_files,optional"`
}

// ignoredBlock is a block that has no effect here, which a warning says.
type ignoredBlock struct {
	DefRange hcl.Range `hcl:",def_range"`
	Body     hcl.Body  `hcl:",remain"`
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
	DefRange      hcl.Range `hcl:",def_range"`

	AllowRedirectsTo      []string  `hcl:"allow_redirects_to,optional"`
	AllowRedirectsToRange hcl.Range `hcl:"allow_redirects_to,attr_value_range"`

	Retry []ignoredBlock `hcl:"retry,block"`
}

type autoAuthBlock struct {
	Methods  []methodBlock `hcl:"method,block"`
	Sinks    []sinkBlock   `hcl:"sink,block"`
	DefRange hcl.Range     `hcl:",def_range"`

	EnableReauth hcl.Expression `hcl:"enable_reauth_on_new_credentials,optional"`
}

// methodBlock has its type as an attribute: [relabel] has moved the label there.
type methodBlock struct {
	Type      string    `hcl:"type"`
	TypeRange hcl.Range `hcl:"type,attr_value_range"`
	DefRange  hcl.Range `hcl:",def_range"`
	MountPath string    `hcl:"mount_path,optional"`
	Namespace string    `hcl:"namespace,optional"`

	WrapTTL    hcl.Expression `hcl:"wrap_ttl,optional"`
	MinBackoff hcl.Expression `hcl:"min_backoff,optional"`
	MaxBackoff hcl.Expression `hcl:"max_backoff,optional"`
	ExitOnErr  hcl.Expression `hcl:"exit_on_err,optional"`
	// Vault Agent files say both "config = {" and "config {".
	ConfigMap   hcl.Expression `hcl:"config,optional"`
	ConfigBlock *configBlock   `hcl:"config,block"`
}

type sinkBlock struct {
	Type        string         `hcl:"type"`
	TypeRange   hcl.Range      `hcl:"type,attr_value_range"`
	DefRange    hcl.Range      `hcl:",def_range"`
	ConfigMap   hcl.Expression `hcl:"config,optional"`
	ConfigBlock *configBlock   `hcl:"config,block"`

	WrapTTL   hcl.Expression `hcl:"wrap_ttl,optional"`
	DHType    hcl.Expression `hcl:"dh_type,optional"`
	DHPath    hcl.Expression `hcl:"dh_path,optional"`
	DeriveKey hcl.Expression `hcl:"derive_key,optional"`
	AAD       hcl.Expression `hcl:"aad,optional"`
	AADEnvVar hcl.Expression `hcl:"aad_env_var,optional"`
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
	DefRange        hcl.Range `hcl:",def_range"`

	ExitOnRetryFailure hcl.Expression `hcl:"exit_on_retry_failure,optional"`
	MaxConnections     hcl.Expression `hcl:"max_connections_per_host,optional"`
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

// setBody is of a block that groups drops and templates that change together.
type setBody struct {
	Name             string
	DefRange         hcl.Range
	Destination      string          `hcl:"destination"`
	DestinationRange hcl.Range       `hcl:"destination,attr_value_range"`
	CreateDirs       *bool           `hcl:"create_dest_dirs,optional"`
	DirPerms         hcl.Expression  `hcl:"dir_perms,optional"`
	Templates        []templateBlock `hcl:"template,block"`
	Drops            []dropBlock     `hcl:"drop,block"`
	Check            *checkBlock     `hcl:"check,block"`
	Reload           []reloadBlock   `hcl:"reload,block"`
	Exec             *execBlock      `hcl:"exec,block"`
	Wait             *waitBlock      `hcl:"wait,block"`
}

// envTemplateBlock is one variable of the supervised command.
type envTemplateBlock struct {
	Name      string    `hcl:"name,label"`
	NameRange hcl.Range `hcl:"name,label_range"`
	DefRange  hcl.Range `hcl:",def_range"`
	Body      hcl.Body  `hcl:",remain"`
}

// superviseBlock is Vault Agent's exec block at the top of a file.
type superviseBlock struct {
	DefRange        hcl.Range      `hcl:",def_range"`
	Command         hcl.Expression `hcl:"command"`
	Stdout          hcl.Expression `hcl:"child_process_stdout,optional"`
	Stderr          hcl.Expression `hcl:"child_process_stderr,optional"`
	Restart         string         `hcl:"restart_on_secret_changes,optional"`
	RestartRange    hcl.Range      `hcl:"restart_on_secret_changes,attr_value_range"`
	StopSignal      string         `hcl:"restart_stop_signal,optional"`
	StopSignalRange hcl.Range      `hcl:"restart_stop_signal,attr_value_range"`
	// What Vault Agent has not, in consul-template's words.
	ReloadSignal      string    `hcl:"reload_signal,optional"`
	ReloadSignalRange hcl.Range `hcl:"reload_signal,attr_value_range"`
	KillTimeout       string    `hcl:"kill_timeout,optional"`
	KillTimeoutRange  hcl.Range `hcl:"kill_timeout,attr_value_range"`
}

// templateBody is what everything has that has a template.
type templateBody struct {
	Source         string         `hcl:"source,optional"`
	SourceRange    hcl.Range      `hcl:"source,attr_value_range"`
	Contents       hcl.Expression `hcl:"contents,optional"`
	Left           string         `hcl:"left_delimiter,optional"`
	Right          string         `hcl:"right_delimiter,optional"`
	ErrorOnMissing *bool          `hcl:"error_on_missing_key,optional"`
	ErrorFatal     hcl.Expression `hcl:"error_fatal,optional"`
	Denied         []string       `hcl:"function_denylist,optional"`
	DeniedBefore   []string       `hcl:"function_blacklist,optional"` // its older name
}

// dropBody is what stands in a drop and in a template block alike.
type dropBody struct {
	Secret           string         `hcl:"secret,optional"`
	SecretRange      hcl.Range      `hcl:"secret,attr_value_range"`
	Source           string         `hcl:"source,optional"`
	SourceRange      hcl.Range      `hcl:"source,attr_value_range"`
	Contents         hcl.Expression `hcl:"contents,optional"`
	Left             string         `hcl:"left_delimiter,optional"`
	Right            string         `hcl:"right_delimiter,optional"`
	ErrorOnMissing   *bool          `hcl:"error_on_missing_key,optional"`
	ErrorFatal       hcl.Expression `hcl:"error_fatal,optional"`
	Denied           []string       `hcl:"function_denylist,optional"`
	DeniedBefore     []string       `hcl:"function_blacklist,optional"`
	Sandbox          string         `hcl:"sandbox_path,optional"`
	Destination      string         `hcl:"destination"`
	DestinationRange hcl.Range      `hcl:"destination,attr_value_range"`
	Format           string         `hcl:"format,optional"`
	FormatRange      hcl.Range      `hcl:"format,attr_value_range"`
	Dialect          string         `hcl:"dialect,optional"`
	DialectRange     hcl.Range      `hcl:"dialect,attr_value_range"`
	Keys             *keysBlock     `hcl:"keys,block"`
	Perms            hcl.Expression `hcl:"perms,optional"`
	User             string         `hcl:"user,optional"`
	UserRange        hcl.Range      `hcl:"user,attr_value_range"`
	Group            string         `hcl:"group,optional"`
	GroupRange       hcl.Range      `hcl:"group,attr_value_range"`
	UID              string         `hcl:"uid,optional"` // consul-template's older name
	UIDRange         hcl.Range      `hcl:"uid,attr_value_range"`
	GID              string         `hcl:"gid,optional"`
	GIDRange         hcl.Range      `hcl:"gid,attr_value_range"`
	CreateDirs       *bool          `hcl:"create_dest_dirs,optional"`
	DirPerms         hcl.Expression `hcl:"dir_perms,optional"`
	Write            string         `hcl:"write,optional"`
	WriteRange       hcl.Range      `hcl:"write,attr_value_range"`
	Backup           bool           `hcl:"backup,optional"`
	Strict           *bool          `hcl:"strict,optional"`
	RequireTmpfs     *bool          `hcl:"require_tmpfs,optional"`
	OnMissing        string         `hcl:"on_missing,optional"`
	OnMissingRange   hcl.Range      `hcl:"on_missing,attr_value_range"`
	OnTamper         string         `hcl:"on_tamper,optional"`
	OnTamperRange    hcl.Range      `hcl:"on_tamper,attr_value_range"`
	OnExit           string         `hcl:"on_exit,optional"`
	OnExitRange      hcl.Range      `hcl:"on_exit,attr_value_range"`
	Check            *checkBlock    `hcl:"check,block"`
	Reload           []reloadBlock  `hcl:"reload,block"`
	Exec             *execBlock     `hcl:"exec,block"`
	// Vault Agent's older way to write an exec block.
	Command        hcl.Expression `hcl:"command,optional"`
	CommandTimeout string         `hcl:"command_timeout,optional"`
	CommandRange   hcl.Range      `hcl:"command_timeout,attr_value_range"`
	Wait           *waitBlock     `hcl:"wait,block"`
	WaitText       hcl.Expression `hcl:"wait,optional"` // "2s:10s"

	// broken says that gohcl found fault with the block, so that what is
	// missing from it may be there, but wrong.
	broken bool
}

type keysBlock struct {
	Only        []string          `hcl:"only,optional"`
	Except      []string          `hcl:"except,optional"`
	Rename      map[string]string `hcl:"rename,optional"`
	Prefix      string            `hcl:"prefix,optional"`
	Upper       bool              `hcl:"upper,optional"`
	MapInvalid  bool              `hcl:"map_invalid,optional"`
	AllowLoader bool              `hcl:"allow_loader,optional"`
	DefRange    hcl.Range         `hcl:",def_range"`
}

// reloadBlock has settings that depend on each other: see [makers].
type reloadBlock struct {
	Body     hcl.Body  `hcl:",remain"`
	DefRange hcl.Range `hcl:",def_range"`
}

// reloadBlocks are all that a block may say of what is to be done after a change.
type reloadBlocks struct {
	Reload         []reloadBlock
	Exec           *execBlock
	Command        hcl.Expression
	CommandTimeout string
	CommandRange   hcl.Range
}

type waitBlock struct {
	Min      string    `hcl:"min,optional"`
	MinRange hcl.Range `hcl:"min,attr_value_range"`
	Max      string    `hcl:"max,optional"`
	MaxRange hcl.Range `hcl:"max,attr_value_range"`
	Enabled  *bool     `hcl:"enabled,optional"`
	DefRange hcl.Range `hcl:",def_range"`
}

type checkBlock struct {
	Command      hcl.Expression `hcl:"command"`
	Timeout      string         `hcl:"timeout,optional"`
	TimeoutRange hcl.Range      `hcl:"timeout,attr_value_range"`
	ShowOutput   bool           `hcl:"show_output,optional"`
	DefRange     hcl.Range      `hcl:",def_range"`
}

// execBlock is Vault Agent's, in a template. What it has besides is consul-template's.
type execBlock struct {
	Command      hcl.Expression `hcl:"command"`
	Timeout      string         `hcl:"timeout,optional"`
	TimeoutRange hcl.Range      `hcl:"timeout,attr_value_range"`
	Enabled      *bool          `hcl:"enabled,optional"`
	Env          *execEnvBlock  `hcl:"env,block"`
	DefRange     hcl.Range      `hcl:",def_range"`

	KillSignal   hcl.Expression `hcl:"kill_signal,optional"`
	KillTimeout  hcl.Expression `hcl:"kill_timeout,optional"`
	ReloadSignal hcl.Expression `hcl:"reload_signal,optional"`
	Splay        hcl.Expression `hcl:"splay,optional"`
}

// execEnvBlock is the environment of a command.
type execEnvBlock struct {
	Custom      []string  `hcl:"custom,optional"`
	CustomRange hcl.Range `hcl:"custom,attr_value_range"`

	Pristine  hcl.Expression `hcl:"pristine,optional"`
	Allowlist hcl.Expression `hcl:"allowlist,optional"`
	Denylist  hcl.Expression `hcl:"denylist,optional"`
	Whitelist hcl.Expression `hcl:"whitelist,optional"`
	Blacklist hcl.Expression `hcl:"blacklist,optional"`
}
