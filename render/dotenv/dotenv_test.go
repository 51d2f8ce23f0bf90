package dotenv

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const marker = "m4rker"

func TestEncodeWritesSortedLines(t *testing.T) {
	pairs := map[string]any{
		"PLAIN": "abc-1.2/3:4@5%6+7,8=9!*?^[]{}", "EMPTY": "", "NUMBER": json.Number("12345678901234567890"), "BOOL": true, "_x1": "x",
	}
	want := "BOOL=true\nEMPTY=\nNUMBER=12345678901234567890\nPLAIN=abc-1.2/3:4@5%6+7,8=9!*?^[]{}\n_x1=x\n"
	for _, d := range Dialects() {
		out, err := Encode(Dialect(d), pairs)
		require.NoError(t, err)
		assert.Equal(t, want, string(out), d)
	}
	out, err := EncodeExports(map[string]any{"A": "it's", "B": "plain"})
	require.NoError(t, err)
	assert.Equal(t, "export A='it'\\''s'\nexport B='plain'\n", string(out))
}

func TestEachDialectQuotesInItsOwnWay(t *testing.T) {
	const value = "a \"$B\" 'c' \\ `d` #"
	for d, want := range map[Dialect]string{
		Compose:   `"a \"\$B\" 'c' \\ ` + "`d`" + ` #"`,
		ComposeV1: value,
		Docker:    value,
		Godotenv:  `"a \"\$B\" 'c' \\ ` + "`d`" + ` #"`,
		Python:    `'a "$B" \'c\' \\ ` + "`d`" + ` #'`,
		Shell:     `'a "$B" '\''c'\'' \ ` + "`d`" + ` #'`,
		Systemd:   `"a \"\$B\" 'c' \\ ` + "\\`d\\`" + ` #"`,
	} {
		got, err := Quote(d, value)
		require.NoError(t, err, d)
		assert.Equal(t, want, got, d)
	}
	_, err := Quote(Node, value)
	require.EqualError(t, err, `the value mixes quotes, which dialect "node" cannot carry; name the reader as the dialect: compose, compose-v1, docker, godotenv, python, shell, systemd can`)
	_, err = Quote("windows", value)
	require.ErrorContains(t, err, `the dialect is not known; use one of compose, compose-v1, docker, godotenv, node, portable, python, shell, systemd`)
}

func TestPortableRefusesWhatReadersReadDifferently(t *testing.T) {
	for value, reason := range map[any]string{
		marker + "'":       `key "K" holds a character that has to be quoted, which dialect "portable" cannot carry; name the reader as the dialect: compose, compose-v1, docker, godotenv, node, python, shell, systemd can`,
		marker + `\`:       `key "K" holds a character that has to be quoted`,
		marker + " " + "x": `key "K" holds a blank`,
		marker + "\n":      `key "K" holds a line break, which dialect "portable" cannot carry; name the reader as the dialect: compose, godotenv, node, python, shell, systemd can`,
		marker + "\r":      `key "K" holds a line break`,
		marker + "\t":      `key "K" holds a control character`,
		marker + "\x00":    `key "K" holds NUL, which dialect "portable" cannot carry`,
		marker + "\xff":    `key "K" is not UTF-8, which dialect "portable" cannot carry; name the reader as the dialect: shell can`,
		marker + "$":       `key "K" holds a character that has to be quoted`,
		marker + "é":       `key "K" holds a letter beyond ASCII`,
		nil:                `key "K" holds null`,
	} {
		out, err := Encode(Portable, map[string]any{"K": value})
		require.ErrorContains(t, err, reason)
		assert.NotContains(t, err.Error(), marker)
		assert.Nil(t, out, "nothing is written in part")
	}
	for _, nested := range []any{[]any{marker}, map[string]any{marker: marker}} {
		_, err := Encode(Portable, map[string]any{"K": nested})
		require.ErrorContains(t, err, `key "K" holds a list or an object`)
		assert.NotContains(t, err.Error(), marker)
	}
	for _, key := range []string{"", "1A", "a-b", "a b", "a=b", "ä", "a\nb"} {
		_, err := Encode(Portable, map[string]any{key: "x"})
		require.ErrorContains(t, err, "is not a variable name", key)
	}
}

func TestEncodeReportsEveryPairThatItCannotWrite(t *testing.T) {
	_, err := Encode(Portable, map[string]any{"A": "'", "B": "fine", "C": nil})
	require.ErrorContains(t, err, `"A"`)
	require.ErrorContains(t, err, `"C"`)
}

func TestErrorsTellWhyAValueCannotBeCarried(t *testing.T) {
	for _, tc := range []struct {
		d             Dialect
		value, reason string
	}{
		{Node, "a\r", "a line break"},
		{Docker, "a\n", "a line break"},
		{Docker, strings.Repeat("x", 1<<16), "longer than a line may be"},
		{Python, "'${HOME}'", "${…}"},
		{Systemd, "\x01", "a control character"},
		{Godotenv, `' # "\`, `ends in a \`},
		{Godotenv, `' # "`, "mixes quotes"},
	} {
		_, err := Quote(tc.d, tc.value)
		require.ErrorContains(t, err, tc.reason, tc.d)
	}
}

func FuzzReadersGetTheValueBackOrEncodeFails(f *testing.F) {
	for _, seed := range []string{"", "a b", "'", `"`, "$x", "${x}", "#", " x ", "`", "\\", "a=b", "é", "\n", "\r", "\x00", "\xff", "\ufeff"} {
		for i := range Dialects() {
			f.Add(uint8(i), seed)
		}
	}
	f.Fuzz(func(t *testing.T, n uint8, value string) {
		d := Dialect(Dialects()[int(n)%len(Dialects())])
		out, err := Encode(d, map[string]any{"KEY": value, "NEXT": "x"})
		if err != nil {
			return
		}
		for name, r := range inProcess {
			if !r.reads(d) {
				continue
			}
			got, err := r.read(out)
			require.NoError(t, err, name)
			assert.Equal(t, map[string]string{"KEY": value, "NEXT": "x"}, got, name)
		}
	})
}
