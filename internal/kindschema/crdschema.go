// Package kindschema knows kinds and their schemas: of CustomResourceDefinitions that it is given, of Kubernetes' own kinds, and of a
// fallback. It judges objects by the API server's own libraries: pruning, defaulting, OpenAPI validation, list types and CEL, with the API
// server's limits on cost.
package kindschema

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"

	"github.com/flux-admission/flux-admission/internal/suggest"
	"github.com/flux-admission/flux-admission/validators"
)

// CustomResourceDefinition is the kind of the objects that Add takes.
var CustomResourceDefinition = schema.GroupKind{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}

// Fallback is a stock of CustomResourceDefinitions that are known, whether or not they are installed.
type Fallback interface {
	// CRD returns the definition of a kind and where it comes from, in words for a person; nil when it has none.
	CRD(gk schema.GroupKind) (crd *apiextensionsv1.CustomResourceDefinition, origin string, err error)
	// Kinds returns the kinds that CRD has a definition of.
	Kinds() []schema.GroupKind
}

// Set is a set of known kinds. Fill it first; after that it is safe for concurrent use. Schemas are compiled when they are first used.
type Set struct {
	complete bool
	fallback Fallback
	native   *native
	crds     map[schema.GroupKind]*crd
	known    map[schema.GroupKind]*crd // of the fallback
	broken   map[schema.GroupKind]error
	assumed  map[string]bool
}

// Options are what a Set starts from.
type Options struct {
	// Complete says that no kinds are installed but those added and Kubernetes' own: what is missing is Absent. Otherwise it is Unknown.
	Complete bool
	// Fallback may be nil.
	Fallback Fallback
	// Kubernetes is the minor release of Kubernetes 1.x whose own kinds are served; 0 is the release of the libraries built in.
	Kubernetes int
}

// NewSet returns a Set that knows Kubernetes' own kinds.
func NewSet(o Options) (*Set, error) {
	n, err := newNative(o.Kubernetes)
	if err != nil {
		return nil, err
	}
	s := &Set{
		complete: o.Complete, fallback: o.Fallback, native: n,
		crds: map[schema.GroupKind]*crd{}, known: map[schema.GroupKind]*crd{}, broken: map[schema.GroupKind]error{}, assumed: map[string]bool{},
	}
	if o.Fallback == nil {
		return s, nil
	}
	for _, gk := range o.Fallback.Kinds() {
		s.known[gk] = newKnown(func() (*apiextensionsv1.CustomResourceDefinition, string, error) { return o.Fallback.CRD(gk) })
	}
	return s, nil
}

// Add adds an installed CustomResourceDefinition. Of two definitions of a kind the first is kept. Origin is where it comes from, for people.
// An error means that the object is not a definition that an API server takes; its kind is then Unknown.
func (s *Set) Add(origin string, o *unstructured.Unstructured) error { return s.add(origin, o, false) }

// AddExternal adds a CustomResourceDefinition as Add does, that something else than what is looked at installs: its kind is there from the start.
func (s *Set) AddExternal(origin string, o *unstructured.Unstructured) error {
	return s.add(origin, o, true)
}

func (s *Set) add(origin string, o *unstructured.Unstructured, external bool) error {
	gk, err := declares(o)
	if err != nil {
		return fmt.Errorf("%s: CustomResourceDefinition %s: %w", origin, o.GetName(), err)
	}
	if _, twice := s.crds[gk]; twice {
		return nil
	}
	def := &apiextensionsv1.CustomResourceDefinition{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, def); err != nil {
		err = fmt.Errorf("%s: CustomResourceDefinition %s cannot be read: %w", origin, o.GetName(), err)
		s.broken[gk] = err
		return err
	}
	delete(s.broken, gk)
	s.crds[gk] = newCRD(def, origin, external)
	return nil
}

