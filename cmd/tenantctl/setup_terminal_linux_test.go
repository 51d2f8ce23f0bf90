package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// onTerminal runs tenantctl on a terminal, and returns what that has shown.
func (s *site) onTerminal(answers [][2]string, args ...string) (string, int) {
	s.t.Helper()
	shown, code := (&operator{t: s.t, env: s.env}).types(answers, args...)
	s.said.WriteString(shown)
	return shown, code
}

func TestAPasswordIsAskedForOnATerminal(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	password := vaulttest.Marker()
	out, code := s.onTerminal([][2]string{{"generated): ", password + "\n"}, {"The same again: ", password + "\n"}}, s.setup("--init", "--keys-file", "keys.json")...)
	require.Zero(t, code, out)
	assert.NoFileExists(t, s.path("credentials/admin.password"))
	out, code = s.onTerminal([][2]string{{"Password of admin: ", password + "\n"}}, "login")
	require.Zero(t, code, out)
	assert.Contains(t, out, "Logged in to "+s.s.Address)

	out, code = s.onTerminal([][2]string{{"generated): ", "changeme123" + "\n"}}, s.setup("--keys-file", "keys.json", "--reset-admin-password")...)
	assert.Equal(t, exitFailed, code)
	assert.Contains(t, out, "has 11 characters; 12 are the least")
	out, code = s.onTerminal([][2]string{{"generated): ", password + "\n"}, {"The same again: ", "something else" + "\n"}}, s.setup("--keys-file", "keys.json", "--reset-admin-password")...)
	assert.Equal(t, exitFailed, code)
	assert.Contains(t, out, "the two passwords differ")
	out, code = s.onTerminal([][2]string{{"generated): ", "" + "\n"}}, s.setup("--keys-file", "keys.json", "--reset-admin-password")...)
	require.Zero(t, code, out)
	s.must("login", "--password-file", "credentials/admin.password")
	s.silent(password)
}

func TestUnsealKeysAreAskedForOneByOne(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	set := s.ready()
	out, code := s.onTerminal([][2]string{{"Unseal key 1 of 2: ", set.Keys[2] + "\n"}, {"Unseal key 2 of 2: ", set.Keys[0] + "\n"}}, "rotate-root", "--out", "root.token")
	require.Zero(t, code, out)
	assert.Nil(t, s.policiesOf(set.RootToken))
	assert.Equal(t, []string{"root"}, s.policiesOf(s.read("root.token")))
	s.silent(append(set.Keys, set.RootToken, s.read("root.token"))...)
}

func TestACeremonyThatIsInterruptedIsCancelled(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	set := s.ready()
	for name, second := range map[string]string{"Ctrl-C": "\x03", "no key": "\n"} {
		out, code := s.onTerminal([][2]string{{"Unseal key 1 of 2: ", set.Keys[2] + "\n"}, {"Unseal key 2 of 2: ", second}}, "rotate-root", "--out", "root.token")
		assert.NotZero(t, code, "%s: %s", name, out)
		assert.NoFileExists(t, s.path("root.token"))
		s.idle()
	}
	assert.Equal(t, []string{"root"}, s.policiesOf(set.RootToken))
}
