package agent_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	module = "github.com/smarteros/deaddrop"
	root   = ".." // of the module
)

// importRule forbids imports. Packages of the module go by their folders, "agent/..." is
// agent and all below it.
type importRule struct {
	// Of are the packages that the rule is for, but for those in But.
	Of, But []string
	// Not are the packages that they must not import, themselves or through other packages
	// of the module, but for those in May.
	Not, May []string
	// Together says that each of Not may be imported, but not all of them by one package
	// itself.
	Together bool
	Reason   string
}

// stages move a secret into a file and to a service; running are the packages that use them.
var (
	stages  = []string{"agent/internal/output", "agent/internal/publish", "agent/internal/reload"}
	running = []string{"agent", "agent/doctor", "agent/status", "agent/supervise", "agent/internal/reconfigure"}
)

var importRules = []importRule{
	{
		Of: []string{"render/..."}, Not: []string{"agent/...", "cmd/...", "net", "net/http"},
		Reason: "rendering and writing files depend on their arguments alone, so that any program can use and test them",
	},
	{
		Of: []string{"agent/config"}, Not: []string{"agent/..."},
		May:    []string{"agent/config", "agent/tenant", "agent/internal/signals", "agent/internal/textfile"},
		Reason: "a configuration is data: what runs is made of it, not the other way round",
	},
	{
		Of: []string{"agent/session"}, Not: append([]string{"agent/watch", "agent/internal/journal", "agent/internal/readings"}, slices.Concat(stages, running)...),
		Reason: "a session is a working client of Vault: it knows no readings",
	},
	{
		Of: []string{"agent/watch"}, Not: append([]string{"agent/internal/journal", "agent/internal/readings", "agent/internal/tenants"}, slices.Concat(stages, running)...),
		Reason: "the watcher hands readings on, and does not know what is made of them",
	},
	{
		Of: []string{"agent/internal/output"}, Not: append([]string{"agent/internal/publish", "agent/internal/reload", "agent/internal/journal", "agent/internal/tenants"}, running...),
		Reason: "an output is rendered here and written elsewhere",
	},
	{
		Of: []string{"agent/internal/publish"}, Not: append([]string{"agent/internal/reload", "agent/internal/journal", "agent/internal/tenants"}, running...),
		Reason: "publishing ends with files: later stages decide on reloads and journals",
	},
	{
		Of: []string{"agent/internal/reload"}, Not: append([]string{"agent/internal/output", "agent/internal/publish", "agent/internal/journal", "agent/internal/readings", "agent/internal/tenants", "agent/watch", "agent/session"}, running...),
		Reason: "a reload needs paths and targets, and no secret",
	},
	{
		Of: []string{"agent/internal/journal", "agent/internal/tenants", "agent/internal/readings"}, Not: slices.Concat(stages, running),
		Reason: "they keep facts, and the agent acts on them",
	},
	{
		Of: []string{"agent/internal/tenants"}, Not: []string{"os", "io/fs", "path/filepath", "render/...", "agent/config", "agent/session", "agent/watch", "agent/internal/..."},
		May:    []string{"agent/internal/tenants"},
		Reason: "which tenants there are is a question of lists and times, and can be tested without files and Vault",
	},
	{
		Of: []string{"agent/internal/reconfigure"}, Not: append([]string{"agent", "agent/session", "agent/watch", "agent/status", "agent/doctor", "agent/supervise"}, stages...),
		Reason: "it says that the configuration has changed, and the agent applies it",
	},
	{
		Of: []string{"agent/status"}, Not: append([]string{"agent", "agent/doctor", "agent/watch", "agent/supervise", "agent/internal/journal", "agent/internal/readings", "agent/internal/tenants", "agent/internal/reconfigure"}, stages...),
		Reason: "the status shows reports that the agent hands over, never live state",
	},
	{
		Of: []string{"agent/doctor"}, Not: []string{"agent", "agent/supervise", "agent/internal/readings", "agent/internal/tenants", "agent/internal/reconfigure"},
		Reason: "a diagnosis uses the parts, and no running agent",
	},
	{
		Of: []string{"..."}, But: []string{"agent", "agent/doctor"}, Not: stages, Together: true,
		Reason: "only package agent passes values from one stage to the next; doctor asks each stage a question and passes nothing on",
	},
	{
		Of: []string{"agent/..."}, Not: []string{"cmd/..."},
		Reason: "commands are thin: flags and exit codes",
	},
	{
		Of: []string{"cmd/tenantctl/..."}, Not: []string{"agent", "agent/watch", "agent/status", "agent/doctor", "agent/supervise"},
		Reason: "the operator's program shares the login and the layout of tenants with the agent, and does not run one",
	},
	{
		Of: []string{"agent/...", "cmd/...", "render/...", "templates"}, But: []string{"agent/bench", "agent/bench/floor"},
		Not:    []string{"testing", "agent/servicetest", "compose/dockertest", "compose/leaktest", "compose/vaulttest"},
		Reason: "what tests use is in no program",
	},
}

