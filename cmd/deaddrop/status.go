package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/plural"
	"github.com/smarteros/deaddrop/agent/status"
	"github.com/smarteros/deaddrop/agent/supervise"
	"github.com/smarteros/deaddrop/render/printable"
)

func newStatus() *cobra.Command {
	var where asked
	var output string
	var check, alive bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Ask a running agent how it is",
		Long: `Status asks a running agent, at a listener with role = "status" of its configuration, at
--status-address of "deaddrop run", or at $` + config.StatusAddressVariable + `. It shows no secret.

With --check it says nothing when every drop is current, and else why not in a line: for
health checks. With --alive it asks only whether the agent works, be its drops current
or not: an agent that waits for Vault need not be started anew.

Exit codes:
  0  every drop is current (with --alive: the agent works)
  1  a drop is not current (with --alive: the agent hangs)
  2  bad configuration or command line
  3  the agent cannot be reached`,
		Example: `  deaddrop status --config /etc/deaddrop.hcl
  deaddrop status --address 127.0.0.1:9810 -o json
  deaddrop status --address unix:///run/deaddrop/status.sock --check
  docker exec nexa-secrets /deaddrop status`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return fmt.Errorf("--output %q is not known: use table or json", output)
			}
			client, err := where.client()
			if err != nil {
				return err
			}
			switch {
			case alive:
				err = probe(cmd.Context(), client.Alive)
			case check:
				err = probe(cmd.Context(), client.Ready)
			default:
				err = show(cmd.Context(), client, output, cmd.OutOrStdout())
			}
			if ended := endedEarly(cmd); err != nil && ended != nil {
				return ended
			}
			return saidAndDone(cmd.ErrOrStderr(), err)
		},
	}
	f := cmd.Flags()
	f.StringVar(&where.address, "address", "", "`address` of the agent, such as 127.0.0.1:9810 or unix:///run/deaddrop/status.sock (default: that of --config, else $"+config.StatusAddressVariable+")")
	f.StringArrayVarP(&where.config, "config", "c", nil, "the agent's configuration `file`, or folder of them, which has the address; may be given several times")
	f.StringVarP(&output, "output", "o", "table", "table or json")
	f.BoolVar(&check, "check", false, "say nothing but why a drop is not current")
	f.BoolVar(&alive, "alive", false, "say nothing but why the agent does not work")
	cmd.MarkFlagsMutuallyExclusive("address", "config")
	cmd.MarkFlagsMutuallyExclusive("check", "alive", "output")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// asked says which agent to ask.
type asked struct {
	address string
	config  []string
}

func (a asked) client() (*status.Client, error) {
	at, err := a.listener()
	if err != nil {
		return nil, err
	}
	return status.NewClient(at)
}

// listener is where the agent listens.
func (a asked) listener() (config.Listener, error) {
	if len(a.config) > 0 {
		listeners, err := config.Listeners(a.config...)
		if err != nil {
			return config.Listener{}, err
		}
		for _, at := range listeners {
			if !at.MetricsOnly {
				return at, nil
			}
		}
		return config.Listener{}, fmt.Errorf("%s has no listener with role = \"status\"; give --address with what the agent has as --status-address, or add one", strings.Join(a.config, ", "))
	}
	source, address := "--address", a.address
	if address == "" {
		source, address = config.StatusAddressVariable, os.Getenv(config.StatusAddressVariable)
	}
	if address == "" {
		return config.Listener{}, errors.New("which agent? Give --address ADDRESS, or --config FILE with a listener of role = \"status\", or set " + config.StatusAddressVariable)
	}
	var cfg config.Config
	if err := cfg.ListenAt(source, address); err != nil {
		return config.Listener{}, err
	}
	return cfg.Listeners[0], nil
}

// errNotReady says that a drop is not current. What there is to say was said.
var errNotReady = errors.New("")

// saidAndDone says what went wrong in a line, and turns it into an exit code.
func saidAndDone(w io.Writer, err error) error {
	if err == nil {
		return nil
	}
	if err != errNotReady {
		_, _ = fmt.Fprintln(w, "deaddrop:", printable.OneLine(err.Error()))
	}
	code := exitFailed
	if errors.Is(err, status.ErrUnreachable) {
		code = exitUnreachable
	}
	return failure(nil, &supervise.ExitError{Code: code})
}

func probe(ctx context.Context, ask func(context.Context) (bool, string, error)) error {
	ok, says, err := ask(ctx)
	if err == nil && !ok {
		err = errors.New(says)
	}
	return err
}

