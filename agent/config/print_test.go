package config

import (
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/secret"
)

// hostile are texts that a careless printer mangles.
var hostile = []string{
	"plain", "a\"b", `back\slash`, `\n`, "tab\there", "line\nbreak", "cr\r\n", "${HOME}", "$${HOME}", "$$${HOME}", "$$$${HOME}", "%{ if x }", "%%{", "%%%{",
	"$", "$$", "%", "{", "${", "%{", "$\n{", "bell\a", "\x00", "\x7f", "\u200b", "\ufeff", "é", "\U0001F600", "\U000E0001", "EOT", "'", "`", " padded ", "<<EOT",
}

func TestQuote_IsReadBackByHCL(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		var s string
		for range 1 + r.IntN(4) {
			s += hostile[r.IntN(len(hostile))]
		}
		for name, written := range map[string]string{"quote": quote(s), "text": text(s), "text of lines": text(s + "\n")} {
			want := s
			if name == "text of lines" {
				want += "\n"
			}
			body, diags := hclsyntax.ParseConfig([]byte("x = "+written+"\n"), "x", hcl.InitialPos)
			require.False(t, diags.HasErrors(), "%s: %q: %s", name, want, diags)
			attrs, _ := body.Body.JustAttributes()
			value, diags := attrs["x"].Expr.Value(nil)
			require.False(t, diags.HasErrors(), "%s: %q: %s", name, want, diags)
			require.Equal(t, want, value.AsString(), written)
		}
	}
}

// author writes a configuration at random, and notes which settings it has used.
type author struct {
	*rand.Rand
	out     strings.Builder
	used    map[string]bool // TYPE.NAME
	n       int             // for names that are used once
	hasExec bool
}

func pick[T any](a *author, from ...T) T { return from[a.IntN(len(from))] }

func (a *author) some() bool { return a.IntN(3) == 0 }

func (a *author) unique(pattern string) string {
	a.n++
	return fmt.Sprintf(pattern, a.n)
}

// set writes an argument.
func (a *author) set(of, name, value string) {
	a.used[of+"."+name] = true
	fmt.Fprintf(&a.out, "%s = %s\n", name, value)
}

// may writes one of some values, or nothing.
func (a *author) may(of, name string, values ...string) {
	if a.some() {
		a.set(of, name, pick(a, values...))
	}
}

func (a *author) block(of, name, label string, body func()) {
	a.used[of+"."+name] = true
	fmt.Fprintf(&a.out, "%s %s {\n", name, label)
	body()
	a.out.WriteString("}\n")
}

func (a *author) hostile() string { return quote(pick(a, hostile...)) }

const durations = `"2s" "90s" 5 "1m30s" "1500ms" "1h0m5s"`

func (a *author) duration() string { return pick(a, strings.Fields(durations)...) }

// ignored are arguments and blocks that have no effect, by the type that has them.
var ignored = map[string][]string{
	"fileBlock":           {"disable_idle_connections", "disable_keep_alives", "disable_mlock", "log_rotate_bytes", "log_rotate_duration", "log_rotate_max_files", "cache {}", "api_proxy {}", "telemetry {}"},
	"vaultBlock":          {"retry {}"},
	"autoAuthBlock":       {"enable_reauth_on_new_credentials"},
	"methodBlock":         {"min_backoff", "max_backoff", "exit_on_err"},
	"templateConfigBlock": {"exit_on_retry_failure", "max_connections_per_host"},
	"superviseBlock":      {"child_process_stdout", "child_process_stderr"},
	"execBlock":           {"kill_signal", "kill_timeout", "reload_signal", "splay"},
	"execEnvBlock":        {"pristine", "allowlist", "denylist", "whitelist", "blacklist"},
}

// refused are settings that are an error wherever they stand, or with sinks.
var refused = []string{"sinkBlock.wrap_ttl", "sinkBlock.dh_type", "sinkBlock.dh_path", "sinkBlock.derive_key", "sinkBlock.aad", "sinkBlock.aad_env_var"}

func (a *author) ignored(of string) {
	for _, name := range ignored[of] {
		if !a.some() {
			continue
		}
		if block, isBlock := strings.CutSuffix(name, " {}"); isBlock {
			a.block(of, block, "", func() {})
			continue
		}
		a.set(of, name, "1")
	}
}

