package session

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/vault/api"
)

// The kinds of [Fault], for errors.Is.
var (
	//lint:ignore ST1005 Vault is a name
	ErrUnreachable = errors.New("Vault cannot be reached")
	//lint:ignore ST1005 Vault is a name
	ErrSealed = errors.New("Vault is sealed")
	ErrLogin  = errors.New("the login failed")
	ErrDenied = errors.New("permission denied")
	//lint:ignore ST1005 Vault is a name
	ErrRejected = errors.New("Vault rejected the request")
)

// errBusy is the [ErrUnreachable] of a Vault, or of something in front of it, that
// does answer, but that it cannot serve the request now.
var errBusy error = busy{}

type busy struct{}

func (busy) Error() string { return "Vault cannot serve this now" }
func (busy) Unwrap() error { return ErrUnreachable }

// Fault is a request to Vault that failed.
type Fault struct {
	// Op is what was being done, and to what: "reading secret/data/x".
	Op string
	// Kind is one of the sentinels of this package.
	Kind error
	// Detail is what Vault or the network said, on one line.
	Detail string
	// Hint is what the user can do about it, or "".
	Hint string
	// Transient says that the same request may succeed later without anyone
	// changing the configuration of either side.
	Transient bool
	// RetryAfter is how long Vault asks to be left alone, or 0.
	RetryAfter time.Duration

	// LeaseLost says that Vault does not know the lease, or not any more.
	LeaseLost bool

	invalidToken bool
	// ambiguous says that the server gives the same answer for an invalid token, and
	// could not be asked which it is.
	ambiguous bool
}

// invalidToken is how Vault says that a token is not, or no longer, valid.
// lastUse is how it says that a lease cannot be had for a token's last use; the
// token has ended with it. pastMaxTTL is how it says, with a 500, that no more
// time is to be had. upgradingKV is how a KV engine says, with a 400, that it is being
// converted to version 2.
const (
	invalidToken = "invalid token"
	lastUse      = "token had one use left"
	pastMaxTTL   = "past the max TTL"
	upgradingKV  = "Upgrading from non-versioned to versioned"
)

func (f *Fault) Error() string {
	msg := f.Op + ": " + f.Kind.Error()
	if f.Detail != "" {
		msg += " (" + f.Detail + ")"
	}
	if f.Hint != "" {
		msg += "; " + f.Hint
	}
	return msg
}

// Unwrap gives the kind.
func (f *Fault) Unwrap() error { return f.Kind }

// IsTransient tells whether err is a [Fault] that may pass by itself.
func IsTransient(err error) bool {
	var f *Fault
	return errors.As(err, &f) && f.Transient
}

// Explain makes a [Fault] of an error of the API client: op says what was being
// done, and to what. It is for those who have a client of their own.
func Explain(op, address string, err error) error { return classify(op, address, err) }

// classify makes a Fault of an error of the API client.
func classify(op, address string, err error) *Fault {
	var answer *api.ResponseError
	switch {
	case errors.As(err, &answer):
		return fromAnswer(op, answer)
	case isNotVault(err):
		return notVault(op, notVaultDetail(err), "is the address "+address+" right, and is what is between it and here healthy? (VAULT_ADDR)")
	}
	return fromNetwork(op, address, err)
}

// isNotVault reports whether an answer came that Vault cannot have given: a balancer's
// page, say, or the start of an endless body.
func isNotVault(err error) bool {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	return errors.Is(err, errNotVault) || errors.As(err, &syntax) || errors.As(err, &kind) || errors.Is(err, io.ErrUnexpectedEOF)
}

func notVaultDetail(err error) string {
	switch {
	case errors.Is(err, errTooLarge):
		return errTooLarge.Error()
	case errors.Is(err, errNotVault):
		return errNotVault.Error()
	}
	return errNotVault.Error() + ": its answer is not of Vault's form"
}

