package status

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/textfile"
)

// ErrUnreachable is what a [Client] fails with when there is no agent to ask.
var ErrUnreachable = errors.New("the agent cannot be reached")

// Client asks a running agent.
type Client struct {
	http *http.Client
	base string
	at   string // as it was given
}

// askWithin is how long an agent may take to answer.
const askWithin = 10 * time.Second

// NewClient returns one that asks at a listener. With TLS it takes the very
// certificate that the listener names, whoever has signed it.
func NewClient(at config.Listener) (*Client, error) {
	c := &Client{base: "http://agent", at: at.String()}
	network, address := at.Network, at.Address
	if network == "tcp" {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, fmt.Errorf("%q is no address; write one such as \"127.0.0.1:9810\", or \"unix:///run/deaddrop/status.sock\"", address)
		}
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			host = "localhost" // It listens everywhere, and so here.
		}
		address = net.JoinHostPort(host, port)
		c.base = "http://" + address
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, network, address)
		},
	}
	if at.CertFile != "" {
		var err error
		if transport.TLSClientConfig, err = expecting(at.CertFile); err != nil {
			return nil, err
		}
		c.base = "https" + strings.TrimPrefix(c.base, "http")
	}
	c.http = &http.Client{Transport: transport, Timeout: askWithin}
	return c, nil
}

// expecting accepts the first certificate of a file, and no other.
func expecting(file string) (*tls.Config, error) {
	text, err := textfile.Read(file)
	if err != nil {
		return nil, fmt.Errorf("the listener's certificate: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("the listener's certificate: there is none in %s", file)
	}
	want, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the listener's certificate: %w", err)
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // What follows is stricter than names and authorities.
		VerifyConnection: func(is tls.ConnectionState) error {
			if !is.PeerCertificates[0].Equal(want) {
				return fmt.Errorf("it has another certificate than the one in %s", file)
			}
			return nil
		},
	}, nil
}

// Alive asks whether the agent works. It returns what the agent says, too.
func (c *Client) Alive(ctx context.Context) (bool, string, error) { return c.probe(ctx, "/healthz") }

// Ready asks whether every drop is current. It returns what the agent says, too.
func (c *Client) Ready(ctx context.Context) (bool, string, error) { return c.probe(ctx, "/readyz") }

func (c *Client) probe(ctx context.Context, path string) (bool, string, error) {
	code, body, err := c.get(ctx, path)
	if err != nil {
		return false, "", err
	}
	text := strings.TrimSpace(string(body))
	if code != http.StatusOK && code != http.StatusServiceUnavailable {
		return false, "", c.strange(path, code, text)
	}
	return code == http.StatusOK, text, nil
}

// Report asks for all that the agent knows of itself.
func (c *Client) Report(ctx context.Context) (*Report, error) {
	const path = "/status"
	code, body, err := c.get(ctx, path)
	switch {
	case err != nil:
		return nil, err
	case code == http.StatusServiceUnavailable:
		return nil, errors.New(strings.TrimSpace(string(body)))
	case code != http.StatusOK:
		return nil, c.strange(path, code, strings.TrimSpace(string(body)))
	}
	var r Report
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, fmt.Errorf("%w: what answers at %s is no deaddrop: %w", ErrUnreachable, c.at, err)
	}
	return &r, nil
}

// mostAnswer is more than ten thousand drops and secrets take.
const mostAnswer = 64 << 20

func (c *Client) get(ctx context.Context, path string) (code int, body []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return 0, nil, err
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return 0, nil, c.unreachable(err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err = io.ReadAll(io.LimitReader(answer.Body, mostAnswer))
	if err != nil {
		return 0, nil, c.unreachable(err)
	}
	return answer.StatusCode, body, nil
}

func (c *Client) unreachable(err error) error {
	hint := "does it run, with a listener there? (role = \"status\", --status-address or " + config.StatusAddressVariable + ")"
	if errors.Is(err, os.ErrPermission) {
		hint = "ask as the agent's user, or set socket_mode, socket_user or socket_group"
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err // The rest is the address, once more.
	}
	return fmt.Errorf("%w at %s: %w; %s", ErrUnreachable, c.at, err, hint)
}

func (c *Client) strange(path string, code int, text string) error {
	if code == http.StatusNotFound {
		text = "it is no deaddrop, or a listener with role = \"metrics_only\""
	}
	return fmt.Errorf("%w: %s answered %d for %s: %s", ErrUnreachable, c.at, code, path, text)
}
