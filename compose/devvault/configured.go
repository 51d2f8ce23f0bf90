package devvault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/hashicorp/cli"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/audit"
	"github.com/hashicorp/vault/command/server"
	"github.com/hashicorp/vault/helper/metricsutil"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/physical/raft"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/physical"
	"github.com/hashicorp/vault/sdk/physical/file"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
	"github.com/hashicorp/vault/version"
)

// storages are the backends that a configuration may name. Vault's own binary
// has many more.
func storages() map[string]physical.Factory {
	return map[string]physical.Factory{
		"file":     file.NewFileBackend,
		"inmem":    inmem.NewInmem,
		"inmem_ha": inmem.NewInmemHA,
		"raft":     raft.NewRaftBackend,
	}
}

// Configured runs a server as its configuration says, which is Vault's own way:
// it is not initialised, and sealed, until somebody does something about that
// through the API. It has the address that it reads and nothing of [Keys]. The
// context ends the attempts to join a cluster.
func Configured(ctx context.Context, c *Configuration, log hclog.InterceptLogger) (_ *Server, err error) {
	s := &Server{Version: version.GetVersion().VersionNumber()}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.storage, err = c.openStorage(log); err != nil {
		return nil, err
	}
	config, err := c.core(s.storage, log)
	if err != nil {
		return nil, err
	}
	if s.core, err = vault.NewCore(config); err != nil {
		return nil, fmt.Errorf("creating Vault's core: %w", err)
	}
	s.auditFiles = func() error { return reopen(config) }
	listeners, err := s.listenAll(c)
	if err != nil {
		return nil, err
	}
	if c.Storage.Type == "raft" {
		if err := s.core.InitiateRetryJoin(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("joining the cluster of retry_join: %w", err), closeAll(listeners))
		}
	}
	for i, l := range listeners {
		s.serveConfigured(l, c.Listeners[i], c.DisablePrintableCheck, log)
	}
	return s, nil
}

// openStorage opens the storage that the configuration names.
func (c *Configuration) openStorage(log hclog.InterceptLogger) (physical.Backend, error) {
	if c.Storage == nil {
		return nil, errors.New(`the configuration names no storage: it needs a block such as storage "file" { path = "/vault/data" }`)
	}
	open, ok := storages()[c.Storage.Type]
	switch {
	case !ok:
		return nil, fmt.Errorf("storage %q is not built into devvault, which has file, raft, inmem and inmem_ha: use Vault itself", c.Storage.Type)
	case c.HAStorage != nil:
		return nil, errors.New("ha_storage is not built into devvault: use Vault itself")
	case c.Storage.Type == "raft" && c.ClusterAddr == "":
		return nil, errors.New("storage \"raft\" needs cluster_addr in the configuration, or $VAULT_CLUSTER_ADDR")
	case c.Storage.Type == "raft" && !c.saysMlock():
		return nil, errors.New("storage \"raft\" needs disable_mlock = true or false in the configuration, or $VAULT_DISABLE_MLOCK")
	}
	storage, err := open(c.Storage.Config, log.Named("storage."+c.Storage.Type))
	if err != nil {
		return nil, fmt.Errorf("opening the storage %q: %w", c.Storage.Type, err)
	}
	return storage, nil
}

