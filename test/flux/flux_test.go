package flux_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fluxcd/pkg/ssa"
	ssautil "github.com/fluxcd/pkg/ssa/utils"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/flux"
)

var plane *controlplane.ControlPlane

func TestMain(m *testing.M) {
	os.Exit(controlplane.Main(m, controlplane.Options{CRDSets: controlplane.DefaultCRDs()}, func(cp *controlplane.ControlPlane) error {
		plane = cp
		return nil
	}))
}

func newClient(t *testing.T) client.Client {
	t.Helper()
	c, err := client.New(plane.Config(), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// newNamespace creates a namespace and returns its name.
func newNamespace(t *testing.T) string {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	if err := newClient(t).Create(t.Context(), namespace); err != nil {
		t.Fatal(err)
	}
	return namespace.Name
}

func objects(t *testing.T, yaml string) []*unstructured.Unstructured {
	t.Helper()
	objects, err := ssautil.ReadObjects(strings.NewReader(yaml))
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func TestApply_FieldManager(t *testing.T) {
	namespace := newNamespace(t)
	owner := client.ObjectKey{Namespace: flux.Namespace, Name: "apps"}
	manifest := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, namespace: " + namespace + "}\ndata: {a: \"1\"}\n"
	for _, want := range []ssa.Action{ssa.CreatedAction, ssa.UnchangedAction} {
		changes, err := flux.Apply(t.Context(), plane.Config(), owner, objects(t, manifest)...)
		if err != nil {
			t.Fatal(err)
		}
		if len(changes.Entries) != 1 || changes.Entries[0].Action != want {
			t.Errorf("changes: %s, want one that is %s", changes, want)
		}
	}

	var stored corev1.ConfigMap
	if err := newClient(t).Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "settings"}, &stored); err != nil {
		t.Fatal(err)
	}
	if got := stored.Labels["kustomize.toolkit.fluxcd.io/name"]; got != "apps" {
		t.Errorf("the owner's label is %q", got)
	}
	if len(stored.ManagedFields) != 1 || stored.ManagedFields[0].Manager != flux.FieldOwner || stored.ManagedFields[0].Operation != metav1.ManagedFieldsOperationApply {
		t.Errorf("managed fields: %v", stored.ManagedFields)
	}
}

func TestApply_RejectedObjectBlocksItsStage(t *testing.T) {
	namespace := newNamespace(t)
	manifest := strings.ReplaceAll(`apiVersion: v1
kind: ConfigMap
metadata: {name: innocent, namespace: NAMESPACE}
---
apiVersion: postgresql.cnpg.io/v1
kind: Cluster
metadata: {name: db, namespace: NAMESPACE}
spec:
  instances: 1
  storage: {size: 1Gi}
  monitoring: {enabled: true}
`, "NAMESPACE", namespace)
	_, err := flux.Apply(t.Context(), plane.Config(), client.ObjectKey{Namespace: flux.Namespace, Name: "apps"}, objects(t, manifest)...)
	if err == nil || !strings.Contains(err.Error(), ".spec.monitoring.enabled: field not declared in schema") {
		t.Errorf("got %v", err)
	}
	err = newClient(t).Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "innocent"}, &corev1.ConfigMap{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("the ConfigMap beside it: %v, want NotFound", err)
	}
}

func TestWaitFor_LastStateInError(t *testing.T) {
	namespace := newNamespace(t)
	if _, _, err := plane.Kubectl(t.Context(), strings.NewReader(strings.ReplaceAll(`apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: apps, namespace: NAMESPACE}
spec: {interval: 1h, prune: true, sourceRef: {kind: GitRepository, name: none}}
`, "NAMESPACE", namespace)), "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := plane.Kubectl(t.Context(), nil, "patch", "kustomization.kustomize.toolkit.fluxcd.io/apps", "-n", namespace, "--subresource=status", "--type=merge", "-p",
		`{"status":{"conditions":[{"type":"Ready","status":"False","reason":"BuildFailed","message":"no such path","lastTransitionTime":"2026-01-01T00:00:00Z","observedGeneration":1}]}}`); err != nil {
		t.Fatal(err)
	}
	c := newClient(t)

	got, err := flux.WaitFor(t.Context(), c, flux.Kustomization(namespace, "apps"), flux.NotReady("such path"), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if got.Reason != "BuildFailed" {
		t.Errorf("reason: %q", got.Reason)
	}

	tests := []struct {
		name string
		ref  flux.Ref
		want string
	}{
		{
			name: "an object in another state",
			ref:  flux.Kustomization(namespace, "apps"),
			want: "Kustomization " + namespace + `/apps: no Ready=True and "main@sha1" in its message within 1s; last seen: generation 1; Ready=False BuildFailed: no such path`,
		},
		{
			name: "an object that does not exist",
			ref:  flux.GitRepository(namespace, "none"),
			want: "GitRepository " + namespace + `/none: no Ready=True and "main@sha1" in its message within 1s; last seen: gitrepositories.source.toolkit.fluxcd.io "none" not found`,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := flux.WaitFor(t.Context(), c, test.ref, flux.Ready("main@sha1"), time.Second)
			if err == nil || err.Error() != test.want {
				t.Errorf("got\n%v\nwant\n%s", err, test.want)
			}
		})
	}
}
