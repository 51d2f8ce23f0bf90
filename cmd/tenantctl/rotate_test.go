package main

import (
	"encoding/json"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/keys"
	"github.com/smarteros/deaddrop/compose/policies"
)

// policiesOf are those of a token, nil if it is dead.
func (s *site) policiesOf(token string) []string {
	s.t.Helper()
	answer, err := s.as(strings.TrimSpace(token)).Auth().Token().LookupSelf()
	if err != nil {
		assert.ErrorContains(s.t, err, "permission denied")
		return nil
	}
	names, err := answer.TokenPolicies()
	require.NoError(s.t, err)
	return names
}

// idle makes sure that no ceremony is under way.
func (s *site) idle() {
	s.t.Helper()
	status, err := s.s.Client.Sys().GenerateRootStatus()
	require.NoError(s.t, err)
	assert.False(s.t, status.Started)
}

func TestANewRootTokenEndsTheOldOne(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	old := s.ready()
	out := s.must("rotate-root", "--keys-file", "keys.json", "--out", "root.token")
	assert.Contains(t, out, "The new root token is in root.token")
	assert.Contains(t, out, "Root tokens that were revoked: 1.")
	assert.Nil(t, s.policiesOf(old.RootToken))
	assert.Equal(t, []string{"root"}, s.policiesOf(s.read("root.token")))
	now := s.keys("keys.json")
	assert.Equal(t, strings.TrimSpace(s.read("root.token")), now.RootToken)
	assert.Equal(t, old.Keys, now.Keys)
	s.closed()
	s.idle()

	s.env = s.env[:3]
	assert.Contains(t, s.must(s.setup("--check", "--keys-file", "keys.json")...), "Nothing to change.")
	s.must("rotate-root", "--keys-file", "keys.json", "--out", "root.token", "--force")
	assert.Nil(t, s.policiesOf(now.RootToken), "that of the keys file is an old one, too")
	s.silent(append(slices.Clone(old.Keys), old.RootToken, now.RootToken, s.read("root.token"))...)
}

func TestATokenOfAnAdminTakesTheRootTokensPlace(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	old := s.ready()
	out, errs, code := run(t, s.env, "rotate-root", "--admin", "--ttl", "2h", "--keys-file", "keys.json", "--out", "admin.token", "-o", "json")
	require.Zero(t, code, errs)
	var answer rotateResult
	require.NoError(t, json.Unmarshal([]byte(out), &answer))
	assert.Equal(t, "admin", answer.Kind)
	assert.Equal(t, 1, answer.Revoked)
	assert.Empty(t, answer.Token)
	assert.Nil(t, s.policiesOf(old.RootToken))
	assert.Equal(t, []string{policies.Admin, "default"}, s.policiesOf(s.read("admin.token")), "it outlives the one that made it")
	assert.Empty(t, s.keys("keys.json").RootToken)
	assert.Equal(t, old.Keys, s.keys("keys.json").Keys)
	own, err := s.as(strings.TrimSpace(s.read("admin.token"))).Auth().Token().LookupSelf()
	require.NoError(t, err)
	ttl, err := own.TokenTTL()
	require.NoError(t, err)
	assert.InDelta(t, 7200, ttl.Seconds(), 300)

	// There is no root token now, so that the keys make one for the while.
	s.env = s.env[:3]
	s.must("rotate-root", "--admin", "--period", "24h", "--keys-file", "keys.json", "--out", "periodic.token")
	own, err = s.as(strings.TrimSpace(s.read("periodic.token"))).Auth().Token().LookupSelf()
	require.NoError(t, err)
	assert.EqualValues(t, "86400", own.Data["period"])
	assert.Zero(t, s.rootTokens(strings.TrimSpace(s.read("periodic.token"))))
	s.idle()
	s.silent(old.RootToken, s.read("admin.token"), s.read("periodic.token"))
}