func (a *author) file() {
	a.hasExec = a.some()
	const f = "fileBlock"
	a.may(f, "strict", "true", "false")
	a.may(f, "require_tmpfs", "true", "false")
	a.may(f, "mlock", "true", "false")
	a.may(f, "splay", a.duration())
	a.may(f, "exit_after_auth", "true", "false")
	a.may(f, "pid_file", a.hostile())
	a.may(f, "log_level", `"trace"`, `"notice"`, `"ERR"`)
	a.may(f, "log_format", `"standard"`, `"json"`)
	a.may(f, "log_file", a.hostile())
	a.may(f, "state_dir", `"/var/lib/${"a b"}"`)
	a.may("names", "tenant", `"demo"`)
	a.may("names", "service", `"nexa"`)
	a.ignored(f)
	if a.some() {
		a.wait(f)
	}
	if a.some() {
		a.block(f, "vault", "", a.vault)
	}
	a.block(f, "auto_auth", "", a.autoAuth)
	if a.some() {
		a.block(f, "template_config", "", func() {
			const c = "templateConfigBlock"
			a.may(c, "static_secret_render_interval", a.duration())
			a.may(c, "lease_renewal_threshold", "0.1", "0.333333333333333333", "0.95")
			a.may(c, "certificate_renewal_threshold", "0.12345678901234567", "0.5")
			a.ignored(c)
		})
	}
	for range 1 + a.IntN(3) {
		a.block(f, "template", "", func() { a.drop("", false, false) })
	}
	for range a.IntN(3) {
		label := quote(a.unique("drop %d ") + pick(a, hostile...))
		a.block(f, "drop", label, func() { a.drop("drop", false, false) })
	}
	for range a.IntN(2) {
		isEach := a.some()
		a.block(f, "set", quote(a.unique("set %d ")+pick(a, hostile...)), func() { a.setBlock(isEach) })
	}
	for range a.IntN(3) {
		kind := pick(a, "template", "drop")
		label := ""
		if kind == "drop" {
			label = quote(a.unique("each %d"))
		}
		a.block(f, kind, label, func() { a.drop(kind, false, true) })
	}
	for range a.IntN(3) {
		a.listener()
	}
	if a.hasExec {
		a.exec()
	}
}

func (a *author) vault() {
	const v = "vaultBlock"
	a.may(v, "address", `"https://vault.example:8200"`, `"unix:///run/vault.sock"`)
	a.may(v, "namespace", `"team"`)
	for _, name := range []string{"ca_cert", "ca_path", "client_cert", "client_key", "tls_server_name"} {
		a.may(v, name, a.hostile())
	}
	a.may(v, "tls_skip_verify", "true", `"false"`)
	a.may(v, "allow_redirects_to", "[]", `["vault-2.example:8200"]`, `["[::1]:8200", "10.0.0.2:443"]`)
	a.ignored(v)
}

func (a *author) autoAuth() {
	kind := pick(a, MethodAppRole, MethodCert, MethodJWT, MethodKubernetes, MethodTokenFile)
	hasSinks := a.some()
	a.block("autoAuthBlock", "method", pick(a, quote(kind), ""), func() {
		if strings.HasSuffix(a.out.String(), "method  {\n") {
			a.set("methodBlock", "type", quote(kind))
		}
		const m = "methodBlock"
		a.used[m+".type"] = true
		a.may(m, "mount_path", `"auth/team/x"`, `"x"`)
		a.may(m, "namespace", `"team"`)
		if !hasSinks {
			a.may(m, "wrap_ttl", "60")
		}
		a.ignored(m)
		if a.some() {
			a.block(m, "config", "", func() { a.config(kind) })
			return
		}
		a.used[m+".config"] = true
		a.out.WriteString("config = {\n")
		a.config(kind)
		a.out.WriteString("}\n")
	})
	for range a.IntN(3) {
		if !hasSinks {
			break
		}
		a.block("autoAuthBlock", "sink", `"file"`, func() {
			const s, c = "sinkBlock", "sink"
			a.used[s+".type"] = true
			a.block(s, "config", "", func() {
				a.set(c, "path", quote(a.unique("token-%d")))
				a.may(c, "mode", `"0600"`, "416", "0440")
				a.may(c, pick(a, "owner", "uid"), "0", "7", "-1")
				a.may(c, pick(a, "group", "gid"), "0", "8", "-1")
			})
		})
	}
	a.ignored("autoAuthBlock")
}

