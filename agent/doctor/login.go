package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/plural"
	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render/secret"
)

// logIn logs in as the agent would, once.
func (e *exam) logIn(ctx context.Context) string {
	auth := e.cfg.Auth
	if auth.WrappingPath != "" {
		e.wrapped(ctx)
		return "not looked at, as the wrapped secret id is left to the agent"
	}
	if err := e.vault.Login(ctx); err != nil {
		e.failedLogin(err)
		return "not looked at, as the login failed"
	}
	e.loggedIn = true
	e.secrets = watch.NewSecrets(e.vault)
	switch {
	case !e.vault.OwnsToken():
		e.ok("login", e.how(), "the token is known to Vault")
	case auth.Method == config.MethodAppRole && !auth.SecretID.IsSet():
		e.ok("login", e.how(), "works, with the role id alone")
	case auth.Method == config.MethodAppRole && auth.Remove:
		e.ok("login", e.how(), "works; this was one use of the secret id, and its file was left where it is")
	case auth.Method == config.MethodAppRole:
		e.ok("login", e.how(), "works; this was one use of the secret id, if its uses are limited")
	default:
		e.ok("login", e.how(), "works")
	}
	return ""
}

// how says how the login is done.
func (e *exam) how() string {
	auth := e.cfg.Auth
	text := auth.Method + " at auth/" + auth.MountPath
	switch auth.Method {
	case config.MethodToken:
		text = "VAULT_TOKEN"
	case config.MethodTokenFile:
		text = "token in " + auth.File
	}
	if namespace := e.client.Namespace(); namespace != "" {
		text += ", namespace " + namespace
	}
	return text
}

func (e *exam) failedLogin(err error) {
	detail, fix := explain(err)
	auth := e.cfg.Auth
	role := "auth/" + auth.MountPath + "/role/ROLE"
	switch {
	case !e.vault.OwnsToken() && strings.Contains(detail, "permission denied"):
		detail = "the token is not valid: " + detail
	case strings.Contains(detail, "CIDR"):
		fix = "this machine's address is not among those that the role allows: \"vault read " + role + "\" shows secret_id_bound_cidrs and token_bound_cidrs; \"vault write " + role + " secret_id_bound_cidrs=…\" changes them, for secret ids that are made from then on"
	case auth.Method == config.MethodAppRole && e.hasTokenAsSecretID(): // The hint of the login says what to do.
	case auth.Method == config.MethodAppRole && auth.SecretID.IsSet() && errors.Is(err, session.ErrLogin) && strings.Contains(detail, "invalid role or secret"):
		fix = "the role id is wrong, or the secret id is: it may be of another role, have expired, been used up or been revoked. Make a new one:\n" +
			"  vault read " + role + "/role-id\n" +
			"  vault write -f " + role + "/secret-id\n" +
			"or, for a tenant: tenantctl credentials issue TENANT --service SERVICE --env deaddrop.env"
	}
	e.fail("login", e.how(), err, detail, cmp.Or(fix, servedFix))
}

// hasTokenAsSecretID reports whether the secret id is, by its form, a token.
func (e *exam) hasTokenAsSecretID() bool {
	id, err := e.cfg.Auth.SecretID.Read()
	return err == nil && session.LooksLikeToken(id)
}

// wrapped looks at a wrapping token without using it up: it can be used once, and
// that is for the agent.
func (e *exam) wrapped(ctx context.Context) {
	auth := e.cfg.Auth
	how := e.how()
	const left = "the secret id is wrapped, and can be unwrapped once: that is left to the agent"
	token, err := auth.SecretID.Read()
	if err != nil {
		e.skip("login", how, left)
		return
	}
	made, err := e.lookUpWrapping(ctx, token)
	switch {
	case err != nil:
		detail, _ := explain(err)
		e.fail("login", how, session.ErrLogin, "the wrapping token in "+auth.SecretID.File+" is not valid: it was used already, or has expired ("+detail+")",
			"if nobody you know has used it, someone else may have the secret id: revoke the role's secret ids. Deliver a new one:\n"+
				"  vault write -wrap-ttl=5m -f "+auth.WrappingPath)
	case made != auth.WrappingPath:
		e.fail("login", how, session.ErrLogin, fmt.Sprintf("the wrapping token was made at %q, not at %q", made, auth.WrappingPath),
			"do not trust it: someone may have put it there in exchange for the real one. Or correct secret_id_response_wrapping_path")
	default:
		e.skip("login", how, left+"; the wrapping token is valid still")
	}
}

// lookUpWrapping tells where a wrapping token was made. That does not use it up.
func (e *exam) lookUpWrapping(ctx context.Context, token secret.Value[string]) (string, error) {
	info, err := e.client.Logical().WriteWithContext(ctx, "sys/wrapping/lookup", map[string]any{"token": token.Reveal()})
	if err != nil {
		return "", session.Explain("looking at the wrapping token", e.shown, err)
	}
	if info == nil {
		return "", nil
	}
	made, _ := info.Data["creation_path"].(string)
	return made, nil
}

// few is how many uses of a token, and how many intervals of its life, are too few.
const (
	fewUses      = 100
	fewIntervals = 3
)

// token tells how long the agent may go on with what the login has given.
func (e *exam) token(ctx context.Context) string {
	g := *e.grant
	var most time.Duration
	if g.Uses == 0 { // Looking at it would be one use more.
		most = e.lookUpSelf(ctx, &g)
	}
	e.grant = &g
	bad := len(e.Checks)
	e.tokenWarnings(g)
	if len(e.Checks) > bad {
		return ""
	}
	e.ok("token", policiesOf(g), "%s", lifeOf(g, most))
	return ""
}

