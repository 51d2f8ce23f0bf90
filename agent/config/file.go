package config

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/json"
	"github.com/zclconf/go-cty/cty"

	"github.com/smarteros/deaddrop/agent/tenant"
	"github.com/smarteros/deaddrop/render/drop"
)

// expand turns folders into the configuration files in them.
func (l *loader) expand(paths []string) []string {
	var files []string
	for _, path := range paths {
		l.addFile(path)
		info, err := os.Stat(path)
		if err != nil || !info.IsDir() {
			files = append(files, path) // Reading it will tell what is wrong.
			continue
		}
		found, err := inFolder(path)
		l.noteSource(path, digestOfFolder(found, err))
		switch {
		case err != nil:
			l.problems = append(l.problems, Problem{File: path, Text: "cannot be read: " + drop.Bare(err).Error()})
		case len(found) == 0:
			l.problems = append(l.problems, Problem{File: path, Text: "there is no file *.hcl or *.json in this folder"})
		}
		files = append(files, found...)
		*l.files = append(*l.files, found...)
	}
	return files
}

func inFolder(folder string) ([]string, error) {
	entries, err := os.ReadDir(folder)
	var files []string
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); !e.IsDir() && (ext == ".hcl" || ext == ".json") {
			files = append(files, filepath.Join(folder, e.Name()))
		}
	}
	return files, err
}

// parseFile returns what a file holds; ok is false where there is no telling.
func (l *loader) parseFile(path string) (body hcl.Body, ok bool) {
	src, err := l.readFile(path)
	if err != nil {
		l.problems = append(l.problems, Problem{File: path, Text: "cannot be read: " + drop.Bare(err).Error()})
		return nil, false
	}
	l.sources[path] = src
	var parsed *hcl.File
	var diags hcl.Diagnostics
	if filepath.Ext(path) == ".json" {
		parsed, diags = json.Parse(plainJSON(src), path)
	} else {
		parsed, diags = hclsyntax.ParseConfig(src, path, hcl.InitialPos)
	}
	l.hcl(diags)
	if diags.HasErrors() {
		return nil, false
	}
	if body, isNative := parsed.Body.(*hclsyntax.Body); isNative {
		relabel(body)
	}
	return parsed.Body, true
}

// names reads the tenant and the service, which all other expressions may use, and
// returns what else the files hold. Of several files the last counts, and the
// environment wins.
func (l *loader) names(bodies []hcl.Body) (rest []hcl.Body) {
	schema := &hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: "tenant"}, {Name: "service"}}}
	given := map[string]*hcl.Attribute{}
	for _, body := range bodies {
		content, remain, diags := body.PartialContent(schema)
		l.hcl(diags)
		maps.Copy(given, content.Attributes)
		rest = append(rest, remain)
	}
	l.cfg.Tenant, l.cfg.Service = l.name("tenant", given["tenant"]), l.name("service", given["service"])
	l.ctx = scope(l.cfg.Tenant, l.cfg.Service)
	return rest
}

// name is one of them, or "" where it is not set. It becomes a part of paths.
func (l *loader) name(name string, attr *hcl.Attribute) string {
	variable, at := "DEADDROP_"+strings.ToUpper(name), hcl.Range{}
	value := os.Getenv(variable)
	if value == "" && attr != nil {
		variable, at = name, attr.Expr.Range()
		l.hcl(gohcl.DecodeExpression(attr.Expr, l.ctx, &value))
	}
	if value == "" {
		return ""
	}
	if err := tenant.CheckID(value); err != nil {
		l.at(at, "%s: %s", variable, err)
	}
	return value
}

// ours is how an expression begins that a JSON file may hold.
var ours = regexp.MustCompile(`^\$\{\s*(tenant|service|each\.key|env\s*\()`)

// plainJSON keeps the text of a JSON file from being an expression, unless it is
// plainly one of ours: JSON files of Vault Agent mean "${HOME}" and "%{" as they stand.
func plainJSON(src []byte) []byte {
	var out []byte
	for i, c := range src {
		opens := i+1 < len(src) && src[i+1] == '{' && (c == '$' || c == '%')
		if opens && !ours.Match(src[i:]) {
			out = append(out, c)
		}
		out = append(out, c)
	}
	return out
}

// typed are the blocks that are written both as NAME "type" { … } and as
// NAME { type = "type" … }.
var typed = []string{"method", "sink", "listener"}