func (a *author) config(kind string) {
	switch kind {
	case MethodAppRole:
		wrapped := false
		switch pick(a, "inline", "file") {
		case "inline":
			a.set(kind, "role_id", `"r"`)
		case "file":
			a.set(kind, "role_id_file_path", `"role_id"`)
		}
		switch pick(a, "inline", "file", "none") {
		case "inline":
			a.set(kind, "secret_id", `"s"`)
		case "file":
			a.set(kind, "secret_id_file_path", `"secret_id"`)
			if wrapped = a.some(); wrapped {
				a.set(kind, "secret_id_response_wrapping_path", `"auth/approle/role/r/secret-id"`)
			}
		}
		a.may(kind, "remove_secret_id_file_after_reading", "true", "false")
	case MethodCert:
		a.may(kind, "name", a.hostile())
		a.may(kind, "ca_cert", `"ca.pem"`)
		a.set(kind, "client_cert", `"cert.pem"`)
		a.set(kind, "client_key", `"key.pem"`)
	case MethodJWT:
		a.set(kind, "role", a.hostile())
		a.set(kind, "path", `"jwt"`)
		a.may(kind, "remove_jwt_after_reading", "true", "false")
	case MethodKubernetes:
		a.set(kind, "role", a.hostile())
		a.set(kind, "token_path", `"token"`)
	case MethodTokenFile:
		a.set(kind, "token_file_path", `"token"`)
	}
}

func (a *author) wait(of string) {
	a.block(of, "wait", "", func() {
		const w = "waitBlock"
		a.set(w, "min", pick(a, `"0s"`, `"2s"`, "3"))
		a.may(w, "max", `"10s"`)
		a.may(w, "enabled", "true", "false")
	})
}

func (a *author) check(of string) {
	a.block(of, "check", "", func() {
		a.set("checkBlock", "command", a.command())
		a.may("checkBlock", "timeout", a.duration())
		a.may("checkBlock", "show_output", "true", "false")
	})
}

func (a *author) command() string {
	return pick(a, `["true", "{{.Path}}"]`, `"echo $HOME"`, `["a b", ""]`, `["sh", "-c", `+a.hostile()+`]`, `["one two"]`)
}

func (a *author) setBlock(isEach bool) {
	const s = "setBody"
	folder := a.unique("set-%d")
	if isEach {
		folder += "/${each.key}"
		a.forEach()
	}
	a.set(s, "destination", `"`+folder+pick(a, "", "/")+`"`)
	a.may(s, "create_dest_dirs", "true", "false")
	a.may(s, "dir_perms", `"0750"`, "488", "0755")
	onExit := ""
	if a.some() {
		onExit = pick(a, `"keep"`, `"remove"`)
	}
	file := func(kind string) func() {
		return func() {
			a.drop(kind, true, isEach)
			if onExit != "" {
				a.set("dropBody", "on_exit", onExit)
			}
		}
	}
	for range 1 + a.IntN(2) {
		a.block(s, "template", "", file(""))
	}
	for range a.IntN(3) {
		a.block(s, "drop", quote(a.unique("in %d")), file("drop"))
	}
	if a.some() {
		a.check(s)
	}
	if a.some() {
		a.wait(s)
	}
	a.reloads(s)
}

func (a *author) forEach() {
	const f = "forEachBlock"
	a.set(f, "for_each", pick(a, `"secret/tenant/*"`, `["demo", "acme"]`))
	a.may(f, "include", `["*m*", "x"]`)
	a.may(f, "exclude", `["x-*"]`)
	a.may(f, "on_removed", `"keep"`, `"remove"`)
	a.may(f, "removal_grace", a.duration())
}

