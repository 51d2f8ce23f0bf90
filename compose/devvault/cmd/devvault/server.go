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
listens wherever the configuration says, and on other machines' sides, too: it
is for development and tests all the same. SIGHUP reloads certificates and opens
audit logs again; SIGINT and SIGTERM stop it.

`

// serverFlags are those of devvault server.
type serverFlags struct {
	configs         []string
	check           bool
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
	for _, name := range []string{"dev-root-token-id", "dev-listen-address"} {
		set.String(name, "", "taken and not used, since the entry points of Vault's images give it: there is no -dev")
	}
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
	case len(f.configs) == 0:
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
	return f.serve(config, log)
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
