package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/archive"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/backup"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/input"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/output"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/vault"
)

// maxPiped is the largest backup, in bytes, that is taken from a pipe: it is kept
// in memory, encrypted as it is, since it is read twice.
const maxPiped = 1 << 30

type restoreCommand struct {
	*cli
	backup.RestoreOptions
	tenants        []string
	identities     []string
	passphraseFile string
	verify         bool
	yes            bool
	verifyKeys     []string
	signature      string
	sha256         string
}

func newRestore(c *cli) *cobra.Command {
	r := restoreCommand{cli: c}
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Put a backup back into Vault",
		Long: `restore puts what "tenantctl backup" has written back into Vault. FILE is first read
to its end and verified; nothing is written from one that is damaged, or that changes
after that. "-" is standard input, which is kept in memory, encrypted as it is.

Anybody who knows a public key can encrypt a backup to it, and put a login into that
which may do everything, or settings that make Vault delete later versions. So restore
shows the policies, logins, roles, entities and settings (of the engine and of secrets)
that it would create or change, and asks before it writes anything. Scripts give --yes;
without it, and without a terminal, nothing is restored (exit code 2). --verify-key
restores only what that key of SSH has signed (see "tenantctl backup --sign-key"), and
--sha256 only the file that "tenantctl backup" has printed the SHA-256 of. Both are
checked before the file is decrypted.

A secret that is not in Vault is created with its versions under their numbers, so
that what asks for version 3 still gets it; those whose content is gone are destroyed
ones. Of a secret that is in Vault in an older state, the missing versions are added.
One that is newer in Vault, or another, is skipped and told (exit code 6), unless
--overwrite lets the backup's newest content be written as one more version. Nothing
that somebody else writes at the same time is lost.

Policies, roles and entities that are not in Vault are created. Those that differ are
skipped and told, too, unless --overwrite makes them what they are in the backup: it
takes back what was changed since, and enables an entity that is disabled by now. With
--tenant, policies that differ stay in any case, since other tenants have them as well.
In a Vault that was just set up, the role of the Nexa runtime is skipped: it has a new
role id there, which is in use already. AppRole and userpass are enabled where the
backup needs them. Secret ids and passwords have to be issued anew.`,
		Example: `  tenantctl restore tenants.age --identity key.txt --dry-run
  tenantctl restore tenants.age --identity key.txt --tenant demo
  tenantctl restore tenants.age --identity key.txt --verify-key signer.pub --yes
  tenantctl restore tenants.age --passphrase-file pass.txt --secrets-only --overwrite
  tenantctl restore tenants.age --identity key.txt --verify     # contacts no Vault`,
		Args: cobra.ExactArgs(1),
		RunE: r.run,
	}
	f := cmd.Flags()
	f.StringArrayVarP(&r.identities, "identity", "i", nil, "`file` with a secret key of age or SSH; may be given several times")
	f.StringVar(&r.passphraseFile, "passphrase-file", "", "`file` with the passphrase (default: it is asked for)")
	f.BoolVar(&r.verify, "verify", false, "only verify the file, and tell what is in it; contacts no Vault")
	f.StringArrayVar(&r.verifyKeys, "verify-key", nil, "public `key` of SSH, or file with such keys: restore only what one of them has signed; may be given several times")
	f.StringVar(&r.signature, "signature", "", "`file` of the signature (default: FILE.sig)")
	f.StringVar(&r.sha256, "sha256", "", "restore only the file with this SHA-256, in `hex`")
	f.BoolVarP(&r.yes, "yes", "y", false, "do not ask before rights or settings are created or changed")
	f.BoolVarP(&r.DryRun, "dry-run", "n", false, "show what would be done")
	f.StringArrayVar(&r.tenants, "tenant", nil, "restore this tenant `id` only; may be given several times")
	f.BoolVar(&r.SecretsOnly, "secrets-only", false, "no policies, roles, entities and settings of the engine")
	f.BoolVar(&r.Overwrite, "overwrite", false, "where Vault has something newer, or other: write the backup's newest content as a new version, and its policies, roles, entities and settings")
	f.BoolVar(&r.Renumber, "renumber", false, "count versions from 1, instead of restoring their numbers")
	f.IntVar(&r.MaxPlaceholders, "max-placeholders", 1000, "skip secrets that need more than `n` destroyed versions before their own, as each takes a write")
	for _, other := range []string{"dry-run", "tenant", "secrets-only", "overwrite", "renumber", "max-placeholders"} {
		cmd.MarkFlagsMutuallyExclusive("verify", other)
	}
	return cmd
}

