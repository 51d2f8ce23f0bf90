package render

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"text/template/parse"

	"github.com/agext/levenshtein"
)

// Template is a parsed template. It may be executed by several goroutines.
type Template struct {
	name    string
	tmpl    *template.Template
	origins map[string]origin
}

// Input is all that an execution may look at.
type Input struct {
	// Secret returns the answer to a request as the template wrote it, or nil
	// when it is not known yet.
	Secret func(Request) *Secret
	// Env returns the value of an environment variable, or "".
	Env func(name string) string
	// Dot is the secret whose pairs are the template's dot; nil for none.
	Dot *Secret
}

// Result is what an execution came to. When Missing is not empty there is no
// Content: the template has to run again once those secrets are known.
type Result struct {
	Content []byte
	// Uses are what the template asked for, in the order of asking.
	Uses []Request
	// Missing are those of Uses that are not known yet.
	Missing []Request
}

// ParseError says where a template is wrong. Line and Column count from 1.
type ParseError struct {
	Name         string
	Line, Column int
	Problem      string
}

func (e *ParseError) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.Name, e.Line, e.Column, e.Problem)
}

// MissingKeyError says that a template wants a key that its secret lacks.
type MissingKeyError struct {
	// Where is the template's name, line and column.
	Where string
	// Expr is the template's own text that asks for the key, or "" where
	// text/template does not tell.
	Expr string
	// Key is the key's name, or "" where the template computes it.
	Key string
	// Null says that the key is there, but holds null.
	Null bool
	// Secret is the path as the template wrote it, or several of them where
	// it cannot be told which one was meant.
	Secret string
	// Suggestion is the nearest key that is there, or "".
	Suggestion string
}

func (e *MissingKeyError) Error() string {
	msg := fmt.Sprintf("%s: secret %q has no key", e.Where, e.Secret)
	switch {
	case e.Null && e.Key != "":
		msg = fmt.Sprintf("%s: secret %q holds null under key %q", e.Where, e.Secret, e.Key)
	case e.Null:
		msg = fmt.Sprintf("%s: secret %q has no value", e.Where, e.Secret)
	case e.Key != "":
		msg += " " + strconv.Quote(e.Key)
	}
	if e.Expr != "" {
		msg += fmt.Sprintf(" (at {{%s}})", e.Expr)
	}
	if e.Suggestion != "" {
		msg += fmt.Sprintf("; did you mean %q?", e.Suggestion)
	}
	return msg
}

// view is what the function "secret" gives to a template; its shape is the one
// that templates for Vault Agent and consul-template expect.
type view struct {
	LeaseID       string
	LeaseDuration int
	Renewable     bool
	Data          map[string]any
}

// Parse reads a template in the language of text/template. The name stands in
// errors: the path of the file, as a rule. Errors are of type [*ParseError].
func Parse(name, text string) (*Template, error) {
	tmpl, err := template.New(name).Option("missingkey=error").Funcs(functions()).Parse(text)
	if err != nil {
		return nil, parseError(name, text, err)
	}
	t := &Template{name: name, tmpl: tmpl, origins: map[string]origin{}}
	for _, each := range tmpl.Templates() {
		if each.Tree != nil && each.Root != nil {
			t.walk(each.Tree, each.Root, rootScope(each.Name() != name))
			guard(each.Root)
		}
	}
	return t, nil
}

// Execute runs the template. It never waits: a secret that is not known yet is
// reported in [Result.Missing]. Errors show the template's text, never a value;
// a key that is not there gives a [*MissingKeyError].
func (t *Template) Execute(in Input) (Result, error) {
	var res Result
	ask := in.asking(&res)
	tmpl, err := t.tmpl.Clone()
	if err != nil {
		return res, fmt.Errorf("%s: %w", t.name, err)
	}
	var dot any
	if in.Dot != nil {
		dot = in.Dot.pairs()
	}
	var out bytes.Buffer
	err = tmpl.Funcs(template.FuncMap{"secret": ask.secret, "pkiCert": ask.pkiCert, "env": in.Env}).Execute(&out, dot)
	switch {
	case len(res.Missing) > 0:
		return res, nil
	case err != nil:
		return res, t.execError(err, in, res.Uses)
	}
	res.Content = out.Bytes()
	return res, nil
}

// asker asks for secrets, once each, in the name of one execution.
type asker func(Request) *Secret

func (in Input) asking(res *Result) asker {
	seen := map[Request]bool{}
	return func(r Request) *Secret {
		s := in.Secret(r)
		if !seen[r] {
			seen[r] = true
			res.Uses = append(res.Uses, r)
			if s == nil {
				res.Missing = append(res.Missing, r)
			}
		}
		return s
	}
}

// secret is the template function: a read, or with parameters a write.
func (ask asker) secret(path string, params ...string) (*view, error) {
	r, err := ParseRequest(path, params...)
	if err != nil {
		return nil, err
	}
	s := ask(r)
	if s == nil {
		return nil, nil
	}
	return &view{s.LeaseID, s.LeaseDuration, s.Renewable, s.Data.Reveal()}, nil
}

// pkiCert is the template function that issues a certificate.
func (ask asker) pkiCert(path string, params ...string) (*certificate, error) {
	r, err := ParseRequest(path, params...)
	if err != nil {
		return nil, err
	}
	s := ask(r)
	if s == nil {
		return nil, nil
	}
	return certificateOf(s)
}

