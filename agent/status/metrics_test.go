package status

import (
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/internal/tally"
)

// families are the metrics, as Prometheus's own parser reads them.
func families(t *testing.T, r *Report, c Counts) map[string]*dto.MetricFamily {
	t.Helper()
	var page strings.Builder
	summary := Summary{}
	if r != nil {
		summary = r.Summary
	}
	require.NoError(t, WriteMetrics(&page, "1.2.3", summary, c, r, Process{Started: time.Unix(1, 0), ResidentBytes: 2, CPU: time.Second, OpenFiles: 3}))
	var parser expfmt.TextParser
	parsed, err := parser.TextToMetricFamilies(strings.NewReader(page.String()))
	require.NoError(t, err, page.String())
	return parsed
}

// value is the one with that label, or the only one.
func value(t *testing.T, f *dto.MetricFamily, label string) float64 {
	t.Helper()
	for _, m := range f.GetMetric() {
		if label != "" && (len(m.Label) == 0 || m.Label[0].GetValue() != label) {
			continue
		}
		return m.GetGauge().GetValue() + m.GetCounter().GetValue()
	}
	t.Fatalf("%s has no %q", f.GetName(), label)
	return 0
}

func TestMetricsOfAReport(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	r := &Report{
		At: now, Summary: Summary{Ready: true},
		Session: Session{LoggedIn: true, TokenEnds: now.Add(time.Hour)},
		Config:  Config{Loaded: now, Error: "refused"},
		Secrets: []Secret{{Checked: now.Add(-10 * time.Second)}, {Checked: now.Add(-40 * time.Second), Error: "denied"}, {Ends: now, Checked: now.Add(-time.Hour)}, {Ends: now}, {}},
		Drops:   []Drop{{Name: "a", State: Current, Written: now}, {Name: "b", State: Stale}, {Name: "t-1", Block: "t", State: Failed}, {Name: "t-2", Block: "t", State: Absent}},
		ForEach: []ForEach{{Name: "t", Tenants: 3, Failed: map[string]string{"x": "broken"}}},
		Reloads: []Reload{{State: Done}, {State: ReloadFailed}},
	}
	all := families(t, r, Counts{Up: true, Logins: tally.Sum{Succeeded: 2, Failed: 1}, Renders: tally.Sum{Succeeded: 3, Took: 1500 * time.Millisecond}})
	for _, tc := range []struct {
		name, label string
		want        float64
	}{
		{"deaddrop_ready", "", 1}, {"deaddrop_vault_up", "", 1}, {"deaddrop_logged_in", "", 1},
		{"deaddrop_logins_total", "success", 2}, {"deaddrop_logins_total", "failure", 1},
		{"deaddrop_token_expiry_timestamp_seconds", "", 1_003_600},
		{"deaddrop_config_last_reload_successful", "", 0},
		{"deaddrop_secrets", "ok", 3}, {"deaddrop_secrets", "failing", 1}, {"deaddrop_secrets", "waiting", 1},
		{"deaddrop_secrets_max_staleness_seconds", "", 40},
		{"deaddrop_drops", "current", 1}, {"deaddrop_drops", "stale", 1}, {"deaddrop_drops", "absent", 1}, {"deaddrop_drops", "waiting", 0},
		{"deaddrop_drops_not_current", "a", 0}, {"deaddrop_drops_not_current", "b", 1}, {"deaddrop_drops_not_current", "t", 2},
		{"deaddrop_tenants", "t", 3}, {"deaddrop_tenants_failing", "t", 1},
		{"deaddrop_reload_targets", "failed", 1}, {"deaddrop_reload_targets", "not ready", 0},
		{"deaddrop_last_write_timestamp_seconds", "", 1_000_000},
		{"process_resident_memory_bytes", "", 2}, {"process_cpu_seconds_total", "", 1}, {"process_open_fds", "", 3},
	} {
		if assert.Contains(t, all, tc.name) {
			assert.InDelta(t, tc.want, value(t, all[tc.name], tc.label), 0, "%s %s", tc.name, tc.label)
		}
	}
	took := all["deaddrop_render_duration_seconds"].GetMetric()[0].GetSummary()
	assert.EqualValues(t, 3, took.GetSampleCount())
	assert.InDelta(t, 1.5, took.GetSampleSum(), 0)
	for name, f := range all {
		assert.NotEmpty(t, f.GetHelp(), name)
		assert.NotEqual(t, dto.MetricType_UNTYPED, f.GetType(), name)
	}
}

func TestMetricsOfABusyAgentAreThoseThatNeedNoReport(t *testing.T) {
	all := families(t, nil, Counts{})
	assert.Contains(t, all, "deaddrop_logins_total")
	assert.Contains(t, all, "deaddrop_ready")
	assert.NotContains(t, all, "deaddrop_drops")
	assert.NotContains(t, all, "deaddrop_logged_in")
}

func TestNamesOfDropsDoNotBreakMetrics(t *testing.T) {
	hostile := "a\"b\\c\nd{e}\xff# HELP x"
	all := families(t, &Report{Drops: []Drop{{Name: hostile, State: Current}}}, Counts{})
	got := all["deaddrop_drops_not_current"].GetMetric()[0].GetLabel()[0].GetValue()
	assert.Equal(t, strings.ToValidUTF8(hostile, "\uFFFD"), got)
}

func TestStaleness(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	ago := func(s int) time.Time { return now.Add(-time.Duration(s) * time.Second) }
	for name, tc := range map[string]struct {
		s    Secret
		want int
	}{
		"read a while ago":                    {Secret{Checked: ago(7)}, 7},
		"failing since a while":               {Secret{Checked: ago(70), Failing: ago(50)}, 70},
		"never read":                          {Secret{Failing: ago(50)}, 50},
		"not yet read":                        {Secret{}, 0},
		"a lease":                             {Secret{Checked: ago(5000), Ends: now}, 0},
		"a lease that cannot be issued anew":  {Secret{Checked: ago(5000), Ends: now, Failing: ago(9)}, 9},
		"there is no such secret, says Vault": {Secret{Checked: ago(3), Failing: ago(900), Error: "there is no such secret"}, 3},
	} {
		assert.Equal(t, time.Duration(tc.want)*time.Second, tc.s.staleness(now), name)
	}
}
