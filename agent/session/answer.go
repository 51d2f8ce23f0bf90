package session

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
)

// maxAnswer bounds the body of an answer, in bytes. Vault's listeners take requests of
// at most 32 MiB (max_request_size), so no secret that it holds is larger.
const maxAnswer = 32 << 20

// errNotVault is the cause of a [Fault] for an answer that Vault cannot have given.
var errNotVault = errors.New("what answers there is not Vault")

// errTooLarge is an [errNotVault], too.
var errTooLarge = fmt.Errorf("%w: its answer has more than %d MiB", errNotVault, maxAnswer>>20)

// Bound makes the client of a configuration, which was made of it before, give up on
// answers of more than 32 MiB: whatever answers at Vault's address must not fill the
// memory.
func Bound(cfg *api.Config) {
	if t, ok := cfg.HttpClient.Transport.(*http.Transport); ok {
		cfg.HttpClient.Transport = boundedTransport{t}
	}
}

// Transport returns the transport of a client, bounded or not.
func Transport(client *api.Client) *http.Transport {
	switch t := client.CloneConfig().HttpClient.Transport.(type) {
	case *http.Transport:
		return t
	case boundedTransport:
		return t.Transport
	}
	return nil
}

type boundedTransport struct{ *http.Transport }

func (t boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := t.Transport.RoundTrip(r)
	if err == nil {
		answer.Body = &boundedBody{answer.Body, maxAnswer}
	}
	return answer, err
}

// boundedBody fails once more than left bytes were read.
type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, errTooLarge
	}
	return n, err
}

// inspection is what a request's answer says besides what the client library returns.
type inspection struct {
	// pause is how long Vault asks to be left alone, or 0.
	pause time.Duration
	// uses is how many requests the token of a login is good for; 0 for any number.
	uses int
	// fault is why an answer that looks like "nothing is there" is not that, or nil.
	fault error
}

// check returns why an answer is none of Vault's.
func (i *inspection) check(answer *api.Secret) error {
	switch {
	case i.fault != nil:
		return i.fault
	case answer != nil && !isOfVault(answer):
		return errNotVault
	}
	return nil
}

// isOfVault reports whether an answer has what all of Vault's have. The client library
// takes any other object for a secret, such as the message of a gateway.
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
