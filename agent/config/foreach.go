package config

import (
	"cmp"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/smarteros/deaddrop/agent/tenant"
	"github.com/smarteros/deaddrop/render"
)

// DefaultGrace is how long the files of a tenant are kept that is not there any
// more: it may have been removed by mistake.
const DefaultGrace = 5 * time.Minute

// ForEach is a block that stands for one drop, or one set of them, per tenant. It is data:
// [Expand] evaluates it for a tenant.
type ForEach struct {
	// Name is the block's label, or Pattern where it has none.
	Name string
	// Pattern is the first destination, with * for the key. No two blocks have the
	// same.
	Pattern string
	// Folder is the one in Vault that is listed: what is in it are the keys. It is
	// "" where the configuration lists them.
	Folder string
	// Keys are those that the configuration lists.
	Keys []string
	// Include and Exclude are patterns, of which a key has to match one of the
	// first, if there are any, and none of the second.
	Include, Exclude []string
	// RemoveFiles takes the files of a key away that is gone, after Grace.
	RemoveFiles bool
	Grace       time.Duration
	// Place is the folder that all destinations are in, whatever the key.
	Place string
	// CreateDirs says that folders are made that are not there.
	CreateDirs bool

	// block is evaluated for each key, within the configuration that encloses it.
	block     block
	enclosing enclosing
	// listed are the drops of the keys that the configuration lists. Without a list,
	// sample are the drops of a key that stands for any.
	listed map[string][]Drop
	sample []Drop
	// ownersDiffer says that user or group depend on the key.
	ownersDiffer bool
}

// enclosing is what a block with for_each needs of the configuration that it is in.
type enclosing struct {
	sources                          map[string][]byte    // of the files, by name
	destinations                     map[string]hcl.Range // of all blocks
	templates                        *templateCache
	tenant, service                  string
	wait                             Wait
	strict, requireTmpfs, supervises bool
}

// Expand returns the drops of a block with for_each for one tenant. The drops of a tenant
// that the configuration lists are always the same; for any other the block is evaluated
// anew, and reads template files again, which [Drop.Files] then names. The error is an
// [*Error] with every problem of the tenant's drops.
//
// Expand may be called by several goroutines at once.
func Expand(f *ForEach, tenant string) ([]Drop, error) {
	if drops, known := f.listed[tenant]; known {
		return drops, nil
	}
	return f.evaluate(f.loader(tenant, false))
}

// String is the name of the block. The text that it is evaluated from may hold secrets, and
// is not shown.
func (f *ForEach) String() string { return f.Name }

// Wants reports whether the patterns let a key through.
func (f *ForEach) Wants(key string) bool {
	matches := func(pattern string) bool { return render.Matches(pattern, key) }
	return (len(f.Include) == 0 || slices.ContainsFunc(f.Include, matches)) && !slices.ContainsFunc(f.Exclude, matches)
}

// forEachBlock is what a block with for_each has besides.
type forEachBlock struct {
	ForEach        hcl.Expression `hcl:"for_each,optional"`
	Include        []string       `hcl:"include,optional"`
	Exclude        []string       `hcl:"exclude,optional"`
	OnRemoved      string         `hcl:"on_removed,optional"`
	OnRemovedRange hcl.Range      `hcl:"on_removed,attr_value_range"`
	Grace          string         `hcl:"removal_grace,optional"`
	GraceRange     hcl.Range      `hcl:"removal_grace,attr_value_range"`
	Rest           hcl.Body       `hcl:",remain"`
}

// block is a block that may have for_each: a drop, a template or a set.
type block struct {
	isSet bool
	name  string // its label, or ""
	body  hcl.Body
	def   hcl.Range
}

// oneOrMany reads a block that may have for_each.
func (l *loader) oneOrMany(of block) {
	var b forEachBlock
	diags := gohcl.DecodeBody(of.body, l.ctx, &b)
	l.hcl(diags)
	def := of.def
	of.body = b.Rest
	switch {
	case diags.HasErrors():
		return
	case isUnset(b.ForEach):
		if b.Include != nil || b.Exclude != nil || b.OnRemoved != "" || b.Grace != "" {
			l.at(def, "include, exclude, on_removed and removal_grace are for blocks with for_each")
		}
		l.one(of)
		return
	}
	f := &ForEach{
		Name: of.name, Include: b.Include, Exclude: b.Exclude, Grace: DefaultGrace,
		RemoveFiles: l.choice("on_removed", b.OnRemoved, b.OnRemovedRange, "remove", "keep") == "remove",
		block:       of, enclosing: l.enclosing(),
	}
	if b.Grace != "" {
		f.Grace, _ = l.duration(b.Grace, b.GraceRange)
	}
	if !l.keysOf(f, b.ForEach) {
		return
	}
	l.tryOut(f)
	l.cfg.Each = append(l.cfg.Each, f)
}