// rootTokens counts those that there are.
func (s *site) rootTokens(token string) (n int) {
	s.t.Helper()
	client := s.as(token)
	answer, err := client.Logical().List("auth/token/accessors")
	require.NoError(s.t, err)
	for _, accessor := range answer.Data["keys"].([]any) {
		found, err := client.Auth().Token().LookupAccessor(accessor.(string))
		require.NoError(s.t, err)
		if slices.Contains(found.Data["policies"].([]any), "root") {
			n++
		}
	}
	return n
}

func TestAFailedCeremonyLeavesEverythingAsItWas(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	set := s.ready()
	other := newSite(t)
	wrong := other.ready()
	before := s.read("keys.json")
	for name, tc := range map[string]struct {
		stdin string
		args  []string
		code  int
		say   string
	}{
		"other keys":     {wrong.Keys[0] + "\n" + wrong.Keys[1], []string{"--keys-file", "-"}, exitFailed, "not those of this Vault"},
		"the same twice": {set.Keys[0] + "\n" + set.Keys[0], []string{"--keys-file", "-"}, exitFailed, "not those of this Vault"},
		"too few":        {set.Keys[0] + "\n", []string{"--keys-file", "-"}, exitFailed, "2 unseal keys are needed, and there is 1"},
		"no key":         {strings.Repeat("A", 20) + "\n", []string{"--keys-file", "-"}, exitFailed, "unseal key 1 is none of this Vault"},
		"none at all":    {"", nil, exitFailed, "there are no unseal keys"},
	} {
		out, code := s.tenantctl(tc.stdin, append(tc.args, "rotate-root", "--out", "root.token")...)
		assert.Equal(t, tc.code, code, "%s: %s", name, out)
		assert.Contains(t, out, tc.say, name)
		assert.NoFileExists(t, s.path("root.token"))
		s.idle()
	}
	assert.Equal(t, []string{"root"}, s.policiesOf(set.RootToken))
	assert.Equal(t, before, s.read("keys.json"))
	s.silent(append(slices.Clone(set.Keys), append(wrong.Keys, set.RootToken)...)...)
}

func TestTheCeremonyOfOthersIsNotDisturbed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	set := s.ready()
	theirs, err := s.s.Client.Sys().GenerateRootInit("", "")
	require.NoError(t, err)
	_, err = s.s.Client.Sys().GenerateRootUpdate(set.Keys[0], theirs.Nonce)
	require.NoError(t, err)
	out, code := s.tenantctl("", "rotate-root", "--keys-file", "keys.json", "--out", "root.token")
	assert.Equal(t, exitConflict, code)
	assert.Contains(t, out, "is being generated already")
	status, err := s.s.Client.Sys().GenerateRootStatus()
	require.NoError(t, err)
	assert.Equal(t, theirs.Nonce, status.Nonce)
	assert.Equal(t, 1, status.Progress)
}

func TestTheRootTokenInAnEncryptedKeysFileIsReplaced(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	id, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	second, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	s.write("id", id.String())
	s.write("second", second.String())
	s.must(s.setup("--init", "--keys-file", "keys.age", "--age-recipient", id.Recipient().String(), "--age-recipient", second.Recipient().String())...)
	before, err := keys.Open(s.path("keys.age"), []string{s.path("second")})
	require.NoError(t, err)
	s.must("rotate-root", "--keys-file", "keys.age", "--age-identity", "id", "--out", "root.token")
	after, err := keys.Open(s.path("keys.age"), []string{s.path("second")})
	require.NoError(t, err, "it is for the same recipients")
	assert.Equal(t, strings.TrimSpace(s.read("root.token")), after.RootToken)
	assert.Equal(t, before.Keys, after.Keys)
	assert.Nil(t, s.policiesOf(before.RootToken))
}

