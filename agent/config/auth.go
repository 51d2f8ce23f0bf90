package config

import (
	"os"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/secret"
)

// setting is one entry of a method's config, and where it stands.
type setting struct {
	value secret.Value[string]
	at    hcl.Range
}

var approleSettings = []string{"role_id", "role_id_file_path", "secret_id", "secret_id_file_path"}

func (l *loader) auth(b *autoAuthBlock, file string) {
	if b == nil {
		l.authFromEnvironment(file)
		return
	}
	m := b.Method
	if m.Type == "" {
		return // A method block is missing; gohcl has said so.
	}
	if m.Type != "approle" {
		l.at(m.TypeRange, `method %q is not supported; use "approle"`, m.Type)
		return
	}
	settings := l.settings(m)
	l.cfg.Auth.MountPath = mountPath(m.MountPath)
	l.cfg.Auth.RoleID = l.id(settings, "role_id", "VAULT_ROLE_ID", m.DefRange)
	l.cfg.Auth.SecretID = l.id(settings, "secret_id", "VAULT_SECRET_ID", m.DefRange)
}

// authFromEnvironment takes AppRole before a token: who sets both means the
// agent to log in by itself, and a token is what a shell often has around.
func (l *loader) authFromEnvironment(file string) {
	role, id, token := os.Getenv("VAULT_ROLE_ID"), os.Getenv("VAULT_SECRET_ID"), os.Getenv("VAULT_TOKEN")
	switch {
	case role != "" && id != "":
		l.cfg.Auth = Auth{MountPath: mountPath(""), RoleID: ID{Value: secret.Of(role)}, SecretID: ID{Value: secret.Of(id)}}
	case role != "":
		l.at(hcl.Range{}, "VAULT_ROLE_ID is set, but VAULT_SECRET_ID is not")
	case id != "":
		l.at(hcl.Range{}, "VAULT_SECRET_ID is set, but VAULT_ROLE_ID is not")
	case token != "":
		l.cfg.Auth = Auth{Token: secret.Of(token)}
	default:
		l.problems = append(l.problems, Problem{File: file,
			Text: "no way to log in: set VAULT_ROLE_ID and VAULT_SECRET_ID, or VAULT_TOKEN, or write an \"auto_auth\" block into the configuration file"})
	}
}

func mountPath(path string) string {
	path = strings.TrimPrefix(strings.Trim(path, "/"), "auth/")
	if path == "" {
		return "approle"
	}
	return path
}

// settings reads the method's config, as an object or as a block.
func (l *loader) settings(m methodBlock) map[string]setting {
	all := map[string]setting{}
	if m.ConfigBlock != nil {
		attrs, diags := m.ConfigBlock.Body.JustAttributes()
		l.hcl(diags)
		for name, attr := range attrs {
			l.set(all, name, attr.NameRange, attr.Expr)
		}
		return all
	}
	if value, diags := m.ConfigMap.Value(nil); !diags.HasErrors() && value.IsNull() {
		return all
	}
	pairs, diags := hcl.ExprMap(m.ConfigMap)
	if diags.HasErrors() {
		l.at(m.ConfigMap.Range(), `config must be an object: config = { role_id_file_path = "…", secret_id_file_path = "…" }`)
		return all
	}
	for _, pair := range pairs {
		name, diags := pair.Key.Value(nil)
		if diags.HasErrors() || name.Type() != cty.String {
			l.at(pair.Key.Range(), "the name of a setting must be a plain word")
			continue
		}
		l.set(all, name.AsString(), pair.Key.Range(), pair.Value)
	}
	return all
}

func (l *loader) set(all map[string]setting, name string, at hcl.Range, expr hcl.Expression) {
	if !slices.Contains(approleSettings, name) {
		l.at(at, "method \"approle\" has no setting %q%s", name, didYouMean(name, approleSettings))
		return
	}
	value, diags := expr.Value(nil)
	l.hcl(diags)
	if diags.HasErrors() {
		return
	}
	text, err := convert.Convert(value, cty.String)
	if err != nil || text.IsNull() || text.AsString() == "" {
		l.at(expr.Range(), "%s must be a text that is not empty", name)
		return
	}
	all[name] = setting{secret.Of(text.AsString()), expr.Range()}
}

// id finds an id in a file, in the configuration, or in the environment.
func (l *loader) id(settings map[string]setting, name, variable string, method hcl.Range) ID {
	file, hasFile := settings[name+"_file_path"]
	inline, hasInline := settings[name]
	switch fromEnv := os.Getenv(variable); {
	case hasFile && hasInline:
		l.at(inline.at, "%s and %s_file_path exclude each other", name, name)
	case hasFile:
		id := ID{File: file.value.Reveal()}
		if _, err := id.Read(); err != nil {
			l.at(file.at, "%s_file_path %s cannot be read: %s", name, id.File, reason(err))
		}
		return id
	case hasInline:
		return ID{Value: inline.value}
	case fromEnv != "":
		return ID{Value: secret.Of(fromEnv)}
	default:
		l.at(method, "method \"approle\" lacks a %s: write %s_file_path into its config, or set %s", name, name, variable)
	}
	return ID{}
}

func didYouMean(name string, candidates []string) string {
	if near := render.Nearest(name, candidates); near != "" {
		return "; did you mean \"" + near + "\"?"
	}
	return ""
}
