package config

import (
	"cmp"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/smarteros/deaddrop/agent/internal/signals"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/secret"
)

// String is the effective configuration in the language of the files: with the
// environment variables that overrule them and the values that they leave to the
// default. What is printed, loaded again, is the same configuration, but for what is
// redacted: ids, variables of commands, and passwords and queries of URLs.
func (c *Config) String() string {
	p := &printer{inherited: c.Wait}
	p.vault(c.Vault)
	p.auth(c)
	p.block("template_config", func() {
		p.set("static_secret_render_interval", ShortDuration(c.Interval))
		p.raw("lease_renewal_threshold", strconv.FormatFloat(c.LeaseShare, 'g', -1, 64))
		p.raw("certificate_renewal_threshold", strconv.FormatFloat(c.CertShare, 'g', -1, 64))
	})
	if c.Wait != (Wait{}) {
		p.waitBlock(c.Wait)
	}
	if c.Splay > 0 {
		p.set("splay", ShortDuration(c.Splay))
	}
	p.set("tenant", c.Tenant)
	p.set("service", c.Service)
	p.flag("exit_after_auth", c.Once)
	p.flag("mlock", c.LockMemory)
	p.set("pid_file", c.PIDFile)
	p.set("log_level", c.LogLevel)
	p.set("log_format", c.LogFormat)
	p.set("log_file", c.LogFile)
	p.set("state_dir", c.StateDir)
	for _, l := range c.Listeners {
		p.listener(l)
	}
	for rest := c.Drops; len(rest) > 0; {
		set := rest[0].Set
		n := slices.IndexFunc(rest, func(d Drop) bool { return d.Set != set })
		if n < 0 {
			n = len(rest)
		}
		if set == nil {
			p.drops(rest[:n])
		} else {
			p.setBlock(set, rest[:n])
		}
		rest = rest[n:]
	}
	for _, f := range c.Each {
		p.forEach(f)
	}
	if c.Supervise != nil {
		p.supervise(c.Supervise)
	}
	return strings.ReplaceAll(p.out.String(), someKey, "${each.key}")
}

// forEach prints a block as it is for a key that stands for any.
func (p *printer) forEach(f *ForEach) {
	drops, err := f.evaluate(f.loader(someKey, true))
	if err != nil || len(drops) == 0 {
		return // It was tried when the file was read.
	}
	p.each = f
	defer func() { p.each = nil }()
	if set := drops[0].Set; set != nil {
		set.Name = f.Name
		p.setBlock(set, drops)
		return
	}
	if f.block.name != "" {
		p.drop("drop "+quote(f.Name), drops[0])
		return
	}
	p.drop("template", drops[0])
}

// drops prints blocks of a file, or of a set. Templates have no name, and come first;
// a drop is one of them if nothing but its destination names it.
func (p *printer) drops(all []Drop) {
	areTemplates := true
	for _, d := range all {
		areTemplates = areTemplates && d.Name == p.destination(d)
		head := "drop " + quote(d.Name)
		if areTemplates {
			head = "template"
		}
		p.drop(head, d)
	}
}

// destination is that of a drop as the file has it.
func (p *printer) destination(d Drop) string {
	if d.Set != nil {
		return filepath.Base(d.Destination)
	}
	return d.Destination
}

// eachKey prints for_each and what belongs to it, in the block that has it.
func (p *printer) eachKey() {
	f := p.each
	if f == nil {
		return
	}
	p.each = nil // Not for the blocks within.
	if f.Folder != "" {
		p.set("for_each", f.Folder+"/*")
	}
	if f.Folder == "" {
		p.list("for_each", f.Keys)
	}
	p.list("include", f.Include)
	p.list("exclude", f.Exclude)
	p.set("on_removed", map[bool]string{true: "remove", false: "keep"}[f.RemoveFiles])
	p.set("removal_grace", ShortDuration(f.Grace))
}

