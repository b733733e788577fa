// Package bench_test measures what the gate costs where users feel it: through the API server.
package bench_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/gate"
)

var plane *controlplane.ControlPlane

func TestMain(m *testing.M) {
	// Only benchmarks need the control plane: `go test ./...` comes by here too.
	if !slices.ContainsFunc(os.Args, func(a string) bool { return a == "-test.bench" || len(a) > 12 && a[:12] == "-test.bench=" }) {
		os.Exit(m.Run())
	}
	os.Exit(controlplane.Main(m, controlplane.Options{CRDSets: controlplane.DefaultCRDs()}, func(cp *controlplane.ControlPlane) error {
		plane = cp
		return nil
	}))
}

// kustomization is valid, so that the gate admits it.
func kustomization(interval string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
		"metadata": map[string]any{"name": "bench", "namespace": "flux-system"},
		"spec": map[string]any{
			"interval": interval, "path": "./apps", "prune": true,
			"sourceRef": map[string]any{"kind": "GitRepository", "name": "flux-system"},
		},
	}}
}

// BenchmarkServerSideDryRunApply is what Flux does with every object at every interval. An unchanged object costs what it costs without a webhook,
// because the API server does not ask; only a changed one is asked about. The figures of one run belong together: p50-ms is the median.
func BenchmarkServerSideDryRunApply(b *testing.B) {
	ctx := b.Context()
	c, err := client.New(plane.Config(), client.Options{Scheme: scheme.Scheme})
	if err != nil {
		b.Fatal(err)
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "flux-system"}}
	if err := c.Create(ctx, ns); err != nil && !apierrors.IsAlreadyExists(err) {
		b.Fatal(err)
	}
	apply := func(ctx context.Context, o *unstructured.Unstructured, opts ...client.ApplyOption) {
		b.Helper()
		opts = append(opts, client.FieldOwner("kustomize-controller"), client.ForceOwnership)
		if err := c.Apply(ctx, client.ApplyConfigurationFromUnstructured(o), opts...); err != nil {
			b.Fatal(err)
		}
	}
	apply(ctx, kustomization("10m"))
	measure := func(interval func(i int) string) func(b *testing.B) {
		return func(b *testing.B) {
			took := make([]time.Duration, 0, b.N)
			for i := range b.N {
				o := kustomization(interval(i))
				start := time.Now()
				apply(b.Context(), o, client.DryRunAll)
				took = append(took, time.Since(start))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		}
	}
	unchanged := func(int) string { return "10m" }
	changed := func(i int) string { return fmt.Sprintf("%dm", 11+i%1000) }
	b.Run("no-webhook/unchanged", measure(unchanged))
	b.Run("no-webhook/changed", measure(changed))
	g, err := gate.Deploy(ctx, plane)
	if err != nil {
		b.Fatal(err)
	}
	reviews := func() float64 {
		n, err := g.Metric(ctx, "flux_admission_reviews_total")
		if err != nil {
			b.Fatal(err)
		}
		return n
	}
	before := reviews()
	b.Run("gate/unchanged", measure(unchanged))
	if got := reviews(); got != before {
		b.Errorf("%v reviews of unchanged applies, want none", got-before)
	}
	b.Run("gate/changed", measure(changed))
	if reviews() == before {
		b.Error("no review of a changed apply: the gate was not asked at all")
	}
}
