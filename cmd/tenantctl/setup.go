package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/smarteros/deaddrop/agent/plural"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/keys"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/output"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/setup"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/vault"
	"github.com/smarteros/deaddrop/render/printable"
)

type setupCommand struct {
	*cli
	setup.Options
	keys          keyFlags
	init          bool
	shares        int
	threshold     int
	ageRecipients []string
	pgpKeys       []string
	rootPGPKey    string
	printKeys     bool
	passwordFile  string
	noAudit       bool
	noDemo        bool
	noCredentials bool

	steps []setup.Step
}

func newSetup(c *cli) *cobra.Command {
	s := setupCommand{cli: c}
	cmd := &cobra.Command{
		Use:   "setup",
		Short: "Bring a Vault into the state that the platform wants",
		Long: `setup waits for Vault, initialises and unseals it if told to, and sees to what the
platform needs there:

  - the KV engine, version 2, at secret/
  - the policies for admins, tenants and the Nexa runtime
  - the AppRole ` + setup.Runtime + `: tokens of 1 h, at most 24 h, without the default policy
  - a user with a password for whoever manages tenants
  - an audit log in a file of the server
  - the example tenant ` + setup.Demo + `, with values that nobody takes for real
  - the credentials of ` + setup.Runtime + ` in files for their owner alone

Each step looks first, and changes only what differs: a second run changes nothing.
What is beyond that, such as other policies and roles, is left alone. With --check
nothing is written at all, and the exit code is 1 if something differs.

The unseal keys and the root token of a new Vault go into --keys-file, which is never
overwritten: plain, for its owner alone; or encrypted with age; or each key encrypted
with the PGP key of its owner. Keep it elsewhere, and end the root token soon, with
"tenantctl rotate-root --admin".

The password of the user is the one of --admin-password-file; or it is asked for on a
terminal; or it is generated, and kept in --credentials-dir. It is set once: another
run leaves it alone, unless --reset-admin-password is given.`,
		Example: `  tenantctl setup --init --keys-file vault-keys.json
  tenantctl setup --init --keys-file vault-keys.age --age-recipient age1… --shares 5 --threshold 3
  tenantctl setup --init --keys-file vault-keys.json --pgp-key anna.asc --pgp-key ben.asc --shares 2 --threshold 2
  tenantctl setup --unseal --keys-file vault-keys.age --age-identity key.txt
  VAULT_TOKEN=… tenantctl setup --check --no-credentials     # exit code 1: something differs`,
		Args: cobra.NoArgs,
		RunE: s.run,
	}
	f := cmd.Flags()
	f.BoolVar(&s.Check, "check", false, "only show what differs; writes nothing")
	f.DurationVar(&s.Wait, "wait", time.Minute, "how long Vault may take until it answers; 0 asks once")
	f.BoolVar(&s.init, "init", false, "initialise Vault if it is new, with keys that go to --keys-file, and unseal it")
	f.IntVar(&s.shares, "shares", 5, "`number` of unseal keys of a new Vault")
	f.IntVar(&s.threshold, "threshold", 3, "`number` of them that unseal it")
	f.BoolVar(&s.Unseal, "unseal", false, "unseal Vault with the keys of --keys-file")
	s.keys.add(f, `those of a new Vault go there; "-" reads them from standard input, one a line`)
	f.StringArrayVar(&s.ageRecipients, "age-recipient", nil, "encrypt the keys file to this public `key` (age1…, ssh-ed25519 … or ssh-rsa …, or a file of them); may be given several times")
	f.StringArrayVar(&s.pgpKeys, "pgp-key", nil, "`file` with a public key of PGP that encrypts one of the unseal keys; once for each of --shares")
	f.StringVar(&s.rootPGPKey, "root-token-pgp-key", "", "`file` with a public key of PGP that encrypts the root token")
	f.BoolVar(&s.printKeys, "print-keys", false, "also print the keys and the root token of a new Vault")
	f.StringVar(&s.Admin.Name, "admin", "admin", "`name` of the user that manages tenants")
	f.StringVar(&s.passwordFile, "admin-password-file", "", "`file` with the user's password; \"-\" is standard input")
	f.BoolVar(&s.Admin.Reset, "reset-admin-password", false, "set the user's password even if there is one")
	f.StringVar(&s.AuditFile, "audit-file", "/vault/logs/audit.log", "`path` of the audit log, for the server")
	f.BoolVar(&s.noAudit, "no-audit", false, "see to no audit log")
	f.BoolVar(&s.noDemo, "no-demo", false, "leave the example tenant out; without it, one that was destroyed is made anew")
	f.StringVar(&s.Credentials, "credentials-dir", "credentials", "`folder` for the credentials of services, and a generated password")
	f.BoolVar(&s.noCredentials, "no-credentials", false, "write no credentials")
	cmd.MarkFlagsMutuallyExclusive("audit-file", "no-audit")
	cmd.MarkFlagsMutuallyExclusive("credentials-dir", "no-credentials")
	cmd.MarkFlagsMutuallyExclusive("check", "reset-admin-password")
	return cmd
}

