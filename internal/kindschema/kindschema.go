// Package kindschema holds the kinds of a cluster and their schemas, from CustomResourceDefinitions, from Kubernetes' built-in types, and from
// a CRD catalog. It validates objects with the API server's own libraries: pruning, defaulting, OpenAPI validation, list types and CEL, with
// the API server's cost limits.
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

// BuiltInDefinition is the MissingInput.What of a kind that may or may not be installed, and is known from the catalog only.
const BuiltInDefinition = "built-in CustomResourceDefinition"

// Catalog is a collection of CustomResourceDefinitions of well-known projects, which may or may not be installed.
type Catalog interface {
	// CRD returns the definition of a kind; nil if the catalog does not contain the kind.
	CRD(gk schema.GroupKind) (*Definition, error)
	// Kinds returns the kinds that the catalog contains.
	Kinds() []schema.GroupKind
}

// Definition is a CustomResourceDefinition of a Catalog.
type Definition struct {
	CRD *apiextensionsv1.CustomResourceDefinition
	// Origin names the project and its release for a person: "Flux 2.10".
	Origin string
	// Installed means that the cluster has this release of the project.
	Installed bool
	// AsOf and Uncertain are those of validators.Kind.
	AsOf      string
	Uncertain bool
}

// Set is a set of kinds. It is safe for concurrent use once it is filled. Schemas are compiled at the first use.
type Set struct {
	complete  bool
	builtIn   *builtInTypes
	crds      map[schema.GroupKind]*crd // added
	catalog   map[schema.GroupKind]*crd
	invalid   map[schema.GroupKind]error // added, but not readable
	installed map[string]bool            // by API group; see AssumeInstalled
	named     map[schema.GroupKind]bool  // see AddSchemas
}

// Options configure a Set.
type Options struct {
	// Complete means that only the added kinds and Kubernetes' built-in types are installed: any other kind is Absent. Otherwise it is Unknown.
	Complete bool
	// Catalog may be nil.
	Catalog Catalog
	// Kubernetes is the minor version of Kubernetes 1.x whose built-in types are served; 0 is the version of the libraries built in.
	Kubernetes int
}

// NewSet returns a Set with Kubernetes' built-in types.
func NewSet(o Options) (*Set, error) {
	builtIn, err := newBuiltInTypes(o.Kubernetes)
	if err != nil {
		return nil, err
	}
	s := &Set{
		complete: o.Complete, builtIn: builtIn,
		crds: map[schema.GroupKind]*crd{}, catalog: map[schema.GroupKind]*crd{}, invalid: map[schema.GroupKind]error{}, installed: map[string]bool{},
		named: map[schema.GroupKind]bool{},
	}
	if o.Catalog == nil {
		return s, nil
	}
	for _, gk := range o.Catalog.Kinds() {
		s.catalog[gk] = newCatalogCRD(func() (*Definition, error) { return o.Catalog.CRD(gk) })
	}
	return s, nil
}

// Add adds an installed CustomResourceDefinition. If two definitions declare the same kind, the first one is kept. Origin is where the
// definition comes from, for people. An error means that an API server would reject the definition; its kind is then Unknown.
func (s *Set) Add(origin string, o *unstructured.Unstructured) error { return s.add(origin, o, false) }

// AddExternal adds a CustomResourceDefinition that is installed independently of the evaluated objects, before any of them is applied.
func (s *Set) AddExternal(origin string, o *unstructured.Unstructured) error {
	return s.add(origin, o, true)
}

// AddSchemas adds a definition of a kind for use where the API server's is not known, in place of the catalog's. A kind that may be installed counts
// as installed then: whoever names its schema has it.
func (s *Set) AddSchemas(gk schema.GroupKind, d *Definition) {
	s.named[gk] = true
	s.catalog[gk] = newCatalogCRD(func() (*Definition, error) { return d, nil })
}

func (s *Set) add(origin string, o *unstructured.Unstructured, external bool) error {
	gk, err := declares(o)
	if err != nil {
		return fmt.Errorf("%s: CustomResourceDefinition %s: %w", origin, o.GetName(), err)
	}
	if _, added := s.crds[gk]; added {
		return nil
	}
	def := &apiextensionsv1.CustomResourceDefinition{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, def); err != nil {
		err = fmt.Errorf("%s: reading CustomResourceDefinition %s: %w", origin, o.GetName(), err)
		s.invalid[gk] = err
		return err
	}
	delete(s.invalid, gk)
	s.crds[gk] = newCRD(def, origin, external)
	return nil
}