func declares(o *unstructured.Unstructured) (schema.GroupKind, error) {
	if gvk := o.GroupVersionKind(); gvk.GroupKind() != CustomResourceDefinition {
		return schema.GroupKind{}, fmt.Errorf("is a %s of %s: only apiextensions.k8s.io/v1 CustomResourceDefinitions declare kinds", gvk.Kind, gvk.GroupVersion())
	} else if gvk.Version != "v1" {
		return schema.GroupKind{}, fmt.Errorf("is written in apiextensions.k8s.io/%s, which no API server serves since Kubernetes 1.22: write it in apiextensions.k8s.io/v1", gvk.Version)
	}
	group, _, _ := unstructured.NestedString(o.Object, "spec", "group")
	kind, _, _ := unstructured.NestedString(o.Object, "spec", "names", "kind")
	if group == "" || kind == "" {
		return schema.GroupKind{}, errors.New("declares no kind: set spec.group and spec.names.kind")
	}
	return schema.GroupKind{Group: group, Kind: kind}, nil
}

// Assume says that the kinds of an API group are installed by something that is not seen: Flux itself, or an operator. Those that the
// fallback knows are then Present, the others Unknown. Of which release they are stays open: Kind.Installed is false.
func (s *Set) Assume(group string) { s.assumed[group] = true }

// Kind tells what is known of a kind, with the contract of validators.Lookup.
func (s *Set) Kind(_ context.Context, gk schema.GroupKind) (*validators.Kind, validators.Presence, error) {
	if c, ok := s.crds[gk]; ok {
		return c.answer(gk, validators.Present)
	}
	if k := s.native.kind(gk); k != nil {
		return k, validators.Present, nil
	}
	if err, ok := s.broken[gk]; ok {
		return nil, validators.Unknown, err
	}
	presence := validators.Absent
	switch {
	case s.assumed[gk.Group]:
		presence = validators.Unknown
		if _, ok := s.known[gk]; ok {
			presence = validators.Present
		}
	case s.native.groups[gk.Group]:
		// A newer Kubernetes may have the kind; the core group is closed, and a kind of another group was put into this one.
		if gk.Group != "" && len(s.near(gk)) == 0 {
			presence = validators.Unknown
		}
	case !s.complete:
		presence = validators.Unknown
	}
	if c, ok := s.known[gk]; ok {
		return c.answer(gk, presence)
	}
	if presence == validators.Unknown {
		return nil, presence, notSeen(gk, fmt.Sprintf("no CustomResourceDefinition of %s was seen", describe(gk)))
	}
	return &validators.Kind{Near: s.near(gk)}, presence, nil
}

// near returns the kinds of the same name in other groups, and the kinds of the group whose names are near.
func (s *Set) near(gk schema.GroupKind) []schema.GroupKind {
	var out []schema.GroupKind
	names := map[string]bool{}
	consider := func(k schema.GroupKind) {
		switch {
		case k == gk:
		case k.Group == gk.Group:
			names[k.Kind] = true
		case k.Kind == gk.Kind && !slices.Contains(out, k):
			out = append(out, k)
		}
	}
	for k := range s.crds {
		consider(k)
	}
	for k, known := range s.native.kinds {
		if len(known.Served) > 0 {
			consider(k)
		}
	}
	for k := range s.known {
		consider(k)
	}
	slices.SortFunc(out, func(a, b schema.GroupKind) int { return cmp.Compare(a.Group, b.Group) })
	if n := suggest.Nearest(gk.Kind, slices.Sorted(maps.Keys(names))); n != "" {
		out = append([]schema.GroupKind{{Group: gk.Group, Kind: n}}, out...)
	}
	return out
}

func notSeen(gk schema.GroupKind, text string) error {
	return &validators.MissingInput{What: CustomResourceDefinition.Kind, Name: describe(gk), Text: text}
}

func describe(gk schema.GroupKind) string {
	if gk.Group == "" {
		return gk.Kind
	}
	return gk.Kind + " (" + gk.Group + ")"
}

// versionOrder sorts versions as the API server prefers them: v2, v1, v1beta1, v1alpha1.
func versionOrder(a, b string) int { return -version.CompareKubeAwareVersionStrings(a, b) }