// imports are the imports of each package of the module, by folder.
type imports map[string][]string

// matches reports whether a package is one of those that patterns name.
func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		below, isTree := strings.CutSuffix(pattern, "...")
		return pattern == name || isTree && strings.HasPrefix(name+"/", below)
	})
}

// chainsOf returns how a package comes to each of its imports, by itself or through packages
// of the module.
func (all imports) chainsOf(name string) map[string]string {
	chains := map[string]string{}
	for todo := []string{name}; len(todo) > 0; todo = todo[1:] {
		for _, imported := range all[todo[0]] {
			if _, seen := chains[imported]; seen || imported == name {
				continue
			}
			chains[imported] = imported
			if todo[0] != name {
				chains[imported] = imported + " through " + chains[todo[0]]
			}
			todo = append(todo, imported)
		}
	}
	return chains
}

// violations returns how packages break a rule, and how the rule is about nothing.
func (all imports) violations(rule importRule) []string {
	var found []string
	known := slices.Collect(maps.Keys(all))
	for _, list := range all {
		known = append(known, list...)
	}
	for _, pattern := range slices.Concat(rule.Of, rule.But, rule.Not, rule.May) {
		if !slices.ContainsFunc(known, func(name string) bool { return matches([]string{pattern}, name) }) {
			found = append(found, "no package is "+pattern)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if !matches(rule.Of, name) || matches(rule.But, name) {
			continue
		}
		if rule.Together {
			if !slices.ContainsFunc(rule.Not, func(each string) bool { return !slices.Contains(all[name], each) }) {
				found = append(found, name+" imports all of "+strings.Join(rule.Not, ", "))
			}
			continue
		}
		chains := all.chainsOf(name)
		for _, imported := range slices.Sorted(maps.Keys(chains)) {
			if matches(rule.Not, imported) && !matches(rule.May, imported) {
				found = append(found, name+" imports "+chains[imported])
			}
		}
	}
	return found
}

// source is what the tests read of the module.
type source struct {
	imports imports
	// names are the functions, methods and types, such as "Queue.Add" and "reload.Queue", and
	// the tests.
	names map[string]bool
}

var (
	aFunction = regexp.MustCompile(`^func (?:\((?:\w+ )?\*?(\w+)(?:\[[^\]]*\])?\) )?(\w+)`)
	aType     = regexp.MustCompile(`^type (\w+)`)
)

// readSource reads the files of the module, for all systems; other modules below it are left
// out. A package that has only tests has no imports.
var readSource = sync.OnceValues(func() (source, error) {
	s := source{imports: imports{}, names: map[string]bool{}}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			_, err := os.Stat(filepath.Join(path, "go.mod"))
			isOther := err == nil && path != root
			if isOther || path != root && strings.HasPrefix(e.Name(), ".") || e.Name() == "testdata" || path == filepath.Join(root, "bin") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		return s.add(path)
	})
	return s, err
})

func sourceOf(t *testing.T) source {
	t.Helper()
	s, err := readSource()
	require.NoError(t, err)
	return s
}

func (s source) add(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	folder, err := filepath.Rel(root, filepath.Dir(path))
	if err != nil {
		return err
	}
	name := filepath.ToSlash(folder)
	for line := range strings.Lines(string(content)) {
		if strings.HasPrefix(line, "func ") || strings.HasPrefix(line, "type ") {
			s.declare(line, filepath.Base(folder))
		}
	}
	if s.imports[name] == nil {
		s.imports[name] = []string{}
	}
	if strings.HasSuffix(path, "_test.go") {
		return nil
	}
	file, err := parser.ParseFile(token.NewFileSet(), path, content, parser.ImportsOnly)
	if err != nil {
		return err
	}
	for _, each := range file.Imports {
		imported, err := strconv.Unquote(each.Path.Value)
		if err != nil {
			return err
		}
		imported = strings.TrimPrefix(imported, module+"/")
		if !slices.Contains(s.imports[name], imported) {
			s.imports[name] = append(s.imports[name], imported)
		}
	}
	return nil
}

// declare takes in the first line of a declaration.
func (s source) declare(line, packageName string) {
	if match := aType.FindStringSubmatch(line); match != nil {
		s.names[packageName+"."+match[1]] = true
		return
	}
	match := aFunction.FindStringSubmatch(line)
	switch {
	case match == nil:
	case match[1] != "":
		s.names[match[1]+"."+match[2]] = true
	default:
		s.names[match[2]], s.names[packageName+"."+match[2]] = true, true
	}
}

