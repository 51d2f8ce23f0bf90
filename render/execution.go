package render

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/template"
	"time"

	"github.com/smarteros/deaddrop/render/dotenv"
	"github.com/smarteros/deaddrop/render/safefile"
)

// execution is one run of a template: what it may see and what it came to.
type execution struct {
	in     Input
	tmpl   *template.Template
	asked  map[Request]bool
	depth  int             // of executeTemplate
	named  map[string]bool // keys that the template's text gives to maps
	texts  map[string]bool // all text in quotes that the template has
	result Result
}

// deepest is how many calls of executeTemplate may lie in each other.
const deepest = 100

// view is what the function "secret" gives to a template; its shape is the one
// that templates for Vault Agent and consul-template expect.
type view struct {
	RequestID     string
	LeaseID       string
	LeaseDuration int
	Renewable     bool
	Data          map[string]any
	Warnings      []string
}

// unbound are the functions of an execution, for the time of parsing.
var unbound = sync.OnceValue(func() template.FuncMap { return (&execution{}).functions() })

// functions are those that look at the input or add to the result.
func (e *execution) functions() template.FuncMap {
	notes := &scratch{}
	return template.FuncMap{
		"dotenv":          e.dotenv,
		"each":            e.each,
		"env":             func(name string) string { value, _ := e.in.Env(name); return value },
		"envOrDefault":    e.envOrDefault,
		"executeTemplate": e.executeTemplate,
		"file":            e.file,
		"mustEnv":         e.mustEnv,
		"pkiCert":         e.pkiCert,
		"scratch":         func() *scratch { return notes },
		"secret":          e.secret,
		"secrets":         e.secrets,
		"service":         func() (string, error) { return given(e.in.Service, errNoService) },
		"sprig_now":       func() time.Time { return e.in.Now },
		"tenant":          func() (string, error) { return given(e.in.Tenant, errNoTenant) },
		"timestamp":       e.timestamp,
		"writeToFile":     e.writeToFile,
	}
}

// ask asks for a secret, once in the name of this execution.
func (e *execution) ask(r Request) *Secret {
	s := e.in.Secret(r)
	if !e.asked[r] {
		e.asked[r] = true
		e.result.Uses = append(e.result.Uses, r)
		if s == nil {
			e.result.Missing = append(e.result.Missing, r)
		}
	}
	return s
}

// secret is a read, or with parameters a write.
func (e *execution) secret(path string, params ...string) (*view, error) {
	r, err := ParseRequest(path, params...)
	if err != nil {
		return nil, err
	}
	s := e.ask(r)
	if s == nil {
		return nil, nil
	}
	return &view{s.RequestID, s.LeaseID, s.LeaseDuration, s.Renewable, s.copied(), slices.Clone(s.Warnings)}, nil
}

// secrets lists the names under a path; those of folders end in a slash.
func (e *execution) secrets(path string) []string {
	s := e.ask(List(path))
	if s == nil {
		return nil
	}
	var names []string
	keys, _ := s.Data.Reveal()["keys"].([]any)
	for _, key := range keys {
		names = append(names, fmt.Sprint(key))
	}
	return names
}

// pkiCert issues a certificate.
func (e *execution) pkiCert(path string, params ...string) (*certificate, error) {
	r, err := ParseRequest(path, params...)
	if err != nil {
		return nil, err
	}
	s := e.ask(r)
	if s == nil {
		return nil, nil
	}
	return certificateOf(s)
}

// each is {{ each.key }} in a drop with for_each.
func (e *execution) each() (map[string]string, error) {
	if e.in.Key == "" {
		return nil, problem("each.key is for drops with for_each")
	}
	return map[string]string{"key": e.in.Key}, nil
}

func (e *execution) mustEnv(name string) (string, error) {
	value, _ := e.in.Env(name)
	if value == "" {
		return "", problem("the environment variable is not set, or empty")
	}
	return value, nil
}

