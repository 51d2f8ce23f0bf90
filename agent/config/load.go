package config

import (
	"cmp"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/zclconf/go-cty/cty"

	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/secret"
)

// Load reads configuration files, and folders of them (*.hcl and *.json, by
// name), and the templates and id files they name. All that is wrong is
// returned as one [*Error].
func Load(paths ...string) (*Config, error) { return Credentials(nil).Load(paths...) }

// Load is [Load] with credentials that were taken out of the environment.
func (c Credentials) Load(paths ...string) (*Config, error) {
	l := newLoader()
	l.credentials = c
	var bodies []hcl.Body
	legible := true
	for _, path := range l.expand(paths) {
		body, ok := l.parseFile(path)
		bodies = append(bodies, body)
		legible = legible && ok
	}
	if !legible {
		return nil, l.err() // What seems to be missing may be in what cannot be read.
	}
	bodies = l.names(bodies)
	var all fileBlock
	for _, body := range bodies {
		var blocks fileBlock
		body = l.takeForeign(body, foreignTopLevel)
		l.hcl(gohcl.DecodeBody(body, l.ctx, &blocks))
		l.merge(&all, blocks)
	}
	l.blocks(&all, paths[0])
	l.cfg.Sources = l.read
	l.cfg.Warnings = inOrder(l.cfg.Warnings)
	return l.cfg, l.err()
}

// blocks turns the grammar into a configuration. Those that others build on come
// first.
func (l *loader) blocks(all *fileBlock, file string) {
	l.global(all)
	l.vault(all.Vault)
	l.auth(all.AutoAuth, file)
	l.templateConfig(all.TemplateConfig)
	for _, b := range all.Templates {
		l.drop("", b.Body, b.DefRange, nil)
	}
	for _, b := range all.Drops {
		l.drop(b.Name, b.Body, b.DefRange, nil)
	}
	for _, b := range all.Sets {
		l.set(b.Name, b.Body, b.DefRange)
	}
	l.supervise(all.Exec, all.EnvTemplates)
	l.listeners(all.Listener)
	l.unsupported(all)
	if l.isIdle(all) {
		text := `there is nothing to write: add a "drop" or a "template" block`
		if len(all.Listener)-len(l.cfg.Listeners)+len(all.APIProxy)+len(all.Cache) > 0 {
			text += "; listener, api_proxy and cache are not supported here"
		}
		l.problems = append(l.problems, Problem{File: file, Text: text})
	}
}

// isIdle tells whether the configuration has nothing to do.
func (l *loader) isIdle(all *fileBlock) bool {
	return len(l.cfg.Each) == 0 && len(all.Templates)+len(all.Drops)+len(all.Sets)+len(all.EnvTemplates) == 0 &&
		all.Exec == nil && len(l.cfg.Sinks) == 0 && len(l.problems) == 0
}

// Simple is a configuration without a file: one secret into one file, with
// Vault and the login taken from the environment.
type Simple struct {
	Secret      string
	Tenant      string // for a secret with {{tenant_id}}
	Destination string
	Format      string
	Dialect     string
	Perms       string
	// Reload has the settings of a reload block; none is none.
	Reload   map[string]string
	Interval string
	// Credentials were taken out of the environment.
	Credentials Credentials
}

// Build makes a [Config] of it. Problems have no place, but name the value.
func (s Simple) Build() (*Config, error) {
	l := newLoader()
	l.credentials = s.Credentials
	l.cfg.Tenant = s.Tenant
	l.vault(nil)
	l.auth(nil, "")
	l.templateConfig(&templateConfigBlock{Interval: s.Interval})
	b := dropBody{Secret: s.Secret, Destination: s.Destination, Format: s.Format, Dialect: s.Dialect}
	if s.Perms != "" {
		b.Perms = hcl.StaticExpr(cty.StringVal(s.Perms), hcl.Range{})
	}
	l.dropBody(s.Destination, b, hcl.Range{}, nil)
	l.listeners(nil)
	if len(s.Reload) > 0 {
		settings := map[string]settingValue{}
		for name, text := range s.Reload {
			settings[name] = settingValue{Value: cty.StringVal(text)}
		}
		if r, ok := l.reloadOf(hcl.Range{}, settings); ok {
			l.cfg.Drops[0].Reloads = []Reload{r}
		}
	}
	return l.cfg, l.err()
}

// loader turns the grammar into a Config, and goes on after a problem, so that
// one look shows them all.
type loader struct {
	problems
	sources      map[string][]byte // of the files, by name
	read, unread Sources
	cfg          *Config
	destinations map[string]hcl.Range
	taken        map[string]hcl.Range // destinations of the configuration that a key is added to
	folders      map[string]bool      // of sets
	strict       bool
	supervises   bool // there is a command to supervise
	requireTmpfs bool
	key          string           // of a block with for_each, or ""
	standIn      bool             // the key stands for any
	ownersDiffer bool             // user or group depend on the key
	ctx          *hcl.EvalContext // what expressions may use
	templates    *templateCache   // those that the keys of a for_each share
	files        *[]string        // those of the configuration, or of the key
	credentials  Credentials
	// dockerSecrets is where to look for ids that nothing else names.
	dockerSecrets string
}

