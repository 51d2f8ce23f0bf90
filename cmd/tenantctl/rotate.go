package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/smarteros/deaddrop/agent/plural"
	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/keys"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/output"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/rotate"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/vault"
	"github.com/smarteros/deaddrop/compose/policies"
	"github.com/smarteros/deaddrop/render/drop"
)

type rotateCommand struct {
	*cli
	keys   keyFlags
	admin  bool
	ttl    time.Duration
	period time.Duration
	out    string
	force  bool
	print  bool

	cmd  *cobra.Command
	file *keys.File // nil without --keys-file
	v    *vault.Client
}

func newRotateRoot(c *cli) *cobra.Command {
	r := rotateCommand{cli: c}
	cmd := &cobra.Command{
		Use:   "rotate-root",
		Short: "Make a new root token, or one for an admin, and revoke the old one",
		Long: `rotate-root makes a new root token with the unseal keys, proves that it works, writes
it to --out, and only then revokes the old one. The keys come from --keys-file, or are
asked for one by one on a terminal. If that fails, the attempt is cancelled, and the
old token stays. A new token that could be neither written nor printed is revoked. In
the end it says which other root tokens live.

The old root token is the one in VAULT_TOKEN or ~/.vault-token, and the one in the keys
file; there the new one takes its place. Tokens that were made with it, and are no
orphans, end with it.

With --admin there is no root token in the end, but one with the policy ` + policies.Admin + `,
which is enough to manage tenants. It is made by the old root token; the unseal keys
are needed only if there is none. To have a root token again, run rotate-root with the
unseal keys.`,
		Example: `  tenantctl rotate-root --keys-file vault-keys.json --out root.token
  tenantctl rotate-root --keys-file vault-keys.age --age-identity key.txt --out root.token
  tenantctl rotate-root --admin --ttl 12h --out admin.token
  gpg -d shares.gpg | tenantctl rotate-root --keys-file - --out root.token`,
		Args: cobra.NoArgs,
		RunE: r.run,
	}
	f := cmd.Flags()
	r.keys.add(f, `"-" reads them from standard input, one a line (default: they are asked for)`)
	f.BoolVar(&r.admin, "admin", false, "make a token with the policy "+policies.Admin+" instead, and leave no root token")
	f.DurationVar(&r.ttl, "ttl", 8*time.Hour, "how long the token of --admin lasts")
	f.DurationVar(&r.period, "period", 0, "how long the token of --admin lasts after each renewal, without an end")
	f.StringVar(&r.out, "out", "", "`file` for the new token, for its owner alone")
	f.BoolVar(&r.force, "force", false, "replace the file of --out if it is there")
	f.BoolVar(&r.print, "print", false, "print the new token; --out is not needed then")
	cmd.MarkFlagsMutuallyExclusive("ttl", "period")
	return cmd
}

func (r *rotateCommand) run(cmd *cobra.Command, _ []string) error {
	r.cmd = cmd
	if err := r.prepare(); err != nil {
		return err
	}
	if r.print { // A reader that is gone must not end this before the new token has.
		signal.Ignore(syscall.SIGPIPE)
	}
	return r.connect(func(ctx context.Context, v *vault.Client, _ []string) error {
		r.v = v
		return r.rotate(ctx)
	})(cmd, nil)
}

// prepare finds what is wrong on the command line, and what it names.
func (r *rotateCommand) prepare() (err error) {
	flags := r.cmd.Flags()
	switch {
	case r.out == "" && !r.print:
		return errors.New("where should the new token go? Give --out FILE, or --print")
	case !r.admin && (flags.Changed("ttl") || flags.Changed("period")):
		return errors.New("--ttl and --period are for --admin: a root token has no end")
	case r.ttl < time.Second || r.period < 0:
		return errors.New("--ttl and --period: a duration such as 8h")
	}
	if err := r.checkOut(); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	if err := r.keys.check(); err != nil {
		return err
	}
	if r.keys.file == "" {
		return nil
	}
	if r.file, err = r.keys.open(r.cmd.InOrStdin()); err == nil {
		err = r.checkKeysFile()
	}
	if err != nil {
		return fmt.Errorf("--keys-file: %w", err)
	}
	return nil
}