func (s *setupCommand) run(cmd *cobra.Command, _ []string) error {
	if err := s.prepare(cmd); err != nil {
		return err
	}
	return s.connect(func(ctx context.Context, v *vault.Client, _ []string) error {
		s.TokenGiven = os.Getenv("VAULT_TOKEN") != ""
		s.Waiting = func(err error) { note(cmd, "waiting for Vault: %s", printable.Error(err)) }
		s.Report = func(step setup.Step) { s.report(cmd.OutOrStdout(), step) }
		job := setup.New(v, s.Options)
		err := job.Run(ctx)
		return errors.Join(s.finish(cmd.OutOrStdout(), job.Fresh(), err), err)
	})(cmd, nil)
}

// prepare finds what is wrong on the command line, and what it names.
func (s *setupCommand) prepare(cmd *cobra.Command) error {
	if s.noAudit {
		s.AuditFile = ""
	} else if !strings.HasPrefix(s.AuditFile, "/") && s.AuditFile != "stdout" {
		return fmt.Errorf("--audit-file %q: give an absolute path, as the server sees it, or --no-audit", s.AuditFile)
	}
	if s.noCredentials {
		s.Credentials = ""
	} else if s.Credentials == "" {
		return errors.New("--credentials-dir is empty: name a folder, or give --no-credentials")
	}
	s.Demo = !s.noDemo
	if err := s.prepareKeys(cmd.InOrStdin()); err != nil {
		return err
	}
	return s.preparePassword(cmd)
}

func (s *setupCommand) prepareKeys(stdin io.Reader) error {
	if err := s.keys.check(); err != nil {
		return err
	}
	if s.Unseal && s.keys.file == "" {
		return errors.New("--unseal takes the keys from --keys-file")
	}
	if s.keys.file != "" {
		s.Keys = func() (*keys.File, error) { return s.keys.open(stdin) }
	}
	if s.init {
		s.Unseal = true
		return s.prepareInit()
	}
	for _, flag := range []struct {
		name  string
		given bool
	}{
		{"--age-recipient", len(s.ageRecipients) > 0}, {"--pgp-key", len(s.pgpKeys) > 0},
		{"--root-token-pgp-key", s.rootPGPKey != ""}, {"--print-keys", s.printKeys},
	} {
		if flag.given {
			return fmt.Errorf("%s is for a new Vault: it goes with --init", flag.name)
		}
	}
	return nil
}

func (s *setupCommand) prepareInit() (err error) {
	i := &setup.Init{Shares: s.shares, Threshold: s.threshold, File: s.keys.file}
	switch {
	case i.File == "" || i.File == "-":
		return errors.New("--init needs a file for the keys: --keys-file FILE")
	case i.Shares < 1 || i.Shares > 255:
		return errors.New("--shares: a number from 1 to 255")
	case i.Threshold < 1 || i.Threshold > i.Shares || i.Threshold == 1 && i.Shares > 1:
		return fmt.Errorf("--threshold: a number from 2 to %d, the number of --shares (1 if there is one)", i.Shares)
	case len(s.pgpKeys) > 0 && len(s.pgpKeys) != i.Shares:
		return fmt.Errorf("--pgp-key: there %s %d of them for %s; each share needs one", plural.Be(len(s.pgpKeys)), len(s.pgpKeys), plural.Of(i.Shares, "share"))
	}
	if i.Recipients, i.RecipientKeys, err = keys.Recipients(s.ageRecipients); err != nil {
		return fmt.Errorf("--age-recipient: %w", err)
	}
	for _, path := range s.pgpKeys {
		key, err := keys.PGPKey(path)
		if err != nil {
			return fmt.Errorf("--pgp-key: %w", err)
		}
		i.PGPKeys = append(i.PGPKeys, key)
	}
	if s.rootPGPKey != "" {
		if i.RootTokenPGPKey, err = keys.PGPKey(s.rootPGPKey); err != nil {
			return fmt.Errorf("--root-token-pgp-key: %w", err)
		}
	}
	s.Init = i
	return nil
}

func (s *setupCommand) preparePassword(cmd *cobra.Command) (err error) {
	if err := checkUser("--admin", s.Admin.Name); err != nil {
		return err
	}
	switch {
	case s.passwordFile == "-" && s.keys.file == "-":
		return errors.New("--keys-file and --admin-password-file cannot both be standard input")
	case s.passwordFile != "":
		if s.Admin.Password, err = passwordFrom("--admin-password-file", s.passwordFile, cmd.InOrStdin()); err != nil {
			return err
		}
		if err := setup.CheckPassword(s.Admin.Name, s.Admin.Password); err != nil {
			return fmt.Errorf("--admin-password-file: %w", err)
		}
	default:
		s.Admin.Ask = func() (string, error) { return s.askPassword(cmd) }
	}
	return nil
}

