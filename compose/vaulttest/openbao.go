package vaulttest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// OpenBaoVersion is the OpenBao whose answers [Server.OpenBao] gives.
const OpenBaoVersion = "2.6.2"

// maxBody bounds what the proxy keeps in memory of a request or an answer. Vault and
// OpenBao accept 32 MiB, and half a MiB for what encodes it.
const maxBody = 32<<20 + 512<<10

// noAuditAPI is OpenBao's refusal of an audit device, since 2.3.2: devices are
// declared in its configuration file (openbao.org/docs/configuration/audit).
const noAuditAPI = "cannot enable audit device via API; use declarative, config-based audit device management instead"

// OpenBao puts a reverse proxy in front of the server until the test ends, and
// returns it as a server of its own. The proxy gives the answers in which OpenBao
// differs from Vault for a client:
//
//   - A request with an expired, revoked, used-up or unknown token is denied like one
//     that no policy allows. Vault adds "invalid token".
//   - Service tokens and wrapping tokens begin with "s.", batch tokens with "b."
//     (sdk/helper/consts/token_consts.go). Vault's are "hvs." and "hvb.".
//   - sys/health has no "enterprise", no replication and no clock skew.
//   - The warning of a KV v1 path on a v2 mount names the command "bao".
//   - No audit device can be enabled through the API.
//
// All else is the same on both, or Vault's.
func (s *Server) OpenBao(t testing.TB) *Server {
	t.Helper()
	target, err := url.Parse(s.Address)
	require.NoError(t, err)
	transport := &http.Transport{}
	if s.Client != nil {
		transport.TLSClientConfig = s.Client.CloneConfig().HttpClient.Transport.(*http.Transport).TLSClientConfig
	}
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Header.Del("Accept-Encoding") // The answers below are read.
		},
		ModifyResponse: answerOfOpenBao,
		ErrorLog:       log.New(io.Discard, "", 0), // of clients that have hung up
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if enablesAudit(r) {
			refuse(w, http.StatusBadRequest, noAuditAPI)
			return
		}
		if err := rewriteRequest(w, r); err != nil {
			refuse(w, http.StatusRequestEntityTooLarge, err.Error())
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		server.Close()
		transport.CloseIdleConnections()
	})
	bao := &Server{Address: server.URL, RootToken: toOpenBao(s.RootToken), UnsealKeys: s.UnsealKeys, PID: s.PID}
	require.NoError(t, bao.connect())
	t.Cleanup(func() { bao.Client.CloneConfig().HttpClient.CloseIdleConnections() })
	return bao
}

func enablesAudit(r *http.Request) bool {
	return (r.Method == http.MethodPut || r.Method == http.MethodPost) && strings.HasPrefix(r.URL.Path, "/v1/sys/audit/")
}

func refuse(w http.ResponseWriter, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(errorsBody(message))
}

func errorsBody(message string) []byte {
	body, _ := json.Marshal(map[string][]string{"errors": {message}})
	return append(body, '\n')
}

// toOpenBao and toVault give a token the prefix that it has on the other server.
// Anything else stays as it is.
func toOpenBao(token string) string { return swapPrefix(token, "hvs.", "s.", "hvb.", "b.") }

func toVault(token string) string { return swapPrefix(token, "s.", "hvs.", "b.", "hvb.") }

func swapPrefix(token string, pairs ...string) string {
	for pair := range slices.Chunk(pairs, 2) {
		if rest, found := strings.CutPrefix(token, pair[0]); found {
			return pair[1] + rest
		}
	}
	return token
}

// namesToken reports whether the body of a request to this path has a token in its
// field "token".
func namesToken(path string) bool {
	return strings.HasPrefix(path, "/v1/auth/token/") || strings.HasPrefix(path, "/v1/sys/wrapping/") || path == "/v1/sys/capabilities"
}

func readAll(r io.Reader) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, maxBody+1))
	if err == nil && len(body) > maxBody {
		err = fmt.Errorf("body larger than %d bytes", maxBody)
	}
	return body, err
}

