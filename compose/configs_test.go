// Package compose_test starts what is in this folder: Vault's configurations on a
// real Vault, and the compose files on a real Docker engine.
package compose_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// The time that something may take which needs an election, or a container.
const soon, tick = 5 * time.Minute, 250 * time.Millisecond

// config is a file of this folder in which every old text of the pairs becomes the
// new one. All of them must be there: a path that is not found would be the
// machine's own.
func config(t *testing.T, file string, pairs ...string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	text := string(content)
	for i := 0; i < len(pairs); i += 2 {
		require.Contains(t, text, pairs[i], file)
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	return text
}

// check has Vault's own parser read a configuration, and returns what it finds.
func check(t *testing.T, file string) (problems string) {
	t.Helper()
	vaulttest.NotShort(t)
	vault, err := vaulttest.Binary()
	require.NoError(t, err)
	out, err := exec.Command(vault, "server", "-check", "-config", file).CombinedOutput()
	if err != nil {
		require.NotEmpty(t, out, "%v", err)
	}
	return string(out)
}

func configs(t *testing.T) []string {
	t.Helper()
	variants, err := filepath.Glob("vault/*.hcl")
	require.NoError(t, err)
	require.NotEmpty(t, variants)
	return append(variants, "vault.hcl")
}

func TestVaultKnowsEveryKeyOfItsConfigurations(t *testing.T) {
	t.Parallel()
	for _, file := range configs(t) {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			assert.Empty(t, check(t, file))
			for _, block := range blocks(t, config(t, file)) {
				name := strings.Join(append([]string{block.Type}, block.Labels...), " ")
				if strings.HasPrefix(file, "vault/openbao") && name == "audit file file" {
					continue // OpenBao's alone
				}
				known, ok := keysOf[name]
				assert.True(t, ok, "%s: block %s", file, name)
				for key := range block.Body.Attributes {
					assert.Contains(t, known, key, "%s: block %s", file, name)
				}
			}
		})
	}
}

// keysOf are keys of blocks in which Vault's parser tells nothing about what it does
// not know: as it has no warning for a block with a label, they are listed here.
var keysOf = map[string][]string{
	"telemetry":      {"prometheus_retention_time", "disable_hostname"},
	"listener tcp":   {"address", "cluster_address", "tls_disable", "tls_cert_file", "tls_key_file", "tls_min_version"},
	"storage file":   {"path"},
	"storage raft":   {"path", "node_id"},
	"storage consul": {"address", "scheme", "path", "service"},
	"storage s3":     {"bucket", "region"},
}

func blocks(t *testing.T, text string) hclsyntax.Blocks {
	t.Helper()
	file, diagnostics := hclsyntax.ParseConfig([]byte(text), "vault.hcl", hcl.InitialPos)
	require.False(t, diagnostics.HasErrors(), "%v", diagnostics)
	return file.Body.(*hclsyntax.Body).Blocks
}

func TestAKeyThatVaultDoesNotKnowIsFound(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "vault.hcl")
	for old, broken := range map[string]string{
		"ui = true":           "iu = true",
		"tls_disable = true":  "tls_disabled = true",
		"disable_hostname = ": "disable_hostnames = ",
	} {
		text := config(t, "vault.hcl", old, broken)
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		assert.Contains(t, check(t, file), "unknown or unsupported field "+strings.Fields(broken)[0], broken)
	}
	require.NoError(t, os.WriteFile(file, []byte("storage {"), 0o600))
	assert.Contains(t, check(t, file), file)
}

// The variants say the same where they do not have to differ.
func TestConfigurationsAgree(t *testing.T) {
	t.Parallel()
	setting := func(text, key string) string {
		for _, line := range strings.Split(text, "\n") {
			if k, v, ok := strings.Cut(line, "="); ok && strings.TrimSpace(k) == key {
				return strings.TrimSpace(v)
			}
		}
		return ""
	}
	first := config(t, "vault.hcl")
	for _, file := range configs(t) {
		keys := []string{"prometheus_retention_time", "disable_hostname"}
		if file != "vault/dev.hcl" {
			keys = append(keys, "ui", "log_level", "log_format", "default_lease_ttl", "max_lease_ttl", "cluster_name", "address")
		}
		for _, key := range keys {
			if file == "vault/consul.hcl" && key == "address" {
				continue // of Consul, before that of the listener
			}
			assert.NotEmpty(t, setting(first, key), key)
			assert.Equal(t, setting(first, key), setting(config(t, file), key), "%s: %s", file, key)
		}
	}
}

