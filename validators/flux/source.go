package flux

import (
	"cmp"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/validators"
)

// SourceOf returns the source of a Kustomization or an ImageUpdateAutomation: its spec.sourceRef, whose namespace is by default that of
// the object. The name is empty without one.
func SourceOf(o *unstructured.Unstructured) validators.ObjectRef {
	ref, _, _ := unstructured.NestedStringMap(o.Object, "spec", "sourceRef")
	return validators.ObjectRef{
		Group: GitRepository.Group, Kind: ref["kind"], Namespace: cmp.Or(ref["namespace"], o.GetNamespace()), Name: ref["name"],
	}
}