// askPassword returns "" for a password that is to be generated.
func (s *setupCommand) askPassword(cmd *cobra.Command) (string, error) {
	hint := " (empty: one is generated)"
	if s.Credentials == "" {
		hint = ""
	}
	first := ""
	if onTerminal(cmd.InOrStdin()) {
		var err error
		if first, err = askHidden(cmd, fmt.Sprintf("New password of the user %s%s: ", s.Admin.Name, hint)); err != nil {
			return "", err
		}
	}
	switch {
	case first == "" && s.Credentials == "":
		return "", errors.New("there is no password: give --admin-password-file, or a --credentials-dir for one that is generated")
	case first == "":
		return "", nil
	}
	if err := setup.CheckPassword(s.Admin.Name, first); err != nil {
		return "", err
	}
	again, err := askHidden(cmd, "The same again: ")
	if err == nil && first != again {
		err = errors.New("the two passwords differ")
	}
	return first, err
}

// report shows a step when it is done, unless all are shown in the end.
func (s *setupCommand) report(w io.Writer, step setup.Step) {
	s.steps = append(s.steps, step)
	if s.format != string(output.Table) {
		return
	}
	line := fmt.Sprintf("%-7s %s", step.Status, step.Name)
	if step.Detail != "" && step.Status != setup.Failed { // That is told as an error.
		line += ": " + step.Detail
	}
	rows := output.Rows{Body: [][]string{{line}}}
	for _, d := range step.Differences {
		rows.Body = append(rows.Body, []string{"          " + strings.ReplaceAll(difference(d), "\t", "  ")})
	}
	_ = s.show(w, nil, func() output.Rows { return rows })
}

func difference(d setup.Difference) string {
	switch {
	case d.Old == "":
		return fmt.Sprintf("%s: + %s", d.Name, d.New)
	case d.New == "":
		return fmt.Sprintf("%s: - %s", d.Name, d.Old)
	}
	return fmt.Sprintf("%s: %s → %s", d.Name, d.Old, d.New)
}

// setupResult is what the command answers.
type setupResult struct {
	Check   bool         `json:"check"`
	Created int          `json:"created"`
	Changed int          `json:"changed"`
	Wrong   int          `json:"wrong"`
	Steps   []setup.Step `json:"steps"`
	Keys    *keys.Set    `json:"keys,omitempty"`
}

// finish shows the sum, and has the exit code of a check that found something.
func (s *setupCommand) finish(w io.Writer, fresh *keys.Set, failure error) error {
	r := setupResult{Check: s.Check, Steps: append([]setup.Step{}, s.steps...)}
	for _, step := range s.steps {
		switch step.Status {
		case setup.Create:
			r.Created++
		case setup.Change:
			r.Changed++
		case setup.Wrong:
			r.Wrong++
		}
	}
	if s.printKeys {
		r.Keys = fresh
	}
	show := func() error { return s.show(w, r, nil) }
	if s.format == string(output.Table) {
		show = func() error { return s.sum(w, &r, failure) }
	}
	if err := show(); err != nil {
		return err
	}
	if s.Check && failure == nil && r.Created+r.Changed+r.Wrong > 0 {
		return errSaid
	}
	return nil
}

func (s *setupCommand) sum(out io.Writer, r *setupResult, failure error) error {
	w := new(strings.Builder)
	if r.Keys != nil {
		fmt.Fprintln(w)
		for i, key := range r.Keys.Any() {
			fmt.Fprintf(w, "Unseal Key %d: %s\n", i+1, key)
		}
		fmt.Fprintf(w, "Initial Root Token: %s\n", r.Keys.RootToken)
	}
	fmt.Fprintln(w)
	switch n := r.Created + r.Changed; {
	case failure != nil && s.Check:
		fmt.Fprintln(w, "The check did not get to its end.")
	case failure != nil:
		fmt.Fprintln(w, "setup did not get to its end. What is done stays; another run goes on from there.")
	case n == 0 && r.Wrong > 0:
		fmt.Fprintf(w, "Nothing to change for setup, and %d wrong, which a person has to change.\n", r.Wrong)
	case n == 0:
		fmt.Fprintln(w, "Nothing to change.")
	case s.Check:
		fmt.Fprintf(w, "%d to create, %d to change; setup without --check does it.\n", r.Created, r.Changed)
	default:
		fmt.Fprintf(w, "%d created, %d changed.\n", r.Created, r.Changed)
	}
	_, err := io.WriteString(out, w.String())
	return err
}