// checkOut makes sure that the token can be written before there is one.
func (r *rotateCommand) checkOut() error {
	if r.out == "" {
		return nil
	}
	if err := drop.Check(r.out); err != nil {
		return err
	}
	info, err := os.Lstat(r.out)
	if err == nil && !r.force {
		return fmt.Errorf("%s is there already: name another file, or give --force", r.out)
	}
	if same, failed := os.Stat(r.keys.file); err == nil && failed == nil && os.SameFile(info, same) {
		return fmt.Errorf("%s is the --keys-file: the token would take the place of the keys", r.out)
	}
	return probe(r.out, 0)
}

// checkKeysFile makes sure that the keys file can be written anew, if it will be.
func (r *rotateCommand) checkKeysFile() error {
	path := r.file.Path()
	if !r.inKeys() || r.file.Replaceable() != nil {
		return nil
	}
	if err := drop.Check(path); err != nil {
		return fmt.Errorf("its root token will be replaced: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return probe(path, int(info.Size()))
}

// inKeys tells whether the keys file has a root token.
func (r *rotateCommand) inKeys() bool {
	return r.file != nil && r.file.Path() != "" && r.file.RootToken != ""
}

// probe makes sure that a file can be written, which has about so many bytes.
func probe(path string, size int) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".tenantctl-*")
	if err != nil {
		return err
	}
	_, err = f.Write(bytes.Repeat([]byte("\n"), size+4<<10))
	if err = errors.Join(err, f.Sync(), f.Close(), os.Remove(f.Name())); err != nil {
		return fmt.Errorf("trying to write beside %s: %w", path, err)
	}
	return nil
}

// rotateResult is what the command answers.
type rotateResult struct {
	Kind     string     `json:"kind"` // root or admin
	Accessor string     `json:"accessor"`
	Expires  *time.Time `json:"expires,omitempty"`
	File     string     `json:"file,omitempty"`
	// Revoked counts root tokens. Where the new token is printed, that is before they
	// are revoked, and the exit code says whether they were.
	Revoked int      `json:"revoked"`
	Notes   []string `json:"notes,omitempty"`
	Token   string   `json:"token,omitempty"`
}

// rotate has the new token in its place before the old one ends.
func (r *rotateCommand) rotate(ctx context.Context) error {
	old, err := r.old(ctx)
	if err != nil {
		return err
	}
	made, interim, err := r.make(ctx, old)
	if err != nil {
		return err
	}
	// From here on nothing interrupts: there is a token, and somebody must have it.
	ctx = context.WithoutCancel(ctx)
	ending := append(slices.Clone(old), interim...)
	result := r.describe(made, len(ending))
	if kept, err := r.keep(made, old, result); err != nil {
		return errors.Join(r.notKept(ctx, made, kept, err), r.end(ctx, interim...))
	}
	for _, token := range ending {
		if err := rotate.Revoke(ctx, r.v, token.Value); err != nil {
			return fmt.Errorf("the new token is in its place, but the old one may still work: %w", err)
		}
	}
	return r.answer(result, r.others(ctx, made))
}

// old are the root tokens that are known here, and still work.
func (r *rotateCommand) old(ctx context.Context) (all []*rotate.Token, err error) {
	known := []string{r.v.API().Token()}
	if r.file != nil && !r.file.RootTokenPGP {
		known = append(known, r.file.RootToken)
	}
	for _, value := range slices.Compact(known) {
		if value == "" {
			continue
		}
		token, err := rotate.LookUp(ctx, r.v, value)
		if err != nil {
			return nil, err
		}
		if token != nil && token.Root {
			all = append(all, token)
		}
	}
	return all, nil
}

// make returns the new token, which works, and root tokens that were only needed to
// make it. Where it fails, there is none of them.
func (r *rotateCommand) make(ctx context.Context, old []*rotate.Token) (made *rotate.Token, interim []*rotate.Token, err error) {
	if r.admin && len(old) > 0 {
		made, err = r.makeAdmin(ctx, old[0].Value)
		return made, nil, err
	}
	value, err := rotate.Ceremony(ctx, r.v, r.nextKey)
	if errors.Is(err, rotate.ErrLost) {
		err = errors.Join(err, r.hint(context.WithoutCancel(ctx), old))
	}
	if err != nil {
		return nil, nil, fmt.Errorf("there is no new root token, and the old one stays: %w", err)
	}
	ctx = context.WithoutCancel(ctx) // There is a root token now.
	if !r.admin {
		made, err = r.prove(ctx, value)
		return made, nil, err
	}
	interim = []*rotate.Token{{Value: value}}
	if made, err = r.makeAdmin(ctx, value); err != nil {
		return nil, nil, errors.Join(err, r.end(ctx, interim...))
	}
	return made, interim, nil
}