// relabel moves the label of blocks that have a type into their attribute type,
// so that the rest need only know one form.
func relabel(body *hclsyntax.Body) {
	for _, block := range body.Blocks {
		if isForeignTopLevel(block.Type) {
			block.Labels, block.LabelRanges = nil, nil // They say nothing here.
		}
		if slices.Contains(typed, block.Type) && len(block.Labels) == 1 && block.Body.Attributes["type"] == nil {
			at := block.LabelRanges[0]
			block.Body.Attributes["type"] = &hclsyntax.Attribute{
				Name: "type", Expr: &hclsyntax.LiteralValueExpr{Val: cty.StringVal(block.Labels[0]), SrcRange: at},
				SrcRange: at, NameRange: at, EqualsRange: at,
			}
			block.Labels, block.LabelRanges = nil, nil
		}
		relabel(block.Body)
	}
}

// merge adds the blocks of another file. What may be there once is taken from
// the file that has it; in two of them it is an error.
func (l *loader) merge(all *fileBlock, more fileBlock) {
	all.Templates = append(all.Templates, more.Templates...)
	all.Drops = append(all.Drops, more.Drops...)
	all.Sets = append(all.Sets, more.Sets...)
	all.EnvTemplates = append(all.EnvTemplates, more.EnvTemplates...)
	all.Cache = append(all.Cache, more.Cache...)
	all.APIProxy = append(all.APIProxy, more.APIProxy...)
	all.Listener = append(all.Listener, more.Listener...)
	all.Telemetry = append(all.Telemetry, more.Telemetry...)
	once(l, "vault", &all.Vault, more.Vault, func(b *vaultBlock) hcl.Range { return b.DefRange })
	once(l, "auto_auth", &all.AutoAuth, more.AutoAuth, func(b *autoAuthBlock) hcl.Range { return b.DefRange })
	once(l, "template_config", &all.TemplateConfig, more.TemplateConfig, func(b *templateConfigBlock) hcl.Range { return b.DefRange })
	once(l, "exec", &all.Exec, more.Exec, func(b *superviseBlock) hcl.Range { return b.DefRange })
	once(l, "wait", &all.Wait, more.Wait, func(b *waitBlock) hcl.Range { return b.DefRange })
	if last(&all.Splay, more.Splay) {
		all.SplayRange = more.SplayRange
	}
	last(&all.Strict, more.Strict)
	last(&all.RequireTmpfs, more.RequireTmpfs)
	last(&all.Mlock, more.Mlock)
	last(&all.ExitAfterAuth, more.ExitAfterAuth)
	last(&all.PIDFile, more.PIDFile)
	last(&all.LogFile, more.LogFile)
	if last(&all.StateDir, more.StateDir) {
		all.StateDirRange = more.StateDirRange
	}
	if last(&all.LogLevel, more.LogLevel) {
		all.LogLevelRange = more.LogLevelRange
	}
	if last(&all.LogFormat, more.LogFormat) {
		all.LogFormatRange = more.LogFormatRange
	}
	for _, each := range [][2]*hcl.Expression{
		{&all.DisableIdleConnections, &more.DisableIdleConnections}, {&all.DisableKeepAlives, &more.DisableKeepAlives},
		{&all.LogRotateBytes, &more.LogRotateBytes}, {&all.LogRotateDuration, &more.LogRotateDuration},
		{&all.LogRotateMaxFiles, &more.LogRotateMaxFiles}, {&all.DisableMlock, &more.DisableMlock},
	} {
		if !isUnset(*each[1]) {
			*each[0] = *each[1]
		}
	}
}

func once[T any](l *loader, name string, into **T, more *T, at func(*T) hcl.Range) {
	switch {
	case more == nil:
	case *into != nil:
		l.at(at(more), "%s is there already, at %s", name, placeOf(at(*into)))
	default:
		*into = more
	}
}

// last lets a later file win. It tells whether it has.
func last[T any](into **T, more *T) bool {
	if more != nil {
		*into = more
	}
	return more != nil
}

// hint tells what to write where HCL 2 wants it otherwise than users expect, or "".
func (l *loader) hint(d *hcl.Diagnostic) string {
	src := l.sources[d.Subject.Filename]
	switch summary := strings.ToLower(d.Summary); {
	case strings.Contains(summary, "escape sequence"):
		return `; write \\ for a backslash`
	case strings.Contains(summary, "invalid json number"):
		return ` JSON has no octal numbers: write a mode in quotes, "0640".`
	case strings.Contains(summary, "single-argument block"):
		return " Write each argument on a line of its own."
	}
	if !d.Subject.CanSliceBytes(src) {
		return ""
	}
	start := d.Subject.Start.Byte
	begin := bytes.LastIndexByte(src[:start], '\n') + 1
	before := string(src[begin:min(start+2, len(src))])
	for _, opens := range []string{"${", "%{"} {
		i := strings.LastIndex(before, opens)
		if i >= 0 && !strings.Contains(string(src[begin+i:max(start, begin+i)]), "}") {
			return fmt.Sprintf("; %s begins an expression: write %s for the text %s", opens, opens[:1]+opens, opens)
		}
	}
	return ""
}