func TestArchitecture_PackagesImportOnlyWhatTheyMay(t *testing.T) {
	all := sourceOf(t).imports
	require.Greater(t, len(all), 50)
	for _, rule := range importRules {
		assert.NotEmpty(t, rule.Reason)
		for _, violation := range all.violations(rule) {
			assert.Fail(t, violation, rule.Reason)
		}
	}
}

func TestImportRule_FindsEachViolation(t *testing.T) {
	all := imports{"a": {"b", "os"}, "b": {"c", "net/http"}, "c": {"b"}, "d": {"a", "b", "c"}, "x/y": {"c"}}
	for name, tc := range map[string]struct {
		rule importRule
		want []string
	}{
		"an import":                       {importRule{Of: []string{"a"}, Not: []string{"os"}}, []string{"a imports os"}},
		"an import of an import":          {importRule{Of: []string{"a"}, Not: []string{"c"}}, []string{"a imports c through b"}},
		"a standard package of an import": {importRule{Of: []string{"x/..."}, Not: []string{"net/http"}}, []string{"x/y imports net/http through b through c"}},
		"all packages":                    {importRule{Of: []string{"..."}, But: []string{"a", "d"}, Not: []string{"c"}}, []string{"b imports c", "x/y imports c"}},
		"a package that may be imported":  {importRule{Of: []string{"b"}, Not: []string{"..."}, May: []string{"c"}}, []string{"b imports net/http"}},
		"imports together":                {importRule{Of: []string{"..."}, Not: []string{"b", "c"}, Together: true}, []string{"d imports all of b, c"}},
		"a package that is no more":       {importRule{Of: []string{"a"}, Not: []string{"e"}}, []string{"no package is e"}},
		"the tree of a package":           {importRule{Of: []string{"x"}, Not: []string{"b"}}, []string{"no package is x"}},
		"no violation":                    {importRule{Of: []string{"c"}, Not: []string{"a", "os"}}, nil},
	} {
		assert.Equal(t, tc.want, all.violations(tc.rule), name)
	}
}

// quoted returns the texts in backticks of a document, but for blocks of code.
func quoted(document string) []string {
	var all []string
	for i, block := range strings.Split(document, "```") {
		if i%2 == 1 {
			continue
		}
		for _, match := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(block, -1) {
			all = append(all, match[1])
		}
	}
	return all
}

var (
	aName = regexp.MustCompile(`^[A-Za-z]\w*\.[A-Za-z]\w*$`)
	aTest = regexp.MustCompile(`^(Test|Fuzz)[A-Z]\w*$`)
	aPath = regexp.MustCompile(`/|\.(go|md)$`)
)

// mistakes returns what a document names in backticks and is not there: paths, and functions
// and types with their receiver or package.
func (s source) mistakes(document string) []string {
	var found []string
	for _, text := range quoted(document) {
		switch {
		case aPath.MatchString(text):
			if _, err := os.Stat(filepath.Join(root, strings.TrimSuffix(text, "/..."))); err != nil {
				found = append(found, "there is no "+text)
			}
		case aName.MatchString(text), aTest.MatchString(text):
			if !s.names[text] {
				found = append(found, fmt.Sprintf("nothing is declared as %s", text))
			}
		}
	}
	return found
}

func TestArchitectureDocument_NamesEveryPackageAndOnlyWhatExists(t *testing.T) {
	s := sourceOf(t)
	document, err := os.ReadFile(filepath.Join(root, "ARCHITECTURE.md"))
	require.NoError(t, err)
	assert.Empty(t, s.mistakes(string(document)))
	named := quoted(string(document))
	for _, name := range slices.Sorted(maps.Keys(s.imports)) {
		assert.True(t, slices.Contains(named, name), "ARCHITECTURE.md does not name package %s", name)
	}
}

func TestArchitectureDocument_MistakesAreFound(t *testing.T) {
	s := sourceOf(t)
	assert.Empty(t, s.mistakes("`agent/loop.go`, `render/...`, `loop.Run`, `reload.New`, `reload.Queue`, `Cache.Learn`, `TestMain`, `SIGHUP`\n```\n`agent/none.go`\n```\n"))
	assert.Equal(t, []string{"there is no agent/none.go", "there is no NONE.md", "nothing is declared as loop.None", "nothing is declared as TestNone"},
		s.mistakes("`agent/none.go` and `NONE.md`, `loop.None`, `TestNone`"))
}
