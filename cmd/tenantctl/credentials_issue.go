package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/credentials"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/envfile"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/output"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/tenants"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/vault"
	"github.com/smarteros/deaddrop/render/drop"
	"github.com/smarteros/deaddrop/render/safefile"
)

// credentialMode is the mode of the files with ids.
const credentialMode os.FileMode = 0o600

// issue is the command of that name.
type issue struct {
	*cli
	login   credentials.Login
	options credentials.Options
	outDir  string
	envFile string
	noWrap  bool
}

func newIssue(c *cli) *cobra.Command {
	i := issue{cli: c}
	cmd := &cobra.Command{
		Use:   "issue ID",
		Short: "Issue a login for a tenant, or for one of its services",
		Long: `issue makes a new secret id for a login, which it makes where it isn't there yet: an
AppRole, its entity and alias. With --service the login reads that secret of the tenant
and nothing else (tenant-service-policy), without it all secrets of the tenant
(tenant-policy). Its tokens last an hour, at most a day, and have no default policy.
Secret ids that were issued before stay good: see "tenantctl credentials revoke".

The secret id is shown as a wrapping token, which gives it once and within --wrap-ttl,
so that who hands it on never sees it. deaddrop unwraps it by itself, given
secret_id_response_wrapping_path. --out-dir and --env write the secret id itself into
files that only their owner reads; with --wrap-ttl --out-dir has the wrapping token.`,
		Example: `  tenantctl credentials issue demo --service nexa
  tenantctl credentials issue demo --service nexa --out-dir /run/secrets/nexa --cidr 10.1.2.0/24 --uses 1
  tenantctl credentials issue demo --env deaddrop.env --ttl 720h`,
		Args:              idArgs(1, 1),
		ValidArgsFunction: completeID,
		RunE:              i.run,
	}
	serviceFlag(cmd, &i.login.Service, "login of this `service`, which reads nothing else")
	f := cmd.Flags()
	f.StringSliceVar(&i.options.CIDRs, "cidr", nil, "`networks` from which secret id and tokens can be used, such as 10.1.2.0/24")
	f.IntVar(&i.options.Uses, "uses", 0, "`number` of logins that the secret id is good for; 0 is any")
	f.DurationVar(&i.options.TTL, "ttl", 0, "`time` for which the secret id is good, such as 720h; 0 is without end")
	f.DurationVar(&i.options.TokenTTL, "token-ttl", 0, "`time` that a token lasts, for all of this login (default 1h, or what it is)")
	f.DurationVar(&i.options.TokenMaxTTL, "token-max-ttl", 0, "`time` that a renewed token lasts at most, for all of this login (default 24h, or what it is)")
	f.DurationVar(&i.options.WrapTTL, "wrap-ttl", 10*time.Minute, "`time` in which the secret id has to be unwrapped")
	f.BoolVar(&i.noWrap, "no-wrap", false, "show the secret id itself")
	f.StringVar(&i.outDir, "out-dir", "", "write role_id and secret_id into this `folder`")
	f.StringVar(&i.envFile, "env", "", "write VAULT_ROLE_ID and VAULT_SECRET_ID into this .env `file`; its other lines stay")
	cmd.MarkFlagsMutuallyExclusive("no-wrap", "wrap-ttl")
	cmd.MarkFlagsMutuallyExclusive("out-dir", "env", "no-wrap")
	cmd.MarkFlagsMutuallyExclusive("env", "wrap-ttl")
	return cmd
}

func (i *issue) run(cmd *cobra.Command, args []string) error {
	i.login.Tenant = args[0]
	if err := errors.Join(checkService(cmd, i.login), i.check(cmd)); err != nil {
		return err
	}
	if err := i.writable(); err != nil {
		return err
	}
	return i.work(func(ctx context.Context, v *vault.Client, _ []string) error {
		if err := i.there(ctx, v); err != nil {
			return err
		}
		s, err := credentials.Open(ctx, v)
		if err != nil {
			return err
		}
		issued, err := s.Issue(ctx, i.login, i.options)
		if err != nil {
			return err
		}
		before := modes(i.files())
		files, err := i.write(issued)
		handedOver := err == nil && len(files) > 0
		if err == nil {
			noteModes(cmd, before)
			err = i.answer(cmd, issued, files)
		}
		if err != nil && !handedOver { // What nobody gets shall not be good for anything.
			err = errors.Join(err, s.TakeBack(context.WithoutCancel(ctx), issued))
		}
		return err
	})(cmd, args)
}

