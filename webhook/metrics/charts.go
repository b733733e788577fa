package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/flux-admission/flux-admission/internal/chartsource"
)

// Charts are the metrics of reading charts. Their labels are kinds of sources and outcomes, both small fixed sets.
type Charts struct {
	lookups *prometheus.CounterVec
	fetches *prometheus.HistogramVec
	cached  prometheus.Gauge
	bytes   prometheus.Gauge
}

var _ chartsource.Observer = (*Charts)(nil)

// NewCharts registers the metrics.
func NewCharts(registry prometheus.Registerer) *Charts {
	m := &Charts{
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flux_admission_chart_lookups_total",
			Help: "Number of lookups of charts by rules, by kind of source and outcome.",
		}, []string{"source", "outcome"}),
		fetches: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "flux_admission_chart_fetch_duration_seconds",
			Help:    "Time to fetch a chart from its source, in seconds.",
			Buckets: []float64{.01, .05, .1, .5, 1, 2, 5, 10, 30, 60},
		}, []string{"source", "outcome"}),
		cached: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "flux_admission_cached_charts",
			Help: "Number of charts in the cache.",
		}),
		bytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "flux_admission_cached_charts_bytes",
			Help: "Estimated memory of the charts in the cache, in bytes.",
		}),
	}
	registry.MustRegister(m.lookups, m.fetches, m.cached, m.bytes)
	return m
}

// Resolved implements chartsource.Observer.
func (m *Charts) Resolved(kind string, outcome chartsource.Outcome) {
	m.lookups.WithLabelValues(kind, string(outcome)).Inc()
}

// Fetched implements chartsource.Observer.
func (m *Charts) Fetched(kind string, outcome chartsource.Outcome, took time.Duration) {
	m.fetches.WithLabelValues(kind, string(outcome)).Observe(took.Seconds())
}

// Cached implements chartsource.Observer.
func (m *Charts) Cached(n int, bytes int64) {
	m.cached.Set(float64(n))
	m.bytes.Set(float64(bytes))
}
