package render

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"text/template/parse"
)

// parseTrees parses a template, and the templates that it names and that
// Include knows. What functions there are is looked at later, by
// [Template.check], which knows their places.
func parseTrees(name, text string, o Options) (map[string]*parse.Tree, error) {
	trees := map[string]*parse.Tree{}
	if err := parseInto(trees, name, name, text, o); err != nil {
		return nil, err
	}
	for tried := map[string]bool{}; o.Include != nil; {
		wanted := wantedBy(trees, tried)
		if len(wanted) == 0 {
			break
		}
		for _, other := range wanted {
			tried[other] = true
			text, path, ok := o.Include(other)
			if !ok {
				continue
			}
			if err := parseInto(trees, other, path, text, o); err != nil {
				return nil, err
			}
		}
	}
	return trees, nil
}

func parseInto(trees map[string]*parse.Tree, name, path, text string, o Options) error {
	tree := parse.New(name)
	tree.Mode = parse.SkipFuncCheck
	fresh := map[string]*parse.Tree{}
	if _, err := tree.Parse(text, o.Left, o.Right, fresh); err != nil {
		return parseError(path, text, err)
	}
	for key, each := range fresh {
		each.ParseName = path
		if _, taken := trees[key]; !taken {
			trees[key] = each
		}
	}
	if _, there := trees[name]; !there { // It holds nothing but definitions.
		tree.ParseName = path
		trees[name] = tree
	}
	return nil
}

// wantedBy are the names of templates that are executed, but not there.
func wantedBy(trees map[string]*parse.Tree, tried map[string]bool) []string {
	var wanted []string
	want := func(name string) {
		if trees[name] == nil && !tried[name] {
			wanted = append(wanted, name)
		}
	}
	for _, tree := range trees {
		visit(tree.Root, func(n parse.Node) {
			switch n := n.(type) {
			case *parse.TemplateNode:
				want(n.Name)
			case *parse.CommandNode:
				if name, ok := literalCall(n, "executeTemplate"); ok {
					want(name)
				}
			}
		})
	}
	return wanted
}

// literalCall returns the first argument of a call, where it is a plain text.
func literalCall(n *parse.CommandNode, function string) (string, bool) {
	if len(n.Args) < 2 || n.Args[0].String() != function {
		return "", false
	}
	text, ok := n.Args[1].(*parse.StringNode)
	if !ok {
		return "", false
	}
	return text.Text, true
}

// visit calls f for a node and all that it holds.
func visit(node parse.Node, f func(parse.Node)) {
	each := func(nodes ...parse.Node) {
		for _, n := range nodes {
			visit(n, f)
		}
	}
	switch n := node.(type) {
	case *parse.ListNode:
		if n != nil {
			each(n.Nodes...)
		}
		return
	case *parse.PipeNode:
		if n == nil {
			return
		}
		for _, cmd := range n.Cmds {
			each(cmd)
		}
	case *parse.CommandNode:
		each(n.Args...)
	case *parse.ChainNode:
		each(n.Node)
	case *parse.ActionNode:
		each(n.Pipe)
	case *parse.IfNode:
		each(n.Pipe, n.List, n.ElseList)
	case *parse.RangeNode:
		each(n.Pipe, n.List, n.ElseList)
	case *parse.WithNode:
		each(n.Pipe, n.List, n.ElseList)
	case *parse.TemplateNode:
		each(n.Pipe)
	}
	f(node)
}

// check finds the functions that a tree calls, and fails on one that is denied or not
// there, and on a template that is not there.
func (t *Template) check(tree *parse.Tree, trees map[string]*parse.Tree, denied []string, used template.FuncMap) error {
	var first *ParseError
	fail := func(n parse.Node, problem string) {
		e := errorAt(tree, n, problem)
		if first == nil || e.Line < first.Line || e.Line == first.Line && e.Column < first.Column {
			first = e
		}
	}
	visit(tree.Root, func(n parse.Node) {
		if include, ok := n.(*parse.TemplateNode); ok && trees[include.Name] == nil {
			fail(n, fmt.Sprintf("there is no template %q; one of the same folder is included by the name of its file%s", include.Name, didYouMean(include.Name, sortedKeys(trees))))
		}
		if ident, ok := n.(*parse.IdentifierNode); ok {
			if slices.Contains(denied, ident.Ident) {
				fail(n, fmt.Sprintf("function %q is denied by function_denylist", ident.Ident))
				return
			}
			f, known := functionNamed(ident.Ident)
			switch {
			case known:
				used[ident.Ident] = f
			case !builtins[ident.Ident]:
				fail(n, unknown(ident.Ident))
			}
		}
	})
	if first != nil {
		return first
	}
	return nil
}

func unknown(name string) string {
	if why := unsupported(name); why != "" {
		return why
	}
	problem := fmt.Sprintf("function %q not defined", name)
	if near := Nearest(name, functionNames()); near != "" {
		problem += fmt.Sprintf("; did you mean %q?", near)
	}
	return problem
}

func errorAt(tree *parse.Tree, n parse.Node, problem string) *ParseError {
	place, _ := tree.ErrorContext(n)
	e := &ParseError{Name: tree.ParseName, Line: 1, Column: 1, Problem: problem}
	if parts := strings.Split(oneBased(place), ":"); len(parts) >= 3 {
		e.Line, _ = strconv.Atoi(parts[len(parts)-2])
		e.Column, _ = strconv.Atoi(parts[len(parts)-1])
	}
	return e
}

var (
	parseLocation = lazily(`(?s)^template: .*?:(\d+): (.*)$`)
	quoted        = lazily(`["<]([^"<>]+)[">]`)
)

func parseError(name, text string, err error) *ParseError {
	e := &ParseError{Name: name, Line: 1, Column: 1, Problem: err.Error()}
	m := parseLocation().FindStringSubmatch(err.Error())
	if m == nil {
		return e
	}
	e.Line, _ = strconv.Atoi(m[1])
	e.Problem = m[2]
	if lines := strings.Split(text, "\n"); e.Line >= 1 && e.Line <= len(lines) {
		e.Column = column(lines[e.Line-1], e.Problem)
	}
	return e
}

// column looks for what the parser complains of, since the parser only knows
// the line: the word it quotes, or else the first action on that line.
func column(line, problem string) int {
	if m := quoted().FindStringSubmatch(problem); m != nil {
		if i := strings.Index(line, m[1]); i >= 0 {
			return i + 1
		}
	}
	return max(strings.Index(line, "{{"), 0) + 1
}
