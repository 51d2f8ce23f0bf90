package render

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/template"
	"text/template/parse"
	"time"

	"github.com/agext/levenshtein"

	"github.com/smarteros/deaddrop/render/dotenv"
)

// Template is a parsed template. It may be executed by several goroutines.
type Template struct {
	name    string
	lenient bool
	tmpl    *template.Template
	origins map[string]origin
	named   map[string]bool // keys that it gives to maps by its own text
	texts   map[string]bool // all text in quotes
}

// Options are the ways in which templates differ.
type Options struct {
	// Left and Right are the delimiters; "" is {{ and }}.
	Left, Right string
	// Lenient writes "<no value>" for a key that is not there, as
	// error_on_missing_key = false does for Vault Agent.
	Lenient bool
	// Denied are functions that the template may not call.
	Denied []string
	// Include returns the text of a template that another one names, and the
	// name that it has in errors; ok is false where there is none. It may be nil.
	Include func(name string) (text, path string, ok bool)
}

// Input is all that an execution may look at.
type Input struct {
	// Secret returns the answer to a request as the template wrote it, or nil
	// when it is not known yet.
	Secret func(Request) *Secret
	// Env returns the value of an environment variable.
	Env func(name string) (value string, set bool)
	// File returns the content of a file; nil refuses all.
	File func(path string) (string, error)
	// Now is what "timestamp" tells.
	Now time.Time
	// Tenant and Service are what the functions of that name give; "" for none.
	Tenant, Service string
	// Key is what {{ each.key }} gives; "" for none.
	Key string
	// Dialect is what the function "dotenv" writes where nothing else is said.
	Dialect dotenv.Dialect
	// Dot is the secret whose pairs are the template's dot; nil for none.
	Dot *Secret
}

// Result is what an execution came to. When Missing is not empty there is no
// Content: the template has to run again once those secrets are known.
type Result struct {
	Content []byte
	// Files are those that the template wrote by "writeToFile".
	Files []SideFile
	// Uses are what the template asked for, in the order of asking.
	Uses []Request
	// Missing are those of Uses that are not known yet.
	Missing []Request
	// Reads are the files that the template has read, in the order of reading.
	Reads []string
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

// Parse reads a template in the language of text/template. The name stands in
// errors: the path of the file, as a rule. Errors are of type [*ParseError].
func Parse(name, text string, o Options) (*Template, error) {
	trees, err := parseTrees(name, text, o)
	if err != nil {
		return nil, err
	}
	missing := "missingkey=error"
	if o.Lenient {
		missing = "missingkey=default"
	}
	t := &Template{name: name, lenient: o.Lenient, tmpl: template.New(name).Option(missing), origins: map[string]origin{}, named: map[string]bool{}, texts: map[string]bool{}}
	used := template.FuncMap{}
	for key, tree := range trees {
		if err := t.check(tree, trees, o.Denied, used); err != nil {
			return nil, err
		}
		t.walk(tree, tree.Root, rootScope(key != name))
		visit(tree.Root, t.noteNamed)
		guard(tree.Root)
	}
	used[presentFunc], used[rangeFunc] = present, rangeable
	if o.Lenient {
		used[presentFunc] = printable
		if used["index"] != nil {
			used["index"] = lenientIndex
		}
	}
	t.tmpl.Funcs(used)
	for key, tree := range trees {
		if _, err := t.tmpl.AddParseTree(key, tree); err != nil {
			return nil, parseError(name, text, err)
		}
	}
	return t, nil
}

// Execute runs the template. It never waits: a secret that is not known yet is
// reported in [Result.Missing]. Errors show the template's text, never a value;
// a key that is not there gives a [*MissingKeyError].
func (t *Template) Execute(in Input) (Result, error) {
	tmpl, err := t.tmpl.Clone()
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", t.name, err)
	}
	e := &execution{in: in, tmpl: tmpl, asked: map[Request]bool{}, named: t.named, texts: t.texts}
	var dot any
	if in.Dot != nil {
		dot = copyOf(in.Dot.pairs())
	}
	var out output
	err = safely(tmpl.Funcs(e.functions()), &out, dot)
	switch res := e.result; {
	case len(res.Missing) > 0:
		res.Files = nil
		return res, nil
	case err != nil:
		return Result{Uses: res.Uses, Reads: res.Reads}, t.execError(err, in, res.Uses)
	}
	e.result.Content = out.Bytes()
	return e.result, nil
}

