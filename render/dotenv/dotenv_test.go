package dotenv

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	compose "github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/joho/godotenv"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const marker = "m4rker"

func TestEncodeWritesSortedLines(t *testing.T) {
	out, err := Encode(map[string]any{
		"PLAIN": "abc-1.2/3:4@5%6+7,8=9", "SPACE": " a b ", "DOLLAR": "$HOME `id` $(id)", "HASH": "a # b", "QUOTE": `say "hi"`,
		"EMPTY": "", "NUMBER": json.Number("12345678901234567890"), "BOOL": true, "_x1": "ümlaut",
	})
	require.NoError(t, err)
	assert.Equal(t, `BOOL=true
DOLLAR='$HOME `+"`id`"+` $(id)'
EMPTY=
HASH='a # b'
NUMBER=12345678901234567890
PLAIN=abc-1.2/3:4@5%6+7,8=9
QUOTE='say "hi"'
SPACE=' a b '
_x1='ümlaut'
`, string(out))
}

func TestEncodeRefusesWhatReadersReadDifferently(t *testing.T) {
	for value, reason := range map[any]string{
		marker + "'":       `key "K" holds a ', which .env readers do not read alike`,
		marker + `\`:       `key "K" holds a \`,
		marker + "\n":      `key "K" holds a line break`,
		marker + "\r":      `key "K" holds a line break`,
		marker + "\t":      `key "K" holds a control character`,
		marker + "\x00":    `key "K" holds a control character`,
		marker + "\xff":    `key "K" is not UTF-8`,
		marker + "${HOME}": `key "K" holds ${`,
		nil:                `key "K" holds null`,
	} {
		out, err := Encode(map[string]any{"K": value})
		require.ErrorContains(t, err, reason)
		assert.NotContains(t, err.Error(), marker)
		assert.Nil(t, out, "nothing is written in part")
	}
	for _, nested := range []any{[]any{marker}, map[string]any{marker: marker}} {
		_, err := Encode(map[string]any{"K": nested})
		require.ErrorContains(t, err, `key "K" holds a list or an object`)
		assert.NotContains(t, err.Error(), marker)
	}
	for _, key := range []string{"", "1A", "a-b", "a b", "a=b", "ä", "a\nb"} {
		_, err := Encode(map[string]any{key: "x"})
		require.ErrorContains(t, err, "is not a variable name", key)
	}
}

func TestEncodeReportsEveryPairThatItCannotWrite(t *testing.T) {
	_, err := Encode(map[string]any{"A": "'", "B": "fine", "C": nil})
	require.ErrorContains(t, err, `"A"`)
	require.ErrorContains(t, err, `"C"`)
}

// hostile makes values of the characters that readers disagree about.
func hostile(rng *rand.Rand) string {
	const alphabet = "ab1 $#`\"!&|;<>()[]{}*?~^=:,.%@+-_/é漢'\\\n\t"
	letters := []rune(alphabet)
	value := make([]rune, rng.IntN(12))
	for i := range value {
		value[i] = letters[rng.IntN(len(letters))]
	}
	return string(value)
}

func writable(rng *rand.Rand, n int) map[string]any {
	pairs := map[string]any{}
	for len(pairs) < n {
		key, value := fmt.Sprintf("KEY_%d", len(pairs)), hostile(rng)
		if _, err := Encode(map[string]any{key: value}); err == nil {
			pairs[key] = value
		}
	}
	return pairs
}

// readers read a .env file the way its users do.
var readers = map[string]func(t *testing.T, file string) map[string]string{
	"docker compose": func(t *testing.T, file string) map[string]string {
		got, err := compose.ReadWithLookup(func(string) (string, bool) { return "expanded", true }, file)
		require.NoError(t, err)
		return got
	},
	"godotenv": func(t *testing.T, file string) map[string]string {
		got, err := godotenv.Read(file)
		require.NoError(t, err)
		return got
	},
	"node": func(t *testing.T, file string) map[string]string {
		return fromJSON(t, exec.Command("node", "--env-file="+file, "-p", "JSON.stringify(process.env)"))
	},
	"python-dotenv": func(t *testing.T, file string) map[string]string {
		const script = "import dotenv, json, sys; print(json.dumps(dotenv.dotenv_values(sys.argv[1])))"
		python := "/usr/bin/python3" // where Debian's python3-dotenv is
		if exec.Command(python, "-c", "import dotenv").Run() != nil {
			python = "python3"
		}
		if exec.Command(python, "-c", "import dotenv").Run() != nil {
			t.Skip("python-dotenv is not installed (Debian: python3-dotenv)")
		}
		return fromJSON(t, exec.Command(python, "-c", script, file))
	},
	"dash": func(t *testing.T, file string) map[string]string { return sourced(t, "dash", file) },
	"bash": func(t *testing.T, file string) map[string]string { return sourced(t, "bash", file) },
}

func sourced(t *testing.T, shell, file string) map[string]string {
	cmd := exec.Command(shell, "-c", `set -a; . "$1"; env -0`, shell, file)
	out := run(t, cmd)
	got := map[string]string{}
	for pair := range bytes.SplitSeq(out, []byte{0}) {
		key, value, _ := strings.Cut(string(pair), "=")
		got[key] = value
	}
	return got
}

func fromJSON(t *testing.T, cmd *exec.Cmd) map[string]string {
	got := map[string]string{}
	require.NoError(t, json.Unmarshal(run(t, cmd), &got))
	return got
}

func run(t *testing.T, cmd *exec.Cmd) []byte {
	if _, err := exec.LookPath(cmd.Args[0]); err != nil {
		t.Skipf("%s is not installed", cmd.Args[0])
	}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=expanded"}
	out, err := cmd.Output()
	require.NoError(t, err)
	return out
}

func TestReadersGetEveryValueBackByteForByte(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	pairs := writable(rng, 2000)
	pairs["LONG"] = strings.Repeat("long $ value ", 5000)
	out, err := Encode(pairs)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "test.env")
	require.NoError(t, os.WriteFile(file, out, 0o600))
	for name, read := range readers {
		t.Run(name, func(t *testing.T) {
			got := read(t, file)
			for key, want := range pairs {
				require.Equal(t, want, got[key], "%s in %s", key, name)
			}
		})
	}
}

func FuzzReadersGetTheValueBackOrEncodeFails(f *testing.F) {
	for _, seed := range []string{"", "a b", "'", `"`, "$x", "${x}", "#", " x ", "`", "\\", "a=b", "é"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		out, err := Encode(map[string]any{"KEY": value, "NEXT": "x"})
		if err != nil {
			return
		}
		byCompose, err := compose.UnmarshalBytesWithLookup(out, nil)
		require.NoError(t, err)
		byGodotenv, err := godotenv.UnmarshalBytes(out)
		require.NoError(t, err)
		for _, got := range []map[string]string{byCompose, byGodotenv} {
			assert.Equal(t, value, got["KEY"])
			assert.Equal(t, "x", got["NEXT"])
		}
	})
}
