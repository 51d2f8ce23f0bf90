package devvault

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/armon/go-metrics"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/audit"
	"github.com/hashicorp/vault/command/server"
	"github.com/hashicorp/vault/helper/metricsutil"
	"github.com/hashicorp/vault/helper/namespace"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/vault"
)

// newCore makes a Vault on the storage of its type. It is sealed.
func (s *Server) newCore(storageType string, log hclog.Logger) (*vault.Core, error) {
	r := builtins()
	config := &vault.CoreConfig{
		Physical:           s.storage,
		StorageType:        storageType,
		BuiltinRegistry:    r,
		LogicalBackends:    r.factories(consts.PluginTypeSecrets),
		CredentialBackends: r.factories(consts.PluginTypeCredential),
		AuditBackends:      map[string]audit.Factory{"file": audit.NewFileBackend},
		// Locking memory takes a privilege, and there is nothing to guard here.
		DisableMlock: true,
		Logger:       log,
		LogLevel:     log.GetLevel().String(),
		// The two below are only there because sys/config/state and sys/metrics
		// look into them unasked.
		RawConfig:     &server.Config{SharedConfig: &configutil.SharedConfig{DisableMlock: true}},
		MetricsHelper: metricsutil.NewMetricsHelper(metrics.NewInmemSink(10*time.Second, time.Minute), false),
		// It counts clients for the bill.
		ActivityLogConfig: vault.ActivityLogCoreConfig{DisableTimers: true},
	}
	if s.node != nil {
		s.node.cluster(config, s.Address)
	}
	core, err := vault.NewCore(config)
	if err != nil {
		return nil, fmt.Errorf("creating Vault's core: %w", err)
	}
	return core, nil
}

// open brings the server into the state that was asked for. It is going to be
// reached at an address.
func (s *Server) open(ctx context.Context, o Options, at net.Addr) error {
	ctx = namespace.RootContext(ctx)
	if err := s.makeCore(o, at.(*net.TCPAddr).IP); err != nil {
		return err
	}
	if err := s.unlock(ctx, o); err != nil {
		return err
	}
	if o.Audit != "" {
		if err := s.auditTo(ctx, o.Audit); err != nil {
			return fmt.Errorf("auditing to %s: %w", o.Audit, err)
		}
	}
	if o.Sealed {
		if err := s.core.Seal(s.RootToken); err != nil {
			return fmt.Errorf("sealing: %w", err)
		}
	}
	return nil
}

// makeCore makes the sealed core on what the state folder holds.
func (s *Server) makeCore(o Options, ip net.IP) (err error) {
	if s.state, err = openState(o.State); err != nil {
		return err
	}
	if s.node, err = s.state.node(o.Raft.NodeID, ip); err != nil {
		return err
	}
	storage, storageType, err := s.state.storage(s.node, o.Log)
	if err != nil {
		return fmt.Errorf("opening storage: %w", err)
	}
	s.storage = storage
	if s.core, err = s.newCore(storageType, o.Log); err != nil || s.node == nil {
		return err
	}
	return s.node.connect(s.core)
}

// unlock unseals the Vault that the state folder holds, that of the cluster to
// join, or a new one.
func (s *Server) unlock(ctx context.Context, o Options) error {
	known, err := s.state.load()
	if err != nil {
		return err
	}
	if known != nil {
		if o.RootToken != "" && o.RootToken != known.RootToken {
			return fmt.Errorf("the Vault in %s keeps the root token it was made with: start it without another one", s.state.dir)
		}
		s.Keys = *known
		return s.unseal(ctx)
	}
	if o.Raft.Join != "" {
		return s.join(ctx, o)
	}
	err = s.initialize(ctx, o.RootToken)
	if err == nil {
		err = s.mountKV(ctx)
	}
	if errors.Is(err, vault.ErrAlreadyInit) {
		return fmt.Errorf("the Vault in %s was never set up to the end and has no keys: delete it: %w", s.state.dir, err)
	}
	if err != nil {
		return err
	}
	return s.state.save(s.Keys)
}

