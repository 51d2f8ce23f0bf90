package dotenv

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// loaders are the variables by which whoever sets them runs code of his own in a service
// that did not ask for it, or decides which files and hosts its libraries use. They are
// what glibc and sudo take out of an environment that they do not trust (ld.so(8) "secure-
// execution mode" and sysdeps/generic/unsecvars.h; sudoers(5) env_delete and the table
// initial_badenv_table of its env.c), and those that the manuals of shells, interpreters
// and git name. A name that ends in * is all that begin so.
//
// One key in the table fails the whole drop, so the table lacks names that secrets use
// honestly, and those that no service obeys unasked:
//   - ENV, PS1, PROMPT_COMMAND, EDITOR, VISUAL, PAGER, BROWSER, LESSOPEN and the like count
//     for a person at a terminal only. ENV=prod is a usual setting.
//   - JAVA_OPTS, CATALINA_OPTS and the like are read by start scripts, by which services are
//     configured on purpose; Java itself does not know them.
//   - GOFLAGS is for the go command.
//   - KRB5_KTNAME, SSL_CERT_FILE and the like name the service's own credentials.
//   - Of LD_*, only the loaders' own names are in it: LD_SDK_KEY is LaunchDarkly's.
//   - MALLOC_ARENA_MAX and other MALLOC_* but MALLOC_TRACE neither load nor write a file.
var loaders = []struct {
	effect string
	names  []string
}{
	// ld.so(8) of glibc and musl, rtld(1) of FreeBSD.
	{"loads code into every program", []string{"LD_PRELOAD*", "LD_LIBRARY_PATH*", "LD_AUDIT", "LD_ORIGIN_PATH", "LD_LIBMAP", "LD_ELF_HINTS_PATH"}},
	{"changes how every program is loaded", []string{
		"LD_ASSUME_KERNEL", "LD_BIND_NOT", "LD_BIND_NOW", "LD_DYNAMIC_WEAK", "LD_HWCAP_MASK", "LD_POINTER_GUARD", "LD_PREFER_MAP_32BIT_EXEC", "LD_SHOW_AUXV", "LD_TRACE_LOADED_OBJECTS", "LD_TRACE_PRELINKING",
		"LD_USE_LOAD_BIAS", "LD_VERBOSE", "LD_WARN",
	}},
	// ld.so(8), mtrace(3).
	{"makes the C library write files", []string{"LD_DEBUG", "LD_DEBUG_OUTPUT", "LD_PROFILE", "LD_PROFILE_OUTPUT", "MALLOC_TRACE"}},
	// dyld(1), and rld(1), ld.so.1(1) and dlopen(3) of other systems.
	{"loads code into every program", []string{"DYLD_*", "_RLD*", "LDR_PRELOAD*", "LIBPATH", "SHLIB_PATH"}},
	// iconv_open(3), locale(7), OPENSSL_config(3), openssl-env(7); glibc's nss and resolver: hostname(7), resolv.conf(5).
	{"makes the C library, or OpenSSL, load other files", []string{
		"GCONV_PATH", "GETCONF_DIR", "GLIBC_TUNABLES", "LOCPATH", "NLSPATH", "OPENSSL_CONF", "OPENSSL_ENGINES", "OPENSSL_MODULES",
	}},
	{"changes which host a name means", []string{"HOSTALIASES", "LOCALDOMAIN", "NIS_PATH", "RES_OPTIONS", "RESOLV_HOST_CONF"}},
	// execvp(3), bash(1), dash(1), zshparam(1). Exported functions of bash are BASH_FUNC_name%%.
	{"decides which programs are run", []string{"PATH", "PATHEXT", "CDPATH", "FPATH", "ZDOTDIR"}},
	{"is run, or obeyed, by every shell script", []string{
		"BASH_ENV", "SHELLOPTS", "BASHOPTS", "BASH_FUNC_*", "BASH_LOADABLES_PATH", "BASH_XTRACEFD", "PS4", "IFS", "GLOBIGNORE", "NULLCMD", "READNULLCMD",
	}},
	// node(1), python(1), perlrun(1), ruby(1), java(1), php(1), lua(1), dotnet's host-startup-hook.md,
	// erl(1), R's Startup(). PYTHONINSPECT makes a program interactive, which then runs PYTHONSTARTUP.
	{"loads code into every program of Node.js", []string{"NODE_OPTIONS", "NODE_PATH"}},
	{"loads code into every program of Python", []string{"PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONUSERBASE", "PYTHONPLATLIBDIR", "PYTHONBREAKPOINT", "PYTHONWARNINGS", "PYTHONEXECUTABLE"}},
	{"loads code into every program of Perl", []string{"PERL5OPT", "PERL5LIB", "PERL5DB", "PERLLIB", "PERLIO_DEBUG"}},
	{"loads code into every program of Ruby", []string{"RUBYOPT", "RUBYLIB", "RUBYSHELL", "GEM_PATH", "GEM_HOME", "BUNDLE_GEMFILE"}},
	{"loads code into every program of Java", []string{"JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH"}},
	{"loads code into every program of PHP", []string{"PHPRC", "PHP_INI_SCAN_DIR"}},
	{"loads code into every program of .NET", []string{
		"DOTNET_STARTUP_HOOKS", "DOTNET_ADDITIONAL_DEPS", "DOTNET_SHARED_STORE", "DOTNET_ROOT*", "CORECLR_ENABLE_PROFILING", "CORECLR_PROFILER*", "COR_ENABLE_PROFILING", "COR_PROFILER*",
	}},
	{"loads code into every program of its language", []string{"LUA_INIT*", "LUA_PATH*", "LUA_CPATH*", "ERL_AFLAGS", "ERL_FLAGS", "ERL_ZFLAGS", "ERL_LIBS", "R_PROFILE*", "R_ENVIRON*", "GUILE_LOAD_*", "TCLLIBPATH"}},
	// git(1), git-config(1), git-var(1), ssh(1). git runs GIT_EDITOR without a terminal, too.
	{"is a command, or names a file of commands, that git or ssh runs", []string{
		"GIT_SSH", "GIT_SSH_COMMAND", "GIT_ASKPASS", "GIT_CONFIG*", "GIT_EDITOR", "GIT_SEQUENCE_EDITOR", "GIT_EXEC_PATH", "GIT_EXTERNAL_DIFF",
		"GIT_PROXY_COMMAND", "GIT_TEMPLATE_DIR", "SSH_ASKPASS",
	}},
	// krb5.conf(5), whose section plugins loads code; terminfo(5).
	{"makes a library read a file of another's choice", []string{"KRB5_CONFIG", "TERMCAP", "TERMINFO*", "TERMPATH"}},
}