// hint says which root tokens there are, if the old one can still see that.
func (r *rotateCommand) hint(ctx context.Context, old []*rotate.Token) error {
	if len(old) == 0 {
		return nil
	}
	var lines []error
	for _, text := range r.others(ctx, old[0]) {
		lines = append(lines, errors.New(text))
	}
	return errors.Join(lines...)
}

// others tells of root tokens that live besides one, which looks for them.
func (r *rotateCommand) others(ctx context.Context, known *rotate.Token) (texts []string) {
	by, err := r.v.With(known.Value)
	if err != nil {
		return nil
	}
	all, err := rotate.Roots(ctx, by)
	if err != nil {
		return []string{"whether there are other root tokens could not be seen: " + err.Error()}
	}
	for _, root := range all {
		if root.Accessor != known.Accessor {
			texts = append(texts, fmt.Sprintf(`another root token lives, which was made at %s: if nobody should have it, end it with "vault token revoke -accessor %s"`, root.Made.Local().Format(time.RFC1123), root.Accessor))
		}
	}
	return texts
}

// end revokes tokens that nobody has.
func (r *rotateCommand) end(ctx context.Context, tokens ...*rotate.Token) (all error) {
	for _, token := range tokens {
		if err := rotate.Revoke(ctx, r.v, token.Value); err != nil {
			all = errors.Join(all, fmt.Errorf(`a new token that nobody has may still work; look for it with "vault list auth/token/accessors": %w`, err))
		}
	}
	return all
}

// prove makes sure that a new token works, or ends it.
func (r *rotateCommand) prove(ctx context.Context, value string) (*rotate.Token, error) {
	made, err := rotate.LookUp(ctx, r.v, value)
	if err == nil && (made == nil || made.Root == r.admin) {
		err = errors.New("the new token does not work; the old one stays")
	}
	if err != nil {
		return nil, errors.Join(err, r.end(ctx, &rotate.Token{Value: value}))
	}
	return made, nil
}

func (r *rotateCommand) makeAdmin(ctx context.Context, by string) (*rotate.Token, error) {
	root, err := r.v.With(by)
	if err != nil {
		return nil, err
	}
	policy, err := root.Read(ctx, "sys/policies/acl/"+policies.Admin, nil)
	if err == nil && policy == nil {
		err = fmt.Errorf("there is no policy %s: run \"tenantctl setup\" first: %w", policies.Admin, vault.ErrMissing)
	}
	if err != nil {
		return nil, err
	}
	ctx = context.WithoutCancel(ctx) // The token would be made, and lost.
	value, err := rotate.Admin(ctx, root, policies.Admin, r.ttl, r.period)
	if err != nil {
		return nil, err
	}
	return r.prove(ctx, value)
}

func (r *rotateCommand) describe(made *rotate.Token, revoked int) *rotateResult {
	result := &rotateResult{Kind: "root", Accessor: made.Accessor, File: r.out, Revoked: revoked}
	if r.admin {
		result.Kind = "admin"
	}
	if !made.Expires.IsZero() {
		result.Expires = &made.Expires
	}
	if r.print {
		result.Token = made.Value
	}
	return result
}

// keep brings the new token where it is to be, and returns where it is, even if it
// fails. The old one is the last to leave the keys file.
func (r *rotateCommand) keep(made *rotate.Token, old []*rotate.Token, result *rotateResult) (kept []string, err error) {
	if r.out != "" {
		if err := keys.WriteFile(r.out, []byte(made.Value+"\n")); err != nil {
			return nil, err
		}
		kept = append(kept, r.out)
	}
	result.Notes = r.notes(old)
	if r.print {
		if err := r.printToken(result); err != nil {
			return kept, fmt.Errorf("printing the new token: %w", err)
		}
		kept = append(kept, "what was printed")
	}
	if !r.inKeys() || r.file.Replaceable() != nil {
		return kept, nil
	}
	token := made.Value
	if r.admin {
		token = ""
	}
	if err := r.file.SetRootToken(token); err != nil {
		return kept, fmt.Errorf("replacing the root token in the keys file: %w", err)
	}
	return kept, nil
}