// initialize makes a new Vault with the wished root token, and unseals it.
func (s *Server) initialize(ctx context.Context, rootToken string) error {
	result, err := s.core.Initialize(ctx, &vault.InitParams{
		BarrierConfig:  &vault.SealConfig{SecretShares: 1, SecretThreshold: 1},
		RecoveryConfig: &vault.SealConfig{},
	})
	if err != nil {
		return fmt.Errorf("initialising: %w", err)
	}
	s.Keys = Keys{RootToken: result.RootToken}
	for _, share := range result.SecretShares {
		s.UnsealKeys = append(s.UnsealKeys, base64.StdEncoding.EncodeToString(share))
	}
	if err := s.unseal(ctx); err != nil {
		return err
	}
	if rootToken == "" {
		return nil
	}
	return s.replaceRootToken(ctx, rootToken)
}

func (s *Server) unseal(ctx context.Context) error {
	if err := s.enterKeys(); err != nil {
		return err
	}
	if s.core.Sealed() {
		return errors.New("unsealing: still sealed after the last key")
	}
	return s.waitForLeader(ctx)
}

func (s *Server) enterKeys() error {
	for _, key := range s.UnsealKeys {
		share, err := base64.StdEncoding.DecodeString(key)
		if err != nil {
			return fmt.Errorf("unseal key: %w", err)
		}
		if _, err := s.core.Unseal(share); err != nil {
			return fmt.Errorf("unsealing: %w", err)
		}
	}
	return nil
}

// replaceRootToken makes a root token of a chosen value, as the first one has a
// value of Vault's choice.
func (s *Server) replaceRootToken(ctx context.Context, token string) error {
	_, err := s.request(ctx, logical.UpdateOperation, "auth/token/create", map[string]any{
		"id": token, "policies": []string{"root"}, "no_parent": true, "no_default_policy": true,
	})
	if err != nil {
		return fmt.Errorf("making the root token: %w", err)
	}
	if _, err := s.request(ctx, logical.UpdateOperation, "auth/token/revoke-self", nil); err != nil {
		return fmt.Errorf("revoking the first root token: %w", err)
	}
	s.RootToken = token
	return nil
}

// mountKV mounts kv v2 at secret/, as `vault server -dev` does. The engine marks
// its storage as version 2 in the background, a moment later; without the mark,
// a restart would take what is in it for version 1, so that is waited for.
func (s *Server) mountKV(ctx context.Context) error {
	_, err := s.request(ctx, logical.UpdateOperation, "sys/mounts/secret", map[string]any{
		"type":        "kv",
		"description": "key/value secret storage",
		"options":     map[string]string{"version": "2"},
	})
	if err != nil {
		return fmt.Errorf("mounting secret/: %w", err)
	}
	for range 1000 {
		keys, err := logical.CollectKeysWithPrefix(ctx, s.storage, "logical/")
		if err != nil {
			return fmt.Errorf("looking for the mark of kv v2: %w", err)
		}
		if slices.ContainsFunc(keys, func(k string) bool { return path.Base(k) == "upgrading" }) {
			return nil
		}
		time.Sleep(2 * time.Millisecond)
	}
	return errors.New("waiting for secret/ to become kv v2: it did not within two seconds")
}

// auditTo writes an audit log. It takes the place of one that an earlier run on
// the same state left, as that may have gone to another file.
func (s *Server) auditTo(ctx context.Context, file string) error {
	file, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	devices, err := s.request(ctx, logical.ReadOperation, "sys/audit", nil)
	if err != nil {
		return err
	}
	if _, left := devices.Data["file/"]; left {
		if _, err := s.request(ctx, logical.DeleteOperation, "sys/audit/file", nil); err != nil {
			return err
		}
	}
	_, err = s.request(ctx, logical.UpdateOperation, "sys/audit/file", map[string]any{
		"type": "file", "options": map[string]string{"file_path": file},
	})
	return err
}

// request asks the core as root, before anybody else can.
func (s *Server) request(ctx context.Context, op logical.Operation, at string, data map[string]any) (*logical.Response, error) {
	response, err := s.core.HandleRequest(ctx, &logical.Request{
		Operation: op, Path: at, ClientToken: s.RootToken, Data: data,
	})
	if err == nil && response.IsError() {
		err = response.Error()
	}
	return response, err
}