// drop writes a drop; kind is "drop" for one that has a name.
func (a *author) drop(kind string, inSet, isEach bool) {
	const d = "dropBody"
	key := ""
	if isEach {
		key = "-${each.key}"
		if !inSet {
			a.forEach()
		}
	}
	name := a.unique("f%d") + key
	if isEach && !inSet {
		name = a.unique("dir%d/") + "${each.key}/" + name
	}
	a.set(d, "destination", `"`+name+`.txt"`)
	isTemplate := kind != "drop" || a.some()
	switch {
	case isTemplate:
		a.template(d)
		if kind == "drop" {
			a.set(d, "format", `"template"`)
		}
		a.may(d, "dialect", `"compose"`, `"node"`)
		a.may(d, "secret", `"secret/a"`)
		a.may(d, "sandbox_path", a.hostile())
	default:
		a.set(d, "secret", `"/secret/tenant`+key+`/nexa/"`)
		if a.some() {
			a.set(d, "format", pick(a, `"json"`, `"yaml"`, `"shell"`))
		} else {
			a.may(d, "dialect", `"compose"`, `"node"`)
		}
		if a.some() {
			a.block(d, "keys", "", a.keys)
		}
	}
	a.may(d, "perms", `"0640"`, "416", "0440", `"0700"`)
	user, group := pick(a, "user", "uid"), pick(a, "group", "gid")
	a.may(d, user, "0", "7")
	a.may(d, group, "0", "-1")
	a.may(d, "create_dest_dirs", "true", "false")
	a.may(d, "strict", "true", "false")
	a.may(d, "require_tmpfs", "true", "false")
	if inSet {
		a.may(d, "on_missing", `"keep"`)
	} else {
		a.may(d, "dir_perms", `"0750"`, "488", "0755")
		a.may(d, "on_missing", `"keep"`, `"remove"`)
		a.may(d, "on_exit", `"keep"`, `"remove"`)
		switch pick(a, "write", "backup", "") {
		case "write":
			a.set(d, "write", pick(a, `"replace"`, `"in_place"`))
		case "backup":
			a.set(d, "backup", "true")
		}
		switch pick(a, "block", "text", "") {
		case "block":
			a.wait(d)
		case "text":
			a.set(d, "wait", pick(a, `"2s"`, `"2s:5s"`, `"0s"`))
		}
	}
	a.may(d, "on_tamper", `"restore"`, `"warn"`)
	if a.some() {
		a.check(d)
	}
	a.reloads(d)
}

func (a *author) keys() {
	const k = "keysBlock"
	a.may(k, "only", `["API_*", "$x"]`)
	a.may(k, "except", `["B"]`)
	a.may(k, "rename", `{ "a b" = "A", c = "C" }`)
	a.may(k, "prefix", `"N_"`)
	a.may(k, "upper", "true", "false")
	a.may(k, "map_invalid", "true", "false")
	a.may(k, "allow_loader", "true", "false")
}

func (a *author) template(of string) {
	switch pick(a, "source", "builtin", "contents", "contents") {
	case "source":
		a.set(of, "source", `"good.ctmpl"`)
	case "builtin":
		a.set(of, "source", `"builtin:smtp.env"`)
	case "contents":
		text := pick(a, hostile...) + pick(a, " ", "\n", "\n\n  EOT\n") + pick(a, hostile...) + pick(a, "", "\n", " ${", " $$${x}\n")
		a.set(of, "contents", quote(text))
	}
	if a.some() {
		a.set(of, "left_delimiter", `"[["`)
		a.set(of, "right_delimiter", `"]]"`)
	}
	a.may(of, "error_on_missing_key", "true", "false")
	a.may(of, "error_fatal", "true", "false")
	a.may(of, "function_denylist", `["loop", "md5sum"]`)
	a.may(of, "function_blacklist", `["timestamp"]`)
}

