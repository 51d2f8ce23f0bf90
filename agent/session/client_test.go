package session

import (
	"bytes"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/compose/vaulttest"
	"github.com/smarteros/deaddrop/render/secret"
)

// asRoot logs in with the root token: these tests are about the way to Vault.
func asRoot(server *vaulttest.Server) config.Auth {
	return config.Auth{Method: config.MethodToken, Token: secret.Of(server.RootToken)}
}

// reach logs in and reads.
func reach(t *testing.T, s *Session) error {
	t.Helper()
	if err := s.Login(t.Context()); err != nil {
		return err
	}
	_, err := s.Read(t.Context(), "sys/mounts", nil)
	return err
}

// Namespaces are a feature of Vault Enterprise; that the header is sent is all
// that an agent can do for them.
func TestTheNamespaceIsSentWithEveryRequest(t *testing.T) {
	r := newRole(t, shared(t), nil)
	for name, tc := range map[string]struct{ file, variable, want string }{
		"none":                {"", "", ""},
		"of the file":         {"team-a", "", "team-a"},
		"of VAULT_NAMESPACE":  {"", "team-b", "team-b"},
		"the variable's wins": {"team-a", "team-b", "team-b"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("VAULT_NAMESPACE", tc.variable)
			p := newProxy(t, r.server)
			var seen []string
			p.inject(func(w http.ResponseWriter, req *http.Request) {
				seen = append(seen, req.Header.Get("X-Vault-Namespace"))
				req.Header.Del("X-Vault-Namespace") // This Vault has no namespaces.
				p.vault.ServeHTTP(w, req)
			})
			vault := p.through()
			vault.Namespace = tc.file
			auth := r.authFile(r.wrapped())
			auth.WrappingPath = r.at + "/secret-id"
			s, _ := newSession(t, vault, auth, r.secretID)
			require.NoError(t, s.Login(t.Context()))
			require.NoError(t, r.read(s))
			require.NoError(t, s.extend(t.Context()))
			s.Close(t.Context(), false)
			require.Len(t, seen, 6, "lookup, unwrap, login, read, renewal, revocation")
			for _, namespace := range seen {
				assert.Equal(t, strings.Trim(tc.want, "/"), strings.Trim(namespace, "/"))
			}
		})
	}
}

func TestTheAuthorityOfVaultIsTrustedFromFileAndFolderAndVariables(t *testing.T) {
	server, other := own(t, "-tls"), own(t, "-tls")
	folder := t.TempDir()
	content, err := os.ReadFile(server.CAFile)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(folder, "some-ca.pem"), content, 0o600))
	windows := t.TempDir()
	marked := filepath.Join(windows, "marked-ca.pem")
	require.NoError(t, os.WriteFile(marked, append([]byte("\uFEFF"), content...), 0o600))
	for name, tc := range map[string]struct {
		vault     config.Vault
		variables map[string]string
		fails     bool
	}{
		"ca_cert":                         {vault: config.Vault{CACert: server.CAFile}},
		"ca_path":                         {vault: config.Vault{CAPath: folder}},
		"ca_cert with a mark":             {vault: config.Vault{CACert: marked}},
		"ca_path with a mark":             {vault: config.Vault{CAPath: windows}},
		"VAULT_CACERT":                    {variables: map[string]string{"VAULT_CACERT": server.CAFile}},
		"VAULT_CAPATH":                    {variables: map[string]string{"VAULT_CAPATH": folder}},
		"VAULT_CACERT_BYTES":              {variables: map[string]string{"VAULT_CACERT_BYTES": string(content)}},
		"none":                            {fails: true},
		"another one":                     {vault: config.Vault{CACert: other.CAFile}, fails: true},
		"VAULT_CACERT wins over ca_cert":  {vault: config.Vault{CACert: other.CAFile}, variables: map[string]string{"VAULT_CACERT": server.CAFile}},
		"VAULT_CACERT wins over ca_path":  {vault: config.Vault{CAPath: filepath.Dir(other.CAFile)}, variables: map[string]string{"VAULT_CACERT": server.CAFile}},
		"VAULT_CAPATH wins over ca_cert":  {vault: config.Vault{CACert: other.CAFile}, variables: map[string]string{"VAULT_CAPATH": folder}},
		"the bytes win over ca_cert":      {vault: config.Vault{CACert: other.CAFile}, variables: map[string]string{"VAULT_CACERT_BYTES": string(content)}},
		"a wrong VAULT_CACERT wins, alas": {vault: config.Vault{CACert: server.CAFile}, variables: map[string]string{"VAULT_CACERT": other.CAFile}, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			for name, value := range tc.variables {
				t.Setenv(name, value)
			}
			tc.vault.Address = server.Address
			s, log := newSession(t, tc.vault, asRoot(server))
			err := reach(t, s)
			assert.NotContains(t, log.String(), "NOT VERIFIED")
			if !tc.fails {
				require.NoError(t, err)
				return
			}
			f := fault(t, err)
			assert.ErrorIs(t, f, ErrUnreachable)
			assert.False(t, f.Transient)
			assert.Contains(t, f.Detail, "certificate signed by unknown authority")
			assert.Equal(t, "set VAULT_CACERT to the authority that signed Vault's certificate", f.Hint)
		})
	}
}

