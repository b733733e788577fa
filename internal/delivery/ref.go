package delivery

import (
	"cmp"
	"strings"

	"github.com/fluxcd/cli-utils/pkg/object"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Ref names an object. Its version does not matter.
type Ref struct {
	Group     string `json:"group,omitempty"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// RefOf returns the reference to an object.
func RefOf(o *unstructured.Unstructured) Ref {
	return Ref{Group: groupOf(o.GetAPIVersion()), Kind: o.GetKind(), Namespace: o.GetNamespace(), Name: o.GetName()}
}

// groupOf returns the group of an apiVersion; empty for the core group.
func groupOf(apiVersion string) string {
	group, _, ok := strings.Cut(apiVersion, "/")
	if !ok {
		return ""
	}
	return group
}

// GroupKind returns the kind of the object.
func (r Ref) GroupKind() schema.GroupKind { return schema.GroupKind{Group: r.Group, Kind: r.Kind} }

// String returns the kind and the name, as in "HelmRelease apps/podinfo".
func (r Ref) String() string {
	if r.Namespace == "" {
		return r.Kind + " " + r.Name
	}
	return r.Kind + " " + r.Namespace + "/" + r.Name
}

// Compare orders references by namespace, kind, name and group.
func (r Ref) Compare(other Ref) int {
	if r.Namespace != other.Namespace {
		return cmp.Compare(r.Namespace, other.Namespace)
	}
	if r.Kind != other.Kind {
		return cmp.Compare(r.Kind, other.Kind)
	}
	return cmp.Or(cmp.Compare(r.Name, other.Name), cmp.Compare(r.Group, other.Group))
}

// to returns the reference to an object of a kind.
func to(gk schema.GroupKind, namespace, name string) Ref {
	return Ref{Group: gk.Group, Kind: gk.Kind, Namespace: namespace, Name: name}
}

// refOfID returns the reference of an entry of an inventory.
func refOfID(id string) (Ref, bool) {
	parsed, err := object.ParseObjMetadata(id)
	return to(parsed.GroupKind, parsed.Namespace, parsed.Name), err == nil && parsed.GroupKind.Kind != ""
}
