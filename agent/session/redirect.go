package session

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/hashicorp/vault/api"
)

// RedirectError is a redirect that is not followed. The client library would send the
// request again to wherever Vault, or something in front of it, says, with the token
// and with the ids of a login. Nothing was sent there.
type RedirectError struct {
	// To is the scheme, host and port that Vault redirects to.
	To string
	// Host is the host and port of To, the way to allow them.
	Host string
	// IsDowngrade says that To is not encrypted, other than the address of Vault.
	IsDowngrade bool

	isDisabled bool
}

func (e *RedirectError) Error() string {
	text := "Vault redirects to " + e.To
	switch {
	case e.isDisabled:
		return text + ", and VAULT_DISABLE_REDIRECTS is set"
	case e.IsDowngrade:
		return text + ", which has no TLS: nothing was sent there"
	}
	return text + ", which is another origin: nothing was sent there"
}

func (e *RedirectError) hint() string {
	const instead = "set the address of Vault to its active node, or to a load balancer that finds it"
	switch {
	case e.isDisabled:
		return instead
	case e.IsDowngrade:
		return "set api_addr in the configuration of Vault to an https:// address"
	}
	return `if it is a node of your Vault, allow it in the vault block: allow_redirects_to = ["` + e.Host + `"]; or ` + instead
}

// redirects decides which redirects a client follows.
type redirects struct {
	// allowed are the other hosts, as host:port, that a request may be sent to.
	allowed    []string
	isDisabled bool
}

// check returns a [*RedirectError] for an answer that redirects to another origin: to
// another scheme, host or port.
func (r redirects) check(from *url.URL, answer *http.Response) error {
	if answer.StatusCode < 300 || answer.StatusCode > 399 || answer.Header.Get("Location") == "" {
		return nil
	}
	to, err := from.Parse(answer.Header.Get("Location"))
	if err != nil {
		return nil // The client library cannot follow it either.
	}
	isDowngrade := from.Scheme == "https" && to.Scheme != "https"
	host, isSame := hostPort(to), hostPort(from) == hostPort(to)
	switch {
	case r.isDisabled:
	case isDowngrade:
	case isSame && from.Scheme == to.Scheme:
		return nil
	case (to.Scheme == from.Scheme || to.Scheme == "https") && slices.ContainsFunc(r.allowed, func(a string) bool { return strings.EqualFold(a, host) }):
		return nil
	}
	// The host is text of somebody else: it is escaped, and no name is longer.
	shown := (&url.URL{Scheme: to.Scheme, Host: host[:min(len(host), 300)]}).String()
	return &RedirectError{To: shown, Host: strings.TrimPrefix(shown, to.Scheme+"://"), IsDowngrade: isDowngrade, isDisabled: r.isDisabled}
}

func hostPort(u *url.URL) string {
	port := u.Port()
	switch {
	case port != "":
	case u.Scheme == "https":
		port = "443"
	default:
		port = "80"
	}
	return net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// retryPolicy is that of the client library, which would make the same request again
// and again for a redirect that is not followed.
func retryPolicy(ctx context.Context, answer *http.Response, err error) (bool, error) {
	var redirect *RedirectError
	if errors.As(err, &redirect) {
		return false, nil
	}
	return api.DefaultRetryPolicy(ctx, answer, err)
}