// core is what Vault's core is made of.
func (c *Configuration) core(storage physical.Backend, log hclog.InterceptLogger) (*vault.CoreConfig, error) {
	memory, sink, prometheus, err := configutil.SetupTelemetry(&configutil.SetupTelemetryOpts{
		Config: c.Telemetry, Ui: &cli.BasicUi{Writer: os.Stderr, ErrorWriter: os.Stderr},
		ServiceName: "vault", DisplayName: "Vault", ClusterName: c.ClusterName,
	})
	if err != nil {
		return nil, fmt.Errorf("setting up telemetry: %w", err)
	}
	r := builtins()
	config := &vault.CoreConfig{
		RawConfig:                      c.Config,
		Physical:                       storage,
		StorageType:                    c.Storage.Type,
		BuiltinRegistry:                r,
		LogicalBackends:                r.factories(consts.PluginTypeSecrets),
		CredentialBackends:             r.factories(consts.PluginTypeCredential),
		AuditBackends:                  map[string]audit.Factory{"file": audit.NewFileBackend},
		Logger:                         log,
		LogLevel:                       c.LogLevel,
		MetricsHelper:                  metricsutil.NewMetricsHelper(memory, prometheus),
		MetricSink:                     sink,
		RedirectAddr:                   c.APIAddr,
		ClusterName:                    c.ClusterName,
		DisableMlock:                   c.DisableMlock,
		DisableCache:                   c.DisableCache,
		CacheSize:                      c.CacheSize,
		DefaultLeaseTTL:                c.DefaultLeaseTTL,
		MaxLeaseTTL:                    c.MaxLeaseTTL,
		EnableUI:                       c.EnableUI,
		EnableRaw:                      c.EnableRawEndpoint,
		EnableIntrospection:            c.EnableIntrospectionEndpoint,
		EnableResponseHeaderHostname:   c.EnableResponseHeaderHostname,
		EnableResponseHeaderRaftNodeID: c.EnableResponseHeaderRaftNodeID,
		AllowAuditLogPrefixing:         c.AllowAuditLogPrefixing,
		DisableKeyEncodingChecks:       c.DisablePrintableCheck,
		// It counts clients for the bill.
		ActivityLogConfig: vault.ActivityLogCoreConfig{DisableTimers: true},
	}
	if ha, ok := storage.(physical.HABackend); ok && ha.HAEnabled() {
		config.HAPhysical = ha
		config.ClusterAddr, err = c.clusterAddr()
	}
	return config, err
}

// clusterAddr is where other nodes reach this one: what the configuration says,
// or else the port after that of the API.
func (c *Configuration) clusterAddr() (string, error) {
	if c.DisableClustering {
		return "", nil
	}
	address := c.ClusterAddr
	if address == "" {
		address = c.APIAddr
	}
	if address == "" {
		return "", nil
	}
	address, err := configutil.ParseSingleIPTemplate(address)
	if err != nil {
		return "", fmt.Errorf("cluster_addr: %w", err)
	}
	u, err := url.ParseRequestURI(address)
	if err != nil {
		return "", fmt.Errorf("cluster_addr: %w", err)
	}
	if c.ClusterAddr == "" {
		port, err := strconv.Atoi(u.Port())
		if err != nil {
			return "", fmt.Errorf("api_addr %q names no port, which cluster_addr would be taken from: set cluster_addr", address)
		}
		u.Host = net.JoinHostPort(u.Hostname(), strconv.Itoa(port+1))
	}
	u.Scheme = "https" // always, whatever the API speaks
	return u.String(), nil
}

// listenAll takes the ports of all listeners, and tells the core where the other
// nodes of its cluster reach it.
func (s *Server) listenAll(c *Configuration) (listeners []net.Listener, err error) {
	if len(c.Listeners) == 0 {
		return nil, errors.New(`the configuration has no listener: it needs a block such as listener "tcp" { address = "127.0.0.1:8200" }`)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll(listeners))
		}
	}()
	var cluster []*net.TCPAddr
	for _, config := range c.Listeners {
		l, _, reload, err := server.NewListener(config, io.Discard, &cli.BasicUi{Writer: os.Stderr, ErrorWriter: os.Stderr})
		if err != nil {
			return listeners, fmt.Errorf("listener %q at %s: %w", config.Type, config.Address, err)
		}
		listeners = append(listeners, l)
		if reload != nil {
			s.certificates = append(s.certificates, reload)
		}
		if s.Address == "" {
			s.Address = addressOf(l, !config.TLSDisable)
		}
		if config.Type != "tcp" || c.DisableClustering {
			continue
		}
		address, err := clusterListener(config, l)
		if err != nil {
			return listeners, err
		}
		cluster = append(cluster, address)
	}
	s.core.SetClusterListenerAddrs(cluster)
	s.core.SetClusterHandler(vaulthttp.Handler.Handler(&vault.HandlerProperties{
		Core: s.core, ListenerConfig: &configutil.Listener{},
	}))
	return listeners, nil
}

