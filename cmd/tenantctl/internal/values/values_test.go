package values

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/vaulttest"
	"github.com/smarteros/deaddrop/render/dotenv"
)

func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "values")
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func TestArguments(t *testing.T) {
	for arg, want := range map[string]string{
		"A=b": "b", "A=": "", "A=b=c": "b=c", "A= b ": " b ", `A=\@b`: "@b", `A=\-`: "-", "A=--": "--", `A=\n`: `\n`, "A=1": "1", "A=true": "true",
		"A=@" + write(t, "line\n"): "line", "A=@" + write(t, "line\r\n"): "line", "A=@" + write(t, "line"): "line", "A=@" + write(t, ""): "",
		"A=@" + write(t, "a\nb\n"): "a\nb\n", "A=@" + write(t, "a\n\n"): "a\n\n", "A=@" + write(t, "@x"): "@x", "A=-": "from a pipe",
	} {
		in := Input{Stdin: strings.NewReader("from a pipe\n")}
		got, err := in.Arguments([]string{arg})
		require.NoError(t, err, arg)
		assert.Equal(t, map[string]any{"A": want}, got, arg)
	}
}

func TestAPersonIsAskedForEachValue(t *testing.T) {
	var asked []string
	in := Input{Ask: func(key string) (string, error) { asked = append(asked, key); return "of " + key, nil }}
	got, err := in.Arguments([]string{"A=-", "B=-"})
	require.NoError(t, err)
	assert.Equal(t, map[string]any{"A": "of A", "B": "of B"}, got)
	assert.Equal(t, []string{"A", "B"}, asked)
}

func TestWrongArgumentsAreToldWithoutTheirValues(t *testing.T) {
	marker := vaulttest.Marker()
	for say, args := range map[string][]string{
		`argument 2 has no "="`:                   {"A=1", marker},
		"a key is empty":                          {"=" + marker},
		`the key "A" is given twice`:              {"A=1", "A=" + marker},
		"characters that nobody sees":             {"A\x1b=" + marker},
		"no such file":                            {"A=@/no/such/file"},
		"is read for something else":              {"A=-", "B=-"},
		"the value of A is not text in UTF-8":     {"A=\xff" + marker},
		"the value of B is not text in UTF-8, wh": {"B=@" + write(t, "\xff"+marker)},
	} {
		in := Input{Stdin: strings.NewReader(marker)}
		_, err := in.Arguments(args)
		require.ErrorContains(t, err, say)
		assert.NotContains(t, err.Error(), marker)
	}
}

func TestLiteralValuesAreKnown(t *testing.T) {
	for arg, literal := range map[string]bool{"A=b": true, "A=-": false, "A=@f": false, "A=": false, `A=\@`: true} {
		assert.Equal(t, literal, Literal([]string{"X=-", arg}), arg)
	}
}

func TestAFileOfValuesIsJSONOrDotenv(t *testing.T) {
	for content, want := range map[string]map[string]any{
		"A=b\n":                                {"A": "b"},
		"\uFEFFA=b\n":                          {"A": "b"},
		"# c\nexport A='b c'\r\nB=\"x\\ny\"\n": {"A": "b c", "B": "x\ny"},
		"A='p$WORD'\nB=a$$b\nC='${A}'\n":       {"A": "p$WORD", "B": "a$$b", "C": "${A}"},
		`{"A":"b","N":1,"F":1.5,"T":true,"X":null,"L":[1,"2"],"O":{"P":"q"}}`: {"A": "b", "N": json.Number("1"), "F": json.Number("1.5"), "T": true, "X": nil,
			"L": []any{json.Number("1"), "2"}, "O": map[string]any{"P": "q"}},
		" \n{\n\"A\": \"b\" }\n": {"A": "b"},
	} {
		in := Input{Stdin: strings.NewReader(content)}
		got, err := in.From("-")
		require.NoError(t, err, content)
		assert.Equal(t, want, got, content)
		got, err = in.From(write(t, content))
		require.NoError(t, err, content)
		assert.Equal(t, want, got, content)
	}
}

func TestAFileThatIsWrongIsToldWithoutItsValues(t *testing.T) {
	marker := vaulttest.Marker()
	for content, say := range map[string]string{
		"":                                   "there are no values in it",
		"{}":                                 "there are no values in it",
		"[1]":                                "neither a JSON object nor .env text",
		"A=1\nB=2\n" + marker + "\nC=3\n":    "neither a JSON object nor .env text, see line 3",
		"A='" + marker:                       "neither a JSON object nor .env text, see line 1",
		"A=\"x\ny\"\nB='" + marker + "\n":    "see line 3",
		"{\"A\": 1,\n\"B\": " + marker + "}": "is none, see line 2",
		"{\"A\": \"" + marker + "\"":         "is none, see line 1",
		"{\"A\": 1}\n" + marker:              "behind the JSON object, see line",
		"B=x\nA=" + marker + "${B}\n":        "the value of A has a $",
		"WORD=x\nA=" + marker + "$WORD\n":    "the value of A has a $",
		"A=\xff" + marker:                    "is not text in UTF-8",
		`{"":"` + marker + `"}`:              "a key is empty",
		`{"A":12345678901234567890}`:         "the value of A has a number that Vault would change",
		`{"A":{"B":[9007199254740993]}}`:     "the value of A has a number",
		`{"A":0.12345678901234567}`:          "the value of A has a number",
		`{"A":1e999999999}`:                  "the value of A has a number",
		`{"A":1e-999999999}`:                 "the value of A has a number",
	} {
		in := Input{Stdin: strings.NewReader(content)}
		_, err := in.From("-")
		require.ErrorContains(t, err, say, "%q", content)
		assert.ErrorContains(t, err, "standard input: ")
		assert.NotContains(t, err.Error(), marker)
	}
	_, err := new(Input).From("/no/such/file")
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func TestNumbersThatVaultKeepsAreTaken(t *testing.T) {
	for _, number := range []string{"0", "-1", "9007199254740992", "1e15", "0.1", "3.14159", "-0.0", "0e9", "1.50"} {
		assert.False(t, tooBig(json.Number(number)), number)
	}
}

// What deaddrop writes for this reader comes back as it was.
func FuzzDotenvComesBack(f *testing.F) {
	for _, value := range []string{"", "a b", "p$WORD", "${X}", `\$x`, `"`, "'", "a\nb", "#", `a\`, "a #b", "\t", "é"} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		text, err := dotenv.Encode(dotenv.Godotenv, map[string]any{"KEY": value})
		if err != nil {
			return
		}
		in := Input{Stdin: strings.NewReader(string(text))}
		got, err := in.From("-")
		if err != nil {
			assert.ErrorContains(t, err, "has a $", "%q", text)
			return
		}
		assert.Equal(t, map[string]any{"KEY": value}, got, "%q", text)
	})
}
