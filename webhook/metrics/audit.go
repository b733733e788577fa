package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/flux-admission/flux-admission/internal/audit"
)

// Audit are the metrics of the background audit. Only the replica that audits has findings; the others have 0 objects.
type Audit struct {
	summary func() audit.Summary
	queue   func() int

	evaluations                                 prometheus.Counter
	findings, objects, complete, length, active *prometheus.Desc
	notReady, roots, waiting                    *prometheus.Desc
}

// maxRoots is the number of roots that have a series of their own.
const maxRoots = 50

// NewAudit registers the metrics. The functions return the state of the audit.
func NewAudit(registry prometheus.Registerer, summary func() audit.Summary, queue func() int) *Audit {
	m := &Audit{
		summary: summary, queue: queue,
		evaluations: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "flux_admission_audit_evaluations_total", Help: "Number of evaluations of stored objects by the background audit.",
		}),
		findings: prometheus.NewDesc("flux_admission_audit_findings",
			"Number of findings on stored objects by rule and by the action that the mode Enforce would take.", []string{"rule", "action"}, nil),
		objects: prometheus.NewDesc("flux_admission_audit_objects",
			"Number of stored objects that were evaluated, by whether every rule could be evaluated.", []string{"conclusive"}, nil),
		complete: prometheus.NewDesc("flux_admission_audit_complete_timestamp_seconds",
			"Time when the last change of an object was evaluated and nothing was left to evaluate, in seconds since the epoch; "+
				"0 if that never was.", nil, nil),
		length: prometheus.NewDesc("flux_admission_audit_queue_length", "Number of stored objects that wait for their evaluation.", nil, nil),
		active: prometheus.NewDesc("flux_admission_audit_active", "1 if this replica audits, else 0.", nil, nil),
		notReady: prometheus.NewDesc("flux_admission_not_ready",
			"Number of objects that are not ready, among those of Flux and what they wait for.", nil, nil),
		roots: prometheus.NewDesc("flux_admission_roots",
			"Number of objects for which all others that are not ready wait: failed ones, which somebody has to repair, "+
				"those in progress, and unknown ones.", []string{"state"}, nil),
		waiting: prometheus.NewDesc("flux_admission_root_waiting_objects",
			"Number of objects that wait for a root that somebody has to repair, for the 50 roots with the most.",
			[]string{"root_kind", "root_namespace", "root_name", "cause"}, nil),
	}
	registry.MustRegister(m, m.evaluations)
	return m
}

// Evaluated counts an evaluation.
func (m *Audit) Evaluated() { m.evaluations.Inc() }

// Describe implements prometheus.Collector.
func (m *Audit) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.findings, m.objects, m.complete, m.length, m.active, m.notReady, m.roots, m.waiting} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (m *Audit) Collect(out chan<- prometheus.Metric) {
	s := m.summary()
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	collectFindings(out, m.findings, s.Rules)
	gauge(m.objects, float64(s.Objects-s.Inconclusive), "true")
	gauge(m.objects, float64(s.Inconclusive), "false")
	complete := 0.0
	if !s.Complete.IsZero() {
		complete = float64(s.Complete.Unix())
	}
	gauge(m.complete, complete)
	gauge(m.length, float64(m.queue()))
	active := 0.0
	if s.Active {
		active = 1
	}
	gauge(m.active, active)
	if !s.Active {
		return
	}
	gauge(m.notReady, float64(s.Delivery.NotReady))
	gauge(m.roots, float64(s.Delivery.Roots), "failed")
	gauge(m.roots, float64(s.Delivery.InProgress), "in_progress")
	gauge(m.roots, float64(s.Delivery.Unknown), "unknown")
	for _, root := range s.Roots[:min(len(s.Roots), maxRoots)] {
		gauge(m.waiting, float64(len(root.Blocked)), root.Object.Kind, root.Object.Namespace, root.Object.Name, string(root.Cause))
	}
}
