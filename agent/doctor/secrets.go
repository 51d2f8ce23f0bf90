package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/smarteros/deaddrop/agent/plural"
	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render"
)

// finding is what was found out of a request.
type finding struct {
	at      render.Request // with the path of the API
	engine  watch.Engine
	secret  *render.Secret
	err     error
	untried bool // asking would issue something, or write
	// tokenEnded says that err is because of the token.
	tokenEnded bool
}

// names are those of a list.
func (f finding) names() []string {
	var names []string
	if f.secret == nil {
		return nil
	}
	keys, _ := f.secret.Data.Reveal()["keys"].([]any)
	for _, key := range keys {
		names = append(names, fmt.Sprint(key))
	}
	return names
}

type findings map[render.Request]finding

// probe asks what is harmless to ask.
func (e *exam) probe(ctx context.Context, r render.Request) finding {
	found := e.tryRequest(ctx, r)
	found.tokenEnded = found.err != nil && e.isTokensFault(ctx, found.err)
	return found
}

func (e *exam) tryRequest(ctx context.Context, r render.Request) finding {
	at, err := e.secrets.Resolve(ctx, r)
	if err != nil {
		return finding{at: r, err: err}
	}
	path, _, _ := strings.Cut(at.Path, "?")
	if at.Lists() {
		path += "/"
	}
	engine, err := e.secrets.Engine(ctx, path)
	found := finding{at: at, engine: engine, err: err}
	switch {
	case err != nil && watch.IsPolicyDenial(err) && isPathOfKV(at):
		found.secret, _, found.err = e.secrets.Read(ctx, at) // As it is written: the mount cannot be looked up.
	case err != nil:
	case !isHarmless(engine, at):
		found.untried = true
	default:
		found.secret, _, found.err = e.secrets.Read(ctx, at)
	}
	return found
}

// isHarmless tells whether asking leaves no trace in Vault.
func isHarmless(engine watch.Engine, r render.Request) bool {
	inside := strings.TrimPrefix(r.Path, engine.Path)
	switch {
	case r.Lists():
		return true
	case r.Writes():
		return false
	case engine.KV > 0, engine.Kind == "cubbyhole":
		return true
	case engine.Kind == "database":
		return strings.HasPrefix(inside, "static-creds/")
	case engine.Kind == "pki":
		return strings.HasPrefix(inside, "cert/") || strings.HasPrefix(inside, "ca")
	}
	return false
}

// isPathOfKV reports whether a path is plainly one of KV v2, which can be read without
// effects.
func isPathOfKV(r render.Request) bool {
	return !r.Writes() && (r.Lists() || strings.Contains(r.Path, "/data/") || strings.Contains(r.Path, "/metadata/"))
}

// mostRounds bounds how often drops are rendered: a path that is another one each time,
// such as one with the time in it, would never be known.
const mostRounds = 20

// readAll finds out which secrets the drops are made of, by rendering them again and
// again as their secrets become known: a path may come from another secret.
func (e *exam) readAll(ctx context.Context) string {
	e.found = findings{}
	e.follow(ctx)
	for range mostRounds {
		lacking := map[render.Request]bool{}
		for i := range e.drops {
			for _, r := range e.try(&e.drops[i]) {
				lacking[r] = true
			}
		}
		if len(lacking) == 0 {
			break
		}
		e.probeAll(ctx, slices.Collect(maps.Keys(lacking)))
	}
	e.report(ctx)
	return ""
}

func (e *exam) probeAll(ctx context.Context, requests []render.Request) {
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(session.MaxConcurrent)
	if e.grant.Uses > 0 { // Vault answers 500 to who comes in between as another takes the last use.
		group.SetLimit(1)
	}
	for _, r := range requests {
		group.Go(func() error {
			found := e.probe(ctx, r)
			mu.Lock()
			defer mu.Unlock()
			e.found[r] = found
			return nil
		})
	}
	_ = group.Wait()
}

// report tells of each request, in order.
func (e *exam) report(ctx context.Context) {
	all := slices.SortedFunc(maps.Keys(e.found), func(a, b render.Request) int { return cmp.Compare(a.Fingerprint(), b.Fingerprint()) })
	var untried []render.Request
	for _, r := range all {
		switch found := e.found[r]; {
		case found.untried:
			untried = append(untried, r)
		case found.err != nil && e.isAbsent(r):
			e.skip("secret", r.String(), "its tenant has no such secret, and is passed over")
		case found.err != nil:
			e.unread("secret", r.String(), r, found)
		case r.Lists():
			e.ok("secret", r.String()+"/", "may be listed: %s", plural.Of(len(found.names()), "name"))
		default:
			e.ok("secret", r.String(), "%s", whatIs(found))
		}
	}
	e.allAbsent()
	if len(untried) > 0 {
		e.capabilities(ctx, untried)
	}
}