// printer writes blocks and arguments.
type printer struct {
	out    strings.Builder
	indent string
	each   *ForEach // whose block is begun
	// inherited is the wait of drops that say nothing of it.
	inherited Wait
}

func (p *printer) block(head string, body func()) {
	fmt.Fprintf(&p.out, "%s%s {\n", p.indent, head)
	p.indent += "  "
	body()
	p.indent = p.indent[2:]
	fmt.Fprintf(&p.out, "%s}\n", p.indent)
}

// raw writes an argument; set and list quote it, and leave out what is empty.
func (p *printer) raw(name, value string) { fmt.Fprintf(&p.out, "%s%s = %s\n", p.indent, name, value) }

func (p *printer) set(name, value string) {
	if value != "" {
		p.raw(name, quote(value))
	}
}

func (p *printer) flag(name string, value bool) {
	if value {
		p.raw(name, "true")
	}
}

func (p *printer) list(name string, values []string) {
	if len(values) == 0 {
		return
	}
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = quote(v)
	}
	p.raw(name, "["+strings.Join(quoted, ", ")+"]")
}

// ShortDuration is a duration without its zeros: 5m rather than 5m0s.
func ShortDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func (p *printer) vault(v Vault) {
	p.block("vault", func() {
		p.set("address", withoutPassword(cmp.Or(os.Getenv("VAULT_ADDR"), v.Address, defaultAddress)))
		p.set("namespace", cmp.Or(os.Getenv("VAULT_NAMESPACE"), v.Namespace))
		p.set("ca_cert", cmp.Or(os.Getenv("VAULT_CACERT"), v.CACert))
		p.set("ca_path", cmp.Or(os.Getenv("VAULT_CAPATH"), v.CAPath))
		p.set("client_cert", cmp.Or(os.Getenv("VAULT_CLIENT_CERT"), v.ClientCert))
		p.set("client_key", cmp.Or(os.Getenv("VAULT_CLIENT_KEY"), v.ClientKey))
		p.set("tls_server_name", cmp.Or(os.Getenv("VAULT_TLS_SERVER_NAME"), v.TLSServerName))
		p.flag("tls_skip_verify", v.TLSSkipVerify)
		p.list("allow_redirects_to", v.AllowRedirectsTo)
	})
}

// defaultAddress is that of Vault's client library.
const defaultAddress = "https://127.0.0.1:8200"

func withoutPassword(address string) string {
	if u, err := url.Parse(address); err == nil && u.User != nil {
		return u.Redacted()
	}
	return address
}

func (p *printer) auth(c *Config) {
	a := c.Auth
	if a.Method == MethodToken {
		fmt.Fprintln(&p.out, "# The token is that of VAULT_TOKEN.")
		return
	}
	p.block("auto_auth", func() {
		p.block("method "+quote(a.Method), func() {
			if a.Method != MethodTokenFile || a.MountPath != MethodTokenFile {
				p.set("mount_path", "auth/"+a.MountPath)
			}
			p.block("config", func() { p.credentials(a) })
		})
		for _, s := range c.Sinks {
			p.block(`sink "file"`, func() {
				p.block("config", func() {
					p.set("path", s.Path)
					p.set("mode", fmt.Sprintf("%04o", s.Mode))
					p.id("owner", s.UID)
					p.id("group", s.GID)
				})
			})
		}
	})
}

func (p *printer) credentials(a Auth) {
	id := func(name string, id ID) {
		p.set(name+"_file_path", id.File)
		if id.File == "" && id.Value.Reveal() != "" {
			p.set(name, secret.Redacted)
		}
	}
	switch a.Method {
	case MethodAppRole:
		id("role_id", a.RoleID)
		id("secret_id", a.SecretID)
		p.set("secret_id_response_wrapping_path", a.WrappingPath)
		p.raw("remove_secret_id_file_after_reading", strconv.FormatBool(a.Remove))
	case MethodCert:
		p.set("name", a.Role)
	case MethodJWT:
		p.set("role", a.Role)
		p.set("path", a.File)
		p.raw("remove_jwt_after_reading", strconv.FormatBool(a.Remove))
	case MethodKubernetes:
		p.set("role", a.Role)
		p.set("token_path", a.File)
	case MethodTokenFile:
		p.set("token_file_path", a.File)
	}
}

