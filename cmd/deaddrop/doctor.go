package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/doctor"
	"github.com/smarteros/deaddrop/agent/supervise"
	"github.com/smarteros/deaddrop/render/printable"
)

func newDoctor() *cobra.Command {
	var opts options
	var output string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find out why it does not work, and what to do about it",
		Long: `Doctor looks at all that an agent needs, in order: the configuration, the ids, Vault's
address and certificate, whether Vault serves, the login and its token, each secret,
what is made of it, the folders and files, the checks and the reloads. It says a line
each, and below what is wrong what to do. It takes the flags of "deaddrop run".

It changes nothing: it writes no file, runs no check and no reload, and has Vault issue
nothing, so that of what is issued, such as the password of a database, it only asks
whether the login may have it. It logs in once, which is one use of a secret id whose
uses are limited, and revokes its token where the policy allows it. A wrapped secret
id is not unwrapped.

Run it as the agent's user, in the agent's container or unit: else it looks at other
folders and processes.

Exit codes:
  0  all is well, or there are only warnings
  1  a folder, a file, a template, a check or a reload is wrong
  2  bad configuration or command line; nothing was contacted
  3  Vault cannot be reached, or is sealed
  4  the login failed, or permission is denied
  5  a secret or a key is missing
  130, 143  ended by SIGINT or SIGTERM before it was done
When several fail, 3 goes before 4, 4 before 5 and 5 before 1.`,
		Example: `  deaddrop doctor --config /etc/deaddrop.hcl
  deaddrop doctor --tenant demo --service nexa --out /run/nexa.env
  deaddrop doctor --config /etc/deaddrop.hcl -o json
  docker exec nexa-secrets /deaddrop doctor --config /etc/deaddrop.hcl`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "text" && output != "json" {
				return fmt.Errorf("--output %q is not known: use text or json; the file to write is --out", output)
			}
			defer endInTime(cmd.Context())() // A pipe may never end.
			cfg, _, err := opts.load()
			var wrong *config.Error
			if err != nil && !errors.As(err, &wrong) {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			report := doctor.Run(ctx, cfg, err)
			if err := endedEarly(cmd); err != nil {
				return err
			}
			return showReport(cmd.OutOrStdout(), output, report)
		},
	}
	opts.bindFiles(cmd, "")
	opts.bindReload(cmd)
	f := cmd.Flags()
	f.StringVar(&opts.simple.Interval, "interval", config.DefaultInterval.String(), "how often the agent is to look at the secret")
	f.StringVar(&opts.statusAddress, "status-address", "", "`address` at which the agent is to tell how it is (default $"+config.StatusAddressVariable+")")
	f.StringVarP(&output, "output", "o", "text", "text or json")
	bindTimeout(cmd, &timeout, 30*time.Second)
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	for _, name := range []string{"log-level", "log-format"} {
		_ = f.MarkHidden(name) // It logs nothing; but the flags of run are to work.
	}
	return cmd
}

// showReport prints a report, and turns it into an exit code.
func showReport(w io.Writer, output string, r *doctor.Report) error {
	err := r.Err()
	code := exitOK
	var wrong *config.Error
	switch {
	case errors.As(err, &wrong):
		code = exitUsage
	case err != nil:
		code = exitCode(err)
	}
	raw := printable.Raw(w)
	colours := isColourful(raw)
	if output == "json" {
		e := json.NewEncoder(printable.NewJSONWriter(raw))
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		err = e.Encode(struct {
			*doctor.Report
			ExitCode int `json:"exit_code"`
		}{r, code})
	} else {
		if colours {
			w = raw
		}
		err = r.Print(w, colours)
	}
	if code != exitOK {
		err = failure(nil, &supervise.ExitError{Code: code}) // All was said.
	}
	return err
}

// isColourful tells whether colours are seen, and wanted: see no-color.org.
func isColourful(w io.Writer) bool {
	file, isFile := w.(*os.File)
	return isFile && term.IsTerminal(int(file.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
