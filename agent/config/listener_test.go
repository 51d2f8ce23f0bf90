package config

import (
	"io/fs"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLoadUnderstandsListeners(t *testing.T) {
	folder(t)
	me := os.Getuid()
	cfg, err := load(t, login+oneDrop+`
listener "tcp" {
  address = "127.0.0.1:9810"
  role    = "status"
}
listener {
  type          = "tcp"
  address       = "localhost:9811"
  role          = "metrics_only"
  tls_cert_file = "a.pem"
  tls_key_file  = "a.key"
}
listener "unix" {
  address      = "/run/deaddrop/status.sock"
  role         = "status"
  socket_mode  = "0660"
  socket_user  = "`+strconv.Itoa(me)+`"
  socket_group = "0"
}
listener "unix" {
  address = "/run/other.sock"
  role    = "status"
}
`)
	require.NoError(t, err)
	group := 0
	assert.Equal(t, []Listener{
		{Network: "tcp", Address: "127.0.0.1:9810"},
		{Network: "tcp", Address: "localhost:9811", MetricsOnly: true, CertFile: "a.pem", KeyFile: "a.key"},
		{Network: "unix", Address: "/run/deaddrop/status.sock", Mode: 0o660, UID: &me, GID: &group},
		{Network: "unix", Address: "/run/other.sock", Mode: 0o600},
	}, cfg.Listeners)
	assert.Empty(t, cfg.Warnings)

	again, err := load(t, cfg.String())
	require.NoError(t, err, cfg.String())
	assert.Equal(t, cfg.Listeners, again.Listeners, "what is printed can be read")
}

func TestListenersThatCannotBe(t *testing.T) {
	listener := func(kind, more string) string {
		return login + oneDrop + "listener \"" + kind + "\" {\n  role = \"status\"\n" + more + "\n}\n"
	}
	for name, tc := range map[string]struct{ text, want string }{
		"no address":           {listener("tcp", ""), `listener lacks an address: write one such as address = "127.0.0.1:9810"`},
		"no path":              {listener("unix", ""), `write one such as address = "/run/deaddrop/status.sock"`},
		"no port":              {listener("tcp", `  address = "localhost"`), `address "localhost" is no address; write one such as "127.0.0.1:9810"`},
		"a port that is none":  {listener("tcp", `  address = "localhost:http"`), `address "localhost:http" is no address`},
		"a relative path":      {listener("unix", `  address = "status.sock"`), `address "status.sock" is no absolute path of at most 107 bytes`},
		"a long path":          {listener("unix", `  address = "/`+strings.Repeat("x", 107)+`"`), `of at most 107 bytes`},
		"an unknown kind":      {listener("udp", `  address = "127.0.0.1:1"`), `listener "udp" is not known; use "tcp" or "unix"`},
		"an unknown argument":  {listener("tcp", "  adress = \"127.0.0.1:1\""), `Did you mean "address"?`},
		"half of a pair":       {listener("tcp", "  address = \"127.0.0.1:1\"\n  tls_cert_file = \"x\""), `tls_cert_file and tls_key_file belong together`},
		"TLS that is disabled": {listener("tcp", "  address = \"127.0.0.1:1\"\n  tls_disable = true\n  tls_cert_file = \"x\"\n  tls_key_file = \"x\""), `tls_disable and tls_cert_file exclude each other`},
		"client certificates":  {listener("tcp", "  address = \"127.0.0.1:1\"\n  tls_cert_file = \"x\"\n  tls_key_file = \"x\"\n  tls_client_ca_file = \"x\""), `tls_client_ca_file is not supported: client certificates are not verified`},
		"a mode for TCP":       {listener("tcp", "  address = \"127.0.0.1:1\"\n  socket_mode = \"0600\""), `socket_mode is for listener "unix"`},
		"TLS for a socket":     {listener("unix", "  address = \"/x\"\n  tls_cert_file = \"x\"\n  tls_key_file = \"x\""), `tls_cert_file and tls_key_file are for listener "tcp"`},
		"a mode that is none":  {listener("unix", "  address = \"/x\"\n  socket_mode = \"0999\""), `socket_mode "0999" is not a file mode`},
		"an unknown user":      {listener("unix", "  address = \"/x\"\n  socket_user = \"no-such-user\""), `no-such-user`},
		"one of them twice":    {listener("tcp", "  address = \"127.0.0.1:1\"\n}\nlistener \"tcp\" {\n  role = \"metrics_only\"\n  address = \"127.0.0.1:1\""), `there is a listener at "127.0.0.1:1" already`},
		"nothing else":         {login + "listener \"tcp\" {\n  role = \"status\"\n  address = \"127.0.0.1:1\"\n}\n", `there is nothing to write: add a "drop" or a "template" block`},
	} {
		t.Run(name, func(t *testing.T) {
			folder(t)
			_, err := load(t, tc.text)
			require.ErrorContains(t, err, tc.want)
			assert.Contains(t, err.Error(), "deaddrop.hcl")
		})
	}
}

func TestListenersWarn(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"of Vault Agent's proxy":  {"listener \"tcp\" {\n  address = \"127.0.0.1:8100\"\n  tls_disable = true\n  proxy_protocol_behavior = \"use_always\"\n}\n", `listener is not supported and has no effect: this agent writes files, and passes no requests on; with role = "status"`},
		"of a role that is wrong": {"listener \"tcp\" {\n  address = \"127.0.0.1:1\"\n  role = \"metrics-only\"\n}\n", `role "metrics-only" is not known; did you mean "metrics_only"?`},
		"of a role that is none":  {"listener \"tcp\" {\n  address = \"127.0.0.1:1\"\n  role = \"everything else\"\n}\n", `use "status" or "metrics_only"`},
		"of all interfaces":       {"listener \"tcp\" {\n  address = \":9810\"\n  role = \"status\"\n}\n", `address ":9810" can be reached by other machines`},
		"of another interface":    {"listener \"tcp\" {\n  address = \"10.0.0.5:9810\"\n  role = \"status\"\n}\n", `(no values)`},
		"of a TLS version":        {"listener \"tcp\" {\n  address = \"[::1]:9810\"\n  role = \"status\"\n  tls_min_version = \"tls13\"\n}\n", `tls_min_version has no effect`},
	} {
		t.Run(name, func(t *testing.T) {
			folder(t)
			cfg, err := load(t, login+oneDrop+tc.text)
			require.NoError(t, err)
			require.Len(t, cfg.Warnings, 1)
			assert.Contains(t, cfg.Warnings[0].String(), tc.want)
			assert.NotZero(t, cfg.Warnings[0].Line)
		})
	}
}

