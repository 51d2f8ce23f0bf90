package archive

import (
	"bytes"
	"compress/gzip"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/smarteros/deaddrop/compose/vaulttest"
)

func head() Header {
	return Header{Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Vault: "1.21.0", Cluster: "c", Tenants: []string{"demo"}}
}

func records() []Record {
	return []Record{
		{Engine: &Engine{Mount: "secret", Settings: Settings{MaxVersions: 7, DeleteVersionAfter: "0s"}}},
		{Policy: &Policy{Name: "tenant-policy", Text: "path \"a<b>&\" {}\n"}},
		{Secret: &Secret{Path: "tenant/demo/nexa", Current: 4, Settings: Settings{DeleteVersionAfter: "0s"}, Custom: map[string]string{"a": "b"}, Versions: []Version{
			{Number: 2, Created: "2026-01-02T03:04:05.123456789Z", Data: Content(`{"big":12345678901234567890,"k":"<ä&\u2028>"}`)},
			{Number: 3, Created: "x", Destroyed: true},
			{Number: 4, Created: "y", Data: Content(`{}`)},
		}}},
		{Role: &Role{Mount: "approle", Name: "demo", RoleID: "id", Settings: map[string]json.RawMessage{"token_ttl": json.RawMessage("3600")}}},
		{Entity: &Entity{Name: "demo", Metadata: map[string]string{"tenant_id": "demo"}, Aliases: []Alias{{Name: "id", Mount: "approle", Type: "approle"}}}},
	}
}

// pack makes a file of records.
func pack(t testing.TB, all []Record, recipients ...age.Recipient) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := NewWriter(&out, head(), recipients...)
	require.NoError(t, err)
	for _, r := range all {
		require.NoError(t, w.Write(r))
	}
	require.NoError(t, w.Close())
	return out.Bytes()
}

// unpack reads a file to its end.
func unpack(file []byte, ids ...age.Identity) ([]Record, Header, error) {
	s, err := NewSource(bytes.NewReader(file))
	if err != nil {
		return nil, Header{}, err
	}
	if s.Encryption() != Plain {
		if err := s.Unlock(ids...); err != nil {
			return nil, Header{}, err
		}
	}
	var all []Record
	h, _, err := s.Verify(func(r Record) { all = append(all, r) })
	return all, h, err
}

func newKey(t testing.TB) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	return id
}

func TestWhatIsReadIsWhatWasWritten(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	for name, file := range map[string][]byte{
		"plain": pack(t, records()), "encrypted": pack(t, records(), key.Recipient()), "several": pack(t, records(), newKey(t).Recipient(), key.Recipient()),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, h, err := unpack(file, newKey(t), key)
			require.NoError(t, err)
			assert.Equal(t, records(), got)
			want := head()
			want.Format, want.Version = "tenantctl-backup", 1
			assert.Equal(t, want, h)
		})
	}
}

func TestAFileIsReadAsOftenAsOneWants(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	s, err := NewSource(bytes.NewReader(pack(t, records(), key.Recipient())))
	require.NoError(t, err)
	assert.Equal(t, Recipients, s.Encryption())
	require.NoError(t, s.Unlock(key))
	for range 3 {
		_, counts, err := s.Verify(nil)
		require.NoError(t, err)
		assert.Equal(t, Counts{Secrets: 1, Versions: 2, Policies: 1, Roles: 1, Entities: 1, Aliases: 1}, counts)
	}
}

func TestAFileInTextArmourIsReadToo(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	var text bytes.Buffer
	w := armor.NewWriter(&text)
	_, err := w.Write(pack(t, records(), key.Recipient()))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	got, _, err := unpack(text.Bytes(), key)
	require.NoError(t, err)
	assert.Equal(t, records(), got)
}

func TestAPassphraseDecryptsAndAnotherDoesNot(t *testing.T) {
	t.Parallel()
	r, err := age.NewScryptRecipient("one")
	require.NoError(t, err)
	r.SetWorkFactor(10)
	file := pack(t, records(), r)
	s, err := NewSource(bytes.NewReader(file))
	require.NoError(t, err)
	assert.Equal(t, Passphrase, s.Encryption())
	right, err := age.NewScryptIdentity("one")
	require.NoError(t, err)
	wrong, err := age.NewScryptIdentity("another")
	require.NoError(t, err)
	err = s.Unlock(wrong)
	require.ErrorIs(t, err, ErrKey)
	assert.ErrorContains(t, err, "the passphrase is wrong")
	require.NoError(t, s.Unlock(right))
	_, _, err = s.Verify(nil)
	require.NoError(t, err)
}

