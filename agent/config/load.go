package config

import (
	"bytes"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/secret"
)

// Load reads a configuration file and the templates and id files it names.
// All that is wrong is returned as one [*Error].
func Load(file string) (*Config, error) {
	src, err := os.ReadFile(file)
	if err != nil {
		return nil, &Error{[]Problem{{File: file, Text: "cannot be read: " + reason(err)}}}
	}
	l := newLoader()
	l.src, l.cfg.Files = src, []string{file}
	parsed, diags := hclsyntax.ParseConfig(src, file, hcl.InitialPos)
	l.hcl(diags)
	if diags.HasErrors() {
		return nil, l.err()
	}
	var blocks fileBlock
	l.hcl(gohcl.DecodeBody(parsed.Body, nil, &blocks))
	l.vault(blocks.Vault)
	l.auth(blocks.AutoAuth, file)
	l.templateConfig(blocks.TemplateConfig)
	for _, b := range blocks.Templates {
		l.drop("", b.Body, b.DefRange)
	}
	for _, b := range blocks.Drops {
		l.drop(b.Name, b.Body, b.DefRange)
	}
	if len(blocks.Templates)+len(blocks.Drops) == 0 && len(l.problems) == 0 {
		l.problems = append(l.problems, Problem{File: file, Text: `there is nothing to write: add a "drop" or a "template" block`})
	}
	return l.cfg, l.err()
}

// Simple is a configuration without a file: one secret into one file, with
// Vault and the login taken from the environment.
type Simple struct {
	Secret      string
	Destination string
	Format      string
	Perms       string
	Signal      string // with PIDFile
	PIDFile     string
	Interval    string
}

// Build makes a [Config] of it. Problems have no place, but name the value.
func (s Simple) Build() (*Config, error) {
	l := newLoader()
	l.vault(nil)
	l.auth(nil, "")
	l.templateConfig(&templateConfigBlock{Interval: s.Interval})
	b := dropBody{Secret: s.Secret, Destination: s.Destination, Format: s.Format, Perms: s.Perms}
	if s.Signal != "" || s.PIDFile != "" {
		b.Reload = &reloadBlock{Signal: s.Signal, PIDFile: s.PIDFile}
	}
	l.dropBody(s.Destination, b, hcl.Range{})
	return l.cfg, l.err()
}

// loader turns the grammar into a Config, and goes on after a problem, so that
// one look shows them all.
type loader struct {
	problems
	src          []byte
	cfg          *Config
	destinations map[string]hcl.Range
	// dockerSecrets is where to look for ids that nothing else names.
	dockerSecrets string
}

func newLoader() *loader {
	return &loader{
		cfg:          &Config{Interval: DefaultInterval, LeaseShare: DefaultLeaseShare, CertShare: DefaultCertShare},
		destinations: map[string]hcl.Range{}, dockerSecrets: dockerSecrets,
	}
}

func (l *loader) vault(b *vaultBlock) {
	address, at, source := os.Getenv("VAULT_ADDR"), hcl.Range{}, "VAULT_ADDR"
	if b != nil {
		if address == "" {
			address, at, source = b.Address, b.AddressRange, "address"
		}
		l.cfg.Vault = Vault{b.Address, b.Namespace, b.CACert, b.CAPath, b.ClientCert, b.ClientKey, b.TLSServerName, b.TLSSkipVerify}
	}
	if address == "" {
		return // the client's default, https://127.0.0.1:8200
	}
	switch u, err := url.Parse(address); {
	case err != nil || u.Host == "" && u.Scheme != "unix":
		l.at(at, `%s %q is not a URL; write one such as "https://vault.example:8200"`, source, redactUser(address))
	case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "unix":
		l.at(at, `%s %q has the scheme %q; use "https", "http" or "unix"`, source, u.Redacted(), u.Scheme)
	}
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

// reason is an error without the path, for messages that name the file anyway.
func reason(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err.Error()
	}
	return err.Error()
}

// template reads and parses a drop's template.
func (l *loader) template(b dropBody) *render.Template {
	contents, at, ok := l.contents(b)
	if !ok {
		return nil
	}
	if b.Source == "" {
		return l.parse(at.Filename+":"+strconv.Itoa(at.Start.Line), contents, at)
	}
	text, err := os.ReadFile(b.Source)
	if err != nil {
		l.at(b.SourceRange, "template %s cannot be read: %s", b.Source, reason(err))
		return nil
	}
	l.cfg.Files = append(l.cfg.Files, b.Source)
	return l.parse(b.Source, string(text), hcl.Range{Filename: b.Source})
}

// parse reports a mistake where the user wrote it: in the template's file, on
// the line of a heredoc, or at the argument that holds the template.
func (l *loader) parse(name, text string, at hcl.Range) *render.Template {
	tmpl, err := render.Parse(name, text)
	if err == nil {
		return tmpl
	}
	var wrong *render.ParseError
	switch {
	case !errors.As(err, &wrong):
		l.at(at, "%s", err)
	case at.Start.Line == 0:
		l.problems = append(l.problems, Problem{at.Filename, wrong.Line, wrong.Column, wrong.Problem})
	case bytes.HasPrefix(at.SliceBytes(l.src), []byte("<<")):
		l.problems = append(l.problems, Problem{at.Filename, at.Start.Line + wrong.Line, wrong.Column, wrong.Problem})
	default:
		l.at(at, "line %d of the template: %s", wrong.Line, wrong.Problem)
	}
	return nil
}
