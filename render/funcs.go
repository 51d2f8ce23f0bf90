package render

import (
	"fmt"
	"maps"
	"strings"
	"sync"
	"text/template"
)

// errNoValue and errNoKey are what a template's output functions fail with;
// [Template.Execute] turns them into a [MissingKeyError].
const (
	errNoValue problem = "there is no value to write"
	errNoKey   problem = "there is no such key"
)

// helpers are the functions that need nothing but their arguments. Those of
// [execution.functions] are bound anew for each execution.
var helpers = sync.OnceValue(func() template.FuncMap {
	all := template.FuncMap{presentFunc: present}
	for _, some := range []template.FuncMap{replaced(), texts(), numbers(), lists(), codecs(), sprigs()} {
		maps.Copy(all, some)
	}
	return all
})

// functionNamed returns a function that templates may call.
func functionNamed(name string) (any, bool) {
	if f, ok := unbound()[name]; ok {
		return f, true
	}
	f, ok := helpers()[name]
	return f, ok
}

// functionNames are all of them but those of sprig, for suggestions.
func functionNames() []string {
	var names []string
	for name := range maps.Keys(helpers()) {
		if name != presentFunc && !strings.HasPrefix(name, sprigPrefix) {
			names = append(names, name)
		}
	}
	for name := range unbound() {
		names = append(names, name)
	}
	for name := range builtins {
		names = append(names, name)
	}
	return names
}

// builtins are those functions of text/template that are not [replaced].
var builtins = map[string]bool{"and": true, "break": true, "call": true, "continue": true, "len": true, "not": true, "or": true}

// unsupported tells why a function that other agents have is not here.
func unsupported(name string) string {
	switch name {
	case "caLeaf", "caRoots", "connect", "datacenters", "exportedServices", "key", "keyExists", "keyOrDefault", "ls", "node", "nodes",
		"partitions", "peerings", "safeLs", "safeTree", "services", "tree", "byMeta", "byTag", "byPort":
		return fmt.Sprintf("function %q reads Consul, which is not supported here; only Vault is", name)
	case "nomadServices", "nomadService", "nomadVarList", "nomadVarListSafe", "nomadVar", "nomadVarExists":
		return fmt.Sprintf("function %q reads Nomad, which is not supported here; only Vault is", name)
	case "plugin":
		return `function "plugin" runs a program for each render, which is not supported here`
	case "sockaddr":
		return `function "sockaddr" is not supported here; hand the address in by the environment, and use env`
	case "spew_dump", "spew_printf", "spew_sdump", "spew_sprintf":
		return fmt.Sprintf("function %q shows secrets for debugging, which is not supported here", name)
	}
	if sprig, ok := strings.CutPrefix(name, sprigPrefix); ok {
		return unsupportedSprig(sprig)
	}
	return ""
}

// presentFunc ends every pipeline that writes something; see [guard].
const presentFunc = "_present"

// present refuses what text/template would write as "<no value>", and has numbers
// written as [numberText].
func present(v any) (any, error) {
	if v == nil {
		return nil, errNoValue
	}
	return printable(v), nil
}
