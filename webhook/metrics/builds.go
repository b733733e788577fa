package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/flux-admission/flux-admission/internal/audit"
)

// Builds are the metrics of the builds of what Flux is about to apply.
type Builds struct {
	findings func() map[string]audit.Count

	builds *prometheus.CounterVec
	found  *prometheus.Desc
}

// NewBuilds registers the metrics. The function returns the findings by rule.
func NewBuilds(registry prometheus.Registerer, findings func() map[string]audit.Count) *Builds {
	m := &Builds{
		findings: findings,
		builds: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flux_admission_audit_builds_total",
			Help: "Number of Kustomizations built from new artifacts, by outcome: evaluated, too-large or failed.",
		}, []string{"outcome"}),
		found: prometheus.NewDesc("flux_admission_audit_build_findings",
			"Number of findings on what Flux is about to apply, by rule and by the action that the mode Enforce would take.", []string{"rule", "action"}, nil),
	}
	for _, o := range audit.BuildOutcomes() {
		m.builds.WithLabelValues(string(o))
	}
	registry.MustRegister(m, m.builds)
	return m
}

// Built counts a Kustomization, or an artifact that could not be read.
func (m *Builds) Built(o audit.BuildOutcome) { m.builds.WithLabelValues(string(o)).Inc() }

// Describe implements prometheus.Collector.
func (m *Builds) Describe(out chan<- *prometheus.Desc) { out <- m.found }

// Collect implements prometheus.Collector.
func (m *Builds) Collect(out chan<- prometheus.Metric) { collectFindings(out, m.found, m.findings()) }

// collectFindings writes the numbers of findings with the labels rule and action.
func collectFindings(out chan<- prometheus.Metric, d *prometheus.Desc, rules map[string]audit.Count) {
	for rule, c := range rules {
		for action, n := range map[string]int{"Deny": c.Deny, "Warn": c.Warn, "Audit": c.Audit} {
			if n > 0 {
				out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), rule, action)
			}
		}
	}
}
