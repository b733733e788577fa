package validators

import (
	"context"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// ChartRef is a HelmRelease's reference to its chart, as plain data.
type ChartRef struct {
	// Source is the Flux source: HelmRepository, GitRepository or Bucket (spec.chart), OCIRepository or HelmChart
	// (spec.chartRef).
	Source ObjectRef
	// ReleaseNamespace is the namespace of the HelmRelease object. Flux compares it with the source's namespace where
	// cross-namespace references are denied.
	ReleaseNamespace string
	// ReleaseName is the name of the HelmRelease object. Flux creates a HelmChart for it, whose artifact is the chart it
	// installs.
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

// MissingValuesFile explains an Unknown: the chart was read, and lacks a file of ChartRef.ValuesFiles, so that Flux cannot package it.
type MissingValuesFile struct{ Name string }

// Error implements error.
func (e *MissingValuesFile) Error() string { return "it has no values file " + e.Name }

// Chart validates a release's values against a chart and templates the chart with them. It is safe for concurrent use.
// No error of a Chart quotes a value that comes from a Secret.
type Chart interface {
	// Name returns the chart's name, from its Chart.yaml.
	Name() string
	// Version returns the chart's exact version.
	Version() string
	// Validate composes the values as Flux and Helm do, and validates them against the schemas of the chart and of each
	// enabled subchart. An error means that there is no result.
	Validate(ctx context.Context, v Values) (ValuesResult, error)
	// Template composes the values as Validate does, and executes the chart's templates as Helm does for an installation,
	// without a cluster. It returns Present with the result, or Unknown with the reason, such as values that cannot be
	// read or templates that were not loaded. It is never Absent.
	Template(ctx context.Context, r Release) (*Templated, Presence, error)
	// CRDs returns the names of the CustomResourceDefinitions ("widgets.example.com") in the chart's crds/ directory and
	// those of its subcharts, sorted.
	CRDs() []string
}

// Release is the input of Chart.Template.
type Release struct {
	// Name and Namespace are the Helm release's, not those of the HelmRelease object.
	Name, Namespace string
	Values          Values
	// SkipCRDs leaves out the objects of crds/.
	SkipCRDs bool
	// UnusedValues also determines Templated.UnusedValues, which templates the chart several times.
	UnusedValues bool
}

// Templated is the result of Chart.Template: the objects that Helm would create, or why Helm fails.
type Templated struct {
	// Objects are the objects that Helm would create, crds/ and hooks included, before any post-renderer.
	Objects []TemplatedObject
	// Failure is nil when templating succeeds.
	Failure *TemplateFailure
	// UnusedValues are keys of the release's own values that are not in the chart's values and whose removal changes no
	// object, in the order of their paths. It is nil unless Release.UnusedValues is set and each key could be tried.
	UnusedValues []UnusedValue
}

// TemplatedObject is an object that a chart's templates produce.
type TemplatedObject struct {
	Object *unstructured.Unstructured
	// Template is the template's file, with the chart's name: "app/templates/deployment.yaml".
	Template string
	// Line is the line at which the object begins in the template's output, from 1.
	Line int
}

// TemplateFailure is why Helm cannot template a chart.
type TemplateFailure struct {
	// Template is the file that fails, with the chart's name; may be empty.
	Template string
	// Line and Column are those of the template, from 1; 0 when not known.
	Line, Column int
	// Values is the value that the failing expression reads, as a path in the release's values; empty when it reads none.
	Values Path
	// Message describes the problem, in one line without a period and without any value that may come from a Secret.
	Message string
}

// Values are the inputs of a HelmRelease's values, lowest precedence first: From in order, then Inline.
type Values struct {
	// Namespace is the HelmRelease's, in which the objects of From are.
	Namespace string
	From      []ValuesSource
	// Inline is spec.values; nil when unset. It is not changed.
	Inline map[string]any
}

// ValuesSource is one entry of spec.valuesFrom, with the object that it names if that could be read.
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
	// Presence reports whether Object could be read. With Unknown, the result of a validation is partial.
	Presence Presence
	// Withheld reports that Object is Unknown because the operator does not let rules read it.
	Withheld bool
	// Reason is why Object is Unknown; it may be empty.
	Reason string
	// Object is the ConfigMap or Secret; nil unless Present.
	Object *unstructured.Unstructured
}

// ValuesResult is the result of validating composed values against a chart's schemas.
type ValuesResult struct {
	// HasSchema reports whether the chart or an enabled subchart has a values.schema.json at all.
	HasSchema bool
	// Violations are in the order of their paths. When inputs are Missing, they are those that no missing input can
	// repair.
	Violations []Violation
	// More is how many violations there are beside these, which are at most 200.
	More int
	// UnusedValues returns keys of the release's own values that no value, comment or template of the chart mentions, in the
	// order of their paths, and those that are known when the context ends. Keys that a schema rejects are Violations instead.
	// It is nil without a result, and searches at each call: most rules do not call it.
	UnusedValues func(context.Context) []UnusedValue
	// Missing names the values and schemas that could not be read, a phrase each. When it is empty, the result is
	// complete.
	Missing []string
}

// UnusedValue is a key of a release's values that the chart does not use. Helm ignores it.
type UnusedValue struct {
	// Chart is the name of the chart or subchart.
	Chart string
	// Path is the key's path in the release's values.
	Path Path
	// Suggestion is the most similar key that the chart has at that level; empty when there is none.
	Suggestion string
	// Inline and From are where the key is set, as in a Violation.
	Inline bool
	From   int
}

// Violation is one error that a schema reports in values.
type Violation struct {
	// Chart is the name of the chart or subchart whose schema it is.
	Chart string
	// Path is the field's path in the composed values, from the root of the release's values (a subchart's name included).
	Path Path
	// Pointer is the position as Helm prints it: a JSON Pointer from the root of Chart's values.
	Pointer string
	// Keyword is the JSON Schema keyword that failed: additionalProperties, type, enum, ...
	Keyword string
	// Message describes the violation, without the position. It quotes names and what the schema allows, never a value.
	Message string
	// Suggestion is the most similar name that the schema allows in place of a wrong one; empty when there is none.
	Suggestion string
	// Allowed are the names that the schema allows in place of a wrong one, when they are few; sorted.
	Allowed []string
	// Inline reports whether spec.values sets the field, or the object that lacks a required field.
	Inline bool
	// From is the entry of Values.From, counted from 1, that sets the field; 0 when none does: then spec.values or the
	// chart's own values set it.
	From int
}
