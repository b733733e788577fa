package webhook_test

import (
	"context"
	"encoding/json"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/test/env"
)

func always() bool { return true }

// pause lets the load go on for a while.
func pause(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal("the test ended early")
	}
}

// TestWebhook_CertificateRenewal checks that no admission fails while the certificates of both webhook servers are
// renewed several times and the CA is rotated, by age and by force.
func TestWebhook_CertificateRenewal(t *testing.T) {
	expiry := func() float64 {
		n, err := shared.Webhook().Metric(t.Context(), "flux_admission_certificate_expiry_timestamp_seconds")
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	first := ca(t)
	l := startLoad(t, always)
	renewals, last := 0, expiry()
	forced := false
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		pause(t, 250*time.Millisecond)
		if now := expiry(); now != last {
			renewals, last = renewals+1, now
		}
		if !forced && renewals == 1 {
			forced = true
			rotate(t)
		}
	}
	l.end(t, 3000)
	if renewals < 3 {
		t.Errorf("the certificate changed %d times; want at least 3", renewals)
	}
	if ca(t) == first {
		t.Error("the CA was not rotated")
	}
}

// ca returns the CA in its Secret.
func ca(t *testing.T) string {
	t.Helper()
	var s corev1.Secret
	if err := shared.Client.Get(t.Context(), client.ObjectKey{Namespace: env.Namespace, Name: "flux-admission-ca"}, &s); err != nil {
		t.Fatal(err)
	}
	return string(s.Data["tls.crt"])
}

// rotate makes the CA's Secret incomplete, so that the webhook servers issue a new CA at once.
func rotate(t *testing.T) {
	t.Helper()
	s := &corev1.Secret{}
	s.Namespace, s.Name = env.Namespace, "flux-admission-ca"
	if err := shared.Client.Patch(t.Context(), s, client.RawPatch("application/merge-patch+json", []byte(`{"data":{"ca.crt":""}}`))); err != nil {
		t.Fatal(err)
	}
}

// TestWebhook_PolicyReload switches the AdmissionPolicy between Enforce and AuditOnly while objects are admitted.
func TestWebhook_PolicyReload(t *testing.T) {
	var changing atomic.Bool
	l := startLoad(t, func() bool { return !changing.Load() })
	for range 3 {
		changing.Store(true)
		setMode(t, "AuditOnly")
		took := until(t, func(err error) bool { return err == nil })
		t.Logf("A bad object is allowed %s after the policy was applied", took)
		setMode(t, "Enforce")
		took = until(t, func(err error) bool { return err != nil && strings.Contains(err.Error(), "KS001") })
		t.Logf("It is denied again after %s", took)
		changing.Store(false)
		pause(t, 500*time.Millisecond)
	}
	l.end(t, 300)
	p := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "flux-admission.dev/v1alpha1", "kind": "AdmissionPolicy", "metadata": map[string]any{"name": "default"}}}
	if err := client.IgnoreNotFound(shared.Client.Delete(t.Context(), p)); err != nil {
		t.Fatal(err)
	}
}

func setMode(t *testing.T, mode string) {
	t.Helper()
	data, err := json.Marshal(map[string]any{
		"apiVersion": "flux-admission.dev/v1alpha1", "kind": "AdmissionPolicy", "metadata": map[string]any{"name": "default"},
		"spec": map[string]any{"mode": mode, "rules": map[string]any{"kustomization-namespace": map[string]any{"action": "Deny", "allowedNamespaces": []any{"flux-system"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	p := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "flux-admission.dev/v1alpha1", "kind": "AdmissionPolicy", "metadata": map[string]any{"name": "default"}}}
	if err := shared.Client.Patch(t.Context(), p, client.RawPatch("application/apply-patch+yaml", data), client.FieldOwner("test"), client.ForceOwnership); err != nil {
		t.Fatal(err)
	}
}

// until creates a bad object until ten responses in a row, thus of both webhook servers, are as wanted. It returns how
// long that took.
func until(t *testing.T, want func(error) bool) time.Duration {
	t.Helper()
	start := time.Now()
	row := 0
	err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		if want(shared.Client.Create(ctx, kustomization("default", "bad"), client.DryRunAll)) {
			row++
		} else {
			row = 0
		}
		return row == 10, nil
	})
	if err != nil {
		t.Fatalf("the policy did not take effect: %v", err)
	}
	return time.Since(start)
}

// TestWebhook_RollingRestart restarts each webhook server in turn, as a rollout does.
func TestWebhook_RollingRestart(t *testing.T) {
	l := startLoad(t, always)
	for _, w := range shared.Webhooks {
		pause(t, time.Second)
		if err := w.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := shared.WaitBalanced(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	pause(t, time.Second)
	l.end(t, 500)
}

func TestWebhook_InvalidPolicyIsDenied(t *testing.T) {
	p := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "flux-admission.dev/v1alpha1", "kind": "AdmissionPolicy", "metadata": map[string]any{"name": "default"},
		"spec": map[string]any{"mutations": map[string]any{"target-namespace": []any{map[string]any{"targetNamespace": "{ns}"}}}},
	}}
	err := shared.Client.Create(t.Context(), p, client.DryRunAll)
	if err == nil || !strings.Contains(err.Error(), "policy.flux-admission.dev") || !strings.Contains(err.Error(), "{ns} is not a named group") || apierrors.IsInvalid(err) {
		t.Errorf("error %v; want a refusal by the webhook that names the field", err)
	}
}
