// Package metrics counts what the gate does. Every label has a bounded set of values: what comes from a request and is not known is "other".
package metrics

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Verdict is how a review ended.
type Verdict string

// The verdicts.
const (
	Allowed    Verdict = "allowed"    // nothing to say
	Recorded   Verdict = "recorded"   // allowed, with findings that are only recorded
	Warned     Verdict = "warned"     // allowed, with a warning to the user
	Denied     Verdict = "denied"     // refused
	Mutated    Verdict = "mutated"    // allowed, with a patch
	Passed     Verdict = "passed"     // not evaluated: a deletion, nothing that rules read has changed, no rule for the kind
	Failed     Verdict = "failed"     // could not be evaluated: an error, a panic, an unreadable request
	Timeout    Verdict = "timeout"    // not evaluated in time
	Overloaded Verdict = "overloaded" // not evaluated: too much was being evaluated already
)

// Webhook is which of the webhooks was asked.
type Webhook string

// The webhooks.
const (
	Validate Webhook = "validate"
	Mutate   Webhook = "mutate"
	Policy   Webhook = "policy"
)

// other stands for every value that is not known.
const other = "other"

// Metrics are the gate's own metrics. They count dry-run requests too: Flux's denials are all dry-run.
type Metrics struct {
	kinds map[schema.GroupKind]string

	reviews    *prometheus.CounterVec
	findings   *prometheus.CounterVec
	ruleErrors *prometheus.CounterVec
	unknown    *prometheus.CounterVec
	panics     prometheus.Counter
	inFlight   prometheus.Gauge
	duration   *prometheus.HistogramVec
	reloads    *prometheus.CounterVec
	published  *prometheus.CounterVec
	registry   prometheus.Registerer
}

// New registers the metrics. The kinds are those that have a label value of their own.
func New(registry prometheus.Registerer, kinds ...schema.GroupKind) *Metrics {
	m := &Metrics{
		kinds:    map[schema.GroupKind]string{},
		registry: registry,
		reviews: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flux_admission_reviews_total",
			Help: "Admission reviews answered, by webhook, kind, operation, dry-run and verdict.",
		}, []string{"webhook", "kind", "operation", "dry_run", "verdict"}),
		findings: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flux_admission_findings_total",
			Help: "Findings of rules, by rule, what was done about them, kind and dry-run.",
		}, []string{"rule", "action", "kind", "dry_run"}),
		ruleErrors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flux_admission_rule_errors_total",
			Help: "Evaluations of a rule that failed or panicked.",
		}, []string{"rule"}),
		unknown: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flux_admission_unknown_total",
			Help: "Evaluations of a rule that could not be finished because something could not be seen.",
		}, []string{"rule"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "flux_admission_panics_total",
			Help: "Panics recovered outside of rules.",
		}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "flux_admission_reviews_in_flight_bytes",
			Help: "Memory that the requests being evaluated take, as estimated from their text.",
		}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "flux_admission_review_duration_seconds",
			Help:    "Time from a request's arrival to its answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"webhook", "kind"}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flux_admission_policy_reloads_total",
			Help: "Policies loaded, by result: accepted or refused.",
		}, []string{"result"}),
		published: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flux_admission_ca_publications_total",
			Help: "Attempts to write the CA bundle into a webhook configuration, by result: written or failed.",
		}, []string{"result"}),
	}
	for _, gk := range kinds {
		m.kinds[gk] = gk.Kind
	}
	registry.MustRegister(m.reviews, m.findings, m.ruleErrors, m.unknown, m.panics, m.inFlight, m.duration, m.reloads, m.published)
	return m
}

// Kind returns the label value of a kind.
func (m *Metrics) Kind(gk schema.GroupKind) string {
	if name, ok := m.kinds[gk]; ok {
		return name
	}
	return other
}

// Review counts one answer and how long it took.
func (m *Metrics) Review(w Webhook, gk schema.GroupKind, operation string, dryRun bool, v Verdict, took time.Duration) {
	kind := m.Kind(gk)
	switch operation {
	case "CREATE", "UPDATE", "DELETE", "CONNECT":
	default:
		operation = other
	}
	m.reviews.WithLabelValues(string(w), kind, operation, strconv.FormatBool(dryRun), string(v)).Inc()
	m.duration.WithLabelValues(string(w), kind).Observe(took.Seconds())
}

// Finding counts one finding of a rule. The rule and the action are the product's own words.
func (m *Metrics) Finding(rule, action string, gk schema.GroupKind, dryRun bool) {
	m.findings.WithLabelValues(rule, action, m.Kind(gk), strconv.FormatBool(dryRun)).Inc()
}

// RuleError counts a rule that failed or panicked.
func (m *Metrics) RuleError(rule string) { m.ruleErrors.WithLabelValues(rule).Inc() }

// Unknown counts a rule that could not see what it needed.
func (m *Metrics) Unknown(rule string) { m.unknown.WithLabelValues(rule).Inc() }

// Panic counts a panic outside of rules.
func (m *Metrics) Panic() { m.panics.Inc() }

// InFlight adds to the size of the requests that are being evaluated.
func (m *Metrics) InFlight(bytes int64) { m.inFlight.Add(float64(bytes)) }

// PolicyReload counts a policy that was loaded, and whether it could be used.
func (m *Metrics) PolicyReload(accepted bool) {
	result := "refused"
	if accepted {
		result = "accepted"
	}
	m.reloads.WithLabelValues(result).Inc()
}

// CAPublication counts an attempt to write the CA bundle; err is why it failed.
func (m *Metrics) CAPublication(err error) {
	if err != nil {
		m.published.WithLabelValues("failed").Inc()
		return
	}
	m.published.WithLabelValues("written").Inc()
}

// CertificateExpiry registers a gauge of when the certificate that is being served expires. A zero time, no certificate, reads as 0.
func (m *Metrics) CertificateExpiry(expiry func() time.Time) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "flux_admission_certificate_expiry_timestamp_seconds",
		Help: "When the certificate that is being served expires, in seconds since the epoch.",
	}, func() float64 {
		t := expiry()
		if t.IsZero() {
			return 0
		}
		return float64(t.Unix())
	}))
}
