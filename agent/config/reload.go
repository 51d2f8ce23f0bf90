package config

import (
	"cmp"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/smarteros/deaddrop/agent/internal/signals"
	"github.com/smarteros/deaddrop/render/dotenv"
)

// Reload is one thing to do when a file has changed.
type Reload struct {
	Target
	// OnStart does it, too, when the file appears for the first time as the agent
	// starts.
	OnStart bool
}

// Wait gathers changes: a file is written when its secrets have been left alone
// for Min, and at the latest Max after the first change.
type Wait struct{ Min, Max time.Duration }

// The default time limits of reloads. A unit and a container have limits of their
// own for a restart, which these leave room for.
const (
	defaultExecTimeout    = 30 * time.Second // Vault Agent's.
	defaultHTTPTimeout    = 10 * time.Second
	defaultSignalTimeout  = 10 * time.Second
	defaultRestartTimeout = time.Minute
	defaultUnitTimeout    = 90 * time.Second
)

// defaultRetries are those of a request that nobody answers.
const defaultRetries = 2

// maker makes a target of the settings of a reload block.
type maker struct {
	// target is the setting that chooses it; others are those that it may have.
	target string
	others []string
	make   func(*reloadReader) Target
}

// makers are all that can be done. Where a block has the targets of several, the
// first counts: command_line may narrow a process, and is a target, too.
func makers() []maker {
	return []maker{
		{"pid_file", []string{"signal", "expect_user"}, (*reloadReader).pidFile},
		{"process", []string{"signal", "command_line", "expect_user"}, (*reloadReader).process},
		{"command_line", []string{"signal", "expect_user"}, (*reloadReader).process},
		{"container", []string{"signal", "action", "docker_host", "timeout"}, (*reloadReader).container},
		{"container_label", []string{"signal", "action", "docker_host", "timeout"}, (*reloadReader).container},
		{"compose_service", []string{"signal", "action", "docker_host", "timeout", "compose_project"}, (*reloadReader).container},
		{"unit", []string{"action", "bus", "timeout"}, (*reloadReader).unit},
		{"command", []string{"timeout", "env", "dir", "user", "show_output"}, (*reloadReader).command},
		{"url", []string{"method", "timeout", "retries", "expect", "header_file", "ca_cert", "show_output"}, (*reloadReader).http},
		{"exec", []string{"signal", "action"}, (*reloadReader).exec},
	}
}

// targets are the settings that choose what is told.
func targets() []string {
	var all []string
	for _, m := range makers() {
		all = append(all, m.target)
	}
	return all
}

// value is a setting and where it stands.
type settingValue struct {
	cty.Value
	name, expr hcl.Range
}

// reloadReader reads one block.
type reloadReader struct {
	*loader
	def      hcl.Range
	settings map[string]settingValue
}

// reload reads a "reload" block; ok is false where it is wrong.
func (l *loader) reload(b reloadBlock) (r Reload, ok bool) {
	attrs, diags := b.Body.JustAttributes()
	l.hcl(diags)
	settings := map[string]settingValue{}
	for name, attr := range attrs {
		value, diags := attr.Expr.Value(l.ctx)
		if l.hcl(diags); !diags.HasErrors() {
			settings[name] = settingValue{value, attr.NameRange, attr.Expr.Range()}
		}
	}
	if diags.HasErrors() || len(settings) < len(attrs) {
		return r, false
	}
	return l.reloadOf(b.DefRange, settings)
}

func (l *loader) reloadOf(def hcl.Range, settings map[string]settingValue) (r Reload, ok bool) {
	before := len(l.problems)
	reader := &reloadReader{l, def, settings}
	m, found := reader.choose()
	if !found {
		return r, false
	}
	r.OnStart = reader.flag("on_start")
	r.Target = m.make(reader)
	return r, len(l.problems) == before
}

