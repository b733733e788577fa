package webhook_test

import (
	"context"
	"slices"
	"testing"
	"time"

	admissionregv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// BenchmarkReapply applies a Kustomization again, as Flux does at every interval, with and without the webhooks in
// turns. It reports both medians and their ratio, for an unchanged object, which is not sent to the webhooks, and for a
// changed one.
func BenchmarkReapply(b *testing.B) {
	ctx := b.Context()
	o := kustomization("flux-system", "reapplied")
	apply := func(path string) time.Duration {
		again := o.DeepCopy()
		again.Object["spec"].(map[string]any)["path"] = path
		start := time.Now()
		if err := shared.Client.Patch(ctx, again, client.Apply, client.FieldOwner("flux"), client.ForceOwnership); err != nil { //nolint:staticcheck // unstructured objects have no other way
			b.Fatal(err)
		}
		return time.Since(start)
	}
	apply("./x")
	b.Cleanup(func() {
		if err := shared.Client.Delete(context.WithoutCancel(ctx), o); err != nil {
			b.Error(err)
		}
	})
	paths := []string{"./a", "./b"}
	for name, path := range map[string]func(int) string{
		"unchanged": func(int) string { return "./x" },
		"changed":   func(i int) string { return paths[i%2] },
	} {
		b.Run(name, func(b *testing.B) {
			const rounds = 4
			times := map[bool][]time.Duration{}
			for round := range rounds {
				on := round%2 == 0
				match(b, on)
				apply(path(0))
				for i := range max(b.N/rounds, 1) {
					times[on] = append(times[on], apply(path(i+1)))
				}
			}
			match(b, true)
			median := func(d []time.Duration) float64 {
				slices.Sort(d)
				return float64(d[len(d)/2].Microseconds())
			}
			with, without := median(times[true]), median(times[false])
			b.ReportMetric(with, "us-with-webhooks")
			b.ReportMetric(without, "us-without")
			b.ReportMetric(with/without, "with/without")
		})
	}
}

// match enables or disables the webhooks by their namespace selector.
func match(b *testing.B, on bool) {
	b.Helper()
	selector := &metav1.LabelSelector{}
	if !on {
		selector.MatchLabels = map[string]string{"example.com/no-namespace-has-it": "x"}
	}
	key := client.ObjectKey{Name: "flux-admission"}
	var v admissionregv1.ValidatingWebhookConfiguration
	var m admissionregv1.MutatingWebhookConfiguration
	if err := shared.Client.Get(b.Context(), key, &v); err != nil {
		b.Fatal(err)
	}
	if err := shared.Client.Get(b.Context(), key, &m); err != nil {
		b.Fatal(err)
	}
	beforeV, beforeM := client.MergeFrom(v.DeepCopy()), client.MergeFrom(m.DeepCopy())
	v.Webhooks[0].NamespaceSelector, m.Webhooks[0].NamespaceSelector = selector, selector
	if err := shared.Client.Patch(b.Context(), &v, beforeV); err != nil {
		b.Fatal(err)
	}
	if err := shared.Client.Patch(b.Context(), &m, beforeM); err != nil {
		b.Fatal(err)
	}
	// The API server does not report when the change takes effect.
	<-time.After(time.Second)
}
