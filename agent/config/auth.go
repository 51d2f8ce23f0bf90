package config

import (
	"bytes"
	"cmp"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/smarteros/deaddrop/agent/internal/textfile"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/drop"
	"github.com/smarteros/deaddrop/render/secret"
)

// The ways to log in. They are Vault Agent's names, but for MethodToken, which
// is VAULT_TOKEN.
const (
	MethodAppRole    = "approle"
	MethodCert       = "cert"
	MethodJWT        = "jwt"
	MethodKubernetes = "kubernetes"
	MethodToken      = "token"
	MethodTokenFile  = "token_file"
)

// kubernetesToken is where Kubernetes puts a pod's own token.
const kubernetesToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"

// dockerSecrets is where Docker and Compose put secrets.
const dockerSecrets = "/run/secrets"

// methods are those that a file may name, with their settings.
var methods = map[string][]string{
	MethodAppRole: {"role_id", "role_id_file_path", "secret_id", "secret_id_file_path",
		"secret_id_response_wrapping_path", "remove_secret_id_file_after_reading"},
	MethodCert:       {"name", "ca_cert", "client_cert", "client_key"},
	MethodJWT:        {"role", "path", "remove_jwt_after_reading"},
	MethodKubernetes: {"role", "token_path"},
	MethodTokenFile:  {"token_file_path"},
}

// setting is one entry of a method's config, and where it stands.
type setting struct {
	value secret.Value[string]
	expr  hcl.Expression
	at    hcl.Range
}

// method reads the settings of one auto_auth method.
type method struct {
	*loader
	block    methodBlock
	settings map[string]setting
}

func (l *loader) auth(b *autoAuthBlock, file string) {
	if b == nil {
		l.authFromEnvironment(file)
		return
	}
	l.sinks(b.Sinks)
	l.ignore(b.EnableReauth, "enable_reauth_on_new_credentials", "files are read at every login")
	switch len(b.Methods) {
	case 0:
		l.at(b.DefRange, "auto_auth lacks a method: write method \"approle\" { … } into it")
		return
	case 1:
	default:
		l.at(b.Methods[1].DefRange, "there is a method already, at %s", placeOf(b.Methods[0].DefRange))
		return
	}
	block := b.Methods[0]
	if block.Type == "" {
		return // gohcl has said so.
	}
	l.methodExtras(block, len(b.Sinks) > 0)
	names, known := methods[block.Type]
	if !known {
		all := slices.Sorted(maps.Keys(methods))
		help := didYouMean(block.Type, all)
		if slices.Contains(foreignMethods, block.Type) {
			help = ", or let Vault Agent log in, and name the file of its sink with method \"token_file\""
		}
		l.at(block.TypeRange, "method %q is not supported; use one of %s%s", block.Type, strings.Join(all, ", "), help)
		return
	}
	m := method{l, block, l.settingsOf("method", block, names)}
	l.cfg.Auth = Auth{Method: block.Type, MountPath: mountPath(block.MountPath, block.Type)}
	switch auth := &l.cfg.Auth; block.Type {
	case MethodAppRole:
		m.approle(auth)
	case MethodCert:
		m.cert(auth)
	case MethodJWT:
		auth.Remove = m.flag("remove_jwt_after_reading", false)
		auth.Role, auth.File = m.required("role"), m.file("path", "", auth.Remove)
	case MethodKubernetes:
		auth.Role, auth.File = m.required("role"), m.file("token_path", kubernetesToken, false)
	case MethodTokenFile:
		auth.File = m.file("token_file_path", "", false)
	}
}

