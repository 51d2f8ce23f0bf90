package reload

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"syscall"

	"github.com/smarteros/deaddrop/agent/internal/textfile"
)

// docker is a client of the Docker Engine's API, for the four requests that are
// needed here. Docker's own client library would make the agent larger by 1.5 MB
// and bring 76 packages.
type docker struct {
	client *http.Client
	base   string // the URL, with the version of the API
	local  bool   // its clock is that of the agent
}

// newDocker finds out which version of the API the engine has.
func newDocker(ctx context.Context, configured string) (*docker, error) {
	host := dockerHost(configured)
	u, err := url.Parse(host)
	if err != nil {
		return nil, fmt.Errorf("the address of Docker, %q, is not one such as unix:///var/run/docker.sock", host)
	}
	d := &docker{client: &http.Client{}, base: "http://docker"}
	transport := &http.Transport{DisableKeepAlives: true}
	d.client.Transport = transport
	switch u.Scheme {
	case "unix":
		if err := usable(u.Path); err != nil {
			return nil, err
		}
		d.local = true
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", u.Path)
		}
	case "tcp", "http", "https":
		d.base = "http://" + u.Host
		if transport.TLSClientConfig, err = dockerTLS(); err != nil {
			return nil, err
		}
		if transport.TLSClientConfig != nil || u.Scheme == "https" {
			d.base = "https://" + u.Host
		}
	default:
		return nil, fmt.Errorf("the address of Docker has the scheme %q; use unix, tcp or https", u.Scheme)
	}
	answer, err := d.do(ctx, http.MethodGet, "/_ping", nil)
	if err != nil {
		return nil, err
	}
	if version := answer.Header.Get("Api-Version"); version != "" {
		d.base += "/v" + version
	}
	return d, answer.Body.Close()
}

// usable tells what to do where a socket is not there or not for the agent.
func usable(socket string) error {
	conn, err := net.Dial("unix", socket)
	switch {
	case err == nil:
		return conn.Close()
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no Docker socket %s: mount it into the agent's container (volumes: [\"%s:%s\"]), or set DOCKER_HOST", socket, socket, socket)
	case errors.Is(err, fs.ErrPermission):
		info, err := os.Stat(socket)
		if err != nil {
			return fmt.Errorf("not allowed to use the Docker socket %s: its folder is closed to the agent's user", socket)
		}
		group := info.Sys().(*syscall.Stat_t).Gid
		return fmt.Errorf("not allowed to use the Docker socket %s: give the agent the group %d (group_add: [\"%d\"] in the compose file, SupplementaryGroups=%d in a unit)", socket, group, group, group)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nobody answers on the Docker socket %s; is Docker running?", socket)
	}
	return fmt.Errorf("the Docker socket: %w", err)
}

// dockerTLS reads the files that Docker's own client reads: see DOCKER_CERT_PATH.
// Unlike Docker, it always looks at the engine's certificate.
func dockerTLS() (*tls.Config, error) {
	folder := os.Getenv("DOCKER_CERT_PATH")
	if folder == "" {
		return nil, nil
	}
	ca, err := textfile.Read(filepath.Join(folder, "ca.pem"))
	if err != nil {
		return nil, fmt.Errorf("DOCKER_CERT_PATH: %w", err)
	}
	pair, err := textfile.KeyPair(filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem"))
	if err != nil {
		return nil, fmt.Errorf("DOCKER_CERT_PATH: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("DOCKER_CERT_PATH: there is no certificate in %s", filepath.Join(folder, "ca.pem"))
	}
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}, nil
}

func (d *docker) close() { d.client.CloseIdleConnections() }

// filters choose running containers by labels.
func filters(labels []string) url.Values {
	text, _ := json.Marshal(map[string][]string{"label": labels, "status": {"running"}})
	return url.Values{"filters": {string(text)}}
}

func (d *docker) get(ctx context.Context, path string, query url.Values, into any) error {
	answer, err := d.do(ctx, http.MethodGet, path, query)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	if err := json.NewDecoder(io.LimitReader(answer.Body, 16<<20)).Decode(into); err != nil {
		return fmt.Errorf("docker: the answer to %s is not understood: %w", path, err)
	}
	return nil
}

func (d *docker) post(ctx context.Context, path string, query url.Values) error {
	answer, err := d.do(ctx, http.MethodPost, path, query)
	if err != nil {
		return err
	}
	return answer.Body.Close()
}

// apiError is a refusal of the engine.
type apiError struct {
	status  int
	message string
}

func (e *apiError) Error() string { return fmt.Sprintf("docker: %s (status %d)", e.message, e.status) }

func (d *docker) do(ctx context.Context, method, path string, query url.Values) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, d.base+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, fmt.Errorf("docker: %w", err)
	}
	answer, err := d.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("docker: %w", plain(err))
	}
	if answer.StatusCode < 300 {
		return answer, nil
	}
	defer func() { _ = answer.Body.Close() }()
	var failed struct{ Message string }
	if json.NewDecoder(io.LimitReader(answer.Body, maxMessage)).Decode(&failed) != nil || failed.Message == "" {
		failed.Message = http.StatusText(answer.StatusCode) // Whatever answers is not Docker.
	}
	return nil, &apiError{answer.StatusCode, failed.Message}
}

// maxMessage is how many bytes of an error of Docker are read.
const maxMessage = 4 << 10

// plain is an error of net/http without the URL, which may hold a secret.
func plain(err error) error {
	var of *url.Error
	if errors.As(err, &of) {
		return of.Err
	}
	return err
}
