// Command devvault runs a real Vault in one process on loopback, for
// development and tests of deaddrop.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/hashicorp/go-hclog"

	"github.com/smarteros/deaddrop/compose/devvault"
)

const usage = `devvault runs a real Vault in one process on loopback, for development and tests.

  devvault [-listen 127.0.0.1:8200] [-tls] [-root-token TOKEN] [-state DIR]
  devvault [-listen 127.0.0.1:8200] -state DIR -raft NODE_ID [-raft-join ADDRESS -keys FILE]
  devvault server -config FILE|DIR ...

The server is unsealed, and kv v2 is mounted at secret/; enable the rest through
the API: kv, pki, database (postgresql-database-plugin), transit; approle,
userpass, cert, jwt; file audit. SIGINT and SIGTERM stop it.

"devvault server" is what "vault server" is: it does what Vault's configuration
says, and stays sealed until it is unsealed. See devvault server -h.

`

// The exit codes of a failure and of a bad command line.
const (
	exitFailure = 1
	exitUsage   = 2
)

// gcPercent trades memory, of which a small server has plenty, for a quarter
// more requests per second.
const gcPercent = 400

type flags struct {
	devvault.Options
	json, withStdin bool
	logLevel        string
}

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if len(os.Args) > 1 && os.Args[1] == "server" {
		f, err := parseServer(os.Args[2:], os.Stdout)
		exitOnUsage(err, "devvault server -h")
		exitOn(f.run())
		return
	}
	f, err := parse(os.Args[1:], os.Stdout)
	exitOnUsage(err, "devvault -h")
	f.Log = hclog.New(&hclog.LoggerOptions{
		Name: "vault", Level: hclog.LevelFromString(f.logLevel), Output: os.Stderr,
	})
	exitOn(run(f))
}

// exitOnUsage ends the process after a bad command line, or after help.
func exitOnUsage(err error, help string) {
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(0)
	case err != nil:
		fmt.Fprintf(os.Stderr, "devvault: %v\nTry %s.\n", err, help)
		os.Exit(exitUsage)
	}
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "devvault:", err)
		os.Exit(exitFailure)
	}
}

// parse reads the command line. Where help is asked for, it goes to help.
func parse(args []string, help io.Writer) (flags, error) {
	var f flags
	set := flag.NewFlagSet("devvault", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.StringVar(&f.Listen, "listen", "127.0.0.1:8200", "`host:port` on loopback; port 0 takes a free one")
	set.BoolVar(&f.TLS, "tls", false, "serve HTTPS with a throw-away authority, for 127.0.0.1, ::1 and localhost")
	set.StringVar(&f.TLSDir, "tls-dir", "", "`folder` for ca.pem and the server's certificate, found again by the next start\n(default: a temporary one, deleted at the end)")
	set.StringVar(&f.RootToken, "root-token", "", "root `token` (default: $DEVVAULT_ROOT_TOKEN, or one that Vault makes)")
	set.StringVar(&f.State, "state", "", "`folder` that keeps secrets, keys and root token over restarts (default: in memory)")
	set.StringVar(&f.Audit, "audit", "", "`file` for the audit log (default: none)")
	set.BoolVar(&f.Sealed, "sealed", false, "start sealed")
	set.StringVar(&f.Raft.NodeID, "raft", "", "be a node of a cluster with this `name`, on integrated storage in the -state folder;\na new one makes a cluster, one that was a member goes back to its own (default: no cluster)")
	set.StringVar(&f.Raft.Join, "raft-join", "", "`address` of a running node, such as http://127.0.0.1:8200, whose cluster a new node joins")
	set.StringVar(&f.Raft.KeysFile, "keys", "", "`file` with the keys of the cluster to join: keys.json in a member's -state folder")
	set.Func("unseal-key", "unseal `key` of the cluster to join, instead of -keys; -root-token is then its root token", func(key string) error {
		f.Raft.UnsealKeys = append(f.Raft.UnsealKeys, key)
		return nil
	})
	set.BoolVar(&f.json, "json", false, "say that the server is ready in one line of JSON")
	set.BoolVar(&f.withStdin, "exit-with-stdin", false, "stop when standard input is closed")
	set.StringVar(&f.logLevel, "log-level", "warn", "`level` of Vault's log on standard error: trace, debug, info, warn, error or off")
	err := set.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(help, usage)
		set.SetOutput(help)
		set.PrintDefaults()
	}
	if err != nil {
		return f, err
	}
	if f.RootToken == "" {
		f.RootToken = os.Getenv("DEVVAULT_ROOT_TOKEN")
	}
	return f, f.check(set.Args())
}

// check finds what the flags cannot tell one by one.
func (f flags) check(rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("unexpected argument %q", rest[0])
	case hclog.LevelFromString(f.logLevel) == hclog.NoLevel:
		return fmt.Errorf("unknown -log-level %q", f.logLevel)
	case f.TLSDir != "" && !f.TLS:
		return errors.New("-tls-dir is for -tls only")
	}
	return f.Options.Check()
}

// run serves until the process is told to stop.
func run(f flags) error {
	ctx, stop := untilStopped(f.withStdin)
	defer stop()
	server, err := devvault.Start(ctx, f.Options)
	if err != nil {
		return err
	}
	if err := announce(os.Stdout, server, f.json); err != nil {
		return errors.Join(fmt.Errorf("saying that the server is ready: %w", err), server.Close())
	}
	<-ctx.Done()
	return server.Close()
}

// untilStopped is a context that ends when the process is told to stop, or when
// standard input is closed, if that is asked for.
func untilStopped(withStdin bool) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	if withStdin {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			stop()
		}()
	}
	return ctx, stop
}

// announce says how to reach the server.
func announce(w io.Writer, s *devvault.Server, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(struct {
			Address string `json:"address"`
			devvault.Keys
			CAFile  string `json:"ca_file,omitempty"`
			Version string `json:"version"`
			PID     int    `json:"pid"`
		}{s.Address, s.Keys, s.CAFile, s.Version, os.Getpid()})
	}
	text := fmt.Sprintf("Vault %s is ready (for development only):\n\n  export VAULT_ADDR=%s\n", s.Version, s.Address)
	if s.RootToken != "" {
		text += fmt.Sprintf("  export VAULT_TOKEN=%s\n", s.RootToken)
	}
	if s.CAFile != "" {
		text += fmt.Sprintf("  export VAULT_CACERT=%s\n", s.CAFile)
	}
	for _, key := range s.UnsealKeys {
		text += fmt.Sprintf("\n  unseal key: %s\n", key)
	}
	_, err := io.WriteString(w, text)
	return err
}