func TestAKeysFileOfVaultsOwnIsUnderstoodAndKept(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	made, err := s.s.Client.Sys().Init(&api.InitRequest{SecretShares: 1, SecretThreshold: 1})
	require.NoError(t, err)
	text, err := json.Marshal(map[string]any{ // as of "vault operator init -format=json"
		"unseal_keys_b64": made.KeysB64, "unseal_keys_hex": made.Keys, "unseal_shares": 1, "unseal_threshold": 1,
		"recovery_keys_b64": []string{}, "recovery_keys_hex": []string{}, "recovery_keys_shares": 0, "recovery_keys_threshold": 0, "root_token": made.RootToken,
	})
	require.NoError(t, err)
	s.write("keys.json", string(text))
	s.must(s.setup("--unseal", "--keys-file", "keys.json")...)
	s.must("rotate-root", "--keys-file", "keys.json", "--out", "root.token")
	assert.Nil(t, s.policiesOf(made.RootToken))
	assert.Contains(t, s.read("keys.json"), made.Keys[0], "what tenantctl has no use for stays")
	assert.Equal(t, strings.TrimSpace(s.read("root.token")), s.keys("keys.json").RootToken)
}

// The proxy lets the revocation fail, which Vault itself has no reason to.
func TestWhatDidNotEndIsTold(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	set := s.ready()
	s.env = append(s.env, "VAULT_ADDR="+refusing(t, s.s.Address, "PUT /v1/auth/token/revoke-self", http.StatusBadRequest, "no luck"))
	out, code := s.tenantctl("", "rotate-root", "--keys-file", "keys.json", "--out", "root.token")
	assert.Equal(t, exitFailed, code)
	assert.Contains(t, out, "the new token is in its place, but the old one may still work: revoking a token")
	assert.Equal(t, []string{"root"}, s.policiesOf(s.read("root.token")))
	assert.Equal(t, []string{"root"}, s.policiesOf(set.RootToken))
}

func TestABadCommandLineOfRotateRootChangesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	set := s.ready()
	s.write("there", "precious")
	require.NoError(t, os.Symlink("there", s.path("link")))
	for args, say := range map[string]string{
		"":                                     "where should the new token go?",
		"--out there":                          "is there already",
		"--out link --force":                   "--out",
		"--out no/such/folder":                 "no such file",
		"--out x --ttl 1h":                     "are for --admin",
		"--out x --admin --ttl 0s":             "a duration such as 8h",
		"--out x --admin --ttl 1h --period 1h": "none of the others can be",
		"--out x --keys-file none":             "no such file",
		"--out x --age-identity none":          "is for a --keys-file",
		"--out x --keys-file there":            "there is no key in it",
	} {
		out, code := s.tenantctl("", append([]string{"rotate-root"}, strings.Fields(args)...)...)
		assert.Equal(t, exitUsage, code, "%s: %s", args, out)
		assert.Contains(t, out, say, args)
	}
	assert.Equal(t, "precious", s.read("there"))
	assert.Equal(t, []string{"root"}, s.policiesOf(set.RootToken))
}

func TestAPrintedTokenStandsAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	set := s.ready()
	out, errs, code := run(t, s.env, "rotate-root", "--keys-file", "keys.json", "--print")
	require.Zero(t, code, errs)
	assert.Equal(t, s.keys("keys.json").RootToken+"\n", out)
	assert.NotContains(t, errs, strings.TrimSpace(out))
	assert.Nil(t, s.policiesOf(set.RootToken))
}

func TestWithoutAPolicyForAdminsNoRootTokenIsLeftOver(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	set := s.ready()
	s.remove("sys/policies/acl/" + policies.Admin)
	s.env = s.env[:3]
	keys := s.write("lines", strings.Join(set.Keys, "\n"))
	out, code := s.tenantctl("", "rotate-root", "--admin", "--keys-file", keys, "--out", "admin.token")
	assert.Equal(t, exitMissing, code, out)
	assert.Contains(t, out, `run "tenantctl setup" first`)
	assert.NoFileExists(t, s.path("admin.token"))
	assert.Equal(t, 1, s.rootTokens(set.RootToken), "the one of before, and not the one for the while")
}
