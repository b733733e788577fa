package manifest_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/manifest"
)

func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestMask(t *testing.T) {
	for name, tc := range map[string]struct{ given, want string }{
		"an object without secrets is left": {
			"{apiVersion: v1, kind: ConfigMap, data: {a: hunter2}}", "{apiVersion: v1, kind: ConfigMap, data: {a: hunter2}}",
		},
		"values of a Secret, keys stay": {
			"{apiVersion: v1, kind: Secret, data: {a: aHVudGVyMg==}, stringData: {b: hunter2, c: ''}}",
			"{apiVersion: v1, kind: Secret, data: {a: '***'}, stringData: {b: '***', c: '***'}}",
		},
		"what kubectl repeats of a Secret": {
			"{apiVersion: v1, kind: Secret, metadata: {annotations: {kubectl.kubernetes.io/last-applied-configuration: hunter2, a: b}}}",
			"{apiVersion: v1, kind: Secret, metadata: {annotations: {kubectl.kubernetes.io/last-applied-configuration: '***', a: b}}}",
		},
		"values that SOPS encrypted, in any kind": {
			"{apiVersion: v1, kind: ConfigMap, data: {a: 'ENC[AES256_GCM,data:x]', b: c}, list: ['ENC[AES256_GCM,data:x]']}",
			"{apiVersion: v1, kind: ConfigMap, data: {a: '**SOPS**', b: c}, list: ['**SOPS**']}",
		},
		"an encrypted Secret": {
			"{apiVersion: v1, kind: Secret, stringData: {a: 'ENC[AES256_GCM,data:x]', b: hunter2}}",
			"{apiVersion: v1, kind: Secret, stringData: {a: '**SOPS**', b: '***'}}",
		},
		"data of a wrong type":       {"{apiVersion: v1, kind: Secret, data: hunter2}", "{apiVersion: v1, kind: Secret, data: '***'}"},
		"a kind of another group":    {"{apiVersion: example.com/v1, kind: Secret, data: {a: b}}", "{apiVersion: example.com/v1, kind: Secret, data: {a: b}}"},
		"a Secret without any value": {"{apiVersion: v1, kind: Secret}", "{apiVersion: v1, kind: Secret}"},
	} {
		t.Run(name, func(t *testing.T) {
			given := object(t, tc.given)
			before := given.DeepCopy()
			if diff := cmp.Diff(object(t, tc.want).Object, manifest.Mask(given).Object); diff != "" {
				t.Errorf("masked (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before.Object, given.Object); diff != "" {
				t.Errorf("the object itself changed:\n%s", diff)
			}
		})
	}
}

// The order is that of kustomize-controller's stages; within a stage, that of fluxcd/pkg/ssa.
func TestOrder(t *testing.T) {
	var objects []*unstructured.Unstructured
	for _, kind := range []string{"Deployment", "StorageClass", "Widget", "Namespace", "ConfigMap", "CustomResourceDefinition", "ClusterRole", "Service"} {
		o := &unstructured.Unstructured{}
		o.SetAPIVersion(map[string]string{
			"CustomResourceDefinition": "apiextensions.k8s.io/v1", "ClusterRole": "rbac.authorization.k8s.io/v1", "StorageClass": "storage.k8s.io/v1",
		}[kind])
		if o.GetAPIVersion() == "" {
			o.SetAPIVersion("v1")
		}
		o.SetKind(kind)
		o.SetName("a")
		objects = append(objects, o)
	}
	var got []string
	for _, o := range manifest.Order(objects) {
		got = append(got, o.GetKind())
	}
	want := "CustomResourceDefinition Namespace ClusterRole StorageClass ConfigMap Service Deployment Widget"
	if text := strings.Join(got, " "); text != want {
		t.Errorf("order %s, want %s", text, want)
	}
}
