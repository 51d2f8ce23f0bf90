package status

import (
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/smarteros/deaddrop/agent/internal/tally"
)

// Counts are what the agent has done since it was started, through all sessions.
type Counts struct {
	// Up says that Vault has served the last request.
	Up                                bool
	Logins, Renewals, Requests, Reads tally.Sum
	Renders, Checks, Writes, Reloads  tally.Sum
	// Restored counts files, or sets of them, that another program had changed.
	Restored tally.Sum
}

// WriteMetrics writes what Prometheus reads: its text format, version 0.0.4. The
// report may be nil where the agent is too busy to make one; then what stands in it
// is left out. Prometheus's own library would do the same, for 2.4 MB of program and
// 5 MB of memory, which is half as much again as the whole agent has.
func WriteMetrics(w io.Writer, version string, s Summary, c Counts, r *Report, p Process) error {
	m := &metrics{}
	m.one("deaddrop_build_info", gauge, "The version of deaddrop that runs.", 1, "version", version, "goversion", runtime.Version())
	m.one("deaddrop_ready", gauge, "1 when every drop is as it should be, else 0.", truth(s.Ready))
	m.one("deaddrop_vault_up", gauge, "1 when Vault has served the last request or refused it; 0 when it was out of reach, sealed or failing, or was not asked yet.", truth(c.Up))
	m.tally("deaddrop_logins", "", "Logins to Vault.", c.Logins)
	m.tally("deaddrop_token_renewals", "", "Renewals of the token. Where Vault allows none, a login takes their place.", c.Renewals)
	m.tally("deaddrop_vault_requests", "deaddrop_vault_request", "Requests to Vault besides logins.", c.Requests)
	m.tally("deaddrop_secret_reads", "", "Reads of secrets; that there is no such secret is a success.", c.Reads)
	m.tally("deaddrop_renders", "deaddrop_render", "Contents made of secrets.", c.Renders)
	m.tally("deaddrop_checks", "deaddrop_check", "Checks of new contents.", c.Checks)
	m.tally("deaddrop_writes", "", "Files that had a new content.", c.Writes)
	m.one("deaddrop_restored_total", counter, "Files, or sets of files, that another program had changed and that were written again.", float64(c.Restored.Succeeded))
	m.tally("deaddrop_reloads", "deaddrop_reload", "Services told of a change.", c.Reloads)
	if r != nil {
		m.report(r)
	}
	m.process(p)
	_, err := io.WriteString(w, m.String())
	return err
}

// report writes what the agent is now. What could be thousands is summed up.
func (m *metrics) report(r *Report) {
	m.one("deaddrop_logged_in", gauge, "1 when there is a token, else 0.", truth(r.Session.LoggedIn))
	if !r.Session.TokenEnds.IsZero() {
		m.one("deaddrop_token_expiry_timestamp_seconds", gauge, "When the token ends. Left out for one without an end.", seconds(r.Session.TokenEnds))
	}
	m.one("deaddrop_config_last_reload_successful", gauge, "0 when the newest configuration was refused and an older one is in force, else 1.", truth(r.Config.Error == ""))
	m.one("deaddrop_config_last_reload_success_timestamp_seconds", gauge, "When the configuration in force was read.", seconds(r.Config.Loaded))
	m.secrets(r)
	m.drops(r)
	states := map[string]int{}
	for _, state := range []ReloadState{NotReady, ReloadFailed, ReloadWaiting, NotNeeded, Done} {
		states[string(state)] = 0
	}
	for _, each := range r.Reloads {
		states[string(each.State)]++
	}
	m.states("deaddrop_reload_targets", "Whom the agent tells of changes, by how that last went.", states)
}

func (m *metrics) secrets(r *Report) {
	states := map[string]int{"ok": 0, "failing": 0, "waiting": 0}
	var worst time.Duration
	for _, s := range r.Secrets {
		states[s.state()]++
		worst = max(worst, s.staleness(r.At))
	}
	m.states("deaddrop_secrets", "Secrets that are watched; failing are those that cannot be read, or are not there; waiting those that were not read yet.", states)
	m.one("deaddrop_secrets_max_staleness_seconds", gauge, "How long ago Vault last answered for the secret that is worst off. Leases and certificates count from when they could not be had.", worst.Seconds())
}

// state is how it goes with reading it. What was found in files of an earlier run was
// not read, and is there.
func (s Secret) state() string {
	switch {
	case s.Error != "":
		return "failing"
	case s.Checked.IsZero() && s.Ends.IsZero():
		return "waiting"
	}
	return "ok"
}

