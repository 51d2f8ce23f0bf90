package reload

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/redact"
	"github.com/smarteros/deaddrop/agent/internal/textfile"
)

// HTTP asks a URL.
type HTTP config.HTTP

func (h HTTP) String() string { return config.HTTP(h).String() }

// Do asks, and does not follow redirections: they may lead where the headers are
// not meant to go.
func (h HTTP) Do(ctx context.Context, change Change) error {
	client, err := h.client()
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	pause := backoff.WithContext(backoff.WithMaxRetries(backoff.NewExponentialBackOff(backoff.WithInitialInterval(time.Second)), uint64(h.Retries)), ctx)
	return backoff.Retry(func() error { return h.try(ctx, client, change) }, pause)
}

func (h HTTP) try(ctx context.Context, client *http.Client, change Change) error {
	limit, cancel := limited(ctx, h.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(limit, h.Method, h.URL, nil)
	if err != nil {
		return backoff.Permanent(fmt.Errorf("%s: the URL cannot be used", h))
	}
	if request.Header, err = h.header(); err != nil {
		return backoff.Permanent(err)
	}
	if host := request.Header.Get("Host"); host != "" {
		request.Host = host
	}
	answer, err := client.Do(request)
	switch {
	case timedOut(ctx, limit) && err != nil:
		return fmt.Errorf("%s: no answer within %v", h, h.Timeout)
	case err != nil:
		return fmt.Errorf("%s: %w", h, withoutAnswer(plain(err)))
	}
	defer func() { _ = answer.Body.Close() }()
	if h.expects(answer.StatusCode) {
		return nil
	}
	output := &redact.Output{Keep: h.ShowOutput}
	_, _ = io.Copy(output, io.LimitReader(answer.Body, maxAnswer))
	err = fmt.Errorf("%s: the answer is %d %s, not %s", h, answer.StatusCode, http.StatusText(answer.StatusCode), h.expected())
	err = redact.WithOutput(err, output, change.hiddenWith(sent(request)), "set show_output = true in the reload block to log the answer")
	if answer.StatusCode >= 500 || answer.StatusCode == http.StatusTooManyRequests {
		return err
	}
	return backoff.Permanent(err)
}

// withoutAnswer returns an error of a request if it is none that may quote the answer, as
// those do that say what is malformed in it.
func withoutAnswer(err error) error {
	var network net.Error
	var untrusted *tls.CertificateVerificationError
	var noTLS tls.RecordHeaderError
	var refused tls.AlertError
	switch {
	case errors.As(err, &network), errors.As(err, &untrusted), errors.As(err, &noTLS), errors.As(err, &refused):
		return err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, http.ErrSchemeMismatch), errors.Is(err, context.Canceled):
		return err
	}
	return errors.New("the answer is not valid HTTP")
}

// maxAnswer is how many bytes of an answer are read.
const maxAnswer = 1 << 20

// sent are the values that go out with a request. Some services quote a token that they do
// not like.
func sent(request *http.Request) []string {
	password, _ := request.URL.User.Password()
	values := []string{password, request.URL.RawQuery}
	if name := request.URL.User.Username(); password != "" {
		values = append(values, base64.StdEncoding.EncodeToString([]byte(name+":"+password)))
	}
	for _, each := range request.URL.Query() {
		values = append(values, each...)
	}
	for name, each := range request.Header {
		if name == "User-Agent" {
			continue
		}
		for _, value := range each {
			values = append(values, strings.Fields(value)...)
		}
	}
	return values
}

func (h HTTP) expects(status int) bool {
	if len(h.Expect) == 0 {
		return status >= 200 && status < 300
	}
	return slices.Contains(h.Expect, status)
}

func (h HTTP) expected() string {
	var texts []string
	for _, status := range h.Expect {
		texts = append(texts, strconv.Itoa(status))
	}
	return cmp.Or(strings.Join(texts, " or "), "2xx")
}

// header reads the file at each request, as what is in it may change.
func (h HTTP) header() (http.Header, error) {
	header := http.Header{"User-Agent": {"deaddrop"}}
	if h.HeaderFile == "" {
		return header, nil
	}
	content, err := textfile.Read(h.HeaderFile)
	if err != nil {
		return nil, fmt.Errorf("%s: header_file: %w", h, err)
	}
	for i, line := range strings.Split(string(content), "\n") {
		name, value, ok := strings.Cut(line, ":")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		switch {
		case strings.TrimSpace(line) == "":
		case !ok || !isHeader(name, value):
			return nil, fmt.Errorf("%s: header_file %s: line %d is not a header such as \"Authorization: Bearer …\"", h, h.HeaderFile, i+1)
		default:
			header.Set(name, value)
		}
	}
	return header, nil
}

func isHeader(name, value string) bool {
	for _, c := range name {
		if c <= ' ' || c > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, c) {
			return false
		}
	}
	return name != "" && !strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) &&
		textproto.CanonicalMIMEHeaderKey(name) != ""
}

func (h HTTP) client() (*http.Client, error) {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}
	if h.CACert != "" {
		pem, err := textfile.Read(h.CACert)
		if err != nil {
			return nil, fmt.Errorf("%s: ca_cert: %w", h, err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: ca_cert: there is no certificate in %s", h, h.CACert)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	}
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, nil
}

// Check tells of files that cannot be used, and of a host that nobody answers at.
// It asks nothing.
func (h HTTP) Check(ctx context.Context) error {
	if _, err := h.client(); err != nil {
		return err
	}
	if _, err := h.header(); err != nil {
		return err
	}
	u, err := url.Parse(h.URL)
	if err != nil {
		return fmt.Errorf("%s: the URL cannot be used", h)
	}
	if proxy, err := http.ProxyFromEnvironment(&http.Request{URL: u}); err != nil || proxy != nil {
		return nil // Only the proxy knows.
	}
	ctx, cancel := limited(ctx, 5*time.Second)
	defer cancel()
	port := cmp.Or(u.Port(), map[string]string{"https": "443"}[u.Scheme], "80")
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	var name *net.DNSError
	switch {
	case err == nil:
		return conn.Close()
	case errors.As(err, &name):
		return absent("%s: there is no host %s; is the agent in the service's network?", h, u.Hostname())
	}
	return absent("%s: nobody answers: %w; is the service running?", h, err)
}
