package config

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"

	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/filemode"
)

// This file reads the listener blocks. Those of Vault Agent are for its proxy; here
// they say where one may ask how the agent is.

// StatusAddressVariable adds a listener where the files have none that shows all.
const StatusAddressVariable = "DEADDROP_STATUS_ADDRESS"

// Listener is where one may ask how the agent is.
type Listener struct {
	// Network is "tcp" or "unix".
	Network string
	// Address is a host and port, or the path of a socket.
	Address string
	// MetricsOnly keeps all but the metrics from being shown.
	MetricsOnly bool
	// CertFile and KeyFile are for TLS; "" for none.
	CertFile, KeyFile string
	// Mode, UID and GID are of a socket; nil for the agent's own.
	Mode     fs.FileMode
	UID, GID *int
}

// String is the address as --status-address takes it.
func (l Listener) String() string {
	if l.Network == "unix" {
		return "unix://" + l.Address
	}
	return l.Address
}

// IsLoopback tells whether nobody but this machine can reach the listener.
func (l Listener) IsLoopback() bool {
	if l.Network == "unix" {
		return true
	}
	host, _, _ := net.SplitHostPort(l.Address)
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// The roles of a listener. The second is Vault Agent's, too.
const (
	roleStatus      = "status"
	roleMetricsOnly = "metrics_only"
)

// mostPath is the longest path of a socket, which has 108 bytes with the NUL on Linux.
const mostPath = 107

// socketMode is for sockets: the agent's own user's alone.
const socketMode fs.FileMode = 0o600

// listenerBlock has its type as an attribute: [relabel] has moved the label there.
type listenerBlock struct {
	Type      string    `hcl:"type"`
	TypeRange hcl.Range `hcl:"type,attr_value_range"`
	Role      string    `hcl:"role,optional"`
	RoleRange hcl.Range `hcl:"role,attr_value_range"`
	DefRange  hcl.Range `hcl:",def_range"`
	Body      hcl.Body  `hcl:",remain"`
}

// listenerBody is what a listener with a role has besides.
type listenerBody struct {
	Address      string         `hcl:"address,optional"`
	AddressRange hcl.Range      `hcl:"address,attr_value_range"`
	TLSDisable   *bool          `hcl:"tls_disable,optional"`
	CertFile     string         `hcl:"tls_cert_file,optional"`
	CertRange    hcl.Range      `hcl:"tls_cert_file,attr_value_range"`
	KeyFile      string         `hcl:"tls_key_file,optional"`
	KeyRange     hcl.Range      `hcl:"tls_key_file,attr_value_range"`
	Mode         hcl.Expression `hcl:"socket_mode,optional"`
	User         string         `hcl:"socket_user,optional"`
	UserRange    hcl.Range      `hcl:"socket_user,attr_value_range"`
	Group        string         `hcl:"socket_group,optional"`
	GroupRange   hcl.Range      `hcl:"socket_group,attr_value_range"`
}

// listeners reads the blocks, and the environment variable.
func (l *loader) listeners(blocks []listenerBlock) {
	for _, b := range blocks {
		l.listener(b)
	}
	if address := os.Getenv(StatusAddressVariable); address != "" && !l.cfg.showsStatus() {
		l.addListener(newListener(address), StatusAddressVariable, hcl.Range{})
	}
}

// showsStatus tells whether a listener shows more than metrics.
func (c *Config) showsStatus() bool {
	return slices.ContainsFunc(c.Listeners, func(l Listener) bool { return !l.MetricsOnly })
}

// ListenAt adds a listener that shows all; source is what has named the address, a
// host and port or the path of a socket, for errors.
func (c *Config) ListenAt(source, address string) error {
	listener := newListener(address)
	if slices.ContainsFunc(c.Listeners, func(other Listener) bool { return other.String() == listener.String() && !other.MetricsOnly }) {
		return nil
	}
	l := &loader{cfg: c}
	l.addListener(listener, source, hcl.Range{})
	return l.err()
}

// newListener understands what [Listener.String] returns, and the path alone.
func newListener(address string) Listener {
	if path, is := strings.CutPrefix(address, "unix://"); is {
		return Listener{Network: "unix", Address: path, Mode: socketMode}
	}
	if strings.HasPrefix(address, "/") {
		return Listener{Network: "unix", Address: address, Mode: socketMode}
	}
	return Listener{Network: "tcp", Address: address}
}

// listener reads one block. Those without a role are for a proxy.
func (l *loader) listener(b listenerBlock) {
	switch b.Role {
	case roleStatus, roleMetricsOnly:
	case "", "default":
		l.warn(b.DefRange, "listener is not supported and has no effect: this agent writes files, and passes no requests on; with role = %q it shows how the agent is, with role = %q its metrics alone", roleStatus, roleMetricsOnly)
		return
	default:
		text := `use "` + roleStatus + `" or "` + roleMetricsOnly + `"`
		if near := render.Nearest(b.Role, []string{roleStatus, roleMetricsOnly}); near != "" {
			text = `did you mean "` + near + `"?`
		}
		l.warn(b.RoleRange, "listener has no effect: role %q is not known; %s", b.Role, text)
		return
	}
	var body listenerBody
	diags := gohcl.DecodeBody(l.takeForeign(b.Body, foreignOfListener), l.ctx, &body)
	l.hcl(diags)
	if diags.HasErrors() {
		return
	}
	listener := Listener{Network: b.Type, Address: body.Address, MetricsOnly: b.Role == roleMetricsOnly, CertFile: body.CertFile, KeyFile: body.KeyFile}
	if !l.fitsNetwork(b, body) {
		return
	}
	if body.Address == "" {
		l.at(b.DefRange, "listener lacks an address: write one such as address = %q", map[string]string{"tcp": "127.0.0.1:9810", "unix": "/run/deaddrop/status.sock"}[b.Type])
		return
	}
	if b.Type == "unix" {
		listener.Mode = socketMode
		if !isUnset(body.Mode) {
			listener.Mode, _ = l.fileMode("socket_mode", body.Mode, filemode.Socket)
		}
		listener.UID, listener.GID = l.owner(dropBody{User: body.User, UserRange: body.UserRange, Group: body.Group, GroupRange: body.GroupRange})
	}
	l.listenerTLS(&listener, body)
	l.addListener(listener, "address", body.AddressRange)
}

// fitsNetwork finds what is not for the type of a listener.
func (l *loader) fitsNetwork(b listenerBlock, body listenerBody) bool {
	before := len(l.problems)
	switch b.Type {
	case "tcp":
		if !isUnset(body.Mode) {
			l.at(body.Mode.Range(), "socket_mode is for listener \"unix\"")
		}
		if body.User != "" {
			l.at(body.UserRange, "socket_user is for listener \"unix\"")
		}
		if body.Group != "" {
			l.at(body.GroupRange, "socket_group is for listener \"unix\"")
		}
	case "unix":
		if body.CertFile+body.KeyFile != "" {
			l.at(b.DefRange, "tls_cert_file and tls_key_file are for listener \"tcp\"; a socket has socket_mode, socket_user and socket_group")
		}
	default:
		l.at(b.TypeRange, "listener %q is not known; use \"tcp\" or \"unix\"", b.Type)
	}
	return len(l.problems) == before
}

func (l *loader) listenerTLS(listener *Listener, b listenerBody) {
	at := b.CertRange
	if b.CertFile == "" {
		at = b.KeyRange
	}
	switch has := b.CertFile + b.KeyFile; {
	case has == "":
		return
	case value(b.TLSDisable):
		l.at(at, "tls_disable and %s exclude each other", map[bool]string{true: "tls_cert_file", false: "tls_key_file"}[b.CertFile != ""])
	case b.CertFile == "" || b.KeyFile == "":
		l.at(at, "tls_cert_file and tls_key_file belong together: write both, or neither")
	}
	listener.CertFile, listener.KeyFile = b.CertFile, b.KeyFile
}

// addListener checks the address and takes the listener in.
func (l *loader) addListener(listener Listener, source string, at hcl.Range) {
	if !l.isAddress(listener, source, at) {
		return
	}
	for _, other := range l.cfg.Listeners {
		if other.String() == listener.String() && !strings.HasSuffix(listener.Address, ":0") {
			l.at(at, "%s: there is a listener at %q already", source, listener.String())
			return
		}
	}
	if !listener.IsLoopback() {
		l.warn(at, "%s %q can be reached by other machines: whoever does learns names of secrets, files and tenants (no values); use 127.0.0.1 or a unix socket where that is not wanted", source, listener.Address)
	}
	l.cfg.Listeners = append(l.cfg.Listeners, listener)
}

// isAddress says what is wrong with an address where it is none.
func (l *loader) isAddress(listener Listener, source string, at hcl.Range) bool {
	if listener.Network == "unix" {
		if !filepath.IsAbs(listener.Address) || len(listener.Address) > mostPath {
			l.at(at, "%s %q is no absolute path of at most 107 bytes; write one such as \"/run/deaddrop/status.sock\"", source, listener.Address)
			return false
		}
		return true
	}
	_, port, err := net.SplitHostPort(listener.Address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		l.at(at, "%s %q is no address; write one such as \"127.0.0.1:9810\", or \"unix:///run/deaddrop/status.sock\"", source, listener.Address)
	}
	return err == nil
}

// Listeners reads of configuration files only where one may ask how the agent is. It
// needs nothing of what the rest of the files needs.
func Listeners(paths ...string) ([]Listener, error) {
	l := newLoader()
	var bodies []hcl.Body
	for _, path := range l.expand(paths) {
		body, ok := l.parseFile(path)
		if !ok {
			return nil, l.err()
		}
		bodies = append(bodies, body)
	}
	var blocks []listenerBlock
	for _, body := range l.names(bodies) {
		var only struct {
			Listener []listenerBlock `hcl:"listener,block"`
			Rest     hcl.Body        `hcl:",remain"`
		}
		l.hcl(gohcl.DecodeBody(body, l.ctx, &only))
		blocks = append(blocks, only.Listener...)
	}
	l.listeners(blocks)
	return l.cfg.Listeners, l.err()
}

// listener prints one.
func (p *printer) listener(l Listener) {
	p.block("listener "+quote(l.Network), func() {
		p.set("address", l.Address)
		p.set("role", map[bool]string{true: roleMetricsOnly, false: roleStatus}[l.MetricsOnly])
		p.set("tls_cert_file", l.CertFile)
		p.set("tls_key_file", l.KeyFile)
		if l.Network == "unix" {
			p.set("socket_mode", "0"+strconv.FormatUint(uint64(l.Mode), 8))
		}
		if l.UID != nil {
			p.set("socket_user", strconv.Itoa(*l.UID))
		}
		if l.GID != nil {
			p.set("socket_group", strconv.Itoa(*l.GID))
		}
	})
}
