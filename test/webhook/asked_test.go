package webhook_test

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// TestWhichWritesAreAskedAbout counts the reviews that the API server asks for, write by write.
func TestWhichWritesAreAskedAbout(t *testing.T) {
	const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"
	ctx := t.Context()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	if err := shared.client.Create(ctx, ns); err != nil {
		t.Fatal(err)
	}
	fresh := func() *unstructured.Unstructured { return kustomization("flux-system", "asked") }
	apply := func(edit func(map[string]any)) func(context.Context) error {
		return func(ctx context.Context) error {
			o := fresh()
			edit(o.Object)
			return shared.client.Patch(ctx, o, client.Apply, client.FieldOwner("flux"), client.ForceOwnership) //nolint:staticcheck // unstructured objects have no other way
		}
	}
	patch := func(text string, sub ...string) func(context.Context) error {
		return func(ctx context.Context) error {
			p := client.RawPatch(types.MergePatchType, []byte(text))
			if len(sub) > 0 {
				return shared.client.SubResource(sub[0]).Patch(ctx, fresh(), p)
			}
			return shared.client.Patch(ctx, fresh(), p)
		}
	}
	spec := func(o map[string]any) map[string]any { return o["spec"].(map[string]any) }
	none := func(map[string]any) {}
	path := func(o map[string]any) { spec(o)["path"] = "./y" }
	target := func(o map[string]any) { path(o); spec(o)["targetNamespace"] = ns.Name }
	for _, step := range []struct {
		name             string
		write            func(context.Context) error
		validate, mutate float64
	}{
		{"a create without targetNamespace", apply(none), 1, 1},
		{"an unchanged server-side apply", apply(none), 0, 0},
		{"a change of the spec", apply(path), 1, 0},
		{"the same change again", apply(path), 0, 0},
		{"a label", patch(`{"metadata":{"labels":{"a":"b"}}}`), 1, 0},
		{"an annotation that no rule reads", patch(`{"metadata":{"annotations":{"reconcile.fluxcd.io/requestedAt":"now"}}}`), 0, 0},
		{"the last-applied manifest", patch(`{"metadata":{"annotations":{"` + lastApplied + `":"{}"}}}`), 1, 0},
		{"the last-applied manifest as it was", patch(`{"metadata":{"annotations":{"` + lastApplied + `":"{}"}}}`), 0, 0},
		{"a finalizer", patch(`{"metadata":{"finalizers":["example.com/a"]}}`), 0, 0},
		{"a status", patch(`{"status":{"observedGeneration":1}}`, "status"), 0, 0},
		{"a targetNamespace that is set for the first time", apply(target), 1, 0},
		{"a targetNamespace that is left out", apply(path), 1, 1},
		{"a targetNamespace that is set again", apply(target), 1, 0},
		{"a targetNamespace that is changed", patch(`{"spec":{"targetNamespace":"other"}}`), 1, 1},
		{"a deletion", func(ctx context.Context) error { return shared.client.Delete(ctx, fresh()) }, 0, 0},
		{"a change of an object that is being deleted", patch(`{"spec":{"path":"./z"}}`), 0, 0},
		{"the last finalizer", patch(`{"metadata":{"finalizers":null}}`), 0, 0},
		{"a create with targetNamespace", apply(target), 1, 0},
		{"the end", func(ctx context.Context) error { return shared.client.Delete(ctx, fresh()) }, 0, 0},
	} {
		t.Run(step.name, func(t *testing.T) {
			validate, mutate := reviews(t, "validate"), reviews(t, "mutate")
			if err := step.write(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := reviews(t, "validate") - validate; got != step.validate {
				t.Errorf("the validating webhook was asked %v times, want %v", got, step.validate)
			}
			if got := reviews(t, "mutate") - mutate; got != step.mutate {
				t.Errorf("the mutating webhook was asked %v times, want %v", got, step.mutate)
			}
		})
	}
}

// reviews returns how many reviews both gates have answered.
func reviews(t *testing.T, webhook string) float64 {
	t.Helper()
	total := 0.0
	for _, g := range shared.gates {
		n, err := g.Metric(t.Context(), "flux_admission_reviews_total", "webhook="+webhook, "kind=Kustomization")
		if err != nil {
			t.Fatal(err)
		}
		total += n
	}
	return total
}