func (a *author) reloads(of string) {
	for range a.IntN(3) {
		a.block(of, "reload", "", a.reload)
	}
	choices := []string{"exec", "", ""}
	if of == "dropBody" {
		choices = append(choices, "command")
	}
	switch pick(a, choices...) {
	case "exec":
		a.block(of, "exec", "", func() {
			const e = "execBlock"
			a.set(e, "command", a.command())
			a.may(e, "timeout", a.duration())
			a.may(e, "enabled", "true", "false")
			if a.some() {
				a.block(e, "env", "", func() {
					a.may("execEnvBlock", "custom", `["B=1", "A=2"]`)
					a.ignored("execEnvBlock")
				})
			}
			a.ignored(e)
		})
	case "command":
		a.set(of, "command", a.command())
		a.may(of, "command_timeout", a.duration())
	}
}

func (a *author) reload() {
	m := pick(a, makers()...)
	if m.target == "exec" && !a.hasExec {
		m = makers()[0]
	}
	values := map[string][]string{
		"pid_file": {`"/run/x.pid"`, a.hostile()}, "expect_user": {`"nginx"`, `"101"`}, "process": {`"nginx"`}, "command_line": {`"a\\.b .*"`}, "container": {`"web"`},
		"container_label": {`"role=web"`}, "compose_service": {`"web"`}, "compose_project": {`"p"`}, "unit": {`"nginx"`, `"a.timer"`},
		"command": {a.command()}, "url": {`"https://h/%7Ereload"`, `"http://127.0.0.1:1/x"`}, "exec": {"true"},
		"docker_host": {`"unix:///run/docker.sock"`, `"tcp://docker:2375"`}, "timeout": {a.duration()}, "bus": {`"user"`, `"system"`},
		"env": {`{ A = "1", B = "x" }`}, "dir": {`"/srv"`}, "user": {`"root"`}, "method": {`"GET"`, `"POST"`}, "retries": {"0", "7"},
		"expect": {"204", "[200, 204]"}, "header_file": {`"/h"`}, "ca_cert": {`"ca.pem"`}, "show_output": {"true", "false"},
	}
	const r = "reload"
	a.set(r, m.target, pick(a, values[m.target]...))
	for _, name := range m.others {
		switch {
		case name == "signal" && (!slices.Contains(m.others, "action") || a.some()):
			a.set(r, name, pick(a, `"hup"`, `"SIGUSR1"`, `"RTMIN+2"`, "15"))
		case name == "signal": // The block restarts.
		case name == "action" && m.target == "unit":
			a.may(r, name, `"reload"`, `"restart"`, `"reload-or-restart"`)
		case name == "action":
			body := a.out.String()
			if !strings.HasSuffix(strings.TrimRight(body[:strings.LastIndex(body, " = ")], " "), "signal") {
				a.set(r, name, `"restart"`)
			}
		default:
			a.may(r, name, values[name]...)
		}
	}
	a.may(r, "on_start", "true", "false")
}

func (a *author) listener() {
	kind := pick(a, "tcp", "unix")
	a.block("fileBlock", "listener", quote(kind), func() {
		const l, b = "listenerBlock", "listenerBody"
		a.used[l+".type"] = true
		a.set(l, "role", pick(a, `"status"`, `"metrics_only"`))
		if kind == "tcp" {
			a.set(b, "address", quote(a.unique("127.0.0.1:9%03d")))
			switch pick(a, "tls", "none", "") {
			case "tls":
				a.set(b, "tls_cert_file", a.hostile())
				a.set(b, "tls_key_file", a.hostile())
			case "none":
				a.set(b, "tls_disable", "true")
			}
			return
		}
		a.set(b, "address", quote(a.unique("/run/%d.sock")))
		a.may(b, "socket_mode", `"0660"`, "432", `"0666"`)
		a.may(b, "socket_user", "7")
		a.may(b, "socket_group", `"0"`)
	})
}

func (a *author) exec() {
	for range 1 + a.IntN(2) {
		a.block("fileBlock", "env_template", quote(a.unique("V%d")), func() { a.template("templateBody") })
	}
	a.block("fileBlock", "exec", "", func() {
		const e = "superviseBlock"
		a.set(e, "command", a.command())
		if a.some() {
			a.set(e, "reload_signal", `"HUP"`)
		} else {
			a.may(e, "restart_on_secret_changes", `"always"`, `"never"`)
		}
		a.may(e, "restart_stop_signal", `"SIGINT"`, `"RTMIN"`)
		a.may(e, "kill_timeout", a.duration())
		a.ignored(e)
	})
}

