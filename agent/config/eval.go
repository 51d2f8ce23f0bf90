package config

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// This file is what expressions may use: env("NAME"), the tenant and the service,
// and in blocks with for_each the key of each.

// scope is what expressions may use. Variables that are not set are not in it, so
// that using one is an error.
func scope(tenant, service string) *hcl.EvalContext {
	ctx := &hcl.EvalContext{
		Variables: map[string]cty.Value{},
		Functions: map[string]function.Function{"env": envFunction()},
	}
	for name, value := range map[string]string{"tenant": tenant, "service": service} {
		if value != "" {
			ctx.Variables[name] = cty.StringVal(value)
		}
	}
	return ctx
}

// withKey adds each.key, which is the tenant, too.
func withKey(ctx *hcl.EvalContext, key string) *hcl.EvalContext {
	child := ctx.NewChild()
	// The tenant is that of the key, as in its templates.
	child.Variables = map[string]cty.Value{"each": cty.ObjectVal(map[string]cty.Value{"key": cty.StringVal(key)}), "tenant": cty.StringVal(key)}
	return child
}

// envFunction is env("NAME") or env("NAME", "default"). A variable that is not
// set is an error where there is no default: a path with a hole in it would be
// another path.
func envFunction() function.Function {
	text := func(name string) function.Parameter { return function.Parameter{Name: name, Type: cty.String} }
	otherwise := text("default")
	return function.New(&function.Spec{
		Params: []function.Parameter{text("name")}, VarParam: &otherwise,
		Type: function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			name := args[0].AsString()
			value, set := os.LookupEnv(name)
			switch {
			case slices.Contains(SecretVariables(), name):
				return cty.NilVal, fmt.Errorf("%s is the agent's own, and used by itself: leave the setting out", name)
			case len(args) > 2:
				return cty.NilVal, fmt.Errorf("it takes a name and one default at most")
			case set && value != "":
				return cty.StringVal(value), nil
			case len(args) == 2:
				return args[1], nil
			}
			return cty.NilVal, fmt.Errorf("the environment variable %s is not set, or empty; set it, or write env(%q, \"default\")", name, name)
		},
	})
}

// unknownVariable tells what to do about a name that expressions do not know, or
// "" where the diagnostic is about something else.
func (l *loader) unknownVariable(d *hcl.Diagnostic) string {
	if d.Summary != "Unknown variable" || d.Expression == nil {
		return ""
	}
	for _, traversal := range d.Expression.Variables() {
		switch name := traversal.RootName(); {
		case d.EvalContext != nil && knows(d.EvalContext, name):
		case name == "tenant" || name == "service":
			return fmt.Sprintf("no %s is set: write %s = \"…\" at the top of the file, or set DEADDROP_%s", name, name, strings.ToUpper(name))
		case name == "each":
			return "each.key is for blocks with for_each"
		case d.Subject != nil && l.hint(d) == "": // It is not shown: it may be a secret id without quotes.
			return "there is no variable of this name; if it is a text, put quotes around it"
		default:
			return fmt.Sprintf("there is no variable %q%s; write $${ for the text ${", name, didYouMean(name, []string{"tenant", "service", "each"}))
		}
	}
	return ""
}

func knows(ctx *hcl.EvalContext, name string) bool {
	for ; ctx != nil; ctx = ctx.Parent() {
		if _, ok := ctx.Variables[name]; ok {
			return true
		}
	}
	return false
}
