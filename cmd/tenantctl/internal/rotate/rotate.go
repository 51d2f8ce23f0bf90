// Package rotate replaces the root token of a Vault: by the ceremony that the holders
// of the unseal keys hold together, or by a token of an admin.
package rotate

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/vault"
)

// NextKey gives the unseal keys one by one: number n, from 1, of those that are
// needed.
type NextKey func(ctx context.Context, n, needed int) (string, error)

// ErrBusy is for a ceremony that somebody else has begun.
var ErrBusy error = busyError{}

type busyError struct{}

func (busyError) Error() string {
	return `a new root token is being generated already: wait until that is done, or end it with "vault operator generate-root -cancel"`
}

func (busyError) Unwrap() error { return vault.ErrConflict }

// Ceremony makes a new root token with the unseal keys. If it fails, nothing of it is
// left in Vault.
func Ceremony(ctx context.Context, v *vault.Client, next NextKey) (string, error) {
	client, err := v.API().CloneWithHeaders()
	if err != nil {
		return "", err
	}
	client.SetMaxRetries(0)          // A key that is given twice is refused.
	client.SetToken(v.API().Token()) // Some servers want one, Vault 1.21 does not.
	sys := client.Sys()
	status, err := sys.GenerateRootStatusWithContext(ctx)
	if err != nil {
		return "", explain(v, err)
	}
	if status.Started {
		return "", ErrBusy
	}
	attempt, err := sys.GenerateRootInitWithContext(ctx, "", "")
	if err != nil {
		return "", explain(v, err)
	}
	token, err := give(ctx, v, sys, attempt, next)
	if errors.Is(err, session.ErrUnreachable) && isOver(ctx, sys) {
		// Not the failure that it was, which would pass.
		return "", vault.Errorf(ErrLost, "%v; Vault has taken the keys all the same, so that there may be a root token now that nobody has", err)
	}
	if err != nil {
		cancel(ctx, sys)
	}
	return token, err
}

// ErrLost is for a ceremony that Vault has ended, and whose token was lost on its way.
var ErrLost = errors.New("the new root token was lost")

// isOver tells whether Vault has ended an attempt, even if the command was interrupted.
func isOver(ctx context.Context, sys *api.Sys) bool {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer stop()
	status, err := sys.GenerateRootStatusWithContext(ctx)
	return err == nil && !status.Started
}

// explain adds what is special of this one.
func explain(v *vault.Client, err error) error {
	err = v.Explain("generating a root token", err)
	if errors.Is(err, session.ErrDenied) || errors.Is(err, vault.ErrMissing) || errors.Is(err, session.ErrRejected) {
		err = fmt.Errorf("%w; OpenBao from 2.5.3 on allows this only where a listener has disable_unauthed_generate_root_endpoints = false", err)
	}
	return err
}

// cancel ends an attempt, even if the command was interrupted.
func cancel(ctx context.Context, sys *api.Sys) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer stop()
	_ = sys.GenerateRootCancelWithContext(ctx) // What failed is what is told.
}

// give hands in the keys until Vault has enough.
func give(ctx context.Context, v *vault.Client, sys *api.Sys, attempt *api.GenerateRootStatusResponse, next NextKey) (string, error) {
	for n := 1; n <= attempt.Required; n++ {
		key, err := next(ctx, n, attempt.Required)
		if err != nil {
			return "", err
		}
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		// A key that is on its way is not called back: it may be the last.
		progress, err := sys.GenerateRootUpdateWithContext(context.WithoutCancel(ctx), key, attempt.Nonce)
		if err != nil {
			return "", keyError(n, attempt.Required, v.Explain("giving the unseal keys", err))
		}
		if progress.Complete {
			return decode(progress, attempt.OTP)
		}
	}
	return "", errors.New("all keys were given, and Vault gives no token")
}

func keyError(n, needed int, err error) error {
	var fault *session.Fault
	if !errors.As(err, &fault) || fault.Kind != session.ErrRejected {
		return err
	}
	if n < needed {
		return fmt.Errorf("unseal key %d is none of this Vault, or was given before: %w", n, err)
	}
	return fmt.Errorf("the unseal keys are not those of this Vault: %w", err)
}

