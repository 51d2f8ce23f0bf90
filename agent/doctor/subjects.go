package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/output"
	"github.com/smarteros/deaddrop/agent/plural"
	"github.com/smarteros/deaddrop/agent/tenant"
	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/printable"
)

// subject is a file, or a variable, that is to be made of secrets.
type subject struct {
	drop config.Drop
	env  string           // the variable that it is, or ""
	of   *config.ForEach  // the block that it comes from, or nil
	uses []render.Request // as found out by the last try
	err  error            // of the last try
	lack bool             // a secret is not known yet
}

func (s *subject) name() string {
	if s.env != "" {
		return "variable " + s.env
	}
	return s.drop.Name
}

// staticSubjects are those that are known without asking Vault.
func (e *exam) staticSubjects() {
	for _, d := range e.cfg.Drops {
		e.drops = append(e.drops, subject{drop: d})
	}
	for _, f := range e.cfg.Each {
		if f.Folder == "" {
			e.addKeys(f, f.Keys)
		}
	}
	if e.cfg.Supervise == nil {
		return
	}
	for _, v := range e.cfg.Supervise.Env {
		d := config.Drop{Name: v.Name, Template: v.Template, Source: v.Source, Encoding: render.Encoding{Format: render.FormatTemplate}}
		e.drops = append(e.drops, subject{drop: d, env: v.Name})
	}
}

func (e *exam) addKeys(f *config.ForEach, keys []string) {
	for _, key := range keys {
		drops, err := config.Expand(f, key)
		if err != nil {
			e.failBy("config", f.Name+", tenant "+key, err, "")
			continue
		}
		for _, d := range drops {
			e.drops = append(e.drops, subject{drop: d, of: f})
		}
	}
}

// follow lists the folders whose tenants drops are for.
func (e *exam) follow(ctx context.Context) {
	for _, f := range e.cfg.Each {
		if f.Folder == "" {
			continue
		}
		found := e.probe(ctx, render.List(f.Folder))
		if found.err != nil {
			e.unread("tenants", f.Folder+"/", render.List(f.Folder), found)
			continue
		}
		var keys []string
		for _, name := range found.names() {
			name = strings.TrimSuffix(name, "/")
			if f.Wants(name) && tenant.CheckID(name) == nil {
				keys = append(keys, name)
			}
		}
		slices.Sort(keys)
		keys = slices.Compact(keys)
		if len(keys) == 0 {
			e.warn("tenants", f.Folder+"/", "no tenant is there that the block wants", "is the folder right, and are include and exclude? \"tenantctl tenant add ID\" makes a tenant")
			continue
		}
		e.ok("tenants", f.Folder+"/", "may be listed: %s", plural.Of(len(keys), "tenant"))
		e.addKeys(f, keys)
	}
}

// try renders a drop with what is known by now, and returns what it lacks.
func (e *exam) try(s *subject) []render.Request {
	s.uses, s.err, s.lack = nil, nil, false
	var lacking []render.Request
	lookup := func(r render.Request) *render.Secret {
		found, known := e.found[r]
		if !known {
			lacking = append(lacking, r)
		}
		return found.secret
	}
	var dot *render.Secret
	if s.drop.Secret != "" {
		request := render.Read(s.drop.Secret)
		s.uses = []render.Request{request}
		if dot = lookup(request); dot == nil {
			s.lack = true
			return lacking
		}
	}
	if s.drop.Format != render.FormatTemplate {
		_, s.err = s.drop.Encode(dot)
		return lacking
	}
	result, err := s.drop.Template.Execute(render.Input{
		Secret: lookup, Env: os.LookupEnv, Now: time.Now(),
		File:   func(path string) (string, error) { return output.ReadFile(s.drop.Sandbox, path) },
		Tenant: cmp.Or(s.drop.Key, e.cfg.Tenant), Key: s.drop.Key, Service: e.cfg.Service, Dialect: s.drop.Dialect, Dot: dot,
	})
	s.uses = append(s.uses, result.Uses...)
	s.err, s.lack = err, len(result.Missing) > 0
	return lacking
}

// contents tells which drops can be made of their secrets.
func (e *exam) contents(context.Context) string {
	for i := range e.drops {
		s := &e.drops[i]
		switch at := slices.IndexFunc(s.uses, func(r render.Request) bool { return e.found[r].secret == nil }); {
		case s.err != nil:
			e.unrendered(s)
		case at >= 0:
			e.skip("content", s.name(), e.whyNot(s.uses[at]))
		case s.drop.Format == render.FormatTemplate:
			e.ok("content", s.name(), "the template renders, from %s", plural.Of(len(s.uses), "secret"))
		default:
			e.ok("content", s.name(), "can be written as %s", formatOf(s.drop))
		}
	}
	return ""
}

func formatOf(d config.Drop) string {
	if d.Format == render.FormatDotenv {
		return fmt.Sprintf("%s for %s", d.Format, cmp.Or(string(d.Dialect), "portable"))
	}
	return string(d.Format)
}

func (e *exam) whyNot(r render.Request) string {
	found := e.found[r]
	switch {
	case found.untried:
		return "not tried, as " + r.String() + " would be issued for it; the template itself is valid"
	case errors.Is(found.err, watch.ErrMissing):
		return "its secret is not there: " + r.String()
	}
	return "its secret could not be read: " + r.String()
}

// unrendered tells what a drop wants that its secrets do not have.
func (e *exam) unrendered(s *subject) {
	var missing *render.MissingKeyError
	if !errors.As(s.err, &missing) {
		e.failBy("content", s.name(), s.err, "correct the template, or the values of its secret")
		return
	}
	detail, fix := explain(s.err)
	key := cmp.Or(missing.Key, "KEY")
	write := writeKey(strings.TrimPrefix(missing.Secret, "/"), key)
	if fix != "" {
		fix += " Else write it: " + write
	} else {
		fix = "write it: " + write
	}
	e.fail("content", s.name(), s.err, detail, fix)
}

// writeKey is the command that gives a secret a key, in the words of whoever keeps
// its secrets there.
func writeKey(path, key string) string {
	logical, key := printable.Text(strings.Replace(path, "/data/", "/", 1)), printable.Text(key)
	parts := strings.Split(logical, "/")
	if len(parts) == 4 && parts[0] == tenant.Mount && parts[1] == tenant.Folder {
		return fmt.Sprintf("tenantctl tenant set %s %s %s=-   (or: vault kv patch %s %s=VALUE)", parts[2], parts[3], key, logical, key)
	}
	return fmt.Sprintf("vault kv patch %s %s=VALUE", logical, key)
}