func show(ctx context.Context, client *status.Client, output string, w io.Writer) error {
	r, err := client.Report(ctx)
	if err != nil {
		return err
	}
	if output == "json" {
		e := json.NewEncoder(printable.NewJSONWriter(printable.Raw(w)))
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		err = e.Encode(r)
	} else {
		err = table{tabwriter.NewWriter(w, 0, 0, 3, ' ', 0), r.At}.report(r)
	}
	if err == nil && !r.Ready {
		err = errNotReady
	}
	return err
}

// table writes a report for people.
type table struct {
	*tabwriter.Writer
	now time.Time
}

func (t table) report(r *status.Report) error {
	head := "ready"
	if !r.Ready {
		head = "NOT READY"
	}
	t.row(head+":", r.Text)
	t.row("agent:", fmt.Sprintf("deaddrop %s, process %d, for %s", r.Version, r.PID, t.age(r.Started)))
	t.row("vault:", r.Session.Address+", "+t.session(r.Session))
	t.config(r.Config)
	if len(r.CommandAwaits) > 0 {
		t.row("command:", "waiting to start, for "+strings.Join(r.CommandAwaits, ", "))
	}
	if len(r.Drops) > 0 {
		t.row()
		t.row("DROP", "STATE", "SINCE", "WRITTEN", "FILE", "WHY")
	}
	for _, d := range r.Drops {
		t.row(d.Name, string(d.State), t.age(d.Since), t.age(d.Written), d.Destination, d.Error)
	}
	for _, f := range r.ForEach {
		t.tenants(f)
	}
	if len(r.Secrets) > 0 {
		t.row()
		t.row("SECRET", "VERSION", "READ", "TRIED", "NEXT", "ENDS", "WHY")
	}
	for _, s := range r.Secrets {
		version := "-"
		if s.Version > 0 {
			version = strconv.Itoa(s.Version)
		}
		t.row(s.Path, version, t.age(s.Checked), t.age(s.Attempted), t.until(s.Next), t.until(s.Ends), s.Error)
	}
	if len(r.Reloads) > 0 {
		t.row()
		t.row("RELOAD", "STATE", "SINCE", "NEXT", "TRIES", "WHY")
	}
	for _, each := range r.Reloads {
		t.row(each.By, string(each.State), t.age(each.Since), t.until(each.Next), strconv.Itoa(each.Tries), each.Error)
	}
	return t.Flush()
}

// row writes cells. None of them may break the line. Lines of joined errors are put into
// one.
func (t table) row(cells ...string) {
	for i, cell := range cells {
		cells[i] = printable.OneLine(cell)
	}
	for len(cells) > 0 && cells[len(cells)-1] == "" {
		cells = cells[:len(cells)-1]
	}
	_, _ = fmt.Fprintln(t, strings.Join(cells, "\t"))
}

func (t table) session(s status.Session) string {
	var text string
	switch {
	case !s.LoggedIn:
		text = "not logged in"
	case s.TokenEnds.IsZero():
		text = "logged in"
	case s.TokenEnds.Before(t.now):
		text = "the token has ended"
	default:
		text = "logged in, the token ends in " + t.until(s.TokenEnds)
	}
	if s.Error != "" {
		text += "; " + s.Error
	}
	return text
}

func (t table) config(c status.Config) {
	text := "flags"
	if len(c.Files) > 0 {
		text = strings.Join(c.Files, ", ")
	}
	t.row("config:", text+", read "+t.age(c.Loaded)+" ago")
	if c.Error != "" {
		t.row("", "A NEWER ONE WAS REFUSED "+t.age(c.Refused)+" ago: "+c.Error)
	}
	for _, w := range c.Warnings {
		t.row("", "warning: "+w)
	}
}

func (t table) tenants(f status.ForEach) {
	text := "for_each: " + plural.Of(f.Tenants, "tenant")
	if f.Error != "" {
		text += "; " + f.Error
	}
	t.row(f.Name, text)
	var keys []string
	for key := range f.Failed {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		t.row(f.Name, "tenant "+key+": "+f.Failed[key])
	}
}

// age is how long ago something was, until how long it takes still; "-" where there
// is no such time.
func (t table) age(at time.Time) string {
	if at.IsZero() {
		return "-"
	}
	return short(t.now.Sub(at))
}

func (t table) until(at time.Time) string {
	if at.IsZero() {
		return "-"
	}
	return short(at.Sub(t.now))
}

// short is a duration in its two largest units at most.
func short(d time.Duration) string {
	const day = 24 * time.Hour
	switch d = max(d, 0); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	case d < day:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
}