// status asks a Vault for its health, as a load balancer does.
func status(t *testing.T, client *http.Client, url string) int {
	t.Helper()
	response, err := client.Get(url)
	if err != nil {
		return 0
	}
	_, _ = io.Copy(io.Discard, response.Body)
	require.NoError(t, response.Body.Close())
	return response.StatusCode
}

// initialise makes a new Vault with one unseal key, which it returns.
func initialise(t *testing.T, client *api.Client) (key string) {
	t.Helper()
	keys, err := client.Sys().Init(&api.InitRequest{SecretShares: 1, SecretThreshold: 1})
	require.NoError(t, err)
	client.SetToken(keys.RootToken)
	return keys.KeysB64[0]
}

func unseal(t *testing.T, client *api.Client, key string) {
	t.Helper()
	status, err := client.Sys().Unseal(key)
	require.NoError(t, err)
	require.False(t, status.Sealed)
}

// metrics are those that Prometheus gets with a client's token.
func metrics(t *testing.T, client *api.Client) string {
	t.Helper()
	response, err := client.Logical().ReadRawWithData("sys/metrics", map[string][]string{"format": {"prometheus"}})
	require.NoError(t, err)
	content, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return string(content)
}

// withoutMlock lets a Vault run where memory cannot be locked.
const withoutMlock = "VAULT_DISABLE_MLOCK=true"

func TestVaultRunsWithFileStorage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := vaulttest.Uninitialised(t, config(t, "vault.hcl",
		"/vault/file", dir, "0.0.0.0:8200", "127.0.0.1:0", `log_level  = "info"`, `log_level = "error"`), withoutMlock)
	health := s.Address + "/v1/sys/health"
	assert.Equal(t, http.StatusNotImplemented, status(t, http.DefaultClient, health))
	key := initialise(t, s.Client)
	assert.Equal(t, http.StatusServiceUnavailable, status(t, http.DefaultClient, health))
	unseal(t, s.Client, key)
	assert.Equal(t, http.StatusOK, status(t, http.DefaultClient, health))
	seal, err := s.Client.Sys().SealStatus()
	require.NoError(t, err)
	assert.Equal(t, "file", seal.StorageType)
	assert.Equal(t, "smarteros", seal.ClusterName)
	stored, err := os.ReadDir(filepath.Join(dir, "core"))
	require.NoError(t, err)
	assert.NotEmpty(t, stored)

	assert.Contains(t, metrics(t, s.Client), "vault_core_unsealed")
	assert.Equal(t, http.StatusForbidden, status(t, http.DefaultClient, s.Address+"/v1/sys/metrics?format=prometheus"), "without a token")
	assert.Equal(t, http.StatusOK, status(t, http.DefaultClient, s.Address+"/ui/"))
	token, err := s.Client.Auth().Token().Create(&api.TokenCreateRequest{Policies: []string{"default"}})
	require.NoError(t, err)
	assert.Equal(t, int(time.Hour/time.Second), token.Auth.LeaseDuration)
	root := s.Client.Token()

	s.Stop()
	s.Restart(t)
	assert.Equal(t, http.StatusServiceUnavailable, status(t, http.DefaultClient, health), "it keeps what it was and is sealed")
	unseal(t, s.Client, key)
	s.Client.SetToken(root)
	_, err = s.Client.Auth().Token().LookupSelf()
	require.NoError(t, err)
}

func TestSIGHUPStartsANewAuditLogAfterARotation(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "audit.log")
	s := vaulttest.Uninitialised(t, "")
	unseal(t, s.Client, initialise(t, s.Client))
	require.NoError(t, s.Client.Sys().EnableAuditWithOptions("file", &api.EnableAuditOptions{
		Type: "file", Options: map[string]string{"file_path": log},
	}))
	require.FileExists(t, log)
	require.NoError(t, os.Rename(log, log+".1"))
	require.NoError(t, syscall.Kill(s.PID, syscall.SIGHUP))
	require.Eventually(t, func() bool {
		_, err := os.Stat(log)
		return err == nil
	}, soon, tick)
	_, err := s.Client.Auth().Token().LookupSelf()
	require.NoError(t, err)
	content, err := os.ReadFile(log)
	require.NoError(t, err)
	assert.Contains(t, string(content), "auth/token/lookup-self")
}