// choose finds out what the block is for, and refuses what does not belong to it.
func (r *reloadReader) choose() (chosen maker, ok bool) {
	known := []string{"on_start"}
	for _, m := range makers() {
		known = append(append(known, m.target), m.others...)
		if _, there := r.settings[m.target]; there && !ok {
			chosen, ok = m, true
		}
	}
	names := slices.SortedFunc(maps.Keys(r.settings), func(a, b string) int {
		return cmp.Compare(r.settings[a].name.Start.Byte, r.settings[b].name.Start.Byte)
	})
	fits := true
	for _, name := range names {
		at := r.settings[name].name
		switch {
		case !slices.Contains(known, name):
			r.at(at, "reload has no setting %q%s", name, didYouMean(name, known))
		case !ok || name == "on_start" || name == chosen.target || slices.Contains(chosen.others, name):
			continue
		case slices.Contains(targets(), name):
			r.at(at, "%s and %s exclude each other: write a reload block for each", chosen.target, name)
		default:
			r.at(at, "%s has no effect on a reload by %s; it takes %s", name, chosen.target, strings.Join(append(chosen.others, "on_start"), ", "))
		}
		fits = false
	}
	if !ok && fits {
		r.at(r.def, "reload does not say whom to tell: write one of %s", strings.Join(targets(), ", "))
	}
	return chosen, ok && fits
}

// text returns a setting, or "" where it is not there. One that is there may not
// be empty.
func (r *reloadReader) text(name string) string {
	value, there := r.settings[name]
	if !there {
		return ""
	}
	text, err := convert.Convert(value.Value, cty.String)
	if err != nil || text.IsNull() || strings.TrimSpace(text.AsString()) == "" {
		r.at(value.expr, "%s must be a text that is not empty", name)
		return ""
	}
	return text.AsString()
}

func (r *reloadReader) flag(name string) bool {
	value, there := r.settings[name]
	if !there {
		return false
	}
	is, err := convert.Convert(value.Value, cty.Bool)
	if err != nil || is.IsNull() {
		r.at(value.expr, "%s must be true or false", name)
		return false
	}
	return is.True()
}

func (r *reloadReader) timeout(otherwise time.Duration) time.Duration {
	text := r.text("timeout")
	if text == "" {
		return otherwise
	}
	timeout, _ := r.duration(text, r.settings["timeout"].expr)
	return timeout
}

// signal returns the signal. Where it need not be there, 0 stands for none.
func (r *reloadReader) signal(required bool) syscall.Signal {
	text := r.text("signal")
	if text == "" {
		if _, there := r.settings["signal"]; required && !there {
			r.at(r.def, "reload lacks a signal: write one such as signal = \"HUP\"")
		}
		return 0
	}
	sig, err := signals.Parse(text)
	if err != nil {
		r.at(r.settings["signal"].expr, "%s", err)
	}
	return sig
}

// action is one word of several; the first is the default.
func (r *reloadReader) word(name string, all ...string) string {
	return r.choice(name, r.text(name), r.settings[name].expr, all...)
}

func (r *reloadReader) pidFile() Target {
	return PIDFile{Path: r.text("pid_file"), Signal: r.signal(true), ExpectUser: r.text("expect_user")}
}

func (r *reloadReader) process() Target {
	p := Process{Name: r.text("process"), CommandLine: r.text("command_line"), Signal: r.signal(true), ExpectUser: r.text("expect_user")}
	if _, err := regexp.Compile(p.CommandLine); err != nil {
		r.at(r.settings["command_line"].expr, "command_line is not a regular expression: %s", err)
	}
	return p
}

// signalOrRestart tells the two apart that a container and a command can do. The
// signal is 0 for a restart.
func (r *reloadReader) signalOrRestart() syscall.Signal {
	sig := r.signal(false)
	if r.word("action", "signal", "restart") == "restart" {
		if sig != 0 {
			r.at(r.settings["signal"].name, "signal and action = \"restart\" exclude each other")
		}
		return 0
	}
	if _, there := r.settings["signal"]; !there {
		r.at(r.def, "reload lacks a signal: write one such as signal = \"HUP\", or action = \"restart\"")
	}
	return sig
}

