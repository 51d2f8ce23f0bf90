// Command tenantctl sets up a Vault for many tenants, and manages them.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/smarteros/deaddrop/agent/harden"
	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/output"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/vault"
	"github.com/smarteros/deaddrop/render/printable"
)

// The exit codes of every command. Scripts rely on them.
const (
	exitOK          = 0
	exitFailed      = 1 // something failed, or --check has found a difference
	exitUsage       = 2 // bad command line, or --yes is missing; nothing was written
	exitUnreachable = 3 // Vault cannot be reached, or is sealed
	exitDenied      = 4 // the login or a permission is refused
	exitMissing     = 5 // a tenant, a secret or a version is not there
	exitConflict    = 6 // someone else has changed it meanwhile
)

const exitCodes = `Exit codes:
  0  done, or nothing to do
  1  failed, or --check has found a difference
  2  bad command line, or --yes is missing; nothing was written
  3  Vault cannot be reached, or is sealed
  4  the login failed, or permission is denied
  5  a tenant, a secret or a version is not there
  6  someone else has changed it meanwhile; nothing was written`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	syscall.Umask(0o077) // What is written here is nobody else's business.
	if err := harden.Process("VAULT_TOKEN"); err != nil {
		fmt.Fprintf(os.Stderr, "tenantctl: %v\n", err)
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
	cmd, err := root.ExecuteContextC(ctx)
	err = interrupted(ctx, cmd, err)
	var failed *runError
	switch {
	case err == nil:
		return exitOK
	case !errors.As(err, &failed):
		_, _ = fmt.Fprintf(stderr, "tenantctl: %s\nSee \"%s --help\".\n", printable.Error(err), cmd.CommandPath())
		return exitUsage
	case !errors.Is(err, errSaid):
		_, _ = fmt.Fprintf(stderr, "tenantctl: %s\n", printable.Error(err))
	}
	return exitCode(err)
}

// interrupted says of what a signal has ended that it was one, and not that Vault is
// out of reach.
func interrupted(ctx context.Context, cmd *cobra.Command, err error) error {
	if err == nil || ctx.Err() == nil || errors.Is(err, errStopped) {
		return err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, session.ErrUnreachable) {
		return &runError{fmt.Errorf("%s: %w by a signal", strings.TrimPrefix(cmd.CommandPath(), "tenantctl "), errStopped)}
	}
	return err
}

// errSaid is a failure that the output has told already.
var errSaid = errors.New("said")

func exitCode(err error) int {
	for _, kind := range []struct {
		err  error
		code int
	}{
		{session.ErrUnreachable, exitUnreachable}, {session.ErrSealed, exitUnreachable},
		{session.ErrLogin, exitDenied}, {session.ErrDenied, exitDenied},
		{vault.ErrConflict, exitConflict}, {vault.ErrMissing, exitMissing},
		{errUnconfirmed, exitUsage},
	} {
		if errors.Is(err, kind.err) {
			return kind.code
		}
	}
	return exitFailed
}

// runError is a failure of the work itself, not of the command line.
type runError struct{ error }

func (e *runError) Unwrap() error { return e.error }

// cli is what all commands share.
type cli struct {
	format string
}

func newRoot() *cobra.Command {
	var c cli
	root := &cobra.Command{
		Use:   "tenantctl",
		Short: "Sets up a Vault for many tenants, and manages them",
		Long: `tenantctl sets up a HashiCorp Vault or OpenBao for many tenants, and manages their
secrets and credentials. Vault is taken from VAULT_ADDR and the other VAULT_*
variables of Vault's own client, the token from VAULT_TOKEN or ~/.vault-token.

` + exitCodes,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if !slices.Contains(output.Formats(), c.format) {
				return fmt.Errorf("--output %q is not known: use %s", c.format, strings.Join(output.Formats(), ", "))
			}
			return nil
		},
	}
	root.CompletionOptions.HiddenDefaultCmd = false
	root.PersistentFlags().StringVarP(&c.format, "output", "o", string(output.Table), "`format` of answers: "+strings.Join(output.Formats(), ", "))
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(output.Formats(), cobra.ShellCompDirectiveNoFileComp))
	root.AddCommand(newVersion())
	root.AddCommand(newSetup(&c), newStatus(&c), newLogin(&c), newRotateRoot(&c))
	root.AddCommand(newBackup(&c), newRestore(&c))
	root.AddCommand(newTenant(&c), newCredentials(&c))
	return root
}

// work is [cli.connect] for what takes a token.
func (c *cli) work(do func(ctx context.Context, v *vault.Client, args []string) error) func(*cobra.Command, []string) error {
	return c.connect(func(ctx context.Context, v *vault.Client, args []string) error {
		err := do(ctx, v, args)
		if errors.Is(err, session.ErrDenied) && v.API().Token() == "" { // Only then: a proxy may add a token.
			return fmt.Errorf(`%w; there is no token: set VAULT_TOKEN, or log in with "tenantctl login"`, err)
		}
		return err
	})
}

// connect makes a cobra function of one that is given a client. What it returns is
// a failure of the work; what args has to say is one of the command line.
func (c *cli) connect(do func(ctx context.Context, v *vault.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		v, err := vault.Connect()
		if err != nil {
			return fmt.Errorf("in the VAULT_* environment variables: %w", err)
		}
		if err := do(cmd.Context(), v, args); err != nil {
			return &runError{err}
		}
		return nil
	}
}

// show writes an answer in the format that was asked for.
func (c *cli) show(w io.Writer, v any, table func() output.Rows) error {
	return output.Format(c.format).Write(w, v, table)
}