func TestACertificateIsNotVerifiedOnlyWithALoudWarning(t *testing.T) {
	server := own(t, "-tls")
	for name, tc := range map[string]struct {
		file     bool
		variable string
		skips    bool
	}{
		"neither":                    {},
		"tls_skip_verify":            {file: true, skips: true},
		"VAULT_SKIP_VERIFY":          {variable: "true", skips: true},
		"VAULT_SKIP_VERIFY as 1":     {variable: "1", skips: true},
		"both":                       {file: true, variable: "true", skips: true},
		"the variable says no":       {file: true, variable: "false"},
		"the variable alone says no": {variable: "0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("VAULT_SKIP_VERIFY", tc.variable)
			s, log := newSession(t, config.Vault{Address: server.Address, TLSSkipVerify: tc.file}, asRoot(server))
			err := reach(t, s)
			assert.Equal(t, tc.skips, err == nil, err)
			assert.Equal(t, tc.skips, log.count("level=WARN msg=\"THE CERTIFICATE OF VAULT IS NOT VERIFIED: ") == 1)
		})
	}
}

func TestTheNameInTheCertificateCanBeSet(t *testing.T) {
	// The certificate is for 127.0.0.1, ::1 and localhost.
	server := own(t, "-tls", "-listen", "127.0.0.2:0")
	vault := config.Vault{Address: server.Address, CACert: server.CAFile}
	s, _ := newSession(t, vault, asRoot(server))
	f := fault(t, reach(t, s))
	assert.False(t, f.Transient)
	assert.Equal(t, "set VAULT_TLS_SERVER_NAME, or use a name that is in the certificate", f.Hint)

	t.Run("in the file", func(t *testing.T) {
		vault.TLSServerName = "localhost"
		s, _ := newSession(t, vault, asRoot(server))
		require.NoError(t, reach(t, s))
	})
	t.Run("by VAULT_TLS_SERVER_NAME, which wins", func(t *testing.T) {
		vault.TLSServerName = "nonsense"
		t.Setenv("VAULT_TLS_SERVER_NAME", "localhost")
		s, _ := newSession(t, vault, asRoot(server))
		require.NoError(t, reach(t, s))
	})
}

func TestAnAuthorityThatChangesIsReadAgain(t *testing.T) {
	server, other := own(t, "-tls"), own(t, "-tls")
	// Both are as long, and of the same tick of the clock: that happens.
	install := func(from, to string) {
		content, err := os.ReadFile(from)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(to, append(content, bytes.Repeat([]byte("\n"), 8192-len(content))...), 0o600))
		require.NoError(t, os.Chtimes(to, time.Unix(1, 0), time.Unix(1, 0)))
	}
	for name, folder := range map[string]bool{"file": false, "folder": true} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "ca.pem")
			install(other.CAFile, file)
			vault := config.Vault{Address: server.Address, CACert: file}
			if folder {
				vault = config.Vault{Address: server.Address, CAPath: dir}
			}
			s, log := newSession(t, vault, asRoot(server))
			require.Error(t, reach(t, s))
			// As a secrets operator does it: a new file in the place of the old.
			install(server.CAFile, file+".new")
			require.NoError(t, os.Rename(file+".new", file))
			eventually(t, func() bool { return reach(t, s) == nil }, "the new one is trusted")
			assert.Contains(t, log.String(), "certificate files have changed and were read again")
		})
	}
}

func TestClient_NamesAByteOrderMarkInTheFilesOfVariables(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, "ca.pem")
	require.NoError(t, os.WriteFile(file, []byte("\uFEFF-----BEGIN CERTIFICATE-----\n"), 0o600))
	for name, value := range map[string]string{"VAULT_CACERT": file, "VAULT_CAPATH": folder, "VAULT_CLIENT_CERT": file, "VAULT_CLIENT_KEY": file} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, value)
			_, err := New(config.Vault{}, config.Auth{}, slog.New(slog.DiscardHandler))
			require.ErrorContains(t, err, name+": "+file+" begins with a byte order mark; save it without one")
		})
	}
	require.NoError(t, os.WriteFile(file, []byte("\xFF\xFE-"), 0o600))
	_, err := New(config.Vault{CACert: file}, config.Auth{}, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, `in the "vault" block: read `+file+": the file is UTF-16; write it anew as UTF-8")
}

