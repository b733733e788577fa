package delivery

import (
	"cmp"
	"strings"

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
	group, _, ok := strings.Cut(o.GetAPIVersion(), "/")
	if !ok {
		group = ""
	}
	return Ref{Group: group, Kind: o.GetKind(), Namespace: o.GetNamespace(), Name: o.GetName()}
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

// refOfID returns the reference of an entry of an inventory, NAMESPACE_NAME_GROUP_KIND, where a colon in a name is
// written as two underscores.
func refOfID(id string) (Ref, bool) {
	namespace, rest, ok := strings.Cut(id, "_")
	last := strings.LastIndexByte(rest, '_')
	if !ok || last < 0 {
		return Ref{}, false
	}
	kind, rest := rest[last+1:], rest[:last]
	last = strings.LastIndexByte(rest, '_')
	if last < 0 {
		return Ref{}, false
	}
	return Ref{Group: rest[last+1:], Kind: kind, Namespace: namespace, Name: strings.ReplaceAll(rest[:last], "__", ":")}, kind != ""
}
