package dotenv

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLoaderEffect_KnowsLoadersAndNothingElse(t *testing.T) {
	for _, name := range []string{
		"LD_PRELOAD", "LD_PRELOAD_32", "LD_LIBRARY_PATH", "LD_LIBRARY_PATH_64", "LD_AUDIT", "LD_DEBUG_OUTPUT", "LD_TRACE_LOADED_OBJECTS", "DYLD_INSERT_LIBRARIES", "PATH", "BASH_ENV", "SHELLOPTS", "BASHOPTS", "BASH_FUNC_ls", "PS4", "IFS", "CDPATH", "GLOBIGNORE",
		"NODE_OPTIONS", "NODE_PATH", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME", "PERL5OPT", "PERL5LIB", "PERLLIB", "RUBYOPT", "RUBYLIB", "GEM_HOME", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH",
		"GCONV_PATH", "LOCPATH", "HOSTALIASES", "MALLOC_TRACE", "GLIBC_TUNABLES", "GIT_SSH_COMMAND", "GIT_CONFIG_COUNT", "PHP_INI_SCAN_DIR", "DOTNET_STARTUP_HOOKS", "OPENSSL_CONF", "KRB5_CONFIG",
	} {
		assert.NotEmpty(t, LoaderEffect(name), name)
	}
	for _, name := range []string{
		"", "API_KEY", "DATABASE_URL", "MY_PATH", "PATHS", "ENV", "ENVIRONMENT", "NODE_ENV", "PYTHON", "HOME", "LDAP_URL", "LD", "JAVA_HOME", "GIT_TOKEN", "RAILS_ENV", "path", "Ld_preload", "SSL_CERT_FILE", "KRB5_KTNAME",
		"LD_SDK_KEY", "LD_CLIENT_SIDE_ID", "LD_ENV_PROD", "LDR_URL", "JAVA_OPTS", "CATALINA_OPTS", "EDITOR", "VISUAL", "BROWSER", "PAGER", "PS1", "PROMPT_COMMAND", "MALLOC_ARENA_MAX", "MALLOC_CHECK_", "GOFLAGS", "LESSOPEN",
	} {
		assert.Empty(t, LoaderEffect(name), name)
	}
}

func TestCheckLoaders_NamesVariablesAndEffects(t *testing.T) {
	pairs := map[string]any{"PATH": "x", "LD_PRELOAD": "y", "API_KEY": "z", "PS4": "w"}
	err := CheckLoaders(pairs, func(name string) bool { return name == "PATH" })
	require.EqualError(t, err, "variable \"LD_PRELOAD\" refused: loads code into every program\nvariable \"PS4\" refused: is run, or obeyed, by every shell script")
	require.NoError(t, CheckLoaders(pairs, func(string) bool { return true }))
}

func TestEncode_NamesTenKeysAtMost(t *testing.T) {
	pairs := map[string]any{}
	for i := range 100_000 {
		pairs[fmt.Sprintf("9%d", i)] = "x"
	}
	_, err := Encode(Shell, pairs)
	require.ErrorContains(t, err, "99990 more keys")
	assert.Less(t, len(err.Error()), 3000)
}