func TestWhoIsNoRecipientIsToldSo(t *testing.T) {
	t.Parallel()
	_, _, err := unpack(pack(t, records(), newKey(t).Recipient()), newKey(t))
	require.ErrorIs(t, err, ErrKey)
	assert.ErrorContains(t, err, "other recipients")
}

// step leaves out most places of a file, since each one costs a decryption. It is
// prime, so that it falls on places of every kind.
const step = 7

func TestAFileThatIsCutAnywhereIsNoBackup(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	for name, file := range map[string][]byte{"plain": pack(t, records()), "encrypted": pack(t, records(), key.Recipient())} {
		for n := 0; n < len(file); n += step {
			_, _, err := unpack(file[:n], key)
			require.Error(t, err, "%s, cut at %d", name, n)
		}
	}
}

func TestAFileThatIsAlteredAnywhereIsNoBackup(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	file := pack(t, records(), key.Recipient())
	for n := 0; n < len(file); n += step {
		bad := bytes.Clone(file)
		bad[n] ^= 1
		_, _, err := unpack(bad, key)
		require.Error(t, err, "altered at %d", n)
	}
	plain := pack(t, records())
	for n := 10; n < len(plain); n++ { // Ten bytes are gzip's header, with a time and a name of the system.
		bad := bytes.Clone(plain)
		bad[n] ^= 1
		_, _, err := unpack(bad)
		require.Error(t, err, "altered at %d", n)
	}
}

func TestWhatStandsBehindTheEndIsFound(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	for _, tail := range [][]byte{{0}, []byte("x"), pack(t, nil)} {
		_, _, err := unpack(append(pack(t, records()), tail...))
		require.ErrorIs(t, err, ErrDamaged)
		_, _, err = unpack(append(pack(t, records(), key.Recipient()), tail...), key)
		require.ErrorIs(t, err, ErrDamaged)
	}
}

// lines makes a plain file of any text.
func lines(t testing.TB, text string) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, err := io.WriteString(z, text)
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return out.Bytes()
}

// text is what a plain file holds.
func text(t testing.TB, file []byte) []string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(file))
	require.NoError(t, err)
	all, err := io.ReadAll(z)
	require.NoError(t, err)
	return strings.SplitAfter(strings.TrimSuffix(string(all), "\n"), "\n")
}

func TestALineThatIsTakenOutOrAddedOrMovedIsFound(t *testing.T) {
	t.Parallel()
	all := text(t, pack(t, records()))
	without := append(append([]string{}, all[:2]...), all[3:]...)
	twice := append(append([]string{}, all[:2]...), all[1:]...)
	moved := append([]string{}, all...)
	moved[1], moved[2] = moved[2], moved[1]
	for name, bad := range map[string][]string{
		"without": without, "twice": twice, "moved": moved, "no end": all[:len(all)-1], "after the end": append(append([]string{}, all...), "\n"+all[1]),
		"two headers": append(append([]string{all[0]}, all[0]), all[1:]...),
	} {
		_, _, err := unpack(lines(t, strings.Join(bad, "")))
		require.ErrorIs(t, err, ErrDamaged, name)
	}
}

