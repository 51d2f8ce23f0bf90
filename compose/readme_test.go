package compose_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/dockertest"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// shellBlock is a piece of README.md that a reader is meant to run.
var shellBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")

const notRun = "# Not run by the tests"

// TestEveryCommandOfTheReadmeWorks runs README.md from top to bottom, as a reader
// would, on a Docker engine. Only the port is another one, and names of what the
// engine has come from the variables that docker-compose.yml knows.
func TestEveryCommandOfTheReadmeWorks(t *testing.T) {
	t.Parallel()
	dockertest.Engine(t)
	for _, program := range []string{"docker-compose", "busybox", "age-keygen", "jq", "curl", "openssl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("there is no %s here, which README.md uses", program)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("README.md gives a key to the user of the container, which takes root")
	}
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	r := newReader(t)
	for _, block := range shellBlock.FindAllStringSubmatch(string(text), -1) {
		script := block[1]
		if strings.HasPrefix(script, notRun) {
			require.Regexp(t, notRun+`[^:]*: \S`, script, "it says why")
			continue
		}
		r.run(script)
	}
	assert.FileExists(t, filepath.Join(r.dir, "nexa.env"))
	assert.NoFileExists(t, filepath.Join(r.dir, "root.token"))
	r.leaksNothing()
}

// reader is someone who follows README.md in a folder of their own.
type reader struct {
	t    *testing.T
	dir  string
	env  []string
	port string
	said strings.Builder
}

func newReader(t *testing.T) *reader {
	t.Helper()
	name := dockertest.Name(t)
	r := &reader{t: t, dir: t.TempDir()}
	_, r.port, _ = strings.Cut(vaulttest.FreeAddress(t), ":")
	require.NoError(t, os.CopyFS(filepath.Join(r.dir, "vault"), os.DirFS("vault")))
	files, err := filepath.Glob("*.[yh][mc]l")
	require.NoError(t, err)
	for _, file := range files {
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(r.dir, file), content, 0o644))
	}
	readable(t, filepath.Join(r.dir, "vault")) // by the container
	bin := t.TempDir()
	for _, command := range []string{"deaddrop", "tenantctl"} {
		require.NoError(t, os.Rename(dockertest.Build(t, "../cmd/"+command), filepath.Join(bin, command)))
	}
	r.env = []string{
		"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "STATE_DIRECTORY=" + filepath.Join(t.TempDir(), "state"), "DOCKER_HOST=" + os.Getenv("DOCKER_HOST"),
		"COMPOSE_PROJECT_NAME=" + name, "VAULT_IMAGE=" + vaultImage.load(t), "VAULT_TAG=latest", "VAULT_PORT=" + r.port,
		"VAULT_CONTAINER_NAME=" + name, "VAULT_VOLUMES=" + name, "SMARTER_NET=" + name,
	}
	t.Cleanup(func() { _, _ = dockerCompose([]string{base}, r.env, "down", "-v", "-t", "5") })
	return r
}

// run runs a block in the folder and the variables that the ones before have left.
func (r *reader) run(script string) {
	r.t.Helper()
	script = strings.ReplaceAll(script, "127.0.0.1:8200", "127.0.0.1:"+r.port)
	cmd := exec.Command("sh", "-euc", "[ ! -f .state ] || . ./.state\n"+script+"\nexport -p >.state")
	cmd.Dir, cmd.Env = r.dir, r.env
	out, err := cmd.CombinedOutput()
	require.NoError(r.t, err, "%s\n%s", script, out)
	r.said.Write(out)
}

// leaksNothing looks for what was to stay secret in what was said, and for files
// that others may read.
func (r *reader) leaksNothing() {
	r.t.Helper()
	said := r.said.String()
	for _, file := range []string{"vault-keys.json", "admin.token", "nexa.env", "nexa-login.env", "backup.key", "credentials/admin.password", "credentials/nexa-runtime.secret_id"} {
		path := filepath.Join(r.dir, file)
		info, err := os.Stat(path)
		require.NoError(r.t, err)
		assert.Zero(r.t, info.Mode()&0o077, "%s is %v", file, info.Mode())
		content, err := os.ReadFile(path)
		require.NoError(r.t, err)
		for _, word := range regexp.MustCompile(`[A-Za-z0-9+/=._-]{20,}`).FindAllString(string(content), -1) {
			if file != "backup.key" || strings.HasPrefix(word, "AGE-SECRET") {
				assert.NotContains(r.t, said, word, file)
			}
		}
	}
}