func (m method) approle(auth *Auth) {
	auth.WrappingPath = strings.Trim(m.text("secret_id_response_wrapping_path"), "/")
	// An unwrapped file is of no use any more; a restart that finds it would
	// take it for stolen.
	auth.Remove = m.flag("remove_secret_id_file_after_reading", auth.WrappingPath != "")
	auth.RoleID = m.id(auth, "role_id", "VAULT_ROLE_ID")
	if !auth.RoleID.IsSet() && !m.has("role_id") {
		m.at(m.block.DefRange, "method \"approle\" lacks a role_id: write role_id_file_path into its config, set VAULT_ROLE_ID, or deliver a file role_id as a systemd credential or Docker secret")
	}
	auth.SecretID = m.id(auth, "secret_id", "VAULT_SECRET_ID")
	if !auth.SecretID.IsSet() && !m.has("secret_id") {
		m.roleIDAlone(auth)
	}
	if auth.WrappingPath != "" && auth.SecretID.File == "" {
		m.at(m.settings["secret_id_response_wrapping_path"].at, "secret_id_response_wrapping_path needs secret_id_file_path, the file that holds the wrapping token")
	}
	if auth.SecretID.File == "" && auth.Remove {
		auth.Remove = false
	}
}

// has reports whether the configuration gives an id.
func (m method) has(name string) bool {
	_, inline := m.settings[name]
	_, file := m.settings[name+"_file_path"]
	return inline || file
}

// roleIDAlone is for roles with bind_secret_id = false.
func (m method) roleIDAlone(auth *Auth) {
	m.checkNotLost(m.block.DefRange)
	if auth.Remove && auth.WrappingPath == "" {
		m.warn(m.settings["remove_secret_id_file_after_reading"].at, "remove_secret_id_file_after_reading has no effect without secret_id_file_path: the login is with the role id alone")
	}
}

// checkNotLost refuses to log in with a role id alone where a secret id was meant to be.
func (l *loader) checkNotLost(at hcl.Range) {
	if l.credentials.isEmpty("VAULT_SECRET_ID") {
		l.at(at, "VAULT_SECRET_ID is set, but empty; set it to the secret id, or unset it to log in with the role id alone (bind_secret_id = false)")
	}
}

// cert logs in with the client certificate of the connection.
func (m method) cert(auth *Auth) {
	auth.Role = m.text("name")
	v := &m.cfg.Vault
	v.CACert = cmp.Or(m.readable("ca_cert"), v.CACert)
	v.ClientCert = cmp.Or(m.readable("client_cert"), v.ClientCert)
	v.ClientKey = cmp.Or(m.readable("client_key"), v.ClientKey)
	cert, key := os.Getenv("VAULT_CLIENT_CERT"), os.Getenv("VAULT_CLIENT_KEY")
	if cert == "" && key == "" { // The variables win, but a pair is a pair.
		cert, key = v.ClientCert, v.ClientKey
	}
	if cert == "" || key == "" {
		m.at(m.block.DefRange, "method \"cert\" lacks a certificate: write client_cert and client_key into its config, or set VAULT_CLIENT_CERT and VAULT_CLIENT_KEY")
	}
}

// authFromEnvironment takes AppRole before a token: who sets both means the
// agent to log in by itself, and a token is what a shell often has around.
func (l *loader) authFromEnvironment(file string) {
	role, id := l.idFromAround("role_id", "VAULT_ROLE_ID"), l.idFromAround("secret_id", "VAULT_SECRET_ID")
	token := l.credentials.get("VAULT_TOKEN")
	// A role id in a file may be there for someone else.
	isAppRole := role.IsSet() && (id.IsSet() || role.File == "" || token == "")
	switch {
	case isAppRole:
		l.checkAround(role)
		if id.IsSet() {
			l.checkAround(id)
		} else {
			l.checkNotLost(hcl.Range{})
		}
		l.cfg.Auth = Auth{Method: MethodAppRole, MountPath: MethodAppRole, RoleID: role, SecretID: id}
	case l.credentials.get("VAULT_SECRET_ID") != "":
		l.at(hcl.Range{}, "VAULT_SECRET_ID is set, but VAULT_ROLE_ID is not")
	case token != "":
		l.cfg.Auth = Auth{Method: MethodToken, Token: secret.Of(token)}
	default:
		l.problems = append(l.problems, Problem{File: file,
			Text: "no way to log in: set VAULT_ROLE_ID and VAULT_SECRET_ID, or VAULT_TOKEN, or deliver the files role_id and secret_id as systemd credentials or Docker secrets, or write an \"auto_auth\" block into the configuration file"})
	}
}