// one reads a block without for_each, or one with it for the key of the loader.
func (l *loader) one(b block) {
	if !b.isSet {
		l.oneDrop(b.name, b.body, b.def, nil)
		return
	}
	set := setBody{Name: b.name, DefRange: b.def}
	l.hcl(gohcl.DecodeBody(b.body, l.ctx, &set))
	l.oneSet(set)
}

// enclosing returns what blocks with for_each need of the configuration. Its destinations
// are complete only once all blocks were read.
func (l *loader) enclosing() enclosing {
	return enclosing{
		sources: l.sources, destinations: l.destinations, templates: l.templates, tenant: l.cfg.Tenant, service: l.cfg.Service,
		wait: l.cfg.Wait, strict: l.strict, requireTmpfs: l.requireTmpfs, supervises: l.supervises,
	}
}

// loader returns a loader for one key, or for a stand-in for any. The problems and warnings
// that it finds and the files that it reads are its own.
func (f *ForEach) loader(key string, standIn bool) *loader {
	l, in := newLoader(), f.enclosing
	l.sources, l.taken, l.templates = in.sources, in.destinations, in.templates
	l.strict, l.requireTmpfs, l.supervises = in.strict, in.requireTmpfs, in.supervises
	l.cfg.Tenant, l.cfg.Service, l.cfg.Wait = in.tenant, in.service, in.wait
	l.key, l.standIn, l.ctx = key, standIn, withKey(scope(in.tenant, in.service), key)
	return l
}

// evaluate reads the block for the key of a loader.
func (f *ForEach) evaluate(l *loader) ([]Drop, error) {
	l.one(f.block)
	for i := range l.cfg.Drops {
		d := &l.cfg.Drops[i]
		if f.block.name != "" && d.Set == nil {
			d.Name = keyed(d.Name, l.key)
		}
		d.Place = f.Place
		if f.Place != "" && !IsBelow(d.Destination, f.Place) {
			l.at(f.block.def, "destination %s would be outside of %s", d.Destination, f.Place)
		}
		if d.OnMissing == Fail {
			l.at(f.block.def, "on_missing = \"fail\" cannot be in a block with for_each: one tenant must not stop the others")
		}
		if l.files == &l.cfg.Files { // Otherwise they are files of the configuration.
			d.Files = l.cfg.Files
		}
	}
	return l.cfg.Drops, l.err()
}

// keyed is the name of what a block stands for, for one key.
func keyed(name, key string) string { return name + "[" + key + "]" }

// keysOf reads what for_each says: a folder in Vault, or a list.
func (l *loader) keysOf(f *ForEach, expr hcl.Expression) bool {
	const help = `write a folder of Vault and /*, such as "secret/tenant/*", or a list of ids, such as ["demo", "rut-76832940-3"]`
	value, diags := expr.Value(l.ctx)
	if l.hcl(diags); diags.HasErrors() {
		return false
	}
	if value.Type() == cty.String && !value.IsNull() {
		folder, isFolder := strings.CutSuffix(strings.TrimPrefix(value.AsString(), "/"), "/*")
		if !isFolder || !isPath(folder) || strings.ContainsAny(folder, "*+{}") {
			l.at(expr.Range(), "for_each %q is not a folder; %s", value.AsString(), help)
			return false
		}
		f.Folder = folder
		return true
	}
	list, err := convert.Convert(value, cty.List(cty.String))
	if err != nil || list.IsNull() || list.LengthInt() == 0 {
		l.at(expr.Range(), "for_each is neither a text nor a list; %s", help)
		return false
	}
	for _, each := range list.AsValueSlice() {
		key := ""
		if !each.IsNull() {
			key = each.AsString()
		}
		if err := tenant.CheckID(key); err != nil {
			l.at(expr.Range(), "for_each: %s", err)
			return false
		}
		if f.Wants(key) && !slices.Contains(f.Keys, key) {
			f.Keys = append(f.Keys, key)
		}
	}
	return true
}

