package keys

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const key = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMw=="

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func identity(t *testing.T) (*age.X25519Identity, string) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	return id, write(t, "id", id.String())
}

func TestKeysComeBackFromTheirFile(t *testing.T) {
	id, idFile := identity(t)
	for name, recipients := range map[string][]age.Recipient{"plain": nil, "encrypted": {id.Recipient()}} {
		path := filepath.Join(t.TempDir(), "keys")
		n, err := Reserve(path, 1<<16)
		require.NoError(t, err)
		set := Set{Keys: []string{key}, Shares: 1, Threshold: 1, RootToken: "hvs.root"}
		require.NoError(t, n.Write(&set, recipients))
		n.Abort()
		info, err := os.Stat(path)
		require.NoError(t, err, "what was written stays")
		assert.Equal(t, os.FileMode(0o600), info.Mode())
		assert.Less(t, info.Size(), int64(2000))
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Equal(t, recipients == nil, bytes.Contains(text, []byte(key)), name)
		file, err := Open(path, []string{idFile})
		require.NoError(t, err)
		assert.Equal(t, set, file.Set)
	}
}

func TestTheRoomOfKeysIsTakenBeforeThereAreSome(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	n, err := Reserve(path, 1<<16)
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, int64(1<<16), info.Size())
	assert.Equal(t, os.FileMode(0o600), info.Mode())
	_, err = Reserve(path, 1)
	assert.ErrorContains(t, err, "is there already")
	n.Abort()
	assert.NoFileExists(t, path)
}

func TestAnArmoredFileIsOneOfAge(t *testing.T) {
	id, idFile := identity(t)
	var out bytes.Buffer
	a := armor.NewWriter(&out)
	w, err := age.Encrypt(a, id.Recipient())
	require.NoError(t, err)
	_, err = w.Write([]byte("Unseal Key 1: " + key + "\nInitial Root Token: hvs.root\n"))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.NoError(t, a.Close())
	path := write(t, "keys", out.String())
	file, err := Open(path, []string{idFile})
	require.NoError(t, err)
	assert.Equal(t, Set{Keys: []string{key}, RootToken: "hvs.root"}, file.Set)
	assert.ErrorIs(t, file.SetRootToken("hvs.new"), ErrRecipients)
	_, err = Open(write(t, "cut", out.String()[:out.Len()-60]), []string{idFile})
	assert.Error(t, err)
}

func TestARootTokenIsReplacedAndTheRestStays(t *testing.T) {
	path := write(t, "keys", `{"unseal_keys_b64":["`+key+`"],"root_token":"hvs.old","unseal_keys_hex":["00"]}`)
	file, err := Open(path, nil)
	require.NoError(t, err)
	require.NoError(t, file.SetRootToken("hvs.new"))
	file, err = Open(path, nil)
	require.NoError(t, err)
	assert.Equal(t, "hvs.new", file.RootToken)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Contains(t, string(text), "unseal_keys_hex")
	assert.NotContains(t, string(text), "hvs.old")
	require.NoError(t, file.SetRootToken(""))
	text, err = os.ReadFile(path)
	require.NoError(t, err)
	assert.NotContains(t, string(text), "root_token")

	file, err = Open(write(t, "lines", key+"\n"), nil)
	require.NoError(t, err)
	assert.ErrorIs(t, file.SetRootToken("hvs.new"), ErrLines)
}

func TestWhatIsNoFileOfKeysIsToldWithoutQuotingIt(t *testing.T) {
	secret := "AGE-SECRET-KEY-1QQQ"
	for _, text := range []string{"", "hello " + secret, "{" + secret, `{"a": "` + secret + `"}`, strings.Repeat("x", maxFile+2)} {
		_, err := Open(write(t, "keys", text), nil)
		require.Error(t, err)
		assert.NotContains(t, err.Error(), secret)
	}
}

func TestRecipientsAreKeysOrFilesOfThem(t *testing.T) {
	one, _ := identity(t)
	two, _ := identity(t)
	file := write(t, "recipients", "# us\n\n"+two.Recipient().String()+"\n")
	all, texts, err := Recipients([]string{one.Recipient().String(), file})
	require.NoError(t, err)
	assert.Len(t, all, 2)
	assert.Equal(t, []string{one.Recipient().String(), two.Recipient().String()}, texts)
	for _, bad := range []string{one.String(), "age1x", "ssh-x", "/none", write(t, "empty", "# nobody\n"), write(t, "secret", two.String())} {
		_, _, err := Recipients([]string{bad})
		require.Error(t, err, bad)
		assert.NotContains(t, err.Error(), one.String())
		assert.NotContains(t, err.Error(), two.String())
	}
}
