// Package admission_test tests the rules on a real API server with the real CRDs, for every way to write an object: the
// answer, the stored object and the audit annotations.
package admission_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/env"
	"github.com/flux-admission/flux-admission/test/writepath"
)

var shared *env.Env

func TestMain(m *testing.M) {
	os.Exit(env.Main(m, env.Options{
		ControlPlane: controlplane.Options{CRDSets: controlplane.DefaultCRDs(), Audit: true},
		Charts:       []string{env.AirflowChart},
		// Values from Secrets are not read nevertheless: clients are not authenticated here.
		Components: []string{"read-secrets"},
		Resources:  []string{env.MutatingWebhook},
	}, func(_ context.Context, e *env.Env) error {
		shared = e
		return nil
	}))
}

// namespace creates a namespace for one test.
func namespace(t *testing.T) string {
	t.Helper()
	return shared.Namespace(t, "test-")
}

// mode is the action of a policy on every rule, or its mode AuditOnly.
type mode string

const (
	deny      mode = "Deny"
	warn      mode = "Warn"
	audit     mode = "Audit"
	auditOnly mode = "AuditOnly"
)

var modes = []mode{deny, warn, audit, auditOnly}

// setPolicy gives every rule the action of the mode and waits until the policy is in force. Extra is YAML below spec.
func setPolicy(t *testing.T, m mode, extra string) {
	t.Helper()
	specMode, action := "Enforce", string(m)
	if m == auditOnly {
		specMode, action = "AuditOnly", "Deny"
	}
	manifest := fmt.Sprintf(`apiVersion: flux-admission.dev/v1alpha1
kind: AdmissionPolicy
metadata: {name: default}
spec:
  mode: %s
  rules:
    kustomization-namespace: {action: %[2]s, allowedNamespaces: [flux-system]}
    helm-values-schema: {action: %[2]s}
    cnpg-monitoring-enabled: {action: %[2]s}
%[3]s`, specMode, action, extra)
	if err := shared.SetPolicy(t.Context(), manifest); err != nil {
		t.Fatal(err)
	}
}

// stored returns the stored object of a manifest; nil if there is none.
func stored(t *testing.T, manifest string) *unstructured.Unstructured {
	t.Helper()
	o, err := writepath.Parse(manifest)
	if err != nil {
		t.Fatal(err)
	}
	got := &unstructured.Unstructured{}
	got.SetGroupVersionKind(o.GroupVersionKind())
	err = shared.Client.Get(t.Context(), client.ObjectKeyFromObject(o), got)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func field(o *unstructured.Unstructured, path string) any {
	v, _, _ := unstructured.NestedFieldNoCopy(o.Object, strings.Split(path, ".")...)
	return v
}

// recorded reports whether the API server's audit log has an annotation of the webhook that contains the text, on a write of
// the object.
func recorded(t *testing.T, namespace, name, text string) bool {
	t.Helper()
	events, err := shared.ControlPlane.AuditEvents()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if e.ObjectRef == nil || e.ObjectRef.Namespace != namespace || e.ObjectRef.Name != name {
			continue
		}
		for key, value := range e.Annotations {
			if strings.Contains(key, "flux-admission") && strings.Contains(value, text) {
				return true
			}
		}
	}
	return false
}