// addressOf is the URL under which a client on this machine reaches a listener.
func addressOf(l net.Listener, withTLS bool) string {
	address, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return "unix://" + l.Addr().String()
	}
	host := address.IP.String()
	if address.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	scheme := "http"
	if withTLS {
		scheme = "https"
	}
	return scheme + "://" + net.JoinHostPort(host, strconv.Itoa(address.Port))
}

// clusterListener is where a listener's traffic between nodes goes: the port
// after its own, unless its configuration says otherwise.
func clusterListener(config *configutil.Listener, l net.Listener) (*net.TCPAddr, error) {
	if config.ClusterAddress != "" {
		address, err := net.ResolveTCPAddr("tcp", config.ClusterAddress)
		if err != nil {
			return nil, fmt.Errorf("cluster_address of the listener at %s: %w", config.Address, err)
		}
		return address, nil
	}
	address, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return nil, fmt.Errorf("listener at %s: no port to take cluster_address from", config.Address)
	}
	return &net.TCPAddr{IP: address.IP, Port: address.Port + 1}, nil
}

// serveConfigured answers the requests of one listener in the background, with
// the limits of its configuration, or else those of Vault's own server.
func (s *Server) serveConfigured(l net.Listener, c *configutil.Listener, anyKey bool, log hclog.Logger) {
	setDefault(&c.MaxRequestSize, vaulthttp.DefaultMaxRequestSize)
	setDefault(&c.CustomMaxJSONDepth, vaulthttp.CustomMaxJSONDepth)
	setDefault(&c.CustomMaxJSONStringValueLength, vaulthttp.CustomMaxJSONStringValueLength)
	setDefault(&c.CustomMaxJSONObjectEntryCount, vaulthttp.CustomMaxJSONObjectEntryCount)
	setDefault(&c.CustomMaxJSONArrayElementCount, vaulthttp.CustomMaxJSONArrayElementCount)
	setDefault(&c.MaxRequestDuration, vault.DefaultMaxRequestDuration)
	setDefault(&c.HTTPReadHeaderTimeout, 10*time.Second)
	setDefault(&c.HTTPReadTimeout, 30*time.Second)
	setDefault(&c.HTTPIdleTimeout, 5*time.Minute)
	handler := vaulthttp.Handler.Handler(&vault.HandlerProperties{
		Core: s.core, ListenerConfig: c, DisablePrintableCheck: anyKey,
	})
	if len(c.XForwardedForAuthorizedAddrs) > 0 {
		handler = vaulthttp.WrapForwardedForHandler(handler, c)
	}
	s.serveHTTP(l, &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: c.HTTPReadHeaderTimeout,
		ReadTimeout:       c.HTTPReadTimeout,
		WriteTimeout:      c.HTTPWriteTimeout,
		IdleTimeout:       c.HTTPIdleTimeout,
	}, log)
}

func setDefault[T comparable](value *T, otherwise T) {
	var none T
	if *value == none {
		*value = otherwise
	}
}

func closeAll(listeners []net.Listener) error {
	var errs []error
	for _, l := range listeners {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// Reload reads the certificates of the listeners anew, and opens the files of
// audit devices again, as they may have been rotated.
func (s *Server) Reload() error {
	errs := []error{s.auditFiles()}
	for _, reload := range s.certificates {
		errs = append(errs, reload())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("reloading: %w", err)
	}
	return nil
}

// reopen runs what the core's audit devices have left for a reload.
func reopen(c *vault.CoreConfig) error {
	c.ReloadFuncsLock.RLock()
	defer c.ReloadFuncsLock.RUnlock()
	var errs []error
	for _, reloads := range *c.ReloadFuncs {
		for _, reload := range reloads {
			errs = append(errs, reload())
		}
	}
	return errors.Join(errs...)
}
