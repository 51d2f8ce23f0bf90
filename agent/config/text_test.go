package config

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/render"
)

const mark = "\uFEFF"

// utf16 is a text as PowerShell's > writes it.
func utf16(text string) string {
	all := "\xFF\xFE"
	for _, c := range []byte(text) {
		all += string([]byte{c, 0})
	}
	return all
}

func writeAll(t *testing.T, files map[string]string) {
	t.Helper()
	for name, content := range files {
		require.NoError(t, os.WriteFile(name, []byte(content), 0o600))
	}
}

func TestLoad_ReadsFilesWrittenOnWindows(t *testing.T) {
	folder(t)
	writeAll(t, map[string]string{
		"role_id": mark + "role-1\r\n", "secret_id": mark + marker + "\r\n", "x.ctmpl": mark + "{{ template \"in.ctmpl\" }}", "in.ctmpl": mark + "inner",
		"a.hcl":  mark + login,
		"b.json": mark + `{"template": {"source": "x.ctmpl", "destination": "x", "perms": "0640"}}`,
	})
	cfg, err := Load("a.hcl", "b.json")
	require.NoError(t, err)
	role, err := cfg.Auth.RoleID.Read()
	require.NoError(t, err)
	id, err := cfg.Auth.SecretID.Read()
	require.NoError(t, err)
	assert.Equal(t, []string{"role-1", marker}, []string{role.Reveal(), id.Reveal()})
	got, err := cfg.Drops[0].Template.Execute(render.Input{})
	require.NoError(t, err)
	assert.Equal(t, "inner", string(got.Content))
	_, err = load(t, mark+"vault {}\nnonsense {}\n")
	require.ErrorContains(t, err, "deaddrop.hcl:2:1: ")
	_, err = load(t, mark+"nonsense {}\n")
	require.ErrorContains(t, err, "deaddrop.hcl:1:1: ")
}

func TestLoad_NamesUTF16(t *testing.T) {
	const fix = "cannot be read: the file is UTF-16; write it anew as UTF-8"
	for name, tc := range map[string]struct {
		files map[string]string
		text  string
		want  string
	}{
		"configuration": {nil, utf16(login + oneDrop), "deaddrop.hcl: " + fix},
		"secret id":     {map[string]string{"secret_id": utf16(marker)}, login + oneDrop, "deaddrop.hcl:3:69: secret_id_file_path secret_id " + fix},
		"template":      {map[string]string{"x.ctmpl": utf16("x")}, login + "template {\n  source = \"x.ctmpl\"\n  destination = \"x\"\n}\n", "deaddrop.hcl:7:12: template x.ctmpl " + fix},
		"included":      {map[string]string{"x.ctmpl": "{{ template \"y.ctmpl\" }}", "y.ctmpl": utf16("x")}, login + "template {\n  source = \"x.ctmpl\"\n  destination = \"x\"\n}\n", "y.ctmpl: " + fix},
	} {
		t.Run(name, func(t *testing.T) {
			folder(t)
			writeAll(t, tc.files)
			_, err := load(t, tc.text)
			require.ErrorContains(t, err, tc.want)
			assert.NotContains(t, err.Error(), marker)
		})
	}
}