// notKept ends a token that nobody has.
func (r *rotateCommand) notKept(ctx context.Context, made *rotate.Token, kept []string, err error) error {
	if len(kept) > 0 {
		return fmt.Errorf("%w; the old root token still works, and so does the new token (accessor %s), which is in %s", err, made.Accessor, strings.Join(kept, ", and in "))
	}
	if failed := r.end(ctx, made); failed != nil {
		return errors.Join(err, failed)
	}
	return fmt.Errorf("%w; the new token was revoked, and the old root token still works", err)
}

// notes are what else there is to know.
func (r *rotateCommand) notes(old []*rotate.Token) (all []string) {
	if r.inKeys() {
		did := "the new root token is in it, too"
		if err := r.file.Replaceable(); err != nil {
			did = "it was left as it is, with the old root token: " + err.Error()
		} else if r.admin {
			did = "its root token was taken out"
		}
		all = append(all, r.file.Path()+": "+did)
	}
	if len(old) == 0 {
		all = append(all, "no old root token was at hand to be revoked")
	}
	token, path := vault.SavedToken()
	if slices.ContainsFunc(old, func(t *rotate.Token) bool { return t.Value == token }) {
		all = append(all, path+` holds the old root token, which ends: log in with "tenantctl login"`)
	}
	return all
}

// nextKey takes the keys of the file, or asks for them.
func (r *rotateCommand) nextKey(_ context.Context, n, needed int) (string, error) {
	switch {
	case r.file != nil && r.file.PGP:
		return "", fmt.Errorf("--keys-file: %w", keys.ErrPGP)
	case r.file != nil && n > len(r.file.Any()):
		return "", fmt.Errorf("%s %s needed, and there %s %d", plural.Of(needed, "unseal key"), plural.Be(needed), plural.Be(len(r.file.Any())), len(r.file.Any()))
	case r.file != nil:
		return r.file.Any()[n-1], nil
	case !onTerminal(r.cmd.InOrStdin()):
		return "", errors.New("there are no unseal keys: give --keys-file, or run it on a terminal, where they are asked for")
	}
	key, err := askHidden(r.cmd, "Unseal key "+strconv.Itoa(n)+" of "+strconv.Itoa(needed)+": ")
	if err == nil && key == "" {
		err = fmt.Errorf("no key was given: %w", session.ErrDenied)
	}
	return key, err
}

// printToken is before the old token ends, which may be the only one that works then.
func (r *rotateCommand) printToken(result *rotateResult) error {
	out := r.cmd.OutOrStdout()
	if r.format != string(output.Table) {
		return r.show(out, result, nil)
	}
	_, err := fmt.Fprintln(out, result.Token) // Alone, so that a script can take it.
	return err
}

// answer tells the rest.
func (r *rotateCommand) answer(result *rotateResult, others []string) error {
	out := r.cmd.OutOrStdout()
	if r.print {
		out = r.cmd.ErrOrStderr()
	}
	switch {
	case r.format == string(output.Table):
		result.Notes = append(result.Notes, others...)
		return r.tell(out, result)
	case r.print:
		for _, text := range others {
			note(r.cmd, "%s", text)
		}
		return nil
	}
	result.Notes = append(result.Notes, others...)
	return r.show(out, result, nil)
}

func (r *rotateCommand) tell(w io.Writer, result *rotateResult) error {
	where, until := "", "It has no end."
	if result.File != "" {
		where = " is in " + result.File
	}
	if result.Expires != nil {
		until = "It lasts until " + result.Expires.Local().Format(time.RFC1123) + "."
	}
	text := new(strings.Builder)
	fmt.Fprintf(text, "The new %s token%s (accessor %s). %s\n", result.Kind, where, result.Accessor, until)
	if result.Revoked > 0 {
		fmt.Fprintf(text, "Root tokens that were revoked: %d.\n", result.Revoked)
	}
	for _, note := range result.Notes {
		fmt.Fprintln(text, note)
	}
	_, err := io.WriteString(w, text.String())
	return err
}
