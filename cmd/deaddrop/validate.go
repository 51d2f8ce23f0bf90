package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/plural"
	"github.com/smarteros/deaddrop/render/printable"
	"github.com/smarteros/deaddrop/templates"
)

func newValidate() *cobra.Command {
	var show bool
	cmd := &cobra.Command{
		Use:   "validate FILE...",
		Short: "Check configuration files and their templates, without contacting anything",
		Long: `Validate reads configuration files, and folders of them, as "deaddrop run --config"
does, and says all that is wrong with file, line and column. What has no effect
is a warning. With --print it shows what comes of them, environment variables
included, in the same language and without secrets.`,
		Example: `  deaddrop validate /etc/deaddrop.hcl
  deaddrop validate --print vault-agent.hcl /etc/deaddrop.d`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			signal.Reset(os.Interrupt, syscall.SIGTERM) // They end it even while it reads a pipe.
			cfg, err := config.Load(args...)
			if err != nil {
				return err
			}
			for _, w := range cfg.Warnings {
				_, _ = fmt.Fprintln(cmd.ErrOrStderr(), "warning:", printable.Text(w.String()))
			}
			if show {
				_, err = io.WriteString(printable.Raw(cmd.OutOrStdout()), cfg.String())
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is valid: %s\n", printable.Text(strings.Join(args, ", ")), count(cfg))
			return err
		},
	}
	cmd.Flags().BoolVar(&show, "print", false, "show the effective configuration, without secrets")
	return cmd
}

// count tells how many drops a configuration has, and how many of them for each
// tenant.
func count(cfg *config.Config) string {
	text := plural.Of(len(cfg.Drops), "drop")
	if len(cfg.Each) > 0 {
		text += fmt.Sprintf(", and %d for each tenant", len(cfg.Each))
	}
	return text
}

func newTemplates() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "templates",
		Short: "Show the ready-made templates",
		Long: `The ready-made templates write what a service wants to find in its environment,
from the secrets of a tenant. A drop uses one by source = "builtin:NAME".`,
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "list",
		Short: "List the ready-made templates",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, name := range templates.Names() {
				if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%-14s %s\n", name, templates.Title(name)); err != nil {
					return err
				}
			}
			return nil
		},
	}, &cobra.Command{
		Use:       "show NAME",
		Short:     "Show the text of a ready-made template, to start one of your own from",
		Args:      cobra.ExactArgs(1),
		ValidArgs: templates.Names(),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, ok := templates.Read(args[0])
			if !ok {
				return fmt.Errorf("there is no template %q; there are %s", args[0], strings.Join(templates.Names(), ", "))
			}
			_, err := io.WriteString(printable.Raw(cmd.OutOrStdout()), text)
			return err
		},
	})
	return cmd
}
