package main

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/smarteros/deaddrop/agent/tenant"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/credentials"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/output"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/vault"
)

func newCredentials(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "credentials",
		Short: "Manage the logins of tenants",
		Long: `credentials manages the logins of tenants: an AppRole each, and an entity whose
metadata names the tenant, and the service, that the policies let it read.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("credentials needs a command, such as \"tenantctl credentials list\"")
		},
	}
	cmd.AddCommand(newIssue(c), newCredentialsList(c), newRevoke(c))
	return cmd
}

// serviceFlag is the flag for the service of a login, which Vault completes.
func serviceFlag(cmd *cobra.Command, service *string, usage string) {
	cmd.Flags().StringVar(service, "service", "", usage)
	_ = cmd.RegisterFlagCompletionFunc("service", func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return tenant.Services(), cobra.ShellCompDirectiveNoFileComp
		}
		return completeIDs(cmd, args[:1], "")
	})
}

// completeID completes the id of a tenant.
func completeID(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return completeIDs(cmd, args, word)
}

// checkService checks the flag, which may be left out but not be empty.
func checkService(cmd *cobra.Command, l credentials.Login) error {
	if cmd.Flags().Changed("service") && l.Service == "" {
		return errors.New("--service is empty: name one, such as nexa, or leave it out for all services of the tenant")
	}
	return l.Check()
}

func newCredentialsList(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list [ID]",
		Short: "List logins and their secret ids",
		Long: `list shows the logins of a tenant, or of all, with each secret id that is good for one:
its accessor, when it was made and ends, how many logins it has left, from where they
may come. Secret ids themselves are never shown; Vault itself has only hashes.`,
		Example: `  tenantctl credentials list
  tenantctl credentials list demo -o json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return idArgs(1, 1)(cmd, args)
		},
		ValidArgsFunction: completeID,
	}
	cmd.RunE = c.work(func(ctx context.Context, v *vault.Client, args []string) error {
		s, err := credentials.Open(ctx, v)
		if err != nil {
			return err
		}
		found, err := s.List(ctx, strings.Join(args, ""))
		if err != nil {
			return err
		}
		if found == nil {
			found = []credentials.Role{}
		}
		return c.show(cmd.OutOrStdout(), found, func() output.Rows { return roleRows(found) })
	})
	return cmd
}

func roleRows(found []credentials.Role) output.Rows {
	rows := output.Rows{Head: []string{"TENANT", "SERVICE", "ROLE", "ACCESSOR", "CREATED", "EXPIRES", "USES LEFT", "FROM"}}
	for _, r := range found {
		begin := []string{r.Tenant, serviceName(r.Service), r.Role}
		if len(r.SecretIDs) == 0 {
			rows.Body = append(rows.Body, append(begin, "-", "-", "-", "-", "-"))
		}
		for _, id := range r.SecretIDs {
			expires, uses, from := "never", "any", "anywhere"
			if id.Expires != nil {
				expires = date(id.Expires.Format(time.RFC3339Nano))
			}
			if id.UsesLeft != nil {
				uses = strconv.Itoa(*id.UsesLeft)
			}
			if len(id.CIDRs) > 0 {
				from = strings.Join(id.CIDRs, ", ")
			}
			rows.Body = append(rows.Body, append(begin[:3:3], id.Accessor, date(id.Created.Format(time.RFC3339Nano)), expires, uses, from))
		}
	}
	return rows
}

func serviceName(service string) string {
	if service == "" {
		return "(all)"
	}
	return service
}

func newRevoke(c *cli) *cobra.Command {
	var r credentials.Revocation
	cmd := &cobra.Command{
		Use:   "revoke ID",
		Short: "End logins of a tenant",
		Long: `revoke destroys the secret ids of a tenant, or those of one service, or a single one, so
that nobody logs in with them any more. The tokens that somebody has already go on
until they end, unless --tokens revokes them, too.

--all removes role, entity and alias, too, and ends all tokens. The tenant's secrets
stay: see "tenantctl tenant destroy".`,
		Example: `  tenantctl credentials revoke demo --service nexa --tokens
  tenantctl credentials revoke demo --accessor 84896a0c-1347-aa90-a4f6-aca8b7558780
  tenantctl credentials revoke demo --all`,
		Args:              idArgs(1, 1),
		ValidArgsFunction: completeID,
	}
	serviceFlag(cmd, &r.Service, "end only the login of this `service`")
	f := cmd.Flags()
	f.StringVar(&r.Accessor, "accessor", "", "end only the secret id with this `accessor`, see \"credentials list\"")
	f.BoolVar(&r.Tokens, "tokens", false, "revoke the tokens, too")
	f.BoolVar(&r.All, "all", false, "remove role, entity and alias, too")
	cmd.MarkFlagsMutuallyExclusive("accessor", "all")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r.Tenant = args[0]
		if err := checkService(cmd, credentials.Login{Tenant: r.Tenant, Service: r.Service}); err != nil {
			return err
		}
		if cmd.Flags().Changed("accessor") && r.Accessor == "" {
			return errors.New("--accessor is empty: \"tenantctl credentials list\" shows accessors")
		}
		return c.work(func(ctx context.Context, v *vault.Client, _ []string) error {
			s, err := credentials.Open(ctx, v)
			if err != nil {
				return err
			}
			done, err := s.Revoke(ctx, r)
			if err != nil {
				return err
			}
			return c.show(cmd.OutOrStdout(), done, func() output.Rows { return revokedRows(done) })
		})(cmd, args)
	}
	return cmd
}

func revokedRows(done []credentials.Revoked) output.Rows {
	rows := output.Rows{Head: []string{"TENANT", "SERVICE", "ROLE", "SECRET IDS", "TOKENS", "REMOVED"}}
	for _, r := range done {
		removed := "no"
		if r.Removed {
			removed = "yes"
		}
		rows.Body = append(rows.Body, []string{r.Tenant, serviceName(r.Service), r.Role, strconv.Itoa(len(r.SecretIDs)), strconv.Itoa(r.Tokens), removed})
	}
	return rows
}
