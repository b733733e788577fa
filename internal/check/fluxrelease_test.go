package check

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/internal/kustomization"
)

func TestFluxRelease(t *testing.T) {
	namespace := map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{
		"name": "flux-system", "labels": map[string]any{"app.kubernetes.io/part-of": "flux", "app.kubernetes.io/version": "v2.7.5"},
	}}
	instance := map[string]any{"apiVersion": "fluxcd.controlplane.io/v1", "kind": "FluxInstance", "spec": map[string]any{
		"distribution": map[string]any{"version": "2.8.x"},
	}}
	other := map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{
		"name": "web", "labels": map[string]any{"app.kubernetes.io/part-of": "shop", "app.kubernetes.io/version": "v9.0.0"},
	}}
	tests := map[string]struct {
		objects []map[string]any
		want    string
	}{
		"nothing":           {objects: []map[string]any{other}},
		"a label":           {objects: []map[string]any{other, namespace}, want: "v2.7.5"},
		"an instance":       {objects: []map[string]any{instance}, want: "2.8.x"},
		"instance prevails": {objects: []map[string]any{namespace, instance}, want: "2.8.x"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var objects []*kustomization.Object
			for _, o := range tt.objects {
				objects = append(objects, &kustomization.Object{Unstructured: &unstructured.Unstructured{Object: o}})
			}
			if got := fluxRelease(objects); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func TestAcceptsUnset(t *testing.T) {
	for release, want := range map[string]bool{
		"": false, "2.x": false, "2.8.x": true, "v2.8.3": true, "v0.41.2": true, "v2.9.0": false, "2.10.0": false, "3.0": false, "main": false,
	} {
		if got := acceptsUnset(release); got != want {
			t.Errorf("%q: %t, want %t", release, got, want)
		}
	}
}
