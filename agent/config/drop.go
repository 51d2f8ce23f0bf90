package config

import (
	"cmp"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/dotenv"
	"github.com/smarteros/deaddrop/render/drop"
	"github.com/smarteros/deaddrop/render/filemode"
)

// defaultMode is for files that hold secrets: the owner's alone.
const defaultMode fs.FileMode = 0o600

// defaultCheckTimeout bounds a check.
const defaultCheckTimeout = 30 * time.Second

// drop reads a "drop" block, or a "template" block, which has no name.
func (l *loader) drop(name string, body hcl.Body, def hcl.Range, in *Set) {
	if in != nil {
		l.oneDrop(name, body, def, in)
		return
	}
	l.oneOrMany(block{name: name, body: body, def: def})
}

func (l *loader) oneDrop(name string, body hcl.Body, def hcl.Range, in *Set) {
	var b dropBody
	diags := gohcl.DecodeBody(body, l.ctx, &b)
	l.hcl(diags)
	b.broken = diags.HasErrors()
	if name == "" && b.Format == "" {
		b.Format = string(render.FormatTemplate)
	}
	switch {
	case b.Destination == "" && !b.broken:
		l.at(b.DestinationRange, "destination is empty; name a file, such as \"/run/deaddrop/nexa.env\"")
	case b.Destination != "":
		l.dropBody(cmp.Or(name, b.Destination), b, def, in)
	}
}

// set reads a "set" block and the drops in it.
func (l *loader) set(name string, body hcl.Body, def hcl.Range) {
	l.oneOrMany(block{isSet: true, name: name, body: body, def: def})
}

func (l *loader) oneSet(b setBody) {
	s := &Set{Name: b.Name, Folder: filepath.Clean(b.Destination), CreateDirs: b.CreateDirs == nil || *b.CreateDirs, DirMode: l.dirMode(b.DirPerms)}
	if b.Destination == "" {
		return // gohcl has said so.
	}
	l.claim(s.Folder, b.DestinationRange)
	l.folders[s.Folder] = true
	if l.key != "" {
		s.Name = keyed(s.Name, l.key)
	}
	s.Check = l.check(b.Check)
	s.Reloads = l.reloads(reloadBlocks{Reload: b.Reload, Exec: b.Exec})
	s.Wait = l.wait(b.Wait, l.cfg.Wait)
	if len(b.Drops)+len(b.Templates) == 0 {
		l.at(b.DefRange, "set %q has no drops: write the drop and template blocks that change together into it", b.Name)
	}
	before := len(l.cfg.Drops)
	for _, each := range b.Templates {
		l.drop("", each.Body, each.DefRange, s)
	}
	for _, each := range b.Drops {
		l.drop(each.Name, each.Body, each.DefRange, s)
	}
	for _, d := range l.cfg.Drops[before:] {
		if d.RemoveOnExit != l.cfg.Drops[before].RemoveOnExit {
			l.at(b.DefRange, "on_exit must be the same for all drops of set %q, which goes as a whole", b.Name)
			break
		}
	}
}

