package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/hashicorp/go-hclog"

	"github.com/smarteros/deaddrop/compose/devvault"
)

const serverUsage = `devvault server does what Vault's configuration says, as vault server does:

  devvault server -config FILE|DIR [-config ...]

It is not initialised, and sealed, until that is done through the API. It
listens where the configuration says, so other machines may reach it: it is for
development and tests all the same. SIGHUP reloads certificates and opens audit
logs again; SIGINT and SIGTERM stop it. With -dev it is unsealed, in memory, and
has kv v2 at secret/; the configuration may then name no storage and no listener.

`

// serverFlags are those of devvault server.
type serverFlags struct {
	configs         []string
	check           bool
	dev             bool
	devToken        string
	devListen       string
	json, withStdin bool
	logLevel        string
}

// parseServer reads the command line behind "devvault server".
func parseServer(args []string, help io.Writer) (serverFlags, error) {
	var f serverFlags
	set := flag.NewFlagSet("devvault server", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.Func("config", "`path` of a configuration, or of a folder of .hcl and .json files; may be there more than once", func(path string) error {
		f.configs = append(f.configs, path)
		return nil
	})
	set.BoolVar(&f.check, "check", false, "only read the configuration; what Vault would warn of is an error")
	set.BoolVar(&f.json, "json", false, "say that the server is ready in one line of JSON")
	set.BoolVar(&f.withStdin, "exit-with-stdin", false, "stop when standard input is closed")
	set.StringVar(&f.logLevel, "log-level", "", "`level` of the log: trace, debug, info, warn, error or off (default: log_level of the configuration, or info)")
	set.BoolVar(&f.dev, "dev", false, "be a server for development, unsealed and in memory")
	set.StringVar(&f.devToken, "dev-root-token-id", "", "root `token` of -dev (default: one that Vault makes)")
	set.StringVar(&f.devListen, "dev-listen-address", "127.0.0.1:8200", "`host:port` where -dev listens")
	err := set.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(help, serverUsage)
		set.SetOutput(help)
		set.PrintDefaults()
	}
	switch {
	case err != nil:
		return f, err
	case set.NArg() > 0:
		return f, fmt.Errorf("unexpected argument %q", set.Arg(0))
	case len(f.configs) == 0 && !f.dev:
		return f, errors.New("server needs -config, the path of a configuration")
	case f.logLevel != "" && hclog.LevelFromString(f.logLevel) == hclog.NoLevel:
		return f, fmt.Errorf("unknown -log-level %q", f.logLevel)
	}
	return f, nil
}

// run serves until the process is told to stop.
func (f serverFlags) run() error {
	config, err := devvault.LoadConfiguration(f.configs...)
	if err != nil {
		return err
	}
	if f.check {
		if len(config.Problems) > 0 {
			return errors.New("the configuration has problems:\n  " + strings.Join(config.Problems, "\n  "))
		}
		return nil
	}
	if f.logLevel != "" {
		config.LogLevel = f.logLevel
	}
	log, err := config.Logger(os.Stderr)
	if err != nil {
		return err
	}
	for _, problem := range config.Problems {
		log.Warn(problem)
	}
	if f.dev {
		return f.serveDev(config, log)
	}
	return f.serve(config, log)
}

// serveDev takes nothing but the log from a configuration.
func (f serverFlags) serveDev(config *devvault.Configuration, log hclog.Logger) error {
	if config.Storage != nil || len(config.Listeners) > 0 {
		return errors.New("-dev brings storage and listener of its own, which do not go with those of the configuration: leave them out there")
	}
	return run(flags{
		Options: devvault.Options{Listen: f.devListen, Anywhere: true, RootToken: f.devToken, Log: log},
		json:    f.json, withStdin: f.withStdin,
	})
}

func (f serverFlags) serve(config *devvault.Configuration, log hclog.InterceptLogger) error {
	ctx, stop := untilStopped(f.withStdin)
	defer stop()
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	server, err := devvault.Configured(ctx, config, log)
	if err != nil {
		return err
	}
	if err := announce(os.Stdout, server, f.json); err != nil {
		return errors.Join(fmt.Errorf("saying that the server is ready: %w", err), server.Close())
	}
	for {
		select {
		case <-reload:
			if err := server.Reload(); err != nil {
				log.Error("it goes on with what it had", "error", err)
			}
		case <-ctx.Done():
			return server.Close()
		}
	}
}
