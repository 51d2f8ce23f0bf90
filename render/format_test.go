package render

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/smarteros/deaddrop/render/dotenv"
)

var nested = kv2("secret/data/x", 1, map[string]any{
	"host": "mail.example", "port": json.Number("587"), "big": json.Number("12345678901234567890"), "tls": true,
	"db": map[string]any{"users": []any{"a", "b"}, "password": marker, "empty": map[string]any{}},
})

func TestFormatsOfOneSecret(t *testing.T) {
	for format, want := range map[Format]string{
		FormatDotenv:     "big=12345678901234567890\ndb_password=" + marker + "\ndb_users_0=a\ndb_users_1=b\nhost=mail.example\nport=587\ntls=true\n",
		FormatShell:      "export big='12345678901234567890'\nexport db_password='" + marker + "'\nexport db_users_0='a'\nexport db_users_1='b'\nexport host='mail.example'\nexport port='587'\nexport tls='true'\n",
		FormatProperties: "big=12345678901234567890\ndb.password=" + marker + "\ndb.users.0=a\ndb.users.1=b\nhost=mail.example\nport=587\ntls=true\n",
		FormatYAML:       "big: 12345678901234567890\ndb:\n  empty: {}\n  password: " + marker + "\n  users:\n    - a\n    - b\nhost: mail.example\nport: 587\ntls: true\n",
		FormatJSON:       "{\n  \"big\": 12345678901234567890,\n  \"db\": {\n    \"empty\": {},\n    \"password\": \"" + marker + "\",\n    \"users\": [\n      \"a\",\n      \"b\"\n    ]\n  },\n  \"host\": \"mail.example\",\n  \"port\": 587,\n  \"tls\": true\n}\n",
	} {
		out, err := Encoding{Format: format}.Encode(nested)
		require.NoError(t, err, format)
		assert.Equal(t, want, string(out), format)
	}
	_, err := Encoding{Format: FormatTOML}.Encode(nested)
	require.EqualError(t, err, `secret "secret/data/x" cannot be written as toml: key "big" is a number too large for TOML; write it as text`)
	out, err := Encoding{Format: FormatTOML, Keys: Keys{Except: []string{"big"}}}.Encode(nested)
	require.NoError(t, err)
	assert.Equal(t, "host = \"mail.example\"\nport = 587\ntls = true\n\n[db]\n  password = \""+marker+"\"\n  users = [\"a\", \"b\"]\n  [db.empty]\n", string(out))
	_, err = Encoding{Format: FormatTemplate}.Encode(nested)
	require.ErrorContains(t, err, "does not write a secret by itself")
}

func TestKeysAreFilteredRenamedAndMapped(t *testing.T) {
	s := kv2("secret/data/x", 1, map[string]any{"api-key": "1", "api_url": "2", "debug": "3", "9lives": "4"})
	for name, tc := range map[string]struct {
		keys Keys
		want string
	}{
		"only":             {Keys{Only: []string{"api_*", "debug"}}, "api_url=2\ndebug=3\n"},
		"except":           {Keys{Only: []string{"*"}, Except: []string{"?pi-key", "9*"}}, "api_url=2\ndebug=3\n"},
		"prefix and upper": {Keys{Only: []string{"debug"}, Prefix: "Nexa_", Upper: true}, "Nexa_DEBUG=3\n"},
		"rename":           {Keys{Only: []string{"api-key", "debug"}, Rename: map[string]string{"api-key": "Token"}, Upper: true, Prefix: "P_"}, "P_DEBUG=3\nToken=1\n"},
		"map invalid":      {Keys{MapInvalid: true}, "_9lives=4\napi_key=1\napi_url=2\ndebug=3\n"},
	} {
		out, err := Encoding{Format: FormatDotenv, Keys: tc.keys}.Encode(s)
		require.NoError(t, err, name)
		assert.Equal(t, tc.want, string(out), name)
	}
	for want, keys := range map[string]Keys{
		`has no key "api_key" to rename; did you mean "api-key"?`:                {Rename: map[string]string{"api_key": "x"}},
		`has keys "api_url" and "debug", which would both be written as "debug"`: {Rename: map[string]string{"api_url": "debug"}},
		`key "9lives" is not a variable name`:                                    {},
	} {
		_, err := Encoding{Format: FormatDotenv, Keys: keys}.Encode(s)
		require.ErrorContains(t, err, want)
	}
	assert.True(t, Matches("*_key", "prod/api_key"))
	assert.True(t, Matches("a[?", "a[0"))
	assert.False(t, Matches("a[0]", "a0"))
	assert.True(t, Matches("*a*b?", "xaabab\n"))
	assert.False(t, Matches("*a*b?", "xaab"))
	assert.True(t, Matches("**", ""))
	assert.False(t, Matches("?", ""))
	assert.False(t, Matches("a", "ab"))
	_, err := Encoding{Format: FormatDotenv}.Encode(kv2("x/y", 1, map[string]any{"a": map[string]any{"b": marker}, "a_b": marker}))
	require.ErrorContains(t, err, `two values that would both be written as "a_b"`)
	assert.NotContains(t, err.Error(), marker)
}