// guard makes every action that writes something end in [present], as
// html/template does with its escapers.
func guard(node parse.Node) {
	switch n := node.(type) {
	case *parse.ListNode:
		if n == nil {
			return
		}
		for _, child := range n.Nodes {
			guard(child)
		}
	case *parse.ActionNode:
		if len(n.Pipe.Decl) == 0 {
			last := n.Pipe.Cmds[len(n.Pipe.Cmds)-1]
			ident := parse.NewIdentifier(presentFunc).SetPos(last.Pos)
			n.Pipe.Cmds = append(n.Pipe.Cmds, &parse.CommandNode{NodeType: parse.NodeCommand, Pos: last.Pos, Args: []parse.Node{ident}})
		}
	case *parse.IfNode:
		guard(n.List)
		guard(n.ElseList)
	case *parse.RangeNode:
		guard(n.List)
		guard(n.ElseList)
	case *parse.WithNode:
		guard(n.List)
		guard(n.ElseList)
	}
}

// execLocation finds place and problem in text/template's message, which has
// no structured form: "template: NAME:LINE:COL: executing NAME at <…>: …".
var execLocation = regexp.MustCompile(`(?s)^template: (.*?:\d+:\d+): executing .*? at <(.*?)>: (.*)$`)

var noEntry = regexp.MustCompile(`map has no entry for key "(.*)"$`)

func (t *Template) execError(err error, in Input, uses []Request) error {
	m := execLocation.FindStringSubmatch(err.Error())
	if m == nil {
		return errors.New(strings.TrimPrefix(err.Error(), "template: "))
	}
	where, expr, problem := oneBased(m[1]), m[2], m[3]
	from := t.origins[m[1]]
	if expr == "index" || expr == presentFunc || strings.HasPrefix(expr, `"`) {
		expr = from.expr
	}
	missing := &MissingKeyError{Where: where, Expr: expr, Key: from.key}
	switch entry := noEntry.FindStringSubmatch(problem); {
	case entry != nil:
		missing.Key = entry[1]
	case errors.Is(err, errNoKey):
	case errors.Is(err, errNoValue):
		missing.Null = true
	default:
		return fmt.Errorf("%s: %s (at {{%s}})", where, problem, expr)
	}
	missing.blame(from.secret, in, uses)
	return missing
}

// blame names the secret that a key was missed in, and the nearest key in it.
// Where the template computes the path, every secret that it used is named.
func (e *MissingKeyError) blame(path string, in Input, uses []Request) {
	var suspects []*Secret
	switch {
	case path == rootDot && in.Dot != nil:
		e.Secret = in.Dot.Path
		suspects = append(suspects, in.Dot)
	case path != "" && path != rootDot:
		e.Secret = path
		for _, used := range uses {
			if used.Path == path {
				suspects = append(suspects, in.Secret(used))
			}
		}
	default:
		var paths []string
		for _, used := range uses {
			paths = append(paths, used.Path)
			suspects = append(suspects, in.Secret(used))
		}
		e.Secret = strings.Join(paths, " or ")
	}
	var keys []string
	for _, s := range suspects {
		keys = append(keys, s.Keys()...)
	}
	e.Suggestion = Nearest(e.Key, keys)
}

// oneBased turns text/template's LINE:COL, whose column counts from 0, into
// what editors show.
func oneBased(location string) string {
	i := strings.LastIndexByte(location, ':')
	col, err := strconv.Atoi(location[i+1:])
	if err != nil {
		return location
	}
	return location[:i+1] + strconv.Itoa(col+1)
}

var (
	parseLocation = regexp.MustCompile(`(?s)^template: .*?:(\d+): (.*)$`)
	quoted        = regexp.MustCompile(`["<]([^"<>]+)[">]`)
	unknownFunc   = regexp.MustCompile(`^function "(.+)" not defined$`)
)

func parseError(name, text string, err error) *ParseError {
	e := &ParseError{Name: name, Line: 1, Column: 1, Problem: err.Error()}
	m := parseLocation.FindStringSubmatch(err.Error())
	if m == nil {
		return e
	}
	e.Line, _ = strconv.Atoi(m[1])
	e.Problem = m[2]
	if lines := strings.Split(text, "\n"); e.Line >= 1 && e.Line <= len(lines) {
		e.Column = column(lines[e.Line-1], e.Problem)
	}
	if m := unknownFunc.FindStringSubmatch(e.Problem); m != nil {
		var names []string
		for name := range functions() {
			if name != presentFunc {
				names = append(names, name)
			}
		}
		if near := Nearest(m[1], names); near != "" {
			e.Problem += fmt.Sprintf("; did you mean %q?", near)
		}
	}
	return e
}

// column looks for what the parser complains of, since the parser only knows
// the line: the word it quotes, or else the first action on that line.
func column(line, problem string) int {
	if m := quoted.FindStringSubmatch(problem); m != nil {
		if i := strings.Index(line, m[1]); i >= 0 {
			return i + 1
		}
	}
	return max(strings.Index(line, "{{"), 0) + 1
}

// Nearest returns the candidate that is most like name, or "" when none is
// close enough to be a likely slip of the fingers. Of two that are equally far
// the one that begins like name is nearer.
func Nearest(name string, candidates []string) string {
	best, nearest := min(3, len(name)), ""
	for _, c := range slices.Sorted(slices.Values(candidates)) {
		d := levenshtein.Distance(name, c, nil)
		if d < best || d == best && nearest != "" && commonPrefix(name, c) > commonPrefix(name, nearest) {
			best, nearest = d, c
		}
	}
	return nearest
}

func commonPrefix(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}
