package config

import (
	"os"

	"github.com/smarteros/deaddrop/render/secret"
)

// Credentials are the secrets that the environment has given, by the names of their
// variables. What is not among them is looked for in the environment.
type Credentials map[string]secret.Value[string]

// SecretVariables are the variables that hold secrets of the agent's own.
func SecretVariables() []string { return []string{"VAULT_TOKEN", "VAULT_SECRET_ID"} }

// TakeCredentials takes the agent's secrets out of the environment, so that neither
// templates nor programs see them. A configuration that is read again needs them.
func TakeCredentials() Credentials {
	taken := Credentials{}
	for _, name := range SecretVariables() {
		if value, set := os.LookupEnv(name); set {
			taken[name] = secret.Of(value)
		}
		_ = os.Unsetenv(name) // It fails for names that are none.
	}
	return taken
}

// isEmpty reports whether a variable is set, but to nothing: a value was expected, and
// is lost.
func (c Credentials) isEmpty(name string) bool {
	if value, taken := c[name]; taken {
		return value.Reveal() == ""
	}
	value, set := os.LookupEnv(name)
	return set && value == ""
}

func (c Credentials) get(name string) string {
	if value, taken := c[name]; taken {
		return value.Reveal()
	}
	return os.Getenv(name)
}