// authority signs server certificates for a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// sign writes tls.crt and tls.key for 127.0.0.1 and the platform's name of Vault,
// and ca.crt, into a folder.
func (a *authority) sign(t *testing.T, dir string, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: "test " + strconv.FormatInt(serial, 10)},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		DNSNames:     []string{"smarteros-vault"},
	}
	if a.cert == nil {
		template.IsCA, template.BasicConstraintsValid = true, true
		a.cert, a.key = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	if template.IsCA {
		a.cert = cert
		a.sign(t, dir, serial+1)
		return
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	for name, block := range map[string]*pem.Block{
		"tls.crt": {Type: "CERTIFICATE", Bytes: der},
		"tls.key": {Type: "PRIVATE KEY", Bytes: private},
		"ca.crt":  {Type: "CERTIFICATE", Bytes: a.cert.Raw},
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600))
	}
}

// client trusts the authority, and speaks one version of TLS where that is not 0.
func (a *authority) client(version uint16) *http.Client {
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{RootCAs: roots, MinVersion: version, MaxVersion: version},
	}}
}

// vaultClient is a client of Vault's API that trusts the authority in a folder.
func vaultClient(t *testing.T, address, dir string) *api.Client {
	t.Helper()
	config := api.DefaultConfig()
	require.NoError(t, config.Error)
	if dir != "" {
		require.NoError(t, config.ConfigureTLS(&api.TLSConfig{CACert: filepath.Join(dir, "ca.crt")}))
	}
	config.Address = address
	client, err := api.NewClient(config)
	require.NoError(t, err)
	require.NoError(t, client.SetAddress(address))
	client.ClearToken()
	return client
}

