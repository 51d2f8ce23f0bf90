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
	"golang.org/x/crypto/ssh"

	"github.com/smarteros/deaddrop/agent/tenant"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/archive"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/backup"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/output"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/vault"
)

type backupCommand struct {
	*cli
	backup.ReadOptions
	keys      backupKeys
	force     bool
	signKey   string
	signature string
	signer    ssh.Signer
}

// signatureSuffix is behind the name of a backup in that of its signature, as "ssh-keygen
// -Y sign" has it.
const signatureSuffix = ".sig"

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
numbers, while others may go on writing. What is denied makes the backup fail.

--sign-key signs the backup with a secret key of SSH, so that "tenantctl restore
--verify-key" takes no other. The signature is in FILE.sig, as "ssh-keygen -Y sign -n
` + archive.Namespace + `" writes it, over FILE as it is, encrypted.`,
		Example: `  tenantctl backup tenants.age --recipient age1…
  tenantctl backup tenants.age -R recipients.txt --latest
  tenantctl backup tenants.age --recipient age1… --sign-key ~/.ssh/backup_ed25519
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
	f.StringVar(&b.signKey, "sign-key", "", "`file` with a secret key of SSH that signs the backup")
	f.StringVar(&b.signature, "signature", "", "`file` for the signature (default: FILE.sig)")
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
	if err := b.prepareSigning(cmd.Context(), path); err != nil {
		return err
	}
	recipients, err := b.keys.resolve(cmd.Context())
	if err != nil {
		return err
	}
	return b.work(func(ctx context.Context, v *vault.Client, _ []string) error {
		made, err := b.make(ctx, v, path, recipients)
		switch {
		case err != nil && made != nil:
			return fmt.Errorf("the backup is complete, but its signature is not there: %w", stopped(ctx, err))
		case err != nil:
			return fmt.Errorf("there is no backup: %w", stopped(ctx, err))
		}
		out := cmd.OutOrStdout()
		if path == "-" {
			out = cmd.ErrOrStderr()
		}
		return b.show(out, made, made.rows)
	})(cmd, args)
}

// prepareSigning reads the key, and makes sure that there is a place for the signature.
func (b *backupCommand) prepareSigning(ctx context.Context, path string) error {
	switch {
	case b.signKey == "" && b.signature != "":
		return errors.New("--signature is for a --sign-key")
	case b.signKey == "":
		return nil
	case b.signature == "" && path == "-":
		return errors.New("--sign-key: standard output has no name to call the signature by: give --signature")
	case b.signature == "":
		b.signature = path + signatureSuffix
	}
	if err := backup.CheckFile(b.signature, b.force); err != nil {
		return fmt.Errorf("the signature: %w", err)
	}
	var err error
	b.signer, err = archive.ReadSigner(b.signKey, nil)
	if errors.Is(err, archive.ErrKeyPassphrase) {
		lines, asked := askPassphrase(ctx, "Passphrase of the key "+b.signKey+": ")
		if asked != nil {
			return fmt.Errorf("--sign-key: %w (%w)", err, asked)
		}
		b.signer, err = archive.ReadSigner(b.signKey, []byte(lines[0]))
	}
	if err != nil {
		return fmt.Errorf("--sign-key: %w", err)
	}
	return nil
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
	// Engines are the settings of KV that a verified backup holds.
	Engines []*archive.Engine `json:"engines,omitempty"`

	Bytes  int64  `json:"bytes,omitempty"`
	SHA256 string `json:"sha256,omitempty"`
	// Signature is the file of the signature, and SignedBy the fingerprint of its key.
	Signature string `json:"signature,omitempty"`
	SignedBy  string `json:"signed_by,omitempty"`
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
	for _, e := range s.Engines {
		rows.Body = append(rows.Body, []string{"Engine", fmt.Sprintf("%s: max_versions %d, cas_required %t, delete_version_after %s",
			visible(e.Mount), e.MaxVersions, e.CASRequired, visible(e.DeleteVersionAfter))})
	}
	if s.SHA256 != "" {
		rows.Body = append(rows.Body, []string{"Bytes", strconv.FormatInt(s.Bytes, 10)}, []string{"SHA-256", s.SHA256})
	}
	if s.Signature != "" {
		rows.Body = append(rows.Body, []string{"Signature", s.Signature}, []string{"Signed by", s.SignedBy})
	}
	return rows
}

// make writes the backup. With an error and no summary it is not there, with an error and
// a summary only its signature is not.
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
	signing, err := b.startSigning()
	if err != nil {
		return nil, err
	}
	defer signing.abort()
	w, err := archive.NewWriter(io.MultiWriter(file, signing), head, recipients...)
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
	if b.signer != nil {
		s.Signature, s.SignedBy = b.signature, ssh.FingerprintSHA256(b.signer.PublicKey())
	}
	return s, signing.finish()
}

// signing signs what is written to it into a file. Without a key it does nothing.
type signing struct {
	*archive.Signing
	file *backup.File
}

func (b *backupCommand) startSigning() (*signing, error) {
	if b.signer == nil {
		return &signing{}, nil
	}
	file, err := backup.NewFile(b.signature, b.force)
	if err != nil {
		return nil, fmt.Errorf("the signature: %w", err)
	}
	return &signing{archive.NewSigning(b.signer), file}, nil
}

func (s *signing) Write(p []byte) (int, error) {
	if s.Signing == nil {
		return len(p), nil
	}
	return s.Signing.Write(p)
}

// finish puts the signature in its place. That comes after the backup: a signature that
// is missing can be made up for.
func (s *signing) finish() error {
	if s.Signing == nil {
		return nil
	}
	signature, err := s.Close()
	if err != nil {
		return err
	}
	if _, err := s.file.Write(signature); err != nil {
		return err
	}
	return s.file.Close()
}

func (s *signing) abort() {
	if s.Signing != nil {
		s.Abort()
		s.file.Abort()
	}
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