func (r *restoreCommand) run(cmd *cobra.Command, args []string) error {
	if err := checkTenants(r.tenants); err != nil {
		return err
	}
	if r.MaxPlaceholders < 0 {
		return errors.New("--max-placeholders: a number from 0 on")
	}
	trusted, err := r.trusted(args[0])
	if err != nil {
		return err
	}
	file, err := openBackup(cmd.InOrStdin(), args[0])
	if err != nil {
		return err
	}
	defer file.Close()
	pinned, err := archive.Pin(file)
	if err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	if err := r.checkOrigin(args[0], pinned, trusted); err != nil {
		return &runError{fmt.Errorf("%s: %w; nothing was restored", args[0], err)}
	}
	source, err := archive.NewSource(pinned)
	if err != nil {
		return &runError{fmt.Errorf("%s: %w", args[0], err)}
	}
	if source.Encryption() != archive.Passphrase && trusted == nil && r.sha256 == "" {
		note(cmd, "Nothing proves who made this backup, since no secret is needed to make one like it: give --verify-key, or --sha256.")
	}
	if err := unlock(cmd.Context(), source, r.identities, r.passphraseFile); err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	r.Part = backup.NewPart(r.tenants)
	var engines []*archive.Engine
	head, counts, err := source.Verify(func(record archive.Record) {
		if record.Engine != nil {
			engines = append(engines, record.Engine)
		}
		r.Part.See(record)
	})
	if err != nil {
		return &runError{fmt.Errorf("%s: %w; nothing was restored", args[0], err)}
	}
	if r.verify {
		return asWork(r.showVerified(cmd, args[0], source, head, counts, engines))
	}
	if missing := r.Part.Missing(); len(missing) > 0 {
		return &runError{fmt.Errorf("%s: the tenant %s is not in the backup: %w", args[0], strings.Join(missing, ", "), vault.ErrMissing)}
	}
	r.Total = counts.Secrets + counts.Policies + counts.Roles + counts.Entities
	return r.work(func(ctx context.Context, v *vault.Client, _ []string) error {
		return r.restore(ctx, cmd, v, source)
	})(cmd, args)
}

// openBackup opens a file that can be read twice.
func openBackup(stdin io.Reader, path string) (io.ReadSeekCloser, error) {
	if path == "-" {
		return inMemory(stdin)
	}
	f, info, err := input.Open(path)
	if err != nil {
		if at, statErr := os.Stat(path); statErr == nil && at.IsDir() {
			err = fmt.Errorf("%s is a folder", path)
		}
		return nil, err
	}
	if !info.Mode().IsRegular() { // A pipe of the shell's <(command).
		defer f.Close()
		return inMemory(f)
	}
	return f, nil
}

// trusted reads the keys that may have signed the backup, none where any is good.
func (r *restoreCommand) trusted(path string) ([]ssh.PublicKey, error) {
	if sum, err := hex.DecodeString(r.sha256); r.sha256 != "" && (err != nil || len(sum) != sha256.Size) {
		return nil, errors.New("--sha256: this is no SHA-256, which has 64 hexadecimal digits")
	}
	switch {
	case len(r.verifyKeys) == 0 && r.signature != "":
		return nil, errors.New("--signature is for a --verify-key")
	case len(r.verifyKeys) > 0 && r.signature == "" && path == "-":
		return nil, errors.New("--verify-key: standard input has no name to find its signature by: give --signature")
	case r.signature == "":
		r.signature = path + signatureSuffix
	}
	var keys []ssh.PublicKey
	for _, text := range r.verifyKeys {
		some, err := archive.ReadSignKeys(text)
		if err != nil {
			return nil, fmt.Errorf("--verify-key: %w", err)
		}
		keys = append(keys, some...)
	}
	return keys, nil
}

// checkOrigin checks what the command line demands of the file as it is, encrypted.
func (r *restoreCommand) checkOrigin(path string, file *archive.Pinned, trusted []ssh.PublicKey) error {
	if r.sha256 != "" && !strings.EqualFold(r.sha256, file.SHA256()) {
		return fmt.Errorf("its SHA-256 is %s, and not that of --sha256", file.SHA256())
	}
	if trusted == nil {
		return nil
	}
	signature, err := archive.ReadSignature(r.signature)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: there is no signature %s: name its file with --signature", archive.ErrSignature, r.signature)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", archive.ErrSignature, err)
	}
	return archive.CheckSignature(file, signature, trusted)
}

type memory struct{ *bytes.Reader }

func (memory) Close() error { return nil }

func inMemory(r io.Reader) (io.ReadSeekCloser, error) {
	content, err := io.ReadAll(io.LimitReader(r, maxPiped+1))
	if err == nil && len(content) > maxPiped {
		err = fmt.Errorf("this is too large for a pipe, of which %d bytes are taken: name a file", maxPiped)
	}
	return memory{bytes.NewReader(content)}, err
}

func (r *restoreCommand) showVerified(cmd *cobra.Command, path string, source *archive.Source, head archive.Header, counts archive.Counts, engines []*archive.Engine) error {
	s := &backupSummary{
		File: path, Created: head.Created, Vault: head.Vault, Encryption: string(source.Encryption()),
		Tenants: head.Tenants, Latest: head.Latest, Counts: counts, Engines: engines,
	}
	return r.show(cmd.OutOrStdout(), s, s.rows)
}

