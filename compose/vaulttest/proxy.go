package vaulttest

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
)

// Proxy is a TCP proxy in front of a server, which makes the network bad.
type Proxy struct {
	// Address is where clients reach the server through the proxy, as a URL.
	Address string

	t     testing.TB
	proxy *toxiproxy.Proxy
}

// Proxy puts a proxy in front of the server until the test ends.
func (s *Server) Proxy(t testing.TB) *Proxy {
	t.Helper()
	scheme, upstream, _ := strings.Cut(s.Address, "://")
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	p := &Proxy{t: t, proxy: toxiproxy.NewProxy(server, "vault", "127.0.0.1:0", upstream)}
	require.NoError(t, p.proxy.Start())
	t.Cleanup(p.proxy.Stop)
	p.Address = scheme + "://" + p.proxy.Listen
	return p
}

// Poison adds a toxic of the kinds that toxiproxy documents, such as "latency",
// "timeout" or "reset_peer", to what the server sends.
func (p *Proxy) Poison(kind string, attributes string) {
	p.t.Helper()
	_, err := p.proxy.Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(`{"name": %q, "type": %q, "stream": "downstream", "attributes": {%s}}`, kind, kind, attributes)))
	require.NoError(p.t, err)
}

// Cut ends all connections and refuses new ones.
func (p *Proxy) Cut() { p.proxy.Stop() }

// Heal undoes [Proxy.Poison] and [Proxy.Cut].
func (p *Proxy) Heal() {
	p.t.Helper()
	p.proxy.Toxics.ResetToxics(context.Background())
	if !p.proxy.Enabled {
		require.NoError(p.t, p.proxy.Start())
	}
}