func (l *loader) dropBody(name string, b dropBody, def hcl.Range, in *Set) {
	b.Secret = l.withTenant(b.Secret, b.SecretRange)
	d := Drop{
		Name: name, Key: l.key, Secret: strings.Trim(b.Secret, "/"), Source: b.Source, Sandbox: b.Sandbox, Destination: b.Destination, Mode: defaultMode,
		CreateDirs: b.CreateDirs == nil || *b.CreateDirs, Backup: b.Backup, Set: in,
		Strict: or(b.Strict, l.strict), RequireTmpfs: or(b.RequireTmpfs, l.requireTmpfs),
	}
	d.DirMode = l.dirMode(b.DirPerms)
	if in != nil {
		l.inSet(&d, b)
	}
	if d.Strict && d.DirMode&0o022 != 0 {
		at := def
		if !isUnset(b.DirPerms) {
			at = b.DirPerms.Range()
		}
		l.at(at, "dir_perms %04o lets others write to the folder, which strict = true refuses; write dir_perms = \"%04o\"", d.DirMode, d.DirMode&^0o022)
	}
	l.destination(d.Destination, b.DestinationRange)
	if d.Backup && in == nil {
		l.claim(d.Destination+".bak", b.DestinationRange)
	}
	l.secretPath(b)
	d.Format = l.format(b)
	d.Dialect = l.dialect(b, d.Format)
	d.Keys = l.keys(b, d.Format)
	if d.Format == render.FormatTemplate {
		d.Template, d.Text = l.template(b.template(), b.DestinationRange)
	} else if b.Source != "" || !isUnset(b.Contents) {
		l.at(b.FormatRange, "format %q writes the secret as it is; take out source and contents, or use format \"template\"", b.Format)
	} else if b.Secret == "" && !b.broken {
		l.at(def, "a drop of format %q needs a secret, such as secret = \"secret/tenant/demo/nexa\"", d.Format)
	}
	if !isUnset(b.Perms) {
		d.Mode, _ = l.fileMode("perms", b.Perms, filemode.File)
	}
	d.UID, d.GID = l.owner(b)
	if l.standIn {
		d.userOfKey, d.groupOfKey = l.onKey(cmp.Or(b.User, b.UID)), l.onKey(cmp.Or(b.Group, b.GID))
	}
	d.InPlace = l.choice("write", b.Write, b.WriteRange, "replace", "in_place") == "in_place"
	d.RemoveOnExit = l.choice("on_exit", b.OnExit, b.OnExitRange, "keep", "remove") == "remove"
	d.OnMissing = OnMissing(l.choice("on_missing", b.OnMissing, b.OnMissingRange, string(KeepFile), string(RemoveFile), string(Fail)))
	d.OnTamper = OnTamper(l.choice("on_tamper", b.OnTamper, b.OnTamperRange, string(RestoreFile), string(WarnOnly)))
	if d.InPlace && d.Backup {
		l.at(b.WriteRange, "write = \"in_place\" cannot keep a backup, as it replaces no file")
	}
	d.Check = l.check(b.Check)
	d.Reloads = l.reloads(reloadBlocks{b.Reload, b.Exec, b.Command, b.CommandTimeout, b.CommandRange})
	d.Wait = l.waitOf(b)
	if in != nil {
		d.Wait = in.Wait
	}
	l.cfg.Drops = append(l.cfg.Drops, d)
}

// template is what the block says of its template.
func (b dropBody) template() templateBody {
	return templateBody{
		Source: b.Source, SourceRange: b.SourceRange, Contents: b.Contents, Left: b.Left, Right: b.Right,
		ErrorOnMissing: b.ErrorOnMissing, ErrorFatal: b.ErrorFatal, Denied: b.Denied, DeniedBefore: b.DeniedBefore,
	}
}

// inSet places a drop in the folder of its set, and refuses what only a file of
// its own can have.
func (l *loader) inSet(d *Drop, b dropBody) {
	if b.Destination != filepath.Base(b.Destination) || strings.HasPrefix(b.Destination, ".") {
		l.at(b.DestinationRange, "destination %q is in set %q: write the plain name of a file", b.Destination, d.Set.Name)
	}
	d.Destination = filepath.Join(d.Set.Folder, b.Destination)
	if b.Write == "in_place" {
		l.at(b.WriteRange, "write = \"in_place\" cannot be in a set, which is replaced as a whole")
	}
	if b.Backup {
		l.at(b.DestinationRange, "backup cannot be in a set, which is replaced as a whole")
	}
	switch {
	case !isUnset(b.WaitText):
		l.at(b.WaitText.Range(), "wait cannot be in a set, which changes as a whole: write it into the set block")
	case b.Wait != nil:
		l.at(b.Wait.DefRange, "wait cannot be in a set, which changes as a whole: write it into the set block")
	}
	if !isUnset(b.DirPerms) {
		l.at(b.DirPerms.Range(), "dir_perms cannot be in a set, whose folder is for all its files: write it into the set block")
	}
	d.CreateDirs, d.DirMode = d.CreateDirs && d.Set.CreateDirs, d.Set.DirMode
	if b.OnMissing == string(RemoveFile) {
		l.at(b.OnMissingRange, "on_missing = \"remove\" cannot be in a set, which is replaced as a whole")
	}
}

func or(given *bool, otherwise bool) bool {
	if given != nil {
		return *given
	}
	return otherwise
}