func fromAnswer(op string, answer *api.ResponseError) *Fault {
	text := oneLine(answer)
	f := &Fault{Op: op, Detail: fmt.Sprintf("Vault answered %d: %s", answer.StatusCode, text)}
	switch code := answer.StatusCode; {
	case code == http.StatusForbidden && !answer.RawError && len(answer.Errors) > 0:
		f.Kind = ErrDenied
		f.invalidToken = strings.Contains(text, invalidToken)
	case code == http.StatusServiceUnavailable && strings.Contains(text, "sealed"):
		f.Kind, f.Detail, f.Transient = ErrSealed, "", true
		f.Hint = `unseal it with "vault operator unseal"`
	case answer.RawError && strings.Contains(strings.Join(answer.Errors, ""), "HTTP request to an HTTPS server"):
		f.Kind, f.Hint = ErrUnreachable, "Vault speaks TLS there; write https:// in the address"
	case strings.Contains(text, upgradingKV):
		f.Kind, f.Transient = errBusy, true
	case strings.Contains(text, pastMaxTTL):
		f.Kind = ErrRejected
	case code >= 500, code == http.StatusTooManyRequests, code == http.StatusPreconditionFailed, code == 472, code == 473:
		f.Kind, f.Transient = errBusy, true
	case answer.RawError, code == http.StatusForbidden:
		// Vault's refusals are JSON, and say what is refused.
		return notVault(op, fmt.Sprintf("%s: it answered %d: %s", errNotVault, code, text),
			"is the address right, and is what is between Vault and here healthy? (VAULT_ADDR)")
	case strings.Contains(text, lastUse):
		f.Kind, f.invalidToken = ErrRejected, true
		f.Hint = "let the role's tokens have more uses (token_num_uses)"
	default:
		f.Kind = ErrRejected
		f.LeaseLost = strings.Contains(text, "lease not found") || strings.Contains(text, "lease expired")
	}
	return f
}

// retryAfter reads the header of that name: seconds, or a date.
func retryAfter(text string) time.Duration {
	if seconds, err := strconv.Atoi(text); err == nil {
		return max(0, time.Duration(seconds)*time.Second)
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

// oneLine flattens Vault's "N errors occurred:\n\t* …". What is not Vault's
// JSON, such as a proxy's page, is not repeated.
func oneLine(answer *api.ResponseError) string {
	if answer.RawError || len(answer.Errors) == 0 {
		return strings.ToLower(http.StatusText(answer.StatusCode))
	}
	var parts []string
	for line := range strings.SplitSeq(strings.Join(answer.Errors, "\n"), "\n") {
		line = strings.TrimPrefix(strings.TrimSpace(line), "* ")
		if line != "" && !strings.HasSuffix(line, " occurred:") {
			parts = append(parts, line)
		}
	}
	return strings.Join(parts, ", ")
}

func fromNetwork(op, address string, err error) *Fault {
	f := &Fault{Op: op, Kind: ErrUnreachable, Transient: true}
	var inURL *url.Error
	if errors.As(err, &inURL) {
		err = inURL.Err
	}
	f.Detail = err.Error()
	var badCert *tls.CertificateVerificationError
	var badName x509.HostnameError
	var badDNS *net.DNSError
	var noTLS tls.RecordHeaderError
	var redirect *RedirectError
	switch {
	case errors.As(err, &redirect):
		f.Hint = redirect.hint() // It is transient: another node may be the active one soon.
	case errors.As(err, &badName):
		f.Transient, f.Hint = false, "set VAULT_TLS_SERVER_NAME, or use a name that is in the certificate"
	case errors.As(err, &badCert):
		f.Transient, f.Hint = false, "set VAULT_CACERT to the authority that signed Vault's certificate"
	case errors.As(err, &noTLS), strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		f.Transient, f.Hint = false, "Vault does not speak TLS there; write http:// in the address, if that is meant"
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT):
		f.Hint = "is Vault running at " + address + "? (VAULT_ADDR)"
	case errors.As(err, &badDNS):
		f.Hint = "is the address " + address + " right? (VAULT_ADDR)"
	case errors.Is(err, context.DeadlineExceeded):
		f.Detail = "no answer from " + address + " in time"
	}
	return f
}