// safely turns a panic of text/template itself, as of one of its libraries, into an error:
// the panic's text, and a stack trace, may hold a value.
func safely(tmpl *template.Template, out *output, dot any) (err error) {
	defer func() {
		if recover() != nil {
			err = problem("the template cannot be executed with such values")
		}
	}()
	return tmpl.Execute(out, dot)
}

// guard makes every action that writes something end in [presentFunc], as
// html/template does with its escapers, and every range in [rangeFunc].
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
			pipeInto(n.Pipe, presentFunc)
		}
	case *parse.IfNode:
		guard(n.List)
		guard(n.ElseList)
	case *parse.RangeNode:
		pipeInto(n.Pipe, rangeFunc)
		guard(n.List)
		guard(n.ElseList)
	case *parse.WithNode:
		guard(n.List)
		guard(n.ElseList)
	}
}

func pipeInto(pipe *parse.PipeNode, function string) {
	last := pipe.Cmds[len(pipe.Cmds)-1]
	ident := parse.NewIdentifier(function).SetPos(last.Pos)
	pipe.Cmds = append(pipe.Cmds, &parse.CommandNode{NodeType: parse.NodeCommand, Pos: last.Pos, Args: []parse.Node{ident}})
}

// lazily compiles a pattern when it is first used: most runs have no error to take apart,
// and it would make every start longer.
func lazily(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

// execLocation finds place and problem in text/template's message, which has
// no structured form: "template: NAME:LINE:COL: executing NAME at <…>: …". All before the
// problem is text of the template.
var execLocation = lazily(`(?s)^template: (.*?:\d+:\d+): executing .*? at <(.*?)>: (.*)$`)

// execError returns what an error may show, and its hint.
func (t *Template) execError(err error, in Input, uses []Request) error {
	shown := t.shownError(err, in, uses)
	if hint := HintOf(err); hint != "" {
		return &HintedError{shown, hint}
	}
	return shown
}

func (t *Template) shownError(err error, in Input, uses []Request) error {
	known := t.names(in, uses)
	m := execLocation().FindStringSubmatch(innermost(err).Error())
	if m == nil {
		return fmt.Errorf("%s: %s", t.name, cmp.Or(reasonOf(err, known.has), "the template cannot be executed"))
	}
	where, expr, problem := oneBased(m[1]), m[2], m[3]
	from := t.origins[m[1]]
	if expr == "index" || expr == presentFunc || expr == rangeFunc || strings.HasPrefix(expr, `"`) {
		expr = from.expr
	}
	missing := &MissingKeyError{Where: where, Expr: expr, Key: from.key}
	switch field := noEntry().FindStringSubmatch(problem); {
	case field != nil:
		missing.Key = field[1]
	case errors.Is(err, errNoKey):
	case errors.Is(err, errNoValue):
		missing.Null = true
	default:
		return fmt.Errorf("%s: %s (at {{%s}})", where, withoutValues(problem, reasonOf(err, known.has)), expr)
	}
	missing.blame(from.secret, in, uses)
	return missing
}

// innermost is the error of the template that executeTemplate has executed last.
func innermost(err error) error {
	last := err
	for ; err != nil; err = errors.Unwrap(err) {
		if _, ok := err.(template.ExecError); ok {
			last = err
		}
	}
	return last
}

// names are those that errors may show.
func (t *Template) names(in Input, uses []Request) names {
	known := names{}
	for text := range t.texts {
		known.add(text)
	}
	if in.Dot != nil {
		known.addKeys("", in.Dot.pairs())
	}
	for _, r := range uses {
		if s := in.Secret(r); s != nil {
			known.addKeys("", s.pairs())
		}
	}
	return known
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