func mountPath(path, method string) string {
	return cmp.Or(strings.TrimPrefix(strings.Trim(path, "/"), "auth/"), method)
}

// methodExtras are what a method has besides its config.
func (l *loader) methodExtras(b methodBlock, hasSinks bool) {
	switch {
	case isUnset(b.WrapTTL):
	case hasSinks:
		l.at(b.WrapTTL.Range(), "wrap_ttl of a method is not supported with a sink: who reads the sink would get a plain token instead; take out wrap_ttl, or the sink")
	default:
		l.warn(b.WrapTTL.Range(), "wrap_ttl has no effect: the agent keeps the token to itself, and does not wrap it")
	}
	if b.Namespace != "" {
		if l.cfg.Vault.Namespace != "" && l.cfg.Vault.Namespace != b.Namespace {
			l.at(b.DefRange, "the namespace of the method is another one than that of vault, which is not supported")
		}
		l.cfg.Vault.Namespace = b.Namespace
	}
	for name, expr := range map[string]hcl.Expression{"min_backoff": b.MinBackoff, "max_backoff": b.MaxBackoff, "exit_on_err": b.ExitOnErr} {
		l.ignore(expr, name, "a login that fails is tried again after 15 s at most, until it succeeds")
	}
}

// settingsOf reads the config of a method or sink, as an object or as a block.
func (l *loader) settingsOf(kind string, m methodBlock, names []string) map[string]setting {
	all := map[string]setting{}
	set := func(name string, at hcl.Range, expr hcl.Expression) {
		if why, is := foreignSettings[m.Type][name]; is {
			l.warn(at, "%s has no effect: %s", name, why)
			return
		}
		if !slices.Contains(names, name) {
			l.at(at, "%s %q has no setting %q%s", kind, m.Type, name, didYouMean(name, names))
			return
		}
		value, diags := expr.Value(l.ctx)
		l.hcl(diags)
		if diags.HasErrors() {
			return
		}
		text, err := convert.Convert(value, cty.String)
		if err != nil || text.IsNull() || text.AsString() == "" {
			l.at(expr.Range(), "%s must be a text that is not empty", name)
			return
		}
		all[name] = setting{secret.Of(text.AsString()), expr, expr.Range()}
	}
	if m.ConfigBlock != nil {
		attrs, diags := m.ConfigBlock.Body.JustAttributes()
		l.hcl(diags)
		for name, attr := range attrs {
			set(name, attr.NameRange, attr.Expr)
		}
		return all
	}
	if m.ConfigMap == nil {
		return all
	}
	if value, diags := m.ConfigMap.Value(l.ctx); !diags.HasErrors() && value.IsNull() {
		return all
	}
	pairs, diags := hcl.ExprMap(m.ConfigMap)
	if diags.HasErrors() {
		l.at(m.ConfigMap.Range(), `config must be an object: config = { role_id_file_path = "…", secret_id_file_path = "…" }`)
		return all
	}
	for _, pair := range pairs {
		name, diags := pair.Key.Value(l.ctx)
		if diags.HasErrors() || name.Type() != cty.String {
			l.at(pair.Key.Range(), "the name of a setting must be a plain word")
			continue
		}
		set(name.AsString(), pair.Key.Range(), pair.Value)
	}
	return all
}

func (m method) text(name string) string { return m.settings[name].value.Reveal() }

func (m method) required(name string) string {
	if m.text(name) == "" {
		m.at(m.block.DefRange, "method %q lacks a %s: write %s into its config", m.block.Type, name, name)
	}
	return m.text(name)
}

