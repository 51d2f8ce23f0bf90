package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/cmd/tenantctl/keys"
	"github.com/smarteros/deaddrop/cmd/tenantctl/output"
	"github.com/smarteros/deaddrop/cmd/tenantctl/rotate"
	"github.com/smarteros/deaddrop/cmd/tenantctl/vault"
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
old token stays.

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
	return r.work(func(ctx context.Context, v *vault.Client, _ []string) error {
		r.v = v
		result, err := r.rotate(ctx)
		if err != nil {
			return err
		}
		return r.answer(result)
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
		return err
	}
	if err := r.keys.check(); err != nil {
		return err
	}
	if r.keys.file != "" {
		r.file, err = r.keys.open(r.cmd.InOrStdin())
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
		return fmt.Errorf("--out: %w", err)
	}
	if _, err := os.Lstat(r.out); err == nil && !r.force {
		return fmt.Errorf("--out: %s is there already: name another file, or give --force", r.out)
	}
	probe, err := os.CreateTemp(filepath.Dir(r.out), ".tenantctl-*")
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// rotateResult is what the command answers.
type rotateResult struct {
	Kind     string     `json:"kind"` // root or admin
	Accessor string     `json:"accessor"`
	Expires  *time.Time `json:"expires,omitempty"`
	File     string     `json:"file,omitempty"`
	Revoked  int        `json:"revoked"`
	Notes    []string   `json:"notes,omitempty"`
	Token    string     `json:"token,omitempty"`
}

// rotate has the new token in its place before the old one ends.
func (r *rotateCommand) rotate(ctx context.Context) (*rotateResult, error) {
	old, err := r.old(ctx)
	if err != nil {
		return nil, err
	}
	result := &rotateResult{Kind: "root"}
	made, interim, err := r.make(ctx, old)
	if err != nil {
		return nil, err
	}
	if r.admin {
		result.Kind = "admin"
	}
	if err := r.keep(made, result); err != nil {
		err = fmt.Errorf("%w; the old root token still works, and so does the new token with the accessor %s", err, made.Accessor)
		return nil, errors.Join(err, r.end(ctx, interim))
	}
	for _, token := range append(old, interim...) {
		if err := rotate.Revoke(ctx, r.v, token.Value); err != nil {
			return nil, fmt.Errorf("the new token is in its place, but the old one may still work: %w", err)
		}
		result.Revoked++
	}
	if len(old) == 0 {
		result.Notes = append(result.Notes, "no old root token was at hand to be revoked: if there is one, revoke it with \"vault token revoke\"")
	}
	return result, nil
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
// make it.
func (r *rotateCommand) make(ctx context.Context, old []*rotate.Token) (made *rotate.Token, interim []*rotate.Token, err error) {
	var value string
	if r.admin && len(old) > 0 {
		value = old[0].Value
	} else if value, err = rotate.Ceremony(ctx, r.v, r.nextKey); err != nil {
		return nil, nil, fmt.Errorf("there is no new root token, and the old one stays: %w", err)
	}
	if !r.admin {
		made, err = r.prove(ctx, value)
		return made, nil, err
	}
	if len(old) == 0 {
		interim = append(interim, &rotate.Token{Value: value})
	}
	if value, err = r.makeAdmin(ctx, value); err == nil {
		made, err = r.prove(ctx, value)
	}
	if err != nil {
		return nil, nil, errors.Join(err, r.end(ctx, interim))
	}
	return made, interim, nil
}

// end revokes tokens that nobody knows, even if the command was interrupted.
func (r *rotateCommand) end(ctx context.Context, tokens []*rotate.Token) (err error) {
	for _, token := range tokens {
		err = errors.Join(err, rotate.Revoke(context.WithoutCancel(ctx), r.v, token.Value))
	}
	return err
}

// prove makes sure that a new token works.
func (r *rotateCommand) prove(ctx context.Context, value string) (*rotate.Token, error) {
	made, err := rotate.LookUp(ctx, r.v, value)
	if err == nil && (made == nil || made.Root == r.admin) {
		err = errors.New("the new token does not work; the old one stays")
	}
	return made, err
}

func (r *rotateCommand) makeAdmin(ctx context.Context, by string) (string, error) {
	root, err := r.v.With(by)
	if err != nil {
		return "", err
	}
	policy, err := root.Read(ctx, "sys/policies/acl/"+policies.Admin, nil)
	if err == nil && policy == nil {
		err = fmt.Errorf("there is no policy %s: run \"tenantctl setup\" first: %w", policies.Admin, vault.ErrMissing)
	}
	if err != nil {
		return "", err
	}
	return rotate.Admin(ctx, root, policies.Admin, r.ttl, r.period)
}

// keep writes the new token to its files.
func (r *rotateCommand) keep(made *rotate.Token, result *rotateResult) error {
	result.Accessor = made.Accessor
	if !made.Expires.IsZero() {
		result.Expires = &made.Expires
	}
	if r.print {
		result.Token = made.Value
	}
	if r.out != "" {
		if err := keys.WriteFile(r.out, []byte(made.Value+"\n")); err != nil {
			return err
		}
		result.File = r.out
	}
	return r.keepInKeys(made, result)
}

// keepInKeys replaces the root token of the keys file, if it has one.
func (r *rotateCommand) keepInKeys(made *rotate.Token, result *rotateResult) error {
	if r.file == nil || r.file.Path() == "" || r.file.RootToken == "" {
		return nil
	}
	path := r.file.Path()
	token, did := made.Value, "the new root token is in it, too"
	if r.admin {
		token, did = "", "its root token was taken out"
	}
	err := r.file.SetRootToken(token)
	switch {
	case errors.Is(err, keys.ErrRecipients) || errors.Is(err, keys.ErrLines):
		did = "it was left as it is, with the old root token: " + errors.Unwrap(err).Error()
	case err != nil:
		return fmt.Errorf("replacing the root token in the keys file: %w", err)
	}
	result.Notes = append(result.Notes, path+": "+did)
	return nil
}

// nextKey takes the keys of the file, or asks for them.
func (r *rotateCommand) nextKey(_ context.Context, n, needed int) (string, error) {
	switch {
	case r.file != nil && r.file.PGP:
		return "", fmt.Errorf("--keys-file: %w", keys.ErrPGP)
	case r.file != nil && n > len(r.file.Any()):
		return "", fmt.Errorf("%d unseal keys are needed, and there are %d", needed, len(r.file.Any()))
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

func (r *rotateCommand) answer(result *rotateResult) error {
	out := r.cmd.OutOrStdout()
	if r.format != string(output.Table) {
		return r.show(out, result, nil)
	}
	if r.print { // Alone, so that a script can take it.
		fmt.Fprintln(out, result.Token)
		out = r.cmd.ErrOrStderr()
	}
	return r.tell(out, result)
}

func (r *rotateCommand) tell(w io.Writer, result *rotateResult) error {
	where, until := "", "It has no end."
	if result.File != "" {
		where = " is in " + result.File
	}
	if result.Expires != nil {
		until = "It lasts until " + result.Expires.Local().Format(time.RFC1123) + "."
	}
	fmt.Fprintf(w, "The new %s token%s (accessor %s). %s\n", result.Kind, where, result.Accessor, until)
	if result.Revoked > 0 {
		fmt.Fprintf(w, "Root tokens that were revoked: %d.\n", result.Revoked)
	}
	for _, note := range result.Notes {
		fmt.Fprintln(w, note)
	}
	return nil
}
