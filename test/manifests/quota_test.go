package manifests_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/env"
)

// limitedPriorityClasses is how GKE configures its API server.
const limitedPriorityClasses = `apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
  - name: ResourceQuota
    configuration:
      apiVersion: apiserver.config.k8s.io/v1
      kind: ResourceQuotaConfiguration
      limitedResources:
        - resource: pods
          matchScopes:
            - scopeName: PriorityClass
              operator: In
              values: [system-node-critical, system-cluster-critical]
`

// TestBase_PriorityClassIsLimited creates the Pod of the Deployment where priority classes need a quota.
func TestBase_PriorityClassIsLimited(t *testing.T) {
	config := filepath.Join(t.TempDir(), "admission.yaml")
	if err := os.WriteFile(config, []byte(limitedPriorityClasses), 0o600); err != nil {
		t.Fatal(err)
	}
	limited, err := controlplane.Start(t.Context(), controlplane.Options{APIServerArgs: map[string][]string{
		"admission-control-config-file": {config},
		"enable-admission-plugins":      {"ResourceQuota", "Priority"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := limited.Stop(); err != nil {
			t.Error(err)
		}
	})
	root, err := env.Root()
	if err != nil {
		t.Fatal(err)
	}
	if err := limited.InstallManifests(t.Context(), filepath.Join(root, env.Overlay), nil); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(limited.Config(), client.Options{Scheme: scheme.Scheme})
	if err != nil {
		t.Fatal(err)
	}
	quota := &corev1.ResourceQuota{}
	key := client.ObjectKey{Namespace: env.Namespace, Name: "flux-admission-critical-pods"}
	if err := c.Get(t.Context(), key, quota); err != nil {
		t.Fatal(err)
	}
	// No controller manager runs here to publish the quota.
	quota.Status = corev1.ResourceQuotaStatus{Hard: quota.Spec.Hard, Used: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("0")}}
	if err := c.Status().Update(t.Context(), quota); err != nil {
		t.Fatal(err)
	}
	create := func(namespace string) error {
		return c.Create(t.Context(), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "pod-"},
			Spec: corev1.PodSpec{
				PriorityClassName: "system-cluster-critical",
				Containers:        []corev1.Container{{Name: "a", Image: "a"}},
			},
		}, client.DryRunAll)
	}
	if err := create("default"); err == nil || !strings.Contains(err.Error(), "insufficient quota") {
		t.Errorf("in a namespace without a quota: %v", err)
	}
	if err := create(env.Namespace); err != nil && strings.Contains(err.Error(), "quota") {
		t.Errorf("in the namespace of the webhook server: %v", err)
	}
}
