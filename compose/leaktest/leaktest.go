// Package leaktest finds the secrets of tests where none may be. Secrets of tests are
// random markers, which begin alike: see vaulttest.Marker. So whatever a test looks
// at, no value of any test may be in it.
package leaktest

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/smarteros/deaddrop/render/safefile"
)

// marker is what vaulttest.Marker makes. That all of it is asked for keeps programs
// that hold the beginning from being taken for leaks.
var marker = regexp.MustCompile(`m4rker-[A-Z2-7]{26}`)

// begins are the first characters of a marker as they are, in hexadecimal, and in
// base64, where they depend on how many bytes stand before.
func begins() []string {
	const first = "m4rker-"
	all := []string{hex.EncodeToString([]byte(first)), strings.ToUpper(hex.EncodeToString([]byte(first)))}
	for before := range 3 {
		encoded := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("\x00", before) + first))
		skipped := []int{0, 2, 3}[before] // characters that hold bits of what stands before
		all = append(all, encoded[skipped:len(encoded)-1])
	}
	return all
}

// Find returns the first secret in a text, as it is or encoded, or "".
func Find(text string) string {
	if found := marker.FindString(text); found != "" {
		return found
	}
	for _, each := range begins() {
		if at := strings.Index(text, each); at >= 0 {
			return text[at:min(len(text), at+40)]
		}
	}
	return ""
}

// Output fails the test where a text holds a secret, or one of more that are no
// markers. The text is named by what.
func Output(t testing.TB, what, text string, more ...string) {
	t.Helper()
	if found := Find(text); found != "" {
		assert.Fail(t, "a secret has leaked", "%s holds %s", what, found)
	}
	for _, each := range more {
		if each != "" && strings.Contains(text, each) {
			assert.Fail(t, "a secret has leaked", "%s holds %s", what, each)
		}
	}
}

// Command fails the test at its end where a program has said a secret, or one of more
// that are no markers, to a buffer (what can be asked for its text).
func Command(t testing.TB, cmd *exec.Cmd, more ...string) {
	t.Helper()
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			return // It was not started, or may be writing still.
		}
		for _, to := range []io.Writer{cmd.Stdout, cmd.Stderr} {
			if text, is := to.(fmt.Stringer); is {
				Output(t, "the output of "+strings.Join(cmd.Args[1:], " "), text.String(), more...)
			}
		}
	})
}

// Process fails the test where the process list shows a secret in the arguments or
// the environment of a process.
func Process(t testing.TB, pid int, more ...string) {
	t.Helper()
	for _, name := range []string{"cmdline", "environ", "comm"} {
		path := fmt.Sprintf("/proc/%d/%s", pid, name)
		content, err := os.ReadFile(path)
		if err == nil { // Else it has ended, or may not be looked into.
			Output(t, path, string(content), more...)
		}
	}
}

// Leftovers fails the test where a file that the agent keeps for itself holds a
// secret: a temporary one, a journal, or a log.
func Leftovers(t testing.TB, dir string) {
	t.Helper()
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() || !isOwn(entry.Name()) {
			return nil
		}
		if content, err := safefile.Read(path, 64<<20); err == nil { // A test may leave a giant.
			Output(t, path, string(content))
		}
		return nil
	})
}

// journals are the names of files in a state directory.
var journals = regexp.MustCompile(`-[0-9a-f]{24}\.json$`)

func isOwn(name string) bool {
	return journals.MatchString(name) || strings.HasPrefix(name, ".deaddrop-") || strings.HasPrefix(name, ".") && strings.HasSuffix(name, ".deaddrop") ||
		filepath.Ext(name) == ".log" || filepath.Ext(name) == ".pid"
}
