package output

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
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
		YAML:  "- name: \"true\"\n  count: 3\n  tags:\n    - \"a<b\"\n    - \"12\"\n    - \"x: y\"\n- name: \"two\\nlines\"\n  count: 0\n",
		Table: "NAME        COUNT\ntrue        3\ntwo\\nlines  0\n",
	} {
		t.Run(string(format), func(t *testing.T) {
			var out bytes.Buffer
			require.NoError(t, format.Write(&out, value, table))
			assert.Equal(t, want, out.String())
		})
	}
}

// odd is what readers of YAML do not all take for the same, or not at all.
func odd() map[string]any {
	all := map[string]any{"n": 1.5, "t": true, "nothing": nil, "list": []any{"off", 2.0}}
	for _, text := range []string{
		"", "no", "on", "y", "Yes", "~", "null", "1:30", "1_000", "0o7", "0x1f", ".inf", "2001-01-01", "=", "<<", "- a", "# a", "a: b", "&a", "*a", "!a",
		" a ", "two\nlines", "tab\t", "del\x7f", "next\u0085line", "c1\u0080\u009f", "\u2028\u2029", "\ufeff", "\ufffe\uffff", "nul\x00", "😀", `\u0041"'`,
	} {
		all["value of "+text] = text
		all[text] = "key"
	}
	return all
}

func TestEveryStringIsTheSameInYAML(t *testing.T) {
	want := odd()
	var out bytes.Buffer
	require.NoError(t, YAML.Write(&out, want, nil))
	got := map[string]any{}
	require.NoError(t, yaml.Unmarshal(out.Bytes(), &got))
	number, _ := got["list"].([]any)
	number[1] = float64(number[1].(int))
	assert.Equal(t, want, got)
}

// PyYAML, which Ansible and others read with, goes by YAML 1.1.
func TestOtherReadersOfYAMLGetTheSameStrings(t *testing.T) {
	if err := exec.Command("python3", "-c", "import yaml").Run(); err != nil {
		t.Skipf("there is no PyYAML here: %v", err)
	}
	var out bytes.Buffer
	require.NoError(t, YAML.Write(&out, odd(), nil))
	cmd := exec.Command("python3", "-c", "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin.buffer.read()), sys.stdout)")
	cmd.Stdin, cmd.Stderr = &out, os.Stderr
	read, err := cmd.Output()
	require.NoError(t, err)
	var got map[string]any
	require.NoError(t, json.Unmarshal(read, &got))
	assert.Equal(t, odd(), got)
}
