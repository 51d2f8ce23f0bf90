package render

import (
	"cmp"
	"maps"
	"strings"
	"text/template/parse"
)

// origin tells, for a place in a template, which secret a key there is looked
// up in. text/template only knows the place; users want to know the secret.
type origin struct {
	secret string // path as written, or "" where it is computed
	key    string // last literal key of the expression, or ""
	expr   string // the expression
}

// rootDot stands for the secret that is a template's dot from the start.
const rootDot = "."

// scope is what dot and the variables stand for at one place of a template:
// paths of secrets, or "".
type scope struct {
	dot  string
	vars map[string]string
}

// rootScope is the scope in which a template begins. What dot is inside a
// {{define}} depends on the caller, so nothing is known of it.
func rootScope(defined bool) scope {
	if defined {
		return scope{vars: map[string]string{}}
	}
	return scope{dot: rootDot, vars: map[string]string{"$": rootDot}}
}

func (s scope) inner(dot string) scope {
	return scope{dot: dot, vars: maps.Clone(s.vars)}
}

// walk notes the origin of every key that the tree looks up.
func (t *Template) walk(tree *parse.Tree, node parse.Node, sc scope) {
	switch n := node.(type) {
	case *parse.ListNode:
		if n == nil {
			return
		}
		for _, child := range n.Nodes {
			t.walk(tree, child, sc)
		}
	case *parse.ActionNode:
		t.pipe(tree, n.Pipe, sc)
	case *parse.IfNode:
		t.branch(tree, &n.BranchNode, sc, false)
	case *parse.RangeNode:
		t.branch(tree, &n.BranchNode, sc, true)
	case *parse.WithNode:
		t.branch(tree, &n.BranchNode, sc, true)
	case *parse.TemplateNode:
		if n.Pipe != nil {
			t.pipe(tree, n.Pipe, sc)
		}
	}
}

func (t *Template) branch(tree *parse.Tree, n *parse.BranchNode, sc scope, setsDot bool) {
	body := sc.inner(sc.dot)
	from := t.pipe(tree, n.Pipe, body)
	if setsDot {
		body.dot = from
	}
	t.walk(tree, n.List, body)
	t.walk(tree, n.ElseList, sc.inner(sc.dot))
}

// pipe notes all lookups of a pipeline and returns the secret that its value
// comes from, or "".
func (t *Template) pipe(tree *parse.Tree, pipe *parse.PipeNode, sc scope) string {
	var from string
	for _, cmd := range pipe.Cmds {
		if found := t.command(tree, cmd, sc); found != "" {
			from = found
		}
	}
	// A pipeline that writes nothing fails at its end, in [present].
	last := pipe.Cmds[len(pipe.Cmds)-1]
	t.note(tree, last, origin{secret: from, key: lastKey(last), expr: pipe.String()})
	for _, v := range pipe.Decl {
		sc.vars[v.Ident[0]] = from
	}
	return from
}

func (t *Template) command(tree *parse.Tree, cmd *parse.CommandNode, sc scope) string {
	if name := cmd.Args[0].String(); len(cmd.Args) > 1 && (name == "secret" || name == "pkiCert") {
		if path, ok := cmd.Args[1].(*parse.StringNode); ok {
			return path.Text
		}
	}
	var from string
	for _, arg := range cmd.Args {
		if found := t.operand(tree, arg, sc); found != "" {
			from = found
		}
	}
	t.note(tree, cmd.Args[0], origin{secret: from, key: lastKey(cmd), expr: cmd.String()})
	return from
}

// operand returns the secret that an argument's value comes from, or "".
func (t *Template) operand(tree *parse.Tree, arg parse.Node, sc scope) string {
	var from string
	switch n := arg.(type) {
	case *parse.DotNode, *parse.FieldNode:
		from = sc.dot
	case *parse.VariableNode:
		from = sc.vars[n.Ident[0]]
	case *parse.ChainNode:
		if pipe, ok := n.Node.(*parse.PipeNode); ok {
			from = t.pipe(tree, pipe, sc)
		}
	case *parse.PipeNode:
		from = t.pipe(tree, n, sc)
	}
	t.note(tree, arg, origin{secret: from})
	return from
}

// note remembers the origin under the place that text/template will report.
// Several nodes may share a place; what the inner one knows stands.
func (t *Template) note(tree *parse.Tree, node parse.Node, o origin) {
	place, _ := tree.ErrorContext(node)
	old := t.origins[place]
	t.origins[place] = origin{
		secret: cmp.Or(old.secret, o.secret),
		key:    cmp.Or(old.key, o.key),
		expr:   cmp.Or(old.expr, o.expr),
	}
}

// lastKey returns the literal that ends a lookup: y in ".x.y", "y" in
// `index .x "y"`.
func lastKey(cmd *parse.CommandNode) string {
	switch n := cmd.Args[len(cmd.Args)-1].(type) {
	case *parse.StringNode:
		return n.Text
	case *parse.FieldNode:
		return n.Ident[len(n.Ident)-1]
	case *parse.ChainNode:
		return n.Field[len(n.Field)-1]
	case *parse.VariableNode:
		return n.Ident[len(n.Ident)-1]
	}
	return ""
}

// namers are the functions that give keys to a map, and where among their arguments those
// keys stand: from the first, every second one or all.
var namers = map[string]struct{ first, every int }{
	"MapSet": {2, 0}, "MapSetX": {2, 0}, "sprig_dict": {1, 2}, "sprig_set": {2, 0}, "sprig_pick": {2, 1},
}

// noteNamed notes the text in quotes, and the keys that the text of a template itself gives to a map, such as PATH
// in {{ sprig_dict "PATH" .path }}: they are its author's choice.
func (t *Template) noteNamed(n parse.Node) {
	if text, ok := n.(*parse.StringNode); ok {
		t.texts[text.Text] = true
	}
	cmd, ok := n.(*parse.CommandNode)
	if !ok {
		return
	}
	function := cmd.Args[0].String()
	namer, ok := namers[function[strings.LastIndexByte(function, '.')+1:]]
	for i := namer.first; ok && i < len(cmd.Args); i += namer.every {
		if text, isText := cmd.Args[i].(*parse.StringNode); isText {
			t.named[text.Text] = true
		}
		if namer.every == 0 {
			break
		}
	}
}