func declares(o *unstructured.Unstructured) (schema.GroupKind, error) {
	if gvk := o.GroupVersionKind(); gvk.GroupKind() != CustomResourceDefinition {
		return schema.GroupKind{}, fmt.Errorf("is a %s of %s; must be a CustomResourceDefinition of apiextensions.k8s.io/v1", gvk.Kind, gvk.GroupVersion())
	} else if gvk.Version != "v1" {
		return schema.GroupKind{}, fmt.Errorf("apiextensions.k8s.io/%s is not served since Kubernetes 1.22; use apiextensions.k8s.io/v1", gvk.Version)
	}
	gk := DefinedKind(o)
	if gk.Group == "" || gk.Kind == "" {
		return schema.GroupKind{}, errors.New("spec.group and spec.names.kind must be set")
	}
	return gk, nil
}

// DefinedKind returns the kind that a CustomResourceDefinition defines; fields that are not set are empty.
func DefinedKind(crd *unstructured.Unstructured) schema.GroupKind {
	group, _, _ := unstructured.NestedString(crd.Object, "spec", "group")
	kind, _, _ := unstructured.NestedString(crd.Object, "spec", "names", "kind")
	return schema.GroupKind{Group: group, Kind: kind}
}

// AssumeInstalled declares that the kinds of an API group are installed independently of the evaluated objects, such as Flux' own kinds. Those
// that the catalog contains are Present, the others Unknown. Kind.Installed is false, since the installed version is unknown.
func (s *Set) AssumeInstalled(group string) { s.installed[group] = true }

// Kind returns a kind, with the contract of validators.Lookup.
func (s *Set) Kind(_ context.Context, gk schema.GroupKind) (*validators.Kind, validators.Presence, error) {
	if c, ok := s.crds[gk]; ok {
		return c.kind(gk, validators.Present)
	}
	if k := s.builtIn.kinds[gk]; k != nil {
		return k, validators.Present, nil
	}
	if err, ok := s.invalid[gk]; ok {
		return nil, validators.Unknown, err
	}
	presence := validators.Absent
	switch {
	case s.installed[gk.Group]:
		presence = validators.Unknown
		if _, ok := s.catalog[gk]; ok {
			presence = validators.Present
		} else if len(s.suggestions(gk)) > 0 {
			presence = validators.Absent // a newer release may have the kind, but a mistyped name is likelier
		}
	case s.builtIn.groups[gk.Group]:
		// A newer Kubernetes may have the kind, unless the group is the core group, which is closed, or another group has the kind.
		if gk.Group != "" && len(s.suggestions(gk)) == 0 {
			presence = validators.Unknown
		}
	case !s.complete:
		presence = validators.Unknown
	}
	if s.named[gk] && presence == validators.Unknown {
		presence = validators.Present
	}
	if c, ok := s.catalog[gk]; ok {
		return c.kind(gk, presence)
	}
	if presence == validators.Unknown {
		return nil, presence, missingDefinition(gk, fmt.Sprintf("found no CustomResourceDefinition of %s", describe(gk)))
	}
	return &validators.Kind{Suggestions: s.suggestions(gk)}, presence, nil
}

// suggestions returns the kind of the same group with the most similar name, and the kinds of the same name in other groups.
func (s *Set) suggestions(gk schema.GroupKind) []schema.GroupKind {
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
	for k, kind := range s.builtIn.kinds {
		if len(kind.Served) > 0 {
			consider(k)
		}
	}
	for k := range s.catalog {
		consider(k)
	}
	slices.SortFunc(out, func(a, b schema.GroupKind) int { return cmp.Compare(a.Group, b.Group) })
	if n := suggest.Nearest(gk.Kind, slices.Sorted(maps.Keys(names))); n != "" {
		out = append([]schema.GroupKind{{Group: gk.Group, Kind: n}}, out...)
	}
	return out
}

func missingDefinition(gk schema.GroupKind, text string) error {
	return &validators.MissingInput{What: CustomResourceDefinition.Kind, Name: describe(gk), Text: text}
}

func describe(gk schema.GroupKind) string {
	if gk.Group == "" {
		return gk.Kind
	}
	return gk.Kind + " (" + gk.Group + ")"
}

// versionOrder compares versions by the API server's preference: v2, v1, v1beta1, v1alpha1.
func versionOrder(a, b string) int { return -version.CompareKubeAwareVersionStrings(a, b) }