func (l *loader) destination(path string, at hcl.Range) {
	if strings.HasSuffix(path, "/") {
		l.at(at, "destination %s is a folder; name a file in it", path)
		return
	}
	if dir := filepath.Dir(path); l.folders[dir] {
		l.claim(path, at)
		return // In a set the destination is a link, rightly.
	}
	if err := drop.Check(path); err != nil {
		// Whoever owns the folder may have put it there, and must not stop the others.
		l.warn(at, "destination %s", err)
	}
	l.claim(path, at)
}

// claim notes that a path is written, and by whom.
func (l *loader) claim(file string, at hcl.Range) {
	path, err := filepath.Abs(file)
	if err != nil {
		path = filepath.Clean(file)
	}
	first, taken := l.destinations[path]
	if !taken {
		first, taken = l.taken[path]
	}
	if taken {
		l.at(at, "destination %s is written already, by the block at %s", file, placeOf(first))
		return
	}
	l.destinations[path] = at
}

func (l *loader) secretPath(b dropBody) {
	if b.Secret == "" {
		return
	}
	path := strings.Trim(b.Secret, "/")
	if !isPath(path) {
		l.at(b.SecretRange, "secret %q is not a path; write one such as \"secret/tenant/demo/nexa\"", b.Secret)
		return
	}
	if !strings.Contains(path, "/") {
		l.at(b.SecretRange, "secret %q names a mount only; write a path in it, such as \"%s/tenant/demo/nexa\"", b.Secret, path)
	}
}

func isPath(path string) bool {
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return false
		}
	}
	return true
}

// format is what the block says, or else what it has: a template, or the
// ending of the destination.
func (l *loader) format(b dropBody) render.Format {
	switch {
	case slices.Contains(render.Formats(), b.Format):
		return render.Format(b.Format)
	case b.Format != "":
		l.at(b.FormatRange, "format %q is not known; use one of %s%s", b.Format, strings.Join(render.Formats(), ", "), didYouMean(b.Format, render.Formats()))
		return render.FormatDotenv
	case b.Source != "" || !isUnset(b.Contents):
		return render.FormatTemplate
	}
	if f := render.FormatOf(b.Destination); f != render.FormatTemplate {
		return f
	}
	return render.FormatDotenv
}

// dirMode is the mode of the folders that are made, or 0 where it is to follow from
// the files'.
func (l *loader) dirMode(expr hcl.Expression) fs.FileMode {
	if isUnset(expr) {
		return 0
	}
	mode, _ := l.fileMode("dir_perms", expr, filemode.Folder)
	return mode
}

// choice is one of several words; the first is the default.
func (l *loader) choice(name, given string, at hcl.Range, all ...string) string {
	switch {
	case given == "":
		return all[0]
	case !slices.Contains(all, given):
		l.at(at, "%s %q is not known; use one of %s%s", name, given, strings.Join(all, ", "), didYouMean(given, all))
	}
	return given
}

// dialect is for formats that have one.
func (l *loader) dialect(b dropBody, f render.Format) dotenv.Dialect {
	if b.Dialect != "" && f != render.FormatDotenv && f != render.FormatTemplate {
		l.at(b.DialectRange, "dialect is for format \"dotenv\" and for templates; format is %q", f)
	}
	return dotenv.Dialect(l.choice("dialect", b.Dialect, b.DialectRange, dialects()...))
}

// dialects are all of them, the default first.
func dialects() []string {
	others := slices.DeleteFunc(dotenv.Dialects(), func(d string) bool { return d == string(dotenv.Portable) })
	return append([]string{string(dotenv.Portable)}, others...)
}

func (l *loader) keys(b dropBody, f render.Format) render.Keys {
	if b.Keys == nil {
		return render.Keys{}
	}
	k := render.Keys{Only: b.Keys.Only, Except: b.Keys.Except, Rename: b.Keys.Rename, Prefix: b.Keys.Prefix, Upper: b.Keys.Upper, MapInvalid: b.Keys.MapInvalid, AllowLoader: b.Keys.AllowLoader}
	if f == render.FormatTemplate {
		l.at(b.Keys.DefRange, "keys has no effect on a template, which chooses its keys itself; take it out")
	}
	return k
}

// owner finds the ids of user and group.
func (l *loader) owner(b dropBody) (uid, gid *int) {
	user, userRange, group, groupRange := b.User, b.UserRange, b.Group, b.GroupRange
	if user == "" {
		user, userRange = b.UID, b.UIDRange
	}
	if group == "" {
		group, groupRange = b.GID, b.GIDRange
	}
	return l.id(user, userRange, drop.UserID), l.id(group, groupRange, drop.GroupID)
}