// rewriteRequest gives Vault its own tokens, and bounds the body.
func rewriteRequest(w http.ResponseWriter, r *http.Request) error {
	const header, bearer = "X-Vault-Token", "Bearer "
	if token := r.Header.Get(header); token != "" {
		r.Header.Set(header, toVault(token))
	}
	if token, found := strings.CutPrefix(r.Header.Get("Authorization"), bearer); found {
		r.Header.Set("Authorization", bearer+toVault(token))
	}
	if !namesToken(r.URL.Path) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		return nil
	}
	body, err := readAll(r.Body)
	if err != nil {
		return err
	}
	var fields object
	if json.Unmarshal(body, &fields) == nil && fields.rewrite("token", toVault) {
		body = encode(fields)
	}
	setBody(&r.Body, &r.ContentLength, r.Header, body)
	return nil
}

func setBody(to *io.ReadCloser, length *int64, header http.Header, body []byte) {
	*to, *length = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	header.Set("Content-Length", fmt.Sprint(len(body)))
}

// answerOfOpenBao changes an answer of Vault's. What is not JSON passes as a stream.
func answerOfOpenBao(r *http.Response) error {
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") || r.Request.Method == http.MethodHead {
		return nil
	}
	body, err := readAll(r.Body)
	_ = r.Body.Close()
	if err != nil {
		return err
	}
	setBody(&r.Body, &r.ContentLength, r.Header, rewriteAnswer(r.Request.URL.Path, r.StatusCode, body))
	return nil
}

func rewriteAnswer(path string, code int, body []byte) []byte {
	if code == http.StatusForbidden {
		return rewriteDenial(body)
	}
	var answer object
	if json.Unmarshal(body, &answer) != nil {
		return body
	}
	changed := answer.in("auth", func(auth object) bool { return auth.rewrite("client_token", toOpenBao) })
	changed = answer.in("wrap_info", func(info object) bool { return info.rewrite("token", toOpenBao) }) || changed
	changed = answer.rewriteWarnings() || changed
	switch path {
	case "/v1/auth/token/lookup", "/v1/auth/token/lookup-self":
		changed = answer.in("data", func(data object) bool { return data.rewrite("id", toOpenBao) }) || changed
	case "/v1/sys/init":
		changed = answer.rewrite("root_token", toOpenBao) || changed
	case "/v1/sys/health":
		answer.keep("initialized", "sealed", "standby", "server_time_utc", "version", "cluster_name", "cluster_id")
		answer["version"], changed = encode(OpenBaoVersion), true
	case "/v1/sys/seal-status":
		answer["version"], changed = encode(OpenBaoVersion), true
	}
	if !changed {
		return body
	}
	return append(encode(answer), '\n')
}

// rewriteDenial leaves of a denial what OpenBao says. The function
// fetchACLTokenEntryAndEntity of OpenBao returns "permission denied" where that of
// Vault adds "invalid token" (vault/request_handling.go).
func rewriteDenial(body []byte) []byte {
	const denied = "permission denied"
	var answer struct {
		Errors []string `json:"errors"`
	}
	if json.Unmarshal(body, &answer) == nil && len(answer.Errors) == 1 && strings.Contains(answer.Errors[0], "* "+denied) {
		return errorsBody(denied)
	}
	return body
}

// object is a JSON object whose fields are decoded one at a time, so that all others
// stay as they are.
type object map[string]json.RawMessage

func encode(value any) json.RawMessage {
	text, _ := json.Marshal(value)
	return text
}

// rewrite changes a field that is a text, and reports whether it has.
func (o object) rewrite(field string, change func(string) string) bool {
	var text string
	if o[field] == nil || json.Unmarshal(o[field], &text) != nil || change(text) == text {
		return false
	}
	o[field] = encode(change(text))
	return true
}

// in changes an object within a field, and reports whether it has.
func (o object) in(field string, change func(object) bool) bool {
	var inner object
	if o[field] == nil || json.Unmarshal(o[field], &inner) != nil || inner == nil || !change(inner) {
		return false
	}
	o[field] = encode(inner)
	return true
}

func (o object) keep(fields ...string) {
	for field := range o {
		if !slices.Contains(fields, field) {
			delete(o, field)
		}
	}
}

// rewriteWarnings has warnings name OpenBao's command
// (builtin/logical/kv/backend.go).
func (o object) rewriteWarnings() bool {
	var warnings []string
	if o["warnings"] == nil || json.Unmarshal(o["warnings"], &warnings) != nil {
		return false
	}
	names := strings.NewReplacer("the Vault CLI", "the OpenBao CLI", "'vault kv ", "'bao kv ")
	for i := range warnings {
		warnings[i] = names.Replace(warnings[i])
	}
	o["warnings"] = encode(warnings)
	return warnings != nil
}
