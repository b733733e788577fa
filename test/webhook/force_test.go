package webhook_test

import (
	"strings"
	"testing"

	"github.com/fluxcd/pkg/ssa"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// TestWebhook_DenialUnderForce applies an invalid change to a stored object as kustomize-controller does for a
// Kustomization with spec.force, which deletes the object if a denial looks like a change of an immutable field.
func TestWebhook_DenialUnderForce(t *testing.T) {
	stored := kustomization("flux-system", "forced")
	if err := shared.Client.Create(t.Context(), stored); err != nil {
		t.Fatal(err)
	}
	bad := kustomization("flux-system", "forced")
	patches := []any{map[string]any{
		"patch":  "- op: add\n  path: /spec/monitoring/enabled\n  value: true\n",
		"target": map[string]any{"group": "postgresql.cnpg.io", "kind": "Cluster"},
	}}
	if err := unstructured.SetNestedSlice(bad.Object, patches, "spec", "patches"); err != nil {
		t.Fatal(err)
	}
	options := ssa.DefaultApplyOptions()
	options.Force = true
	manager := ssa.NewResourceManager(shared.Client, nil, ssa.Owner{Field: "kustomize-controller", Group: "kustomize.toolkit.fluxcd.io"})
	_, err := manager.ApplyAll(t.Context(), []*unstructured.Unstructured{bad}, options)
	if err == nil || !strings.Contains(err.Error(), "PG001") {
		t.Errorf("error %v; want a denial of PG001", err)
	}
	after := kustomization("flux-system", "forced")
	if err := shared.Client.Get(t.Context(), client.ObjectKeyFromObject(stored), after); err != nil {
		t.Fatalf("the stored object: %v", err)
	}
	if after.GetUID() != stored.GetUID() {
		t.Error("the stored object was deleted and created anew")
	}
	if err := shared.Client.Delete(t.Context(), after); err != nil {
		t.Error(err)
	}
}
