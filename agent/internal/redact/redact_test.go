package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// longestPart returns the longest part of a value that a text has.
func longestPart(value, text string) string {
	longest := ""
	for i := range value {
		for j := i + len(longest) + 1; j <= len(value) && strings.Contains(text, value[i:j]); j++ {
			longest = value[i:j]
		}
	}
	return longest
}

// random is a value of so many letters and digits.
func random(n int) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	var out strings.Builder
	for range n {
		out.WriteByte(letters[rand.IntN(len(letters))])
	}
	return out.String()
}

func wrapped(text string, width int) string {
	var out strings.Builder
	for len(text) > width {
		out.WriteString(text[:width] + "\n")
		text = text[width:]
	}
	return out.String() + text + "\n"
}

func shown(text string, hidden ...string) string {
	o := Output{Keep: true}
	_, _ = o.Write([]byte(text))
	return o.Text(hidden)
}

func TestOutput_HidesAValueAcrossEveryCut(t *testing.T) {
	value := random(300)
	for _, before := range []int{0, 3800, mostShown - 150, mostShown - 1, mostKept - 299, mostKept - 150, mostKept - 8, mostKept - 7, mostKept - 1} {
		text := strings.Repeat(".", before) + value + strings.Repeat("-", 10)
		got := shown(text, value)
		assert.Empty(t, longestPart(value, strings.ReplaceAll(got, "[redacted]", "")), "after %d bytes", before)
	}
	// Redacted text gets shorter: then the end of what is kept is shown.
	text := strings.Repeat(value, mostKept/len(value)+1)
	assert.Equal(t, "[redacted]", shown(text, value))
	short := "abc123"
	text = strings.Repeat(".", 2000) + strings.Repeat(value, (mostKept-2003)/len(value))
	text += strings.Repeat("-", mostKept-3-len(text)) + short
	assert.NotContains(t, shown(text, value, short), "abc")
}

func TestOutput_HidesAValueThatIsWrappedOrQuoted(t *testing.T) {
	value := random(280) + " it's \"quoted\" \\ &<> größe\tand\nsecond line " + random(30)
	json, err := json.Marshal(value)
	require.NoError(t, err)
	for name, text := range map[string]string{
		"as it is":        value,
		"wrapped at 76":   wrapped(value, 76),
		"JSON":            string(json),
		"base64, wrapped": wrapped(base64.StdEncoding.EncodeToString([]byte(value)), 76),
		"numbered lines":  "     1\t" + strings.ReplaceAll(wrapped(value, 76), "\n", "\n     2\t"),
		"beginning":       value[:100],
		"end":             value[len(value)-40:],
		"shell":           "'" + strings.ReplaceAll(value, "'", `'\''`) + "'",
		"go":              fmt.Sprintf("%q", value),
	} {
		got := shown("### "+text+" ###", Forms(value)...)
		part := longestPart(strings.Join(strings.Fields(value), ""), strings.ReplaceAll(got, "[redacted]", ""))
		most := 2
		if name == "numbered lines" {
			most = window - 1 // What is left of a line by itself is too little to be recognised.
		}
		assert.LessOrEqual(t, len(part), most, "%s: %q of %q", name, part, got)
		assert.Regexp(t, "(?s)^###.*###$", got, name)
	}
}

func TestOutput_HidesAValueInTheTraceOfAShell(t *testing.T) {
	value := random(20) + " it's größer " + random(20) + "\n" + random(20)
	for _, shell := range []string{"sh", "bash"} {
		if _, err := exec.LookPath(shell); err != nil {
			continue
		}
		cmd := exec.Command(shell, "-xc", `KEY=$0; : "$KEY" $KEY; printf '%s\n' "$KEY" | fold -w 7`, value)
		cmd.Env = []string{"PATH=/usr/bin:/bin"}
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		got := shown(string(out), Forms(value)...)
		part := longestPart(value, strings.ReplaceAll(got, "[redacted]", ""))
		assert.Less(t, len(part), 3, "%s: %q of %q", shell, part, got)
	}
}

func TestOutput_ShowsWhatIsNoValue(t *testing.T) {
	assert.Equal(t, "line 3 of /tmp/x: unknown key", shown("line 3 of /tmp/x:\tunknown key\n"[:17]+" unknown key\n", "s3cret", "ab", "other-secret"))
	assert.Equal(t, "key=[redacted] and [redacted]!", shown("key=s3cret and o t h e r-secret!", "s3cret", "other-secret"))
	assert.Equal(t, "ab", shown("ab", "ab"), "it is in everything")
	assert.Len(t, shown(strings.Repeat("ö", mostShown)), mostShown+len("…"))
}

func TestOutput_KeepsNothingUnlessItIsShown(t *testing.T) {
	var o Output
	assert.Empty(t, o.Size())
	n, err := o.Write([]byte("one\ntwo"))
	require.NoError(t, err)
	assert.Equal(t, 7, n)
	_, _ = o.Write([]byte("\n"))
	assert.Equal(t, "2 lines, 8 bytes", o.Size())
	assert.Empty(t, o.kept)
	o = Output{Keep: true}
	for range 100 {
		_, _ = o.Write(bytes.Repeat([]byte("x"), 1000))
	}
	assert.Len(t, o.kept, mostKept)
	assert.Equal(t, "1 line, 100000 bytes", o.Size())
}

func TestText_IsFastWhateverIsPrinted(t *testing.T) {
	text, value := bytes.Repeat([]byte("y"), mostKept), strings.Repeat("y", 1<<20)
	assert.Equal(t, "[redacted]", Text(text, false, []string{value, value, value}))
}

func FuzzOutput(f *testing.F) {
	f.Add(strings.Repeat(".", 3800), "s3cr3t-and-long-enough", 5)
	f.Add("key: 'it'", "it's a \\ \"secret\"", 3)
	f.Fuzz(func(t *testing.T, before, value string, width int) {
		chars, _ := significant([]byte(value))
		if len(chars) < window {
			t.Skip()
		}
		text := before + wrapped(value, max(1, width)) + "."
		got, _ := significant([]byte(shown(text, value)))
		if !bytes.Contains([]byte(before+"[redacted]…."), chars[:window]) {
			require.NotContains(t, string(bytes.ReplaceAll(got, []byte("[redacted]"), []byte{' '})), string(chars[:window]))
		}
	})
}

func TestOutput_HidesAValueInCommonEncodings(t *testing.T) {
	const value = "Grüße/für=Ömär+😀"
	hidden := Forms(value)
	for name, text := range map[string]string{
		"JSON in ASCII":        `{"key": "Gr\u00fc\u00dfe/f\u00fcr=\u00d6m\u00e4r+\ud83d\ude00"}`,
		"base64":               base64.StdEncoding.EncodeToString([]byte(value)),
		"base64 behind 1 byte": base64.StdEncoding.EncodeToString([]byte(":" + value)),
		"base64 behind a name": base64.URLEncoding.EncodeToString([]byte("us:" + value)),
		"lower-case URL":       strings.ToLower(url.QueryEscape(value)[:2]) + "Gr%c3%bc%c3%9fe%2ff%c3%bcr%3d%c3%96m%c3%a4r%2b%f0%9f%98%80",
	} {
		shown := Text([]byte(text), false, hidden)
		assert.Contains(t, shown, "[redacted]", name)
		assert.Less(t, len(strings.ReplaceAll(shown, "[redacted]", "")), 20, "%s: %s", name, shown)
	}
}