// check checks the flags, and settles whether the secret id is wrapped.
func (i *issue) check(cmd *cobra.Command) error {
	o := &i.options
	for _, each := range []struct {
		flag string
		time time.Duration
	}{{"ttl", o.TTL}, {"token-ttl", o.TokenTTL}, {"token-max-ttl", o.TokenMaxTTL}, {"wrap-ttl", o.WrapTTL}} {
		if each.time < 0 || each.time%time.Second != 0 || each.time == 0 && each.flag != "ttl" && cmd.Flags().Changed(each.flag) {
			return fmt.Errorf("--%s %s is not a time in whole seconds, such as 10m", each.flag, each.time)
		}
	}
	if o.Uses < 0 {
		return errors.New("--uses is a number of logins, or 0 for any")
	}
	if o.TokenMaxTTL > 0 && o.TokenTTL > o.TokenMaxTTL {
		return fmt.Errorf("--token-ttl %s is longer than --token-max-ttl %s", o.TokenTTL, o.TokenMaxTTL)
	}
	for n, text := range o.CIDRs {
		network, err := networkOf(text)
		if err != nil {
			return err
		}
		o.CIDRs[n] = network
	}
	for _, file := range []string{"out-dir", "env"} {
		if f := cmd.Flags().Lookup(file); f.Changed && f.Value.String() == "" {
			return fmt.Errorf("--%s is empty", file)
		}
	}
	if i.noWrap || i.envFile != "" || i.outDir != "" && !cmd.Flags().Changed("wrap-ttl") {
		o.WrapTTL = 0
	}
	return nil
}

// networkOf takes a single address, too.
func networkOf(text string) (string, error) {
	if address, err := netip.ParseAddr(text); err == nil && address.Zone() == "" {
		return netip.PrefixFrom(address, address.BitLen()).String(), nil
	}
	network, err := netip.ParsePrefix(text)
	if err != nil {
		return "", fmt.Errorf("--cidr %q is no network: write one such as 10.1.2.0/24", text)
	}
	return network.Masked().String(), nil
}

// files are those to be written, by their names.
func (i *issue) files() []string {
	switch {
	case i.outDir != "":
		return []string{filepath.Join(i.outDir, "role_id"), filepath.Join(i.outDir, "secret_id")}
	case i.envFile != "":
		return []string{i.envFile}
	}
	return nil
}

// writable makes sure that there is a place for the secret id before there is one.
func (i *issue) writable() error {
	for _, file := range i.files() {
		if err := drop.Check(file); err != nil {
			return err
		}
	}
	if i.envFile != "" {
		_, _, err := otherLines(i.envFile)
		return err
	}
	return nil
}

// there makes sure that a slip makes no login: tenant and service have to be there.
func (i *issue) there(ctx context.Context, v *vault.Client) error {
	s, err := tenants.Open(ctx, v)
	if err != nil {
		return err
	}
	services, err := s.Existing(ctx, i.login.Tenant)
	if err == nil && i.login.Service != "" && !slices.Contains(services, i.login.Service) {
		err = vault.Errorf(vault.ErrMissing, "tenant %s has no service %s; it has %s; \"tenantctl tenant add %s %s\" makes one",
			i.login.Tenant, i.login.Service, strings.Join(services, ", "), i.login.Tenant, i.login.Service+" KEY=VALUE")
	}
	return err
}

func (i *issue) write(issued *credentials.Issued) ([]string, error) {
	names := i.files()
	var files []drop.File
	switch {
	case i.outDir != "":
		secret := issued.SecretID
		if issued.Wrapped != nil {
			secret = issued.Wrapped.Token
		}
		files = append(files,
			drop.File{Path: names[0], Content: []byte(issued.RoleID + "\n"), Mode: credentialMode, CreateDirs: true},
			drop.File{Path: names[1], Content: []byte(secret + "\n"), Mode: credentialMode, CreateDirs: true})
	case i.envFile != "":
		text, err := withCredentials(i.envFile, issued)
		if err != nil {
			return nil, err
		}
		files = append(files, drop.File{Path: names[0], Content: text, Mode: credentialMode, CreateDirs: true})
	}
	var err error
	for _, result := range drop.Write(files) {
		err = errors.Join(err, result.Err, result.Unsynced)
	}
	return names, err
}