func (e *execution) envOrDefault(name, otherwise string) string {
	if value, set := e.in.Env(name); set {
		return value
	}
	return otherwise
}

func (e *execution) file(path string) (string, error) {
	if e.in.File == nil {
		return "", problem("files cannot be read here")
	}
	e.result.Reads = append(e.result.Reads, path)
	content, err := e.in.File(path)
	return content, fileProblem(err)
}

// ErrOutsideSandbox is the error for a file outside of the folder that a template may read
// from.
var ErrOutsideSandbox error = problem("the file is not in sandbox_path")

// fileProblem says why a file cannot be read, without its path: that may be a value.
func fileProblem(err error) error {
	var told problem
	switch {
	case err == nil, errors.As(err, &told):
		return err
	case errors.Is(err, fs.ErrNotExist):
		return problem("there is no such file")
	case errors.Is(err, fs.ErrPermission):
		return problem("deaddrop may not read the file")
	case errors.Is(err, safefile.ErrNotRegular):
		return problem("it is not a regular file")
	case errors.Is(err, safefile.ErrTooLarge):
		return problem("the file is too large: files of at most 1 MiB are read")
	}
	return problem("the file cannot be read")
}

func (e *execution) executeTemplate(name string, dot ...any) (string, error) {
	if e.tmpl.Lookup(name) == nil {
		return "", problem("there is no template of this name")
	}
	if len(dot) > 1 {
		return "", problem("executeTemplate wants a name and one value at most")
	}
	var with any
	if len(dot) == 1 {
		with = dot[0]
	}
	if e.depth++; e.depth > deepest { // text/template counts each call for itself.
		return "", problem("templates execute each other without an end")
	}
	defer func() { e.depth-- }()
	var out output
	err := e.tmpl.ExecuteTemplate(&out, name, with)
	return out.String(), err
}

func (e *execution) timestamp(layout ...string) (string, error) {
	switch now := e.in.Now.UTC(); {
	case len(layout) == 0:
		return now.Format(time.RFC3339), nil
	case len(layout) > 1:
		return "", problem("timestamp wants one layout at most")
	case layout[0] == "unix":
		return strconv.FormatInt(now.Unix(), 10), nil
	default:
		return now.Format(layout[0]), nil
	}
}

// dotenv writes pairs as lines of a .env file, in the dialect that is named
// before them, or else in that of the drop. It flattens what is nested.
func (e *execution) dotenv(args ...any) (string, error) {
	dialect := e.in.Dialect
	if len(args) == 2 {
		name, ok := args[0].(string)
		if !ok {
			return "", problem("dotenv wants the name of a dialect before the pairs")
		}
		dialect = dotenv.Dialect(name)
		args = args[1:]
	}
	if len(args) != 1 {
		return "", problem("dotenv wants pairs, such as .Data.data, or a dialect and pairs")
	}
	pairs, ok := args[0].(map[string]any)
	if !ok {
		return "", problemf("dotenv wants pairs, such as .Data.data, not %s", kindName(args[0]))
	}
	flat, err := flatten(pairs, "_")
	if err != nil {
		return "", err
	}
	const hint = "name it in the template, as in sprig_dict \"PATH\" .path, or leave it out with sprig_omit"
	if err := dotenv.CheckLoaders(flat, func(name string) bool { return e.named[name] }); err != nil {
		return "", &HintedError{err, hint}
	}
	out, err := dotenv.Encode(dialect, flat)
	return strings.TrimSuffix(string(out), "\n"), err
}

const (
	errNoService problem = `no service is set: write service = "…" into the configuration, or set DEADDROP_SERVICE`
	errNoTenant  problem = `no tenant is set: write tenant = "…" into the configuration, or set DEADDROP_TENANT`
)

func given(value string, otherwise problem) (string, error) {
	if value == "" {
		return "", otherwise
	}
	return value, nil
}
