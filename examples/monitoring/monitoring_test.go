// Package monitoring has only tests: they hold rules and dashboard against the
// metrics of a running agent.
package monitoring

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/smarteros/deaddrop/agent"
	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// promtool runs it, which must succeed.
func promtool(t *testing.T, stdin string, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not there (Debian: prometheus)")
	}
	cmd := exec.Command(path, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "promtool %v: %s", args, out)
	t.Logf("promtool %v: %s", args, out)
}

func TestPromtoolAcceptsTheConfigurationAndTheRules(t *testing.T) {
	promtool(t, "", "check", "config", "prometheus.yml")
	promtool(t, "", "check", "rules", "alerts.yml")
	promtool(t, "", "test", "rules", "alerts_test.yml")
}

// metricsOf runs an agent with a drop, a for_each block, a check and a reload, until
// all is current, and returns its metrics.
func metricsOf(t *testing.T) string {
	t.Helper()
	tenant := vaulttest.Shared(t).Tenant(t)
	tenant.AllowAll()
	marker := vaulttest.Marker()
	tenant.Put("nexa", map[string]any{"API_KEY": marker})
	dir := t.TempDir()
	address := vaulttest.FreeAddress(t)
	file := filepath.Join(dir, "deaddrop.hcl")
	require.NoError(t, os.WriteFile(file, []byte(tenant.Login(dir)+fmt.Sprintf(`
listener "tcp" {
  address = %[1]q
  role    = "status"
}
drop "nexa" {
  secret      = %[2]q
  destination = "%[3]s/nexa.env"
  check { command = ["true"] }
  reload {
    command  = ["true"]
    on_start = true
  }
}
drop "each" {
  for_each    = [%[4]q]
  secret      = "secret/tenant/${each.key}/nexa"
  destination = "%[3]s/each/${each.key}.env"
}
`, address, tenant.Path("nexa"), dir, tenant.ID)), 0o600))
	cfg, err := config.Load(file)
	require.NoError(t, err)
	cfg.StateDir = filepath.Join(dir, "state")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- agent.Run(ctx, cfg, nil, nil, "1.2.3", slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-ended)
	})
	var page string
	require.Eventually(t, func() bool {
		answer, err := http.Get("http://" + address + "/metrics")
		if err != nil {
			return false
		}
		defer func() { _ = answer.Body.Close() }()
		text, err := io.ReadAll(answer.Body)
		page = string(text)
		return err == nil && strings.Contains(page, "\ndeaddrop_ready 1\n") && strings.Contains(page, "deaddrop_reloads_total{result=\"success\"} 1\n")
	}, time.Minute, 50*time.Millisecond)
	assert.NotContains(t, page, marker)
	return page
}

// names finds the metrics in a query: words of a known beginning that are no text.
func names(query string) []string {
	query = regexp.MustCompile(`"[^"]*"`).ReplaceAllString(query, "")
	return regexp.MustCompile(`\b(?:deaddrop|process|go)_\w+`).FindAllString(query, -1)
}

// queries are those of the alerts and of the dashboard.
func queries(t *testing.T) []string {
	t.Helper()
	var all []string
	var rules struct {
		Groups []struct{ Rules []struct{ Expr string } }
	}
	text, err := os.ReadFile("alerts.yml")
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(text, &rules))
	for _, rule := range rules.Groups[0].Rules {
		all = append(all, rule.Expr)
	}
	var board any
	text, err = os.ReadFile("dashboard.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &board))
	walk(board, func(key, value string) {
		if key == "expr" || key == "query" && strings.HasPrefix(value, "label_values(") {
			all = append(all, value)
		}
	})
	return all
}

func walk(v any, f func(key, value string)) {
	switch v := v.(type) {
	case map[string]any:
		for key, each := range v {
			if text, is := each.(string); is {
				f(key, text)
			}
			walk(each, f)
		}
	case []any:
		for _, each := range v {
			walk(each, f)
		}
	}
}

func TestRulesAndDashboardUseMetricsThatThereAre(t *testing.T) {
	page := metricsOf(t)
	var parser expfmt.TextParser
	families, err := parser.TextToMetricFamilies(strings.NewReader(page))
	require.NoError(t, err)
	all := queries(t)
	require.Greater(t, len(all), 30)
	used := map[string]bool{}
	for _, query := range all {
		for _, name := range names(query) {
			used[name] = true
			family := strings.TrimSuffix(strings.TrimSuffix(name, "_sum"), "_count")
			assert.Contains(t, families, family, query)
		}
	}
	assert.Greater(t, len(used), 25)
	promtool(t, page, "check", "metrics")
}

func TestPromtoolAcceptsTheQueriesOfTheDashboard(t *testing.T) {
	var rules bytes.Buffer
	rules.WriteString("groups:\n- name: queries\n  rules:\n")
	for i, query := range queries(t) {
		if strings.HasPrefix(query, "label_values(") {
			continue
		}
		query = strings.NewReplacer("$__rate_interval", "1m", "$job", "x", "$instance", "x").Replace(query)
		fmt.Fprintf(&rules, "  - record: q%d\n    expr: %q\n", i, query)
	}
	file := filepath.Join(t.TempDir(), "rules.yml")
	require.NoError(t, os.WriteFile(file, rules.Bytes(), 0o600))
	promtool(t, "", "check", "rules", file)
}

func TestPanelsOfTheDashboardDoNotOverlap(t *testing.T) {
	var board struct {
		Panels []struct {
			ID          int
			Title       string
			Description string
			GridPos     struct{ X, Y, W, H int }
		}
	}
	text, err := os.ReadFile("dashboard.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &board))
	taken, ids := map[[2]int]string{}, map[int]bool{}
	for _, p := range board.Panels {
		assert.False(t, ids[p.ID], p.Title)
		ids[p.ID] = true
		assert.NotEmpty(t, p.Description, p.Title)
		at := p.GridPos
		assert.LessOrEqual(t, at.X+at.W, 24, p.Title)
		for x := at.X; x < at.X+at.W; x++ {
			for y := at.Y; y < at.Y+at.H; y++ {
				assert.Empty(t, taken[[2]int{x, y}], p.Title)
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
}