func (p *printer) setBlock(s *Set, drops []Drop) {
	p.block("set "+quote(s.Name), func() {
		p.eachKey()
		p.set("destination", s.Folder)
		p.raw("create_dest_dirs", strconv.FormatBool(s.CreateDirs))
		p.dirPerms(s.DirMode)
		p.drops(drops)
		p.wait(s.Wait)
		p.check(s.Check)
		p.reloads(s.Reloads)
	})
}

func (p *printer) drop(head string, d Drop) {
	p.block(head, func() {
		p.eachKey()
		p.set("secret", d.Secret)
		p.set("destination", p.destination(d))
		p.set("format", string(d.Format))
		if d.Format == render.FormatDotenv || d.Format == render.FormatTemplate {
			p.set("dialect", string(d.Dialect))
		}
		if d.Format == render.FormatTemplate {
			p.template(d.Source, d.Text)
		}
		p.set("sandbox_path", d.Sandbox)
		p.set("perms", fmt.Sprintf("%04o", d.Mode))
		p.set("user", d.userOfKey)
		p.set("group", d.groupOfKey)
		p.id("user", d.UID)
		p.id("group", d.GID)
		p.raw("create_dest_dirs", strconv.FormatBool(d.CreateDirs))
		if d.Set == nil {
			p.dirPerms(d.DirMode)
		}
		if d.InPlace {
			p.set("write", "in_place")
		}
		p.flag("backup", d.Backup)
		p.flag("strict", d.Strict)
		p.flag("require_tmpfs", d.RequireTmpfs)
		p.set("on_missing", string(d.OnMissing))
		p.set("on_tamper", string(d.OnTamper))
		if d.RemoveOnExit {
			p.set("on_exit", "remove")
		}
		p.keys(d.Keys)
		if d.Set == nil {
			p.wait(d.Wait)
		}
		p.check(d.Check)
		p.reloads(d.Reloads)
	})
}

// dirPerms prints nothing where the mode of folders follows from the files'.
func (p *printer) dirPerms(mode fs.FileMode) {
	if mode != 0 {
		p.set("dir_perms", fmt.Sprintf("%04o", mode))
	}
}

// template prints where a template comes from, and how it is read.
func (p *printer) template(source string, t TemplateText) {
	p.set("source", source)
	if source == "" {
		p.raw("contents", text(t.Contents))
	}
	p.set("left_delimiter", t.Left)
	p.set("right_delimiter", t.Right)
	if t.Lenient {
		p.raw("error_on_missing_key", "false")
	}
	p.list("function_denylist", t.Denied)
}

func (p *printer) id(name string, id *int) {
	if id != nil {
		p.set(name, strconv.Itoa(*id))
	}
}

func (p *printer) keys(k render.Keys) {
	if k.IsZero() {
		return
	}
	p.block("keys", func() {
		p.list("only", k.Only)
		p.list("except", k.Except)
		var pairs []string
		for from, to := range k.Rename {
			pairs = append(pairs, quote(from)+" = "+quote(to))
		}
		if slices.Sort(pairs); len(pairs) > 0 {
			p.raw("rename", "{ "+strings.Join(pairs, ", ")+" }")
		}
		p.set("prefix", k.Prefix)
		p.flag("upper", k.Upper)
		p.flag("map_invalid", k.MapInvalid)
		p.flag("allow_loader", k.AllowLoader)
	})
}

func (p *printer) check(c *Check) {
	if c != nil {
		p.block("check", func() {
			p.command(c.Args, c.Timeout)
			p.flag("show_output", c.ShowOutput)
		})
	}
}

func (p *printer) command(args []string, timeout time.Duration) {
	p.list("command", args)
	p.set("timeout", ShortDuration(timeout))
}

