package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/output"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/tenants"
)

// mask is shown for a value: it doesn't tell how long that is.
const mask = "********"

func newTenantShow(c *cli) *cobra.Command {
	var reveal bool
	var version int
	cmd := &cobra.Command{
		Use:   "show ID [SERVICE]",
		Short: "Show the secrets of a tenant, without their values",
		Long: `show lists the keys of a tenant's secrets, or of one of them. Values are shown as
` + mask + ` unless --reveal is there; empty ones stay empty.

With SERVICE, JSON and YAML are one object, else an array.`,
		Example: `  tenantctl tenant show demo
  tenantctl tenant show demo nexa --version 3
  tenantctl tenant show demo nexa --reveal -o json | jq -r .data.API_KEY`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := idArgs(1, 2)(cmd, args); err != nil {
				return err
			}
			switch {
			case cmd.Flags().Changed("version") && version < 1:
				return errors.New("--version counts from 1")
			case version != 0 && len(args) < 2:
				return errors.New("--version needs a service: each has versions of its own")
			}
			return nil
		},
		ValidArgsFunction: completeIDs,
	}
	cmd.Flags().BoolVar(&reveal, "reveal", false, "show the values")
	cmd.Flags().IntVar(&version, "version", 0, "show this `version` instead of the latest")
	cmd.RunE = c.store(func(ctx context.Context, s *tenants.Store, args []string) error {
		secrets, err := readFor(ctx, s, args, version)
		if err != nil {
			return err
		}
		if !reveal {
			for _, secret := range secrets {
				hide(secret.Data)
			}
		}
		var answer any = secrets
		if len(args) > 1 {
			answer = secrets[0]
		}
		return c.show(cmd.OutOrStdout(), answer, func() output.Rows { return secretRows(secrets) })
	})
	return cmd
}

func readFor(ctx context.Context, s *tenants.Store, args []string, version int) ([]tenants.Secret, error) {
	if len(args) > 1 {
		secret, err := s.Read(ctx, args[0], args[1], version)
		if err != nil {
			return nil, err
		}
		return []tenants.Secret{*secret}, nil
	}
	services, err := s.Existing(ctx, args[0])
	if err != nil {
		return nil, err
	}
	return s.ReadAll(ctx, args[0], services)
}

func hide(data map[string]any) {
	for key, value := range data {
		if value != "" {
			data[key] = mask
		}
	}
}

func secretRows(secrets []tenants.Secret) output.Rows {
	rows := output.Rows{Head: []string{"SERVICE", "VERSION", "KEY", "VALUE"}}
	for _, secret := range secrets {
		version := strconv.Itoa(secret.Number)
		if secret.State != tenants.Live || len(secret.Data) == 0 {
			rows.Body = append(rows.Body, []string{secret.Service, version, "-", "(" + stateOf(secret) + ")"})
		}
		for _, key := range slices.Sorted(maps.Keys(secret.Data)) {
			rows.Body = append(rows.Body, []string{secret.Service, version, key, cell(secret.Data[key])})
		}
	}
	return rows
}

func stateOf(secret tenants.Secret) string {
	if secret.State == tenants.Live {
		return "no keys"
	}
	return secret.State
}

// cell is how a value looks in a table: text as it is if that fits on a line, all
// else as JSON.
func cell(value any) string {
	text, isText := value.(string)
	if isText && !strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return text
	}
	var out strings.Builder
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		return fmt.Sprintf("(%T)", value)
	}
	return strings.TrimSpace(out.String())
}