func (r *reloadReader) container() Target {
	c := Container{
		Name: r.text("container"), Label: r.text("container_label"), Service: r.text("compose_service"), Project: r.text("compose_project"),
		Host: r.text("docker_host"), Signal: r.signalOrRestart(), Timeout: defaultSignalTimeout,
	}
	if c.Signal == 0 {
		c.Timeout = defaultRestartTimeout
	}
	c.Timeout = r.timeout(c.Timeout)
	if u, err := url.Parse(c.Host); err != nil || c.Host != "" && (u.Scheme == "" || u.Host+u.Path == "") {
		r.at(r.settings["docker_host"].expr, "docker_host is not an address such as \"unix:///var/run/docker.sock\" or \"tcp://docker:2375\"")
	}
	if strings.HasPrefix(c.Label, "=") {
		r.at(r.settings["container_label"].expr, "container_label is not a label such as \"com.example.role=web\"")
	}
	return c
}

func (r *reloadReader) unit() Target {
	u := Unit{
		Name: r.text("unit"), Action: r.word("action", UnitActions()...), User: r.word("bus", "system", "user") == "user",
		Timeout: r.timeout(defaultUnitTimeout),
	}
	if strings.ContainsAny(u.Name, "/ *?[]\n") {
		r.at(r.settings["unit"].expr, "unit %q is not the name of a unit, such as \"nginx.service\"", u.Name)
	}
	if !strings.Contains(u.Name, ".") {
		u.Name += ".service"
	}
	return u
}

func (r *reloadReader) command() Target {
	at := r.settings["command"]
	c := Command{
		Args: r.arguments(at.Value, at.expr), Timeout: r.timeout(defaultExecTimeout), Dir: r.text("dir"), User: r.text("user"),
		ShowOutput: r.flag("show_output"), Place: placeOf(r.def),
	}
	env, there := r.settings["env"]
	if !there {
		return c
	}
	pairs, err := convert.Convert(env.Value, cty.Map(cty.String))
	if err != nil || pairs.IsNull() {
		r.at(env.expr, "env is not a list of variables; write env = { NAME = \"value\" }")
		return c
	}
	for name, value := range pairs.AsValueMap() {
		if !dotenv.IsName(name) || value.IsNull() {
			r.at(env.expr, "env: %q is not a variable (letters, digits and _, not starting with a digit) with a value", name)
			continue
		}
		c.Env = append(c.Env, name+"="+value.AsString())
	}
	slices.Sort(c.Env)
	return c
}

func (r *reloadReader) http() Target {
	h := HTTP{
		URL: r.text("url"), Method: r.word("method", "POST", "GET"), Timeout: r.timeout(defaultHTTPTimeout),
		Retries: r.retries(), Expect: r.expect(), HeaderFile: r.text("header_file"), CACert: r.text("ca_cert"),
		ShowOutput: r.flag("show_output"),
	}
	u, err := url.Parse(h.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		r.at(r.settings["url"].expr, "url is not one such as \"http://127.0.0.1:8080/reload\"")
	}
	return h
}

func (r *reloadReader) retries() int {
	value, there := r.settings["retries"]
	if !there {
		return defaultRetries
	}
	n, ok := wholeNumber(value.Value)
	if !ok || n < 0 || n > 10 {
		r.at(value.expr, "retries must be a number from 0 to 10")
	}
	return n
}

func (r *reloadReader) expect() []int {
	value, there := r.settings["expect"]
	if !there {
		return nil
	}
	values := []cty.Value{value.Value}
	if value.CanIterateElements() {
		values = value.AsValueSlice()
	}
	var all []int
	for _, each := range values {
		status, ok := wholeNumber(each)
		if !ok || status < 100 || status > 599 {
			r.at(value.expr, "expect must be HTTP status codes, such as 204 or [200, 204]")
			return nil
		}
		all = append(all, status)
	}
	return all
}

