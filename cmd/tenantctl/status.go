package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/output"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/status"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/vault"
)

func newStatus(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show how Vault is: sealed, version, engines, logins, audit, token, tenants",
		Long: `status shows how Vault is. Without a token, or with one of few rights, it shows what
can be seen, and says what cannot. The exit code is 3 if Vault is sealed, is not
initialised, or does not answer, and 4 if it does not know the token.`,
		Example: `  tenantctl status
  tenantctl status -o json | jq .seal.sealed`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.connect(func(ctx context.Context, v *vault.Client, _ []string) error {
				r, err := status.Look(ctx, v)
				if err != nil {
					return err
				}
				if err := c.show(cmd.OutOrStdout(), r, func() output.Rows { return statusRows(r) }); err != nil {
					return err
				}
				return closed(r)
			})(cmd, args)
		},
	}
}

// closed is the failure of a Vault that serves nobody, or does not know the token.
func closed(r *status.Report) error {
	switch {
	case !r.Initialized:
		return fmt.Errorf("%s is not initialised: run \"tenantctl setup --init\" (%w)", r.Address, session.ErrSealed)
	case r.Seal.Sealed:
		return fmt.Errorf("%w: unseal it with \"tenantctl setup --unseal\", or with \"vault operator unseal\"", session.ErrSealed)
	}
	if slices.ContainsFunc(r.Unseen, func(o status.Obstacle) bool { return o.Why == status.InvalidToken }) {
		return vault.Errorf(session.ErrDenied, `the token of VAULT_TOKEN or ~/.vault-token is invalid: it has ended, or is of another Vault: log in with "tenantctl login"`)
	}
	return nil
}

func statusRows(r *status.Report) output.Rows {
	rows := [][]string{
		{"Address", r.Address}, {"Version", r.Version}, {"Initialised", yes(r.Initialized)}, {"Sealed", sealText(r)},
		{"Storage", r.Storage},
	}
	if r.Cluster != "" {
		rows = append(rows, []string{"Cluster", r.Cluster})
	}
	if r.Seal.Sealed {
		return output.Rows{Body: rows}
	}
	rows = append(rows, []string{"HA", haText(r)})
	for _, part := range []struct {
		label, name string
		lines       []string
	}{
		{"Engines", status.Mounts, mountTexts(r.Mounts)}, {"Logins", status.Logins, mountTexts(r.Logins)},
		{"Audit", status.Devices, auditTexts(r.Audit)}, {"Token", status.Own, tokenTexts(r.Token)},
		{"Tenants", status.Tenants, countTexts(r.Tenants)},
	} {
		rows = append(rows, labelled(part.label, r.Unseen, part.name, part.lines)...)
	}
	return output.Rows{Body: rows}
}

// labelled are the lines of a part, or why there are none.
func labelled(label string, unseen []status.Obstacle, name string, lines []string) (rows [][]string) {
	for _, o := range unseen {
		if o.What == name {
			return [][]string{{label, "(" + o.Why + ")"}}
		}
	}
	if len(lines) == 0 {
		lines = []string{"none"}
	}
	for _, line := range lines {
		rows = append(rows, []string{label, line})
		label = ""
	}
	return rows
}

func yes(is bool) string {
	if is {
		return "yes"
	}
	return "no"
}

func sealText(r *status.Report) string {
	s := r.Seal
	text := yes(s.Sealed)
	if r.Initialized {
		text += fmt.Sprintf(" (%s, %d of %d keys unseal it)", s.Type, s.Threshold, s.Shares)
	}
	if s.Sealed && s.Progress > 0 {
		text += fmt.Sprintf("; keys given: %d", s.Progress)
	}
	return text
}

func haText(r *status.Report) string {
	switch {
	case r.HA == nil:
		return "(unknown)"
	case !r.HA.Enabled:
		return "no"
	case r.HA.Leader == "":
		return r.HA.Mode + ", there is no leader"
	}
	return r.HA.Mode + ", the leader is " + r.HA.Leader
}

func mountTexts(all []status.Mount) (lines []string) {
	for _, m := range all {
		line := m.Path + " " + m.Type
		if m.Version != "" {
			line += " version " + m.Version
		}
		lines = append(lines, line)
	}
	return lines
}

func auditTexts(all []status.Audit) (lines []string) {
	for _, a := range all {
		line := strings.TrimSpace(a.Path + " " + a.Type + " " + a.File)
		if a.Raw {
			line += ", raw: secrets are in it"
		}
		lines = append(lines, line)
	}
	return lines
}

func tokenTexts(t *status.Token) []string {
	if t == nil {
		return nil
	}
	until := "without an end"
	if t.Expires != nil {
		until = "until " + t.Expires.Local().Format(time.RFC1123) + " (" + t.TTL + ")"
	}
	return []string{t.Name + ", " + until, "policies " + strings.Join(t.Policies, ", ")}
}

func countTexts(n *int) []string {
	if n == nil {
		return nil
	}
	return []string{strconv.Itoa(*n)}
}
