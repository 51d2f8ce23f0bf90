package examples_test

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/joho/godotenv"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// project is what Compose v2 makes of an example's file, with these variables.
func project(t *testing.T, dir string, env map[string]string) *types.Project {
	t.Helper()
	dir, err := filepath.Abs(dir)
	require.NoError(t, err)
	p, err := loader.LoadWithContext(context.Background(), types.ConfigDetails{
		WorkingDir: dir, ConfigFiles: types.ToConfigFiles([]string{filepath.Join(dir, "docker-compose.yml")}), Environment: env,
	}, func(o *loader.Options) { o.SetProjectName("test", true) })
	require.NoError(t, err)
	return p
}

// The scripts run docker-compose or docker compose, whichever is there; so Compose v2's
// own reader is asked here, too.
func TestComposeV2ReadsTheExamplesAndTheirEnvExamplesAreTheDefaults(t *testing.T) {
	files, err := filepath.Glob("*/docker-compose.yml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		dir := filepath.Dir(file)
		t.Run(dir, func(t *testing.T) {
			env, err := godotenv.Read(filepath.Join(dir, ".env.example"))
			require.NoError(t, err)
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			used := map[string]bool{}
			for _, variable := range regexp.MustCompile(`\$\{(\w+)`).FindAllStringSubmatch(string(text), -1) {
				used[variable[1]] = true
			}
			assert.ElementsMatch(t, slices.Collect(maps.Keys(used)), slices.Collect(maps.Keys(env)))
			p := project(t, dir, nil)
			given := project(t, dir, env)
			given.Environment = p.Environment
			assert.Equal(t, p, given)
			for name, s := range p.Services {
				assert.Equal(t, []string{"ALL"}, s.CapDrop, name)
				assert.Empty(t, s.CapAdd, name)
				assert.Equal(t, []string{"no-new-privileges:true"}, s.SecurityOpt, name)
				assert.NotEmpty(t, s.User, name)
				assert.False(t, s.Privileged, name)
			}
		})
	}
}