// FuzzStructuredFormatsComeBack reads what was written with a reader of the format.
func FuzzStructuredFormatsComeBack(f *testing.F) {
	for _, seed := range []string{"", "a b", "'", `"`, "yes", "0x1f", "1e3", "~", "- a", "a: b", "#", "\n", "\r\n", "\t", "é", "\u2028", "\x00", "\xff", "null", "2001-01-01", "=", "!", "\tx\ny", " x\ny", "\n\nx", "\\u0041"} {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, key, value string) {
		pairs := map[string]any{key: value}
		s := kv2("x/y", 1, pairs)
		if out, err := (Encoding{Format: FormatJSON}).Encode(s); err == nil {
			var got map[string]any
			require.NoError(t, json.Unmarshal(out, &got))
			assert.Equal(t, pairs, got)
		}
		if out, err := (Encoding{Format: FormatYAML}).Encode(s); err == nil {
			var got map[string]any
			require.NoError(t, yaml.Unmarshal(out, &got), string(out))
			assert.Equal(t, pairs, got, string(out))
		}
		if out, err := (Encoding{Format: FormatTOML}).Encode(s); err == nil {
			var got map[string]any
			_, err := toml.Decode(string(out), &got)
			require.NoError(t, err, string(out))
			assert.Equal(t, pairs, got, string(out))
		}
	})
}

// readProperties is a program for Java, which tells what java.util.Properties reads.
const readProperties = `
import java.util.*; import java.io.*; import java.nio.charset.StandardCharsets;
public class Read { public static void main(String[] a) throws Exception {
  Properties p = new Properties(); try (InputStream in = new FileInputStream(a[0])) { p.load(in); }
  PrintStream out = new PrintStream(System.out, false, "UTF-8");
  for (String k : p.stringPropertyNames()) { out.print(k); out.write(0); out.print(p.getProperty(k)); out.write(0); }
  out.flush();
}}`

func TestJavaReadsPropertiesBack(t *testing.T) {
	if _, err := exec.LookPath("java"); err != nil {
		t.Skip("java is not installed (Debian: default-jdk-headless)")
	}
	pairs := map[string]any{}
	for _, c := range []string{"", " ", " lead", "trail ", "a b", "=", ":", "#", "!", `\`, `\u0041`, "\n", "\r\n", "\t", "\f", "\x01", "é", "漢", "😀", "'", `"`, "$", "a=b:c#d!e"} {
		pairs["k"+c] = c + "v" + c
	}
	out, err := Encoding{Format: FormatProperties}.Encode(kv2("x/y", 1, pairs))
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Read.java"), []byte(readProperties), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "p"), out, 0o600))
	text, err := exec.Command("java", filepath.Join(dir, "Read.java"), filepath.Join(dir, "p")).Output()
	if err != nil {
		t.Skipf("java cannot run source files here: %v", err)
	}
	fields := strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
	got := map[string]any{}
	for i := 0; i+1 < len(fields); i += 2 {
		got[fields[i]] = fields[i+1]
	}
	assert.Equal(t, pairs, got)
	for _, value := range []any{nil, "\xff"} {
		_, err := Encoding{Format: FormatProperties}.Encode(kv2("x/y", 1, map[string]any{"k": value}))
		require.Error(t, err)
	}
}

func TestDialectsAreHandedOn(t *testing.T) {
	s := kv2("x/y", 1, map[string]any{"K": "two words"})
	_, err := Encoding{Format: FormatDotenv}.Encode(s)
	require.ErrorContains(t, err, `secret "x/y" cannot be written as dotenv: key "K"`)
	out, err := Encoding{Format: FormatDotenv, Dialect: dotenv.Docker}.Encode(s)
	require.NoError(t, err)
	assert.Equal(t, "K=two words\n", string(out))
}
