package tenant

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestIDsOfThePlatformAreIDs(t *testing.T) {
	for _, id := range append(Services(), "rut-76832940-3", "demo", "A_b.c", "0", strings.Repeat("a", 100)) {
		assert.NoError(t, CheckID(id), id)
	}
}

func TestWhatCouldLeadElsewhereIsNoID(t *testing.T) {
	for _, id := range []string{
		"", ".", "..", "...", "a..b", ".hidden", "a.", "a/b", "/", `a\b`, "*", "+", "a*", "{{x}}", "${x}", "a b", "a\nb", "a\x00b",
		"ä", "\u202ea", "-rf", "%2e%2e", "a:b", "~", strings.Repeat("a", 101),
	} {
		assert.Error(t, CheckID(id), "%q", id)
	}
}

func FuzzAnIDIsOneSegmentOfAPath(f *testing.F) {
	f.Add("demo")
	f.Add("../x")
	f.Fuzz(func(t *testing.T, id string) {
		if CheckID(id) != nil {
			return
		}
		assert.Equal(t, "/base/"+id+"/file", filepath.Join("/base", id, "file"))
		assert.False(t, strings.ContainsAny(id, "/*+{}$%\\\x00\n "))
	})
}
