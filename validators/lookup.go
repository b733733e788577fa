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
	// Chart returns what a HelmRelease refers to as its chart.
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

// ChartRef is a HelmRelease's reference to its chart, as plain data.
type ChartRef struct {
	// Source is the Flux source: HelmRepository, GitRepository or Bucket (from spec.chart), OCIRepository or HelmChart (from spec.chartRef).
	Source ObjectRef
	// ReleaseNamespace is the namespace of the HelmRelease object, for Flux's rules on cross-namespace references.
	ReleaseNamespace string
	// ReleaseName is the name of the HelmRelease object. Flux keeps a HelmChart for it, whose artifact is the very chart it installs.
	ReleaseName string
	// Chart is the chart's name in a HelmRepository, or its path in a GitRepository or Bucket; empty with spec.chartRef.
	Chart string
	// Version is the semver range of spec.chart.spec.version; empty means the latest.
	Version string
	// ValuesFiles are spec.chart.spec.valuesFiles: they replace the chart's own values.yaml.
	ValuesFiles []string
	// IgnoreMissingValuesFiles tolerates entries of ValuesFiles that the chart does not have.
	IgnoreMissingValuesFiles bool
}

// Chart is what a rule may ask of a chart.
type Chart interface {
	// Name is the chart's name, from its Chart.yaml.
	Name() string
	// Version is the chart's exact version.
	Version() string
	// Validate composes the values as Flux and Helm do and puts them to the schema of the chart and of each enabled subchart.
	// An error means that no verdict could be had; its text carries no value of a Secret.
	Validate(ctx context.Context, v Values) (ValuesResult, error)
	// Render composes the values likewise and renders the chart as Helm does for an installation, without asking a cluster. Present comes
	// with the rendering; Unknown says why none can be had: a part of the values cannot be read, the chart's templates are not there.
	// It is never Absent.
	Render(ctx context.Context, r Release) (*Templated, Presence, error)
	// CRDs returns the names of the CustomResourceDefinitions ("widgets.example.com") that the chart's crds/ directory holds, subcharts
	// included, sorted.
	CRDs() []string
}

// Release is what a chart is rendered with.
type Release struct {
	// Name and Namespace are the Helm release's, not those of the HelmRelease object.
	Name, Namespace string
	Values          Values
	// SkipCRDs leaves out what is in crds/.
	SkipCRDs bool
	// UnusedValues asks for the keys that change nothing, which takes several renderings.
	UnusedValues bool
}

// Templated is what a chart renders to, or why Helm refuses to.
type Templated struct {
	// Objects are what Helm would create, crds/ and hooks included, before any post-renderer.
	Objects []TemplatedObject
	// Failure is nil when the chart renders.
	Failure *TemplateFailure
	// UnusedValues are keys of the release's own values whose removal changes nothing in what is rendered and that the chart's own values do not
	// have, in the order of their paths. Nil unless asked for, and the chart could be rendered without each.
	UnusedValues []UnknownKey
}

// TemplatedObject is an object that a chart renders.
type TemplatedObject struct {
	Object *unstructured.Unstructured
	// Template is the file it comes from, with the chart's name: "app/templates/deployment.yaml".
	Template string
	// Line is where in the rendered text of the template the object begins, from 1.
	Line int
}

// TemplateFailure is why a chart does not render.
type TemplateFailure struct {
	// Template is the file at fault, with the chart's name; may be empty.
	Template string
	// Line and Column are those of the template, from 1; 0 when not known.
	Line, Column int
	// Values is the value at fault as the template names it, a path in the release's values; empty when the message names none.
	Values Path
	// Message is what is wrong in plain words, one line without a period, with no value that may come from a Secret.
	Message string
}

// Values are the parts that a HelmRelease's values are composed of, lowest precedence first: From in order, then Inline.
type Values struct {
	// Namespace is the HelmRelease's, where From's objects live.
	Namespace string
	From      []ValuesSource
	// Inline is spec.values; nil when unset. It is not changed.
	Inline map[string]any
}

// ValuesSource is one entry of spec.valuesFrom, with the object it names where that could be read.
type ValuesSource struct {
	// Kind is ConfigMap or Secret.
	Kind, Name string
	// Key is valuesKey; empty means values.yaml.
	Key string
	// TargetPath is the dotted path that a single value is set at; empty to merge a whole document.
	TargetPath string
	// Literal sets the value at TargetPath as it is, without Helm's --set syntax.
	Literal  bool
	Optional bool
	// Presence tells whether Object could be read. Unknown makes the verdict a partial one.
	Presence Presence
	// Object is the ConfigMap or Secret; nil unless Present.
	Object *unstructured.Unstructured
}

// ValuesResult is what a chart's schemas say of composed values.
type ValuesResult struct {
	// HasSchema tells whether the chart or an enabled subchart carries a values.schema.json at all.
	HasSchema bool
	// Violations are all that could be found, in the order of their paths. With Missing parts, only those that no missing part can repair.
	Violations []Violation
	// UnknownKeys are keys of the release's own values that nothing in the chart speaks of, in the order of their paths. Those that a
	// schema refuses are violations instead.
	UnknownKeys []UnknownKey
	// Missing says which parts of values or schema could not be taken into account, a phrase each; empty when the verdict is whole.
	Missing []string
}

// UnknownKey is a key that a chart does not know: Helm ignores it.
type UnknownKey struct {
	// Chart is the name of the chart or subchart.
	Chart string
	// Path is the key's place in the release's values.
	Path Path
	// Suggestion is the nearest key that the chart has in its place; empty when there is none near.
	Suggestion string
	// Inline and From tell where the key was set, as for a Violation.
	Inline bool
	From   int
}

// Violation is one way in which values fail a schema.
type Violation struct {
	// Chart is the name of the chart or subchart whose schema it is.
	Chart string
	// Path is the place in the composed values, from the release's values root (a subchart's name included).
	Path Path
	// Pointer is the place as Helm prints it: a JSON Pointer from the values root of Chart.
	Pointer string
	// Keyword is the JSON Schema keyword that failed: additionalProperties, type, enum, ...
	Keyword string
	// Message says what is wrong, without the place. It quotes names and what the schema allows, never a value.
	Message string
	// Suggestion is the nearest name the schema knows where a name is wrong; empty when there is none near.
	Suggestion string
	// Allowed are the names that the schema allows in place of a wrong one, when they are few; sorted.
	Allowed []string
	// Inline tells that the offending field, or for a missing one the object that lacks it, stands in the release's own spec.values.
	Inline bool
	// From is the entry of Values.From, counted from 1, that the offending field comes from; 0 when it is none of them, so that
	// the field stands in spec.values or in the chart's own values.
	From int
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
