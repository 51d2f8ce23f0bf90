package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/output"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/tenants"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/values"
)

const valueHelp = `Values are KEY=VALUE, KEY=@FILE, or KEY=- for standard input, which a terminal asks
for without showing it. They are strings; a file's only line does not include its
line break. --from takes many from a file, or from standard input if it is "-": a
JSON object, whose numbers and booleans stay what they are, or .env text.

What stands in KEY=VALUE is seen by every user of the machine (ps) and kept in the
shell's history. Use KEY=- or KEY=@FILE for what is secret. Write \@ or \- where a
value begins with @ or is -.`

func newTenantAdd(c *cli) *cobra.Command {
	var from string
	cmd := &cobra.Command{
		Use:   "add ID [SERVICE KEY=VALUE...]",
		Short: "Add a tenant, or a service to one",
		Long: `add makes a tenant that has the services of the platform, without any values yet: what
follows tenants finds it, and goes on as soon as "tenantctl tenant set" gives it some.
With SERVICE and values it makes that one secret, of a new tenant or of one that is
there. What is there already is not touched (exit code 6).

` + valueHelp,
		Example: `  tenantctl tenant add demo
  tenantctl tenant add demo nexa --from nexa.env
  tenantctl tenant add demo smtp SMTP_HOST=mail.example.com SMTP_PASSWORD=-`,
		Args:              idArgs(1, -1),
		ValidArgsFunction: completeIDs,
	}
	cmd.Flags().StringVar(&from, "from", "", "`file` with the values; - is standard input")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 && from == "" {
			return c.store(func(ctx context.Context, s *tenants.Store, args []string) error {
				added, err := s.Add(ctx, args[0])
				if err != nil {
					return err
				}
				return c.show(cmd.OutOrStdout(), added, func() output.Rows {
					return output.Rows{Head: []string{"TENANT", "SERVICES"}, Body: [][]string{{added.ID, strings.Join(added.Services, ", ")}}}
				})
			})(cmd, args)
		}
		set, err := valuesOf(cmd, args, from)
		if err != nil {
			return err
		}
		return c.change(cmd, args, tenants.Change{Set: set, Create: true})
	}
	return cmd
}

func newTenantSet(c *cli) *cobra.Command {
	var from string
	var cas int
	var change tenants.Change
	cmd := &cobra.Command{
		Use:   "set ID SERVICE KEY=VALUE...",
		Short: "Set keys of a secret",
		Long: `set changes keys of a secret, and leaves its others alone. Nothing is written where
all are as they should be. A service that isn't there yet is made; a tenant is not, see
"tenantctl tenant add".

` + valueHelp + `

A change is written with check-and-set. Where somebody else was quicker it is made
again on top of theirs, unless they have changed the same keys: then nothing is
written (exit code 6). --cas insists on the version that you have looked at.`,
		Example: `  tenantctl tenant set demo nexa API_KEY=-
  pass show demo/api-key | tenantctl tenant set demo nexa API_KEY=-
  tenantctl tenant set demo nexa TLS_KEY=@key.pem LOG_LEVEL=info
  tenantctl tenant set demo nexa --from nexa.env --replace --cas 4`,
		Args:              idArgs(2, -1),
		ValidArgsFunction: completeIDs,
	}
	f := cmd.Flags()
	f.StringVar(&from, "from", "", "`file` with values; - is standard input")
	f.BoolVar(&change.Replace, "replace", false, "remove the keys that are not given")
	casFlag(cmd, &cas)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var err error
		if change.Set, err = valuesOf(cmd, args, from); err != nil {
			return err
		}
		if change.CAS, err = casOf(cmd, cas); err != nil {
			return err
		}
		return c.change(cmd, args, change)
	}
	return cmd
}

func newTenantUnset(c *cli) *cobra.Command {
	var cas int
	cmd := &cobra.Command{
		Use:   "unset ID SERVICE KEY...",
		Short: "Remove keys from a secret",
		Long: `unset removes keys from a secret, and leaves its others alone. Older versions still
have them: see "tenantctl tenant destroy".`,
		Example:           "  tenantctl tenant unset demo nexa OLD_API_KEY",
		Args:              idArgs(3, -1),
		ValidArgsFunction: completeIDs,
	}
	casFlag(cmd, &cas)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		insist, err := casOf(cmd, cas)
		if err != nil {
			return err
		}
		return c.change(cmd, args, tenants.Change{Unset: args[2:], CAS: insist})
	}
	return cmd
}

func casFlag(cmd *cobra.Command, cas *int) {
	cmd.Flags().IntVar(cas, "cas", 0, "write only if this is the latest `version`; 0 is none")
}

// casOf is nil where the flag isn't there.
func casOf(cmd *cobra.Command, cas int) (*int, error) {
	switch {
	case !cmd.Flags().Changed("cas"):
		return nil, nil
	case cas < 0:
		return nil, errors.New("--cas is the number of a version, or 0")
	}
	return &cas, nil
}

// valuesOf reads the values behind the ids, and those of --from.
func valuesOf(cmd *cobra.Command, args []string, from string) (map[string]any, error) {
	if len(args) < 2 {
		return nil, errors.New("the service that the values are for is missing, such as nexa")
	}
	args = args[2:]
	if len(args) == 0 && from == "" {
		return nil, errors.New("there are no values: write KEY=VALUE, KEY=@FILE or KEY=-, or name a file with --from")
	}
	in := values.Input{Stdin: patient{cmd.Context(), cmd.InOrStdin()}}
	if onTerminal(cmd.InOrStdin()) {
		in.Ask = func(key string) (string, error) { return askHidden(cmd, "Value of "+key+" (not shown): ") }
	}
	all, err := in.Arguments(args)
	if err != nil {
		return nil, err
	}
	if from != "" {
		more, err := in.From(from)
		if err != nil {
			return nil, fmt.Errorf("--from: %w", err)
		}
		for key, value := range more {
			if _, twice := all[key]; twice {
				return nil, fmt.Errorf("the key %q is given twice: as an argument, and in %s", key, from)
			}
			all[key] = value
		}
	}
	if err := values.CheckSize(all); err != nil {
		return nil, err
	}
	if values.Literal(args) && onTerminal(cmd.ErrOrStderr()) {
		note(cmd, "hint: what stands on the command line is seen in ps and kept in the shell's history; KEY=- and KEY=@FILE are not")
	}
	return all, nil
}

// change changes a secret, and tells what was done.
func (c *cli) change(cmd *cobra.Command, args []string, change tenants.Change) error {
	return c.store(func(ctx context.Context, s *tenants.Store, args []string) error {
		written, err := s.Change(ctx, args[0], args[1], change)
		if err != nil {
			return err
		}
		return c.show(cmd.OutOrStdout(), written, func() output.Rows { return writtenRows(written) })
	})(cmd, args)
}

func writtenRows(w *tenants.Written) output.Rows {
	did := map[string][]string{"added": w.Added, "changed": w.Changed, "removed": w.Removed}
	rows := output.Rows{Head: []string{"TENANT", "SERVICE", "VERSION", "KEYS"}}
	var parts []string
	for _, what := range slices.Sorted(maps.Keys(did)) {
		if len(did[what]) > 0 {
			parts = append(parts, what+" "+strings.Join(did[what], ", "))
		}
	}
	if w.Unchanged() {
		parts = []string{"unchanged"}
	}
	rows.Body = [][]string{{w.Tenant, w.Service, strconv.Itoa(w.Version), strings.Join(parts, "; ")}}
	return rows
}