func wholeNumber(v cty.Value) (int, bool) {
	number, err := convert.Convert(v, cty.Number)
	if err != nil || number.IsNull() {
		return 0, false
	}
	n, accuracy := number.AsBigFloat().Int64()
	return int(n), accuracy == 0 && n >= -1<<31 && n < 1<<31
}

func (r *reloadReader) exec() Target {
	if !r.flag("exec") {
		r.at(r.settings["exec"].expr, "exec stands for the command of the exec block; write exec = true, or command = [\"…\"] to run a program")
	}
	if !r.supervises {
		r.at(r.settings["exec"].name, "exec = true stands for the command of the exec block, and there is none")
	}
	return Child{Signal: r.signalOrRestart()}
}

// reloads reads all that a block says is to be done after a change, in the order
// in which it says so.
func (l *loader) reloads(b reloadBlocks) []Reload {
	type placed struct {
		Reload
		at int
	}
	var all []placed
	for _, each := range b.Reload {
		if r, ok := l.reload(each); ok {
			all = append(all, placed{r, each.DefRange.Start.Byte})
		}
	}
	// As in Vault Agent, exec and command run at the first time, too.
	if e := b.Exec; e != nil {
		if c, ok := l.exec(e); ok {
			all = append(all, placed{Reload{c, true}, e.DefRange.Start.Byte})
		}
	}
	if !isUnset(b.Command) {
		timeout := defaultExecTimeout
		if b.CommandTimeout != "" {
			timeout, _ = l.duration(b.CommandTimeout, b.CommandRange)
		}
		switch args := l.command(b.Command); {
		case b.Exec != nil:
			l.at(b.Command.Range(), "command and exec exclude each other")
		case len(args) > 0:
			all = append(all, placed{Reload{Command{Args: args, Timeout: timeout, Place: placeOf(b.Command.Range())}, true}, b.Command.Range().Start.Byte})
		}
	}
	slices.SortStableFunc(all, func(a, b placed) int { return cmp.Compare(a.at, b.at) })
	var reloads []Reload
	for _, each := range all {
		reloads = append(reloads, each.Reload)
	}
	return reloads
}

// wait reads a "wait" block. As in consul-template, max is four times min where
// it is not there.
func (l *loader) wait(b *waitBlock, otherwise Wait) Wait {
	if b == nil {
		return otherwise
	}
	if b.Enabled != nil && !*b.Enabled {
		return Wait{}
	}
	var w Wait
	if b.Min != "" {
		w.Min, _ = l.duration(b.Min, b.MinRange)
	}
	w.Max = 4 * w.Min
	if b.Max != "" {
		w.Max, _ = l.duration(b.Max, b.MaxRange)
	}
	switch {
	case b.Min == "" && b.Max != "":
		l.at(b.DefRange, "wait lacks a min: how long a secret must be left alone, such as min = \"2s\"")
	case w.Max < w.Min:
		l.at(b.MaxRange, "max is shorter than min")
	}
	return w
}

// waitOf reads the wait of a drop: a block, or "2s:10s", min and max, as in
// consul-template.
func (l *loader) waitOf(b dropBody) Wait {
	if isUnset(b.WaitText) {
		return l.wait(b.Wait, l.cfg.Wait)
	}
	value, diags := b.WaitText.Value(l.ctx)
	if l.hcl(diags); diags.HasErrors() {
		return Wait{}
	}
	at := b.WaitText.Range()
	text, err := convert.Convert(value, cty.String)
	if err != nil || text.IsNull() {
		l.at(at, "wait is not a duration, or two; write one such as \"2s:10s\"")
		return Wait{}
	}
	first, second, _ := strings.Cut(text.AsString(), ":")
	return l.wait(&waitBlock{Min: first, MinRange: at, Max: second, MaxRange: at, DefRange: at}, Wait{})
}