func newLoader() *loader {
	l := &loader{
		cfg: &Config{Interval: DefaultInterval, LeaseShare: DefaultLeaseShare, CertShare: DefaultCertShare},
		ctx: scope("", ""), templates: &templateCache{byKey: map[parsedKey]*render.Template{}},
		sources: map[string][]byte{}, read: Sources{}, unread: Sources{}, destinations: map[string]hcl.Range{}, folders: map[string]bool{}, dockerSecrets: dockerSecrets,
	}
	l.files = &l.cfg.Files
	return l
}

// addFile notes a file that the configuration depends on.
func (l *loader) addFile(path string) {
	if !slices.Contains(*l.files, path) {
		*l.files = append(*l.files, path)
	}
}

func (l *loader) vault(b *vaultBlock) {
	address, at, source := os.Getenv("VAULT_ADDR"), hcl.Range{}, "VAULT_ADDR"
	if b != nil {
		if address == "" {
			address, at, source = b.Address, b.AddressRange, "address"
		}
		l.cfg.Vault = Vault{b.Address, b.Namespace, b.CACert, b.CAPath, b.ClientCert, b.ClientKey, b.TLSServerName, b.TLSSkipVerify, append([]string(nil), b.AllowRedirectsTo...)}
		l.redirects(b)
		for _, retry := range b.Retry {
			l.warn(retry.DefRange, "retry has no effect: what may pass is retried until it does")
		}
	}
	if address == "" {
		return // the client's default, https://127.0.0.1:8200
	}
	switch u, err := url.Parse(address); {
	case err != nil || u.Host == "" && u.Scheme != "unix":
		l.at(at, `%s %q is not a URL; write one such as "https://vault.example:8200"`, source, redactUser(address))
	case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "unix":
		l.at(at, `%s %q has the scheme %q; use "https", "http" or "unix"`, source, u.Redacted(), u.Scheme)
	case u.Scheme != "unix":
		if short, what := withoutAPIPath(*u); what != "" {
			l.at(at, `%s %q is %s; write %q`, source, u.Redacted(), what, short)
		}
	}
}

// redirects checks the hosts that Vault may redirect to. They are exact: a pattern would
// let in hosts that nobody had in mind.
func (l *loader) redirects(b *vaultBlock) {
	for _, to := range b.AllowRedirectsTo {
		host, port, err := net.SplitHostPort(to)
		number, notANumber := strconv.ParseUint(port, 10, 16)
		if err == nil && notANumber == nil && number > 0 && host != "" && !strings.ContainsAny(host, "/*@ ") {
			continue
		}
		example := "vault-2.example:8200"
		if u, err := url.Parse(to); err == nil && u.Host != "" {
			example = net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443"))
		}
		l.at(b.AllowRedirectsToRange, `allow_redirects_to: %q is not a host and its port; write one such as %q`, redactUser(to), example)
	}
}

// withoutAPIPath returns the address in front of /ui and /v1, and what the address is
// with it; "" where it has none.
func withoutAPIPath(u url.URL) (short, what string) {
	path := strings.TrimRight(u.Path, "/") + "/"
	before, _, isUI := strings.Cut(path, "/ui/")
	what = "the address of Vault's user interface"
	if !isUI {
		var isAPI bool
		if before, isAPI = strings.CutSuffix(path, "/v1/"); !isAPI {
			return "", ""
		}
		what = "an address with the version of Vault's API, which requests add themselves"
	}
	u.Path, u.RawPath, u.RawQuery, u.Fragment = before, "", "", ""
	return u.Redacted(), what
}

// redactUser takes user and password out of what could not be parsed as a URL.
func redactUser(address string) string {
	if i := strings.LastIndexByte(address, '@'); i >= 0 {
		return secret.Redacted + address[i:]
	}
	return address
}

func (l *loader) templateConfig(b *templateConfigBlock) {
	if b == nil {
		return
	}
	l.interval(b)
	l.share(b.LeaseShare, b.LeaseShareRange, &l.cfg.LeaseShare)
	l.share(b.CertShare, b.CertShareRange, &l.cfg.CertShare)
	l.ignore(b.ExitOnRetryFailure, "exit_on_retry_failure", "what may pass is retried until it does; on_missing = \"fail\" ends the agent for a secret that is not there")
	l.ignore(b.MaxConnections, "max_connections_per_host", "requests share few connections anyway")
}

func (l *loader) interval(b *templateConfigBlock) {
	if b.Interval == "" {
		return
	}
	d, ok := l.duration(b.Interval, b.IntervalRange)
	if ok && d < time.Second {
		l.at(b.IntervalRange, "%q is too short; the shortest interval is 1s", b.Interval)
		return
	}
	if ok {
		l.cfg.Interval = d
	}
}

// share reads a part of a lifetime.
func (l *loader) share(given *float64, at hcl.Range, share *float64) {
	switch {
	case given == nil:
	case *given < 0.1 || *given > 0.95:
		l.at(at, "%v is not a share of a lifetime between 0.1 and 0.95", *given)
	default:
		*share = *given
	}
}

// duration reads "15s" or, as Vault does, a number of seconds.
func (l *loader) duration(text string, at hcl.Range) (time.Duration, bool) {
	if seconds, err := strconv.ParseInt(text, 10, 32); err == nil && seconds >= 0 {
		return time.Duration(seconds) * time.Second, true
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		l.at(at, `%q is not a duration; write one such as "15s" or "5m"`, text)
		return 0, false
	}
	return d, true
}
