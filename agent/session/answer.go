package session

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"
)

// maxAnswer bounds the bodies of the answers that are being read at the same time, in
// bytes. Vault's listeners take requests of at most 32 MiB (max_request_size), so no
// secret that it holds is larger.
var maxAnswer int64 = 32 << 20 // Tests lower it: an endless answer takes them a minute under -race.

// errNotVault is the cause of a [Fault] for an answer that Vault cannot have given.
var errNotVault = errors.New("what answers there is not Vault")

// errTooLarge is an [errNotVault], too.
var errTooLarge = fmt.Errorf("%w: its answer has more than %d MiB", errNotVault, maxAnswer>>20)

// NotVault returns the [Fault] of an answer that Vault cannot have given.
func NotVault(op string) error {
	return notVault(op, errNotVault.Error(), "is what is between Vault and here healthy?")
}

func notVault(op, detail, hint string) *Fault {
	return &Fault{Op: op, Kind: ErrUnreachable, Transient: true, Detail: detail, Hint: hint}
}

// Guard makes the client of a configuration, which was made of it before, refuse
// redirects to other hosts than its own and those of allowRedirectsTo (host:port), with a
// [*RedirectError], and give up on answers of more than 32 MiB: whatever answers at
// Vault's address must neither get the token sent elsewhere nor fill the memory.
func Guard(cfg *api.Config, allowRedirectsTo []string) {
	if t, ok := cfg.HttpClient.Transport.(*http.Transport); ok {
		cfg.HttpClient.Transport = guardedTransport{t, redirects{allowRedirectsTo, cfg.DisableRedirects}}
		cfg.CheckRetry = retryPolicy
	}
}

// Transport returns the transport of a client, guarded or not.
func Transport(client *api.Client) *http.Transport {
	switch t := client.CloneConfig().HttpClient.Transport.(type) {
	case *http.Transport:
		return t
	case guardedTransport:
		return t.Transport
	}
	return nil
}

type guardedTransport struct {
	*http.Transport
	redirects redirects
}

func (t guardedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := t.Transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if err := t.redirects.check(r.URL, answer); err != nil {
		_ = answer.Body.Close()
		return nil, err
	}
	answer.Body = &boundedBody{ReadCloser: answer.Body}
	return answer, nil
}

// small is the part of each body, in bytes, that counts for nothing: a large answer must
// not be in the way of others.
const small = 1 << 20

// beingRead are the bytes of the large bodies that are being read.
var beingRead atomic.Int64

// boundedBody fails when it is large, and too many bytes are being read.
type boundedBody struct {
	io.ReadCloser
	read   int64
	closed sync.Once
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	before := max(b.read, small)
	if b.read += int64(n); b.read > small && beingRead.Add(b.read-before) > maxAnswer {
		_ = b.Close() // Not all of the library's calls do so after an error.
		return 0, errTooLarge
	}
	if err != nil {
		b.release()
	}
	return n, err
}

func (b *boundedBody) release() {
	b.closed.Do(func() { beingRead.Add(-max(0, b.read-small)) })
}

func (b *boundedBody) Close() error {
	b.release()
	return b.ReadCloser.Close()
}

// inspection is what a request's answer says besides what the client library returns.
type inspection struct {
	// status is that of HTTP.
	status int
	// pause is how long Vault asks to be left alone, or 0.
	pause time.Duration
	// uses is how many requests the token of a login is good for; 0 for any number.
	uses int
	// fault is why an answer that looks like "nothing is there" is not that, or nil.
	fault error
}

// check returns why an answer is none of Vault's. The client library takes any answer
// without a body for one that holds nothing. Only a 404 says that nothing is there, and
// a 204 that a write has succeeded.
func (i *inspection) check(answer *api.Secret, writes bool) error {
	switch {
	case i.fault != nil:
		return i.fault
	case answer == nil && i.status != http.StatusNotFound && !(writes && i.status == http.StatusNoContent):
		return errNotVault
	}
	return nil
}

// isOfVault reports whether an answer has what Vault's have, but for a few that are of
// another's form, such as those of sys/health and of OpenID Connect. The client library
// takes any object for a secret, such as the message of a gateway.
func isOfVault(answer *api.Secret) bool { return answer.RequestID != "" }

// inspected returns the client with a token, and has each answer looked at.
func inspected(client *api.Client, token string, into *inspection) *api.Client {
	return client.
		WithRequestCallbacks(func(r *api.Request) {
			if r.ClientToken == "" {
				r.ClientToken = token
			}
		}).
		WithResponseCallbacks(func(r *api.Response) {
			into.status = r.StatusCode
			into.pause = retryAfter(r.Header.Get("Retry-After"))
			switch {
			case r.StatusCode == http.StatusNotFound:
				into.fault = notFound(bodyOf(r))
			case r.Request != nil && strings.HasSuffix(r.Request.URL.Path, "/login"):
				into.uses = usesOf(bodyOf(r))
			}
		})
}

// bodyOf returns the body of an answer, and leaves it to be read again.
func bodyOf(r *api.Response) []byte {
	body, err := io.ReadAll(r.Body)
	_ = r.Body.Close()
	r.Body = io.NopCloser(bytes.NewReader(body))
	if err != nil {
		r.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), failingReader{err}))
	}
	return body
}

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }

// usesOf reads what the client library leaves out of the answer to a login.
func usesOf(body []byte) int {
	var answer struct {
		Auth struct {
			Uses int `json:"num_uses"`
		} `json:"auth"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return 0
	}
	return answer.Auth.Uses
}

// notFound returns nil for the two ways in which Vault says that nothing is at a path:
// an empty list of errors, or an answer without data. The client library takes every
// other 404 for the same, such as a load balancer's page and the one for a path without
// an engine.
func notFound(body []byte) error {
	var answer struct {
		Errors   *[]string       `json:"errors"`
		Data     json.RawMessage `json:"data"`
		Warnings []string        `json:"warnings"`
	}
	if json.Unmarshal(body, &answer) != nil || answer.Errors == nil && answer.Data == nil && answer.Warnings == nil {
		return errNotVault
	}
	if answer.Errors == nil || len(*answer.Errors) == 0 {
		return nil
	}
	return &api.ResponseError{StatusCode: http.StatusNotFound, Errors: *answer.Errors}
}
