// Package admission_test proves the rules on a real API server with the real CRDs: what is answered, what is stored and what is recorded,
// on every way to write an object.
package admission_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/test/chartrepo"
	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/env"
	"github.com/flux-admission/flux-admission/test/writepath"
)

// bench is what all tests of the package share.
type bench struct {
	cp         *controlplane.ControlPlane
	gate       *env.Webhook
	client     client.Client
	repository *httptest.Server
}

var shared bench

func TestMain(m *testing.M) {
	os.Exit(controlplane.Main(m, controlplane.Options{CRDSets: controlplane.DefaultCRDs(), Audit: true}, setUp))
}

func setUp(cp *controlplane.ControlPlane) error {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	shared.cp = cp
	var err error
	if shared.gate, err = env.Deploy(ctx, cp); err != nil {
		return err
	}
	root, err := env.Root()
	if err != nil {
		return err
	}
	web := filepath.Join(cp.Dir(), "charts")
	if err := os.Mkdir(web, 0o750); err != nil {
		return err
	}
	if shared.repository, err = chartrepo.Serve(web, filepath.Join(root, "test", "demo", "charts", "airflow")); err != nil {
		return err
	}
	if shared.client, err = client.New(cp.Config(), client.Options{Scheme: scheme.Scheme}); err != nil {
		return err
	}
	flux := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "flux-system"}}
	if err := shared.client.Create(ctx, flux); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	return nil
}

// namespace creates a namespace for one test.
func namespace(t *testing.T) string {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	if err := shared.client.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	return ns.Name
}

// mode is one way in which a policy may treat the three mistakes.
type mode string

const (
	deny      mode = "Deny"
	warn      mode = "Warn"
	audit     mode = "Audit"
	auditOnly mode = "AuditOnly"
)

var modes = []mode{deny, warn, audit, auditOnly}

// setPolicy makes every rule act as the mode says and waits until that is in force. Extra is YAML below spec.
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
	if a := writepath.Kubectl("apply", "--server-side", "--force-conflicts").Write(t.Context(), shared.cp, manifest); a.Err != nil {
		t.Fatal(a.Err)
	}
	if err := shared.gate.WaitPolicy(t.Context(), shared.client); err != nil {
		t.Fatal(err)
	}
}

// stored returns the object that the manifest names; nil when there is none.
func stored(t *testing.T, manifest string) *unstructured.Unstructured {
	t.Helper()
	o, err := writepath.Parse(manifest)
	if err != nil {
		t.Fatal(err)
	}
	got := &unstructured.Unstructured{}
	got.SetGroupVersionKind(o.GroupVersionKind())
	err = shared.client.Get(t.Context(), client.ObjectKeyFromObject(o), got)
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

// recorded tells whether the API server's audit log has an annotation of the gate with the text, for a write of the object.
func recorded(t *testing.T, namespace, name, text string) bool {
	t.Helper()
	events, err := shared.cp.AuditEvents()
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