// restoreSummary is what the command answers.
type restoreSummary struct {
	DryRun bool `json:"dry_run"`
	// Counts are numbers of records, by their kind and what was done with them.
	Counts map[string]map[string]int `json:"counts"`
	// Actions are those that are not "unchanged".
	Actions []backup.Action `json:"actions"`
}

func (s *restoreSummary) add(a backup.Action) {
	if s.Counts[a.Kind] == nil {
		s.Counts[a.Kind] = map[string]int{}
	}
	s.Counts[a.Kind][a.Do]++
	if a.Do != backup.Unchanged {
		s.Actions = append(s.Actions, a)
	}
}

func (s *restoreSummary) skipped() (n int) {
	for _, counts := range s.Counts {
		n += counts[backup.Skip]
	}
	return n
}

// pass reads the backup once more, and restores it or, for a dry run, says what it would.
func (r *restoreCommand) pass(ctx context.Context, v *vault.Client, source *archive.Source, o backup.RestoreOptions) (*restoreSummary, error) {
	reader, err := source.Open()
	if err != nil {
		return nil, err
	}
	summary := &restoreSummary{DryRun: o.DryRun, Counts: map[string]map[string]int{}, Actions: []backup.Action{}}
	bar := newBar(os.Stderr, "records")
	o.Progress = bar.set
	err = backup.Restore(ctx, v, reader, o, summary.add)
	bar.end()
	return summary, stopped(ctx, err)
}

// restore puts the backup back, after what it does to rights and settings is confirmed.
func (r *restoreCommand) restore(ctx context.Context, cmd *cobra.Command, v *vault.Client, source *archive.Source) error {
	if !r.DryRun && !(r.SecretsOnly && r.yes) {
		o := r.RestoreOptions
		// The question counts the secrets, and shows which get other settings. With --yes
		// there is none, and reading all secrets twice would be for nothing.
		o.DryRun, o.RightsOnly = true, r.yes
		plan, err := r.pass(ctx, v, source, o)
		if err != nil {
			return fmt.Errorf("nothing was restored: %w", err)
		}
		if err := r.confirm(cmd, plan); err != nil {
			return err
		}
	}
	summary, err := r.pass(ctx, v, source, r.RestoreOptions)
	if err != nil {
		if !r.DryRun {
			err = fmt.Errorf("the restore stopped: %w; what was restored until then stays, and another run goes on from there", err)
		}
		return err
	}
	if err := r.showSummary(cmd.OutOrStdout(), summary); err != nil {
		return err
	}
	if n := summary.skipped(); n > 0 {
		return fmt.Errorf("%d skipped: Vault has something newer, or other, there; see above (%w)", n, vault.ErrConflict)
	}
	return nil
}

func (r *restoreCommand) showSummary(w io.Writer, s *restoreSummary) error {
	s.sort()
	if actions := s.consented(); r.DryRun && r.format == string(output.Table) && len(actions) > 0 {
		fmt.Fprintln(w, changesText(actions))
	}
	if rows := s.actionRows(); r.format == string(output.Table) && len(rows.Body) > 0 {
		if err := r.show(w, s, func() output.Rows { return rows }); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	return r.show(w, s, s.countRows)
}

func (s *restoreSummary) sort() {
	slices.SortFunc(s.Actions, func(a, b backup.Action) int {
		return cmp.Or(cmp.Compare(kindOrder(a.Kind), kindOrder(b.Kind)), cmp.Compare(a.Name, b.Name))
	})
}

func kinds() []string {
	return []string{"engine", "policy", "secret", "login", "role", "entity"}
}

func kindOrder(kind string) int { return slices.Index(kinds(), kind) }

// actionRows are the plan of a dry run, or else what was skipped, and what is
// something else now than before.
func (s *restoreSummary) actionRows() output.Rows {
	rows := output.Rows{Head: []string{"ACTION", "KIND", "NAME", "DETAIL"}}
	for _, a := range s.Actions {
		if s.DryRun || a.Do == backup.Skip || a.Do == backup.Update || a.Do == backup.Overwrite {
			rows.Body = append(rows.Body, []string{a.Do, a.Kind, a.Name, a.Why})
		}
	}
	return rows
}

func (s *restoreSummary) countRows() output.Rows {
	does := []string{backup.Create, backup.Append, backup.Update, backup.Overwrite, backup.Unchanged, backup.Skip}
	rows := output.Rows{Head: []string{"KIND"}}
	for _, do := range does {
		rows.Head = append(rows.Head, strings.ToUpper(do))
	}
	for _, kind := range kinds() {
		counts, ok := s.Counts[kind]
		if !ok {
			continue
		}
		row := []string{kind}
		for _, do := range does {
			row = append(row, strconv.Itoa(counts[do]))
		}
		rows.Body = append(rows.Body, row)
	}
	return rows
}