// lookUpSelf adds what a token may tell of itself, and returns the longest life that
// it may reach, 0 where that is not known. Without the default policy it may not ask.
func (e *exam) lookUpSelf(ctx context.Context, g *session.Grant) time.Duration {
	answer, err := e.vault.Read(ctx, "auth/token/lookup-self", nil)
	if err != nil || answer.Secret == nil {
		return 0
	}
	if len(g.Policies) == 0 {
		g.Policies, _ = answer.TokenPolicies()
	}
	uses, _ := answer.Data["num_uses"].(interface{ Int64() (int64, error) })
	if uses != nil && !e.vault.OwnsToken() {
		n, _ := uses.Int64()
		g.Uses = int(n)
	}
	seconds, _ := answer.Data["explicit_max_ttl"].(interface{ Int64() (int64, error) })
	if seconds == nil {
		return 0
	}
	n, _ := seconds.Int64()
	return time.Duration(n) * time.Second
}

func (e *exam) tokenWarnings(g session.Grant) {
	subject := policiesOf(g)
	if slices.Contains(g.Policies, "root") {
		e.warn("token", subject, "it may do everything in this Vault", "give the agent a login of its own that may read its secrets only: \"tenantctl credentials issue TENANT --service SERVICE\", or an AppRole with a policy of read rights")
	}
	if g.TTL > 0 && g.TTL < fewIntervals*e.cfg.Interval {
		e.warn("token", subject, fmt.Sprintf("it lives for %v, and secrets are looked at every %v", g.TTL, e.cfg.Interval),
			"let it live longer (\"vault write auth/"+e.cfg.Auth.MountPath+"/role/ROLE token_ttl=1h\"): each end of a token is a new login")
	}
	if g.Uses > 0 && g.Uses < fewUses {
		e.warn("token", subject, fmt.Sprintf("it is good for %s only, and then a new login follows", plural.Of(g.Uses, "request")),
			e.usesFix())
	}
	if !e.vault.OwnsToken() && g.TTL > 0 && !g.Renewable {
		e.warn("token", subject, fmt.Sprintf("it ends in %v, and cannot be renewed", g.TTL), "deliver another one before, or let deaddrop log in by itself with AppRole")
	}
}

func (e *exam) usesFix() string {
	if !e.vault.OwnsToken() {
		return "deliver a token whose uses are not limited, or let deaddrop log in by itself with AppRole"
	}
	return "\"vault write auth/" + e.cfg.Auth.MountPath + "/role/ROLE token_num_uses=0\"; leases end with a token that is used up"
}

func policiesOf(g session.Grant) string {
	switch len(g.Policies) {
	case 0:
		return "policies not known"
	case 1:
		return "policy " + g.Policies[0]
	}
	return "policies " + strings.Join(g.Policies, ", ")
}

func lifeOf(g session.Grant, most time.Duration) string {
	text := "lives for " + g.TTL.String()
	if g.TTL == 0 {
		text = "its end is not known, or it has none"
	} else if g.Renewable {
		text += ", renewable"
	} else {
		text += ", not renewable"
	}
	if most > 0 {
		text += ", for " + most.String() + " at most"
	}
	if g.Uses > 0 {
		text += ", good for " + plural.Of(g.Uses, "request")
	}
	return text
}

// logOut revokes the token that the examination was made with, where it was made for
// that.
func (e *exam) logOut(ctx context.Context) {
	if e.vault == nil {
		return
	}
	bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), stepTimeout)
	defer cancel()
	defer e.vault.Close(bye, true)
	if !e.loggedIn || !e.vault.OwnsToken() {
		return
	}
	const subject = "token of this check"
	_, err := e.vault.Write(bye, "auth/token/revoke-self", nil)
	switch {
	case err == nil:
		e.ok("logout", subject, "revoked")
	case e.isTokensFault(bye, err) && e.grant.Uses > 0:
		e.ok("logout", subject, "used up")
	case e.isTokensFault(bye, err):
		e.ok("logout", subject, "has ended already")
	case errors.Is(err, session.ErrDenied):
		e.ok("logout", subject, "may not be revoked (auth/token/revoke-self); it ends by itself in %v", e.grant.TTL)
	default: // A batch token, or Vault is gone.
		e.ok("logout", subject, "could not be revoked; it ends by itself in %v", e.grant.TTL)
	}
}

// isTokensFault reports whether a request was denied because of the token rather than
// of a policy: it has ended, or is used up. Vault says so, OpenBao has to be asked.
func (e *exam) isTokensFault(ctx context.Context, err error) bool {
	if session.IsInvalidToken(err) || !e.isOpenBao || !errors.Is(err, session.ErrDenied) {
		return session.IsInvalidToken(err)
	}
	valid, unknown := e.vault.TokenIsValid(ctx)
	return unknown == nil && !valid
}

// reportEndedToken reports a request that was denied because the token has ended.
func (e *exam) reportEndedToken(name, subject string, err error) {
	if e.grant.Uses > 0 {
		e.skip(name, subject, fmt.Sprintf("not looked at, as the token was good for %s only", plural.Of(e.grant.Uses, "request")))
		return
	}
	detail, _ := explain(err)
	fix := "run this check again; if it says so again, somebody revokes the tokens of this login, or they live too short"
	if !e.vault.OwnsToken() {
		fix = "deliver a new token"
	}
	e.fail(name, subject, err, "the token has ended, or was revoked, while this check ran: "+detail, fix)
}