func TestWhatIsNoBackupIsToldSo(t *testing.T) {
	t.Parallel()
	for _, file := range [][]byte{
		nil, []byte("hello"), []byte("PK\x03\x04"), lines(t, "hello\n"), lines(t, "{}\n"), lines(t, `{"header":{"format":"other","version":1}}`+"\n"),
		[]byte("age-encryption.org/v1\nhello\n"), {0x1f, 0x8b, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	} {
		_, _, err := unpack(file)
		require.ErrorIs(t, err, ErrNotBackup, "%q", file)
	}
}

func TestAFormatToComeIsNotGuessedAt(t *testing.T) {
	t.Parallel()
	_, _, err := unpack(lines(t, `{"header":{"format":"tenantctl-backup","version":2,"something":"new"},"else":1}`+"\n"))
	require.ErrorIs(t, err, ErrNewer)
	assert.ErrorContains(t, err, "its format is 2; this one knows 1")
}

func TestNoRecordLeadsElsewhereInVault(t *testing.T) {
	t.Parallel()
	for _, r := range []Record{
		{Secret: &Secret{Path: "tenant/../../sys/policies/acl/x"}}, {Secret: &Secret{Path: "tenant//x"}}, {Secret: &Secret{Path: ""}}, {Secret: &Secret{Path: "/x"}},
		{Secret: &Secret{Path: "tenant/./x"}}, {Secret: &Secret{Path: "other/demo/nexa"}},
		{Policy: &Policy{Name: "../x"}}, {Policy: &Policy{Name: "a/b"}}, {Policy: &Policy{Name: ""}},
		{Role: &Role{Name: "..", Mount: "approle"}}, {Role: &Role{Name: "a", Mount: "../../sys"}}, {Role: &Role{Name: "a/role-id", Mount: "approle"}},
		{Engine: &Engine{Mount: ".."}}, {Entity: &Entity{Name: "../../x"}}, {Entity: &Entity{Name: "x", Aliases: []Alias{{Mount: "../x"}}}},
		{}, {Policy: &Policy{Name: "a"}, Engine: &Engine{Mount: "secret"}},
		{Secret: &Secret{Path: "tenant/a/b", Current: 2, Versions: []Version{{Number: 3}}}},
		{Secret: &Secret{Path: "tenant/a/b", Current: 2, Versions: []Version{{Number: 2}, {Number: 1}}}},
		{Secret: &Secret{Path: "tenant/a/b", Current: 2, Versions: []Version{{Number: 0}}}},
		{Secret: &Secret{Path: "tenant/a/b", Current: -1}},
	} {
		w, err := NewWriter(io.Discard, head())
		require.NoError(t, err)
		require.Error(t, w.Write(r), "%+v", r)
		line, err := json.Marshal(line{Record: r})
		require.NoError(t, err)
		_, _, err = unpack(lines(t, text(t, pack(t, nil))[0]+string(line)+"\n"))
		require.ErrorIs(t, err, ErrDamaged, "%+v", r)
	}
}

func TestErrorsAndPrintsTellNoContent(t *testing.T) {
	t.Parallel()
	marker := vaulttest.Marker()
	c := Content(`{"k":"` + marker + `"}`)
	s := Secret{Path: "tenant/a/b", Current: 1, Versions: []Version{{Number: 1, Data: c}}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		assert.NotContains(t, fmt.Sprintf(verb, c), marker, verb)
		assert.NotContains(t, fmt.Sprintf(verb, s), marker, verb)
		assert.NotContains(t, fmt.Sprintf(verb, Record{Secret: &s}), marker, verb)
	}
	first := text(t, pack(t, nil))[0]
	for _, bad := range []string{
		`{"secret":{"path":"tenant/a/b","current":1,"versions":[{"number":1,"data":"` + marker + `"}]}}`,
		`{"secret":{"path":"tenant/a/b","current":1,"versions":[{"number":"` + marker + `"}]}}`,
		`{"secret":{"` + marker + `":1}}`, `{"secret":` + marker + `}`,
	} {
		_, _, err := unpack(lines(t, first+bad+"\n"))
		require.ErrorIs(t, err, ErrDamaged)
		assert.NotContains(t, err.Error(), marker)
	}
	assert.NotContains(t, string(pack(t, []Record{{Secret: &s}}, newKey(t).Recipient())), marker)
}

func TestEqualObjectsAreEqualContents(t *testing.T) {
	t.Parallel()
	parse := func(text string) Content {
		var data map[string]any
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		require.NoError(t, d.Decode(&data))
		c, err := NewContent(data)
		require.NoError(t, err)
		return c
	}
	assert.Equal(t, parse(`{"a":1,"b":{"d":[1,2],"c":null}}`), parse(`{ "b": {"c":null,"d":[1,2]}, "a":1 }`))
	assert.NotEqual(t, parse(`{"a":1}`), parse(`{"a":"1"}`))
	assert.NotEqual(t, parse(`{"a":12345678901234567890}`), parse(`{"a":12345678901234567891}`))
	assert.Equal(t, Content(`{}`), parse(`null`))
}

// brokenWriter fails after some bytes, as a full disk does.
type brokenWriter struct{ left int }

func (w *brokenWriter) Write(b []byte) (int, error) {
	if w.left -= len(b); w.left < 0 {
		return 0, errors.New("the disk is full")
	}
	return len(b), nil
}

func TestAWriterThatFailsFailsTheBackup(t *testing.T) {
	t.Parallel()
	whole := len(pack(t, records()))
	for left := range whole {
		w, err := NewWriter(&brokenWriter{left}, head())
		if err == nil {
			for _, r := range records() {
				if err = w.Write(r); err != nil {
					break
				}
			}
		}
		if err == nil {
			err = w.Close()
		}
		require.ErrorContains(t, err, "the disk is full", "after %d bytes", left)
	}
}

func TestKeysOfAgeAndSSHAreTaken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	sshKey := func(name string, private any, public any) (recipient, file string) {
		block, err := ssh.MarshalPrivateKey(private, "")
		require.NoError(t, err)
		pub, err := ssh.NewPublicKey(public)
		require.NoError(t, err)
		return string(ssh.MarshalAuthorizedKey(pub)), write(name, string(pem.EncodeToMemory(block)))
	}
	key := newKey(t)
	edPublic, edPrivate, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	pq, err := age.GenerateHybridIdentity()
	require.NoError(t, err)
	ed, edFile := sshKey("ed", edPrivate, edPublic)
	rsaPublic, rsaFile := sshKey("rsa", rsaKey, &rsaKey.PublicKey)
	for recipient, file := range map[string]string{
		key.Recipient().String(): write("age", "# a comment\n\n"+key.String()+"\n"),
		pq.Recipient().String():  write("pq", pq.String()+"\n"),
		ed:                       edFile,
		rsaPublic:                rsaFile,
	} {
		r, err := ParseRecipient(recipient)
		require.NoError(t, err, recipient)
		ids, err := ReadIdentities(file)
		require.NoError(t, err, recipient)
		got, _, err := unpack(pack(t, records(), r), ids...)
		require.NoError(t, err, recipient)
		assert.Equal(t, records(), got)
	}
	many, err := ReadRecipients(write("recipients", "# ours\n"+key.Recipient().String()+"\n\n"+ed))
	require.NoError(t, err)
	assert.Len(t, many, 2)
}