// staleness is how old what is known of the secret is. What has a life of its own
// is as new as it can be, unless it cannot be had.
func (s Secret) staleness(now time.Time) time.Duration {
	switch {
	case s.Ends.IsZero() && !s.Checked.IsZero():
		return now.Sub(s.Checked)
	case !s.Failing.IsZero():
		return now.Sub(s.Failing)
	}
	return 0
}

func (m *metrics) drops(r *Report) {
	states := map[string]int{}
	for _, state := range []State{Current, Waiting, Stale, Failed, Removed, Absent, Departed} {
		states[string(state)] = 0
	}
	bad, tenants, failing := map[string]int{}, map[string]int{}, map[string]int{}
	var written time.Time
	for _, d := range r.Drops {
		states[string(d.State)]++
		name := d.Name
		if d.Block != "" {
			name = d.Block
		}
		bad[name] += int(truth(!d.State.IsGood()))
		if d.Written.After(written) {
			written = d.Written
		}
	}
	for _, f := range r.ForEach {
		tenants[f.Name], failing[f.Name] = f.Tenants, len(f.Failed)
		bad[f.Name] += len(f.Failed)
		if f.Error != "" {
			bad[f.Name]++
		}
	}
	m.states("deaddrop_drops", "Drops, by how they are.", states)
	m.each("deaddrop_drops_not_current", "Drops that are not as they should be, by their block in the configuration.", "drop", bad)
	m.each("deaddrop_tenants", "Tenants that a for_each block has found.", "drop", tenants)
	m.each("deaddrop_tenants_failing", "Tenants of a for_each block that have no drops because of an error.", "drop", failing)
	m.one("deaddrop_last_write_timestamp_seconds", gauge, "When a file was last written by this agent; 0 where none has been yet.", seconds(written))
}

func (m *metrics) process(p Process) {
	m.one("go_goroutines", gauge, "Goroutines that there are.", float64(runtime.NumGoroutine()))
	m.one("process_start_time_seconds", gauge, "When the agent was started.", seconds(p.Started))
	if p.ResidentBytes == 0 {
		return // Only Linux tells.
	}
	m.one("process_resident_memory_bytes", gauge, "Memory of the agent.", float64(p.ResidentBytes))
	m.one("process_cpu_seconds_total", counter, "Time that the agent has spent on processors.", p.CPU.Seconds())
	m.one("process_open_fds", gauge, "Open files and connections.", float64(p.OpenFiles))
}

// The kinds of metrics that there are here.
const (
	gauge   = "gauge"
	counter = "counter"
	summary = "summary"
)

// metrics is a page of them.
type metrics struct{ strings.Builder }

func (m *metrics) head(name, kind, help string) {
	fmt.Fprintf(m, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// sample writes a value, with the names and values of its labels.
func (m *metrics) sample(name string, value float64, labels ...string) {
	m.WriteString(name)
	for i := 0; i < len(labels); i += 2 {
		before := ","
		if i == 0 {
			before = "{"
		}
		m.WriteString(before + labels[i] + `="` + escapeLabel(labels[i+1]) + `"`)
	}
	if len(labels) > 0 {
		m.WriteString("}")
	}
	m.WriteString(" " + strconv.FormatFloat(value, 'g', -1, 64) + "\n")
}

func escapeLabel(value string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(strings.ToValidUTF8(value, "\uFFFD"))
}

func (m *metrics) one(name, kind, help string, value float64, labels ...string) {
	m.head(name, kind, help)
	m.sample(name, value, labels...)
}

// tally writes a counter by result and, where it has a name, how long it took.
func (m *metrics) tally(name, duration, help string, sum tally.Sum) {
	m.head(name+"_total", counter, help)
	m.sample(name+"_total", float64(sum.Succeeded), "result", "success")
	m.sample(name+"_total", float64(sum.Failed), "result", "failure")
	if duration == "" {
		return
	}
	duration += "_duration_seconds"
	m.head(duration, summary, help+" How long they took.")
	m.sample(duration+"_sum", sum.Took.Seconds())
	m.sample(duration+"_count", float64(sum.Succeeded+sum.Failed))
}

func (m *metrics) states(name, help string, count map[string]int) {
	m.each(name, help, "state", count)
}

// each writes a value for each name, or nothing where there is none.
func (m *metrics) each(name, help, label string, count map[string]int) {
	if len(count) == 0 {
		return
	}
	m.head(name, gauge, help)
	for _, each := range slices.Sorted(maps.Keys(count)) {
		m.sample(name, float64(count[each]), label, each)
	}
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1e3
}
