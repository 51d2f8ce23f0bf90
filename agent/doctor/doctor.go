// Package doctor looks for what keeps an agent from doing its work, from the
// configuration to the services that are to be told, and says what to do about it.
//
// It changes nothing: it writes no file, runs no command, tells no service, and has
// Vault issue nothing but the token that it looks with, which it revokes. What
// reading would issue, such as the password of a database, it does not read.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/drop"
	"github.com/smarteros/deaddrop/render/printable"
)

// Status is what a check came to.
type Status string

// A warning is for what works, but is unwise, or may stop to work. Skipped is what
// could not be looked at, or must not be.
const (
	OK      Status = "ok"
	Warning Status = "warning"
	Failed  Status = "failed"
	Skipped Status = "skipped"
)

// Check is one thing that was looked at. It holds no secret.
type Check struct {
	// Name is the kind of check, such as "tls".
	Name string `json:"check"`
	// Subject is what was looked at: a path, an address, a drop.
	Subject string `json:"subject"`
	Status  Status `json:"status"`
	// Detail is what was found, on one line.
	Detail string `json:"detail"`
	// Fix is what to do, on one line or several; "" where there is nothing to do.
	Fix string `json:"fix"`

	cause error
}

// Report is all that was looked at, in order.
type Report struct {
	Overall Status  `json:"overall"`
	Checks  []Check `json:"checks"`
}

// Err is nil where nothing has failed. Else it wraps a [*config.Error], or the
// sentinels of packages session and watch, by which callers sort failures.
func (r *Report) Err() error {
	var all []error
	for _, c := range r.Checks {
		if c.Status == Failed {
			all = append(all, fmt.Errorf("%s %s: %w", c.Name, c.Subject, c.cause))
		}
	}
	return errors.Join(all...)
}

// errCheck is the cause of a failure that is none of Vault's.
var errCheck = errors.New("failed")

// exam is one look at everything.
type exam struct {
	Report
	cfg     *config.Config
	client  *api.Client
	address *url.URL
	// shown is the address without any password.
	shown string
	// isOpenBao says that the server is OpenBao, which denies an ended token like a
	// policy does.
	isOpenBao bool
	vault     *session.Session
	grant     *session.Grant
	secrets   *watch.Secrets
	loggedIn  bool
	// toldMount is the folder that it was told for how to mount one.
	toldMount string
	toldShut  map[string]bool // folders, and whom they shut out
	plan      *drop.Plan      // of the folders that the agent makes
	drops     []subject
	found     findings
}

// Run looks at everything that a configuration is about, in the order in which an
// agent needs it. Where one thing fails, what depends on it is skipped. wrong is why
// there is no configuration, or nil.
func Run(ctx context.Context, cfg *config.Config, wrong error) *Report {
	e := &exam{cfg: cfg}
	if wrong != nil {
		e.misconfigured(wrong)
		return e.conclude()
	}
	e.configuration()
	e.credentials()
	e.staticSubjects()
	e.contact(ctx)
	e.logOut(ctx)
	e.destinations()
	e.commands(ctx)
	e.listeners(ctx)
	return e.conclude()
}

// step is one that the next ones depend on. It returns why they cannot be taken, or
// "".
type step struct {
	name string
	take func(*exam, context.Context) (stop string)
}

// contact is all that has to do with Vault.
func (e *exam) contact(ctx context.Context) {
	steps := []step{
		{"address", (*exam).reach}, {"tls", (*exam).greet}, {"vault", (*exam).health}, {"login", (*exam).logIn},
		{"token", (*exam).token}, {"secret", (*exam).readAll}, {"content", (*exam).contents},
	}
	stop := ""
	for _, s := range steps {
		if stop != "" {
			e.skip(s.name, "", stop)
			continue
		}
		stop = s.take(e, ctx)
	}
}

// conclude sums up.
func (e *exam) conclude() *Report {
	e.Overall = OK
	for _, c := range e.Checks {
		if c.Status == Failed || c.Status == Warning && e.Overall == OK {
			e.Overall = c.Status
		}
	}
	return &e.Report
}

func (e *exam) add(c Check) { e.Checks = append(e.Checks, c) }

func (e *exam) ok(name, subject, format string, args ...any) {
	e.add(Check{Name: name, Subject: subject, Status: OK, Detail: fmt.Sprintf(format, args...)})
}

func (e *exam) warn(name, subject, detail, fix string) {
	e.add(Check{Name: name, Subject: subject, Status: Warning, Detail: detail, Fix: fix})
}

func (e *exam) skip(name, subject, why string) {
	e.add(Check{Name: name, Subject: subject, Status: Skipped, Detail: why})
}

func (e *exam) fail(name, subject string, cause error, detail, fix string) {
	e.add(Check{Name: name, Subject: subject, Status: Failed, Detail: detail, Fix: fix, cause: cause})
}

// failBy is a failure whose error says what to do, or else otherwise does.
func (e *exam) failBy(name, subject string, err error, otherwise string) {
	detail, fix := explain(err)
	if fix == "" {
		fix = otherwise
	}
	e.fail(name, subject, err, detail, fix)
}

// explain takes an error apart that ends in what the user can do about it.
func explain(err error) (detail, fix string) {
	var fault *session.Fault
	if errors.As(err, &fault) {
		detail = fault.Kind.Error()
		if fault.Detail != "" {
			detail += " (" + fault.Detail + ")"
		}
		return detail, fault.Hint
	}
	if hint := render.HintOf(err); hint != "" {
		return err.Error(), hint
	}
	detail, fix = cutFix(err.Error())
	return detail, printable.Text(fix) // A line of a fix is a line of ours.
}

// quiet is a log that nobody reads: what is worth saying is in the report.
func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// stepTimeout bounds one step on the network; the whole has a limit of its own.
const stepTimeout = 5 * time.Second

// advice is what errors of this agent end in where no semicolon stands before it.
var advice = regexp.MustCompile(`^(.*?): ((?:deliver|give|install|let|mount|run|set|share|tell|use|write) .*)$`)

// cutFix takes what to do off the end of an error's text.
func cutFix(text string) (detail, fix string) {
	if detail, fix, found := strings.Cut(text, "; "); found {
		return detail, fix
	}
	if m := advice.FindStringSubmatch(text); m != nil {
		return m[1], m[2]
	}
	return text, ""
}
