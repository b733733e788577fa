// Package metrics holds the Prometheus metrics of the webhook server. Every label has a bounded set of values: an
// unknown value from a request is "other".
package metrics

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/webhook/deferred"
)

// Outcome is how the review of a request ended.
type Outcome string

// The outcomes.
const (
	Allowed    Outcome = "allowed"    // no findings
	Recorded   Outcome = "recorded"   // allowed, with findings that are only recorded
	Warned     Outcome = "warned"     // allowed, with a warning to the user
	Denied     Outcome = "denied"     // denied
	Mutated    Outcome = "mutated"    // allowed, with a patch
	Skipped    Outcome = "skipped"    // allowed without evaluation: a deletion, no relevant change, no rule for the kind
	Failed     Outcome = "failed"     // not evaluated: an error, a panic, an invalid request
	Timeout    Outcome = "timeout"    // not evaluated in time
	Overloaded Outcome = "overloaded" // not evaluated: too many concurrent requests, or an object that is too complex
)

// Webhook is the webhook that received a request.
type Webhook string

// The webhooks.
const (
	Validate Webhook = "validate"
	Mutate   Webhook = "mutate"
	Policy   Webhook = "policy"
)

// other is the label value of everything unknown.
const other = "other"

// Metrics are the metrics of reviews. They count dry-run requests, too: all of Flux's denials are dry-run.
type Metrics struct {
	kinds map[schema.GroupKind]string

	reviews         *prometheus.CounterVec
	findings        *prometheus.CounterVec
	limited         *prometheus.CounterVec
	auditedDenials  *prometheus.CounterVec
	ruleErrors      *prometheus.CounterVec
	unknown         *prometheus.CounterVec
	panics          prometheus.Counter
	memory          prometheus.Gauge
	overdue         prometheus.Gauge
	overloaded      prometheus.Gauge
	duration        *prometheus.HistogramVec
	reloads         *prometheus.CounterVec
	caBundleWrites  *prometheus.CounterVec
	deferred        *prometheus.CounterVec
	unauthenticated *prometheus.CounterVec
	registry        prometheus.Registerer
}

// New registers the metrics. The kinds are those with a label value of their own.
func New(registry prometheus.Registerer, kinds ...schema.GroupKind) *Metrics {
	m := &Metrics{
		kinds:    map[schema.GroupKind]string{},
		registry: registry,
		reviews: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flux_admission_reviews_total",
			Help: "Number of admission reviews by webhook, kind, operation, dry-run and outcome.",
		}, []string{"webhook", "kind", "operation", "dry_run", "outcome"}),
		findings: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flux_admission_findings_total",
			Help: "Number of findings by rule, action, kind and dry-run.",
		}, []string{"rule", "action", "kind", "dry_run"}),
		limited: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flux_admission_limited_findings_total",
			Help: "Number of times that the action of a finding was limited, by rule, the action before, the action taken, reason and dry-run.",
		}, []string{"rule", "action", "taken", "reason", "dry_run"}),
		auditedDenials: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flux_admission_audited_denials_total",
			Help: "Number of reviews that mode AuditOnly allowed and mode Enforce would deny, by kind and dry-run.",
		}, []string{"kind", "dry_run"}),
		ruleErrors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flux_admission_rule_errors_total",
			Help: "Number of rule evaluations that failed or panicked, by rule.",
		}, []string{"rule"}),
		unknown: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flux_admission_unknown_evaluations_total",
			Help: "Number of rule evaluations that were inconclusive because something they need could not be read, by rule.",
		}, []string{"rule"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "flux_admission_panics_total",
			Help: "Number of recovered panics outside of rules.",
		}),
		memory: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "flux_admission_reviews_memory_bytes",
			Help: "Estimated memory of the requests that are being evaluated, in bytes.",
		}),
		overdue: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "flux_admission_overdue_evaluations",
			Help: "Number of evaluations that are still running after their deadline.",
		}),
		overloaded: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "flux_admission_overloaded",
			Help: "1 while requests of ordinary size are refused for lack of memory, else 0.",
		}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "flux_admission_review_duration_seconds",
			Help:    "Time from the arrival of a request to its response, in seconds.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"webhook", "kind"}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flux_admission_policy_reloads_total",
			Help: "Number of policies loaded, by result: accepted or refused.",
		}, []string{"result"}),
		caBundleWrites: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flux_admission_ca_bundle_writes_total",
			Help: "Number of attempts to write the caBundle of the webhook configurations, by result: written or failed.",
		}, []string{"result"}),
		deferred: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flux_admission_deferred_evaluations_total",
			Help: "Number of deferred evaluations of releases whose chart was not read in time, by rule and outcome.",
		}, []string{"rule", "outcome"}),
		unauthenticated: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flux_admission_unauthenticated_requests_total",
			Help: "Number of requests refused because their client is not authenticated, by reason.",
		}, []string{"reason"}),
	}
	for _, gk := range kinds {
		m.kinds[gk] = gk.Kind
	}
	registry.MustRegister(m.reviews, m.findings, m.limited, m.auditedDenials, m.ruleErrors, m.unknown, m.panics, m.memory, m.overdue, m.overloaded,
		m.duration, m.reloads, m.caBundleWrites, m.deferred, m.unauthenticated)
	return m
}

// Kind returns the label value of a kind.
func (m *Metrics) Kind(gk schema.GroupKind) string {
	if name, ok := m.kinds[gk]; ok {
		return name
	}
	return other
}

