package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/render"
)

// mostAsked is how many paths are asked for at a time.
const mostAsked = 100

// ownRights are what a login that uses leases should have besides.
var ownRights = []struct{ path, without string }{
	{"sys/leases/renew", "leases are issued anew instead of renewed"},
	{"sys/leases/revoke", "old leases end by themselves, later"},
	{"auth/token/renew-self", "leases end with the token, and are issued anew with the next one"},
	{"auth/token/revoke-self", "old tokens end by themselves, later"},
}

// capabilities asks what the login may do where trying it would issue something.
func (e *exam) capabilities(ctx context.Context, untried []render.Request) {
	paths := []string{}
	for _, r := range untried {
		paths = append(paths, pathOf(e.found[r].at))
	}
	for _, right := range ownRights {
		paths = append(paths, right.path)
	}
	known, err := e.ask(ctx, paths)
	if err != nil && e.isTokensFault(ctx, err) {
		for _, r := range untried {
			e.reportEndedToken("secret", r.String(), err)
		}
		return
	}
	if err != nil {
		e.notAsked(untried, err)
		return
	}
	for _, r := range untried {
		at := e.found[r].at
		if has := known[pathOf(at)]; !allows(has, needs(at)) {
			e.fail("secret", r.String(), session.ErrDenied, "permission denied: it may "+listOf(has)+" there, and needs "+listOf(needs(at)), e.policyFix(rule(pathOf(at), needs(at)...)))
			continue
		}
		e.ok("secret", r.String(), "may be had from the %s engine; not tried, as it would issue something", e.found[r].engine.Kind)
	}
	e.optional(known)
}

// ask returns the capabilities of the login, by path.
func (e *exam) ask(ctx context.Context, paths []string) (map[string][]string, error) {
	known := map[string][]string{}
	for some := range slices.Chunk(paths, mostAsked) {
		answer, err := e.vault.Write(ctx, "sys/capabilities-self", map[string]any{"paths": some})
		switch {
		case err != nil:
			return nil, err
		case answer.Secret == nil:
			return nil, errors.New("nothing was answered")
		}
		for _, path := range some {
			all, _ := answer.Data[path].([]any)
			for _, each := range all {
				known[path] = append(known[path], fmt.Sprint(each))
			}
		}
	}
	return known, nil
}

// notAsked warns of what is not known: the first render will tell.
func (e *exam) notAsked(untried []render.Request, err error) {
	for _, r := range untried {
		at := e.found[r].at
		detail := "not tried, as it would issue something; whether this login may have it is not known"
		if errors.Is(err, session.ErrDenied) {
			detail += ", as it may not ask (sys/capabilities-self)"
		}
		e.warn("secret", r.String(), detail, "see that a policy has: "+rule(pathOf(at), needs(at)...)+"\nand, for this check to tell: "+rule("sys/capabilities-self", "update"))
	}
}

// optional warns of rights that leases are better with.
func (e *exam) optional(known map[string][]string) {
	for _, right := range ownRights {
		if !allows(known[right.path], []string{"update"}) {
			e.warn("right", right.path, "this login may not: "+right.without, e.policyFix(rule(right.path, "update")))
		}
	}
}

// allows tells whether capabilities are enough: of create and update either is.
func allows(has, needs []string) bool {
	return slices.Contains(has, "root") || slices.ContainsFunc(needs, func(n string) bool { return slices.Contains(has, n) })
}

func listOf(words []string) string {
	if len(words) == 0 || slices.Equal(words, []string{"deny"}) {
		return "do nothing"
	}
	return strings.Join(words, ", ")
}
