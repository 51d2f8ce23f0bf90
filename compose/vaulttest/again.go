package vaulttest

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// AgainOnOpenBao runs tests of the calling package once more, in its own test binary,
// with [Server.OpenBao] as the server under test. Each pattern is a regular expression
// that matches names of tests from their beginning; one that matches no test that
// passes is a failure, so that no list goes stale unnoticed. Every test becomes a
// sub-test of the same name and result. Tests that need a server of their own are left
// out, as for any outside server.
func AgainOnOpenBao(t *testing.T, patterns ...string) {
	t.Helper()
	skipOutside(t) // This is the run on OpenBao, or on a server of the user's.
	bao := Shared(t).OpenBao(t)
	args := []string{"-test.v", "-test.count=1", "-test.run=^(" + strings.Join(patterns, "|") + ")"}
	for _, name := range []string{"test.short", "test.parallel"} {
		args = append(args, "-"+name+"="+flag.Lookup(name).Value.String())
	}
	if deadline, limited := t.Deadline(); limited {
		left := time.Until(deadline)
		args = append(args, "-test.timeout="+(left-left/10).String()) // It has to end first, to say what hangs.
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), "DEADDROP_TEST_VAULT_ADDR="+bao.Address, "DEADDROP_TEST_VAULT_TOKEN="+bao.RootToken)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	endWithParent(cmd.SysProcAttr)
	cmd.WaitDelay = 5 * time.Second // for output of what the tests have started
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	failed := cmd.Run()
	results := parseResults(out.String())
	for _, r := range results {
		if r.status == "SKIP" && strings.Contains(r.output, outside) {
			continue // It has its own server, and has run on that.
		}
		t.Run(r.name, func(t *testing.T) {
			switch r.status {
			case "FAIL":
				t.Error("on OpenBao:\n" + r.output)
			case "SKIP":
				t.Skip(r.output)
			}
		})
	}
	for _, pattern := range patterns {
		assert.True(t, anyPassed(results, pattern), "no test that matches %q has passed", pattern)
	}
	if !t.Failed() {
		require.NoError(t, failed, "%s", out.String())
	}
}

// result is that of one test at the top level.
type result struct {
	name, status string
	output       string // of the test and its sub-tests
}

// Lines of go test -v.
var (
	beginsTest = regexp.MustCompile(`^=== (?:RUN|CONT|NAME|PAUSE) +([^/\s]+)`)
	endsTest   = regexp.MustCompile(`^--- (PASS|FAIL|SKIP): (\S+) `)
	isProgress = regexp.MustCompile(`^(=== |\s*--- (PASS|SKIP): )`)
)

// parseResults reads the output of a test binary with -test.v, where lines of tests
// that run at the same time are told apart by the marks before them. A test without an
// end, as after a panic, has failed.
func parseResults(text string) []result {
	output := map[string]string{}
	ended := map[string]bool{}
	var begun []string
	var results []result
	current := ""
	for line := range strings.Lines(text) {
		if m := beginsTest.FindStringSubmatch(line); m != nil {
			current = m[1]
			if _, known := output[current]; !known {
				output[current] = ""
				begun = append(begun, current)
			}
		} else if m := endsTest.FindStringSubmatch(line); m != nil {
			results = append(results, result{name: m[2], status: m[1]})
			current, ended[m[2]] = m[2], true
		}
		if !isProgress.MatchString(line) {
			output[current] += line
		}
	}
	for _, name := range begun {
		if !ended[name] {
			results = append(results, result{name: name, status: "FAIL"})
			output[name] += fmt.Sprintf("%s has not ended\n", name)
		}
	}
	for i := range results {
		results[i].output = output[results[i].name]
	}
	return results
}

func anyPassed(results []result, pattern string) bool {
	name := regexp.MustCompile("^(?:" + pattern + ")")
	for _, r := range results {
		if r.status == "PASS" && name.MatchString(r.name) {
			return true
		}
	}
	return false
}
