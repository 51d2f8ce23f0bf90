package footprint

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// filePages are the kilobytes of files that the process has mapped and looked at.
func filePages(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(status), "RssFile:")
	require.True(t, found)
	kB, err := strconv.Atoi(strings.Fields(rest)[0])
	require.NoError(t, err)
	return kB
}

func TestTrimLetsGoOfTheProgramAndTheProgramGoesOn(t *testing.T) {
	program, err := os.ReadFile("/proc/self/exe")
	require.NoError(t, err)
	before := filePages(t)
	Trim()
	after := filePages(t)
	assert.Less(t, after, before)
	again, err := os.ReadFile("/proc/self/exe")
	require.NoError(t, err)
	assert.Equal(t, len(program), len(again))
}

func TestOnlyWhatCannotBeWrittenToIsLetGo(t *testing.T) {
	for name, tc := range map[string]struct {
		line string
		ok   bool
	}{
		"code":               {"00400000-00a1b000 r-xp 00000000 00:1b 12      /bin/dead drop", true},
		"constants":          {"00a1b000-00b00000 r--p 0061b000 00:1b 12      /bin/dead drop", true},
		"variables":          {"00b00000-00b40000 rw-p 00700000 00:1b 12      /bin/dead drop", false},
		"another file":       {"7f0000000000-7f0000001000 r--p 00000000 00:1b 13 /bin/dead", false},
		"memory":             {"c000000000-c000400000 rw-p 00000000 00:00 0", false},
		"nothing":            {"", false},
		"a strange address":  {"x-y r-xp 00000000 00:1b 12      /bin/dead drop", false},
		"a replaced program": {"00400000-00a1b000 r-xp 00000000 00:1b 12      /bin/dead drop (deleted)", false},
	} {
		_, _, ok := readOnly(tc.line, "/bin/dead drop")
		assert.Equal(t, tc.ok, ok, name)
	}
}

func TestWhatWasFilledInAsTheProgramStartedIsKept(t *testing.T) {
	const smaps = `00400000-00a1b000 r-xp 00000000 00:1b 12      /bin/deaddrop
Rss:                4096 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd ex mr mw me
00a1b000-00b00000 r--p 0061b000 00:1b 12      /bin/deaddrop
Rss:                 900 kB
Anonymous:             4 kB
Swap:                  0 kB
00b00000-00b08000 r--p 00700000 00:1b 12      /bin/deaddrop
Rss:                   0 kB
Anonymous:             0 kB
Swap:                 32 kB
00b08000-00b10000 r--p 00708000 00:1b 12      /bin/deaddrop
Rss:                  32 kB
Anonymous:             0 kB
Swap:                  0 kB
00b10000-00b40000 rw-p 00710000 00:1b 12      /bin/deaddrop
Rss:                  64 kB
Anonymous:             0 kB
Swap:                  0 kB
`
	assert.Equal(t, []mapping{{0x400000, 0xa1b000}, {0xb08000, 0xb10000}}, untouched(strings.NewReader(smaps), "/bin/deaddrop"))
}

// Distributions build their programs so. This one is small, so that it is built quickly.
func TestAProgramThatIsLoadedAnywhereGoesOn(t *testing.T) {
	program := filepath.Join(t.TempDir(), "trim")
	if out, err := exec.Command("go", "build", "-buildmode=pie", "-o", program, "./testdata/trim").CombinedOutput(); err != nil {
		t.Skipf("such a program cannot be built here: %v: %s", err, out)
	}
	out, err := exec.Command(program).CombinedOutput()
	require.NoError(t, err, "%s", out)
	var before, after, size, sizeAfter int
	_, err = fmt.Sscan(string(out), &before, &size, &after, &sizeAfter)
	require.NoError(t, err, "%s", out)
	assert.Less(t, after, before)
	assert.Equal(t, size, sizeAfter)
}