// wait prints that of a drop or set, unless it is none and nothing else is inherited.
func (p *printer) wait(w Wait) {
	if w != (Wait{}) || p.inherited != (Wait{}) {
		p.waitBlock(w)
	}
}

func (p *printer) waitBlock(w Wait) {
	p.block("wait", func() {
		p.set("min", ShortDuration(w.Min))
		p.set("max", ShortDuration(w.Max))
	})
}

func (p *printer) reloads(all []Reload) {
	for _, each := range all {
		p.block("reload", func() {
			p.target(each.Target)
			p.flag("on_start", each.OnStart)
		})
	}
}

func (p *printer) target(target Target) {
	switch a := target.(type) {
	case PIDFile:
		p.set("signal", signals.Name(a.Signal))
		p.set("pid_file", a.Path)
		p.set("expect_user", a.ExpectUser)
	case Process:
		p.set("signal", signals.Name(a.Signal))
		p.set("process", a.Name)
		p.set("command_line", a.CommandLine)
		p.set("expect_user", a.ExpectUser)
	case Container:
		p.signalOrRestart(a.Signal)
		p.set("container", a.Name)
		p.set("container_label", a.Label)
		p.set("compose_service", a.Service)
		p.set("compose_project", a.Project)
		p.set("docker_host", a.Host)
		p.set("timeout", ShortDuration(a.Timeout))
	case Unit:
		p.set("action", a.Action)
		p.set("unit", a.Name)
		if a.User {
			p.set("bus", "user")
		}
		p.set("timeout", ShortDuration(a.Timeout))
	case Command:
		p.command(a.Args, a.Timeout)
		var env []string
		for _, pair := range a.Env {
			name, _, _ := strings.Cut(pair, "=")
			env = append(env, name+" = "+quote(secret.Redacted))
		}
		if len(env) > 0 {
			p.raw("env", "{ "+strings.Join(env, ", ")+" }")
		}
		p.set("dir", a.Dir)
		p.set("user", a.User)
		p.flag("show_output", a.ShowOutput)
	case HTTP:
		p.http(a)
	case Child:
		p.flag("exec", true)
		p.signalOrRestart(a.Signal)
	}
}

func (p *printer) signalOrRestart(sig syscall.Signal) {
	if sig == 0 {
		p.set("action", "restart")
		return
	}
	p.set("signal", signals.Name(sig))
}

func (p *printer) http(h HTTP) {
	p.set("method", h.Method)
	p.set("url", redactedURL(h.URL))
	p.raw("retries", strconv.Itoa(h.Retries))
	if len(h.Expect) > 0 {
		p.raw("expect", strings.ReplaceAll(fmt.Sprint(h.Expect), " ", ", "))
	}
	p.set("header_file", h.HeaderFile)
	p.set("ca_cert", h.CACert)
	p.flag("show_output", h.ShowOutput)
	p.set("timeout", ShortDuration(h.Timeout))
}

// redactedURL shows neither a password nor a query, which may hold a key.
func redactedURL(text string) string {
	address, err := url.Parse(text)
	if err != nil || address.User == nil && address.RawQuery == "" {
		return text
	}
	if address.RawQuery != "" {
		address.RawQuery = secret.Redacted
	}
	return address.Redacted()
}

func (p *printer) supervise(s *Supervise) {
	for _, each := range s.Env {
		p.block("env_template "+quote(each.Name), func() {
			p.template(each.Source, each.Text)
		})
	}
	p.block("exec", func() {
		p.list("command", s.Args)
		if s.ReloadSignal != 0 {
			p.set("reload_signal", signals.Name(s.ReloadSignal))
		} else {
			p.set("restart_on_secret_changes", map[bool]string{true: "always", false: "never"}[s.Restart])
		}
		p.set("restart_stop_signal", signals.Name(s.StopSignal))
		p.set("kill_timeout", ShortDuration(s.Grace))
	})
}
