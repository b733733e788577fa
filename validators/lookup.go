package validators

import (
	"context"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// Presence is what a Lookup knows of an object. The zero value is Unknown: whoever forgets to answer has said nothing.
type Presence int

// The three answers of a Lookup. A rule may report on Absent; on Unknown it can only say that it does not know.
const (
	Unknown Presence = iota // could not be seen: no permission, not in this tree, a time-out
	Absent                  // certainly not there
	Present                 // there, and returned
)

// String returns the presence in lower case.
func (p Presence) String() string {
	switch p {
	case Absent:
		return "absent"
	case Present:
		return "present"
	case Unknown:
		return "unknown"
	}
	return "unknown"
}

// Lookup is a rule's only view of other objects: a cluster's, a Git tree's or a test's.
//
// The error only explains an Unknown: it says why nothing is known, it is nil with Absent and Present, and its text carries no
// value of a Secret. Returned objects are shared; a caller must not change them.
type Lookup interface {
	// Get returns one object. Namespace is empty for cluster-scoped kinds.
	Get(ctx context.Context, gk schema.GroupKind, key types.NamespacedName) (*unstructured.Unstructured, Presence, error)
	// List returns all objects of a kind in a namespace (all namespaces when empty). Present with no objects means that there
	// are none; Unknown may still return those that could be seen. List is never Absent.
	List(ctx context.Context, gk schema.GroupKind, namespace string) ([]*unstructured.Unstructured, Presence, error)
	// Namespace returns a Namespace object by name.
	Namespace(ctx context.Context, name string) (*unstructured.Unstructured, Presence, error)
	// Chart returns the chart that a HelmRelease refers to.
	Chart(ctx context.Context, ref ChartRef) (Chart, Presence, error)
	// Kind returns what is known of a kind. Present says that the API server serves it, Absent that nothing makes it serve it. The Kind
	// may be there all the same, from what is known of it elsewhere: then its schema can be judged by, and its versions only guessed by.
	Kind(ctx context.Context, gk schema.GroupKind) (*Kind, Presence, error)
	// Build returns what a Flux Kustomization builds. Absent says that there is no such Kustomization; in a cluster it is Unknown.
	Build(ctx context.Context, key types.NamespacedName) (*Build, Presence, error)
	// Owners returns the Flux Kustomizations that apply an object, sorted; Present with none means that none does. It is never Absent.
	Owners(ctx context.Context, gk schema.GroupKind, key types.NamespacedName) ([]types.NamespacedName, Presence, error)
}

// ObjectRef names another object. Namespace is filled in by whoever builds the reference, never left to a default.
type ObjectRef struct {
	Group, Kind, Namespace, Name string
}

// MissingInput explains an Unknown: whoever asks has to give it first, such as a chart or a definition. It is said once for all that are missing.
type MissingInput struct {
	// What is missing: "chart", "CustomResourceDefinition".
	What string
	// Name names the one that is missing.
	Name string
	// Text is the whole explanation.
	Text string
}

// Error returns the whole explanation.
func (e *MissingInput) Error() string { return e.Text }

// Pending explains an Unknown that will be known soon: a chart that is being read. Who asks again later gets an answer.
type Pending struct {
	// Text is the whole explanation.
	Text string
}

// Error returns the whole explanation.
func (e *Pending) Error() string { return e.Text }
