package session

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/api"
)

// visibleMounts is a list of the mounts that a token has access to. Vault and OpenBao
// answer it with 200 for any valid token, even for one without policies, and with 403
// for a token that is unknown, expired, revoked or used up. It takes none of the
// token's uses. So it tells an invalid token from a denial by policy on OpenBao, which
// answers both with the same 403. (The function pathInternalUIMountsRead of both
// servers looks only the token up; the path is among the unauthenticated ones, so no
// policy is checked and no use is counted.)
const visibleMounts = "sys/internal/ui/mounts"

// TokenIsValid reports whether the server knows the token of the client. Where it
// returns an error, that is not known.
func TokenIsValid(ctx context.Context, client *api.Client) (bool, error) {
	mounts, err := client.Logical().ReadWithContext(ctx, visibleMounts)
	var denial *api.ResponseError
	switch {
	case errors.As(err, &denial) && denial.StatusCode == http.StatusForbidden && strings.Contains(oneLine(denial), "permission denied"):
		return false, nil
	case err != nil:
		return false, err
	case mounts == nil:
		return false, errors.New("reading " + visibleMounts + ": not found")
	}
	return true, nil
}

// TokenIsValid asks whether the server still knows the present token, which takes none
// of its uses and no right. It is for denials that may be a policy's or the token's.
func (s *Session) TokenIsValid(ctx context.Context) (bool, error) {
	t := s.hold()
	if t == nil {
		return false, nil
	}
	defer t.Release()
	defer t.answered()
	return s.knows(ctx, t)
}

func (s *Session) knows(ctx context.Context, t *Token) (bool, error) {
	var seen inspection
	return TokenIsValid(ctx, inspected(s.client(), t.value, &seen))
}

// clarify returns the error of a request, which says that the token is invalid where the
// server has not said so, but does not know the token, or that this is not known. Only servers whose tokens begin
// with "s." or "b." are asked: others say so themselves.
func (s *Session) clarify(ctx context.Context, t *Token, err error) error {
	var f *Fault
	if !errors.As(err, &f) || !errors.Is(f, ErrDenied) || f.invalidToken ||
		!strings.HasPrefix(t.value, "s.") && !strings.HasPrefix(t.value, "b.") {
		return err
	}
	valid, unknown := s.knowsToken(ctx, t)
	clear := *f
	switch {
	case unknown != nil:
		clear.ambiguous = true
		return &clear
	case valid:
		return err
	}
	clear.invalidToken = true
	if !s.own {
		clear.Hint = s.method.advice()
	}
	return &clear
}

// isAmbiguous reports whether a denial may be a policy's or the token's, for all that is
// known.
func isAmbiguous(err error) bool {
	var f *Fault
	return errors.As(err, &f) && f.ambiguous
}
