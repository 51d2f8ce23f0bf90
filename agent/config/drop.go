package config

import (
	"cmp"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/smarteros/deaddrop/agent/reload"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/drop"
)

// defaultMode is for files that hold secrets: the owner's alone.
const defaultMode fs.FileMode = 0o600

// defaultExecTimeout is Vault Agent's.
const defaultExecTimeout = 30 * time.Second

// drop reads a "drop" block, or a "template" block, which has no name.
func (l *loader) drop(name string, body hcl.Body, def hcl.Range) {
	var b dropBody
	diags := gohcl.DecodeBody(body, nil, &b)
	l.hcl(diags)
	b.broken = diags.HasErrors()
	if name == "" && b.Format == "" {
		b.Format = string(render.FormatTemplate)
	}
	if b.Destination != "" {
		l.dropBody(cmp.Or(name, b.Destination), b, def)
	}
}

func (l *loader) dropBody(name string, b dropBody, def hcl.Range) {
	d := Drop{Name: name, Secret: strings.Trim(b.Secret, "/"), Destination: b.Destination, Mode: defaultMode, CreateDirs: true}
	l.destination(b)
	l.secretPath(b)
	d.Format = l.format(b)
	if d.Format == render.FormatTemplate {
		d.Template = l.template(b)
	} else if b.Source != "" || !isUnset(b.Contents) {
		l.at(b.FormatRange, "format %q writes the secret as it is; take out source and contents, or use format \"template\"", b.Format)
	} else if b.Secret == "" && !b.broken {
		l.at(def, "a drop of format %q needs a secret, such as secret = \"secret/tenant/demo/nexa\"", d.Format)
	}
	if b.Perms != "" {
		d.Mode = l.mode(b)
	}
	if b.CreateDirs != nil {
		d.CreateDirs = *b.CreateDirs
	}
	d.OnMissing = l.onMissing(b)
	d.Reloads = l.reloads(b)
	l.cfg.Drops = append(l.cfg.Drops, d)
}

func (l *loader) destination(b dropBody) {
	at := b.DestinationRange
	if strings.HasSuffix(b.Destination, "/") {
		l.at(at, "destination %s is a folder; name a file in it", b.Destination)
		return
	}
	if err := drop.Check(b.Destination); err != nil {
		l.at(at, "destination %s", err)
	}
	path, err := filepath.Abs(b.Destination)
	if err != nil {
		path = filepath.Clean(b.Destination)
	}
	if first, taken := l.destinations[path]; taken {
		l.at(at, "destination %s is written already, by the block at %s:%d", b.Destination, first.Filename, first.Start.Line)
		return
	}
	l.destinations[path] = at
}

func (l *loader) secretPath(b dropBody) {
	if b.Secret == "" {
		return
	}
	path := strings.Trim(b.Secret, "/")
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "" || segment == "." || segment == ".." {
			l.at(b.SecretRange, "secret %q is not a path; write one such as \"secret/tenant/demo/nexa\"", b.Secret)
			return
		}
	}
	if !strings.Contains(path, "/") {
		l.at(b.SecretRange, "secret %q names a mount only; write a path in it, such as \"%s/tenant/demo/nexa\"", b.Secret, path)
	}
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
	case filepath.Ext(b.Destination) == ".json":
		return render.FormatJSON
	}
	return render.FormatDotenv
}

func (l *loader) mode(b dropBody) fs.FileMode {
	mode, err := strconv.ParseUint(b.Perms, 8, 32)
	if err != nil || mode > 0o777 {
		l.at(b.PermsRange, "perms %q is not a file mode; write one such as \"0600\" or \"0440\"", b.Perms)
		return defaultMode
	}
	return fs.FileMode(mode)
}

func (l *loader) onMissing(b dropBody) OnMissing {
	all := []string{string(KeepFile), string(RemoveFile), string(Fail)}
	switch {
	case b.OnMissing == "":
		return KeepFile
	case !slices.Contains(all, b.OnMissing):
		l.at(b.OnMissingRange, "on_missing %q is not known; use one of %s%s", b.OnMissing, strings.Join(all, ", "), didYouMean(b.OnMissing, all))
	}
	return OnMissing(b.OnMissing)
}

func (l *loader) reloads(b dropBody) []reload.Action {
	var actions []reload.Action
	if r := b.Reload; r != nil {
		sig, err := reload.ParseSignal(r.Signal)
		if err != nil {
			l.at(r.SignalRange, "%s", err)
		}
		if r.PIDFile == "" {
			l.at(r.PIDRange, "pid_file is empty; name the file that holds the service's process id")
		}
		actions = append(actions, reload.Signal{PIDFile: r.PIDFile, Signal: sig})
	}
	if e := b.Exec; e != nil {
		timeout := defaultExecTimeout
		if e.Timeout != "" {
			timeout, _ = l.duration(e.Timeout, e.TimeoutRange)
		}
		if len(e.Command) == 0 || e.Command[0] == "" {
			l.at(e.CommandRange, `command is empty; write the program and its arguments: ["nginx", "-s", "reload"]`)
			return actions
		}
		actions = append(actions, reload.Command{Args: e.Command, Timeout: timeout})
	}
	return actions
}

func isUnset(expr hcl.Expression) bool {
	if expr == nil {
		return true
	}
	value, diags := expr.Value(nil)
	return !diags.HasErrors() && value.IsNull()
}

// contents returns an inline template and where it stands. It checks that a
// template has exactly one origin.
func (l *loader) contents(b dropBody) (text string, at hcl.Range, ok bool) {
	switch hasContents := !isUnset(b.Contents); {
	case b.Source != "" && hasContents:
		l.at(b.Contents.Range(), "source and contents exclude each other")
		return "", at, false
	case b.Source != "":
		return "", at, true
	case !hasContents:
		l.at(b.DestinationRange, "a template needs a source (a file) or contents (its text)")
		return "", at, false
	}
	value, diags := b.Contents.Value(nil)
	l.hcl(diags)
	if diags.HasErrors() {
		return "", at, false
	}
	converted, err := convert.Convert(value, cty.String)
	if err != nil {
		l.at(b.Contents.Range(), "contents must be a text")
		return "", at, false
	}
	return converted.AsString(), b.Contents.Range(), true
}
