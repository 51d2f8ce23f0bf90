package config

import (
	"bytes"
	"errors"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/smarteros/deaddrop/agent/textfile"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/drop"
	"github.com/smarteros/deaddrop/templates"
)

// parsedKey is all that a parsed template is made of.
type parsedKey struct {
	name, text, left, right string
	lenient                 bool
}

// builtinPrefix begins the source of a ready-made template.
const builtinPrefix = "builtin:"

// template reads and parses a template, which has exactly one origin.
func (l *loader) template(b templateBody, def hcl.Range) *render.Template {
	switch hasContents := !isUnset(b.Contents); {
	case b.Source != "" && hasContents:
		l.at(b.Contents.Range(), "source and contents exclude each other")
		return nil
	case b.Source == "" && !hasContents:
		l.at(def, "a template needs a source (a file) or contents (its text)")
		return nil
	case strings.HasPrefix(b.Source, builtinPrefix):
		return l.builtin(b)
	case b.Source != "":
		return l.templateFile(b)
	}
	value, diags := b.Contents.Value(l.ctx)
	l.hcl(diags)
	if diags.HasErrors() {
		return nil
	}
	converted, err := convert.Convert(value, cty.String)
	if err != nil || converted.IsNull() {
		l.at(b.Contents.Range(), "contents must be a text")
		return nil
	}
	at := b.Contents.Range()
	return l.parse(at.Filename+":"+strconv.Itoa(at.Start.Line), converted.AsString(), b.options(), at)
}

func (l *loader) builtin(b templateBody) *render.Template {
	name := strings.TrimPrefix(b.Source, builtinPrefix)
	text, ok := templates.Read(name)
	if !ok {
		l.at(b.SourceRange, "there is no ready-made template %q; \"deaddrop templates list\" shows them%s", name, didYouMean(name, templates.Names()))
		return nil
	}
	return l.parse(b.Source, text, b.options(), hcl.Range{Filename: b.Source})
}

// templateFile reads a template. It may name others in its folder.
func (l *loader) templateFile(b templateBody) *render.Template {
	text, err := textfile.Read(b.Source)
	if err != nil && l.dependsOnKey(b.Source) {
		return nil
	}
	if err != nil {
		l.at(b.SourceRange, "template %s cannot be read: %s", b.Source, drop.Bare(err))
		return nil
	}
	l.addFile(b.Source)
	o := b.options()
	o.Include = func(name string) (string, string, bool) {
		if name != filepath.Base(name) || strings.HasPrefix(name, ".") {
			return "", "", false
		}
		path := filepath.Join(filepath.Dir(b.Source), name)
		text, err := textfile.Read(path)
		if errors.Is(err, fs.ErrNotExist) {
			return "", "", false
		}
		l.addFile(path)
		if err != nil {
			l.problems = append(l.problems, Problem{File: path, Text: "cannot be read: " + drop.Bare(err).Error()})
		}
		return string(text), path, true
	}
	return l.parse(b.Source, string(text), o, hcl.Range{Filename: b.Source})
}

// parse reports a mistake where the user wrote it: in the template's file, on
// the line of a heredoc, or at the argument that holds the template.
func (l *loader) parse(name, text string, o render.Options, at hcl.Range) *render.Template {
	key := parsedKey{name, text, o.Left, o.Right, o.Lenient}
	if known := l.parsed[key]; known != nil {
		return known
	}
	tmpl, err := render.Parse(name, text, o)
	if err == nil {
		if l.key == "" || !strings.Contains(name+text, l.key) { // Else no one else has it.
			l.parsed[key] = tmpl
		}
		return tmpl
	}
	var wrong *render.ParseError
	switch {
	case !errors.As(err, &wrong):
		l.at(at, "%s", err)
	case at.Start.Line == 0 || wrong.Name != name:
		l.problems = append(l.problems, Problem{wrong.Name, wrong.Line, wrong.Column, wrong.Problem})
	case bytes.HasPrefix(at.SliceBytes(l.sources[at.Filename]), []byte("<<")):
		l.problems = append(l.problems, Problem{at.Filename, at.Start.Line + wrong.Line, wrong.Column, wrong.Problem})
	default:
		l.at(at, "line %d of the template: %s", wrong.Line, wrong.Problem)
	}
	return nil
}
