package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"

	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/keys"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/output"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/vault"
)

type loginCommand struct {
	*cli
	user         string
	passwordFile string
	print        bool
}

func newLogin(c *cli) *cobra.Command {
	l := loginCommand{cli: c}
	cmd := &cobra.Command{
		Use:   "login",
		Short: "Log in with a user's name and password",
		Long: `login logs in to Vault with userpass, and keeps the token in ~/.vault-token, for its
owner alone, where all commands and Vault's own find it. The password is asked for on
a terminal, or comes from a file.`,
		Example: `  tenantctl login
  tenantctl login --user anna
  tenantctl login --password-file credentials/admin.password
  VAULT_TOKEN=$(tenantctl login --password-file - --print-token <password.txt)`,
		Args: cobra.NoArgs,
		RunE: l.run,
	}
	f := cmd.Flags()
	f.StringVar(&l.user, "user", "admin", "`name` of the user")
	f.StringVar(&l.passwordFile, "password-file", "", "`file` with the password; \"-\" is standard input (default: it is asked for)")
	f.BoolVar(&l.print, "print-token", false, "also print the token")
	return cmd
}

func (l *loginCommand) run(cmd *cobra.Command, _ []string) error {
	if err := checkUser("--user", l.user); err != nil {
		return err
	}
	password, err := l.password(cmd)
	if err != nil {
		return err
	}
	return l.connect(func(ctx context.Context, v *vault.Client, _ []string) error {
		auth, err := l.login(ctx, v, password)
		if err != nil {
			return err
		}
		path, err := vault.TokenFile()
		if err != nil {
			return fmt.Errorf("where the token goes: %w", err)
		}
		if err := keys.WriteFile(path, []byte(auth.ClientToken)); err != nil {
			return err
		}
		return l.answer(cmd, v, auth, path)
	})(cmd, nil)
}

func (l *loginCommand) password(cmd *cobra.Command) (string, error) {
	switch {
	case l.passwordFile != "":
		return passwordFrom("--password-file", l.passwordFile, cmd.InOrStdin())
	case !onTerminal(cmd.InOrStdin()):
		return "", errors.New(`there is no terminal to ask for the password: give --password-file ("-" is standard input)`)
	}
	password, err := askHidden(cmd, "Password of "+l.user+": ")
	if err == nil && password == "" {
		err = errors.New("no password was given")
	}
	return password, err
}

func (l *loginCommand) login(ctx context.Context, v *vault.Client, password string) (*api.SecretAuth, error) {
	own, err := v.With("") // An old token has no business there.
	if err != nil {
		return nil, err
	}
	answer, err := own.Write(ctx, "auth/userpass/login/"+l.user, map[string]any{"password": password})
	switch {
	case errors.Is(err, session.ErrRejected), errors.Is(err, session.ErrDenied):
		return nil, &loginError{fmt.Errorf("logging in as %s: the name or the password is wrong, or there is no login by userpass (%w)", l.user, err)}
	case err != nil:
		return nil, err
	case answer == nil || answer.Auth == nil || answer.Auth.ClientToken == "":
		return nil, &loginError{fmt.Errorf(`logging in as %s: Vault wants more than a password: use "vault login -method=userpass"`, l.user)}
	}
	return answer.Auth, nil
}

// loginError is a [session.ErrLogin] that says itself what failed.
type loginError struct{ error }

func (e *loginError) Unwrap() []error { return []error{e.error, session.ErrLogin} }

// loginResult is what the command answers.
type loginResult struct {
	Address  string     `json:"address"`
	User     string     `json:"user"`
	Policies []string   `json:"policies"`
	Expires  *time.Time `json:"expires,omitempty"`
	File     string     `json:"file"`
	Token    string     `json:"token,omitempty"`
}

func (l *loginCommand) answer(cmd *cobra.Command, v *vault.Client, auth *api.SecretAuth, path string) error {
	r := loginResult{Address: v.Address(), User: l.user, Policies: auth.TokenPolicies, File: path}
	until := "without an end"
	if auth.LeaseDuration > 0 {
		end := time.Now().Add(time.Duration(auth.LeaseDuration) * time.Second).UTC().Truncate(time.Second)
		r.Expires, until = &end, "until "+end.Local().Format(time.RFC1123)
	}
	if os.Getenv("VAULT_TOKEN") != "" {
		note(cmd, "VAULT_TOKEN is set, and counts more than the file: unset it to use this login")
	}
	if l.print {
		r.Token = auth.ClientToken
	}
	if l.format != string(output.Table) {
		return l.show(cmd.OutOrStdout(), r, nil)
	}
	out := cmd.OutOrStdout()
	if l.print { // Alone, so that a script can take it.
		if _, err := fmt.Fprintln(out, r.Token); err != nil {
			return fmt.Errorf("printing the token, which is in %s: %w", r.File, err)
		}
		out = cmd.ErrOrStderr()
	}
	_, err := fmt.Fprintf(out, "Logged in to %s as %s. The token is in %s, and lasts %s.\n", r.Address, r.User, r.File, until)
	return err
}
