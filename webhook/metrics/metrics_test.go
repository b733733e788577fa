package metrics_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/webhook/metrics"
)

var known = schema.GroupKind{Group: "kustomize.toolkit.fluxcd.io", Kind: "Kustomization"}

// series returns the labels of every series of a metric, as name=value pairs.
func series(t *testing.T, registry *prometheus.Registry, name string) []string {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			out = append(out, labels(m))
		}
	}
	return out
}

func labels(m *dto.Metric) string {
	var pairs []string
	for _, l := range m.GetLabel() {
		pairs = append(pairs, l.GetName()+"="+l.GetValue())
	}
	return strings.Join(pairs, " ")
}

func TestReview_LabelsAreBounded(t *testing.T) {
	registry := prometheus.NewRegistry()
	m := metrics.New(registry, known)
	for _, gk := range []schema.GroupKind{known, {Group: "kustomize.config.k8s.io", Kind: "Kustomization"}, {Kind: "A"}, {Kind: "B"}} {
		for _, operation := range []string{"CREATE", "X", "Y"} {
			m.Review(metrics.Validate, gk, operation, true, metrics.Denied, time.Millisecond)
		}
	}
	got := strings.Join(series(t, registry, "flux_admission_reviews_total"), "\n")
	const want = `dry_run=true kind=Kustomization operation=CREATE outcome=denied webhook=validate
dry_run=true kind=Kustomization operation=other outcome=denied webhook=validate
dry_run=true kind=other operation=CREATE outcome=denied webhook=validate
dry_run=true kind=other operation=other outcome=denied webhook=validate`
	if got != want {
		t.Errorf("series (-want +got):\n%s", cmp.Diff(want, got))
	}
}

func TestMetrics_ResultLabels(t *testing.T) {
	registry := prometheus.NewRegistry()
	m := metrics.New(registry, known)
	m.PolicyReload(true)
	m.PolicyReload(false)
	m.CABundleWrite(nil)
	m.CABundleWrite(errors.New("conflict"))
	m.Finding("kustomization-namespace", "Deny", known, true)
	m.LimitedFinding("kustomization-namespace", "Deny", "Audit", "AuditOnly", true)
	m.AuditedDenial(known, false)
	m.Rules("kustomization-namespace")
	m.Build("v1")
	m.PolicyInForce(func() metrics.PolicyState { return metrics.PolicyState{AuditOnly: true, Problems: 2, LimitedRules: 3} })
	for name, want := range map[string]string{
		"flux_admission_policy_reloads_total":   "result=accepted,result=refused",
		"flux_admission_ca_bundle_writes_total": "result=failed,result=written",
		"flux_admission_limited_findings_total": "action=Deny dry_run=true reason=AuditOnly rule=kustomization-namespace taken=Audit",
		"flux_admission_audited_denials_total":  "dry_run=false kind=Kustomization",
		"flux_admission_rule_errors_total":      "rule=kustomization-namespace", // there before the first error
		"flux_admission_build_info":             "version=v1",
		"flux_admission_findings_total":         "action=Deny dry_run=true kind=Kustomization rule=kustomization-namespace",
	} {
		if got := strings.Join(series(t, registry, name), ","); got != want {
			t.Errorf("%s has %q, want %q", name, got, want)
		}
	}
}

func TestCertificateExpiry(t *testing.T) {
	registry := prometheus.NewRegistry()
	var expiry time.Time
	metrics.New(registry).CertificateExpiry(func() time.Time { return expiry })
	for _, want := range []float64{0, 1_800_000_000} {
		if want > 0 {
			expiry = time.Unix(int64(want), 0)
		}
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, f := range families {
			if f.GetName() == "flux_admission_certificate_expiry_timestamp_seconds" {
				found = true
				if got := f.GetMetric()[0].GetGauge().GetValue(); got != want {
					t.Errorf("expiry %v, want %v", got, want)
				}
			}
		}
		if !found {
			t.Error("the metric is not there")
		}
	}
}
