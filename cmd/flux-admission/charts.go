package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/flux-admission/flux-admission/internal/chartsource"
	"github.com/flux-admission/flux-admission/webhook/deferred"
)

// chartMetrics counts what happens to charts. Its labels are kinds of sources and outcomes, both small fixed sets.
type chartMetrics struct {
	resolved *prometheus.CounterVec
	fetched  *prometheus.HistogramVec
	cached   prometheus.Gauge
	bytes    prometheus.Gauge
	late     *prometheus.CounterVec
}

func newChartMetrics(registry prometheus.Registerer) *chartMetrics {
	m := &chartMetrics{
		resolved: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flux_admission_chart_lookups_total", Help: "Lookups of charts by rules, by the source's kind and the outcome.",
		}, []string{"source", "outcome"}),
		fetched: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "flux_admission_chart_fetch_duration_seconds", Help: "Time to read a chart from its source, in the background or not.",
			Buckets: []float64{.01, .05, .1, .5, 1, 2, 5, 10, 30, 60},
		}, []string{"source", "outcome"}),
		cached: prometheus.NewGauge(prometheus.GaugeOpts{Name: "flux_admission_cached_charts", Help: "Charts in the cache."}),
		bytes:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "flux_admission_cached_charts_bytes", Help: "Memory that the cached charts take, as estimated."}),
	}
	m.late = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "flux_admission_late_verdicts_total", Help: "Verdicts on releases whose chart came too late for their review, by rule and verdict.",
	}, []string{"rule", "verdict"})
	registry.MustRegister(m.resolved, m.fetched, m.cached, m.bytes, m.late)
	return m
}

var _ chartsource.Observer = (*chartMetrics)(nil)

// Resolved implements chartsource.Observer.
func (m *chartMetrics) Resolved(kind string, outcome chartsource.Outcome) {
	m.resolved.WithLabelValues(kind, string(outcome)).Inc()
}

// Fetched implements chartsource.Observer.
func (m *chartMetrics) Fetched(kind string, outcome chartsource.Outcome, took time.Duration) {
	m.fetched.WithLabelValues(kind, string(outcome)).Observe(took.Seconds())
}

// Cached implements chartsource.Observer.
func (m *chartMetrics) Cached(n int, bytes int64) {
	m.cached.Set(float64(n))
	m.bytes.Set(float64(bytes))
}

// Late counts a verdict that came after its review.
func (m *chartMetrics) Late(rule string, v deferred.Verdict) {
	m.late.WithLabelValues(rule, string(v)).Inc()
}
