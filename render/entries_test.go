package render

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/smarteros/deaddrop/render/dotenv"
)

func TestEntriesAreToldOnlyWhereItIsSureWhatANameIs(t *testing.T) {
	for _, tc := range []struct {
		format  Format
		content string
		want    map[string]string
	}{
		{FormatDotenv, "# x\nA=1\n\nB='it'\\''s'\nC=\"\"\n", map[string]string{"A": "1", "B": `'it'\''s'`, "C": `""`}},
		{FormatShell, "export A='1'\n", map[string]string{"A": "'1'"}},
		{FormatProperties, "a.b=1\n", map[string]string{"a.b": "1"}},
		{FormatJSON, `{"a":{"b":["x",1]},"n":null}`, map[string]string{"a.b.0": `"x"`, "a.b.1": "1", "n": "<nil>"}},
		{FormatYAML, "a:\n  b: x\n", map[string]string{"a.b": "x"}},
		{FormatTOML, "[a]\nb = 1\n", map[string]string{"a.b": "1"}},
		{FormatDotenv, "KEY='-----BEGIN\nc2VjcmV0=\n'\n", nil},
		{FormatDotenv, "KEY='\nc2VjcmV0=\n'\n", nil},
		{FormatDotenv, "KEY=a\\\nc2VjcmV0=\n", nil},
		{FormatDotenv, "KEY='a'\\''\nc2VjcmV0=\n'\n", nil},
		{FormatDotenv, "KEY='a\\'\nc2VjcmV0=\n'\n", nil},
		{FormatDotenv, "KEY=a'\nc2VjcmV0=\n'\n", nil},
		{FormatDotenv, "KEY=\"a\\\"\nc2VjcmV0=\n\"\n", nil},
		{FormatDotenv, "some text\n", nil},
		{FormatDotenv, "K=a\nMIIEpQIBAAKcAQEA=\n", nil},
		{FormatProperties, "password: aGVsbG8=\n", nil},
		{FormatProperties, "password hunter2=x\n", nil},
		{FormatJSON, "[1]", nil},
		{FormatJSON, "nothing", nil},
		{FormatYAML, "- a", nil},
		{FormatTemplate, "A=1", nil},
	} {
		got, ok := Entries(tc.format, []byte(tc.content))
		assert.Equal(t, tc.want != nil, ok, tc.content)
		assert.Equal(t, tc.want, got, tc.content)
	}
	for path, want := range map[string]Format{"a.env": FormatDotenv, "a.yml": FormatYAML, "a.yaml": FormatYAML, "a.json": FormatJSON, "a.toml": FormatTOML, "a.properties": FormatProperties, "a.conf": FormatTemplate} {
		assert.Equal(t, want, FormatOf(path), path)
	}
}

// FuzzEntriesTakeNoPartOfAValueForAName writes a value in each dialect: what its
// lines look like must not make a name of it, which is shown unmasked.
func FuzzEntriesTakeNoPartOfAValueForAName(f *testing.F) {
	for _, seed := range []string{"", "a\nb=c", "'\nb=c\n'", "\"\nb=c", "`\nb=c\n`", "\\\nb=c", "a'\nb=\n", "\r\nb=c"} {
		for n := range dotenv.Dialects() {
			f.Add(uint8(n), seed)
		}
	}
	f.Fuzz(func(t *testing.T, n uint8, value string) {
		all := dotenv.Dialects()
		out, err := dotenv.Encode(dotenv.Dialect(all[int(n)%len(all)]), map[string]any{"KEY": value, "NEXT": "x"})
		if err != nil {
			return
		}
		entries, ok := Entries(FormatDotenv, out)
		for name := range entries {
			assert.Contains(t, []string{"KEY", "NEXT"}, name)
		}
		if ok {
			assert.Len(t, entries, 2)
		}
		for _, format := range []Format{FormatJSON, FormatYAML, FormatTOML, FormatProperties} {
			Entries(format, []byte(value)) // It must not panic.
		}
	})
}
