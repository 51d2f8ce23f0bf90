package main

import (
	"testing"

	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// TestOnOpenBao runs the tests of doctor, of tokens and of secret ids on OpenBao's
// answers.
func TestOnOpenBao(t *testing.T) {
	t.Parallel()
	vaulttest.AgainOnOpenBao(t,
		"TestDoctor", "TestRenderOnceExitCodes", "TestASinkFollowsTheToken", "TestRunLogsInAgainBeforeTheTokenEnds",
		"TestANewLoginAfterAReloadKnowsTheSecretIDStill", "TestOneDeniedSecretDoesNotStopTheOthers",
		"TestRunSurvivesTheRevocationOfItsToken", "TestRunSurvivesTheRevocationOfItsSecretID",
		"TestRunSurvivesAPolicyThatIsTakenAwayAndGivenBack")
}
