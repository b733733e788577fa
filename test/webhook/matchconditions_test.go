package webhook_test

import (
	"context"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// TestWebhook_MatchConditions counts the reviews that the API server sends for each write.
func TestWebhook_MatchConditions(t *testing.T) {
	const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"
	ns := shared.Namespace(t, "test-")
	fresh := func() *unstructured.Unstructured { return kustomization("flux-system", "matched") }
	apply := func(edit func(map[string]any)) func(context.Context) error {
		return func(ctx context.Context) error {
			o := fresh()
			edit(o.Object)
			return shared.Client.Patch(ctx, o, client.Apply, client.FieldOwner("flux"), client.ForceOwnership) //nolint:staticcheck // unstructured objects have no other way
		}
	}
	patch := func(text string, sub ...string) func(context.Context) error {
		return func(ctx context.Context) error {
			p := client.RawPatch(types.MergePatchType, []byte(text))
			if len(sub) > 0 {
				return shared.Client.SubResource(sub[0]).Patch(ctx, fresh(), p)
			}
			return shared.Client.Patch(ctx, fresh(), p)
		}
	}
	spec := func(o map[string]any) map[string]any { return o["spec"].(map[string]any) }
	none := func(map[string]any) {}
	path := func(o map[string]any) { spec(o)["path"] = "./y" }
	target := func(o map[string]any) { path(o); spec(o)["targetNamespace"] = ns }
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
		{"a deletion", func(ctx context.Context) error { return shared.Client.Delete(ctx, fresh()) }, 0, 0},
		{"a change of an object that is being deleted", patch(`{"spec":{"path":"./z"}}`), 0, 0},
		{"the last finalizer", patch(`{"metadata":{"finalizers":null}}`), 0, 0},
		{"a create with targetNamespace", apply(target), 1, 0},
		{"the end", func(ctx context.Context) error { return shared.Client.Delete(ctx, fresh()) }, 0, 0},
	} {
		t.Run(step.name, func(t *testing.T) {
			validate, mutate := reviews(t, "validate"), reviews(t, "mutate")
			if err := step.write(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := reviews(t, "validate") - validate; got != step.validate {
				t.Errorf("%v reviews by the validating webhook; want %v", got, step.validate)
			}
			if got := reviews(t, "mutate") - mutate; got != step.mutate {
				t.Errorf("%v reviews by the mutating webhook; want %v", got, step.mutate)
			}
		})
	}
}

// reviews returns the number of reviews of Kustomizations by all webhook servers.
func reviews(t *testing.T, webhook string) float64 {
	t.Helper()
	n, err := shared.Metric(t.Context(), "flux_admission_reviews_total", "webhook="+webhook, "kind=Kustomization")
	if err != nil {
		t.Fatal(err)
	}
	return n
}
