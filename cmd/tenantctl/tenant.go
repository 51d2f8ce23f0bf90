package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/smarteros/deaddrop/agent/plural"
	"github.com/smarteros/deaddrop/agent/tenant"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/output"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/tenants"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/vault"
)

func newTenant(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tenant",
		Short: "Manage tenants and their secrets",
		Long: `tenant manages the secrets at secret/tenant/ID/SERVICE. A tenant is there as long as it
has a service. Ids of tenants and services have letters, digits, -, _ and single dots.

What two operators do at the same time is never lost: a change is written with
check-and-set, on top of what the other has written, or refused (exit code 6) where
both have changed the same key.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return fmt.Errorf("tenant needs a command, such as \"tenantctl tenant list\"")
		},
	}
	cmd.AddCommand(
		newTenantList(c), newTenantShow(c), newTenantVersions(c),
		newTenantAdd(c), newTenantSet(c), newTenantUnset(c),
		newTenantDelete(c), newTenantUndelete(c), newTenantDestroy(c),
	)
	return cmd
}

// store makes a cobra function of one that is given the tenants of Vault.
func (c *cli) store(do func(ctx context.Context, s *tenants.Store, args []string) error) func(*cobra.Command, []string) error {
	return c.work(func(ctx context.Context, v *vault.Client, args []string) error {
		s, err := tenants.Open(ctx, v)
		if err != nil {
			return err
		}
		return do(ctx, s, args)
	})
}

// idArgs checks how many arguments there are, and that the first ones are ids: of a
// tenant, then of a service.
func idArgs(least, most int) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < least {
			return fmt.Errorf("%s is missing", []string{"the id of a tenant", "the service, such as nexa,", "a key"}[len(args)])
		}
		if most >= 0 && len(args) > most {
			return fmt.Errorf("there are %d arguments; %d %s the most", len(args), most, plural.Be(most))
		}
		for _, id := range args[:min(2, len(args))] {
			if err := tenant.CheckID(id); err != nil {
				return err
			}
		}
		return nil
	}
}

// servicesOf are the one of the arguments, or else all of the tenant.
func servicesOf(ctx context.Context, s *tenants.Store, args []string) ([]string, error) {
	if len(args) > 1 {
		return args[1:2], nil
	}
	return s.Existing(ctx, args[0])
}

// completionTime is how long a shell waits for Vault.
const completionTime = 2 * time.Second

// completeIDs completes the id of a tenant, then of its service, from Vault, if it
// answers.
func completeIDs(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return complete(cmd, func(ctx context.Context, v *vault.Client) ([]string, error) {
		s, err := tenants.Open(ctx, v)
		switch {
		case err != nil || len(args) > 1:
			return nil, err
		case len(args) == 1:
			return s.Services(ctx, args[0])
		}
		return s.IDs(ctx)
	}), cobra.ShellCompDirectiveNoFileComp
}

// complete asks Vault once, and says nothing where that fails.
func complete(cmd *cobra.Command, ask func(context.Context, *vault.Client) ([]string, error)) []string {
	v, err := vault.Connect()
	if err != nil {
		return nil
	}
	v.API().SetMaxRetries(0)
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
	defer cancel()
	found, err := ask(ctx, v)
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(found, func(id string) bool { return tenant.CheckID(id) != nil })
}

// tenantAnswer is one tenant in a list.
type tenantAnswer struct {
	tenants.Tenant
	Count int `json:"count"`
}

func newTenantList(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the tenants and their services",
		Example: `  tenantctl tenant list
  tenantctl tenant list -o json | jq -r '.[].tenant'`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.RunE = c.store(func(ctx context.Context, s *tenants.Store, _ []string) error {
		all, err := s.List(ctx)
		if err != nil {
			return err
		}
		answers := make([]tenantAnswer, len(all))
		for i, t := range all {
			answers[i] = tenantAnswer{t, len(t.Services)}
			if tenant.CheckID(t.ID) != nil {
				note(cmd, "tenantctl: the name %q is no id of a tenant, and no command takes it; it may stand for several tenants in a policy. Remove it with \"vault kv metadata delete\".", t.ID)
			}
		}
		return c.show(cmd.OutOrStdout(), answers, func() output.Rows {
			rows := output.Rows{Head: []string{"TENANT", "COUNT", "SERVICES"}}
			for _, a := range answers {
				rows.Body = append(rows.Body, []string{a.ID, strconv.Itoa(a.Count), strings.Join(a.Services, ", ")})
			}
			return rows
		})
	})
	return cmd
}

func newTenantVersions(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:               "versions ID SERVICE",
		Short:             "List the versions of a secret",
		Example:           "  tenantctl tenant versions demo nexa",
		Args:              idArgs(2, 2),
		ValidArgsFunction: completeIDs,
	}
	cmd.RunE = c.store(func(ctx context.Context, s *tenants.Store, args []string) error {
		versions, err := s.Versions(ctx, args[0], args[1])
		if err != nil {
			return err
		}
		return c.show(cmd.OutOrStdout(), versions, func() output.Rows {
			rows := output.Rows{Head: []string{"VERSION", "STATE", "CREATED", "DELETED"}}
			for _, v := range versions {
				rows.Body = append(rows.Body, []string{strconv.Itoa(v.Number), v.State, date(v.Created), date(v.Deleted)})
			}
			return rows
		})
	})
	return cmd
}

// date shortens a time of Vault's for a table.
func date(text string) string {
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || at.IsZero() {
		return "-"
	}
	return at.Local().Format("2006-01-02 15:04:05")
}
