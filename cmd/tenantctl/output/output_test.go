package output

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type row struct {
	Name  string   `json:"name"`
	Count int      `json:"count"`
	Tags  []string `json:"tags,omitempty"`
}

func TestEachFormatTellsTheSame(t *testing.T) {
	value := []row{{Name: "true", Count: 3, Tags: []string{"a<b", "12", "x: y"}}, {Name: "two\nlines"}}
	table := func() Rows {
		return Rows{Head: []string{"NAME", "COUNT"}, Body: [][]string{{"true", "3"}, {"two\nlines", "0"}}}
	}
	for format, want := range map[Format]string{
		JSON: "[\n  {\n    \"name\": \"true\",\n    \"count\": 3,\n    \"tags\": [\n      \"a<b\",\n      \"12\",\n      \"x: y\"\n    ]\n  },\n" +
			"  {\n    \"name\": \"two\\nlines\",\n    \"count\": 0\n  }\n]\n",
		YAML:  "- name: \"true\"\n  count: 3\n  tags:\n    - a<b\n    - \"12\"\n    - 'x: y'\n- name: |-\n    two\n    lines\n  count: 0\n",
		Table: "NAME       COUNT\ntrue       3\ntwo�lines  0\n",
	} {
		t.Run(string(format), func(t *testing.T) {
			var out bytes.Buffer
			require.NoError(t, format.Write(&out, value, table))
			assert.Equal(t, want, out.String())
		})
	}
}
