// Command deaddrop renders secrets of HashiCorp Vault into files and makes
// services reload when they change.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/harden"
	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/agent/supervise"
	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render/printable"
)

// The exit codes of every command. Scripts rely on them.
const (
	exitOK          = 0
	exitFailed      = 1 // a render, a write or a reload failed
	exitUsage       = 2 // bad configuration or command line
	exitUnreachable = 3 // Vault cannot be reached, or is sealed
	exitDenied      = 4 // the login or a permission is refused
	exitMissing     = 5 // a secret or a key is not there
)

const exitCodes = `Exit codes:
  0  all files are current
  1  a render, a write or a reload failed
  2  bad configuration or command line; nothing was contacted
  3  Vault cannot be reached, or is sealed
  4  the login failed, or permission is denied
  5  a secret or a key is missing
  130, 143  ended by SIGINT or SIGTERM before it was done
When drops fail for several reasons, 3 goes before 4, 4 before 5 and 5 before 1.`

func main() {
	ctx, stop := untilSignalled()
	signal.Ignore(syscall.SIGXFSZ) // A file that may not grow so large fails the write, not the agent.
	if err := harden.Process(config.SecretVariables()...); err != nil {
		fmt.Fprintf(os.Stderr, "deaddrop: %v\n", err)
	}
	code := execute(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

func execute(ctx context.Context, args []string) int {
	root := newRoot()
	root.SetArgs(args)
	stderr := printable.NewWriter(os.Stderr)
	root.SetOut(printable.NewWriter(os.Stdout))
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var failed *runError
	var wrong *config.Error
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &wrong):
		for _, each := range wrong.Problems {
			_, _ = fmt.Fprintln(stderr, printable.Text(each.String()))
		}
		return exitUsage
	case !errors.As(err, &failed):
		_, _ = fmt.Fprintf(stderr, "deaddrop: %s\nSee \"deaddrop --help\".\n", printable.Error(err))
		return exitUsage
	}
	var exit *supervise.ExitError
	if errors.As(err, &exit) {
		return exit.Code // The command has said what there is to say.
	}
	failed.log()
	return exitCode(err)
}

// exitCode sorts by what has to be mended first.
func exitCode(err error) int {
	var ended *endedError
	switch {
	case errors.As(err, &ended):
		return ended.exitCode()
	case isAny(err, session.ErrUnreachable, session.ErrSealed):
		return exitUnreachable
	case isAny(err, session.ErrLogin, session.ErrDenied):
		return exitDenied
	case isAny(err, watch.ErrMissing) || isMissingKey(err):
		return exitMissing
	}
	return exitFailed
}

func isAny(err error, kinds ...error) bool {
	for _, kind := range kinds {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "deaddrop",
		Short: "Renders Vault secrets into files, and reloads services when they change",
		Long: `deaddrop runs next to a service, logs in to HashiCorp Vault or OpenBao, renders
secrets into .env, JSON or templated files, keeps them current, and tells the
service to reload when they change.

Vault and the login are taken from the configuration file or from VAULT_ADDR,
VAULT_ROLE_ID and VAULT_SECRET_ID (or VAULT_TOKEN); every other VAULT_* variable
of Vault's own client works too.`,
		Example: `  deaddrop render --once --tenant demo --service nexa --out /run/nexa.env
  deaddrop run --config /etc/deaddrop.hcl`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = false
	root.AddCommand(newRun(), newRender(), newStatus(), newValidate(), newDoctor(), newTemplates(), newVersion())
	return root
}
