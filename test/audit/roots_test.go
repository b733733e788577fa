package audit_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// stuck is a chain: a Deployment is not healthy, for which a Kustomization fails that two others wait for; and the GitRepository of a
// fourth cannot be fetched.
const stuck = `apiVersion: v1
kind: Namespace
metadata: {name: rooted}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: operator, namespace: rooted, labels: {test: roots}}
spec:
  selector: {matchLabels: {app: operator}}
  template: {metadata: {labels: {app: operator}}, spec: {containers: [{name: operator, image: "example.com/operator:1"}]}}
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: broken, namespace: flux-system, labels: {test: roots}}
spec: {interval: 1m, url: "https://git.invalid/broken"}
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: fine, namespace: flux-system, labels: {test: roots}}
spec: {interval: 1m, url: "https://git.invalid/fine"}
`

// condition is a condition Ready.
func condition(status, reason, message string) string {
	return fmt.Sprintf(`{"type": "Ready", "status": %q, "reason": %q, "message": %q, "lastTransitionTime": %q, "observedGeneration": 1}`,
		status, reason, message, time.Now().UTC().Format(time.RFC3339))
}

// setStatus replaces the status of an object, as its controller does.
func setStatus(t *testing.T, kind, namespace, name, status string) {
	t.Helper()
	kubectl(t, "", "patch", kind, name, "-n", namespace, "--subresource=status", "--type=merge", "-p", `{"status": `+status+`}`)
}

func setReady(t *testing.T, kind, namespace, name, status, reason, message string) {
	t.Helper()
	setStatus(t, kind, namespace, name, `{"observedGeneration": 1, "conditions": [`+condition(status, reason, message)+`]}`)
}

// rootEvents returns the Events of roots in a namespace.
func rootEvents(t *testing.T, namespace string) []corev1.Event {
	t.Helper()
	var list corev1.EventList
	if err := shared.Client.List(t.Context(), &list, client.InNamespace(namespace)); err != nil {
		t.Fatal(err)
	}
	var out []corev1.Event
	for _, e := range list.Items {
		if e.Reason == "RootCause" {
			out = append(out, e)
		}
	}
	return out
}

// reportedRoots returns the roots in all reports, with the number of objects that wait for each.
func reportedRoots(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, r := range resultsOf(reportObjects(t)) {
		if r["rule"] == "delivery-root" {
			resource := r["resources"].([]any)[0].(map[string]any)
			out[fmt.Sprintf("%s %s/%s", resource["kind"], resource["namespace"], resource["name"])] = r["properties"].(map[string]any)["waiting"].(string)
		}
	}
	return out
}

// eventually waits until a function returns nothing wrong.
func eventually(t *testing.T, within time.Duration, f func() string) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		wrong := f()
		if wrong == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s: %s\n%s", within, wrong, shared.Webhook().LogTail())
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// activeMetric returns a metric of the replica that audits, -1 if it does not have it.
func activeMetric(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	for _, w := range shared.Webhooks {
		if active, err := w.Metric(t.Context(), "flux_admission_audit_active"); err == nil && active == 1 {
			if value, err := w.Metric(t.Context(), name, labels...); err == nil {
				return value
			}
		}
	}
	return -1
}

