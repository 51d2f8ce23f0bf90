package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// inNewFolder writes files by name, and returns the folder.
func inNewFolder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	return dir
}

func TestLoad_ReturnsTheDigestsOfTheContentsThatItRead(t *testing.T) {
	t.Setenv("VAULT_TOKEN", "t")
	dir := inNewFolder(t, map[string]string{"x.ctmpl": "text", "notes.txt": ""})
	file, template := filepath.Join(dir, "x.hcl"), filepath.Join(dir, "x.ctmpl")
	require.NoError(t, os.WriteFile(file, []byte("template {\n  source = \""+template+"\"\n  destination = \"x\"\n}\n"), 0o600))
	cfg, err := Load(dir)
	require.NoError(t, err)
	assert.Equal(t, []string{dir, template, file}, cfg.Sources.Paths())
	assert.ElementsMatch(t, cfg.Files, cfg.Sources.Paths())
	assert.Equal(t, ReadSources(cfg.Files...), cfg.Sources)

	require.NoError(t, os.Remove(filepath.Join(dir, "notes.txt")))
	assert.Equal(t, ReadSources(cfg.Files...), cfg.Sources, "the folder holds other files, too")
	require.NoError(t, os.WriteFile(template, []byte("TEXT"), 0o600))
	assert.NotEqual(t, ReadSources(cfg.Files...), cfg.Sources)
	require.NoError(t, os.WriteFile(template, []byte("text"), 0o600))
	assert.Equal(t, ReadSources(cfg.Files...), cfg.Sources)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "y.json"), []byte("{}"), 0o600))
	assert.NotEqual(t, ReadSources(cfg.Files...), cfg.Sources)
}

func TestLoad_NamesTheFilesOfARefusedConfiguration(t *testing.T) {
	t.Setenv("VAULT_TOKEN", "t")
	for name, test := range map[string]struct {
		content string
		want    []string
	}{
		"syntax":                {"dorp {", []string{"x.hcl"}},
		"template with a fault": {"template {\n  source = \"DIR/bad.ctmpl\"\n  destination = \"x\"\n}\n", []string{"bad.ctmpl", "x.hcl"}},
		"missing template":      {"template {\n  source = \"DIR/missing.ctmpl\"\n  destination = \"x\"\n}\n", []string{"missing.ctmpl", "x.hcl"}},
		"missing include":       {"template {\n  source = \"DIR/includes.ctmpl\"\n  destination = \"x\"\n}\n", []string{"includes.ctmpl", "later.ctmpl", "x.hcl"}},
		"missing id": {"auto_auth {\n  method \"approle\" {\n    config = { role_id_file_path = \"DIR/role_id\", secret_id_file_path = \"DIR/secret_id\" }\n  }\n}\n",
			[]string{"role_id", "secret_id", "x.hcl"}},
		"missing token":               {"auto_auth {\n  method \"token_file\" {\n    config = { token_file_path = \"DIR/token\" }\n  }\n}\n", []string{"token", "x.hcl"}},
		"template of a listed tenant": {"template {\n  for_each = [\"a\"]\n  source = \"DIR/${each.key}.ctmpl\"\n  destination = \"out/${each.key}/x\"\n}\n", []string{"a.ctmpl", "x.hcl"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := inNewFolder(t, map[string]string{"bad.ctmpl": "{{ broken", "includes.ctmpl": `{{ template "later.ctmpl" }}`})
			path := func(name string) string { return filepath.Join(dir, name) }
			content := []byte(strings.ReplaceAll(test.content, "DIR", dir))
			require.NoError(t, os.WriteFile(path("x.hcl"), content, 0o600))
			_, err := Load(path("x.hcl"))
			var wrong *Error
			require.ErrorAs(t, err, &wrong)
			var want []string
			for _, name := range test.want {
				want = append(want, path(name))
			}
			assert.Equal(t, want, wrong.Sources.Paths(), wrong)
			assert.Equal(t, ReadSources(want...), wrong.Sources)
		})
	}
}

func TestLoader_KeepsNoDigestOfAFileThatChangesWhileItIsRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.ctmpl")
	l := newLoader()
	for _, content := range []string{"one", "two", "two"} {
		require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
		_, err := l.readFile(file)
		require.NoError(t, err)
	}
	assert.NotEqual(t, ReadSources(file), l.read)
}

func TestReadSources_DoesNotWaitForFilesThatBlock(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.WriteFile(path("x.hcl"), []byte("x"), 0o600))
	files := []string{dir, path("x.hcl")}
	before := ReadSources(files...)
	assert.Equal(t, before, ReadSources(files...))
	require.NoError(t, os.Remove(path("x.hcl")))
	require.NoError(t, syscall.Mkfifo(path("x.hcl"), 0o600))
	assert.NotEqual(t, before, ReadSources(files...), "the configuration is read again, and refused")
	require.NoError(t, os.Remove(path("x.hcl")))
	require.NoError(t, os.Symlink("/dev/zero", path("x.hcl")))
	ReadSources(files...)

	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer func() { _, _ = r.Close(), w.Close() }()
	ReadSources(fmt.Sprintf("/dev/fd/%d", r.Fd()))
}
