package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/output"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/tenants"
)

// picker is the flag for versions.
type picker struct{ text string }

func (p *picker) flag(cmd *cobra.Command, what string) {
	cmd.Flags().StringVar(&p.text, "versions", "", what+" these `versions`, such as 1,2 or all")
}

// pick reads the flag. Numbers are those of one service.
func (p *picker) pick(args []string) (tenants.Pick, error) {
	var pick tenants.Pick
	switch {
	case p.text == "":
		return pick, nil
	case p.text == "all":
		pick.All = true
		return pick, nil
	case len(args) < 2:
		return pick, errors.New("--versions with numbers needs a service: each has versions of its own")
	}
	for text := range strings.SplitSeq(p.text, ",") {
		number, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || number < 1 {
			return pick, fmt.Errorf("--versions has %q in it: write numbers, such as 1,2, or all", text)
		}
		pick.Numbers = append(pick.Numbers, number)
	}
	return pick, nil
}

func newTenantDelete(c *cli) *cobra.Command {
	var p picker
	cmd := &cobra.Command{
		Use:   "delete ID [SERVICE]",
		Short: "Delete secrets, which can be undone",
		Long: `delete deletes the latest version of a secret, or of all secrets of the tenant, or the
versions that are named. "tenantctl tenant undelete" brings them back.

Versions before the latest can still be read by who asks for them, if --versions all
is not there. A version that somebody writes meanwhile stays.`,
		Example: `  tenantctl tenant delete demo shopify
  tenantctl tenant delete demo nexa --versions 1,2
  tenantctl tenant delete demo --versions all`,
		Args:              idArgs(1, 2),
		ValidArgsFunction: completeIDs,
	}
	p.flag(cmd, "delete")
	cmd.RunE = c.picked(&p, "deleted", (*tenants.Store).Delete)
	return cmd
}

func newTenantUndelete(c *cli) *cobra.Command {
	var p picker
	cmd := &cobra.Command{
		Use:   "undelete ID [SERVICE]",
		Short: "Bring back deleted secrets",
		Long: `undelete brings back the latest version of a secret, or of all secrets of the tenant,
or the versions that are named. Destroyed ones are gone for good.`,
		Example: `  tenantctl tenant undelete demo shopify
  tenantctl tenant undelete demo --versions all`,
		Args:              idArgs(1, 2),
		ValidArgsFunction: completeIDs,
	}
	p.flag(cmd, "bring back")
	cmd.RunE = c.picked(&p, "undeleted", (*tenants.Store).Undelete)
	return cmd
}

type act func(*tenants.Store, context.Context, string, []string, tenants.Pick) ([]tenants.Picked, error)

// picked does something with versions, and tells with which.
func (c *cli) picked(p *picker, done string, do act) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		pick, err := p.pick(args)
		if err != nil {
			return err
		}
		return c.store(func(ctx context.Context, s *tenants.Store, args []string) error {
			services, err := servicesOf(ctx, s, args)
			if err != nil {
				return err
			}
			return c.did(ctx, cmd, s, args[0], services, pick, done, do)
		})(cmd, args)
	}
}

func (c *cli) did(ctx context.Context, cmd *cobra.Command, s *tenants.Store, id string, services []string, pick tenants.Pick, done string, do act) error {
	picked, err := do(s, ctx, id, services, pick)
	if err != nil {
		return err
	}
	return c.show(cmd.OutOrStdout(), picked, func() output.Rows {
		rows := output.Rows{Head: []string{"TENANT", "SERVICE", strings.ToUpper(done) + " VERSIONS"}}
		for _, p := range picked {
			rows.Body = append(rows.Body, []string{p.Tenant, p.Service, numbers(p.Versions)})
		}
		return rows
	})
}

func numbers(all []int) string {
	if len(all) == 0 {
		return "none"
	}
	texts := make([]string, len(all))
	for i, n := range all {
		texts[i] = strconv.Itoa(n)
	}
	return strings.Join(texts, ", ")
}

func newTenantDestroy(c *cli) *cobra.Command {
	var p picker
	var all, yes bool
	cmd := &cobra.Command{
		Use:   "destroy ID [SERVICE]",
		Short: "Remove secrets for good",
		Long: `destroy removes what is in versions of a secret for good. With --all the whole secret
goes, with its metadata and all versions, or without SERVICE the whole tenant.

A terminal asks for the tenant's id before anything is done; elsewhere --yes must be
there. A tenant's logins stay: see "tenantctl credentials revoke".`,
		Example: `  tenantctl tenant destroy demo nexa --versions 1,2
  tenantctl tenant destroy demo --all --yes`,
		Args:              idArgs(1, 2),
		ValidArgsFunction: completeIDs,
	}
	p.flag(cmd, "destroy")
	cmd.Flags().BoolVar(&all, "all", false, "remove metadata and all versions")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.MarkFlagsMutuallyExclusive("all", "versions")
	cmd.MarkFlagsOneRequired("all", "versions")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		pick, err := p.pick(args)
		if err != nil {
			return err
		}
		if !yes && !onTerminal(cmd.InOrStdin()) {
			return errors.New("destroy cannot be undone, and there is no terminal to ask on: add --yes")
		}
		return c.store(func(ctx context.Context, s *tenants.Store, args []string) error {
			services, err := servicesOf(ctx, s, args)
			if err != nil {
				return err
			}
			if err := sure(ctx, cmd, s, args[0], services, yes); err != nil {
				return err
			}
			if !all {
				return c.did(ctx, cmd, s, args[0], services, pick, "destroyed", (*tenants.Store).Destroy)
			}
			if err := s.Remove(ctx, args[0], services); err != nil {
				return err
			}
			gone := tenants.Tenant{ID: args[0], Services: services}
			return c.show(cmd.OutOrStdout(), gone, func() output.Rows {
				return output.Rows{Head: []string{"TENANT", "REMOVED SERVICES"}, Body: [][]string{{gone.ID, strings.Join(services, ", ")}}}
			})
		})(cmd, args)
	}
	return cmd
}

// sure makes sure that all is there, and that it is meant.
func sure(ctx context.Context, cmd *cobra.Command, s *tenants.Store, id string, services []string, yes bool) error {
	for _, service := range services {
		if _, err := s.Versions(ctx, id, service); err != nil {
			return err
		}
	}
	if yes {
		return nil
	}
	answer, err := askLine(cmd, fmt.Sprintf("This destroys secrets of %s for good: %s.\nType the tenant's id to go on: ", id, strings.Join(services, ", ")))
	if err != nil {
		return err
	}
	if answer != id {
		return errors.New("that is not the tenant's id; nothing was destroyed")
	}
	return nil
}
