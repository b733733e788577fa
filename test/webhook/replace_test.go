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

// TestACertificateIsRenewedUnderLoad runs for 30 seconds, in which the certificates of both gates are renewed several times and the CA is rotated once
// by age and once by force, and demands that no admission fails.
func TestACertificateIsRenewedUnderLoad(t *testing.T) {
	expiry := func() float64 {
		n, err := shared.gates[0].Metric(t.Context(), "flux_admission_certificate_expiry_timestamp_seconds")
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
	if err := shared.client.Get(t.Context(), client.ObjectKey{Namespace: env.Namespace, Name: "flux-admission-ca"}, &s); err != nil {
		t.Fatal(err)
	}
	return string(s.Data["tls.crt"])
}

// rotate makes the CA's Secret look incomplete, which makes the gates sign a new one at once.
func rotate(t *testing.T) {
	t.Helper()
	s := &corev1.Secret{}
	s.Namespace, s.Name = env.Namespace, "flux-admission-ca"
	if err := shared.client.Patch(t.Context(), s, client.RawPatch("application/merge-patch+json", []byte(`{"data":{"ca.crt":""}}`))); err != nil {
		t.Fatal(err)
	}
}

// TestAPolicyIsReloadedUnderLoad switches the cluster's policy between refusing and recording, while objects are admitted.
func TestAPolicyIsReloadedUnderLoad(t *testing.T) {
	var changing atomic.Bool
	l := startLoad(t, func() bool { return !changing.Load() })
	for range 3 {
		changing.Store(true)
		setMode(t, "AuditOnly")
		took := until(t, func(err error) bool { return err == nil })
		t.Logf("a bad object is let through %s after the policy was applied", took)
		setMode(t, "Enforce")
		took = until(t, func(err error) bool { return err != nil && strings.Contains(err.Error(), "KS001") })
		t.Logf("it is refused again after %s", took)
		changing.Store(false)
		pause(t, 500*time.Millisecond)
	}
	l.end(t, 300)
	p := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "flux-admission.dev/v1alpha1", "kind": "AdmissionPolicy", "metadata": map[string]any{"name": "default"}}}
	if err := client.IgnoreNotFound(shared.client.Delete(t.Context(), p)); err != nil {
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
	if err := shared.client.Patch(t.Context(), p, client.RawPatch("application/apply-patch+yaml", data), client.FieldOwner("test"), client.ForceOwnership); err != nil {
		t.Fatal(err)
	}
}

// until creates a bad object until ten answers in a row, of both gates that is, are as wanted, and returns how long that took.
func until(t *testing.T, want func(error) bool) time.Duration {
	t.Helper()
	start := time.Now()
	row := 0
	err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		if want(shared.client.Create(ctx, kustomization("default", "bad"), client.DryRunAll)) {
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

// TestAServerIsRestartedBehindTwoReplicas stops each gate in turn and starts it again, as a rollout does.
func TestAServerIsRestartedBehindTwoReplicas(t *testing.T) {
	l := startLoad(t, always)
	for i := range shared.gates {
		pause(t, time.Second)
		if err := shared.gates[i].Stop(); err != nil {
			t.Fatal(err)
		}
		g, err := env.Start(t.Context(), shared.cp, shared.options[i])
		if err != nil {
			t.Fatal(err)
		}
		shared.gates[i] = g
		shared.balancer.replace(i, g)
		if err := shared.balancer.wait(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
	}
	pause(t, time.Second)
	l.end(t, 500)
}

// TestAPolicyThatCannotBeUsedIsRefused asks the webhook for policies.
func TestAPolicyThatCannotBeUsedIsRefused(t *testing.T) {
	p := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "flux-admission.dev/v1alpha1", "kind": "AdmissionPolicy", "metadata": map[string]any{"name": "default"},
		"spec": map[string]any{"mutations": map[string]any{"target-namespace": []any{map[string]any{"targetNamespace": "{ns}"}}}},
	}}
	err := shared.client.Create(t.Context(), p, client.DryRunAll)
	if err == nil || !strings.Contains(err.Error(), "policy.flux-admission.dev") || !strings.Contains(err.Error(), "{ns} is not a named group") || apierrors.IsInvalid(err) {
		t.Errorf("error %v; want a refusal by the webhook that names the field", err)
	}
}
