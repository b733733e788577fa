package manifests_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/flux-admission/flux-admission/internal/audit"
	"github.com/flux-admission/flux-admission/webhook/metrics"
)

const dashboard = "components/grafana-dashboard/dashboard.json"

// panel is what a test reads of a panel of the dashboard.
type panel struct {
	ID          int    `json:"id"`
	Title       string `json:"title"`
	Type        string `json:"type"`
	Description string `json:"description"`
	GridPos     struct {
		H, W, X, Y int
	} `json:"gridPos"`
	Targets []struct {
		Expr         string `json:"expr"`
		LegendFormat string `json:"legendFormat"`
	} `json:"targets"`
}

func panels(t *testing.T) []panel {
	t.Helper()
	var d struct {
		Title, UID string
		Panels     []panel
	}
	read(t, dashboard, &d)
	if d.Title == "" || d.UID == "" || len(d.Panels) == 0 {
		t.Fatalf("the dashboard %q with the uid %q has %d panels", d.Title, d.UID, len(d.Panels))
	}
	return d.Panels
}

// TestDashboard_Panels checks that panels have queries and a description, and do not overlap.
func TestDashboard_Panels(t *testing.T) {
	list := panels(t)
	ids := map[int]bool{}
	for i, p := range list {
		if ids[p.ID] {
			t.Errorf("%s: the id %d is duplicated", p.Title, p.ID)
		}
		ids[p.ID] = true
		g := p.GridPos
		if g.H <= 0 || g.W <= 0 || g.X < 0 || g.X+g.W > 24 {
			t.Errorf("%s: position %+v", p.Title, g)
		}
		for _, q := range list[:i] {
			o := q.GridPos
			if g.X < o.X+o.W && o.X < g.X+g.W && g.Y < o.Y+o.H && o.Y < g.Y+g.H {
				t.Errorf("%s overlaps %s", p.Title, q.Title)
			}
		}
		if p.Type != "row" && (p.Description == "" || len(p.Targets) == 0) {
			t.Errorf("%s has no description or no query", p.Title)
		}
	}
}

// TestDashboard_Queries checks that Prometheus can parse each query, and that its metrics and labels exist.
func TestDashboard_Queries(t *testing.T) {
	queries := map[string]string{}
	for _, p := range panels(t) {
		for i, target := range p.Targets {
			queries[fmt.Sprintf("%s, query %d", p.Title, i)] = target.Expr
		}
	}
	checkQueries(t, queries)
}

// TestDashboard_Timeout checks that the timeout and the memory limit of the dashboard are those of the manifests.
func TestDashboard_Timeout(t *testing.T) {
	var configuration struct {
		Webhooks []struct {
			TimeoutSeconds int `json:"timeoutSeconds"`
		} `json:"webhooks"`
	}
	read(t, "base/validating-webhook.yaml", &configuration)
	timeout := fmt.Sprintf("vector(%d)", configuration.Webhooks[0].TimeoutSeconds)
	found := 0
	for _, p := range panels(t) {
		for _, target := range p.Targets {
			if target.LegendFormat == "timeout" {
				found++
				if target.Expr != timeout {
					t.Errorf("%s: the timeout is %s, want %s", p.Title, target.Expr, timeout)
				}
			}
		}
	}
	if found == 0 {
		t.Error("no panel has the timeout")
	}
}

// foreign are the labels of the metrics that Prometheus, the API server and kube-state-metrics export.
var foreign = map[string][]string{
	"up": nil,
	"kube_deployment_status_replicas_unavailable":            {"namespace", "deployment"},
	"process_start_time_seconds":                             nil,
	"process_resident_memory_bytes":                          nil,
	"apiserver_admission_webhook_fail_open_count":            {"name", "type"},
	"apiserver_admission_webhook_rejection_count":            {"name", "type", "operation", "error_type", "rejection_code"},
	"apiserver_admission_webhook_admission_duration_seconds": {"name", "type", "operation", "rejected"},
}

// targetLabels are the labels that Prometheus adds to the metrics of a Pod.
var targetLabels = []string{"job", "instance", "namespace", "pod"}

var (
	grafanaVariable = regexp.MustCompile(`\$__rate_interval\b`)
	description     = regexp.MustCompile(`fqName: "([^"]+)".*constLabels: \{([^}]*)\}, variableLabels: \{([^}]*)\}`)
)

// exported returns the labels of each metric that the webhook server exports.
func exported(t *testing.T) map[string][]string {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	m := metrics.New(registry)
	m.Build("")
	m.Connections(func() int { return 0 })
	m.CertificateExpiry(func() time.Time { return time.Time{} })
	m.PolicyInForce(func() metrics.PolicyState { return metrics.PolicyState{} })
	m.MissedMutations(func() int { return 0 })
	metrics.NewCharts(registry)
	metrics.NewBuilds(registry, func() map[string]audit.Count { return nil })
	metrics.NewAudit(registry, func() audit.Summary { return audit.Summary{} }, func() int { return 0 })
	descriptions := make(chan *prometheus.Desc, 1000)
	registry.Describe(descriptions)
	close(descriptions)
	out := maps.Clone(foreign)
	for d := range descriptions {
		parts := description.FindStringSubmatch(d.String())
		if parts == nil {
			t.Fatalf("unexpected description %s", d)
		}
		labels := strings.FieldsFunc(parts[3], func(r rune) bool { return r == ',' })
		for constant := range strings.SplitSeq(parts[2], ",") {
			name, _, _ := strings.Cut(constant, "=")
			labels = append(labels, name)
		}
		out[parts[1]] = labels
	}
	return out
}

// checkQueries parses queries with Prometheus' own parser, and checks that their metrics and labels are exported.
func checkQueries(t *testing.T, queries map[string]string) {
	t.Helper()
	names := slices.Sorted(maps.Keys(queries))
	expressions := make([]string, len(names))
	for i, name := range names {
		expressions[i] = grafanaVariable.ReplaceAllString(queries[name], "5m")
	}
	in, err := json.Marshal(expressions)
	if err != nil {
		t.Fatal(err)
	}
	parse := exec.CommandContext(t.Context(), "go", "run", "-C", "../internal/tools/promtool", "./queries")
	parse.Stdin = bytes.NewReader(in)
	var stderr strings.Builder
	parse.Stderr = &stderr
	out, err := parse.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	var reads [][]struct {
		Name   string
		Labels []string
	}
	if err := json.Unmarshal(out, &reads); err != nil {
		t.Fatal(err)
	}
	known := exported(t)
	for i, name := range names {
		if len(reads[i]) == 0 && !strings.HasPrefix(queries[name], "vector(") {
			t.Errorf("%s reads no metric", name)
		}
		for _, m := range reads[i] {
			labels, ok := known[m.Name]
			if base, histogram := strings.CutSuffix(m.Name, "_bucket"); histogram && !ok {
				labels, ok = known[base]
				labels = append(slices.Clone(labels), "le")
			}
			if !ok {
				t.Errorf("%s uses %s, which nothing exports", name, m.Name)
			}
			for _, l := range m.Labels {
				if ok && !slices.Contains(labels, l) && !slices.Contains(targetLabels, l) {
					t.Errorf("%s uses the label %s, which %s does not have", name, l, m.Name)
				}
			}
		}
	}
}