// allAbsent warns where no tenant at all has the secret of a block.
func (e *exam) allAbsent() {
	for _, f := range e.cfg.Each {
		all, absent := 0, 0
		for _, s := range e.drops {
			if s.of != f {
				continue
			}
			all++
			if slices.ContainsFunc(s.uses, e.isAbsent) {
				absent++
			}
		}
		if all > 0 && all == absent {
			e.warn("tenants", f.Name, "no tenant has the secret", "is the path right? \"tenantctl tenant list\" shows which services each tenant has")
		}
	}
}

// isAbsent tells whether a secret is missing that only tenants want who have no file
// of it: that is no fault.
func (e *exam) isAbsent(r render.Request) bool {
	if !errors.Is(e.found[r].err, watch.ErrMissing) {
		return false
	}
	return !slices.ContainsFunc(e.drops, func(s subject) bool {
		_, err := os.Lstat(s.drop.Destination)
		return slices.Contains(s.uses, r) && (s.of == nil || err == nil)
	})
}

func whatIs(f finding) string {
	keys := plural.Of(len(f.secret.Keys()), "key")
	switch {
	case f.engine.KV == 2 && f.secret.Version == 0:
		return "may be read: metadata of KV v2, " + keys
	case f.engine.KV == 2 || f.secret.Version > 0:
		return fmt.Sprintf("may be read: KV v2, version %d, %s", f.secret.Version, keys)
	case f.engine.KV == 1:
		return "may be read: KV v1, " + keys
	}
	return "may be read: " + f.engine.Kind + ", " + keys
}

// unread tells why a secret cannot be had.
func (e *exam) unread(name, subject string, r render.Request, found finding) {
	err := found.err
	switch {
	case found.tokenEnded:
		e.reportEndedToken(name, subject, err)
	case errors.Is(err, session.ErrDenied):
		e.denied(name, subject, found)
	case errors.Is(err, watch.ErrMissing):
		detail, fix := explain(err)
		e.fail(name, subject, err, strings.TrimPrefix(detail, fmt.Sprintf("secret %q: ", found.at.Path)), missingFix(r, fix))
	default:
		e.failBy(name, subject, err, servedFix)
	}
}

// servedFix is for requests that fail though Vault is up.
const servedFix = "Vault has served until just now: its own log may say why; or give a longer --timeout"

// denied says which right is missing. Where no policy covers a path at all, Vault does
// not even tell what is mounted there.
func (e *exam) denied(name, subject string, found finding) {
	detail, _ := explain(found.err)
	path, capabilities := pathOf(found.at), needs(found.at)
	if found.engine.Path != "" {
		e.fail(name, subject, found.err, detail, e.policyFix(rule(path, capabilities...))+"\nor correct the path, if another secret is meant")
		return
	}
	rules := []string{rule(path, capabilities...)}
	mount, rest, _ := strings.Cut(path, "/")
	if mount != "secret" && !found.at.Lists() && !found.at.Writes() {
		rules = append(rules, rule(mount+"/data/"+rest, capabilities...)+"   (this instead, if "+mount+"/ is KV v2)")
	}
	e.fail(name, subject, found.err, detail, "is the path right? \"vault secrets list\" shows what is mounted. If it is, "+e.policyFix(rules...))
}

func missingFix(r render.Request, fix string) string {
	if !strings.HasPrefix(fix, "write one with") {
		return fix
	}
	path, _, _ := strings.Cut(r.Path, "?")
	return "write it: " + strings.Replace(writeKey(path, "KEY"), "kv patch", "kv put", 1)
}

// pathOf is the path as a policy has it. Of one whose engine could not be found it is
// a guess.
func pathOf(r render.Request) string {
	path, _, _ := strings.Cut(strings.Trim(r.Path, "/"), "?")
	mount, rest, _ := strings.Cut(path, "/")
	if mount == "secret" && !strings.HasPrefix(rest, "data/") && !strings.HasPrefix(rest, "metadata/") {
		kind := "/data/"
		if r.Lists() {
			kind = "/metadata/"
		}
		path = mount + kind + rest
	}
	if r.Lists() {
		path += "/"
	}
	return watch.Unescaped(path)
}

// needs are the capabilities that a request takes.
func needs(r render.Request) []string {
	switch {
	case r.Lists():
		return []string{"list"}
	case r.Writes():
		return []string{"create", "update"}
	}
	return []string{"read"}
}

func rule(path string, capabilities ...string) string {
	return fmt.Sprintf("path %q { capabilities = [\"%s\"] }", path, strings.Join(capabilities, `", "`))
}

// policyFix says how a login gets a right.
func (e *exam) policyFix(rules ...string) string {
	own := slices.DeleteFunc(slices.Clone(e.grant.Policies), func(p string) bool { return p == "default" })
	name, which := "NAME", "a policy of this login"
	if len(own) > 0 {
		name, which = own[0], "the policy "+strings.Join(own, " or ")
	}
	return fmt.Sprintf("add to %s:\n  %s\nwith: vault policy read %s > p.hcl, add it there, vault policy write %s p.hcl", which, strings.Join(rules, "\n  "), name, name)
}