// decode takes the one-time password off a token.
func decode(progress *api.GenerateRootStatusResponse, otp string) (string, error) {
	encoded := progress.EncodedToken
	if encoded == "" {
		encoded = progress.EncodedRootToken
	}
	token, err := base64.RawStdEncoding.DecodeString(encoded)
	if err != nil || len(token) != len(otp) {
		return "", errors.New("the new root token cannot be decoded: Vault gives it in another form than agreed")
	}
	for i := range token {
		token[i] ^= otp[i]
	}
	return string(token), nil
}

// Token is what Vault tells of one.
type Token struct {
	Value    string
	Accessor string
	Root     bool
	Expires  time.Time // zero for never
}

// LookUp asks Vault about a token. It returns nil for one that is not, or no longer,
// valid.
func LookUp(ctx context.Context, v *vault.Client, token string) (*Token, error) {
	own, err := v.With(token)
	if err != nil {
		return nil, err
	}
	answer, err := own.Read(ctx, "auth/token/lookup-self", nil)
	if errors.Is(err, session.ErrDenied) || err == nil && answer == nil {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	t := &Token{Value: token}
	t.Accessor, _ = answer.TokenAccessor()
	names, _ := answer.TokenPolicies()
	t.Root = slices.Contains(names, "root")
	if ttl, _ := answer.TokenTTL(); ttl > 0 {
		t.Expires = time.Now().Add(ttl).UTC().Truncate(time.Second)
	}
	return t, nil
}

// Admin makes a token with a policy, by a root token. It has no parent, so that it
// outlives that one. A period, if there is one, is for how long each renewal is good;
// or else ttl is how long it lasts.
func Admin(ctx context.Context, root *vault.Client, policy string, ttl, period time.Duration) (string, error) {
	request := &api.TokenCreateRequest{
		Policies: []string{policy}, NoParent: true, DisplayName: "tenantctl-admin", TTL: ttl.String(),
	}
	if period > 0 {
		request.Period, request.TTL = period.String(), ""
	}
	answer, err := root.API().Auth().Token().CreateOrphanWithContext(ctx, request)
	if err != nil {
		return "", root.Explain("making a token with the policy "+policy, err)
	}
	return answer.Auth.ClientToken, nil
}

// Root is a root token that somebody has.
type Root struct {
	Accessor string
	Made     time.Time
}

// Roots are all root tokens that there are, as far as a client may see.
func Roots(ctx context.Context, v *vault.Client) ([]Root, error) {
	accessors, err := v.List(ctx, "auth/token/accessors")
	if err != nil {
		return nil, err
	}
	found := make([]*Root, len(accessors))
	err = vault.Each(ctx, len(accessors), func(ctx context.Context, i int) (err error) {
		found[i], err = lookUpRoot(ctx, v, accessors[i])
		return err
	})
	if err != nil {
		return nil, err
	}
	var all []Root
	for _, root := range found {
		if root != nil {
			all = append(all, *root)
		}
	}
	return all, nil
}

// lookUpRoot returns nil for other tokens, and for those that have ended meanwhile.
func lookUpRoot(ctx context.Context, v *vault.Client, accessor string) (*Root, error) {
	answer, err := v.Write(ctx, "auth/token/lookup-accessor", map[string]any{"accessor": accessor})
	switch {
	case errors.Is(err, session.ErrUnreachable), errors.Is(err, session.ErrSealed):
		return nil, err
	case err != nil || answer == nil:
		return nil, nil
	}
	if names, _ := answer.TokenPolicies(); !slices.Contains(names, "root") {
		return nil, nil
	}
	made, _ := answer.Data["creation_time"].(json.Number)
	seconds, _ := made.Int64()
	return &Root{accessor, time.Unix(seconds, 0).UTC()}, nil
}

// Revoke ends a token, and makes sure that it has ended.
func Revoke(ctx context.Context, v *vault.Client, token string) error {
	own, err := v.With(token)
	if err != nil {
		return err
	}
	if err := own.API().Auth().Token().RevokeSelfWithContext(ctx, ""); err != nil {
		if err = v.Explain("revoking a token", err); !own.RefusesToken(ctx, err) { // Or else it has ended already.
			return err
		}
	}
	left, err := LookUp(ctx, v, token)
	if err == nil && left != nil {
		err = errors.New("the token still works, though Vault has taken its revocation")
	}
	return err
}