func TestTheEnvironmentAndAFlagAddListeners(t *testing.T) {
	folder(t)
	t.Setenv(StatusAddressVariable, "unix:///run/env.sock")
	const metrics = "listener \"tcp\" {\n  address = \"127.0.0.1:1\"\n  role = \"metrics_only\"\n}\n"
	const all = "listener \"tcp\" {\n  address = \"127.0.0.1:2\"\n  role = \"status\"\n}\n"
	cfg, err := load(t, login+oneDrop+metrics)
	require.NoError(t, err)
	assert.Len(t, cfg.Listeners, 2, "metrics are not all")
	assert.Equal(t, Listener{Network: "unix", Address: "/run/env.sock", Mode: fs.FileMode(0o600)}, cfg.Listeners[1])
	cfg, err = load(t, login+oneDrop+all)
	require.NoError(t, err)
	assert.Len(t, cfg.Listeners, 1, "the file says where")

	require.NoError(t, cfg.ListenAt("--status-address", "127.0.0.1:2"))
	assert.Len(t, cfg.Listeners, 1, "it is there")
	require.NoError(t, cfg.ListenAt("--status-address", "/run/flag.sock"))
	assert.Len(t, cfg.Listeners, 2)
	require.ErrorContains(t, cfg.ListenAt("--status-address", "9810"), `--status-address "9810" is no address`)

	t.Setenv(StatusAddressVariable, "nowhere")
	_, err = load(t, login+oneDrop)
	require.ErrorContains(t, err, StatusAddressVariable+` "nowhere" is no address`)
}

func TestListenersAreReadWithoutTheRest(t *testing.T) {
	folder(t)
	require.NoError(t, os.WriteFile("rest.hcl", []byte("tenant = \"demo\"\nthis_is_unknown = 1\nlistener \"unix\" {\n  address = \"/run/${tenant}.sock\"\n  role = \"status\"\n}\n"), 0o600))
	listeners, err := Listeners("rest.hcl")
	require.NoError(t, err)
	assert.Equal(t, []Listener{{Network: "unix", Address: "/run/demo.sock", Mode: 0o600}}, listeners)
}
