package lookup

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// unread are the fields of objects in the cache that no rule reads at admission, by kind: the values of a release are most
// of its size. A rule reads those of the object under review, which come with the request.
var unread = map[string][][]string{
	"HelmRelease": {
		{"spec", "values"}, {"spec", "postRenderers"}, {"status", "history"}, {"status", "inventory"},
	},
	"Kustomization": {{"status", "inventory"}},
	// The audit reads the queries of the object that it evaluates from the API server.
	"PrometheusRule":           {{"spec"}},
	"GrafanaDashboard":         {{"spec"}, {"status"}},
	"CustomResourceDefinition": {{"spec", "versions"}, {"spec", "conversion"}},
}

// Strip removes from an object what no rule reads of another object. It is a cache.TransformFunc: it changes the object.
func Strip(object any) (any, error) {
	if m, ok := object.(*metav1.PartialObjectMetadata); ok {
		m.ManagedFields, m.Annotations = nil, nil
		return m, nil
	}
	o, ok := object.(*unstructured.Unstructured)
	if !ok {
		return object, nil // a tombstone
	}
	o.SetManagedFields(nil)
	// kubectl keeps a whole copy of the object in an annotation.
	if a := o.GetAnnotations(); a[corev1.LastAppliedConfigAnnotation] != "" {
		delete(a, corev1.LastAppliedConfigAnnotation)
		o.SetAnnotations(a)
	}
	for _, field := range unread[o.GetKind()] {
		unstructured.RemoveNestedField(o.Object, field...)
	}
	return o, nil
}
