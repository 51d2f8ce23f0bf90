package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"filippo.io/age"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/smarteros/deaddrop/agent/tenant"
	"github.com/smarteros/deaddrop/cmd/tenantctl/archive"
	"github.com/smarteros/deaddrop/cmd/tenantctl/backup"
	"github.com/smarteros/deaddrop/cmd/tenantctl/output"
	"github.com/smarteros/deaddrop/cmd/tenantctl/vault"
)

type backupCommand struct {
	*cli
	backup.ReadOptions
	keys  backupKeys
	force bool
}

func newBackup(c *cli) *cobra.Command {
	b := backupCommand{cli: c}
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Back up the tenants into an encrypted file",
		Long: `backup writes the secrets of all tenants, with all versions and metadata, into one
file, together with the policies, the AppRole roles with their role ids, and the
entities with their aliases. FILE is encrypted with age, to recipients or with a
passphrase, and is there only when it is complete. "-" is standard output.

What is not in it, because Vault does not give it away: secret ids, the passwords
of userpass, and the content of deleted versions. Nor are identity groups, settings
of mounts other than those of the KV engine, and other engines: to have all of a
Vault, take a snapshot of its storage.

Each secret is consistent with itself: its versions are read one by one by their
numbers, while others may go on writing. What is denied makes the backup fail.`,
		Example: `  tenantctl backup tenants.age --recipient age1…
  tenantctl backup tenants.age -R recipients.txt --latest
  tenantctl backup demo.age --tenant demo                    # asks for a passphrase
  tenantctl backup - --recipient age1… | ssh backup 'cat > tenants.age'`,
		Args: cobra.ExactArgs(1),
		RunE: b.run,
	}
	f := cmd.Flags()
	f.StringArrayVarP(&b.keys.recipients, "recipient", "r", nil, "public `key` that may read the backup: age1…, ssh-ed25519 … or ssh-rsa …; may be given several times")
	f.StringArrayVarP(&b.keys.recipientFiles, "recipients-file", "R", nil, "`file` with such keys, one a line")
	f.StringVar(&b.keys.passphraseFile, "passphrase-file", "", "`file` with a passphrase (default: it is asked for)")
	f.BoolVar(&b.keys.plaintext, "insecure-plaintext", false, "do not encrypt: whoever can read FILE has all secrets")
	f.StringArrayVar(&b.Tenants, "tenant", nil, "back up this tenant `id` only; may be given several times")
	f.BoolVar(&b.Latest, "latest", false, "of each secret only the newest version")
	f.BoolVar(&b.force, "force", false, "replace FILE if it is there")
	cmd.MarkFlagsMutuallyExclusive("recipient", "passphrase-file", "insecure-plaintext")
	cmd.MarkFlagsMutuallyExclusive("recipients-file", "passphrase-file", "insecure-plaintext")
	return cmd
}

func (b *backupCommand) run(cmd *cobra.Command, args []string) error {
	if err := checkTenants(b.Tenants); err != nil {
		return err
	}
	path := args[0]
	switch {
	case path != "-":
		if err := backup.CheckFile(path, b.force); err != nil {
			return err
		}
	case onTerminal(os.Stdout):
		return errors.New("a backup is not written to a terminal: name a file, or redirect standard output")
	}
	recipients, err := b.keys.resolve(cmd.Context())
	if err != nil {
		return err
	}
	return b.work(func(ctx context.Context, v *vault.Client, _ []string) error {
		made, err := b.make(ctx, v, path, recipients)
		if err != nil {
			return fmt.Errorf("there is no backup: %w", stopped(ctx, err))
		}
		out := cmd.OutOrStdout()
		if path == "-" {
			out = cmd.ErrOrStderr()
		}
		return b.show(out, made, made.rows)
	})(cmd, args)
}

func checkTenants(ids []string) error {
	for _, id := range ids {
		if err := tenant.CheckID(id); err != nil {
			return fmt.Errorf("--tenant: %w", err)
		}
	}
	return nil
}

// backupSummary is what the command answers.
type backupSummary struct {
	File       string    `json:"file"`
	Created    time.Time `json:"created"`
	Vault      string    `json:"vault,omitempty"`
	Encryption string    `json:"encryption,omitempty"`
	Tenants    []string  `json:"tenants,omitempty"`
	Latest     bool      `json:"latest_only,omitempty"`
	archive.Counts
	Bytes  int64  `json:"bytes,omitempty"`
	SHA256 string `json:"sha256,omitempty"`
}

func (s *backupSummary) rows() output.Rows {
	rows := output.Rows{Body: [][]string{{"File", s.File}, {"Created", s.Created.Format(time.RFC3339)}, {"Vault", s.Vault}}}
	if s.Encryption != "" {
		rows.Body = append(rows.Body, []string{"Encryption", s.Encryption})
	}
	for _, count := range []struct {
		name string
		n    int
	}{
		{"Secrets", s.Secrets}, {"Versions", s.Versions}, {"Policies", s.Policies},
		{"Roles", s.Roles}, {"Entities", s.Entities}, {"Aliases", s.Aliases},
	} {
		rows.Body = append(rows.Body, []string{count.name, strconv.Itoa(count.n)})
	}
	if s.SHA256 != "" {
		rows.Body = append(rows.Body, []string{"Bytes", strconv.FormatInt(s.Bytes, 10)}, []string{"SHA-256", s.SHA256})
	}
	return rows
}

// make writes the backup. Without an error it is there, with one it is not.
func (b *backupCommand) make(ctx context.Context, v *vault.Client, path string, recipients []age.Recipient) (*backupSummary, error) {
	head, err := backup.Head(ctx, v, b.ReadOptions)
	if err != nil {
		return nil, err
	}
	file := backup.NewStream(os.Stdout)
	if path != "-" {
		if file, err = backup.NewFile(path, b.force); err != nil {
			return nil, err
		}
	}
	defer file.Abort()
	w, err := archive.NewWriter(file, head, recipients...)
	if err != nil {
		return nil, err
	}
	bar := newBar(os.Stderr, "secrets")
	defer bar.end()
	b.Progress = bar.set
	if err := backup.Read(ctx, v, b.ReadOptions, w.Write); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if err := file.Close(); err != nil {
		return nil, err
	}
	s := &backupSummary{File: path, Created: head.Created, Vault: head.Vault, Tenants: b.Tenants, Latest: b.Latest, Counts: w.Counts()}
	s.SHA256, s.Bytes = file.Sum()
	s.Encryption = b.encryption()
	return s, nil
}

func (b *backupCommand) encryption() string {
	switch {
	case b.keys.plaintext:
		return string(archive.Plain)
	case len(b.keys.recipients)+len(b.keys.recipientFiles) > 0:
		return string(archive.Recipients)
	}
	return string(archive.Passphrase)
}

// bar shows on a terminal how far it is, and elsewhere nothing.
type bar struct{ *progressbar.ProgressBar }

func newBar(w *os.File, what string) bar {
	if !onTerminal(w) {
		return bar{progressbar.DefaultSilent(1)}
	}
	return bar{progressbar.NewOptions(1,
		progressbar.OptionSetWriter(io.Writer(w)), progressbar.OptionSetItsString(what), progressbar.OptionShowIts(),
		progressbar.OptionShowCount(), progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionSetWidth(30), progressbar.OptionClearOnFinish(), progressbar.OptionSetPredictTime(true),
	)}
}

func (b bar) set(done, total int) {
	if b.GetMax() != total {
		b.ChangeMax(total)
	}
	_ = b.Set(done) // That the bar cannot be drawn is no reason to fail.
}

func (b bar) end() { _ = b.Clear() }