// endDeletions ends the deletion of the namespaces of earlier tests: the test control plane has no controller that does, and they are roots.
func endDeletions(t *testing.T) {
	t.Helper()
	c, err := kubernetes.NewForConfig(shared.ControlPlane.Config())
	if err != nil {
		t.Fatal(err)
	}
	list, err := c.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range list.Items {
		namespace := &list.Items[i]
		if namespace.DeletionTimestamp == nil {
			continue
		}
		namespace.Spec.Finalizers = nil
		if _, err := c.CoreV1().Namespaces().Finalize(t.Context(), namespace, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRoots has objects wait behind two roots. Each has one Event, one entry of the reports and one series; after each repair one less.
func TestRoots(t *testing.T) {
	endDeletions(t)
	kubectl(t, stuck, "apply", "-f", "-")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		for _, resource := range []string{"kustomization.kustomize.toolkit.fluxcd.io", "gitrepository", "deployment"} {
			if _, stderr, err := shared.ControlPlane.Kubectl(ctx, nil, "delete", resource, "-A", "-l", "test=roots", "--wait=false"); err != nil {
				t.Error(err, stderr)
			}
		}
	})
	const ks = "kustomization.kustomize.toolkit.fluxcd.io"
	for name, extra := range map[string]string{
		"operator": "", "one": ", dependsOn: [{name: operator}]", "two": ", dependsOn: [{name: one}]", "sourced": "",
	} {
		source := "fine"
		if name == "sourced" {
			source = "broken"
		}
		text := strings.ReplaceAll(fmt.Sprintf(kustomization, "flux-system", name, extra), "name: fleet, namespace: flux-system", "name: "+source)
		kubectl(t, strings.Replace(text, "namespace: flux-system", "namespace: flux-system, labels: {test: roots}", 1), "apply", "-f", "-")
	}
	setStatus(t, "gitrepository", "flux-system", "fine", `{"observedGeneration": 1, "artifact": {"digest": "sha256:`+strings.Repeat("a", 64)+`",
		"lastUpdateTime": "2026-01-01T00:00:00Z", "path": "a", "revision": "main@sha1:a", "url": "http://source.invalid/a"},
		"conditions": [`+condition("True", "Succeeded", "stored artifact")+`]}`)
	setReady(t, "gitrepository", "flux-system", "broken", "False", "GitOperationFailed", "failed to checkout: authentication required")
	setReady(t, ks, "flux-system", "sourced", "False", "ArtifactFailed", "Source artifact not found, retrying in 30s")
	setReady(t, ks, "flux-system", "operator", "False", "HealthCheckFailed",
		"health check failed after 5m: timeout waiting for: [Deployment/rooted/operator status: 'InProgress']")
	setReady(t, ks, "flux-system", "one", "False", "DependencyNotReady", "dependency 'flux-system/operator' is not ready")
	setReady(t, ks, "flux-system", "two", "False", "DependencyNotReady", "dependency 'flux-system/one' is not ready")

	want := map[string]string{"Deployment rooted/operator": "3", "GitRepository flux-system/broken": "1"}
	same := func() string {
		if got := reportedRoots(t); fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Sprintf("the reports have the roots %v, want %v", got, want)
		}
		return ""
	}
	eventually(t, minute, same)
	eventually(t, minute, func() string {
		if n := activeMetric(t, "flux_admission_roots", "state=failed"); n != 2 {
			return fmt.Sprintf("flux_admission_roots is %v, want 2", n)
		}
		if n := activeMetric(t, "flux_admission_root_waiting_objects", "root_kind=Deployment", "root_namespace=rooted", "root_name=operator"); n != 3 {
			return fmt.Sprintf("3 objects wait for the Deployment, the metric is %v", n)
		}
		return ""
	})
	eventually(t, minute, func() string {
		found := map[string]corev1.Event{}
		for _, e := range rootEvents(t, "flux-system") {
			found[e.InvolvedObject.Kind+" "+e.InvolvedObject.Name] = e
		}
		operator, ok := found["Kustomization operator"]
		broken, also := found["GitRepository broken"]
		if !ok || !also || len(found) != 2 {
			return fmt.Sprintf("the Events are %v", found)
		}
		if !strings.Contains(operator.Message, "3 objects wait for it") || !strings.Contains(broken.Message, "1 object waits for it") {
			return fmt.Sprintf("messages %q and %q", operator.Message, broken.Message)
		}
		if operator.InvolvedObject.UID == "" || operator.Type != corev1.EventTypeWarning {
			return fmt.Sprintf("Event %v", operator)
		}
		return ""
	})

	t.Run("another leader writes the same Events", func(t *testing.T) {
		was := len(rootEvents(t, "flux-system"))
		leader := leader(t)
		if err := leader.Kill(); err != nil {
			t.Fatal(err)
		}
		eventually(t, 2*minute, func() string {
			if n := activeMetric(t, "flux_admission_roots", "state=failed"); n != 2 {
				return fmt.Sprintf("the other replica has %v roots, want 2", n)
			}
			return same()
		})
		if err := leader.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, minute, func() string {
			if n := len(rootEvents(t, "flux-system")); n != was {
				return fmt.Sprintf("%d Events, want %d", n, was)
			}
			return ""
		})
	})

	setReady(t, "gitrepository", "flux-system", "broken", "True", "Succeeded", "stored artifact")
	setReady(t, ks, "flux-system", "sourced", "True", "ReconciliationSucceeded", "Applied revision: main")
	delete(want, "GitRepository flux-system/broken")
	eventually(t, minute, same)

	for _, name := range []string{"operator", "one", "two"} {
		setReady(t, ks, "flux-system", name, "True", "ReconciliationSucceeded", "Applied revision: main")
	}
	delete(want, "Deployment rooted/operator")
	eventually(t, minute, same)
	if n := activeMetric(t, "flux_admission_not_ready"); n < 0 {
		t.Errorf("flux_admission_not_ready is %v", n)
	}
}
