package printable

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// hostile maps texts that act on a terminal or fake a line to how they are shown.
var hostile = map[string]string{
	"a\x1b[2J\x07b":          `a\x1b[2J\x07b`,
	"a\u009b31mb":            `a\u009b31mb`,
	"a\u202eb\u2066c\u2069":  `a\u202eb\u2066c\u2069`,
	"a\nb\r\tc":              `a\nb\r\tc`,
	"a\u2028b\u0085c":        `a\u2028b\u0085c`,
	"a\xffb\xe2\x80":         `a\xffb\xe2\x80`,
	"a\u200bb\ufeffc\u00add": `a\u200bb\ufeffc\u00add`,
	"a\u00a0b\u3164c\x7f":    `a\u00a0b\u3164c\x7f`,
	"tag\U000e0041":          `tag\U000e0041`,
	"key, größe, 键, 😀, \\n":  "key, größe, 键, 😀, \\n",
}

func TestText_EscapesEverythingThatIsNotPrintable(t *testing.T) {
	for text, want := range hostile {
		assert.Equal(t, want, Text(text))
	}
}

func TestOneLine_JoinsLines(t *testing.T) {
	assert.Equal(t, `2 errors occurred:; * denied; * \x1b[2J`, OneLine("2 errors occurred:\n\t* denied\n\n\t* \x1b[2J\n\n"))
}

func TestError_BreaksLinesBetweenJoinedErrorsOnly(t *testing.T) {
	fake := errors.New("denied\ndeaddrop: all is well")
	joined := errors.Join(fmt.Errorf("secret %s: %w", "a\nb", fake), os.ErrNotExist)
	assert.Equal(t, `rendering: secret a\nb: denied\ndeaddrop: all is well`+"\nfile does not exist", Error(fmt.Errorf("rendering: %w", joined)))
	assert.Equal(t, `denied\ndeaddrop: all is well, file does not exist!`, Error(fmt.Errorf("%w, %w!", fake, os.ErrNotExist)))
	assert.Equal(t, `\nfile does not exist: file does not exist`, Error(fmt.Errorf("%s: %w", "\nfile does not exist", os.ErrNotExist)))
	assert.Equal(t, `nothing`, Error(errors.New("nothing")))
}

func TestWriter_KeepsLinesAndTabsAndEscapesTheRestHoweverItIsCut(t *testing.T) {
	for text, want := range hostile {
		want = strings.NewReplacer(`\r\t`, "\\r\t", `a\nb`, "a\nb").Replace(want) + "\n"
		text += "\n"
		for size := 1; size < len(text); size++ {
			var out bytes.Buffer
			w := NewWriter(&out)
			for rest := text; rest != ""; {
				n := min(size, len(rest))
				written, err := w.Write([]byte(rest[:n]))
				require.NoError(t, err)
				require.Equal(t, n, written)
				rest = rest[n:]
			}
			require.Equal(t, want, out.String())
		}
	}
	var out bytes.Buffer
	assert.Same(t, &out, Raw(NewWriter(&out)))
	assert.Same(t, &out, Raw(&out))
}

func TestJSONWriter_KeepsValues(t *testing.T) {
	for text := range hostile {
		var out bytes.Buffer
		require.NoError(t, json.NewEncoder(NewJSONWriter(&out)).Encode(map[string]string{text: text}))
		assert.False(t, strings.ContainsFunc(strings.TrimSpace(out.String()), func(r rune) bool { return !isPrintable(r) }), "%q", out.String())
		var read map[string]string
		require.NoError(t, json.Unmarshal(out.Bytes(), &read))
		text = strings.ToValidUTF8(text, "\ufffd")
		if strings.Contains(text, "\ufffd") {
			continue // JSON cannot hold it.
		}
		assert.Equal(t, map[string]string{text: text}, read)
	}
}

func FuzzWriter(f *testing.F) {
	for text := range hostile {
		f.Add([]byte(text), 3)
	}
	f.Fuzz(func(t *testing.T, text []byte, cut int) {
		cut = max(0, min(cut, len(text)))
		var out bytes.Buffer
		w := NewWriter(&out)
		_, _ = w.Write(text[:cut])
		_, _ = w.Write(text[cut:])
		_, _ = w.Write([]byte("\n"))
		require.True(t, utf8.Valid(out.Bytes()))
		for _, r := range out.String() {
			require.True(t, r == '\n' || r == '\t' || unicode.IsPrint(r), "%q", r)
		}
	})
}
