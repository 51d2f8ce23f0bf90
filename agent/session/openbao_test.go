package session

import (
	"testing"

	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// TestOnOpenBao runs all tests of the package that need no server of their own on
// OpenBao's answers: nearly all are about logins, tokens and secret ids.
func TestOnOpenBao(t *testing.T) {
	t.Parallel()
	vaulttest.AgainOnOpenBao(t, "Test")
}
