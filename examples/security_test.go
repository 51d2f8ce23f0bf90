package examples_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSecurityDocument_NamesTestsThatExist(t *testing.T) {
	document, err := os.ReadFile("../SECURITY.md")
	require.NoError(t, err)
	named := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9_]+)`").FindAllSubmatch(document, -1)
	require.Greater(t, len(named), 50)
	there := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	require.NoError(t, filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		if d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, f := range function.FindAllSubmatch(content, -1) {
			there[string(f[1])] = true
		}
		return nil
	}))
	for _, name := range named {
		assert.True(t, there[string(name[1])], "%s is in SECURITY.md, and no test", name[1])
	}
}
