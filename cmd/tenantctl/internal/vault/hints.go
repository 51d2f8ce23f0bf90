package vault

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/smarteros/deaddrop/agent/session"
)

// checkAddress refuses what people copy from their browser.
func checkAddress(address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return errors.New("VAULT_ADDR is no URL") // Without it: there may be a password in it.
	}
	for _, page := range []string{"/ui", "/v1"} {
		if u.Path == page || strings.HasPrefix(u.Path, page+"/") {
			return fmt.Errorf("VAULT_ADDR: give the address without %s, such as %s://%s", u.Path, u.Scheme, u.Host)
		}
	}
	return nil
}

// hint says what helps where tenantctl is at hand. cause is the error of the client
// library that err explains.
func hint(err, cause error) error {
	var fault *session.Fault
	if !errors.As(err, &fault) {
		return err
	}
	var redirect *session.RedirectError
	switch {
	case fault.Kind == session.ErrSealed:
		fault.Hint = `unseal it with "tenantctl setup --unseal", or with "vault operator unseal"`
	case errors.As(cause, &redirect):
		fault.Hint = "set VAULT_ADDR to the active node of Vault, or to a load balancer that finds it"
	}
	return err
}

// RefusesToken reports whether a request has failed because of its token, which has
// ended or is not known, rather than for want of rights. Vault says so; OpenBao, which
// denies both in the same words, has to be asked.
func (c *Client) RefusesToken(ctx context.Context, err error) bool {
	var fault *session.Fault
	if !errors.As(err, &fault) || fault.Kind != session.ErrDenied {
		return false
	}
	if strings.Contains(fault.Detail, "invalid token") {
		return true
	}
	valid, unknown := session.TokenIsValid(ctx, c.api)
	return unknown == nil && !valid
}