func (m method) flag(name string, otherwise bool) bool {
	s, there := m.settings[name]
	if !there {
		return otherwise
	}
	value, err := strconv.ParseBool(s.value.Reveal())
	if err != nil {
		m.at(s.at, "%s must be true or false", name)
	}
	return value
}

// readable names a file that has to be there, if it is set.
func (m method) readable(name string) string {
	if m.text(name) == "" {
		return ""
	}
	return m.file(name, "", false)
}

// file names a file that has to be there, unless a login may have removed it.
func (m method) file(name, otherwise string, mayBeGone bool) string {
	s, there := m.settings[name]
	if !there && otherwise == "" {
		m.at(m.block.DefRange, "method %q lacks a %s: write %s into its config", m.block.Type, name, name)
		return ""
	}
	file, at := otherwise, m.block.DefRange
	if there {
		file, at = s.value.Reveal(), s.at
	}
	if _, err := ReadCredential(file); err != nil && !(mayBeGone && errors.Is(err, fs.ErrNotExist)) {
		m.noteUnread(file)
		m.at(at, "%s %s cannot be read: %s", name, file, drop.Bare(err))
	}
	return file
}

// id finds an id in a file, in the configuration, or around. One that is not there is
// not set.
func (m method) id(auth *Auth, name, variable string) ID {
	file, hasFile := m.settings[name+"_file_path"]
	inline, hasInline := m.settings[name]
	switch around := m.idFromAround(name, variable); {
	case hasFile && hasInline:
		m.at(inline.at, "%s and %s_file_path exclude each other", name, name)
	case hasFile:
		return m.idFile(name, file, name == "secret_id" && auth.Remove)
	case hasInline:
		return ID{Value: inline.value}
	case around.IsSet():
		m.checkAround(around)
		return around
	}
	return ID{}
}

// idFile lets a file be missing that the last login may have removed.
func (m method) idFile(name string, s setting, mayBeGone bool) ID {
	id := ID{File: s.value.Reveal()}
	if _, err := id.Read(); err != nil && !(mayBeGone && errors.Is(err, fs.ErrNotExist)) {
		m.noteUnread(id.File)
		m.at(s.at, "%s_file_path %s cannot be read: %s", name, id.File, drop.Bare(err))
	}
	return id
}

// idFromAround finds an id in a variable, a systemd credential or a Docker secret.
func (l *loader) idFromAround(name, variable string) ID {
	if value := l.credentials.get(variable); value != "" {
		return ID{Value: secret.Of(value)}
	}
	for _, folder := range []string{os.Getenv("CREDENTIALS_DIRECTORY"), l.dockerSecrets} {
		if file := filepath.Join(folder, name); folder != "" && isFile(file) {
			return ID{File: file}
		}
	}
	return ID{}
}

// checkAround checks that the file of an id that nothing names can be read.
func (l *loader) checkAround(id ID) {
	if _, err := id.Read(); err != nil {
		l.noteUnread(id.File)
		l.at(hcl.Range{}, "%s cannot be read: %s", id.File, drop.Bare(err))
	}
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// ReadCredential returns the content of a file that holds an id or a token.
func ReadCredential(file string) (secret.Value[string], error) {
	content, err := textfile.Read(file)
	if err != nil {
		return secret.Value[string]{}, err
	}
	content = bytes.TrimSpace(content)
	if len(content) == 0 {
		return secret.Value[string]{}, errors.New("the file is empty")
	}
	return secret.Of(string(content)), nil
}

// Read returns the id, from its file where it has one. Nothing is cached: a
// file that was delivered anew counts at the next login.
func (id ID) Read() (secret.Value[string], error) {
	if id.File == "" {
		return id.Value, nil
	}
	return ReadCredential(id.File)
}

// IsSet reports whether there is an id.
func (id ID) IsSet() bool { return id.File != "" || id.Value.Reveal() != "" }

func didYouMean(name string, candidates []string) string {
	if near := render.Nearest(name, candidates); near != "" {
		return "; did you mean \"" + near + "\"?"
	}
	return ""
}
