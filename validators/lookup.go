package validators

import (
	"context"
	"errors"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// Presence is the result of a lookup. The zero value is Unknown.
type Presence int

// The three results of a lookup. A rule reports on Absent only; on Unknown it calls Pass.Unknown.
const (
	Unknown Presence = iota // could not be read: no permission, not in this tree, a timeout
	Absent                  // certainly does not exist
	Present                 // exists, and is returned
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

// ErrWithheld is wrapped by the error of a lookup of an object that the operator does not let rules read. A rule does
// not call Pass.Unknown for it, but Pass.Skip: otherwise a policy that denies what is unknown would deny each use.
var ErrWithheld = errors.New("not read for rules")

// Lookup returns other objects, of a cluster, a Git tree or a test, to rules.
//
// The error is the reason for an Unknown and nil otherwise; its text contains no value of a Secret. Returned objects
// are shared: callers must not change them.
type Lookup interface {
	// Get returns one object. Namespace is empty for cluster-scoped kinds.
	Get(ctx context.Context, gk schema.GroupKind, key types.NamespacedName) (*unstructured.Unstructured, Presence, error)
	// List returns the objects of a kind in a namespace, or in all namespaces if it is empty. The result is Present with
	// all objects, of which there may be none, or Unknown with those that could be read.
	List(ctx context.Context, gk schema.GroupKind, namespace string) ([]*unstructured.Unstructured, Presence, error)
	// Namespace returns a Namespace object by name.
	Namespace(ctx context.Context, name string) (*unstructured.Unstructured, Presence, error)
	// Chart returns the chart that a HelmRelease refers to.
	Chart(ctx context.Context, ref ChartRef) (Chart, Presence, error)
	// Kind returns what is known about a kind: Present if the API server serves it, Absent if it certainly does not. With
	// Absent and Unknown the Kind may still be set, from the CRD catalog: its versions may differ from the cluster's then.
	Kind(ctx context.Context, gk schema.GroupKind) (*Kind, Presence, error)
	// Build returns what a Flux Kustomization builds; Absent if there is no such Kustomization. In a cluster it is
	// Unknown.
	Build(ctx context.Context, key types.NamespacedName) (*Build, Presence, error)
	// Owners returns the Flux Kustomizations that apply an object, sorted. The result is Present or Unknown.
	Owners(ctx context.Context, gk schema.GroupKind, key types.NamespacedName) ([]types.NamespacedName, Presence, error)
}

// ObjectRef names an object. Namespace has its default applied.
type ObjectRef struct {
	Group, Kind, Namespace, Name string
}

// MissingInput explains an Unknown: the caller did not supply a required input, such as a chart or a definition. It is
// reported once for all inputs of a kind.
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

// Unlikely explains an Unknown that is nearly an Absent: what was not evaluated does not plausibly have the object, such
// as the release manifest of another operator. A rule may report it as uncertain.
type Unlikely struct {
	// Text names what was not evaluated: "the remote resource https://example.com/install.yaml".
	Text string
}

// Error returns the explanation.
func (e *Unlikely) Error() string { return "it may be in " + e.Text }

// IsClusterConfigMap reports whether every namespace of a cluster has a ConfigMap of the name: Kubernetes' CA, or Istio's where that is
// installed.
func IsClusterConfigMap(name string) bool {
	return name == "kube-root-ca.crt" || name == "istio-ca-root-cert"
}

// Likely explains an Unknown that is nearly a Present: something names the object that may create it, such as the values of a chart. A
// rule reports nothing.
type Likely struct {
	// Text is the whole explanation.
	Text string
}

// Error returns the explanation.
func (e *Likely) Error() string { return e.Text }

// Pending explains an Unknown that is temporary: a chart that is being fetched. A later lookup has a result.
type Pending struct {
	// Text is the whole explanation.
	Text string
}

// Error returns the whole explanation.
func (e *Pending) Error() string { return e.Text }