func TestVaultSpeaksTLSAndTakesARenewedCertificateOnSIGHUP(t *testing.T) {
	t.Parallel()
	dir, certs := t.TempDir(), t.TempDir()
	ca := &authority{}
	ca.sign(t, certs, 1)
	s := vaulttest.Uninitialised(t, config(t, "vault/tls.hcl",
		"/vault/file", dir, "/vault/tls", certs, "0.0.0.0:8200", "127.0.0.1:0",
		`log_level         = "info"`, `log_level = "error"`), withoutMlock)
	require.True(t, strings.HasPrefix(s.Address, "https://"), s.Address)
	health := s.Address + "/v1/sys/health?uninitcode=200"
	assert.Equal(t, http.StatusOK, status(t, ca.client(0), health))
	assert.Equal(t, http.StatusOK, status(t, ca.client(tls.VersionTLS12), health))
	assert.Zero(t, status(t, ca.client(tls.VersionTLS11), health), "too old")
	assert.Zero(t, status(t, http.DefaultClient, health), "an authority that nobody trusts")
	assert.Equal(t, http.StatusBadRequest, status(t, http.DefaultClient, "http"+strings.TrimPrefix(health, "https")), "in the clear")

	client := vaultClient(t, s.Address, certs)
	unseal(t, client, initialise(t, client))
	assert.Contains(t, metrics(t, client), "vault_core_unsealed")

	serial := func() int64 {
		conn, err := tls.Dial("tcp", strings.TrimPrefix(s.Address, "https://"), ca.client(0).Transport.(*http.Transport).TLSClientConfig)
		require.NoError(t, err)
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	require.EqualValues(t, 2, serial())
	ca.sign(t, certs, 3)
	require.NoError(t, syscall.Kill(s.PID, syscall.SIGHUP))
	require.Eventually(t, func() bool { return serial() == 3 }, soon, tick)
	assert.Equal(t, http.StatusOK, status(t, ca.client(0), s.Address+"/v1/sys/health"), "it is not sealed")
}

// node starts one of the three Vaults of the Raft configuration.
func node(t *testing.T, i int, addresses, cluster []string) *vaulttest.Server {
	t.Helper()
	name := "vault-" + strconv.Itoa(i+1)
	return vaulttest.Uninitialised(t, config(t, "vault/raft.hcl",
		"/vault/file", t.TempDir(),
		"0.0.0.0:8200", addresses[i], "0.0.0.0:8201", cluster[i],
		"http://vault-1:8200", "http://"+addresses[0],
		"http://vault-2:8200", "http://"+addresses[1],
		"http://vault-3:8200", "http://"+addresses[2],
		`log_level  = "info"`, `log_level = "off"`, // that peers are gone is what it is about
	), "VAULT_RAFT_NODE_ID="+name, "VAULT_API_ADDR=http://"+addresses[i], "VAULT_CLUSTER_ADDR=https://"+cluster[i])
}

// join unseals a node, which becomes a member as soon as it has found the cluster.
func join(t *testing.T, client *api.Client, key string) {
	t.Helper()
	require.Eventually(t, func() bool {
		status, err := client.Sys().Unseal(key)
		return err == nil && (!status.Sealed || status.Initialized)
	}, soon, tick)
	require.Eventually(t, func() bool {
		status, err := client.Sys().SealStatus()
		return err == nil && !status.Sealed
	}, soon, tick)
}

// voters are the names of the nodes that elect a leader.
func voters(client *api.Client) (names []string) {
	secret, err := client.Logical().Read("sys/storage/raft/configuration")
	if err != nil || secret == nil {
		return nil
	}
	for _, server := range secret.Data["config"].(map[string]any)["servers"].([]any) {
		if s := server.(map[string]any); s["voter"] == true {
			names = append(names, s["node_id"].(string))
		}
	}
	return names
}

func TestThreeNodesFindEachOtherAndGoOnWithoutOne(t *testing.T) {
	t.Parallel()
	var addresses, cluster []string
	for range 3 {
		addresses = append(addresses, vaulttest.FreeAddress(t))
		cluster = append(cluster, vaulttest.FreeAddress(t))
	}
	var nodes []*vaulttest.Server
	for i := range addresses {
		nodes = append(nodes, node(t, i, addresses, cluster))
	}
	key := initialise(t, nodes[0].Client)
	root := nodes[0].Client.Token()
	for _, n := range nodes {
		join(t, n.Client, key)
		n.Client.SetToken(root)
	}
	require.NoError(t, nodes[0].Client.Sys().Mount("secret", &api.MountInput{Type: "kv"}))
	want := []string{"vault-1", "vault-2", "vault-3"}
	require.Eventually(t, func() bool { return assert.ObjectsAreEqual(want, sorted(voters(nodes[0].Client))) }, soon, tick,
		"a new node votes after ten seconds")

	write := func(n *vaulttest.Server, value string) func() bool {
		return func() bool {
			_, err := n.Client.Logical().Write("secret/app", map[string]any{"value": value})
			return err == nil
		}
	}
	read := func(n *vaulttest.Server) func() any {
		return func() any {
			secret, err := n.Client.Logical().Read("secret/app")
			if err != nil || secret == nil {
				return nil
			}
			return secret.Data["value"]
		}
	}
	require.True(t, write(nodes[1], "before")(), "a standby forwards to the leader")
	lost := vaulttest.Leader(t, nodes)
	lost.Kill()
	var left []*vaulttest.Server
	for _, n := range nodes {
		if n != lost {
			left = append(left, n)
		}
	}
	for _, n := range left {
		require.Eventually(t, write(n, "after, by "+n.Address), soon, tick)
	}
	leader := vaulttest.Leader(t, left)
	assert.NotEqual(t, lost.Address, leader.Address)
	assert.Equal(t, http.StatusOK, status(t, http.DefaultClient, leader.Address+"/v1/sys/health"))
	assert.Contains(t, metrics(t, leader.Client), "vault_raft")

	lost.Restart(t)
	assert.Equal(t, http.StatusServiceUnavailable, status(t, http.DefaultClient, lost.Address+"/v1/sys/health"))
	join(t, lost.Client, key)
	lost.Client.SetToken(root)
	require.Eventually(t, func() bool { return read(lost)() == "after, by "+left[1].Address }, soon, tick)
	assert.Equal(t, http.StatusTooManyRequests, status(t, http.DefaultClient, lost.Address+"/v1/sys/health"), "it stands by")
	assert.Equal(t, want, sorted(voters(lost.Client)))
}

func sorted(names []string) []string {
	slices.Sort(names)
	return names
}