// onKey returns a text that depends on the key, and "" for any other.
func (l *loader) onKey(text string) string {
	if l.dependsOnKey(text) {
		return text
	}
	return ""
}

// id finds the id of a user or group. As for OpenBao Agent, -1 leaves it as it is.
func (l *loader) id(name string, at hcl.Range, lookup func(string) (int, error)) *int {
	if l.dependsOnKey(name) {
		l.ownersDiffer = true
		return nil
	}
	if name == "" || name == "-1" {
		return nil
	}
	id, err := lookup(name)
	if err != nil {
		l.at(at, "%s", err)
	}
	return &id
}

func (l *loader) check(b *checkBlock) *Check {
	if b == nil {
		return nil
	}
	timeout := defaultCheckTimeout
	if b.Timeout != "" {
		timeout, _ = l.duration(b.Timeout, b.TimeoutRange)
	}
	return &Check{Args: l.command(b.Command), Timeout: timeout, ShowOutput: b.ShowOutput}
}

// exec reads the command of a template; ok is false where there is none.
func (l *loader) exec(b *execBlock) (c Command, ok bool) {
	c.Timeout = defaultExecTimeout
	if b.Timeout != "" {
		c.Timeout, _ = l.duration(b.Timeout, b.TimeoutRange)
	}
	c.Args = l.command(b.Command)
	for _, each := range []struct {
		name string
		expr hcl.Expression
	}{{"kill_signal", b.KillSignal}, {"kill_timeout", b.KillTimeout}, {"reload_signal", b.ReloadSignal}} {
		l.ignore(each.expr, each.name, "the command is one that ends by itself, and is killed after its timeout")
	}
	l.ignore(b.Splay, "splay", "splay at the top of the file spreads reloads")
	if b.Env != nil {
		c.Env = l.execEnv(b.Env)
	}
	return c, len(c.Args) > 0 && (b.Enabled == nil || *b.Enabled)
}

func (l *loader) execEnv(b *execEnvBlock) []string {
	for _, each := range []struct {
		name string
		expr hcl.Expression
	}{{"pristine", b.Pristine}, {"allowlist", b.Allowlist}, {"denylist", b.Denylist}, {"whitelist", b.Whitelist}, {"blacklist", b.Blacklist}} {
		l.ignore(each.expr, each.name, "the command gets the agent's environment without its credentials, and what custom adds")
	}
	for _, pair := range b.Custom {
		if name, _, ok := strings.Cut(pair, "="); !ok || !dotenv.IsName(name) {
			l.at(b.CustomRange, "custom is not a list of variables; write [\"NAME=value\"]")
		}
	}
	return slices.Sorted(slices.Values(b.Custom))
}

// command reads a program and its arguments. As for Vault Agent, a plain text is
// for the shell.
func (l *loader) command(expr hcl.Expression) []string {
	value, diags := expr.Value(l.ctx)
	if l.hcl(diags); diags.HasErrors() {
		return nil
	}
	return l.arguments(value, expr.Range())
}

func (l *loader) arguments(value cty.Value, at hcl.Range) []string {
	const help = `write the program and its arguments: ["nginx", "-s", "reload"]`
	if text, err := convert.Convert(value, cty.String); err == nil && !text.IsNull() {
		if strings.TrimSpace(text.AsString()) == "" {
			l.at(at, "command is empty; %s", help)
		}
		return []string{"sh", "-c", text.AsString()}
	}
	list, err := convert.Convert(value, cty.List(cty.String))
	if err != nil || list.IsNull() {
		l.at(at, "command is not a list of texts; %s", help)
		return nil
	}
	var args []string
	for _, arg := range list.AsValueSlice() {
		if arg.IsNull() {
			l.at(at, "command is not a list of texts; %s", help)
			return nil
		}
		args = append(args, arg.AsString())
	}
	if len(args) == 0 || args[0] == "" {
		l.at(at, "command is empty; %s", help)
		return nil
	}
	if len(args) == 1 && strings.ContainsRune(args[0], ' ') { // Vault Agent's habit.
		return []string{"sh", "-c", args[0]}
	}
	return args
}

func isUnset(expr hcl.Expression) bool {
	if expr == nil {
		return true
	}
	value, diags := expr.Value(nil)
	return !diags.HasErrors() && value.IsNull()
}