// Review counts a response and its duration.
func (m *Metrics) Review(w Webhook, gk schema.GroupKind, operation string, dryRun bool, o Outcome, took time.Duration) {
	kind := m.Kind(gk)
	switch operation {
	case "CREATE", "UPDATE", "DELETE", "CONNECT":
	default:
		operation = other
	}
	m.reviews.WithLabelValues(string(w), kind, operation, strconv.FormatBool(dryRun), string(o)).Inc()
	m.duration.WithLabelValues(string(w), kind).Observe(took.Seconds())
}

// Finding counts a finding. Rule and action are names of this product, never values of a request.
func (m *Metrics) Finding(rule, action string, gk schema.GroupKind, dryRun bool) {
	m.findings.WithLabelValues(rule, action, m.Kind(gk), strconv.FormatBool(dryRun)).Inc()
}

// AuditedDenial counts a review that mode AuditOnly allowed and mode Enforce would deny.
func (m *Metrics) AuditedDenial(gk schema.GroupKind, dryRun bool) {
	m.auditedDenials.WithLabelValues(m.Kind(gk), strconv.FormatBool(dryRun)).Inc()
}

// LimitedFinding counts a limitation of a finding's action. All values but the rule are from fixed sets.
func (m *Metrics) LimitedFinding(rule, action, taken, reason string, dryRun bool) {
	m.limited.WithLabelValues(rule, action, taken, reason, strconv.FormatBool(dryRun)).Inc()
}

// Rules creates the counters of each rule, so that the first event of a rule is an increase.
func (m *Metrics) Rules(names ...string) {
	for _, name := range names {
		m.ruleErrors.WithLabelValues(name)
		m.unknown.WithLabelValues(name)
	}
}

// Build registers the version of the program.
func (m *Metrics) Build(version string) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "flux_admission_build_info", Help: "1, with the version of the program.", ConstLabels: prometheus.Labels{"version": version},
	}, func() float64 { return 1 }))
}

// PolicyState is the state of the policy in force.
type PolicyState struct {
	AuditOnly bool
	// Problems is the number of parts of the AdmissionPolicy that cannot be used, LimitedRules that of the rules that came after the policy.
	Problems, LimitedRules int
}

// PolicyInForce registers gauges of the policy in force.
func (m *Metrics) PolicyInForce(state func() PolicyState) {
	gauge := func(name, help string, value func(PolicyState) int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value(state())) })
	}
	m.registry.MustRegister(
		gauge("flux_admission_policy_audit_only", "1 if the mode of the policy in force is AuditOnly, else 0.", func(s PolicyState) int {
			if s.AuditOnly {
				return 1
			}
			return 0
		}),
		gauge("flux_admission_policy_problems", "Number of parts of the AdmissionPolicy that cannot be used.",
			func(s PolicyState) int { return s.Problems }),
		gauge("flux_admission_policy_limited_rules", "Number of rules that are limited to Warn because they are newer than the policy.",
			func(s PolicyState) int { return s.LimitedRules }),
	)
}

// MissedMutations registers a gauge of the stored objects that lack what the policy would have set.
func (m *Metrics) MissedMutations(count func() int) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "flux_admission_missed_mutations",
		Help: "Number of stored objects that lack what the policy would have set when they were created.",
	}, func() float64 { return float64(count()) }))
}

// RuleError counts a rule that failed or panicked.
func (m *Metrics) RuleError(rule string) { m.ruleErrors.WithLabelValues(rule).Inc() }

// Unknown counts an inconclusive evaluation of a rule.
func (m *Metrics) Unknown(rule string) { m.unknown.WithLabelValues(rule).Inc() }

// Panic counts a panic outside of rules.
func (m *Metrics) Panic() { m.panics.Inc() }

// AddMemory adds to the estimated memory of the requests that are being evaluated, in bytes.
func (m *Metrics) AddMemory(bytes int64) { m.memory.Add(float64(bytes)) }

// AddOverdue adds to the number of evaluations that run past their deadline.
func (m *Metrics) AddOverdue(evaluations int) { m.overdue.Add(float64(evaluations)) }

// Overloaded sets whether requests are refused for lack of memory.
func (m *Metrics) Overloaded(yes bool) {
	if yes {
		m.overloaded.Set(1)
	} else {
		m.overloaded.Set(0)
	}
}

// PolicyReload counts a policy that was loaded, and whether it was accepted.
func (m *Metrics) PolicyReload(accepted bool) {
	result := "refused"
	if accepted {
		result = "accepted"
	}
	m.reloads.WithLabelValues(result).Inc()
}

// CABundleWrite counts an attempt to write the caBundle of the webhook configurations; err is why it failed.
func (m *Metrics) CABundleWrite(err error) {
	result := "written"
	if err != nil {
		result = "failed"
	}
	m.caBundleWrites.WithLabelValues(result).Inc()
}

// DeferredEvaluation counts the outcome of a deferred evaluation for one rule.
func (m *Metrics) DeferredEvaluation(rule string, o deferred.Outcome) {
	m.deferred.WithLabelValues(rule, string(o)).Inc()
}

// Unauthenticated counts a request of a client that is not authenticated. The reason is a name of this product.
func (m *Metrics) Unauthenticated(reason string) { m.unauthenticated.WithLabelValues(reason).Inc() }

// CertificateExpiry registers a gauge of the expiry of the serving certificate; 0 without a certificate.
func (m *Metrics) CertificateExpiry(expiry func() time.Time) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "flux_admission_certificate_expiry_timestamp_seconds",
		Help: "Expiry of the serving certificate, in seconds since the epoch.",
	}, func() float64 {
		t := expiry()
		if t.IsZero() {
			return 0
		}
		return float64(t.Unix())
	}))
}

// Connections registers a gauge of the open connections.
func (m *Metrics) Connections(open func() int) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "flux_admission_connections",
		Help: "Number of open connections of the webhook server.",
	}, func() float64 { return float64(open()) }))
}