// grammar are all settings that a configuration may have, as author notes them.
func grammar() []string {
	var all []string
	for _, of := range []any{
		fileBlock{}, vaultBlock{}, autoAuthBlock{}, methodBlock{}, sinkBlock{}, templateConfigBlock{}, setBody{}, superviseBlock{}, templateBody{}, dropBody{},
		keysBlock{}, waitBlock{}, checkBlock{}, execBlock{}, execEnvBlock{}, listenerBlock{}, listenerBody{}, forEachBlock{},
	} {
		for _, field := range reflect.VisibleFields(reflect.TypeOf(of)) {
			name, kind, _ := strings.Cut(field.Tag.Get("hcl"), ",")
			if name != "" && !strings.HasSuffix(kind, "range") && kind != "label" {
				all = append(all, reflect.TypeOf(of).Name()+"."+name)
			}
		}
	}
	for kind, names := range methods {
		for _, name := range names {
			all = append(all, kind+"."+name)
		}
	}
	for _, m := range makers() {
		for _, name := range append(m.others, m.target, "on_start") {
			all = append(all, "reload."+name)
		}
	}
	return append(all, "sink.path", "sink.mode", "sink.owner", "sink.uid", "sink.group", "sink.gid", "names.tenant", "names.service")
}

// plain is a configuration without what cannot be compared, and with what is redacted.
func plain(t *testing.T, c *Config) *Config {
	t.Helper()
	p := *c
	p.Warnings, p.Files, p.Sources = nil, nil, nil
	if p.Vault.Address == "" {
		p.Vault.Address = defaultAddress
	}
	for _, id := range []*ID{&p.Auth.RoleID, &p.Auth.SecretID} {
		if id.Value.Reveal() != "" {
			id.Value = secret.Of(secret.Redacted)
		}
	}
	p.Drops = plainDrops(c.Drops)
	p.Each = nil
	for _, f := range c.Each {
		each := *f
		each.block, each.enclosing, each.listed, each.sample = block{}, enclosing{}, nil, nil
		p.Each = append(p.Each, &each)
		standIns, err := f.evaluate(f.loader(someKey, true))
		require.NoError(t, err)
		drops, err := Expand(f, "demo")
		require.NoError(t, err)
		p.Drops = slices.Concat(p.Drops, plainDrops(standIns), plainDrops(drops))
	}
	if c.Supervise != nil {
		s := *c.Supervise
		s.Env = slices.Clone(s.Env)
		for i := range s.Env {
			s.Env[i].Template = nil
		}
		p.Supervise = &s
	}
	return &p
}

func plainDrops(drops []Drop) []Drop {
	var all []Drop
	for _, d := range drops {
		d.Template, d.Files = nil, nil
		d.Reloads = plainReloads(d.Reloads)
		if d.Set != nil {
			set := *d.Set
			set.Reloads = plainReloads(set.Reloads)
			d.Set = &set
		}
		all = append(all, d)
	}
	return all
}

func plainReloads(reloads []Reload) []Reload {
	var all []Reload
	for _, r := range reloads {
		if c, ok := r.Target.(Command); ok {
			c.Place = ""
			c.Env = slices.Clone(c.Env)
			for i, pair := range c.Env {
				name, _, _ := strings.Cut(pair, "=")
				c.Env[i] = name + "=" + secret.Redacted
			}
			r.Target = c
		}
		all = append(all, r)
	}
	return all
}

// fieldsOf notes the fields of structs that are not zero.
func fieldsOf(v reflect.Value, set map[string]bool) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			fieldsOf(v.Elem(), set)
		}
	case reflect.Slice:
		for i := range v.Len() {
			fieldsOf(v.Index(i), set)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i)
			if !v.Field(i).IsZero() {
				set[v.Type().String()+"."+field.Name] = true
			}
			if field.IsExported() {
				fieldsOf(v.Field(i), set)
			}
		}
	}
}

