package config

import (
	"fmt"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/smarteros/deaddrop/agent/internal/signals"
)

// Target is what a reload block notifies: one of [PIDFile], [Process], [Container],
// [Unit], [Command], [HTTP] and [Child]. Targets hold nothing but settings.
type Target interface {
	// String names the target, and what is done to it, in logs and the status. It shows
	// no secret.
	String() string
	isTarget()
}

func (PIDFile) isTarget()   {}
func (Process) isTarget()   {}
func (Container) isTarget() {}
func (Unit) isTarget()      {}
func (Command) isTarget()   {}
func (HTTP) isTarget()      {}
func (Child) isTarget()     {}

// PIDFile is the process whose id a file holds.
type PIDFile struct {
	Path   string
	Signal syscall.Signal
	// ExpectUser is the name or id of the user that the process must run as. If it is "",
	// the owner of the file decides which process the file may name.
	ExpectUser string
}

func (p PIDFile) String() string {
	return fmt.Sprintf("%s to the process in %s", signals.Name(p.Signal), p.Path)
}

// Process is the process that runs a program.
type Process struct {
	// Name is the program: its file's name or path, or how it calls itself; or "".
	Name string
	// CommandLine is a regular expression that the arguments, joined by blanks,
	// have to match; or "".
	CommandLine string
	Signal      syscall.Signal
	// ExpectUser is the name or id of the user that the process must run as; or "".
	// Processes of others do not count then.
	ExpectUser string
}

func (p Process) String() string {
	return fmt.Sprintf("%s to the process %q", signals.Name(p.Signal), strings.TrimSpace(p.Name+" "+p.CommandLine))
}

// Container is one container, or several. Exactly one of Name, Label and Service is set.
type Container struct {
	// Name is that of one container, or its id (at least twelve digits of it).
	Name string
	// Label is NAME=VALUE, or NAME: all running containers that have it.
	Label string
	// Service is one of a compose file: all its running containers, of Project or, if that
	// is "", of the project that the agent's own container belongs to.
	Service, Project string
	// Signal is sent; 0 restarts the containers instead.
	Signal syscall.Signal
	// Host is the address of the Docker Engine, as in DOCKER_HOST, which "" stands for.
	Host string
	// Timeout is for all of it; a restart takes as long as the container needs to stop.
	Timeout time.Duration
}

func (c Container) String() string {
	if c.Signal == 0 {
		return "restart of " + c.Containers()
	}
	return signals.Name(c.Signal) + " to " + c.Containers()
}

// Containers names the containers, as in "compose service nexa".
func (c Container) Containers() string {
	switch {
	case c.Name != "":
		return "container " + c.Name
	case c.Label != "":
		return "containers with the label " + c.Label
	case c.Project != "":
		return fmt.Sprintf("compose service %s of project %s", c.Service, c.Project)
	}
	return "compose service " + c.Service
}

// Unit is a unit of systemd.
type Unit struct {
	// Name is complete, with its ending.
	Name string
	// Action is one of [UnitActions].
	Action string
	// User says that it is a unit of the user's own manager.
	User bool
	// Timeout is for systemd to be done; a unit has time limits of its own.
	Timeout time.Duration
}

// UnitActions are the actions on a unit, the default first: a reload if the unit can do
// it, and else a restart.
func UnitActions() []string { return []string{"reload-or-restart", "reload", "restart"} }

func (u Unit) String() string { return fmt.Sprintf("%s of unit %s", u.Action, u.Name) }

// Command is a program that is run without a shell.
type Command struct {
	// Args are the program and its arguments; at least one.
	Args []string
	// Timeout is how long the program may run; 0 is no limit.
	Timeout time.Duration
	// Env are variables, in the form NAME=value, on top of the agent's.
	Env []string
	// Dir is the working folder; "" is the agent's.
	Dir string
	// User runs the program, by name or number; "" is the agent's own user.
	User string
	// ShowOutput logs what the program prints when it fails, without hidden values.
	ShowOutput bool
	// Place is where the configuration has the command, such as "deaddrop.hcl:12", or "".
	// Commands that differ in nothing else are the same.
	Place string
}

// String leaves out the arguments, which may be secret. The place tells commands of the
// same program apart.
func (c Command) String() string {
	if c.Place == "" {
		return "command " + c.Args[0]
	}
	return "command " + c.Args[0] + " (" + c.Place + ")"
}

// HTTP is a URL that is requested.
type HTTP struct {
	URL    string
	Method string // GET or POST
	// Expect are the status codes that count as success; none stands for all 2xx.
	Expect []int
	// Retries is how often the request is sent again at once, a second apart and longer,
	// if there is no answer, or one of 429 or 5xx.
	Retries int
	// HeaderFile has lines such as "Authorization: Bearer …"; or "".
	HeaderFile string
	// CACert has the certificates to trust instead of the system's; or "".
	CACert string
	// Timeout is for each request.
	Timeout time.Duration
	// ShowOutput logs an answer that is no success, without hidden values.
	ShowOutput bool
}

// String leaves out the password and the query, which may be secret.
func (h HTTP) String() string {
	u, err := url.Parse(h.URL)
	if err != nil {
		return h.Method + " to a URL"
	}
	u.RawQuery, u.Fragment = "", ""
	return h.Method + " " + u.Redacted()
}

// Child is the command of the exec block.
type Child struct {
	// Signal is sent; 0 restarts the command instead.
	Signal syscall.Signal
}

func (c Child) String() string {
	if c.Signal == 0 {
		return "restart of the command"
	}
	return signals.Name(c.Signal) + " to the command"
}

// ShowsOutput reports whether the reload logs output of a program or an answer.
func (r Reload) ShowsOutput() bool {
	switch t := r.Target.(type) {
	case Command:
		return t.ShowOutput
	case HTTP:
		return t.ShowOutput
	}
	return false
}