func TestClient_TakesAMarkedClientCertificate(t *testing.T) {
	folder := t.TempDir()
	cert, key := filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	selfSigned(t, cert, key)
	for _, file := range []string{cert, key} {
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(file, append([]byte("\uFEFF"), content...), 0o600))
	}
	client, err := newClient(config.Vault{ClientCert: cert, ClientKey: key})
	require.NoError(t, err)
	settings := Transport(client).TLSClientConfig
	pair, err := settings.GetClientCertificate(&tls.CertificateRequestInfo{})
	require.NoError(t, err)
	assert.NotEmpty(t, pair.Certificate)
}

func TestAMistakeInTheSettingsIsReportedBeforeVaultIsContacted(t *testing.T) {
	for name, tc := range map[string]struct {
		vault     config.Vault
		variables map[string]string
		want      string
	}{
		"ca_cert not there":      {vault: config.Vault{CACert: "/nowhere/ca.pem"}, want: `in the "vault" block: `},
		"VAULT_CACERT not there": {variables: map[string]string{"VAULT_CACERT": "/nowhere/ca.pem"}, want: "in the VAULT_* environment variables: "},
		"certificate alone":      {vault: config.Vault{ClientCert: "c.pem"}, want: `in the "vault" block: both client cert and client key must be provided`},
		"key alone":              {variables: map[string]string{"VAULT_CLIENT_KEY": "k.pem"}, want: "in the VAULT_* environment variables: both client cert and client key must be provided"},
		"VAULT_SKIP_VERIFY":      {variables: map[string]string{"VAULT_SKIP_VERIFY": "perhaps"}, want: "in the VAULT_* environment variables: could not parse VAULT_SKIP_VERIFY"},
	} {
		t.Run(name, func(t *testing.T) {
			for name, value := range tc.variables {
				t.Setenv(name, value)
			}
			_, err := New(tc.vault, config.Auth{}, slog.New(slog.DiscardHandler))
			var wrong *config.Error
			require.ErrorAs(t, err, &wrong)
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestVaultIsReachedOverAUnixSocket(t *testing.T) {
	server := shared(t)
	p := &proxy{}
	socket := filepath.Join(t.TempDir(), "vault.sock")
	listener, err := net.Listen("unix", socket)
	require.NoError(t, err)
	srv := httptest.NewUnstartedServer(p.handler(t, server))
	require.NoError(t, srv.Listener.Close())
	srv.Listener = listener
	srv.Start()
	t.Cleanup(srv.Close)

	s, log := newSession(t, config.Vault{Address: "unix://" + socket}, asRoot(server))
	require.NoError(t, reach(t, s))
	assert.Equal(t, 1, p.count("sys/mounts"))
	assert.Equal(t, "unix://"+socket, s.Address())
	assert.Contains(t, log.String(), "address=unix://"+socket)

	t.Setenv("VAULT_ADDR", "unix:///nowhere/vault.sock")
	s, _ = newSession(t, config.Vault{Address: "unix://" + socket}, asRoot(server))
	f := fault(t, reach(t, s))
	assert.True(t, f.Transient)
	assert.Equal(t, "is Vault running at unix:///nowhere/vault.sock? (VAULT_ADDR)", f.Hint)
}

func TestAPasswordInTheAddressIsNotShown(t *testing.T) {
	const password = "m4rker-of-a-password"
	vault := config.Vault{Address: "http://user:" + password + "@127.0.0.1:1"}
	s, _ := newSession(t, vault, config.Auth{Method: config.MethodToken, Token: secret.Of("x")}, password)
	f := fault(t, s.Login(t.Context()), password)
	assert.ErrorIs(t, f, ErrUnreachable)
	assert.True(t, f.Transient)
	assert.Equal(t, "is Vault running at http://user:xxxxx@127.0.0.1:1? (VAULT_ADDR)", f.Hint)
}

func TestVaultIsReachedThroughAProxyOfItsOwnVariable(t *testing.T) {
	server := shared(t)
	for _, variable := range []string{"VAULT_PROXY_ADDR", "VAULT_HTTP_PROXY"} {
		t.Run(variable, func(t *testing.T) {
			p := newProxy(t, server)
			t.Setenv(variable, p.URL)
			s, _ := newSession(t, config.Vault{Address: "http://vault.invalid:8200"}, asRoot(server))
			require.NoError(t, reach(t, s))
			assert.Equal(t, 1, p.count("sys/mounts"))
		})
	}
}

// tunnel is a proxy for HTTPS: whatever is asked for, it connects to one server.
func tunnel(t *testing.T, server *vaulttest.Server, asked chan<- string) *httptest.Server {
	t.Helper()
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Method + " " + r.Host
		there, err := net.Dial("tcp", strings.TrimPrefix(server.Address, "https://"))
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer there.Close()
		here, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer here.Close()
		_, _ = io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n")
		go func() { _, _ = io.Copy(there, here) }()
		_, _ = io.Copy(here, there)
	}))
	t.Cleanup(proxy.Close)
	return proxy
}

// behindAProxy is set where the test below runs its own binary: to the file of a
// token.
const behindAProxy = "SESSION_TEST_BEHIND_A_PROXY"

// Go reads HTTPS_PROXY once in a process, and never takes it for loopback: so
// this runs the test binary again, with a Vault of another name.
func TestVaultIsReachedThroughTheProxyOfTheSystem(t *testing.T) {
	if file := os.Getenv(behindAProxy); file != "" {
		s, _ := newSession(t, config.Vault{}, config.Auth{Method: config.MethodTokenFile, File: file})
		require.NoError(t, reach(t, s))
		return
	}
	server := own(t, "-tls")
	asked := make(chan string, 10)
	again := exec.Command(os.Args[0], "-test.run=^TestVaultIsReachedThroughTheProxyOfTheSystem$", "-test.v")
	again.Env = append(os.Environ(), behindAProxy+"="+writeFile(t, server.RootToken),
		"HTTPS_PROXY="+tunnel(t, server, asked).URL, "NO_PROXY=",
		"VAULT_ADDR=https://vault.invalid:8200", "VAULT_CACERT="+server.CAFile, "VAULT_TLS_SERVER_NAME=localhost")
	out, err := again.CombinedOutput()
	require.NoError(t, err, string(out))
	assert.Equal(t, "CONNECT vault.invalid:8200", <-asked)
}

func TestTheAddressOfTheVariableWins(t *testing.T) {
	server := shared(t)
	t.Setenv("VAULT_ADDR", server.Address)
	s, _ := newSession(t, config.Vault{Address: "http://127.0.0.1:1"}, asRoot(server))
	require.NoError(t, reach(t, s))
	assert.Equal(t, server.Address, s.Address())
}

func TestATokenOfTheEnvironmentIsNotSentByOtherMethods(t *testing.T) {
	r := newRole(t, shared(t), nil)
	t.Setenv("VAULT_TOKEN", "hvs.from-the-shell")
	p := newProxy(t, r.server)
	s, _ := newSession(t, p.through(), r.auth(), r.secretID)
	require.NoError(t, s.Login(t.Context()))
	assert.Equal(t, []string{""}, p.headers("X-Vault-Token"))
}

func TestARequestThatHangsEndsInTime(t *testing.T) {
	server := shared(t)
	p := newProxy(t, server)
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	// The real thing does not hang on demand.
	p.inject(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	t.Setenv("VAULT_CLIENT_TIMEOUT", "1s")
	s, _ := newSession(t, p.through(), asRoot(server))
	f := fault(t, s.Login(t.Context()))
	assert.ErrorIs(t, f, ErrUnreachable)
	assert.True(t, f.Transient)
	assert.Equal(t, "no answer from "+p.URL+" in time", f.Detail)
	p.heal()
	require.NoError(t, reach(t, s))
}

func TestClient_DoesNotWaitForFilesThatBlock(t *testing.T) {
	folder := t.TempDir()
	fifo := filepath.Join(folder, "fifo.pem")
	require.NoError(t, syscall.Mkfifo(fifo, 0o600))
	giant := filepath.Join(t.TempDir(), "giant.pem")
	require.NoError(t, os.WriteFile(giant, nil, 0o600))
	require.NoError(t, os.Truncate(giant, 1<<40))
	for path, want := range map[string]string{fifo: "not a regular file", folder: "not a regular file", giant: "file too large"} {
		for name, vault := range map[string]config.Vault{
			"ca_cert":     {CACert: path},
			"ca_path":     {CAPath: path},
			"client_cert": {ClientCert: path, ClientKey: path},
		} {
			if path == folder && name == "client_cert" {
				continue
			}
			_, err := newClient(vault)
			require.ErrorContains(t, err, want, name)
		}
		for _, name := range []string{"VAULT_CACERT", "VAULT_CAPATH", "VAULT_CLIENT_CERT", "VAULT_CLIENT_KEY"} {
			t.Run(name, func(t *testing.T) {
				t.Setenv(name, path)
				_, err := newClient(config.Vault{})
				require.ErrorContains(t, err, name+": ")
				require.ErrorContains(t, err, want)
			})
		}
	}
}

func TestSignature_DoesNotFollowLinksToFolders(t *testing.T) {
	folder := t.TempDir()
	for _, name := range []string{"a", "b", "c"} {
		require.NoError(t, os.Symlink(".", filepath.Join(folder, name)))
	}
	assert.Less(t, len(signature([]string{folder})), 1000, "bytes: followed, these would be 3^40 files")
}
