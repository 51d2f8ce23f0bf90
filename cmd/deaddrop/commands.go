package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/smarteros/deaddrop/agent"
	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/tenant"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/dotenv"
)

func newRun() *cobra.Command {
	var opts options
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Keep files current until told to stop",
		Long: `Run logs in, writes every file, and then looks at the secrets again and again. A
file is only written when its content has changed, and services are only told
then. Changed configuration and template files are picked up by themselves.

Signals: SIGHUP reads everything again at once, and opens log_file again; SIGUSR1
writes the state of every file to the log; SIGTERM and SIGINT stop within 5 s, and a
second one at once. With an exec block its command is waited for, up to kill_timeout.`,
		Example: `  deaddrop run --config /etc/deaddrop.hcl
  deaddrop run --tenant demo --service nexa --out /run/nexa.env --signal HUP --pid-file /run/nexa.pid`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			defer outlive(syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGPIPE)()
			disarm := endInTime(cmd.Context())
			defer disarm()
			cfg, load, err := opts.load()
			if err != nil {
				return err
			}
			if cfg.Supervise != nil {
				disarm() // The command may take its kill_timeout.
			}
			if err := confine(cfg); err != nil {
				return err
			}
			log, err := opts.newLog(cfg)
			if err != nil {
				return err
			}
			defer sayWhyItEnds(cmd.Context(), log.Logger)()
			return failure(log.Logger, run(cmd.Context(), cfg, load, log))
		},
	}
	opts.bind(cmd)
	opts.bindReload(cmd)
	cmd.Flags().StringVar(&opts.statusAddress, "status-address", "", "`address` at which to tell how the agent is, such as 127.0.0.1:9810 or unix:///run/deaddrop/status.sock (default $"+config.StatusAddressVariable+")")
	cmd.Flags().StringVar(&opts.simple.Interval, "interval", config.DefaultInterval.String(), "how often to look at the secret")
	return cmd
}

// run runs the agent, and keeps its process id in a file where one is wanted.
func run(ctx context.Context, cfg *config.Config, load func() (*config.Config, error), log *processLog) error {
	p := &process{log: log}
	if err := p.writePIDFile(cfg); err != nil {
		return err
	}
	defer p.removePIDFile()
	if cfg.Once && cfg.Supervise == nil {
		return orEnded(ctx, agent.Once(ctx, cfg, false, log.Logger))
	}
	return agent.Run(ctx, cfg, load, p, buildVersion(), log.Logger)
}

func newRender() *cobra.Command {
	var opts options
	var timeout time.Duration
	var keepToken, dryRun, diff, showSecrets bool
	cmd := &cobra.Command{
		Use:   "render",
		Short: "Write all files once and exit",
		Long: `Render logs in, brings every file up to date, runs the reloads of those that
changed, and exits. It suits init containers and scripts: what may pass by
itself, such as a Vault that is not up yet, is retried until the timeout.

With --dry-run or --diff nothing is written, checked or reloaded; but what Vault
issues for a template, such as a certificate, is issued.

` + exitCodes,
		Example: `  deaddrop render --once --config /etc/deaddrop.hcl
  deaddrop render --once --secret secret/tenant/demo/nexa --out /run/nexa.env
  deaddrop render --once --tenant demo --service nexa
  deaddrop render --config /etc/deaddrop.hcl --diff`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			defer endInTime(cmd.Context())()
			cfg, _, err := opts.load()
			if err != nil {
				return err
			}
			if err := confine(cfg); err != nil {
				return err
			}
			open, err := opts.newLog(cfg)
			if err != nil {
				return err
			}
			log := open.Logger
			if cfg.Supervise != nil && len(cfg.Drops)+len(cfg.Each) == 0 {
				return errors.New("there is no file to render: exec and env_template are for \"deaddrop run\"")
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			if dryRun || diff {
				files, err := agent.Preview(ctx, cfg, log)
				show := preview{cmd.OutOrStdout(), diff, showSecrets}
				return errors.Join(failure(log, orEnded(cmd.Context(), err)), show.files(files))
			}
			return failure(log, orEnded(cmd.Context(), agent.Once(ctx, cfg, keepToken, log)))
		},
	}
	opts.bind(cmd)
	cmd.Flags().Bool("once", true, "render once, which is all that render does")
	bindTimeout(cmd, &timeout, time.Minute)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "write nothing, and show what would be written, with values masked")
	cmd.Flags().BoolVar(&diff, "diff", false, "write nothing, and show which keys would change, with values masked")
	cmd.Flags().BoolVar(&showSecrets, "show-secrets", false, "with --dry-run or --diff: show the values, too")
	cmd.Flags().BoolVar(&keepToken, "keep-token", false, "do not revoke the token of this run at the end")
	return cmd
}

