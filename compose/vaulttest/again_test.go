package vaulttest

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

const verbose = `=== RUN   TestA
=== PAUSE TestA
=== RUN   TestB
    b_test.go:1: not here
--- SKIP: TestB (0.00s)
=== CONT  TestA
=== RUN   TestA/one
    a_test.go:2: wrong
=== RUN   TestC
=== RUN   TestD
=== NAME  TestA
    a_test.go:3: wrong again
--- FAIL: TestA (0.01s)
    --- FAIL: TestA/one (0.00s)
=== NAME  TestC
--- PASS: TestC (0.00s)
=== NAME  TestD
panic: of D
`

func TestParseResults(t *testing.T) {
	t.Parallel()
	results := parseResults(verbose)
	assert.Equal(t, []result{
		{"TestB", "SKIP", "    b_test.go:1: not here\n"},
		{"TestA", "FAIL", "    a_test.go:2: wrong\n    a_test.go:3: wrong again\n--- FAIL: TestA (0.01s)\n    --- FAIL: TestA/one (0.00s)\n"},
		{"TestC", "PASS", ""},
		{"TestD", "FAIL", "panic: of D\nTestD has not ended\n"},
	}, results)
	assert.True(t, anyPassed(results, "Test[CX]"))
	assert.False(t, anyPassed(results, "TestA"), "it has failed")
	assert.False(t, anyPassed(results, "TestB"), "it was skipped")
	assert.False(t, anyPassed(results, "C"), "names match from their beginning")
}

func TestAgainOnOpenBao(t *testing.T) {
	t.Parallel()
	AgainOnOpenBao(t, "TestUnderTest")
}

func TestUnderTest(t *testing.T) {
	_, err := Shared(t).Client.Auth().Token().LookupSelf()
	assert.NoError(t, err)
}
