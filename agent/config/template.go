package config

import (
	"bytes"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/smarteros/deaddrop/agent/internal/textfile"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/drop"
	"github.com/smarteros/deaddrop/templates"
)

// parsedKey is all that a parsed template is made of.
type parsedKey struct {
	name, text, left, right, denied string
	lenient                         bool
}

// templateCache are parsed templates, which keys share. It may be used by several
// goroutines at once.
type templateCache struct {
	mu    sync.Mutex
	byKey map[parsedKey]*render.Template
}

func (c *templateCache) get(key parsedKey) *render.Template {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byKey[key]
}

func (c *templateCache) put(key parsedKey, t *render.Template) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byKey[key] = t
}

// builtinPrefix begins the source of a ready-made template.
const builtinPrefix = "builtin:"

// template reads and parses a template, which has exactly one origin.
func (l *loader) template(b templateBody, def hcl.Range) (*render.Template, TemplateText) {
	text := b.text()
	if l.isTrue("error_fatal", b.ErrorFatal) {
		l.warn(b.ErrorFatal.Range(), "error_fatal has no effect: when a template fails, its last good file stays, and it is tried again")
	}
	switch hasContents := !isUnset(b.Contents); {
	case b.Source != "" && hasContents:
		l.at(b.Contents.Range(), "source and contents exclude each other")
		return nil, text
	case b.Source == "" && !hasContents:
		l.at(def, "a template needs a source (a file) or contents (its text)")
		return nil, text
	case strings.HasPrefix(b.Source, builtinPrefix):
		return l.builtin(b, text.options()), text
	case b.Source != "":
		return l.templateFile(b, text.options()), text
	}
	value, diags := b.Contents.Value(l.ctx)
	l.hcl(diags)
	if diags.HasErrors() {
		return nil, text
	}
	converted, err := convert.Convert(value, cty.String)
	if err != nil || converted.IsNull() {
		l.at(b.Contents.Range(), "contents must be a text")
		return nil, text
	}
	at := b.Contents.Range()
	contents := converted.AsString()
	if l.key == "" || l.standIn { // A thousand tenants need no copy each.
		text.Contents = contents
	}
	return l.parse(placeOf(at), contents, text.options(), at), text
}

// text is what a block says of its template, but for the contents.
func (b templateBody) text() TemplateText {
	return TemplateText{
		Left: b.Left, Right: b.Right, Lenient: b.ErrorOnMissing != nil && !*b.ErrorOnMissing,
		Denied: slices.Concat(b.Denied, b.DeniedBefore),
	}
}

func (t TemplateText) options() render.Options {
	return render.Options{Left: t.Left, Right: t.Right, Lenient: t.Lenient, Denied: t.Denied}
}

// isTrue reports whether an argument is there and true.
func (l *loader) isTrue(name string, expr hcl.Expression) bool {
	if isUnset(expr) {
		return false
	}
	value, diags := expr.Value(l.ctx)
	l.hcl(diags)
	if diags.HasErrors() {
		return false
	}
	is, err := convert.Convert(value, cty.Bool)
	if err != nil || is.IsNull() {
		l.at(expr.Range(), "%s must be true or false", name)
		return false
	}
	return is.True()
}

func (l *loader) builtin(b templateBody, o render.Options) *render.Template {
	name := strings.TrimPrefix(b.Source, builtinPrefix)
	text, ok := templates.Read(name)
	if !ok {
		l.at(b.SourceRange, "there is no ready-made template %q; \"deaddrop templates list\" shows them%s", name, didYouMean(name, templates.Names()))
		return nil
	}
	return l.parse(b.Source, text, o, hcl.Range{Filename: b.Source})
}

// templateFile reads a template. It may name others in its folder.
func (l *loader) templateFile(b templateBody, o render.Options) *render.Template {
	text, err := textfile.Read(b.Source)
	if err != nil && l.dependsOnKey(b.Source) {
		return nil
	}
	l.noteRead(b.Source, text, err)
	if err != nil {
		l.at(b.SourceRange, "template %s cannot be read: %s", b.Source, drop.Bare(err))
		return nil
	}
	l.addFile(b.Source)
	o.Include = func(name string) (string, string, bool) {
		if name != filepath.Base(name) || strings.HasPrefix(name, ".") {
			return "", "", false
		}
		path := filepath.Join(filepath.Dir(b.Source), name)
		text, err := l.readFile(path)
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
	key := parsedKey{name, text, o.Left, o.Right, strings.Join(o.Denied, " "), o.Lenient}
	if known := l.templates.get(key); known != nil {
		return known
	}
	tmpl, err := render.Parse(name, text, o)
	if err == nil {
		if l.key == "" || !strings.Contains(name+text, l.key) { // Else no one else has it.
			l.templates.put(key, tmpl)
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
