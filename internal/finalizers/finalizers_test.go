package finalizers_test

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/internal/finalizers"
)

func workload(name, label string, ready int64) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"kind":     "Deployment",
		"metadata": map[string]any{"namespace": "ops", "name": name, "labels": map[string]any{"app.kubernetes.io/name": label}},
		"status":   map[string]any{"readyReplicas": ready},
	}}
}

func TestOwner_State(t *testing.T) {
	certificates, flux := "cert-manager.io/acme", "finalizers.fluxcd.io"
	for name, tc := range map[string]struct {
		finalizer string
		workloads []*unstructured.Unstructured
		complete  bool
		want      finalizers.State
	}{
		"a workload with ready Pods is alive":                {certificates, []*unstructured.Unstructured{workload("cert-manager", "", 1)}, true, finalizers.Alive},
		"a workload is known by its label":                   {certificates, []*unstructured.Unstructured{workload("cm", "cert-manager", 1)}, true, finalizers.Alive},
		"a controller of Flux is that of the group":          {flux, []*unstructured.Unstructured{workload("helm-controller", "", 1)}, true, finalizers.Alive},
		"a workload without ready Pods may come back":        {certificates, []*unstructured.Unstructured{workload("cert-manager", "", 0)}, true, finalizers.Unknown},
		"without any workload of it, the controller is gone": {certificates, []*unstructured.Unstructured{workload("web", "", 1)}, true, finalizers.Gone},
		"no workload was found among those that were read":   {certificates, nil, false, finalizers.Unknown},
		"nobody knows who removes the finalizer":             {"example.com/x", nil, true, finalizers.Unknown},
		"Kubernetes removes the finalizer":                   {"kubernetes.io/pvc-protection", nil, true, finalizers.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			state, reason := finalizers.OwnerOf("helm.toolkit.fluxcd.io", tc.finalizer).State(tc.workloads, tc.complete)
			if state != tc.want || reason == "" {
				t.Errorf("state %s (%s), want %s", state, reason, tc.want)
			}
		})
	}
}
