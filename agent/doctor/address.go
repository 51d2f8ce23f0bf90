package doctor

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"

	"github.com/smarteros/deaddrop/agent/session"
)

// reach finds Vault's host, and connects to it.
func (e *exam) reach(ctx context.Context) string {
	const stop = "not looked at, as there is no connection to Vault"
	vault, grant, err := session.Probe(e.cfg.Vault, e.cfg.Auth, quiet())
	if err != nil {
		e.failBy("address", "", err, "correct that setting; a file that it names has to be there, readable for user "+me())
		return stop
	}
	e.vault, e.grant, e.client, e.shown = vault, grant, vault.Client(), vault.Address()
	if socket, is := strings.CutPrefix(e.client.CloneConfig().Address, "unix://"); is {
		return e.reachSocket(ctx, socket, stop)
	}
	if e.address, err = url.Parse(e.client.Address()); err != nil {
		e.fail("address", e.shown, session.ErrUnreachable, "it is not a URL", "write one such as https://vault.example:8200 into VAULT_ADDR")
		return stop
	}
	if proxy := e.proxy(); proxy != nil {
		return e.reachProxy(ctx, proxy, stop)
	}
	return e.reachHost(ctx, stop)
}

// source tells who says where Vault is.
func (e *exam) source() string {
	switch {
	case os.Getenv("VAULT_AGENT_ADDR") != "":
		return "VAULT_AGENT_ADDR"
	case os.Getenv("VAULT_ADDR") != "":
		return "VAULT_ADDR"
	case e.cfg.Vault.Address != "":
		return "address in the \"vault\" block"
	}
	return "the default; set VAULT_ADDR"
}

func (e *exam) reachSocket(ctx context.Context, socket, stop string) string {
	conn, err := dial(ctx, "unix", socket)
	if err != nil {
		e.fail("address", e.shown, session.ErrUnreachable, "the socket cannot be connected to: "+reason(err),
			"is Vault (or a proxy of it) running, and does it listen at "+socket+"? User "+me()+" needs write permission on the socket; in a container, mount its folder")
		return stop
	}
	_ = conn.Close()
	e.ok("address", e.shown, "the socket answers (%s)", e.source())
	return ""
}

// proxy is what is between here and Vault, or nil.
func (e *exam) proxy() *url.URL {
	transport := e.transport()
	if transport.Proxy == nil {
		return nil
	}
	proxy, _ := transport.Proxy(&http.Request{URL: e.address})
	return proxy
}

func (e *exam) transport() *http.Transport {
	return session.Transport(e.client)
}

// proxyVariable is the variable that the proxy is taken from.
func (e *exam) proxyVariable() string {
	kind := strings.ToUpper(e.address.Scheme) + "_PROXY"
	for _, name := range []string{"VAULT_PROXY_ADDR", "VAULT_HTTP_PROXY", kind, strings.ToLower(kind)} {
		if os.Getenv(name) != "" {
			return name
		}
	}
	return "the environment"
}

func (e *exam) reachProxy(ctx context.Context, proxy *url.URL, stop string) string {
	variable := e.proxyVariable()
	host := hostPort(proxy)
	conn, err := dial(ctx, "tcp", host)
	if err != nil {
		e.fail("address", e.shown, session.ErrUnreachable, "it is reached through the proxy "+proxy.Redacted()+" ("+variable+"), which does not answer: "+reason(err),
			"correct "+variable+", or leave the proxy out: NO_PROXY="+e.address.Hostname())
		return stop
	}
	_ = conn.Close()
	e.ok("address", e.shown, "through the proxy %s (%s), which answers", proxy.Redacted(), variable)
	return ""
}

// reachHost tells a name that is not known from a host that is not there, and
// that from a port where nobody listens.
func (e *exam) reachHost(ctx context.Context, stop string) string {
	host := e.address.Hostname()
	found := host
	if net.ParseIP(host) == nil {
		limit, cancel := context.WithTimeout(ctx, stepTimeout)
		all, err := net.DefaultResolver.LookupHost(limit, host)
		cancel()
		if err != nil {
			e.fail("address", e.shown, session.ErrUnreachable, "the name "+host+" is not found: "+dnsReason(err),
				"is the address right ("+e.source()+")? In a container: is it on the network of Vault's service, and is that service's name "+host+"?")
			return stop
		}
		found = strings.Join(all, ", ")
	}
	conn, err := dial(ctx, "tcp", hostPort(e.address))
	if err != nil {
		e.fail("address", e.shown, session.ErrUnreachable, unreached(hostPort(e.address), err), e.adviceFor(err))
		return stop
	}
	_ = conn.Close()
	e.ok("address", e.shown, "%s answers on port %s (%s)", found, portOf(e.address), e.source())
	return ""
}

func unreached(host string, err error) string {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return host + " refuses the connection: nobody listens there"
	case isTimeout(err):
		return host + " does not answer in time"
	}
	return host + " cannot be connected to: " + reason(err)
}

func (e *exam) adviceFor(err error) string {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED) && isLoopback(e.address.Hostname()):
		return "start Vault, or set VAULT_ADDR to where it is. In a container, " + e.address.Hostname() + " is the container itself: use the name of Vault's service, such as http://vault:8200"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "is Vault running (\"docker ps\", \"systemctl status vault\"), and is " + portOf(e.address) + " its port? (" + e.source() + ")"
	case isTimeout(err):
		return "is the host up, and does a firewall let port " + portOf(e.address) + " through? (" + e.source() + ")"
	}
	return "is the address right? (" + e.source() + ")"
}

func dial(ctx context.Context, network, address string) (net.Conn, error) {
	limit, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	return new(net.Dialer).DialContext(limit, network, address)
}

func isTimeout(err error) bool {
	var timed net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timed) && timed.Timeout()
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func portOf(u *url.URL) string {
	if port := u.Port(); port != "" {
		return port
	}
	if u.Scheme == "https" {
		return "443"
	}
	return "80"
}

func hostPort(u *url.URL) string { return net.JoinHostPort(u.Hostname(), portOf(u)) }

// reason is what has gone wrong on the network, without what was being done.
func reason(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		var call *os.SyscallError
		if errors.As(op.Err, &call) {
			return call.Err.Error()
		}
		return op.Err.Error()
	}
	return err.Error()
}

func dnsReason(err error) string {
	var name *net.DNSError
	if errors.As(err, &name) {
		return name.Err
	}
	return err.Error()
}
