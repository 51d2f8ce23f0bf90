package main

import (
	"bytes"
	"encoding/base64"
	"io"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// pgp makes a key, and writes its public half, or with secret all of it, into a file.
func (s *site) pgp(name string, armored, secret bool) *openpgp.Entity {
	s.t.Helper()
	entity, err := openpgp.NewEntity(name, "", name+"@example.com", nil)
	require.NoError(s.t, err)
	var out bytes.Buffer
	kind, serialize := openpgp.PublicKeyType, entity.Serialize
	if secret {
		kind, serialize = openpgp.PrivateKeyType, func(w io.Writer) error { return entity.SerializePrivate(w, nil) }
	}
	if !armored {
		require.NoError(s.t, serialize(&out))
		s.write(name, out.String())
		return entity
	}
	w, err := armor.Encode(&out, kind, nil)
	require.NoError(s.t, err)
	require.NoError(s.t, serialize(w))
	require.NoError(s.t, w.Close())
	s.write(name, out.String())
	return entity
}

// decrypt is what the owner of a key does with "base64 -d | gpg -d".
func (s *site) decrypt(owner *openpgp.Entity, text string) string {
	s.t.Helper()
	message, err := base64.StdEncoding.DecodeString(text)
	require.NoError(s.t, err)
	md, err := openpgp.ReadMessage(bytes.NewReader(message), openpgp.EntityList{owner}, nil, nil)
	require.NoError(s.t, err)
	plain, err := io.ReadAll(md.UnverifiedBody)
	require.NoError(s.t, err)
	return string(plain)
}

func TestKeysForPGPAreReadableForTheirOwnersAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	anna, ben, root := s.pgp("anna.asc", true, false), s.pgp("ben.gpg", false, false), s.pgp("root.asc", true, false)
	args := s.setup("--init", "--keys-file", "keys.json", "--shares", "2", "--threshold", "2",
		"--pgp-key", "anna.asc", "--pgp-key", "ben.gpg", "--root-token-pgp-key", "root.asc")
	out, code := s.tenantctl("", args...)
	assert.Equal(t, exitUnreachable, code, "it is initialised, and still sealed")
	assert.Contains(t, out, "create  Vault is initialised: 2 unseal keys, of which 2 are needed, are in keys.json, each encrypted with PGP")
	assert.Contains(t, out, "let their owners decrypt them (base64 -d | gpg -d)")
	set := s.keys("keys.json")
	keys := s.decrypt(anna, set.Keys[0]) + "\n" + s.decrypt(ben, set.Keys[1]) + "\n"
	token := s.decrypt(root, set.RootToken)

	out, code = s.tenantctl("", args...)
	assert.Equal(t, exitUnreachable, code, out)
	out, code = s.tenantctl(keys, s.setup("--unseal", "--keys-file", "-")...)
	assert.Equal(t, exitDenied, code, out)
	assert.Contains(t, out, "change  Vault is unsealed")
	s.env = append(s.env, "VAULT_TOKEN="+token)
	assert.Contains(t, s.must(s.setup()...), "created")
	s.s.Client.SetToken(token)
	s.silent(append(strings.Fields(keys), token)...)

	out, code = s.tenantctl("", "rotate-root", "--keys-file", "keys.json", "--out", "root.token")
	assert.Equal(t, exitFailed, code)
	assert.Contains(t, out, "encrypted with PGP")
	out, code = s.tenantctl(keys, "rotate-root", "--keys-file", "-", "--out", "root.token")
	require.Zero(t, code, out)
}

func TestWhatIsNoPublicKeyOfPGPIsRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.pgp("secret.asc", true, true)
	s.pgp("secret.gpg", false, true)
	s.pgp("one", false, false)
	s.write("two", s.read("one")+s.read("one"))
	s.write("junk", "junk")
	for name, say := range map[string]string{
		"secret.asc": "this is a secret key", "secret.gpg": "this is a secret key", "two": "there are 2 keys in it", "junk": "no public key of PGP", "none": "no such file",
	} {
		out, code := s.tenantctl("", s.setup("--init", "--keys-file", "keys.json", "--shares", "1", "--threshold", "1", "--pgp-key", name)...)
		assert.Equal(t, exitUsage, code, name)
		assert.Contains(t, out, say, name)
	}
	assert.NoFileExists(t, s.path("keys.json"))
}