// LoaderEffect says what a variable of this name does to a program that did not ask for
// it, such as "loads code into every program" for LD_PRELOAD; "" is nothing.
func LoaderEffect(name string) string {
	for _, family := range loaders {
		for _, pattern := range family.names {
			prefix, isPrefix := strings.CutSuffix(pattern, "*")
			if name == pattern || isPrefix && strings.HasPrefix(name, prefix) {
				return family.effect
			}
		}
	}
	return ""
}

// LoaderError reports that a key of a secret would become a variable that loads code or
// runs commands. It holds no value.
type LoaderError struct {
	// Name is the variable's.
	Name string
	// Effect is what the variable does.
	Effect string
}

func (e *LoaderError) Error() string {
	subject := "a variable"
	if e.Name != "" {
		subject = fmt.Sprintf("variable %q", e.Name)
	}
	return subject + " refused: " + e.Effect
}

// CheckLoaders fails on variables that load code or run commands, unless isNamed reports
// that the user has named the variable. The errors of all are joined; each is a
// [*LoaderError].
func CheckLoaders(pairs map[string]any, isNamed func(name string) bool) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(pairs)) {
		if effect := LoaderEffect(name); effect != "" && !isNamed(name) {
			errs = append(errs, &LoaderError{Name: name, Effect: effect})
		}
	}
	return join(errs)
}

// mostErrors is how many errors are told of one secret, whose keys may be countless.
const mostErrors = 10

func join(errs []error) error {
	if more := len(errs) - mostErrors; more > 0 {
		errs = append(errs[:mostErrors:mostErrors], &KeyError{Reason: fmt.Sprintf("of %d more keys cannot be written", more)})
	}
	return errors.Join(errs...)
}
