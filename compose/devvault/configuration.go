package devvault

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-secure-stdlib/parseutil"
	"github.com/hashicorp/vault/command/server"
	"github.com/hashicorp/vault/helper/logging"
	"github.com/hashicorp/vault/internalshared/configutil"
)

// Configuration is a configuration of Vault's server, as Vault itself reads it.
type Configuration struct {
	*server.Config
	// Problems are what Vault warns of and goes on: keys that it does not know
	// (with file, line and column), and keys that are there twice.
	Problems []string
}

// LoadConfiguration reads files, and the .hcl and .json files of folders, with
// Vault's own parser; a later one changes what an earlier one says. Of Vault's
// environment variables it knows VAULT_API_ADDR, VAULT_CLUSTER_ADDR,
// VAULT_DISABLE_MLOCK, VAULT_LOG_LEVEL, VAULT_LOG_FORMAT and VAULT_UI; storage
// "raft" reads VAULT_RAFT_NODE_ID and VAULT_RAFT_PATH.
func LoadConfiguration(paths ...string) (*Configuration, error) {
	c := &Configuration{}
	for _, path := range paths {
		if err := c.add(path); err != nil {
			return nil, fmt.Errorf("reading the configuration %s: %w", path, err)
		}
	}
	if c.Config == nil {
		c.Config = server.NewConfig()
	}
	if len(c.Seals) > 0 {
		return nil, fmt.Errorf("seal %q is not built into devvault, which is unsealed with keys: use Vault itself", c.Seals[0].Type)
	}
	if c.ServiceRegistration != nil {
		return nil, fmt.Errorf("service_registration %q is not built into devvault: use Vault itself", c.ServiceRegistration.Type)
	}
	return c, c.readEnvironment()
}

func (c *Configuration) add(path string) error {
	more, twice, err := server.LoadConfigCheckDuplicate(path)
	if err != nil {
		return err
	}
	if twice {
		c.Problems = append(c.Problems, path+": a key is there twice, of which one counts")
	}
	for _, problem := range more.Validate(path) {
		c.Problems = append(c.Problems, problem.String())
	}
	if c.Config == nil {
		c.Config = more
		return nil
	}
	c.Config = c.Merge(more)
	return nil
}

// readEnvironment takes from the environment what counts more than the files.
func (c *Configuration) readEnvironment() (err error) {
	// The parser has copied both addresses to where the storage is configured.
	c.APIAddr = configutil.NormalizeAddr(fromEnvironment("VAULT_API_ADDR", c.APIAddr))
	c.ClusterAddr = configutil.NormalizeAddr(fromEnvironment("VAULT_CLUSTER_ADDR", c.ClusterAddr))
	c.LogLevel = fromEnvironment("VAULT_LOG_LEVEL", c.LogLevel)
	c.LogFormat = fromEnvironment("VAULT_LOG_FORMAT", c.LogFormat)
	if c.DisableMlock, err = boolFromEnvironment("VAULT_DISABLE_MLOCK", c.DisableMlock); err != nil {
		return err
	}
	c.EnableUI, err = boolFromEnvironment("VAULT_UI", c.EnableUI)
	return err
}

func fromEnvironment(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func boolFromEnvironment(name string, otherwise bool) (bool, error) {
	text := os.Getenv(name)
	if text == "" {
		return otherwise, nil
	}
	value, err := strconv.ParseBool(text)
	if err != nil {
		return false, fmt.Errorf("$%s is %q, neither true nor false", name, text)
	}
	return value, nil
}

// saysMlock tells whether it is said what is to be done about memory that could
// be swapped: Vault wants a decision for integrated storage.
func (c *Configuration) saysMlock() bool {
	return os.Getenv("VAULT_DISABLE_MLOCK") != "" ||
		slices.ContainsFunc(c.SharedConfig.FoundKeys, func(k string) bool { return strings.EqualFold(k, "DisableMlock") })
}

// Logger is the log that the configuration asks for: to w, and to log_file, if
// there is one.
func (c *Configuration) Logger(w io.Writer) (hclog.InterceptLogger, error) {
	config, err := logging.NewLogConfig("vault")
	if err != nil {
		return nil, err
	}
	if c.LogLevel == "off" {
		return hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "vault", Level: hclog.Off}), nil
	}
	if config.LogLevel, err = logging.ParseLogLevel(c.LogLevel); err != nil {
		return nil, fmt.Errorf("log_level: %w", err)
	}
	if config.LogFormat, err = logging.ParseLogFormat(c.LogFormat); err != nil {
		return nil, fmt.Errorf("log_format: %w", err)
	}
	if config.LogRotateDuration, err = parseutil.ParseDurationSecond(c.LogRotateDuration); err != nil {
		return nil, fmt.Errorf("log_rotate_duration: %w", err)
	}
	config.LogFilePath, config.LogRotateBytes, config.LogRotateMaxFiles = c.LogFile, c.LogRotateBytes, c.LogRotateMaxFiles
	log, err := logging.Setup(config, w)
	if err != nil {
		return nil, fmt.Errorf("opening the log: %w", err)
	}
	return log, nil
}
