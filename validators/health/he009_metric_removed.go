package health

import (
	"context"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// The kinds that have queries.
var (
	prometheusRuleKind = schema.GroupKind{Group: "monitoring.coreos.com", Kind: "PrometheusRule"}
	dashboardKind      = schema.GroupKind{Group: "grafana.integreatly.org", Kind: "GrafanaDashboard"}
	configMapKind      = schema.GroupKind{Kind: "ConfigMap"}
)

// MetricRemoved is the rule flux-metric-removed.
//
// gotk_reconcile_condition and gotk_suspend_status are deprecated since Flux 2.1. helm-controller has not had them since Flux 2.2, and
// source-controller and kustomize-controller since 1.5.0, that is Flux 2.5 (fluxcd/flux2 issue 5083). gotk_reconcile_duration_seconds
// remains, and gotk_resource_info was never one of Flux: kube-state-metrics has it if it is configured so. An older Flux still has the
// metrics: nothing is reported where the tree has its CustomResourceDefinitions, and the finding is uncertain where that is not known. A group
// that records the name itself is not reported.
var MetricRemoved = &validators.Rule{
	Meta: validators.Meta{
		ID:         "HE009",
		Name:       "flux-metric-removed",
		Scope:      validators.Scope{Kinds: []schema.GroupKind{prometheusRuleKind, dashboardKind, configMapKind}},
		Stages:     validators.StageOffline | validators.StageAudit,
		KindStages: map[schema.GroupKind]validators.Stage{configMapKind: validators.StageOffline},
		Component:  Component,
		Severity:   validators.SeverityWarning,
		Defaults:   validators.Defaults{Offline: v1alpha1.ActionWarn, Audit: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Query uses a metric that Flux removed",
			Why: "Flux has no gotk_reconcile_condition and gotk_suspend_status since 2.5, and for HelmReleases since 2.2. An alert on them " +
				"never fires again, and a panel is empty.",
			Fix: "Use gotk_resource_info, which kube-state-metrics has with the configuration in fluxcd/flux2-monitoring-example: its " +
				"labels ready and suspended replace the two metrics.",
			Since: "v0.1.0",
		},
	},
	Check: checkMetricRemoved,
}

var (
	metricShape  = regexp.MustCompile(`\bgotk_(?:reconcile_condition|suspend_status)\b`)
	commentShape = regexp.MustCompile(`(?m)^\s*#.*$`)
)

func checkMetricRemoved(ctx context.Context, p *validators.Pass) error {
	if olderFlux(ctx, p.Lookup) {
		return nil
	}
	switch p.Object.GroupVersionKind().GroupKind() {
	case prometheusRuleKind:
		checkAlerts(p)
	case dashboardKind:
		at := validators.NewPath("spec", "json")
		checkDashboard(p, at, text(p.Object, "spec", "json"))
	case configMapKind:
		data, _ := field(p.Object, "data").(map[string]any)
		for _, name := range slices.Sorted(maps.Keys(data)) {
			if value, _ := data[name].(string); strings.HasSuffix(name, ".json") {
				checkDashboard(p, validators.NewPath("data", name), value)
			}
		}
	}
	return nil
}

// olderFlux reports whether Flux is older than 2.5, by the definition of Kustomizations: spec.healthCheckExprs came with 2.5.
func olderFlux(ctx context.Context, look validators.Lookup) bool {
	kind, presence, _ := look.Kind(ctx, flux.Kustomization)
	if presence != validators.Present || kind.Schemas == nil {
		return false
	}
	if !slices.Contains(kind.Served, "v1") {
		return kind.Installed // Flux 2.0 was the first to serve it
	}
	schema, err := kind.Schemas.Schema("v1")
	return err == nil && len(schema.UnknownFields(&unstructured.Unstructured{Object: map[string]any{
		"apiVersion": flux.Kustomization.Group + "/v1", "kind": flux.Kustomization.Kind,
		"spec": map[string]any{"healthCheckExprs": []any{}},
	}})) > 0
}

// checkAlerts reports the rules of a PrometheusRule whose expression uses a removed metric.
func checkAlerts(p *validators.Pass) {
	type alert struct {
		at   validators.Path
		expr string
	}
	var alerts []alert
	recorded := map[string]bool{}
	groups, _ := field(p.Object, "spec", "groups").([]any)
	for i, item := range groups {
		group, _ := item.(map[string]any)
		rules, _ := group["rules"].([]any)
		for j, item := range rules {
			rule, _ := item.(map[string]any)
			expr, _ := rule["expr"].(string)
			if name, _ := rule["record"].(string); name != "" {
				recorded[name] = true
			}
			alerts = append(alerts, alert{validators.NewPath("spec", "groups").Index(i).Child("rules").Index(j).Child("expr"), expr})
		}
	}
	for _, a := range alerts {
		reportMetric(p, a.at, a.expr, recorded)
	}
}

// reportMetric reports a query that uses a removed metric.
func reportMetric(p *validators.Pass, at validators.Path, query string, recorded map[string]bool) bool {
	metric := metricShape.FindString(commentShape.ReplaceAllString(query, ""))
	if metric == "" || recorded[metric] {
		return false
	}
	f := p.Report(at, nil, "the query uses %s, which Flux has not had since 2.5, unless the cluster runs an older one", metric)
	f.Uncertain = true
	return true
}

// checkDashboard reports the first query of a Grafana dashboard that uses a removed metric. A text that is not a dashboard has none.
func checkDashboard(p *validators.Pass, at validators.Path, source string) {
	if !metricShape.MatchString(source) {
		return
	}
	var dashboard map[string]any
	if json.Unmarshal([]byte(source), &dashboard) != nil || dashboard["panels"] == nil && dashboard["rows"] == nil {
		return
	}
	for _, query := range queries(dashboard, nil) {
		if reportMetric(p, at, query, nil) {
			return
		}
	}
}

// queries appends the queries in a part of a dashboard: those of panels, variables and annotations.
func queries(v any, out []string) []string {
	switch v := v.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if query, ok := v[key].(string); ok && (key == "expr" || key == "query" || key == "definition") {
				out = append(out, query)
			}
			out = queries(v[key], out)
		}
	case []any:
		for _, item := range v {
			out = queries(item, out)
		}
	}
	return out
}
