package render

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// clocks are what package time has that reads the clock or waits.
var clocks = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}

// impurities returns what a source file uses of the clock, of the network and of the agent.
func impurities(t *testing.T, name string, source any) []string {
	t.Helper()
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, source, parser.SkipObjectResolution)
	require.NoError(t, err)
	var found []string
	report := func(at token.Pos, what string) {
		found = append(found, files.Position(at).String()+": "+what)
	}
	timeName := ""
	for _, i := range file.Imports {
		path, err := strconv.Unquote(i.Path.Value)
		require.NoError(t, err)
		isAgents := strings.Contains(path+"/", "/deaddrop/agent/")
		if isAgents || path == "net" || path == "net/http" || path == "time" && i.Name != nil && i.Name.Name == "." {
			report(i.Pos(), "imports "+path)
		}
		if path == "time" {
			timeName = "time"
			if i.Name != nil {
				timeName = i.Name.Name
			}
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if of, ok := s.X.(*ast.Ident); ok && of.Name == timeName && slices.Contains(clocks, s.Sel.Name) {
				report(s.Pos(), "uses time."+s.Sel.Name)
			}
		}
		return true
	})
	return found
}

func TestRender_ReadsNoClockAndUsesNoNetworkAndNoAgent(t *testing.T) {
	seen := 0
	require.NoError(t, filepath.WalkDir(".", func(path string, e fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			seen++
			assert.Empty(t, impurities(t, path, nil))
		}
		return err
	}))
	assert.Greater(t, seen, 30, "files of all packages")
}

func TestImpurities_FindsEach(t *testing.T) {
	assert.Equal(t, []string{
		"x.go:3:8: imports net", "x.go:4:8: imports net/http", "x.go:5:8: imports github.com/smarteros/deaddrop/agent/watch",
		"x.go:8:9: uses time.Now", "x.go:9:12: uses time.Sleep",
	}, impurities(t, "x.go", `package x

import "net"
import "net/http"
import "github.com/smarteros/deaddrop/agent/watch"
import clock "time"
import "net/url"
var a = clock.Now
func b() { clock.Sleep(clock.Second) }
`))
	assert.Equal(t, []string{"x.go:2:8: imports time"}, impurities(t, "x.go", "package x\nimport . \"time\"\n"))
}