func TestASecretKeyGivenForAnotherThingIsNotRepeated(t *testing.T) {
	t.Parallel()
	key := newKey(t).String()
	_, err := ParseRecipient(key)
	require.ErrorContains(t, err, "this is a secret key")
	assert.NotContains(t, err.Error(), key)
	path := filepath.Join(t.TempDir(), "keys")
	require.NoError(t, os.WriteFile(path, []byte("x"+key+"\n"), 0o600))
	_, err = ReadIdentities(path)
	require.Error(t, err)
	assert.NotContains(t, err.Error(), key)
	_, err = ReadRecipients(path)
	require.ErrorContains(t, err, "line 1")
	assert.NotContains(t, err.Error(), key)
}

func FuzzAFileIsABackupOrAnError(f *testing.F) {
	f.Add(pack(f, records()))
	f.Add(pack(f, nil))
	f.Add(lines(f, "{}\n"))
	f.Add([]byte("age-encryption.org/v1\n"))
	f.Fuzz(func(t *testing.T, file []byte) { checkFile(t, file) })
}

// FuzzLinesAreABackupOrAnError goes behind gzip, which a fuzzer does not get past.
func FuzzLinesAreABackupOrAnError(f *testing.F) {
	f.Add(strings.Join(text(f, pack(f, records())), ""))
	f.Add(strings.Join(text(f, pack(f, nil)), ""))
	f.Fuzz(func(t *testing.T, text string) { checkFile(t, lines(t, text)) })
}

// checkFile reads a file of any content. What is a backup can be written again,
// and is the same then.
func checkFile(t *testing.T, file []byte) {
	if bytes.HasPrefix(file, []byte(magic)) || bytes.HasPrefix(file, []byte(armor.Header)) {
		_, _ = NewSource(bytes.NewReader(file))
		return
	}
	got, _, err := unpack(file)
	if err != nil {
		return
	}
	again, _, err := unpack(pack(t, got))
	require.NoError(t, err)
	require.Equal(t, len(got), len(again))
}