// Stand-ins for keys that nobody knows yet.
const (
	someKey  = "each.key.1-stands-for-a-tenant"
	otherKey = "each.key.2-stands-for-a-tenant"
)

// tryOut finds what is wrong whatever the key is, and where the files are. Of a
// list, each key is tried.
func (l *loader) tryOut(f *ForEach) {
	some, another := l.forKey(f, someKey, true), l.forKey(f, otherKey, true)
	one, err := f.evaluate(some)
	other, _ := f.evaluate(another)
	l.cfg.Warnings = append(l.cfg.Warnings, some.cfg.Warnings...)
	f.ownersDiffer = some.ownersDiffer || another.ownersDiffer
	def := f.block.def
	if err != nil || len(one) != len(other) || len(one) == 0 {
		l.adopt(err)
		return
	}
	first := filepath.Clean(one[0].Destination)
	f.Pattern, f.CreateDirs = strings.ReplaceAll(first, someKey, "*"), one[0].CreateDirs
	f.Name = cmp.Or(f.Name, f.Pattern)
	place := filepath.Dir(first)
	for i := range one {
		a, b := filepath.Clean(one[i].Destination), filepath.Clean(other[i].Destination)
		if a == b {
			l.at(def, "destination %s is the same for all keys; write ${each.key} into it", a)
			return
		}
		place = commonFolder(place, a, b)
		if place == "" {
			l.at(def, "destinations of different keys have no folder in common: begin all of them alike")
			return
		}
	}
	f.Place = place
	l.claim(f.Pattern, def)
	if len(f.Keys) == 0 {
		f.sample = one
		return
	}
	f.listed = map[string][]Drop{}
	for _, key := range f.Keys {
		drops, err := f.evaluate(l.forKey(f, key, false))
		l.adopt(err)
		for _, d := range drops {
			for _, path := range d.Paths() {
				l.claim(path, def)
			}
		}
		f.listed[key] = drops
	}
}

// forKey returns a loader for one key while the configuration is being read: the files that
// it reads are those of the configuration.
func (l *loader) forKey(f *ForEach, key string, standIn bool) *loader {
	each := f.loader(key, standIn)
	each.files, each.read, each.unread = l.files, l.read, l.unread
	return each
}

// adopt takes over what another loader has found wrong.
func (l *loader) adopt(err error) {
	wrong, ok := err.(*Error)
	if !ok {
		return
	}
	for _, p := range wrong.Problems {
		p.Text = strings.ReplaceAll(p.Text, someKey, "${each.key}")
		l.problems = append(l.problems, p)
	}
}

// dependsOnKey tells whether a text is made of a stand-in for a key, so that what
// it names cannot be there yet.
func (l *loader) dependsOnKey(text string) bool {
	return l.standIn && strings.Contains(text, l.key)
}

// commonFolder is the deepest folder that holds a folder and files, or "" where
// there is none: one may be absolute and another not.
func commonFolder(folder string, files ...string) string {
	for _, file := range files {
		for !IsBelow(file, folder) {
			up := filepath.Dir(folder)
			if up == folder {
				return ""
			}
			folder = up
		}
	}
	return folder
}

// IsBelow tells whether a file is in a folder, or in a folder of that.
func IsBelow(file, folder string) bool {
	inside, err := filepath.Rel(folder, file)
	return err == nil && inside != "." && inside != ".." && !strings.HasPrefix(inside, "../")
}

// tenantID is how the platform writes a tenant into a path.
var tenantID = regexp.MustCompile(`\{\{\s*tenant_id\s*\}\}`)

// withTenant puts the tenant into a path of the form of the platform,
// secret/data/tenant/{{tenant_id}}/nexa.
func (l *loader) withTenant(path string, at hcl.Range) string {
	if !strings.Contains(path, "{{") {
		return path
	}
	id := cmp.Or(l.key, l.cfg.Tenant)
	whole := tenantID.ReplaceAllLiteralString(path, id)
	err := tenant.CheckID(id)
	switch {
	case strings.Contains(whole, "{{"):
		l.at(at, "secret %q: only {{tenant_id}} may stand in a path", path)
	case id == "":
		l.at(at, "secret %q: no tenant is set: write tenant = \"…\" at the top of the file, or set DEADDROP_TENANT", path)
		return tenantID.ReplaceAllLiteralString(path, "tenant")
	case err != nil:
		l.at(at, "secret %q: the tenant: %s", path, err)
	}
	return whole
}