// limit is a flag for how long something may take.
type limit time.Duration

func (l *limit) String() string { return time.Duration(*l).String() }
func (l *limit) Type() string   { return "duration" }

func (l *limit) Set(text string) error {
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return errors.New("it has to be a duration of more than 0, such as 30s or 5m")
	}
	*l = limit(d)
	return nil
}

func bindTimeout(cmd *cobra.Command, timeout *time.Duration, otherwise time.Duration) {
	*timeout = otherwise
	cmd.Flags().Var((*limit)(timeout), "timeout", "give up after this long")
}

// version is set by the linker.
var version = ""

// buildVersion is what was built, as far as that is known.
func buildVersion() string {
	if info, ok := debug.ReadBuildInfo(); version == "" && ok {
		return info.Main.Version
	}
	return version
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "deaddrop %s %s %s/%s\n", buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// options are the flags that run and render share.
type options struct {
	config          []string
	tenant, service string
	simple          config.Simple
	reload          map[string]*string // settings, by flags
	logLevel        string
	logFormat       string
	statusAddress   string
}

func (o *options) bind(cmd *cobra.Command) { o.bindFiles(cmd, "o") }

// bindFiles is bind for commands that may need the letter of --out for another flag.
func (o *options) bindFiles(cmd *cobra.Command, out string) {
	f := cmd.Flags()
	f.StringArrayVarP(&o.config, "config", "c", nil, "configuration `file`, or folder of them; may be given several times")
	f.StringVar(&o.simple.Secret, "secret", "", "`path` of a secret, such as secret/tenant/demo/nexa")
	f.StringVar(&o.tenant, "tenant", "", "tenant `id`: with --service, short for --secret secret/tenant/ID/SERVICE (default $DEADDROP_TENANT)")
	f.StringVar(&o.service, "service", "", "`service` of the tenant, such as nexa")
	f.StringVarP(&o.simple.Destination, "out", out, "", "`file` to write (with --service: /run/SERVICE.env by default)")
	f.StringVar(&o.simple.Format, "format", "", "format of the file: "+oneOf(render.DataFormats())+" (default: by its ending, else dotenv)")
	f.StringVar(&o.simple.Dialect, "dialect", "", "who reads the .env file: "+oneOf(dotenv.Dialects())+" (default portable)")
	f.StringVar(&o.simple.Perms, "perms", "", "`mode` of the file (default 0600)")
	f.StringVar(&o.logLevel, "log-level", "", "debug, info, warn or error (default: as the configuration says, else info)")
	f.StringVar(&o.logFormat, "log-format", "", "text, json, or auto: text on a terminal (default: as the configuration says, else auto)")
	for flag, values := range map[string][]string{
		"format":     render.DataFormats(),
		"dialect":    dotenv.Dialects(),
		"log-level":  {"debug", "info", "warn", "error"},
		"log-format": {"auto", "text", "json"},
	} {
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	for _, name := range []string{"secret", "tenant", "service", "out", "format", "dialect", "perms"} {
		cmd.MarkFlagsMutuallyExclusive("config", name)
	}
	cmd.MarkFlagsMutuallyExclusive("secret", "tenant")
	cmd.MarkFlagsMutuallyExclusive("secret", "service")
}

// bindReload adds the flags that say whom to tell.
func (o *options) bindReload(cmd *cobra.Command) {
	f := cmd.Flags()
	o.reload = map[string]*string{}
	for _, flag := range []struct{ name, setting, usage string }{
		{"signal", "signal", "signal to send when the file has changed, with --pid-file, --process or --container"},
		{"pid-file", "pid_file", "`file` that holds the id of the process to signal"},
		{"process", "process", "`name` of the program whose process to signal"},
		{"container", "container", "`name` of the container to signal"},
		{"unit", "unit", "`name` of the systemd unit to reload, or else to restart"},
	} {
		o.reload[flag.setting] = f.String(flag.name, "", flag.usage)
		cmd.MarkFlagsMutuallyExclusive("config", flag.name)
	}
	targets := []string{"pid-file", "process", "container", "unit"}
	cmd.MarkFlagsMutuallyExclusive(targets...)
	cmd.MarkFlagsMutuallyExclusive("signal", "unit")
}

// checkReload finds a signal for no one, and someone without a signal.
func (o *options) checkReload() error {
	if o.reload == nil {
		return nil
	}
	target := ""
	for setting, flag := range map[string]string{"pid_file": "--pid-file", "process": "--process", "container": "--container"} {
		if *o.reload[setting] != "" {
			target = flag
		}
	}
	switch hasSignal := *o.reload["signal"] != ""; {
	case hasSignal && target == "":
		return errors.New("--signal also needs --pid-file FILE, --process NAME or --container NAME")
	case !hasSignal && target != "":
		return fmt.Errorf("%s also needs --signal, such as --signal HUP", target)
	}
	return nil
}

// load returns the configuration, and how to load it again where it is a file.
func (o *options) load() (*config.Config, func() (*config.Config, error), error) {
	credentials := config.TakeCredentials()
	if len(o.config) > 0 {
		load := func() (*config.Config, error) { return o.listening(credentials.Load(o.config...)) }
		cfg, err := load()
		return cfg, load, err
	}
	if err := o.fillIn(); err != nil {
		return nil, nil, err
	}
	if err := o.checkReload(); err != nil {
		return nil, nil, err
	}
	o.simple.Reload = map[string]string{}
	for setting, value := range o.reload {
		if *value != "" {
			o.simple.Reload[setting] = *value
		}
	}
	o.simple.Credentials = credentials
	cfg, err := o.listening(o.simple.Build())
	return cfg, nil, err
}

// listening is the configuration with the listener that a flag adds.
func (o *options) listening(cfg *config.Config, err error) (*config.Config, error) {
	if err != nil || o.statusAddress == "" {
		return cfg, err
	}
	return cfg, cfg.ListenAt("--status-address", o.statusAddress)
}

// fillIn completes the flags of the commonest job.
func (o *options) fillIn() error {
	s := &o.simple
	s.Tenant = cmp.Or(o.tenant, os.Getenv("DEADDROP_TENANT"))
	if o.tenant != "" || o.service != "" {
		path, err := o.pathOfTenant()
		if err != nil {
			return err
		}
		s.Secret = path
		if s.Destination == "" {
			s.Destination = "/run/" + o.service + ".env"
			if s.Format == string(render.FormatJSON) {
				s.Destination = "/run/" + o.service + ".json"
			}
		}
	}
	switch {
	case s.Secret == "":
		return errors.New("nothing to render: give --config FILE, or --secret PATH --out FILE, or --tenant ID --service NAME")
	case s.Destination == "":
		return errors.New("--secret also needs --out FILE")
	case s.Format == string(render.FormatTemplate):
		return errors.New("--format template needs a configuration file; write a template block and give --config FILE")
	}
	return nil
}

// nexaPath is the variable by which the platform says where the secrets of the
// Nexa runtime are, such as secret/data/tenant/{{tenant_id}}/nexa.
const nexaPath = "NEXA_VAULT_PATH_TEMPLATE"

// pathOfTenant is the path of the service of a tenant.
func (o *options) pathOfTenant() (string, error) {
	template := os.Getenv(nexaPath)
	if o.service == "" && template != "" {
		o.service = "nexa"
	}
	switch {
	case o.service == "":
		return "", errors.New("--tenant also needs --service, such as --service nexa")
	case o.simple.Tenant == "":
		return "", errors.New("--service also needs --tenant, or DEADDROP_TENANT")
	}
	for flag, id := range map[string]string{"tenant": o.simple.Tenant, "service": o.service} {
		if err := tenant.CheckID(id); err != nil {
			return "", fmt.Errorf("--%s %w", flag, err)
		}
	}
	if o.service == "nexa" && template != "" {
		return template, nil
	}
	return tenant.Path(o.simple.Tenant, o.service), nil
}

// oneOf lists what a flag may be.
func oneOf(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