// notPrinted are fields that no configuration file sets, or that say what it has set
// elsewhere.
var notPrinted = []string{"config.Config.Warnings", "config.Config.Files", "config.Config.Sources", "config.Auth.Token", "config.Drop.Template", "config.Drop.Files",
	"config.Drop.userOfKey", "config.Drop.groupOfKey", "config.EnvTemplate.Template", "config.ForEach.block", "config.ForEach.enclosing", "config.ForEach.listed", "config.ForEach.sample", "config.ForEach.ownersDiffer", "config.Command.Place"}

func TestPrint_LoadedAgainIsTheSameConfiguration(t *testing.T) {
	quiet(t)
	require.NoError(t, os.Unsetenv("VAULT_SECRET_ID"))
	t.Setenv(StatusAddressVariable, "")
	used, set := map[string]bool{}, map[string]bool{}
	for seed := range uint64(100) {
		a := &author{Rand: rand.New(rand.NewPCG(seed, 0)), used: used}
		a.file()
		text := a.out.String()
		cfg, err := load(t, text)
		require.NoError(t, err, "seed %d:\n%s", seed, text)
		printed := cfg.String()
		again, err := load(t, printed)
		require.NoError(t, err, "seed %d, from:\n%s\nprinted:\n%s", seed, text, printed)
		want := plain(t, cfg)
		require.Equal(t, want, plain(t, again), "seed %d, from:\n%s\nprinted:\n%s", seed, text, printed)
		require.Equal(t, printed, again.String(), "seed %d", seed)
		fieldsOf(reflect.ValueOf(want), set)
	}
	for _, name := range grammar() {
		if !slices.Contains(refused, name) {
			assert.True(t, used[name], "the test does not write %s", name)
		}
	}
	for _, of := range []any{
		Config{}, Vault{}, Auth{}, ID{}, Sink{}, Supervise{}, EnvTemplate{}, TemplateText{}, Drop{}, Set{}, Check{}, Reload{}, Wait{}, Listener{}, ForEach{}, render.Encoding{}, render.Keys{},
		PIDFile{}, Process{}, Container{}, Unit{}, Command{}, HTTP{}, Child{}, Exec{},
	} {
		for _, field := range reflect.VisibleFields(reflect.TypeOf(of)) {
			name := reflect.TypeOf(of).String() + "." + field.Name
			if len(field.Index) == 1 && !slices.Contains(notPrinted, name) {
				assert.True(t, set[name], "the test never sets %s", name)
			}
		}
	}
}

func TestPrint_KeepsWhatDependsOnTheKeyOfATenant(t *testing.T) {
	folder(t)
	cfg, err := load(t, login+`drop "n" {
  for_each    = "secret/tenant/*"
  secret      = "secret/tenant/${each.key}/nexa"
  destination = "out/${each.key}.env"
  user        = "u-${each.key}"
  group       = "g-${each.key}"
}
`)
	require.NoError(t, err)
	assert.Contains(t, cfg.String(), `user = "u-${each.key}"`)
	assert.Contains(t, cfg.String(), `group = "g-${each.key}"`)
	_, err = load(t, cfg.String())
	require.NoError(t, err)
}

func TestPrint_ShowsNoSecrets(t *testing.T) {
	folder(t)
	cfg, err := load(t, "vault {\n  address = \"https://u:"+marker+"@vault\"\n}\n"+strings.Replace(login, `secret_id_file_path = "secret_id"`, `secret_id = "`+marker+`"`, 1)+
		"template {\n  contents = \"x\"\n  destination = \"x\"\n  reload {\n    url = \"https://u:"+marker+"@h/?key="+marker+"\"\n  }\n  exec {\n    command = [\"x\"]\n    env {\n      custom = [\"A="+marker+"\"]\n    }\n  }\n}\n")
	require.NoError(t, err)
	assert.NotContains(t, cfg.String(), marker)
	_, err = load(t, cfg.String())
	require.NoError(t, err)
}

func TestPrint_ASetMayBeInTheWorkingFolder(t *testing.T) {
	folder(t)
	cfg, err := load(t, login+"set \"s\" {\n  destination = \".\"\n  drop \"x\" {\n    secret = \"secret/a\"\n    destination = \"x.env\"\n  }\n}\n")
	require.NoError(t, err)
	assert.Contains(t, cfg.String(), `destination = "x.env"`)
}
