package admission_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	admissionregv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/test/writepath"
)

// waitMutations waits until the condition MutationsApplied of the policy has the reason and the text.
func waitMutations(t *testing.T, reason, text string) {
	t.Helper()
	var last any
	err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		o := &unstructured.Unstructured{}
		o.SetGroupVersionKind(schema.GroupVersionKind{Group: "flux-admission.dev", Version: "v1alpha1", Kind: "AdmissionPolicy"})
		if err := shared.Client.Get(ctx, client.ObjectKey{Name: "default"}, o); err != nil {
			return false, err
		}
		conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
		for _, item := range conditions {
			c, _ := item.(map[string]any)
			if c["type"] != "MutationsApplied" {
				continue
			}
			last = c
			message, _ := c["message"].(string)
			return c["reason"] == reason && strings.Contains(message, text), nil
		}
		return false, nil
	})
	if err != nil {
		t.Fatalf("the condition MutationsApplied is %v, want %s with %q\n%s", last, reason, text, shared.Webhook().LogTail())
	}
}

// selectNamespaces replaces the namespaces for which the mutating webhook is registered, until the test ends.
func selectNamespaces(t *testing.T, names ...string) {
	t.Helper()
	set := func(ctx context.Context, names []string) {
		c := &admissionregv1.MutatingWebhookConfiguration{}
		if err := shared.Client.Get(ctx, client.ObjectKey{Name: "flux-admission"}, c); err != nil {
			t.Fatal(err)
		}
		before := client.MergeFrom(c.DeepCopy())
		c.Webhooks[0].NamespaceSelector.MatchExpressions = []metav1.LabelSelectorRequirement{{
			Key: "kubernetes.io/metadata.name", Operator: metav1.LabelSelectorOpIn, Values: names,
		}}
		if err := shared.Client.Patch(ctx, c, before); err != nil {
			t.Fatal(err)
		}
	}
	set(t.Context(), names)
	t.Cleanup(func() { set(context.WithoutCancel(t.Context()), []string{"flux-system"}) })
}

// What the policy would have set while the webhook server was away is in the status of the policy when it is back.
func TestMutatingWebhook_MissedWhileAway(t *testing.T) {
	setPolicy(t, deny, mapToNamespace)
	ns := namespace(t)
	manifest := func(name string) string {
		return strings.Replace(fmt.Sprintf(kustomization, name+"-"+ns, "flux-system"), "/apps/airflow/", "/apps/"+ns+"/", 1)
	}
	if err := shared.Webhook().Stop(); err != nil {
		t.Fatal(err)
	}
	missed := manifest("a-missed") // among the first that the status names
	if a := writepath.Create().Write(t.Context(), shared.ControlPlane, missed); a.Err != nil {
		t.Fatal(a.Err)
	}
	if err := shared.Webhook().Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitMutations(t, "Missed", fmt.Sprintf("Kustomization flux-system/a-missed-%s (spec.targetNamespace: %[1]s)", ns))
	if got := field(stored(t, missed), "spec.targetNamespace"); got != nil {
		t.Errorf("the stored object was changed: targetNamespace is %v", got)
	}
}

// A mutating webhook that is not registered for what the policy mutates is reported, and the validating webhook warns of
// what was not set.
func TestMutatingWebhook_NotRegistered(t *testing.T) {
	setPolicy(t, deny, mapToNamespace)
	ns := namespace(t)
	selectNamespaces(t, "elsewhere")
	waitMutations(t, "NotRegistered", "spec.mutations.target-namespace selects objects of kind Kustomization of namespace flux-system")
	manifest := strings.Replace(fmt.Sprintf(kustomization, "unregistered-"+ns, "flux-system"), "/apps/airflow/", "/apps/"+ns+"/", 1)
	a := writepath.Kubectl("apply").Write(t.Context(), shared.ControlPlane, manifest)
	want := fmt.Sprintf("spec.targetNamespace was not set to %s as the policy has it", ns)
	if a.Err != nil || !strings.Contains(strings.Join(a.Warnings, " "), want) {
		t.Errorf("%s; want the warning %q", a, want)
	}
	if !recorded(t, "flux-system", "unregistered-"+ns, want) {
		t.Error("the audit log has no annotation about it")
	}
	setPolicy(t, deny, "")
	waitMutations(t, "NotNeeded", "remove manifests/inject-target-namespace")
}

// A field that a person takes out stays as long as the policy sets it, and the answer names why. After the object is taken
// out of the policy, it stays out.
func TestMutatingWebhook_FieldTakenOut(t *testing.T) {
	setPolicy(t, deny, mapToNamespace)
	ns := namespace(t)
	manifest := strings.Replace(fmt.Sprintf(kustomization, "taken-out-"+ns, "flux-system"), "/apps/airflow/", "/apps/"+ns+"/", 1)
	if a := writepath.Create().Write(t.Context(), shared.ControlPlane, manifest); a.Err != nil {
		t.Fatal(a.Err)
	}
	remove := writepath.MergePatch(`{"spec":{"targetNamespace":null}}`)
	a := remove.Write(t.Context(), shared.ControlPlane, manifest)
	if want := "spec.targetNamespace stays " + ns; a.Err != nil || !strings.Contains(strings.Join(a.Warnings, " "), want) {
		t.Errorf("%s; want the warning %q", a, want)
	}
	if got := field(stored(t, manifest), "spec.targetNamespace"); got != ns {
		t.Errorf("targetNamespace is %v, want %s", got, ns)
	}
	setPolicy(t, deny, strings.Replace(mapToNamespace, "path:", "labels: {mapped: 'yes'}, path:", 1))
	if a := remove.Write(t.Context(), shared.ControlPlane, manifest); a.Err != nil {
		t.Fatal(a.Err)
	}
	if got := field(stored(t, manifest), "spec.targetNamespace"); got != nil {
		t.Errorf("targetNamespace is %v after the object was taken out of the policy and the field out of the object", got)
	}
}
