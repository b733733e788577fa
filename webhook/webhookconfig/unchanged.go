package webhookconfig

import (
	"reflect"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Unchanged reports whether an update changes nothing that rules read: spec, labels and kubectl's last-applied
// manifest. It is the negation of the match condition "changed". Status, finalizers and owners may differ.
func Unchanged(object, old *unstructured.Unstructured) bool {
	if object == nil || old == nil {
		return false
	}
	return annotation(object, LastApplied) == annotation(old, LastApplied) &&
		same(object.Object, old.Object, "metadata", "labels") &&
		same(object.Object, old.Object, "spec")
}

// BeingDeleted reports whether the object has a deletion timestamp: an update of it can only complete the deletion.
func BeingDeleted(object *unstructured.Unstructured) bool {
	_, found := field(object.Object, "metadata", "deletionTimestamp")
	return found
}

func annotation(o *unstructured.Unstructured, key string) any {
	v, found := field(o.Object, "metadata", "annotations", key)
	if !found {
		return ""
	}
	s, ok := v.(string)
	if !ok {
		return &v // equal to no other value: a malformed annotation counts as changed
	}
	return s
}

func same(a, b map[string]any, keys ...string) bool {
	va, oka := field(a, keys...)
	vb, okb := field(b, keys...)
	return oka == okb && reflect.DeepEqual(va, vb)
}

// field is unstructured.NestedFieldNoCopy for objects of any shape.
func field(o map[string]any, keys ...string) (any, bool) {
	v, found, err := unstructured.NestedFieldNoCopy(o, keys...)
	return v, found && err == nil
}
