package dotenv

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLoaderEffect_KnowsLoadersAndNothingElse(t *testing.T) {
	for _, name := range []string{
		"LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "DYLD_INSERT_LIBRARIES", "PATH", "BASH_ENV", "ENV", "SHELLOPTS", "BASHOPTS", "BASH_FUNC_ls", "PS4", "PROMPT_COMMAND", "IFS", "CDPATH", "GLOBIGNORE",
		"NODE_OPTIONS", "NODE_PATH", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME", "PERL5OPT", "PERL5LIB", "PERLLIB", "RUBYOPT", "RUBYLIB", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH",
		"GCONV_PATH", "LOCPATH", "HOSTALIASES", "MALLOC_CHECK_", "GLIBC_TUNABLES", "GIT_SSH_COMMAND", "GIT_CONFIG_COUNT", "PHP_INI_SCAN_DIR", "DOTNET_STARTUP_HOOKS", "OPENSSL_CONF",
	} {
		assert.NotEmpty(t, LoaderEffect(name), name)
	}
	for _, name := range []string{"", "API_KEY", "DATABASE_URL", "MY_PATH", "PATHS", "ENVIRONMENT", "NODE_ENV", "PYTHON", "HOME", "LDAP_URL", "LD", "JAVA_HOME", "GIT_TOKEN", "RAILS_ENV", "path", "Ld_preload", "SSL_CERT_FILE"} {
		assert.Empty(t, LoaderEffect(name), name)
	}
}

func TestCheckLoaders_NamesVariableEffectAndHint(t *testing.T) {
	pairs := map[string]any{"PATH": "x", "LD_PRELOAD": "y", "API_KEY": "z"}
	err := CheckLoaders(pairs, func(name string) bool { return name == "PATH" }, "do this")
	require.EqualError(t, err, `variable "LD_PRELOAD" loads code into every program, so a key of a secret may not set it unasked; do this`)
	require.NoError(t, CheckLoaders(pairs, func(string) bool { return true }, ""))
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
