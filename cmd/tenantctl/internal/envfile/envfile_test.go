package envfile

import (
	"testing"

	"github.com/joho/godotenv"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRemove_KeepsEveryOtherByte(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"empty":              {"", ""},
		"nothing":            {"A=1", "A=1"},
		"only":               {"X=1", ""},
		"in the middle":      {"A=1\nX=2\nB=3", "A=1\nB=3"},
		"exported":           {" export \t X = 'old' # why\nB=3\n", "B=3\n"},
		"CRLF":               {"A=1\r\nX=2\r\n\r\nB=3\r\n", "A=1\r\n\r\nB=3\r\n"},
		"byte order mark":    {"\ufeffX=1\r\nA=2\r\n", "\ufeffA=2\r\n"},
		"comment":            {"# X=1\n  #X=2\nX=3\n", "# X=1\n  #X=2\n"},
		"other names":        {"XX=1\nexportX=2\nx=3\nX Y=4\nX\n", "XX=1\nexportX=2\nx=3\nX Y=4\nX\n"},
		"within a value":     {"A=\"one\nX=two\nexport X=three\"\nX=4\nB='\nX=5\n'\n", "A=\"one\nX=two\nexport X=three\"\nB='\nX=5\n'\n"},
		"over lines":         {"A=1\nX=\"two\nthree\nA=4\" # end\nB=5\n", "A=1\nB=5\n"},
		"escaped quote":      {"A=\"a\\\"\nX=1\n\"\nX=2\n", "A=\"a\\\"\nX=1\n\"\n"},
		"other quote":        {"A=\"it's\nX=1\n\"\nX=2\nB='\"\nX=3'\n", "A=\"it's\nX=1\n\"\nB='\"\nX=3'\n"},
		"quote in a value":   {"A=it's\nX=1\nB=2\n", "A=it's\nB=2\n"},
		"backtick, one line": {"A=`a`\nX=1\n", "A=`a`\n"},
		"backslash":          {"A=a\\\nB=1\nX=2\n", "A=a\\\nB=1\n"},
		"twice":              {"X=1\nA=2\nX=3\n", "A=2\n"},
	} {
		got, err := Remove(test.text, "X", "Y")
		require.NoError(t, err, name)
		assert.Equal(t, test.want, got, name)

		// For one of the readers, where it takes all of it, the others keep their values.
		if before, err := godotenv.Unmarshal(test.text); err == nil {
			after, err := godotenv.Unmarshal(got)
			require.NoError(t, err, name)
			delete(before, "X")
			assert.Equal(t, before, after, name)
		}
	}
}

func TestRemove_RefusesWhatReadersDisagreeOn(t *testing.T) {
	for text, say := range map[string]string{
		"A=1\nB='two\nX=3\n":     "line 2: the value of B: its quotes do not end",
		"A=\"":                   "line 1: the value of A: its quotes do not end",
		"\n\nA='a\\'\nX=1\n'\n":  "line 3: the value of A: readers of .env files disagree on where its quotes end",
		"A=\"a\\\\\"\nX=1\n\"\n": "line 1: the value of A: readers",
		"A='a'\"\nX=1\n\"\n":     "line 1: the value of A: readers",
		"A=`a\nX=1\n`\n":         "line 1: the value of A: readers",
		"B='\n\n'\nA=a\\\nX=1\n": "line 4: readers of .env files disagree on whether the backslash",
	} {
		got, err := Remove(text, "X")
		require.ErrorContains(t, err, say, text)
		assert.Empty(t, got)
	}
}