// maxEnv is the size of the largest .env file, in bytes.
const maxEnv = 1 << 20

// otherLines returns what is in a .env file besides ids, "" for a file that is not there,
// and its line break.
func otherLines(file string) (text, lineBreak string, err error) {
	// The folder may be somebody else's, who could put a link to another file there.
	folder, err := safefile.OpenDirectory(filepath.Dir(file))
	if errors.Is(err, os.ErrNotExist) {
		return "", "\n", nil
	}
	if err != nil {
		return "", "", err
	}
	defer func() { _ = folder.Close() }()
	old, err := safefile.ReadNoFollowIn(folder, filepath.Base(file), maxEnv)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", "", err
	}
	text, err = envfile.Remove(string(old), "VAULT_ROLE_ID", "VAULT_SECRET_ID")
	if err != nil {
		return "", "", fmt.Errorf("%s, %w", file, err)
	}
	return text, envfile.LineBreak(string(old)), nil
}

// withCredentials is what is in a .env file, with these ids in the place of others.
func withCredentials(file string, issued *credentials.Issued) ([]byte, error) {
	text, lineBreak, err := otherLines(file)
	if err != nil {
		return nil, err
	}
	if text != "" && text != envfile.ByteOrderMark && !strings.HasSuffix(text, "\n") {
		text += lineBreak
	}
	return fmt.Appendf(nil, "%sVAULT_ROLE_ID=%s%sVAULT_SECRET_ID=%s%s", text, issued.RoleID, lineBreak, issued.SecretID, lineBreak), nil
}

// noteModes tells which files have another mode than before.
func noteModes(cmd *cobra.Command, before map[string]os.FileMode) {
	for _, path := range slices.Sorted(maps.Keys(before)) {
		if mode := before[path]; mode != credentialMode {
			note(cmd, "%s had the mode %04o, and has %04o now: it holds a login", path, mode, credentialMode)
		}
	}
}

// modes are the permission bits of those files that are there.
func modes(paths []string) map[string]os.FileMode {
	all := map[string]os.FileMode{}
	for _, path := range paths {
		if info, err := os.Lstat(path); err == nil {
			all[path] = info.Mode().Perm()
		}
	}
	return all
}

// issuedAnswer is what is shown. A secret id that is in a file is nowhere else.
type issuedAnswer struct {
	*credentials.Issued
	Files []string `json:"files"`
}

func (i *issue) answer(cmd *cobra.Command, issued *credentials.Issued, files []string) error {
	shown := *issued
	if len(files) > 0 {
		shown.SecretID = ""
		if shown.Wrapped != nil {
			hidden := *shown.Wrapped
			hidden.Token = ""
			shown.Wrapped = &hidden
		}
	}
	if files == nil {
		files = []string{}
	}
	if err := i.show(cmd.OutOrStdout(), issuedAnswer{&shown, files}, func() output.Rows { return issuedRows(&shown, files) }); err != nil {
		return err
	}
	if w := shown.Wrapped; w != nil && i.format == string(output.Table) {
		note(cmd, "\nThe wrapping token gives the secret id once, until %s: with \"vault unwrap\", or by\ndeaddrop with secret_id_response_wrapping_path = %q. If it was used already, revoke\nthe secret id: somebody else has it.", date(w.Expires.Format(time.RFC3339Nano)), w.Path)
	}
	return nil
}

func issuedRows(issued *credentials.Issued, files []string) output.Rows {
	var rows output.Rows
	add := func(name, value string) {
		if value != "" {
			rows.Body = append(rows.Body, []string{name, value})
		}
	}
	add("TENANT", issued.Tenant)
	add("SERVICE", serviceName(issued.Service))
	add("POLICY", issued.Policy)
	add("ROLE", issued.Role)
	add("ROLE ID", issued.RoleID)
	add("SECRET ID", issued.SecretID)
	add("ACCESSOR", issued.Accessor)
	if issued.Wrapped != nil {
		add("WRAPPING TOKEN", issued.Wrapped.Token)
	}
	add("FILES", strings.Join(files, ", "))
	add("CHANGED", strings.Join(issued.Changed, ", "))
	return rows
}
